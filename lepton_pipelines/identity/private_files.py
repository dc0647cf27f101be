"""Files that their owner alone may read: keys, logs, checkpoints."""

import os
import stat
from pathlib import Path

from lepton_pipelines.spec.errors import UserError


def make_private_folder(folder: Path) -> Path:
    """Create a folder that its owner alone may enter (0700), and return it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file of mode 0600, wholly or not at all, and durably.

    Raises UserError if it exists already and is not to be replaced.
    """
    if path.exists() and not replace:
        raise UserError(f"{path} exists already. It is not overwritten: move it away first if it is to be replaced.")
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_private(path: Path, *, what: str) -> bytes:
    """Read a file that nobody else may read.

    what: how the error calls it. Raises UserError if it is missing or if others can read it.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{what} is missing: there is no {path}. Create it with init, or restore it.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise UserError(f"{what} at {path} can be read by others (mode {stat.S_IMODE(mode):o}). Run: chmod 600 {path}")
    return path.read_bytes()
