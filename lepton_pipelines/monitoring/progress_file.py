"""How far an organisation's part of a run has come, in a small file in the run's folder, for whoever asks later.

Parts are processes of their own that come and go; what answers Prometheus reads these files. They hold names, counts,
seconds and the federation's scores, which every member may see, and nothing of a row or of an error's text.
"""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lepton_pipelines.organisation import progress
from lepton_pipelines.organisation.folder import PRIVATE_FILE, RunFolder, make_private

PROGRESS_FILE = "progress.json"
EVERY_SECONDS = 1.0
RUNNING, FINISHED, STOPPED = "running", "finished", "stopped"

logger = logging.getLogger(__name__)


@dataclass
class RunProgress:
    """One organisation's part of a run. state: running, finished or stopped. began, updated: Unix time.

    seconds: of finished steps. round, rounds: done and planned. training: seconds since training began.
    sent: bytes through its sums. scores: {rows: {metric: score}} of the federation, after the last round.
    """

    organisation: str
    pipeline: str
    run: str
    state: str = RUNNING
    step: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    round: int = 0
    rounds: int = 0
    training: float = 0.0
    sent: int = 0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    began: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)

    def hear(self, event: progress.Event) -> None:
        """Take in what was told of the run."""
        if event.organisation != self.organisation:
            return
        match event:
            case progress.StageStarted():
                self.step = event.stage
            case progress.StageFinished():
                self.seconds[event.stage] = event.seconds
            case progress.RoundFinished():
                self.round, self.rounds, self.training = event.round, event.rounds, event.seconds
                self.sent, self.scores = event.bytes_sent, event.scores


@contextmanager
def kept_progress(folder: RunFolder, organisation: str, pipeline: str) -> Iterator[None]:
    """Keep the file of a part up to date for the length of a block, about every second, and say how it ended."""
    keeper = _Keeper(folder.of(organisation).path / PROGRESS_FILE, RunProgress(organisation, pipeline, folder.run_id))
    with progress.listening(folder.run_id, keeper.hear):
        keeper.write()
        try:
            yield
        except BaseException:
            keeper.told.state = STOPPED
            raise
        else:
            keeper.told.state = FINISHED
        finally:
            keeper.write()


def read_progress(var: Path) -> list[RunProgress]:
    """Return what the files below a working folder say; one that is not whole is left out."""
    found = []
    for path in sorted(var.glob(f"runs/*/organisations/*/{PROGRESS_FILE}")):
        try:
            found.append(RunProgress(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return found


class _Keeper:
    """Writes the file. A disk that is full does not stop a training: then the file stays behind."""

    def __init__(self, path: Path, told: RunProgress) -> None:
        self.told = told
        self._path = path
        self._next = 0.0
        self._failed = False

    def hear(self, event: progress.Event) -> None:
        self.told.hear(event)
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        self._next = time.monotonic() + EVERY_SECONDS
        self.told.updated = time.time()
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            make_private(self._path.parent)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE), "w") as file:
                json.dump(asdict(self.told), file)
            beside.replace(self._path)
        except OSError as error:
            if not self._failed:
                self._failed = True
                logger.warning("%s: progress cannot be kept in %s: %s", self.told.organisation, self._path, error)
