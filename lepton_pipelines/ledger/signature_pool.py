"""Checks many Ed25519 signatures on all cores. Light to import: every worker process does."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

from lepton_pipelines.identity.signing import verified

Signed = tuple[bytes, bytes, bytes]
"""(public key, signature, message)"""

CHUNK = 512
SERIAL_UP_TO = 4096


class SignaturePool:
    """Takes signatures one by one and tells at the end, or earlier, which is wrong.

    The first few thousand are checked in this process: starting others would take longer.
    """

    def __init__(self) -> None:
        self._chunk: list[Signed] = []
        self._first = 0
        self._pending: deque[tuple[int, Future[int]]] = deque()
        self._workers = len(os.sched_getaffinity(0))
        self._processes: ProcessPoolExecutor | None = None

    def add(self, signed: Signed) -> int | None:
        """Take one signature; return the number (from 0, as added) of one that was found wrong by now, if any."""
        self._chunk.append(signed)
        return self._send() if len(self._chunk) >= CHUNK else None

    def finish(self) -> int | None:
        """Wait for all; return the number of the first wrong signature, None if all are genuine."""
        wrong = self._send()
        while self._pending and wrong is None:
            wrong = self._next()
        self.close()
        return wrong

    def close(self) -> None:
        """End the workers."""
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)
            self._processes = None

    def _send(self) -> int | None:
        chunk, first = self._chunk, self._first
        self._chunk, self._first = [], first + len(chunk)
        if self._first <= SERIAL_UP_TO or self._workers == 1:
            wrong = first_wrong(chunk)
            return None if wrong < 0 else first + wrong
        if self._processes is None:
            self._processes = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
        self._pending.append((first, self._processes.submit(first_wrong, chunk)))
        return self._next() if len(self._pending) > 4 * self._workers else None

    def _next(self) -> int | None:
        first, future = self._pending.popleft()
        wrong = future.result()
        return None if wrong < 0 else first + wrong


def first_wrong(chunk: Sequence[Signed]) -> int:
    """Return the index of the first signature that is wrong, -1 if there is none."""
    for index, (key, signature, message) in enumerate(chunk):
        if not verified(key, signature, message):
            return index
    return -1
