"""A file that is either there, whole and on the disk, or not there at all."""

import os
from pathlib import Path

from lepton_pipelines.ledger.errors import StorageRefused


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new one: beside it, fsync, rename, fsync the folder.

    Raises StorageRefused if the disk is full or fails; an older content is then untouched.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        finally:
            os.close(file)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageRefused(
            f"{path} could not be written ({error.strerror}). Make room on the disk, then repeat"
        ) from error


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's list of names."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
