"""Sums that kill their own process, for programs that are to come back."""

import os
import signal
from typing import Any


def die_after(sums: Any, fatal: int) -> None:
    """Let this process be killed as soon as it has begun more than so many sums, before it has their totals."""
    start = sums.start

    def deadly(*arguments: Any, **settings: Any) -> Any:
        pending = start(*arguments, **settings)
        if sums.position > fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return pending

    sums.start = deadly
    sums.sum = lambda *arguments, **settings: deadly(*arguments, **settings).result()
