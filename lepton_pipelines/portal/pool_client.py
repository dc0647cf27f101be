"""The SDK's part for the compute pool: the verbs of `lepton pool` but serving, which is its owner's own process."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lepton_pipelines.portal.messages import Refusal
from lepton_pipelines.portal.pool_messages import (
    ComputeOffer,
    ComputeOfferDetail,
    JobResult,
    PoolStatus,
    Reservation,
    Reserve,
    RunJob,
)
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.portal.client import Platform


class Pool:
    """Computers on offer, reservations, and work without private rows. The verbs of `lepton pool`."""

    def __init__(self, platform: "Platform") -> None:
        self._platform = platform

    def offers(self, text: str = "") -> list[ComputeOffer]:
        """List computers on offer, with what is free now.

        >>> [(one.offer, one.cores) for one in platform.pool.offers("evenings")]
        [('harbour/evenings', 16)]
        """
        return self._platform.get("/pool/offers", list[ComputeOffer], text=text)

    def show(self, offer: str) -> ComputeOfferDetail:
        """Show an offer and what is reserved of it.

        >>> platform.pool.show("harbour/evenings").quota
        100
        """
        return self._platform.get(f"/pool/offers/{offer}", ComputeOfferDetail)

    def status(self) -> PoolStatus:
        """Show what is free and reserved, and core-hours: reserved, and as Dask measured them.

        >>> platform.pool.status().core_hours.by_organisation["north"].measured
        0.002083
        """
        return self._platform.get("/pool", PoolStatus)

    def offer(self, spec: Path | str) -> ComputeOfferDetail:
        """Offer the computers that a file describes, or change an offer. Its `compute` is not sent."""
        from lepton_pipelines.pool.offers import OfferFile, OfferTerms
        from lepton_pipelines.spec.yaml_file import read_model

        told = read_model(OfferFile, Path(spec)).model_dump(mode="json", exclude={"compute"}, exclude_none=True)
        return self._platform.post("/pool/offers", ComputeOfferDetail, OfferTerms.model_validate(told))

    def withdraw(self, offer: str, *, reason: str) -> None:
        """Offer computers no longer."""
        self._platform.tell(f"/pool/offers/{offer}/withdraw", Refusal(reason=reason))

    def reserve(
        self,
        work: Literal["benchmark", "tuning", "scoring"],
        *,
        cores: int,
        memory: int | str,
        hours: float,
        accelerators: int = 0,
        start: datetime | None = None,
        offer: str | None = None,
    ) -> Reservation:
        """Reserve computers: on an offer, or on the best that has room.

        memory: bytes, or such as "4 GB". start: UTC unless it says otherwise; unset, now.

        >>> held = platform.pool.reserve("benchmark", cores=2, memory="1 GB", hours=0.5)
        >>> held.offer, held.state
        ('harbour/evenings', 'held')
        """
        from lepton_pipelines.spec.organisation import memory_of

        size = memory_of(memory) if isinstance(memory, str) else memory
        asked = Reserve(
            work=work, cores=cores, memory=size, hours=hours, accelerators=accelerators, start=start, offer=offer
        )
        return self._platform.post("/pool/reservations", Reservation, asked)

    def release(self, reservation: str, *, reason: str) -> Reservation:
        """End a reservation now: one's own, or one of one's own computers.

        >>> held = platform.pool.reserve("benchmark", cores=2, memory="1 GB", hours=0.5)
        >>> platform.pool.release(held.reservation, reason="done early").state
        'released'
        """
        answer = Refusal(reason=reason)
        return self._platform.post(f"/pool/reservations/{reservation}/release", Reservation, answer)

    def run(self, reservation: str, job: Path | str) -> JobResult:
        """Ask for the work that a file describes, under a reservation. Its owner's `lepton pool serve` does it.

        Scoring names files at home, so it is asked for there: `lepton pool run`.
        """
        from lepton_pipelines.pool.jobs import Scoring, read_job

        asked = read_job(Path(job))
        if isinstance(asked, Scoring):
            raise UserError(f"{job}: scoring names files at home, so it is asked for there: lepton pool run")
        return self._platform.post(f"/pool/reservations/{reservation}/jobs", JobResult, RunJob(job=asked))

    def result(self, job: str) -> JobResult:
        """Show what came of a job.

        >>> [held] = [one for one in platform.pool.status().reservations if one.jobs]
        >>> platform.pool.result(held.jobs[0].job).outcome
        'done'
        """
        return self._platform.get(f"/pool/jobs/{job}", JobResult)
