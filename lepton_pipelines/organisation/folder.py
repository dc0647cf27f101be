"""Where a run keeps what it needs to go on, and what it leaves: one folder a run, its owner's alone.

`var/runs/RUN/` holds the spec, the log and the report; below it one folder an organisation with its checkpoints
and the model. What one organisation's checkpoints hold (edges, trees, its own scores) is its own business.
"""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lepton_pipelines.spec.errors import UserError

PRIVATE = 0o700
PRIVATE_FILE = 0o600
LOG_FILE = "log.txt"
ROWS_FILE = "rows.sha256"  # of the rows that the checkpoints beside it were grown on
QUARANTINE = "quarantine"
SALT_FILE = "ledger.salt"  # in the run's folder at home: of the digests of trees in the ledger
CHECKPOINT = re.compile(r"^round-(\d{6})\.npz$")
# Organisations may have been stopped one round apart: each keeps the last two.
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. var: the working folder of all runs. run_id: names it."""

    var: Path
    run_id: str

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.var / "runs" / self.run_id

    def create(self) -> None:
        """Make the folder, readable by its owner only. Raises UserError if it cannot be written."""
        try:
            make_private(self.path)
            self.path.chmod(PRIVATE)
        except OSError as error:
            raise UserError(cannot_write(self.path, error)) from error

    def discard(self) -> None:
        """Take the folder away, and those around it that are then empty: nothing came of the run."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in (self.path.parent, self.var):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def keep_only(self, name: str) -> None:
        """Remove what the organisations keep of the run, checkpoints and models, but for their files of this name."""
        for path in (self.path / "organisations").glob("*/*"):
            if path.name != name and path.is_file():
                path.unlink()

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file whole or not at all. name: below the run's folder."""
        return write_private(self.path / name, content)

    def of(self, organisation: str) -> "OrganisationFolder":
        """Return an organisation's own folder of this run."""
        return OrganisationFolder(self.path / "organisations" / organisation)


@dataclass(frozen=True)
class OrganisationFolder:
    """An organisation's own folder of a run."""

    path: Path

    def write_checkpoint(self, rounds: int, content: bytes) -> None:
        """Keep the training's progress after so many rounds, and that of the round before."""
        write_private(self.path / f"round-{rounds:06}.npz", content)
        for old in self.rounds()[:-CHECKPOINTS_KEPT]:
            (self.path / f"round-{old:06}.npz").unlink(missing_ok=True)

    def forget_after(self, rounds: int) -> None:
        """Remove checkpoints of later rounds: trees are grown anew from there on."""
        for old in self.rounds():
            if old > rounds:
                (self.path / f"round-{old:06}.npz").unlink(missing_ok=True)

    def read_checkpoint(self, rounds: int) -> bytes:
        """Return the progress after so many rounds."""
        return (self.path / f"round-{rounds:06}.npz").read_bytes()

    def rounds(self) -> list[int]:
        """Return after how many rounds there are checkpoints, ascending."""
        if not self.path.is_dir():
            return []
        return sorted(int(found[1]) for path in self.path.iterdir() if (found := CHECKPOINT.match(path.name)))


def write_private(path: Path, content: str | bytes) -> Path:
    """Write a file that its owner alone may read, whole or not at all. Raises UserError if that fails."""
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        make_private(path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(cannot_write(path, error)) from error
    return path


def make_private(folder: Path) -> None:
    """Make a folder and those around it that are missing, each its owner's alone."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(exist_ok=True, mode=PRIVATE)


def check_writable(var: Path) -> None:
    """Refuse a working folder that cannot be written, before anything is done. Leaves nothing behind."""
    nearest = var.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{nearest} is a file, but runs are kept in the folder {var}. Name another with --var.")
    try:
        with tempfile.NamedTemporaryFile(dir=nearest, prefix=".lepton-"):
            return
    except OSError as error:
        raise UserError(cannot_write(nearest, error)) from error


def cannot_write(path: Path, error: OSError) -> str:
    """Say what to do about a folder or file that cannot be written."""
    return f"{path} cannot be written ({error.strerror or error}). Give write permission or space, or name --var."
