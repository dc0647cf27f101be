"""Algorithms on offer: what a card says of one, its wheel by digest, and whether it is what is installed here.

Nothing that was pulled is installed or run: a wheel is fetched, checked and kept as a file. An administrator installs
it, and the organisation's own policy allows its code by digest (`spec.algorithm_code`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.documents import LARGEST_MODEL, decode, encode
from lepton_pipelines.ledger.errors import DocumentRefused
from lepton_pipelines.ledger.predicate import digest_of
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.market.place import Place
from lepton_pipelines.market.product import Line, Paragraphs
from lepton_pipelines.market.shared_rows import download
from lepton_pipelines.spec.algorithm import find_algorithm
from lepton_pipelines.spec.algorithm_code import Code, code_of_wheel, installed_code
from lepton_pipelines.spec.allowing import allow_algorithm
from lepton_pipelines.spec.fields import Name, SpecModel, Text, did_you_mean
from lepton_pipelines.spec.yaml_file import read_model

Open = Callable[[str], Any]
"""URL → a binary file object to read from."""
Documents = Callable[[str], bytes]
"""Digest → a document of the market. Raises DocumentRefused if it is nowhere, or not what its digest says."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SummedVector(SpecModel):
    """Something that an algorithm adds up over organisations, and what its total tells everybody."""

    name: Line = Field(title="Name", description="Of the sum, as in averaging/labels.")
    what: Line = Field(title="What", description="What each organisation puts in.")
    reveals: Line = Field(title="Reveals", description="What the total tells every member.")

    noun: ClassVar[str] = "field"


class AlgorithmFile(SpecModel):
    """An algorithm as its publisher describes it; name, version and entry point are the wheel's."""

    organisation: Name = Field(title="Organisation", description="Who offers it.")
    title: Line = Field(title="Title", description="One line for people.")
    description: Paragraphs = Field(default="", title="Description", description="What it does, for people.")
    licence: Line = Field(title="Licence", description="SPDX identifier, such as Apache-2.0.")
    wheel: Text = Field(title="Wheel", description="The built distribution, a .whl file.")
    url: Text | None = Field(
        default=None, title="URL", description="Where others fetch a wheel that is too long to be kept at the hub."
    )
    sums: list[SummedVector] = Field(
        min_length=1, max_length=100, title="Sums", description="All that it adds up over organisations."
    )

    noun: ClassVar[str] = "field"


class AlgorithmCard(BaseModel):
    """What is said of an algorithm: for people, and for whoever installs it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["lepton-algorithm-card/v1"] = "lepton-algorithm-card/v1"
    name: Line
    version: Line
    title: Line
    description: Paragraphs = ""
    licence: Line
    distribution: Line
    entry_point: Line
    requires: list[Line] = Field(default_factory=list, max_length=200)
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,200}\.whl$")]
    size: Annotated[int, Field(gt=0)]
    url: str | None = None
    parameters: dict[str, Any]
    sums: list[SummedVector]


@dataclass(frozen=True)
class AlgorithmOffer:
    """A version on offer. id: owner/name; index: of the ledger's entry; wheel, code: digests of file and content.

    card_digest: of the document that the card was read from.
    """

    id: str
    version: str
    index: int
    wheel: str
    code: str
    card: AlgorithmCard
    card_digest: str

    def summary(self) -> dict[str, Any]:
        """Return what a listing shows."""
        told = {name: getattr(self, name) for name in ("id", "version", "index", "wheel", "code")}
        return {**told, "title": self.card.title, "licence": self.card.licence}


def offer_algorithm(place: Place, spec: Path) -> tuple[str, str, bool]:
    """Offer the algorithm that a file describes; the same again changes nothing.

    The parameters' schema is the installed algorithm's, which must be what the wheel holds. Returns its id, its
    version, and whether anything was written. Raises UserError if file or wheel are wrong, or not installed here.
    """
    told = read_model(AlgorithmFile, spec)
    if told.organisation != place.organisation:
        raise MarketRefused(f"{spec}: the algorithm is {told.organisation}'s, but you speak for {place.organisation}.")
    path = spec.resolve().parent / told.wheel
    code = code_of_wheel(path)
    _same_code(code, installed_code(code.algorithm), f"the wheel {path.name}")
    wheel = path.read_bytes()
    if len(wheel) <= LARGEST_MODEL:
        place.put(wheel, most=LARGEST_MODEL)
    elif told.url is None:
        raise MarketRefused(
            f"{path.name} has more than {LARGEST_MODEL >> 20} MiB: put it where others can fetch it, as url."
        )
    card = AlgorithmCard(
        name=code.algorithm, version=code.version, title=told.title, description=told.description,
        licence=told.licence, distribution=code.distribution, entry_point=code.entry_point,
        requires=list(code.requires), file=path.name, size=len(wheel), url=told.url, sums=told.sums,
        parameters=find_algorithm(code.algorithm).parameters.model_json_schema(),
    )  # fmt: skip
    digest = place.put(encode(card.model_dump(mode="json", exclude_none=True)))
    offer = f"{place.organisation}/{code.algorithm}"
    known = place.history().algorithms.releases.get((offer, code.version))
    if known is not None and not known.withdrawn and known.offered.card == digest:
        return offer, code.version, False
    place.record(
        entries.AlgorithmOffered,
        offer=offer,
        version=code.version,
        wheel=digest_of(wheel),
        code=code.digest,
        card=digest,
    )
    return offer, code.version, True


def withdraw_algorithm(place: Place, offer: str, version: str | None, reason: str) -> str:
    """Offer a version no longer; return which. Who has pulled it keeps it, and policies go on allowing it."""
    found = algorithm_offer(place, offer, version)
    place.record(entries.AlgorithmWithdrawn, offer=offer, version=found.version, wheel=found.wheel, reason=reason)
    return found.version


def algorithm_offers(place: Place, text: str = "") -> list[AlgorithmOffer]:
    """Return the versions on offer whose card holds all these words; one without a whole card is left out."""
    found = []
    for (offer, version), release in sorted(place.history().algorithms.releases.items()):
        if release.withdrawn:
            continue
        try:
            one = _read(place, offer, version)
        except (DocumentRefused, MarketRefused):
            continue
        card = one.card
        words = " ".join(
            [offer, card.title, card.description, card.licence, *(each.what for each in card.sums)]
        ).lower()
        if all(word in words for word in text.lower().split()):
            found.append(one)
    return found


def algorithm_offer(place: Place, offer: str, version: str | None = None) -> AlgorithmOffer:
    """Return a version on offer, the one offered last unless given. Raises MarketRefused if there is none."""
    releases = place.history().algorithms.releases
    on_offer = {number: each for (name, number), each in releases.items() if name == offer and not each.withdrawn}
    if not on_offer:
        raise MarketRefused(f"{offer} is not on offer.{did_you_mean(offer, sorted({name for name, _ in releases}))}")
    number = max(on_offer, key=lambda each: on_offer[each].index) if version is None else version
    if number not in on_offer:
        raise MarketRefused(f"{offer} {number} is not on offer; there are {', '.join(sorted(on_offer))}.")
    return _read(place, offer, number)


def pull_algorithm(
    documents: Documents, offer: AlgorithmOffer, cache: Path, open_url: Open, *, licence: str | None = None
) -> Path:
    """Fetch a wheel and return where it lies; it is neither installed nor run.

    documents: returns one by its digest.
    cache: folder of what was fetched before; a wheel lies below its digest there. licence: what it must be, if given.
    Raises UserError if it has another licence, another digest, or holds other code than the ledger says.
    """
    card = offer.card
    if licence is not None and card.licence != licence:
        raise MarketRefused(f"{offer.id} has the licence {card.licence}, you asked for {licence}. Nothing was fetched.")
    path = cache / offer.wheel / card.file
    if not path.is_file() or digest_of(path.read_bytes()) != offer.wheel:
        if card.url is not None and card.size > LARGEST_MODEL:
            download(open_url, card.url, path, offer.wheel, offer.id)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(documents(offer.wheel))
    try:
        _same_code(code_of_wheel(path), _said(offer), f"the wheel of {offer.id} {offer.version}")
    except MarketRefused:
        path.unlink()
        raise
    return path


def verify_installed(offer: AlgorithmOffer) -> Code:
    """Hold what is installed here against an offer. Raises UserError if it is not installed, or other code."""
    code = installed_code(offer.card.name)
    _same_code(code, _said(offer), f"what is installed here as {offer.card.name}")
    return _said(offer)


def use_algorithm(offer: AlgorithmOffer, organisation_file: Path) -> bool:
    """Allow an algorithm's code in an organisation's own file, once what is installed here is that code.

    Returns whether the file was changed. Raises UserError if other code is installed, or the file cannot be changed.
    """
    code = verify_installed(offer)
    return allow_algorithm(organisation_file, code.algorithm, code.digest)


def _said(offer: AlgorithmOffer) -> Code:
    card = offer.card
    return Code(card.name, card.entry_point, card.distribution, card.version, tuple(card.requires), offer.code)


def _same_code(found: Code | None, expected: Code | None, what: str) -> None:
    if found is None or expected is None:
        raise MarketRefused(f"{what} is Lepton Pipelines' own algorithm, which comes with it and is not offered.")
    if found != expected:
        raise MarketRefused(
            f"{what} is not the code that it should be: {found.distribution} {found.version} with the digest "
            f"{found.digest}, expected {expected.distribution} {expected.version} with {expected.digest}. "
            "Install the wheel that was pulled, or pull the version that is installed."
        )


def read_offer(
    documents: Documents, offer: str, version: str, index: int, *, wheel: str, code: str, card: str
) -> AlgorithmOffer:
    """Return an algorithm on offer with its card. documents: returns one by its digest.

    Raises MarketRefused if the card is malformed, or another algorithm's.
    """
    try:
        told = AlgorithmCard.model_validate(decode(documents(card)))
    except (ValidationError, ValueError) as error:
        raise MarketRefused(f"the card {card[:16]}… is malformed: {error}") from error
    if (f"{offer.split('/')[0]}/{told.name}", told.version) != (offer, version):
        raise MarketRefused(f"the card {card[:16]}… is of another algorithm than {offer} {version}")
    return AlgorithmOffer(offer, version, index, wheel, code, told, card)


def _read(place: Place, offer: str, version: str) -> AlgorithmOffer:
    release = place.history().algorithms.releases[offer, version]
    offered = release.offered
    return read_offer(
        place.get, offer, version, release.index, wheel=offered.wheel, code=offered.code, card=offered.card
    )
