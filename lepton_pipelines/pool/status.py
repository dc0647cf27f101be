"""What is on offer, what is in use now, and what everybody reserved and used: a view of the ledger."""

from collections import defaultdict
from typing import Any

from lepton_pipelines.market.place import Place
from lepton_pipelines.market.terms import now
from lepton_pipelines.pool.offers import compute_offers


def status(place: Place, at: str | None = None) -> dict[str, Any]:
    """Return offers with what is free, reservations with their jobs, and core-hours by organisation and by job.

    at: a moment as the ledger writes it; unset, now. Reserved core-hours are cores by hours of a reservation, measured
    ones what Dask's workers computed.
    """
    at = at or now()
    compute = place.history().compute
    offers = []
    for one in compute_offers(place):
        used = compute.in_use(one.id, at)
        free = {
            what: max(0, getattr(one.terms, what) - sum(getattr(each.reserved, what) for each in used))
            for what in ("cores", "memory", "accelerators")
        }
        holders = sorted({each.holder for each in compute.reservations.values() if each.reserved.offer == one.id})
        month = {name: round(compute.reserved_hours(one.id, name, at[:7]), 4) for name in holders}
        offers.append({**one.summary(), "free": free, "reserved_core_hours_this_month": month})
    reservations, by_job = [], {}
    totals: dict[str, dict[str, float]] = defaultdict(lambda: {"reserved": 0.0, "measured": 0.0})
    for name, held in compute.reservations.items():
        fields = {"offer", "work", "cores", "memory", "accelerators", "start"}
        state = (
            "released"
            if held.released
            else "ended"
            if held.end <= at
            else "held"
            if held.reserved.start <= at
            else "to come"
        )
        reservations.append(
            {
                "reservation": name,
                "holder": held.holder,
                **held.reserved.model_dump(mode="json", include=fields),
                "end": held.end,
                "state": state,
                "jobs": [{"job": job, "outcome": _outcome(each)} for job, each in held.jobs.items()],
            }
        )
        totals[held.holder]["reserved"] += held.core_hours
        for job, each in held.jobs.items():
            if each.ended is not None:
                hours = each.ended.core_seconds / 3600
                by_job[job] = {"organisation": held.holder, "offer": held.reserved.offer, "core_hours": round(hours, 6)}
                totals[held.holder]["measured"] += hours
    return {
        "at": at,
        "offers": offers,
        "reservations": reservations,
        "core_hours": {
            "by_organisation": {
                name: {kind: round(hours, 6) for kind, hours in each.items()} for name, each in sorted(totals.items())
            },
            "by_run": by_job,
        },
    }


def _outcome(job: Any) -> str:
    return "asked" if job.ended is None else str(job.ended.outcome)
