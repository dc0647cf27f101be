"""What an organisation offers of its Dask cluster: cores, memory, accelerators, hours, for whom, quota, price."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_pipelines.ledger.compute import Offered
from lepton_pipelines.ledger.compute_entries import ComputeOffered, ComputeWithdrawn
from lepton_pipelines.ledger.documents import decode, encode
from lepton_pipelines.ledger.errors import DocumentRefused
from lepton_pipelines.market.place import Place
from lepton_pipelines.market.product import Line, Paragraphs
from lepton_pipelines.market.terms import Price, last_second
from lepton_pipelines.pool.errors import PoolRefused
from lepton_pipelines.spec.fields import Name, SpecModel, did_you_mean
from lepton_pipelines.spec.hours import PATTERN
from lepton_pipelines.spec.organisation import Compute, LocalCompute, Memory
from lepton_pipelines.spec.yaml_file import read_model

Hours = Annotated[str, Field(pattern=f"^(?:{PATTERN})$")]


class Accelerators(SpecModel):
    """Processors besides, such as GPUs."""

    count: int = Field(ge=1, le=10_000, title="Count", description="How many.")
    kind: Line = Field(title="Kind", description="What they are, such as NVIDIA A2.")


class OfferTerms(SpecModel):
    """Computers as their owner offers them to others: all that is told of them."""

    offer: Name = Field(title="Offer", description="Its name; the organisation's stands before it.")
    organisation: Name = Field(title="Organisation", description="Whose they are.")
    title: Line = Field(title="Title", description="One line for people.")
    description: Paragraphs = Field(default="", title="Description", description="For people.")
    cores: int = Field(ge=1, le=100_000, title="Cores", description="Worker threads that may be in use at once.")
    memory: Memory = Field(title="Memory", description="For all of them, such as 32 GB.")
    accelerators: Accelerators | None = Field(default=None, title="Accelerators", description="Such as GPUs.")
    hours: list[Hours] = Field(
        default_factory=list, max_length=20, title="Hours", description="UTC: mon-fri 18:00-06:00; unset: always."
    )
    members: list[Name] | None = Field(
        default=None, min_length=1, max_length=64, title="Members", description="For whom; unset: any member."
    )
    quota: int | None = Field(
        default=None, ge=1, title="Quota", description="Most core-hours that a member may reserve in a month."
    )
    until: date | None = Field(default=None, title="Until", description="Last day, UTC.")
    price: Price | None = Field(default=None, title="Price", description="What a core-hour costs.")

    noun: ClassVar[str] = "field"

    @property
    def id(self) -> str:
        """The offer's id: owner/name."""
        return f"{self.organisation}/{self.offer}"


class OfferFile(OfferTerms):
    """An offer as it lies at its owner's. `compute` stays there."""

    compute: Compute = Field(default_factory=LocalCompute, title="Compute", description="The Dask cluster.")


class Described(BaseModel):
    """What the ledger's entry has no room for."""

    model_config = ConfigDict(extra="forbid")

    format: str = Field(default="lepton-compute-offer/v1", pattern="^lepton-compute-offer/v1$")
    title: Line
    description: Paragraphs = ""
    price: Price | None = None


@dataclass(frozen=True)
class ComputeOffer:
    """Computers on offer. id: owner/name. entry: what the ledger has of them."""

    id: str
    entry: Offered
    described: Described

    @property
    def terms(self) -> ComputeOffered:
        """How much, when, for whom."""
        return self.entry.terms

    def summary(self) -> dict[str, Any]:
        """Return what a listing shows."""
        fields = {"version", "cores", "memory", "accelerators", "accelerator", "members", "hours", "quota", "until"}
        price = self.described.price
        return {
            "offer": self.id,
            "title": self.described.title,
            **self.terms.model_dump(mode="json", include=fields),
            "price": None if price is None else price.model_dump(mode="json"),
        }


def offer_compute(place: Place, spec: Path) -> tuple[str, int, bool]:
    """Offer the computers that a file describes. Raises UserError if the file is wrong."""
    return offer_told(place, read_model(OfferFile, spec))


def offer_told(place: Place, told: OfferTerms) -> tuple[str, int, bool]:
    """Offer computers, or change an offer; the same again changes nothing.

    Returns its id, its version, and whether anything was written. Raises PoolRefused if they are another's.
    """
    if told.organisation != place.organisation:
        raise PoolRefused(f"{told.id}: the offer is {told.organisation}'s, but you speak for {place.organisation}.")
    described = Described(title=told.title, description=told.description, price=told.price)
    fields: dict[str, Any] = {
        "cores": told.cores,
        "memory": told.memory,
        "hours": list(told.hours),
        "terms": place.put(encode(described.model_dump(mode="json", exclude_none=True))),
    }
    if told.accelerators is not None:
        fields |= {"accelerators": told.accelerators.count, "accelerator": told.accelerators.kind}
    fields |= {"members": sorted(told.members)} if told.members is not None else {}
    fields |= {"quota": told.quota} if told.quota is not None else {}
    fields |= {"until": last_second(told.until)} if told.until is not None else {}
    known = place.history().compute.offers.get(told.id)
    version = 1 if known is None else known.terms.version + 1
    if known is not None and not known.withdrawn:
        before = known.terms.model_dump(mode="json", exclude_none=True)
        common = {"ledger", "id", "time", "author", "offer", "version"}
        if {name: value for name, value in before.items() if name not in common} == {"accelerators": 0, **fields}:
            return told.id, known.terms.version, False
    place.record(ComputeOffered, offer=told.id, version=version, **fields)
    return told.id, version, True


def withdraw_compute(place: Place, offer: str, reason: str) -> None:
    """Offer computers no longer: nothing more is reserved, and no more work is taken on."""
    place.record(ComputeWithdrawn, offer=offer, terms=compute_offer(place, offer).terms.terms, reason=reason)


def compute_offers(place: Place, text: str = "") -> list[ComputeOffer]:
    """Return what is on offer whose description holds all these words; what cannot be read is left out."""
    found = []
    for name, entry in sorted(place.history().compute.offers.items()):
        if entry.withdrawn:
            continue
        try:
            one = _read(place, name, entry)
        except (DocumentRefused, PoolRefused):
            continue
        words = " ".join([name, one.described.title, one.described.description, entry.terms.accelerator or ""]).lower()
        if all(word in words for word in text.lower().split()):
            found.append(one)
    return found


def compute_offer(place: Place, offer: str) -> ComputeOffer:
    """Return one offer. Raises PoolRefused, with the nearest name, if there is none."""
    offers = place.history().compute.offers
    known = offers.get(offer)
    if known is None or known.withdrawn:
        there = [name for name, each in offers.items() if not each.withdrawn]
        raise PoolRefused(f"{offer} is not on offer.{did_you_mean(offer, there)} See: lepton pool offers")
    return _read(place, offer, known)


def _read(place: Place, name: str, entry: Offered) -> ComputeOffer:
    try:
        return ComputeOffer(name, entry, Described.model_validate(decode(place.get(entry.terms.terms))))
    except (ValidationError, ValueError) as error:
        raise PoolRefused(f"the description of {name} is malformed: {error}") from error
