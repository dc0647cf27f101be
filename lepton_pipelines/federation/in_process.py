"""All members of a federation in one process, each in a thread: demonstrations, tests and simulations.

The arithmetic is the network's, to the last mask; what is left out is what only separate machines need: certificates,
signatures, the hub's log. Where one process holds every member's rows there is nobody to hide them from.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from lepton_pipelines.federation.announcement import Announcement, difference
from lepton_pipelines.federation.keys import mask_keys
from lepton_pipelines.federation.secure_sum import Cells, Layout, SecureSumError, lay_out, mask, message_bytes, unmask
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import BoundExceeded, Int64Array, SumAborted, Traffic, check_bound

_BACKGROUND = 1 << 14  # values from which masking is left to a thread of its own


class InProcessFederation:
    """Secure sums between threads of one process.

    members: their names, three or more.
    allow_two_parties: with two members each could subtract its own vector from the total; that must be asked for.
    grace_seconds: how long a member whose thread has ended may stay away before the others are released.
    largest_sum: the most values that a vector may have.
    """

    def __init__(
        self,
        members: Sequence[str],
        *,
        allow_two_parties: bool = False,
        run: str = "in-process",
        grace_seconds: float = 60.0,
        largest_sum: int = 1 << 28,
    ) -> None:
        self.members = check_members(members, allow_two_parties=allow_two_parties)
        self.run = run
        self.grace_seconds = grace_seconds
        self.largest_sum = largest_sum
        self._lock = threading.Lock()
        self._exchanges: dict[int, _Exchange] = {}
        self._reason: str | None = None
        self._outcomes: dict[str, bytes] = {}
        self._group = os.urandom(32)
        self._pairs = _agree(self.members)
        self._sums = {member: InProcessSums(self, member) for member in self.members}
        self._workers: ThreadPoolExecutor | None = None

    def sums(self, member: str) -> "InProcessSums":
        """Return the member's `Sums`; always the same object for the same member."""
        if member not in self._sums:
            raise ValueError(f"{member!r} is not a member of {self.run}: {', '.join(self.members)} are")
        return self._sums[member]

    def abort(self, reason: str) -> None:
        """End the federation: every member, in a sum now or later, gets SumAborted with this reason."""
        with self._lock:
            self._abort(reason)

    def close(self) -> None:
        """Give threads back. A member that still waits gets SumAborted."""
        self.abort(f"run {self.run} was closed")
        if self._workers is not None:
            self._workers.shutdown(wait=True)

    def _abort(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
        for exchange in self._exchanges.values():
            exchange.done.set()

    def _announce(self, member: str, announcement: Announcement) -> "_Exchange":
        with self._lock:
            if self._reason is not None:
                raise SumAborted(self._reason)
            exchange = self._exchanges.get(announcement.number)
            if exchange is None:
                exchange = self._exchanges[announcement.number] = _Exchange(self.members)
            exchange.announcements[member] = announcement
            first = next(iter(exchange.announcements.values()))
            exchange.alike = exchange.alike and announcement == first
            if len(exchange.announcements) == len(self.members) and not exchange.alike:
                self._abort(difference(exchange.announcements) or "announcements differ")
            return exchange

    def _deposit(self, member: str, exchange: "_Exchange", upload: Cells) -> None:
        with exchange.lock:
            if not exchange.alike:
                return  # nothing of a sum that members do not agree on is added up; the abort follows
            if exchange.total is None:
                exchange.total = upload
            else:
                np.add(exchange.total, upload, out=exchange.total)
            exchange.missing.discard(member)
            if not exchange.missing:
                exchange.done.set()

    def _background(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._reason is not None:
                raise SumAborted(self._reason)
            if self._workers is None:
                self._workers = ThreadPoolExecutor(len(self.members), thread_name_prefix=f"masking {self.run}")
            self._workers.submit(work)

    def _wait(self, exchange: "_Exchange") -> Cells:
        """Wait until all vectors are added up, and watch for members whose threads have ended."""
        while not exchange.done.wait(timeout=min(0.25, self.grace_seconds)):
            for member in tuple(exchange.missing):
                gone = self._sums[member].gone_for()
                if gone is not None and gone >= self.grace_seconds:
                    self.abort(f"{member} has stopped: its thread ended {gone:.0f} s ago, in the middle of {self.run}")
        if self._reason is not None and (exchange.missing or not exchange.alike):
            raise SumAborted(self._reason)
        if exchange.total is None:
            raise SumAborted(self._reason or "the sum ended without a total")
        return exchange.total

    def _finish(self, member: str, outcome: bytes) -> None:
        with self._lock:
            other = next((name for name, made in self._outcomes.items() if made != outcome), None)
            self._outcomes[member] = outcome
            if other is not None:
                self._abort(f"{other} ended the run with another model than {member}")
                raise SumAborted(f"{other} ended the run with another model than {member}")

    def _collected(self, member: str, number: int) -> None:
        with self._lock:
            exchange = self._exchanges[number]
            exchange.waiting.discard(member)
            if not exchange.waiting:
                del self._exchanges[number]


class InProcessSums:
    """One member's end of an `InProcessFederation`: a `Sums`.

    As a context manager it releases the other members when its block ends with an error.
    """

    repeats = False  # a run that is started again makes its sums anew
    guard = None  # one process holds everybody's rows: there is nobody to hide a few of them from

    def __init__(self, federation: InProcessFederation, member: str) -> None:
        self.member = member
        self.traffic = Traffic()
        self._federation = federation
        self._pairs = {
            other: federation._pairs[_pair(member, other)] for other in federation.members if other != member
        }
        self._number = 0
        self._names: set[str] = set()
        self._thread: threading.Thread | None = None
        self._noticed: float | None = None

    @property
    def parties(self) -> int:
        """How many members' vectors a total is made of."""
        return len(self._federation.members)

    def start(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> "PendingInProcessSum":
        """Announce the sum, mask the vector (in the background if it is long) and go on.

        See `lepton_pipelines.sums.Sums.start`. Raises SumAborted if the members are not about to add up the same.
        """
        check_bound(name, vector, bound)
        if name in self._names:
            raise ValueError(f"sum {name!r} was already made in {self._federation.run}: a name is used once")
        if vector.size > self._federation.largest_sum:
            limit = self._federation.largest_sum
            raise ValueError(f"sum {name!r} has {vector.size} values, {self._federation.run} allows {limit}")
        self._names.add(name)
        self._thread, self._noticed = threading.current_thread(), None
        federation = self._federation
        announcement = Announcement(
            run=federation.run,
            number=self._number,
            name=name,
            shape=vector.shape,
            bound=bound,
            context=context,
            members=federation.members,
        )
        self._number += 1
        exchange = federation._announce(self.member, announcement)
        layout = lay_out(vector.size, bound, self.parties)
        keys = mask_keys(self.member, self._pairs, federation._group, announcement)

        def send() -> None:
            try:
                federation._deposit(self.member, exchange, mask(vector, layout, add=keys.add, subtract=keys.subtract))
            except BaseException as error:
                federation.abort(f"{self.member} could not mask sum {name!r}: {type(error).__name__}: {error}")
                raise

        if vector.size < _BACKGROUND:
            send()
        else:
            federation._background(send)
        traffic = message_bytes(layout, self.parties)
        self.traffic.sums += 1
        self.traffic.bytes_sent += traffic["sent"]
        self.traffic.bytes_received += traffic["received"]
        return PendingInProcessSum(self, announcement, exchange, layout, keys.group)

    def sum(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> Int64Array:
        """Return `start(...).result()`."""
        return self.start(name, vector, bound=bound, context=context).result()

    def finish(self, outcome: bytes) -> None:
        """Say what the run has made. outcome: digest of the model; SumAborted if another member has another."""
        self._federation._finish(self.member, outcome)

    def gone_for(self) -> float | None:
        """Seconds since this member's thread was found to have ended; None while it lives or has not come yet."""
        if self._thread is None or self._thread.is_alive():
            return None
        if self._noticed is None:
            self._noticed = time.monotonic()
        return time.monotonic() - self._noticed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, SumAborted):
            self._federation.abort(f"{self.member} has stopped: {type(error).__name__}: {error}")


class PendingInProcessSum:
    """A sum under way between threads."""

    def __init__(
        self, sums: InProcessSums, announcement: Announcement, exchange: "_Exchange", layout: Layout, group: bytes
    ) -> None:
        self._sums = sums
        self._announcement = announcement
        self._exchange = exchange
        self._layout = layout
        self._group = group
        self._total: Int64Array | None = None

    def result(self) -> Int64Array:
        """Wait for the total. Raises SumAborted, with the reason, if there will be none."""
        if self._total is not None:
            return self._total
        federation, announcement = self._sums._federation, self._announcement
        began = time.perf_counter()
        try:
            cells = federation._wait(self._exchange)
        finally:
            self._sums.traffic.seconds += time.perf_counter() - began
        try:
            self._total = unmask(
                cells,
                self._layout,
                subtract=self._group,
                shape=announcement.shape,
                bound=announcement.bound,
                members=len(federation.members),
            )
        except (SecureSumError, BoundExceeded) as error:
            federation.abort(f"sum {announcement.name!r}: {error}")
            raise SumAborted(f"sum {announcement.name!r}: {error}") from error
        federation._collected(self._sums.member, announcement.number)
        return self._total


class _Exchange:
    """Where the vectors of one sum meet."""

    def __init__(self, members: Sequence[str]) -> None:
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.announcements: dict[str, Announcement] = {}
        self.alike = True
        self.total: Cells | None = None
        self.missing = set(members)
        self.waiting = set(members)


def check_members(members: Sequence[str], *, allow_two_parties: bool) -> tuple[str, ...]:
    """Return the members in their order, or refuse too few of them.

    Raises UserError if a name comes twice, or if there are fewer than three and two were not allowed.
    """
    if len(set(members)) != len(members):
        raise UserError(f"a member is named twice: {', '.join(members)}. Give every organisation a name of its own.")
    if len(members) < 2 or (len(members) < 3 and not allow_two_parties):
        raise UserError(
            f"{len(members)} organisations ({', '.join(members)}) are too few: with two, each could subtract its own "
            "sums from the total and would hold the other's. Add a third, or set allow_two_parties: true if they may "
            "see each other's sums."
        )
    return tuple(sorted(members))


def _agree(members: Sequence[str]) -> dict[frozenset[str], bytes]:
    return {_pair(a, b): os.urandom(32) for i, a in enumerate(members) for b in members[i + 1 :]}


def _pair(a: str, b: str) -> frozenset[str]:
    return frozenset((a, b))
