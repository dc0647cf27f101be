"""What the REST API takes and answers about the compute pool; the SDK hands the same models to its caller."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from lepton_pipelines.pool.jobs import Benchmark, Tuning
from lepton_pipelines.portal.messages import Message
from lepton_pipelines.spec.organisation import Memory

OfferId = Annotated[str, Field(max_length=260, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]
Job = Annotated[Benchmark | Tuning, Field(discriminator="work")]


class Amount(Message):
    """What is free of an offer. memory: bytes."""

    cores: int
    memory: int
    accelerators: int


class Price(Message):
    """What a core-hour costs."""

    amount: float
    currency: str


class ComputeOffer(Message):
    """Computers on offer. memory: bytes. members: None is every member. hours: UTC, none is always.

    quota: most core-hours that a member may reserve in a month; reserved_core_hours_this_month: by who holds them.
    """

    offer: str
    title: str
    version: int
    cores: int
    memory: int
    accelerators: int
    accelerator: str | None
    members: list[str] | None
    hours: list[str]
    quota: int | None
    until: str | None
    price: Price | None
    free: Amount
    reserved_core_hours_this_month: dict[str, float]


class PoolJob(Message):
    """Work under a reservation. outcome: asked, done or failed."""

    job: str
    outcome: str


class Reservation(Message):
    """Some of an offer, held by one organisation. state: to come, held, released or ended."""

    reservation: str
    holder: str
    offer: str
    work: str
    cores: int
    memory: int
    accelerators: int
    start: str
    end: str
    state: str
    jobs: list[PoolJob]


class ComputeOfferDetail(ComputeOffer):
    """An offer with its description, its reservations, and the ledger's entry."""

    owner: str
    description: str
    index: int
    reservations: list[Reservation]


class Hours(Message):
    """Core-hours. measured: as Dask has them, by the owner's word."""

    reserved: float
    measured: float


class JobHours(Message):
    """What one job took."""

    organisation: str
    offer: str
    core_hours: float


class CoreHours(Message):
    """Core-hours by organisation, and by job."""

    by_organisation: dict[str, Hours]
    by_run: dict[str, JobHours]


class PoolStatus(Message):
    """The whole pool at a moment."""

    at: str
    offers: list[ComputeOffer]
    reservations: list[Reservation]
    core_hours: CoreHours


class JobResult(Message):
    """What came of a job. outcome: asked while it is not done; result: what its document says, in its owner's words."""

    job: str
    outcome: str
    core_seconds: float = 0.0
    result: dict[str, Any] = Field(default_factory=dict)


class Reserve(Message):
    """What is needed. memory: bytes, or such as 4 GB. start: unset, now. offer: unset, where there is room."""

    work: Literal["benchmark", "tuning", "scoring"]
    cores: Annotated[int, Field(ge=1, le=1_000_000)]
    memory: Memory
    hours: Annotated[float, Field(ge=0.01, le=744, allow_inf_nan=False)]
    accelerators: Annotated[int, Field(ge=0, le=10_000)] = 0
    start: datetime | None = None
    offer: OfferId | None = None


class RunJob(Message):
    """Work to be done under a reservation: a benchmark, or a tuning on a shareable product."""

    job: Job
