"""Checks many Ed25519 signatures on all cores: threads do, for `cryptography` gives the interpreter free meanwhile."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from lepton_pipelines.identity.signing import verified

Signed = tuple[bytes, bytes, bytes]
"""(public key, signature, message)"""

CHUNK = 256
_AHEAD = 8  # chunks a core that may wait, so that memory does not grow with the log


class SignaturePool:
    """Takes signatures one by one and tells at the end, or earlier, which is wrong."""

    def __init__(self) -> None:
        self._chunk: list[Signed] = []
        self._first = 0
        self._pending: deque[tuple[int, Future[int]]] = deque()
        self._cores = len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(self._cores, thread_name_prefix="signatures")

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
        """End the threads; what they have not begun is dropped."""
        self._threads.shutdown(cancel_futures=True)

    def _send(self) -> int | None:
        self._pending.append((self._first, self._threads.submit(first_wrong, self._chunk)))
        self._first += len(self._chunk)
        self._chunk = []
        return self._next() if len(self._pending) > _AHEAD * self._cores else None

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
