"""An owner's side: what was asked of its own offer is done on its own cluster, by its own code, and told."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lepton_pipelines.compute.cluster import open_cluster
from lepton_pipelines.ledger.compute import Reservation
from lepton_pipelines.ledger.compute_entries import WorkEnded
from lepton_pipelines.ledger.documents import decode, encode
from lepton_pipelines.market.place import Place
from lepton_pipelines.pool.errors import PoolRefused
from lepton_pipelines.pool.jobs import load_job
from lepton_pipelines.pool.metering import Metered
from lepton_pipelines.pool.offers import OfferFile, compute_offer
from lepton_pipelines.pool.work import Bench, do
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.hours import moment
from lepton_pipelines.spec.organisation import LocalCompute


@dataclass(frozen=True)
class Ended:
    """A job that was done, or failed. result: what its document says."""

    job: str
    outcome: str
    core_seconds: float
    result: dict[str, Any]


def serve_once(bench: Bench, offer: OfferFile, jobs: Path, told: Callable[[str], None] = lambda _: None) -> list[Ended]:
    """Do everything that is asked of an offer and not done yet, one job after the other.

    jobs: folder of the own jobs that stay at home. told: what is going on, a sentence each.
    """
    place = bench.place
    compute_offer(place, offer.id)
    if place.organisation != offer.organisation:
        raise PoolRefused(f"{offer.id} is {offer.organisation}'s, but you speak for {place.organisation}.")
    ended = []
    for held in list(place.history().compute.reservations.values()):
        if held.reserved.offer == offer.id:
            for name, job in held.jobs.items():
                if job.ended is None:
                    told(f"{name}: {job.asked.work} for {held.holder}")
                    ended.append(_serve(bench, offer, jobs, held, name, told))
    return ended


def result_of(place: Place, job: str) -> Ended | None:
    """Return what came of a job; None while it is not done. Raises PoolRefused if nobody asked for it."""
    compute = place.history().compute
    if job not in compute.jobs:
        raise PoolRefused(f"nobody asked for job {job}. See: lepton pool status")
    ended = compute.reservations[compute.jobs[job]].jobs[job].ended
    return None if ended is None else Ended(job, ended.outcome, ended.core_seconds, decode(place.get(ended.result)))


def _serve(
    bench: Bench, offer: OfferFile, jobs: Path, held: Reservation, name: str, told: Callable[[str], None]
) -> Ended:
    place, cores, job = bench.place, held.reserved.cores, held.jobs[name]
    outcome, seconds, tasks = "failed", 0.0, 0
    result: dict[str, Any]
    try:
        left = _seconds_left(held)
        work = load_job(place, name, job.asked, jobs)
        compute = offer.compute
        if isinstance(compute, LocalCompute):  # just as many threads, and just as much memory, as were reserved
            compute = compute.model_copy(update={"workers": 1, "threads": cores, "memory": held.reserved.memory})
        with open_cluster(compute, organisation=offer.organisation) as client:
            cluster = Metered(client, cores, left)
            try:
                result = do(work, bench, cluster)
                outcome = "done"
            finally:
                seconds, tasks = cluster.core_seconds, cluster.tasks
    except Exception as error:  # noqa: BLE001 - one job that fails, or whose worker dies, must not end serving
        told(f"{name} failed: {type(error).__name__}: {error}")
        # What scoring says may name files of one's own, and what is no refusal anything: that stays at home.
        shown = isinstance(error, UserError) and job.asked.work != "scoring"
        result = {"problem": str(error)[:2000] if shown else type(error).__name__}
    reserved = held.reserved.cores * (moment(held.reserved.end) - moment(held.reserved.start)).total_seconds()
    before = sum(each.ended.core_seconds for each in held.jobs.values() if each.ended is not None)
    seconds = min(round(seconds, 3), reserved - before)  # nobody owes more than was reserved
    place.record(
        WorkEnded, job=name, outcome=outcome, core_seconds=seconds, tasks=tasks, result=place.put(encode(result))
    )
    return Ended(name, outcome, seconds, result)


def _seconds_left(held: Reservation) -> float:
    left = (moment(held.end) - datetime.now(UTC)).total_seconds()
    if left <= 0:
        raise PoolRefused(f"its reservation ended at {held.end} before it was begun. Reserve anew.")
    return left
