"""Checkpoints of a run at home: what training needs to go on, and how many sums were finished when it was taken.

A checkpoint is written beside the old one and takes its place in one step: a killed process leaves the old one or the
new one, never half of one. Its file is readable by its owner alone and carries a digest.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from lepton_pipelines.identity.private_files import make_private_folder, write_private

KEPT = 3  # a member that comes back may hold fewer totals than the newest checkpoint takes for granted
_NAME = re.compile(r"^(\d{10})\.checkpoint$")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved, and the position in the run's sums that it belongs to."""

    position: int
    payload: bytes


class Checkpoints:
    """The newest checkpoints of one run in a folder (0700)."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_private_folder(folder)

    def save(self, position: int, payload: bytes) -> int:
        """Keep a checkpoint durably and let go of old ones; return the oldest position that is still kept."""
        path = self._folder / f"{position:010d}.checkpoint"
        write_private(path, hashlib.sha256(payload).digest() + payload, replace=True)
        positions = self._positions()
        for old in positions[:-KEPT]:
            (self._folder / f"{old:010d}.checkpoint").unlink(missing_ok=True)
        return positions[-KEPT:][0]

    def newest(self, *, not_after: int | None = None) -> Checkpoint | None:
        """Return the newest whole checkpoint whose position is not beyond what every member holds."""
        for position in reversed(self._positions()):
            if not_after is not None and position > not_after:
                continue
            data = (self._folder / f"{position:010d}.checkpoint").read_bytes()
            if hashlib.sha256(data[32:]).digest() == data[:32]:
                return Checkpoint(position, data[32:])
        return None

    def _positions(self) -> list[int]:
        found = (_NAME.match(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in found if match)
