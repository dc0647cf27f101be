"""The REST API of the compute pool: the verbs of `lepton pool`, but for serving, which is its owner's own process."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path

from lepton_pipelines.pool import offers, reserving
from lepton_pipelines.portal import pool_listing
from lepton_pipelines.portal.api import PREFIX, REFUSED, Name, Words
from lepton_pipelines.portal.guarding import Asker, Publisher, Reader, Visit
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

router = APIRouter(prefix=f"{PREFIX}/pool", responses=REFUSED, tags=["pool"])

Held = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")]


@router.get("")
def status(visit: Reader) -> PoolStatus:
    """Show what is free and reserved, and core-hours: reserved, and as Dask measured them."""
    return pool_listing.status(visit.stand)


@router.get("/offers")
def list_offers(visit: Reader, text: Words = "") -> list[ComputeOffer]:
    """List computers on offer."""
    return pool_listing.search(visit.stand, text)


@router.get("/offers/{owner}/{name}")
def show(visit: Reader, owner: Name, name: Name) -> ComputeOfferDetail:
    """Show an offer and what is reserved of it."""
    return pool_listing.offer(visit.stand, f"{owner}/{name}")


@router.post("/offers", status_code=201)
def offer(visit: Publisher, told: offers.OfferTerms) -> ComputeOfferDetail:
    """Offer computers, or change an offer. Where the cluster is stays at home, with `lepton pool serve`."""
    name, _, _ = visit.stand.speak(lambda place: offers.offer_told(place, told))
    return pool_listing.offer(visit.stand, name)


@router.post("/offers/{owner}/{name}/withdraw", status_code=204)
def withdraw(visit: Publisher, owner: Name, name: Name, why: Refusal) -> None:
    """Offer computers no longer."""
    found = pool_listing.offer(visit.stand, f"{owner}/{name}").offer
    visit.stand.speak(lambda place: offers.withdraw_compute(place, found, why.reason))


@router.post("/reservations", status_code=201)
def reserve(visit: Asker, asked: Reserve) -> Reservation:
    """Reserve computers: on an offer, or on the best that has room."""
    return pool_listing.reserve(visit.stand, asked)


@router.get("/reservations/{held}")
def show_reservation(visit: Reader, held: Held) -> Reservation:
    """Show a reservation and the work under it."""
    return pool_listing.reservation(visit.stand, held)


@router.post("/reservations/{held}/release")
def release(visit: Asker, held: Held, why: Refusal) -> Reservation:
    """End a reservation now: one's own, or one of one's own computers, which takes the right to decide."""
    return let_go(visit, held, why.reason)


@router.post("/reservations/{held}/jobs", status_code=201)
def run(visit: Asker, held: Held, asked: RunJob) -> JobResult:
    """Ask for a benchmark or a tuning. Scoring names files at home, so it is asked for there: lepton pool run."""
    pool_listing.reservation(visit.stand, held)
    return pool_listing.run(visit.stand, held, asked.job)


@router.get("/jobs/{job}")
def result(visit: Reader, job: Held) -> JobResult:
    """Show what came of a job."""
    return pool_listing.result(visit.stand, job)


def let_go(visit: Visit, name: str, reason: str) -> Reservation:
    """End a reservation. Raises 403 if it is another's, or the right to decide about one's own computers is missing."""
    held = pool_listing.reservation(visit.stand, name)
    owner, who = held.offer.split("/")[0], visit.stand.organisation
    if held.holder != who and owner == who and not visit.may("decide"):
        raise HTTPException(403, f"{name} is {held.holder}'s: to take it back is for who may decide.")
    visit.stand.speak(lambda place: reserving.release(place, name, reason))
    return pool_listing.reservation(visit.stand, name)
