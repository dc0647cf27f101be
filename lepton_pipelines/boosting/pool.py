"""Threads for the kernels: started once, handed work without a queue of tasks in between.

The caller works along. What is small enough for one thread is done by the caller alone, so that little data
never pays for waking anyone.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

from lepton_pipelines.core_time import helped

Task = tuple[Callable[..., Any], tuple[Any, ...]]


class _Batch:
    """Tasks that are done in parallel; the last one to finish releases the caller."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)
        self.left = len(self.tasks)
        self.lock = threading.Lock()
        self.done = threading.Lock()  # held until the last task is done; much cheaper than an Event
        self.done.acquire()
        self.error: BaseException | None = None
        self.helped = 0.0  # processor seconds of the helpers

    def work(self, *, helps: bool) -> None:
        while True:
            began = time.thread_time() if helps else 0.0
            with self.lock:
                if not self.tasks:
                    return
                function, arguments = self.tasks.pop()
            try:
                function(*arguments)
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                self.error = error
            took = time.thread_time() - began if helps else 0.0
            with self.lock:
                self.helped += took
                self.left -= 1
                if self.left == 0:
                    self.done.release()


class Pool:
    """A caller and `threads - 1` helpers. Several callers may share one pool."""

    def __init__(self, threads: int | None = None) -> None:
        """threads: how many work at once, the caller included; None takes what the process may use."""
        self.threads = threads or available_threads()
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._helpers: list[threading.Thread] = []

    def run(self, tasks: Sequence[Task]) -> None:
        """Do all tasks and return when they are done. Raises what one of them raised."""
        if len(tasks) == 1 or self.threads == 1:
            for function, arguments in tasks:
                function(*arguments)
            return
        if not tasks:
            return
        self._start_helpers()
        batch = _Batch(tasks)
        for _ in range(min(len(tasks), self.threads) - 1):
            self._queue.put(batch)
        batch.work(helps=False)
        batch.done.acquire()
        helped(batch.helped)
        if batch.error is not None:
            raise batch.error

    def close(self) -> None:
        """Let the helpers end."""
        for _ in self._helpers:
            self._queue.put(None)
        self._helpers.clear()

    def _start_helpers(self) -> None:
        while len(self._helpers) < self.threads - 1:
            helper = threading.Thread(target=_help, args=(self._queue,), name="boosting", daemon=True)
            self._helpers.append(helper)
            helper.start()


def _help(queue: "SimpleQueue[_Batch | None]") -> None:
    while (batch := queue.get()) is not None:
        batch.work(helps=True)


def available_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_of(nthread: int | None) -> int | None:
    """Return how many threads XGBoost's `nthread` asks for; None where it leaves that open."""
    return nthread if nthread is not None and nthread > 0 else None


def spans(total: int, parts: int) -> list[tuple[int, int]]:
    """Cut 0 … total into so many even parts, without empty ones."""
    ends = [total * k // parts for k in range(parts + 1)]
    return [(lo, hi) for lo, hi in pairwise(ends) if lo < hi]
