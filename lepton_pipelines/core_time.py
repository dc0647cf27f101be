"""Core time: the processor seconds that threads spend on a piece of work, those of its helpers included.

Threads are counted by the operating system's clock of each, so that several organisations' workers in one process are
told apart and waiting costs nothing. Threads that a library starts by itself (Arrow's, while it reads) are not counted.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_counting = threading.local()


class CoreTime:
    """Adds up what pieces of work took, one at a time. seconds: so far."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the calling thread's work in a block, and its helpers'."""
        outer = getattr(_counting, "by", None)
        _counting.by = self
        began = time.thread_time()
        try:
            yield
        finally:
            self.seconds += time.thread_time() - began
            _counting.by = outer


def helped(seconds: float) -> None:
    """Add what other threads spent on the work that the calling thread does, where it is counted."""
    counted: CoreTime | None = getattr(_counting, "by", None)
    if counted is not None:
        counted.seconds += seconds
