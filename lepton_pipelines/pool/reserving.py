"""Reserving computers: on an offer that is named, or wherever there is room; and giving them back."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lepton_pipelines.ledger.compute import Compute, Reservation
from lepton_pipelines.ledger.compute_entries import ComputeReleased, ComputeReserved, WorkKind
from lepton_pipelines.ledger.predicate import fresh
from lepton_pipelines.market.place import Place
from lepton_pipelines.pool.errors import PoolRefused
from lepton_pipelines.pool.offers import ComputeOffer, compute_offer, compute_offers


@dataclass(frozen=True)
class Wanted:
    """What is needed. work: benchmark, tuning or scoring. memory: bytes. start: UTC; None is now."""

    work: WorkKind
    cores: int
    memory: int
    hours: float
    accelerators: int = 0
    start: datetime | None = None

    def span(self) -> tuple[str, str]:
        """Return start and end as the ledger writes them."""
        start = (self.start or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
        end = start + timedelta(seconds=round(3600 * self.hours))
        return start.strftime("%Y-%m-%dT%H:%M:%SZ"), end.strftime("%Y-%m-%dT%H:%M:%SZ")


def reserve(place: Place, wanted: Wanted, offer: str | None = None) -> Reservation:
    """Reserve on an offer, or unset on the best that has room: one's own first, then the cheapest, then by name.

    Raises PoolRefused with what is in the way: of the one offer, or of each.
    """
    offers = [compute_offer(place, offer)] if offer is not None else compute_offers(place)
    compute = place.history().compute
    start, end = wanted.span()
    problems = []
    for one in sorted(offers, key=lambda each: _rank(each, place.organisation)):
        asked = _entry(place, one, wanted, start, end)
        problem = compute.problem(one.entry, asked)
        if problem:
            problems.append(problem)
            continue
        place.record(ComputeReserved, **{name: getattr(asked, name) for name in _FIELDS})
        return reservation(place.history().compute, asked.reservation)
    raise PoolRefused([f"{problem}." for problem in problems] or "nothing is on offer in this pool.")


def release(place: Place, name: str, reason: str) -> None:
    """Give a reservation back, or take one back from one's own computers."""
    reservation(place.history().compute, name)
    place.record(ComputeReleased, reservation=name, reason=reason)


def reservation(compute: Compute, name: str) -> Reservation:
    """Return a reservation. Raises PoolRefused if there is none of this name."""
    known = compute.reservations.get(name)
    if known is None:
        raise PoolRefused(f"there is no reservation {name}. See: lepton pool status")
    return known


_FIELDS = ("reservation", "offer", "terms", "work", "cores", "memory", "accelerators", "start", "end")


def _entry(place: Place, offer: ComputeOffer, wanted: Wanted, start: str, end: str) -> ComputeReserved:
    """Write the reservation as it would stand in the ledger, to be held against its rules before it is said."""
    common = fresh(place.organisation, f"ed25519:{'0' * 64}", place.history().ledger)
    return ComputeReserved(
        **common,
        reservation=f"c-{secrets.token_hex(4)}",
        offer=offer.id,
        terms=offer.terms.terms,
        work=wanted.work,
        cores=wanted.cores,
        memory=wanted.memory,
        accelerators=wanted.accelerators,
        start=start,
        end=end,
    )


def _rank(offer: ComputeOffer, organisation: str) -> tuple[bool, float, str]:
    price = offer.described.price
    return offer.entry.owner != organisation, 0.0 if price is None else price.amount, offer.id
