"""Rows held on Dask workers: built there, worked on there, never moved.

Pieces of the data (whatever the builder understands: files, row groups) are dealt out to the workers. Each worker
builds one object from its pieces and keeps it as a Dask actor, because a call to an actor takes about a
millisecond and a submitted task ten times that. Steps are run on every worker's object, in order and once each,
and their vectors are added up.

A worker that is lost is rebuilt from its pieces: the builder runs again elsewhere and what had been done to the
object since is done again, from the last `checkpoint` on if the driver gave one. Steps are deterministic, so the
sums are the same as if nothing had happened.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from distributed import Client
from distributed.actor import BaseActorFuture
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker, NoValidWorkerError

from lepton_pipelines.core_time import CoreTime
from lepton_pipelines.sums import Int64Array

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Change = Callable[[Any], Any]

POLL_SECONDS = 1.0  # how long a call may be silent before the scheduler is asked whether its worker still lives
_LONGER = 5  # times the patience more, where no survivor could take over
LOSSES_ALLOWED = 3  # rows that were lost this often bring down whoever holds them: stop


class Step(Protocol):
    """Work on what a worker holds, with a vector for an answer; the same as `boosting.rows.Step`."""

    def run(self, shard: Any) -> Int64Array:
        """Work on `shard` and return the vector, int64, that adds up over all shards."""
        ...


class WorkersLost(RuntimeError):  # noqa: N818 - says what happened
    """Workers that held rows are gone and the rows could not be built elsewhere."""


class Held:
    """The object that one worker holds; lives on the worker, as an actor."""

    def __init__(self, build: Callable[[list[Any]], Any], pieces: list[Any], history: list[Change]) -> None:
        self.time = CoreTime()
        with self.time.counted():
            self.object = build(pieces)
            for change in history:
                self.object = change(self.object)

    def change(self, change: Change) -> None:
        """Replace the object by what `change` makes of it."""
        with self.time.counted():
            self.object = change(self.object)

    def run(self, step: Step) -> Int64Array:
        """Run a step on the object and return its vector."""
        with self.time.counted():
            return step.run(self.object)

    def ask(self, question: Callable[[Any], Answer]) -> Answer:
        """Answer a question about the object without changing it."""
        with self.time.counted():
            return question(self.object)

    def used(self, _: None) -> float:
        """Return the processor seconds that building the object and working on it took."""
        return self.time.seconds


@dataclass(frozen=True)
class StepAgain:
    """A step of the past, as a change: run for what it does to the object, its vector dropped."""

    step: Step

    def __call__(self, held: Any) -> Any:
        """Run the step on the rebuilt object."""
        self.step.run(held)
        return held


@dataclass
class Part:
    """The pieces that one actor holds, and where."""

    pieces: list[Any]
    worker: str
    actor: Any = None  # distributed.Actor; carries no types
    future: Any = None  # keeps the actor alive on its worker
    losses: int = 0


@dataclass
class PendingVector:
    """A step under way on all workers."""

    future: "ThreadFuture[Int64Array]"

    def result(self) -> Int64Array:
        """Wait for the sum of the workers' vectors. Raises what a step raised, or WorkersLost."""
        return self.future.result()


@dataclass
class PinnedRows:
    """One party's rows on the workers of a Dask cluster; what boosting calls `Rows`.

    client: a connected client; stays the caller's to close.
    build: makes the object that a worker holds from its pieces; runs on the worker, must be picklable.
    pieces: dealt out so that each worker holds about the same weight.
    weights: of the pieces, in rows or bytes; without them all count the same.
    patience: seconds to wait for a worker to come back (Dask's nanny restarts it) before a survivor takes its rows.
    on_loss: told in a sentence when a worker is lost and its rows are built again.
    """

    client: Client
    build: Callable[[list[Any]], Any]
    pieces: Sequence[Any]
    weights: Sequence[float] | None = None
    patience: float = 10.0
    on_loss: Callable[[str], None] = logger.warning
    parts: list[Part] = field(init=False)
    _lasting: list[Change] = field(init=False, default_factory=list)  # survive a checkpoint
    _since: list[Change] = field(init=False, default_factory=list)  # done since the last checkpoint

    def __post_init__(self) -> None:
        """Deal out the pieces and build the objects, all workers at once."""
        workers = sorted(self._living())
        if not workers:
            raise WorkersLost("the Dask cluster has no workers: start some, or set compute.workers")
        self.parts = [Part(dealt, worker) for worker, dealt in deal(self.pieces, self.weights, workers)]
        # One thread, so that steps reach every worker in the order in which they were started.
        self._line = ThreadPoolExecutor(1, thread_name_prefix="pinned-rows")
        self._closed = threading.Event()
        try:
            self._line.submit(self._as_current, self._build_all).result()
        except BaseException:
            self.close()
            raise

    def start(self, step: Step) -> PendingVector:
        """Run a step on every worker, after those started before; its vector is the sum over workers."""
        return PendingVector(self._line.submit(self._as_current, self._run, step))

    def add_up(self, step: Step) -> Int64Array:
        """`start(step).result()`."""
        return self.start(step).result()

    def change(self, change: Change) -> None:
        """Let every worker hold what `change` makes of its object, from now on and after a rebuild too."""
        self._line.submit(self._as_current, self._change, change).result()

    def ask(self, question: Callable[[Any], Answer]) -> list[Answer]:
        """Put a question to every worker's object; answers in the order of the parts. Must not change the object."""
        return cast(list[Answer], self._line.submit(self._as_current, self._on_all, "ask", question).result())

    def core_seconds(self) -> float:
        """Return the processor seconds that all workers' threads spent on these rows so far.

        What a worker that was lost had spent is gone with it.
        """
        return float(sum(self._line.submit(self._as_current, self._on_all, "used", None).result()))

    def checkpoint(self, restore: Step) -> None:
        """From now on a rebuilt object is brought up to date by `restore`, not by every step since the start.

        Called by the driver between trees; `restore` holds what the object cannot know by itself (the model so far).
        """
        self._line.submit(self._as_current, self._set_checkpoint, restore).result()

    def close(self) -> None:
        """Let go of the objects; workers free their memory."""
        self._closed.set()
        self._line.shutdown(wait=True, cancel_futures=True)
        for part in self.parts:
            part.actor = part.future = None

    def _as_current(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        """Do work with our client as the thread's own: an actor looks for it, and other organisations have theirs."""
        with self.client.as_current():
            return work(*arguments)

    def _living(self) -> set[str]:
        return set(self.client.nthreads())  # type: ignore[no-untyped-call]

    def _set_checkpoint(self, restore: Step) -> None:
        self._since = [StepAgain(restore)]

    def _run(self, step: Step) -> Int64Array:
        vectors = self._on_all("run", step)
        self._since.append(StepAgain(step))
        return add(vectors)

    def _change(self, change: Change) -> None:
        self._on_all("change", change)
        # What came before is part of what the change was made from.
        self._lasting += [*self._since, change]
        self._since = []

    def _on_all(self, method: str, argument: Any) -> list[Any]:
        """Call a method of every part's actor at once; parts whose worker is lost are built again and called again."""
        calls = [getattr(part.actor, method, None) if _alive(part) else None for part in self.parts]
        running = [call(argument) if call else None for call in calls]
        answers: list[Any] = [None] * len(self.parts)
        lost: list[int] = []
        failure: BaseException | None = None
        for position, (part, call) in enumerate(zip(self.parts, running, strict=True)):
            try:
                answers[position] = self._wait(part, call)
            except WorkersLost:
                lost.append(position)
            except Exception as error:  # noqa: BLE001 - the other workers finish the step first, then it is raised
                failure = failure or error
        if failure is not None:
            raise failure
        for position in lost:
            answers[position] = self._rebuild(self.parts[position], method, argument)
        return answers

    def _wait(self, part: Part, call: "BaseActorFuture[Any] | None") -> Any:
        """Wait for an actor's answer, asking now and then whether its worker still lives. Raises WorkersLost."""
        if call is None:
            raise WorkersLost(part.worker)
        done = False
        while True:
            try:
                return call.result(timeout=POLL_SECONDS)
            except TimeoutError:
                if done:  # the step itself raised TimeoutError
                    raise
                if done := call.done():  # it answered as the waiting ended: the answer is fetched above
                    continue
                if self._closed.is_set():
                    raise WorkersLost(f"{part.worker} was let go") from None
                if part.worker not in self._living():
                    raise WorkersLost(part.worker) from None
            except OSError as error:
                # Dask says this of a worker that does not answer; a step that fails on its own files says more.
                if part.worker in self._living() and "Actor's worker" not in str(error) and _alive(part):
                    raise
                raise WorkersLost(part.worker) from error

    def _build_all(self) -> None:
        for part in self.parts:
            self._submit(part)
        for part in self.parts:
            try:
                self._built(part)
            except WorkersLost:
                self._rebuild(part, "ask", _nothing)

    def _submit(self, part: Part) -> None:
        history = [*self._lasting, *self._since]
        part.future = self.client.submit(
            Held, self.build, part.pieces, history, actor=True, workers=[part.worker], pure=False
        )

    def _built(self, part: Part) -> None:
        """Wait until the part's actor is there. Raises what building raised, or WorkersLost with its worker."""
        done = False
        while True:
            try:
                part.actor = part.future.result(timeout=POLL_SECONDS)
            except TimeoutError:
                if done:  # building itself raised TimeoutError
                    raise
                if done := part.future.done():  # it was built as the waiting ended: the actor is fetched above
                    continue
                # A task that is bound to a worker which is gone waits for ever.
                if self._closed.is_set() or part.worker not in self._living():
                    part.future.cancel()
                    raise WorkersLost(part.worker) from None
            except (KilledWorker, NoValidWorkerError, FutureCancelledError) as error:
                raise WorkersLost(part.worker) from error
            else:
                return

    def _rebuild(self, part: Part, method: str, argument: Any) -> Any:
        """Build a lost part on another worker, bring it up to date and do there what was asked."""
        while True:
            gone = part.worker
            if self._closed.is_set():
                raise WorkersLost(f"{gone} was let go: the rows are closed")
            part.losses += 1
            if part.losses > LOSSES_ALLOWED:
                raise WorkersLost(
                    f"the rows of {len(part.pieces)} pieces were lost {part.losses} times with their worker, last "
                    f"{gone}: it was probably killed for want of memory. Give the workers more memory or use more."
                )
            part.actor = part.future = None
            part.worker = self._replacement(gone)
            self.on_loss(f"Dask worker {gone} is lost: its {len(part.pieces)} pieces are built again on {part.worker}")
            try:
                self._submit(part)
                self._built(part)
                return self._wait(part, getattr(part.actor, method)(argument))
            except WorkersLost as error:
                logger.debug("lost again while rebuilding: %s", error)

    def _replacement(self, gone: str) -> str:
        """Name the worker that takes over: one that holds nothing yet, or the survivor with the fewest pieces."""
        until = time.monotonic() + self.patience
        holding = {part.worker: 0 for part in self.parts if part.worker != gone}
        for part in self.parts:
            if part.worker != gone:
                holding[part.worker] += len(part.pieces)
        while True:
            living = sorted(self._living() - {gone})
            fresh = [worker for worker in living if worker not in holding]
            if fresh:
                return fresh[0]
            if time.monotonic() > until + (0 if living else _LONGER * self.patience) or self._closed.is_set():
                break
            self._closed.wait(0.05)
        if not living:
            raise WorkersLost(
                f"the last Dask worker, {gone}, is gone and none came back within {(1 + _LONGER) * self.patience:g} s: "
                "start workers and run again; the run resumes at its last tree"
            )
        return min(living, key=lambda worker: (holding[worker], worker))


def deal(pieces: Sequence[Any], weights: Sequence[float] | None, workers: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """Deal out pieces to workers, the heaviest first and always to the one that holds least.

    Workers that get nothing are left out; with no pieces at all, one worker holds an empty list.
    """
    sizes = [1.0] * len(pieces) if weights is None else list(weights)
    if len(sizes) != len(pieces):
        raise ValueError(f"{len(pieces)} pieces but {len(sizes)} weights")
    loads = [0.0] * len(workers)
    dealt: list[list[int]] = [[] for _ in workers]
    for piece in sorted(range(len(pieces)), key=lambda index: (-sizes[index], index)):
        # A piece without weight counts a little, or all such pieces would go to one worker.
        lightest = min(range(len(workers)), key=lambda worker: (loads[worker], worker))
        loads[lightest] += max(sizes[piece], 1e-9)
        dealt[lightest].append(piece)
    if not pieces:
        return [(workers[0], [])]
    return [
        (worker, [pieces[index] for index in sorted(indices)])
        for worker, indices in zip(workers, dealt, strict=True)
        if indices
    ]


def add(vectors: Sequence[Int64Array]) -> Int64Array:
    """Add up the workers' vectors. Raises ValueError if their shapes differ: their steps did different things."""
    first = vectors[0]
    if len(vectors) == 1:
        return first
    shapes = {vector.shape for vector in vectors}
    if len(shapes) > 1:
        raise ValueError(f"the workers' vectors differ in shape: {sorted(shapes)}")
    total = first.copy()
    for vector in vectors[1:]:
        total += vector
    return total


def _alive(part: Part) -> bool:
    return part.future is not None and part.future.status == "finished"


def _nothing(held: Any) -> None:
    """Ask for nothing: the object has only to be there."""
