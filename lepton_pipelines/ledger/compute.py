"""Computing on offer, what is reserved of it and what was done there, as the entries so far made them."""

from dataclasses import dataclass, field

from lepton_pipelines.ledger.compute_entries import (
    ComputeOffered,
    ComputeReleased,
    ComputeReserved,
    ComputeWithdrawn,
    WorkAsked,
    WorkEnded,
)
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.spec.hours import covers, moment


@dataclass
class Offered:
    """Computers on offer, at their newest version."""

    terms: ComputeOffered
    index: int
    withdrawn: bool = False

    @property
    def owner(self) -> str:
        """Whose they are."""
        return self.terms.author.organisation


@dataclass
class Job:
    """Work that was asked for. ended: None while it is not done."""

    asked: WorkAsked
    ended: WorkEnded | None = None


@dataclass
class Reservation:
    """Some of an offer, held by one organisation. end: when it ends, earlier if it was released."""

    reserved: ComputeReserved
    index: int
    end: str
    released: str = ""
    jobs: dict[str, Job] = field(default_factory=dict)

    @property
    def holder(self) -> str:
        """Who holds it."""
        return self.reserved.author.organisation

    @property
    def core_hours(self) -> float:
        """Cores by hours, from start to end; nothing if it was released before it started."""
        seconds = (moment(self.end) - moment(self.reserved.start)).total_seconds()
        return self.reserved.cores * max(seconds, 0.0) / 3600


class Compute:
    """The pool. Each rule that an entry breaks is named in the refusal, with what is in the way."""

    def __init__(self) -> None:
        self.offers: dict[str, Offered] = {}
        self.reservations: dict[str, Reservation] = {}
        self.jobs: dict[str, str] = {}  # job → reservation

    def offer(self, index: int, terms: ComputeOffered) -> None:
        """Offer computers, or change an offer; what is reserved stays reserved."""
        _own(terms.offer, terms.author.organisation)
        known = self.offers.get(terms.offer)
        if known is not None and terms.version <= known.terms.version:
            raise EntryRefused(f"{terms.offer} is at version {known.terms.version}; the next one is higher")
        self.offers[terms.offer] = Offered(terms, index)

    def withdraw(self, withdrawn: ComputeWithdrawn) -> None:
        """Offer them no longer."""
        _own(withdrawn.offer, withdrawn.author.organisation)
        self.on_offer(withdrawn.offer).withdrawn = True

    def reserve(self, index: int, asked: ComputeReserved) -> None:
        """Take some of an offer: within who may, when, how much a month, and what others have left."""
        if asked.reservation in self.reservations:
            raise EntryRefused(f"there is a reservation {asked.reservation} already")
        offered = self.on_offer(asked.offer)
        problem = self.problem(offered, asked)
        if problem:
            raise EntryRefused(problem)
        self.reservations[asked.reservation] = Reservation(asked, index, asked.end)

    def release(self, released: ComputeReleased) -> None:
        """End a reservation now."""
        known = self._reservation(released.reservation)
        who, owner = released.author.organisation, known.reserved.offer.split("/")[0]
        if who not in (known.holder, owner):
            raise EntryRefused(f"{who} cannot release {released.reservation}: {known.holder} holds it, of {owner}'s")
        if known.released or released.time >= known.end:
            raise EntryRefused(f"{released.reservation} ended at {known.end}")
        done = [each.ended.time for each in known.jobs.values() if each.ended is not None]
        known.end, known.released = max([released.time, *done]), released.reason

    def ask(self, asked: WorkAsked) -> None:
        """Note work that is asked for under a reservation, while it lasts."""
        known = self._reservation(asked.reservation)
        who, offer = asked.author.organisation, known.reserved.offer
        self.on_offer(offer)
        if who != known.holder:
            raise EntryRefused(f"{asked.reservation} is held by {known.holder}, not by {who}")
        if asked.work != known.reserved.work:
            raise EntryRefused(f"{asked.reservation} is for {known.reserved.work}, not for {asked.work}")
        if not known.reserved.start <= asked.time < known.end:
            raise EntryRefused(f"{asked.reservation} is from {known.reserved.start} to {known.end}")
        if asked.job in self.jobs:
            raise EntryRefused(f"there is a job {asked.job} already")
        self.jobs[asked.job] = asked.reservation
        known.jobs[asked.job] = Job(asked)

    def end(self, ended: WorkEnded) -> None:
        """Note what came of some work, by the word of who did it; never more than was reserved."""
        if ended.job not in self.jobs:
            raise EntryRefused(f"nobody asked for job {ended.job}")
        known = self.reservations[self.jobs[ended.job]]
        _own(known.reserved.offer, ended.author.organisation)
        job = known.jobs[ended.job]
        if job.ended is not None:
            raise EntryRefused(f"job {ended.job} has ended already")
        used = sum(each.ended.core_seconds for each in known.jobs.values() if each.ended is not None)
        seconds = (moment(known.reserved.end) - moment(known.reserved.start)).total_seconds() * known.reserved.cores
        if used + ended.core_seconds > seconds:
            raise EntryRefused(f"job {ended.job} would take more than the {seconds:g} core-seconds that were reserved")
        job.ended = ended

    def on_offer(self, offer: str) -> Offered:
        """Return an offer. Raises EntryRefused if there is none, or none any more."""
        known = self.offers.get(offer)
        if known is None or known.withdrawn:
            raise EntryRefused(f"{offer} is not on offer")
        return known

    def problem(self, offered: Offered, asked: ComputeReserved) -> str:
        """Say why a reservation is not possible; empty if it is."""
        terms, who = offered.terms, asked.author.organisation
        own = who == offered.owner
        if asked.terms != terms.terms:
            return f"{asked.offer} is offered under other terms now"
        if asked.work == "scoring" and not own:
            return f"{asked.offer} is {offered.owner}'s: rows stay at home, so {who} scores on computers of its own"
        if terms.members is not None and who not in terms.members and not own:
            return f"{asked.offer} is for {', '.join(terms.members)}, not for {who}"
        if asked.end <= asked.time:
            return f"the reservation ends at {asked.end}, which is past"
        if terms.until is not None and asked.end > terms.until:
            return f"{asked.offer} is on offer until {terms.until}"
        if not covers(terms.hours, moment(asked.start), moment(asked.end)):
            return f"{asked.offer} is on offer {', '.join(terms.hours)} (UTC), not all of {asked.start} to {asked.end}"
        if terms.quota is not None and not own:
            month = asked.start[:7]
            used = self.reserved_hours(asked.offer, who, month)
            wanted = asked.cores * (moment(asked.end) - moment(asked.start)).total_seconds() / 3600
            if used + wanted > terms.quota:
                return (
                    f"{asked.offer} is for {terms.quota} core-hours a month: {who} has reserved {used:.3g} in {month}, "
                    f"{wanted:.3g} more are too many"
                )
        return self._no_room(terms, asked)

    def reserved_hours(self, offer: str, holder: str, month: str) -> float:
        """Return the core-hours of an offer that an organisation has reserved in a month (2026-11), by their start."""
        held = [each for each in self.reservations.values() if each.reserved.offer == offer and each.holder == holder]
        return sum(each.core_hours for each in held if each.reserved.start.startswith(month))

    def in_use(self, offer: str, at: str) -> list[Reservation]:
        """Return the reservations of an offer that hold at a moment."""
        return [
            each
            for each in self.reservations.values()
            if each.reserved.offer == offer and each.reserved.start <= at < each.end
        ]

    def _no_room(self, terms: ComputeOffered, asked: ComputeReserved) -> str:
        """Look at the start of the reservation and of every one that begins while it lasts: there use is highest."""
        held = [
            each
            for each in self.reservations.values()
            if each.reserved.offer == asked.offer and each.reserved.start < asked.end and asked.start < each.end
        ]
        for at in sorted({asked.start} | {each.reserved.start for each in held if each.reserved.start > asked.start}):
            now = self.in_use(asked.offer, at)
            for what in ("cores", "memory", "accelerators"):
                free = getattr(terms, what) - sum(getattr(each.reserved, what) for each in now)
                if getattr(asked, what) > free:
                    names = ", ".join(f"{each.reserved.reservation} of {each.holder}" for each in now)
                    taken = f"; reserved are {names}" if now else ""
                    return f"{asked.offer} has {max(free, 0)} {what} free at {at}, not {getattr(asked, what)}{taken}"
        return ""

    def _reservation(self, name: str) -> Reservation:
        known = self.reservations.get(name)
        if known is None:
            raise EntryRefused(f"there is no reservation {name}")
        return known


def _own(offer: str, author: str) -> None:
    if offer.split("/")[0] != author:
        raise EntryRefused(f"{author} cannot speak for {offer}: only {offer.split('/')[0]} can")
