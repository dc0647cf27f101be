"""What may stand in the ledger about computing: offers, reservations, and the work that was done under them."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from lepton_pipelines.ledger.predicate import (
    Line,
    Name,
    Organisation,
    Predicate,
    ProductId,
    Reason,
    Sha256,
    Time,
    digest_of,
    pattern,
)
from lepton_pipelines.spec.hours import PATTERN, moment

WorkKind = Literal["benchmark", "tuning", "scoring"]
Cores = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1 << 50)]
Count = Annotated[int, Field(ge=0, le=10_000)]


def _real(text: str) -> str:
    moment(text)
    return text


Moment = Annotated[Time, AfterValidator(_real)]


class ComputeOffered(Predicate):
    """An organisation's Dask cluster may be used: how much of it, when, by whom. Once more is a higher version.

    memory: bytes. members: for whom; None is every member. hours: of the week, UTC; none is always. quota: most
    core-hours that a member may reserve in a calendar month. terms: the document with title, price and the like.
    """

    KIND: ClassVar[str] = "compute-offered"

    offer: ProductId
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    cores: Cores
    memory: Bytes
    accelerators: Count = 0
    accelerator: Annotated[Line, Field(max_length=100)] | None = None
    members: Annotated[list[Organisation], Field(min_length=1, max_length=64)] | None = None
    hours: list[Annotated[str, pattern(f"(?:{PATTERN})")]] = Field(default_factory=list, max_length=20)
    quota: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    until: Moment | None = None
    terms: Sha256

    def subjects(self) -> list[tuple[str, str]]:
        """The terms."""
        return [(f"{self.offer}/terms", self.terms)]


class ComputeWithdrawn(Predicate):
    """An offer ends: nothing more is reserved, and nothing more is asked for under what was."""

    KIND: ClassVar[str] = "compute-withdrawn"

    offer: ProductId
    terms: Sha256
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The terms."""
        return [(f"{self.offer}/terms", self.terms)]


class ComputeReserved(Predicate):
    """The author takes some of an offer for itself, for a kind of work, from start to end."""

    KIND: ClassVar[str] = "compute-reserved"

    reservation: Name
    offer: ProductId
    terms: Sha256
    work: WorkKind
    cores: Cores
    memory: Bytes
    accelerators: Count = 0
    start: Moment
    end: Moment

    @model_validator(mode="after")
    def _forward(self) -> "ComputeReserved":
        if not self.start < self.end:
            raise ValueError("a reservation ends after it starts")
        return self

    def subjects(self) -> list[tuple[str, str]]:
        """The terms under which it is reserved."""
        return [(f"{self.offer}/{self.reservation}", self.terms)]


class ComputeReleased(Predicate):
    """A reservation ends now: said by who holds it, or by whose the computers are."""

    KIND: ClassVar[str] = "compute-released"

    reservation: Name
    reason: Reason

    def subjects(self) -> list[tuple[str, str]]:
        """The reservation's name."""
        return [(self.reservation, digest_of(self.reservation.encode()))]


class WorkAsked(Predicate):
    """The holder of a reservation asks for some work; job: the document that says what is to be done."""

    KIND: ClassVar[str] = "work-asked"

    job: Name
    reservation: Name
    work: WorkKind
    document: Sha256

    def subjects(self) -> list[tuple[str, str]]:
        """What is to be done."""
        return [(f"{self.reservation}/{self.job}", self.document)]


class WorkEnded(Predicate):
    """Some work was done, or failed: what it took by Dask's own measure, and the document with the result."""

    KIND: ClassVar[str] = "work-ended"

    job: Name
    outcome: Literal["done", "failed"]
    core_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    tasks: Annotated[int, Field(ge=0, le=1_000_000)]
    result: Sha256

    def subjects(self) -> list[tuple[str, str]]:
        """The result."""
        return [(self.job, self.result)]


COMPUTE_KINDS = (ComputeOffered, ComputeWithdrawn, ComputeReserved, ComputeReleased, WorkAsked, WorkEnded)
