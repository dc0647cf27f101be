"""The compute pool as it is shown: offers with what is free, reservations, core-hours, and what came of jobs."""

from datetime import UTC, datetime

from lepton_pipelines.pool import offers, reserving, serving
from lepton_pipelines.pool.jobs import ask
from lepton_pipelines.pool.status import status as status_of
from lepton_pipelines.portal.guarding import Visit
from lepton_pipelines.portal.listing import NotThere
from lepton_pipelines.portal.pool_messages import (
    ComputeOffer,
    ComputeOfferDetail,
    Job,
    JobResult,
    PoolStatus,
    Reservation,
    Reserve,
)
from lepton_pipelines.portal.stand import Stand


def status(stand: Stand) -> PoolStatus:
    """Return the pool as it is now."""
    return PoolStatus.model_validate(status_of(stand.market()))


def search(stand: Stand, text: str) -> list[ComputeOffer]:
    """Return the offers whose description holds all these words."""
    found = {one.id for one in offers.compute_offers(stand.market(), text)}
    return [one for one in status(stand).offers if one.offer in found]


def offer(stand: Stand, name: str) -> ComputeOfferDetail:
    """Return an offer with everything that is reserved of it. Raises NotThere if it is not on offer."""
    known = stand.snapshot().history.compute.offers.get(name)
    if known is None or known.withdrawn:
        raise NotThere(f"{name} is not on offer.")
    told, now = offers.compute_offer(stand.market(), name), status(stand)
    listed = next((one for one in now.offers if one.offer == name), None)
    if listed is None:
        raise NotThere(f"{name} is not on offer any more.")
    return ComputeOfferDetail(
        **listed.model_dump(),
        owner=known.owner,
        description=told.described.description,
        index=known.index,
        reservations=[one for one in reversed(now.reservations) if one.offer == name],
    )


def reservation(stand: Stand, name: str) -> Reservation:
    """Return a reservation. Raises NotThere if there is none of this name."""
    for one in status(stand).reservations:
        if one.reservation == name:
            return one
    raise NotThere(f"there is no reservation {name}.")


def result(stand: Stand, job: str) -> JobResult:
    """Return what came of a job. Raises NotThere if nobody asked for it."""
    market = stand.market()
    if job not in market.history().compute.jobs:
        raise NotThere(f"nobody asked for job {job}.")
    ended = serving.result_of(market, job)
    if ended is None:
        return JobResult(job=job, outcome="asked")
    return JobResult(job=job, outcome=ended.outcome, core_seconds=ended.core_seconds, result=ended.result)


def reserve(stand: Stand, asked: Reserve) -> Reservation:
    """Reserve on an offer, or where there is room."""
    start = asked.start
    if start is not None:
        start = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    wanted = reserving.Wanted(asked.work, asked.cores, asked.memory, asked.hours, asked.accelerators, start)
    held = stand.speak(lambda place: reserving.reserve(place, wanted, asked.offer))
    return reservation(stand, held.reserved.reservation)


def may_release(visit: Visit, held: Reservation) -> bool:
    """Tell whether somebody may end a reservation: its holder's people, or who decides where the computers are."""
    if held.state in ("released", "ended"):
        return False
    own = held.offer.split("/")[0] == visit.stand.organisation
    return (held.holder == visit.stand.organisation and visit.may("ask")) or (own and visit.may("decide"))


def run(stand: Stand, name: str, job: Job) -> JobResult:
    """Ask for some work under a reservation."""
    asked = stand.speak(lambda place: ask(place, name, job, stand.home.folder / "pool"))
    return result(stand, asked)


def now() -> str:
    """Return this moment as a form's field has it, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M")
