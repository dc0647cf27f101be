"""Models on offer: what a card says of one, and that its file is the one that the ledger knows. Nothing is executed."""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.documents import LARGEST_MODEL, decode, encode
from lepton_pipelines.ledger.errors import DocumentRefused
from lepton_pipelines.ledger.predicate import digest_of
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.market.place import Place
from lepton_pipelines.market.product import Line, Paragraphs
from lepton_pipelines.spec.fields import did_you_mean

ALGORITHM: Final = "xgboost"  # a stock model file, which is data; other algorithms' files need their code to be read


class CardColumn(BaseModel):
    """A raw input column of the model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Line
    kind: Literal["number", "integer", "boolean", "category"]
    missing: bool
    categories: list[str] = Field(default_factory=list, max_length=100_000)
    minimum: float | None = None
    maximum: float | None = None


class Card(BaseModel):
    """What is said of a model: for people, and for whoever registers it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["lepton-model-card/v1"] = "lepton-model-card/v1"
    title: Line
    description: Paragraphs = ""
    licence: Line
    algorithm: Literal["xgboost"] = ALGORITHM
    objective: Line
    label: Line
    columns: list[CardColumn] = Field(min_length=1, max_length=10_000)
    scores: dict[Line, float] = Field(default_factory=dict, max_length=200)
    run: Line
    members: list[Line]


@dataclass(frozen=True)
class ModelOffer:
    """A version on offer. id: owner/name; index: of the ledger's entry; digest: of the file and document."""

    id: str
    version: int
    index: int
    digest: str
    card: Card

    def summary(self) -> dict[str, Any]:
        """Return what a listing shows."""
        told = asdict(self)
        del told["card"]
        card = self.card
        return {**told, "title": card.title, "licence": card.licence, "label": card.label, "scores": card.scores}


def offer_model(place: Place, name: str, version: int, model: bytes, card: Card) -> str:
    """Offer a version that this organisation published; return its id. Raises MarketRefused if it did not."""
    known = place.history().runs.versions.get((name, version))
    digest = digest_of(model)
    if known is None or known.published.author.organisation != place.organisation:
        raise MarketRefused(f"{place.organisation} has published no {name} v{version} in this ledger: run it first.")
    if known.published.digest != digest:
        raise MarketRefused(f"the file of {name} v{version} is not the one that was published. Do not offer it.")
    place.put(model, most=LARGEST_MODEL)
    told = place.put(encode(card.model_dump(mode="json", exclude_none=True)))
    offer = f"{place.organisation}/{name}"
    place.record(entries.ModelOffered, offer=offer, version=version, digest=digest, card=told)
    return offer


def withdraw_model(place: Place, offer: str, version: int | None, reason: str) -> int:
    """Offer a version no longer; return which."""
    found = model_offer(place, offer, version)
    place.record(entries.ModelWithdrawn, offer=offer, version=found.version, digest=found.digest, reason=reason)
    return found.version


def model_offers(place: Place, text: str = "") -> list[ModelOffer]:
    """Return the versions on offer whose card holds all these words; one without a whole card is left out."""
    found = []
    for (offer, version), (index, entry) in sorted(place.history().runs.offers.items()):
        try:
            one = ModelOffer(offer, version, index, entry.digest, _card(place, entry.card))
        except (DocumentRefused, MarketRefused):
            continue
        words = " ".join([offer, one.card.title, one.card.description, one.card.label, one.card.licence]).lower()
        if all(word in words for word in text.lower().split()):
            found.append(one)
    return found


def model_offer(place: Place, offer: str, version: int | None = None) -> ModelOffer:
    """Return a version on offer, the newest unless given. Raises MarketRefused if there is none."""
    offers = place.history().runs.offers
    versions = sorted(number for name, number in offers if name == offer)
    if not versions:
        raise MarketRefused(f"{offer} is not on offer.{did_you_mean(offer, sorted({name for name, _ in offers}))}")
    number = versions[-1] if version is None else version
    if number not in versions:
        raise MarketRefused(f"{offer} v{number} is not on offer; there are {', '.join(map(str, versions))}.")
    index, entry = offers[offer, number]
    return ModelOffer(offer, number, index, entry.digest, _card(place, entry.card))


def model_file(place: Place, offer: ModelOffer) -> bytes:
    """Return the model's file. Raises DocumentRefused if it is missing or has another digest than the ledger says."""
    return place.get(offer.digest)


def _card(place: Place, digest: str) -> Card:
    try:
        return Card.model_validate(decode(place.get(digest)))
    except (ValidationError, ValueError) as error:
        raise MarketRefused(f"the card {digest[:16]}… is malformed: {error}") from error
