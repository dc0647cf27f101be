"""A member's sums over the network: the state machine of `member.py` between the hub, the disk and the algorithm."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from lepton_pipelines.federation.effects import Deliver, Effect, Finished, Join, Reply, Say, Stop, Write
from lepton_pipelines.federation.home_rules import RowGuard
from lepton_pipelines.federation.hub_connection import Closed, ConnectionLost, HubConnection
from lepton_pipelines.federation.journal import JournalWriter, RunJournal
from lepton_pipelines.federation.manifest import Manifest
from lepton_pipelines.federation.member import Member
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.signing import Signer
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array, SumAborted, Traffic

_log = logging.getLogger("lepton.federation")
_SIGN_OF_LIFE = 5.0
_UPLOADS_KEPT = 4096  # sums whose uploads' digests are held for `sent`
_FIRST_TOLD = 10.0  # seconds of waiting that are nothing special


class RunSuspended(SumAborted):
    """The run stands still and can be resumed by the same members; the message says how."""


class HubSums:
    """One member's `Sums` in a run at a hub.

    connection: to the hub; closed with the sums. folder: where the run's journal is kept. tell: is told in a sentence
    whom the run waits for, first after ten seconds and then ever more seldom. guard: whom the rows are shown to first.
    As a context manager it ends the run for everyone when its block ends with an error of its own.
    """

    repeats = True  # a part that is started again repeats its sums: it must put the same numbers into them

    def __init__(
        self,
        connection: HubConnection,
        manifest: Manifest,
        organisation: str,
        signer: Signer,
        folder: Path,
        *,
        tell: Callable[[str], None] | None = None,
        guard: RowGuard | None = None,
    ) -> None:
        self.guard = guard
        self.traffic = Traffic()
        self.member = organisation
        self.manifest = manifest
        self._connection = connection
        self._tell = tell or _log.info
        self._journal = RunJournal(folder)
        self._machine = Member(organisation, manifest, signer, draw=os.urandom, journal=self._journal)
        self._changed = threading.Condition()
        self._ended = threading.Event()  # its own: who only waits for the end is not woken by every step
        self._pending: dict[int, PendingHubSum] = {}
        self._uploads: dict[int, tuple[int, dict[str, bytes]]] = {}
        self._stop: Stop | None = None
        self._finished = False
        connection.ended = self._over
        self._closed = False
        self._aborts: list[Future[None]] = []
        self._workers = ThreadPoolExecutor(
            2 * manifest.dimensions.in_flight + 4, thread_name_prefix=f"sums of {organisation}"
        )
        self._writer = JournalWriter(self._journal, self._written, self._disk_failed)
        with self._changed:
            self._act(self._machine.open())
        self._alive = threading.Thread(target=self._show_life, name=f"sign of life of {organisation}", daemon=True)
        self._alive.start()

    @property
    def parties(self) -> int:
        """How many members' vectors a total is made of."""
        return len(self.manifest.names)

    def wait_until_ready(self, timeout: float | None = None) -> int:
        """Wait until every member is here; return up to which sum all of them hold the totals.

        A checkpoint may be used if it was taken when no more sums than that were finished. If the others have ended
        the run while this member was away, all that it still needs is on its own disk. Raises SumAborted if the run
        ends first, TimeoutError if the time is over.
        """
        machine = self._machine
        with self._changed:
            if not self._changed.wait_for(lambda: machine.ready or machine.ended_without_us or self._over(), timeout):
                raise TimeoutError(f"run {self.manifest.run}: not every member came within {timeout:.0f} s")
            self._raise_if_stopped()
            return self._machine.floor if self._machine.floor is not None else self._journal.done

    def resume_at(self, position: int) -> None:
        """Go on from a checkpoint that was taken when this many sums were finished (`position` then)."""
        with self._changed:
            self._act(self._machine.resume_at(position))
            self._raise_if_stopped()

    @property
    def position(self) -> int:
        """How many sums were begun: what a checkpoint has to keep beside the model."""
        return self._machine.position

    def start(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> "PendingHubSum":
        """Begin a sum and go on. See `lepton_pipelines.sums.Sums.start`.

        Waits while as many sums are under way as the manifest allows. Raises SumAborted if the run has ended.
        """
        with self._changed:
            pending, effects = self._begin(name, vector, bound, context)
            self._act(effects)
        return pending

    def sum(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> Int64Array:
        """Return `start(...).result()`, all of it done in the caller's thread where nothing disturbs the sum."""
        began = time.perf_counter()
        to_write: list[Write] = []
        with self._changed:
            pending, effects = self._begin(name, vector, bound, context)
            request = self._act(effects, chain=True, to_write=to_write)
        if request is None:
            self._writer.write_now(to_write)
        else:
            # what is announced is compared by the others while the disk takes the commitment
            self._carry(request, meanwhile=lambda: self._writer.write_now(to_write))
        self.traffic.seconds += time.perf_counter() - began
        return pending.result()

    def _begin(
        self, name: str, vector: Int64Array, bound: int, context: bytes
    ) -> tuple["PendingHubSum", Sequence[Effect]]:
        limit = self.manifest.dimensions.in_flight
        self._changed.wait_for(lambda: len(self._pending) < limit or self._over())
        self._raise_if_stopped()
        number, effects = self._machine.begin(name, vector, bound=bound, context=context)
        pending = self._pending[number] = PendingHubSum(self, name)
        self.traffic.sums += 1
        return pending, effects

    @property
    def ended(self) -> bool:
        """Whether there will be no more totals: the run is finished, suspended or aborted."""
        return self._over()

    def sent(self, since: int, until: int) -> dict[str, str]:
        """Return, by member, a digest of its masked uploads to the sums from number `since` up to, without, `until`.

        SHA-256 over each upload's number (8 bytes, big-endian) and SHA-256, in order, as hex. Every member works out
        the same. Empty unless all these uploads were made since this process joined and in one key epoch.
        """
        with self._changed:
            uploads = [(number, *self._uploads.pop(number, (0, {}))) for number in range(since, until)]
        if not uploads or len({epoch for _, epoch, _ in uploads}) > 1 or not all(each for _, _, each in uploads):
            return {}
        told = {}
        for member in self.manifest.names:
            said = b"".join(number.to_bytes(8, "big") + each[member] for number, _, each in uploads)
            told[member] = hashlib.sha256(said).hexdigest()
        return told

    def checkpointed(self, position: int) -> None:
        """Say that a checkpoint of this position and one before it are durable: older totals may go."""
        self._journal.drop_totals(position)

    def finish(self, outcome: bytes) -> None:
        """End the run together. outcome: digest of the model; SumAborted if a member's is another."""
        with self._changed:
            self._raise_if_stopped()
            self._act(self._machine.finish(outcome))
            self._changed.wait_for(self._over)
            if not self._finished:
                self._raise_if_stopped()
        self.close()

    def abort(self, reason: str) -> None:
        """End the run for every member, with a signed reason."""
        with self._changed:
            said = reason if reason.startswith(f"{self.member}: ") else f"{self.member}: {reason}"
            self._act(self._machine.abort(said))

    def status(self) -> wire.RunStatus:
        """Where the run stands: who is here, who is late, at which step."""
        return self._connection.look(self.manifest.run)

    def close(self) -> None:
        """Hang up without ending the run: it can be resumed. Sums that are waited for are released."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._stop = self._stop or Stop(f"the sums of run {self.manifest.run} were closed", suspended=True)
            self._ended.set()
            self._changed.notify_all()
        self._writer.close()
        wait(self._aborts)
        self._connection.close()
        self._workers.shutdown(wait=True)
        self._alive.join()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, SumAborted) and not self._over():
            # what went wrong may name rows: it is said at home, and not to the hub and the others
            self.abort(f"it has stopped ({type(error).__name__}); its own people were told why")
        self.close()

    # ---- between the machine and the world ----

    def _over(self) -> bool:
        return self._stop is not None or self._finished

    def _raise_if_stopped(self) -> None:
        if self._stop is not None:
            raise (RunSuspended if self._stop.suspended else SumAborted)(self._stop.reason)

    def _act(
        self, effects: Sequence[Effect], *, chain: bool = False, to_write: list[Write] | None = None
    ) -> Join | Say | None:
        """Carry effects out, with the lock held.

        With `chain`, return the last request for the caller to make; with `to_write`, leave to the caller what the disk
        must take.
        """
        requests: list[Join | Say] = []
        for effect in effects:
            match effect:
                case Join() | Say():
                    requests.append(effect)
                case Write() if to_write is not None:
                    to_write.append(effect)
                case Write():
                    self._writer.write(effect)
                case Deliver():
                    pending = self._pending.pop(effect.number, None)
                    if pending is not None:
                        pending.total = effect.total
                        pending.there.set()
                case Stop():
                    self._stop = effect
                case Finished():
                    self._finished = True
        if self._over():
            self._ended.set()
            for pending in self._pending.values():
                pending.there.set()
        last = requests.pop() if chain and requests and not self._over() else None
        for request in requests:
            if isinstance(request, Say) and request.envelope.kind == wire.KIND_ABORT:
                self._aborts.append(self._workers.submit(self._connection.abort, request))
            elif not self._over():
                self._workers.submit(self._carry, request)
        self._changed.notify_all()
        return last

    def _carry(self, request: Join | Say | None, meanwhile: Callable[[], None] | None = None) -> None:
        """Make a request, take the answer to the machine, and go on with what it wants next.

        meanwhile: work to be done once the first request is on its way.
        """
        while request is not None:
            try:
                reply = self._connection.ask(request, meanwhile)
                meanwhile = None
            except Closed:
                return
            except ConnectionLost as error:
                self._lose(str(error))
                return
            except UserError as error:
                self._fail(str(error))
                return
            except Exception as error:  # the thread has nobody else to tell
                _log.exception("a call to the hub failed")
                self._fail(f"{type(error).__name__}: {error}")
                raise
            with self._changed:
                self._count(request, reply)
                self._note_uploads(reply)
                request = self._act(self._machine.receive(reply), chain=True)

    def _count(self, request: Join | Say, reply: Reply) -> None:
        if isinstance(request, Say):
            self.traffic.bytes_sent += len(request.data) + request.envelope.ByteSize()
        self.traffic.bytes_received += len(reply.answer) + sum(envelope.ByteSize() for envelope in reply.envelopes)

    def _note_uploads(self, reply: Reply) -> None:
        slot = reply.slot
        if slot is not None and slot.kind == wire.KIND_UPLOAD and len(reply.envelopes) == self.parties:
            digests = {one.member: wire.Upload.FromString(one.body).digest for one in reply.envelopes}
            self._uploads[slot.number] = (slot.epoch, digests)
            self._uploads.pop(slot.number - _UPLOADS_KEPT, None)

    def _written(self, token: int) -> None:
        with self._changed:
            request = self._act(self._machine.written(token), chain=False)
        assert request is None  # noqa: S101

    def _disk_failed(self, reason: str) -> None:
        with self._changed:
            self._act(self._machine.abort(f"{self.member} cannot write what must be on disk first: {reason}"))

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._act([Stop(reason, suspended=True)])

    def _fail(self, reason: str) -> None:
        with self._changed:
            self._act([Stop(reason)])

    def _show_life(self) -> None:
        """Tell the hub that this member lives while it computes, hear of an end early, and say who is late.

        A member that came back is heard of here, too: it waits for everyone's new keys, and who waits for its word in
        the ledger is in no sum that would tell.
        """
        told, pause = time.monotonic(), _FIRST_TOLD
        while not self._ended.wait(_SIGN_OF_LIFE):
            try:
                status = self._connection.look(self.manifest.run)
            except (Closed, ConnectionLost, UserError):
                return  # the call that waits for a sum says it
            with self._changed:
                if 0 < self._machine.epoch < status.epoch and not self._over():
                    self._act(self._machine.receive(Reply(wire.STATUS_NEW_EPOCH, status.epoch)))
            late = [name for name in status.missing if name != self.member]
            if not late or self.member in status.missing:
                told, pause = time.monotonic(), _FIRST_TOLD
            elif time.monotonic() - told >= pause:
                told, pause = time.monotonic(), 2 * pause
                self._tell(whom_it_waits_for(status, late))


def whom_it_waits_for(status: wire.RunStatus, late: Sequence[str]) -> str:
    """Say in a sentence whom a run waits for, and until when. late: members."""
    if status.status == "inviting":
        return f"waiting for {', '.join(late)} to accept the invitation to run {status.run}"
    seen = {name: status.seconds_since_seen.get(name) for name in late}
    who = ", ".join(
        f"{name} (not seen yet)" if ago is None else f"{name} (last seen {ago:.0f} s ago)" for name, ago in seen.items()
    )
    if status.status != "running":
        return f"run {status.run} is suspended: waiting for {who}"
    return (
        f"sum {status.number}: waiting for {who}. Grace time ends in {status.seconds_left:.0f} s; then the run is "
        f"suspended and can be resumed with: lepton run --resume {status.run}"
    )


class PendingHubSum:
    """A sum under way at a hub."""

    def __init__(self, sums: HubSums, name: str) -> None:
        self.there = threading.Event()
        self.total: Int64Array | None = None
        self._sums = sums
        self._name = name

    def result(self) -> Int64Array:
        """Wait for the total. Raises SumAborted (RunSuspended, if the run can be resumed) if there will be none."""
        began = time.perf_counter()
        self.there.wait()
        self._sums.traffic.seconds += time.perf_counter() - began
        if self.total is None:
            self._sums._raise_if_stopped()
            raise SumAborted(f"sum {self._name!r} ended without a total")
        return self.total
