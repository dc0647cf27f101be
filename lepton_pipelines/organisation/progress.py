"""What a run tells while it goes on: small events, to whoever listens under the run's id.

The library tells, and does not care who listens: the command line's live view, Prefect's progress artifact, a
test. An event holds names, counts and scores that the run's participants may see, never a row's values.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

logger = logging.getLogger(__name__)

Stage = Literal["ingest", "validate", "bin", "train", "compare", "evaluate"]


@dataclass(frozen=True)
class StageStarted:
    """An organisation has begun a step of its part."""

    organisation: str
    stage: Stage


@dataclass(frozen=True)
class StageFinished:
    """An organisation has finished a step of its part. seconds: how long it took. summary: one line of counts."""

    organisation: str
    stage: Stage
    seconds: float
    summary: str = ""


@dataclass(frozen=True)
class PiecesRead:
    """An organisation's workers are reading. pieces, rows: so far. of: pieces there are.

    total: rows that its files say they hold; None where only reading tells.
    """

    organisation: str
    pieces: int
    of: int
    rows: int
    total: int | None = None

    @property
    def share(self) -> float:
        """How much is read, from 0 to 1."""
        share = self.rows / self.total if self.total else self.pieces / max(self.of, 1)
        return min(share, 1.0)

    def told(self) -> str:
        """Say it in a line."""
        rows = f"{self.rows:,} rows" if self.total is None else f"{self.rows:,} of {self.total:,} rows"
        return f"{self.pieces} of {self.of} pieces · {rows}"


@dataclass(frozen=True)
class RowsRead:
    """An organisation holds its rows. share: of positives, or the mean label; None where that is not shown."""

    organisation: str
    rows: int
    share: float | None
    workers: int


@dataclass(frozen=True)
class RoundFinished:
    """An organisation has finished a boosting round.

    round: counted from 1. scores, own_scores: {set: {metric: score}} of the federation and of its own rows.
    bytes_sent: through its sums so far. seconds: since training began.
    """

    organisation: str
    round: int
    rounds: int
    scores: dict[str, dict[str, float]]
    own_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    bytes_sent: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class FilesScored:
    """An organisation has scored some files of a batch, told under its target. rows: of all files so far."""

    organisation: str
    files: int
    of: int
    rows: int


@dataclass(frozen=True)
class Notice:
    """Something worth a line: a lost worker, rows set aside, a step resumed."""

    organisation: str
    message: str


Event = StageStarted | StageFinished | PiecesRead | RowsRead | RoundFinished | FilesScored | Notice
Listener = Callable[[Event], None]

_lock = threading.Lock()
_listeners: dict[str, list[Listener]] = {}


def tell(run_id: str, event: Event) -> None:
    """Hand an event to everyone who listens to this run. A listener that fails is logged, the run goes on."""
    with _lock:
        listeners = list(_listeners.get(run_id, ()))
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # a display must not stop a training
            logger.exception("a listener of run %s failed on %s", run_id, type(event).__name__)


@contextmanager
def listening(run_id: str, listener: Listener) -> Iterator[None]:
    """Have `listener` called with every event of the run, in the thread that tells it, for the length of a block."""
    with _lock:
        _listeners.setdefault(run_id, []).append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners[run_id].remove(listener)
            if not _listeners[run_id]:
                del _listeners[run_id]
