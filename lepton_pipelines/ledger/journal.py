"""The journal: what a replica has taken on but not yet written as tiles. One write and one fsync an extension.

The file begins with a line that names the format; records follow, each
`length (4 bytes) ‖ SHA-256(length)[:4] ‖ payload ‖ SHA-256(payload)[:8]`, where a payload is
`index of the first entry (8 bytes) ‖ count (4 bytes) ‖ the entries as in a bundle ‖ the signed head (UTF-8)`.
Numbers are big-endian. A record counts when it is whole; what a crash left of the last one is cut off. The length has a
check of its own, so that a changed length is told from a record that a crash cut short.
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lepton_pipelines.ledger.errors import LedgerDamaged, StorageRefused
from lepton_pipelines.ledger.tiles import pack_bundle, unpack_bundle

HEADER = b"lepton ledger journal v1\n"
_FRAME_BYTES = 16


@dataclass(frozen=True)
class Record:
    """Entries from index `first` on, and the signed head that they lead to."""

    first: int
    entries: tuple[bytes, ...]
    note: str

    def pack(self) -> bytes:
        """Write the record with its length and check."""
        payload = struct.pack(">QI", self.first, len(self.entries)) + pack_bundle(self.entries) + self.note.encode()
        length = struct.pack(">I", len(payload))
        return length + _check(length, 4) + payload + _check(payload, 8)

    @staticmethod
    def unpack(payload: bytes, where: str) -> "Record":
        """Read a payload. Raises LedgerDamaged if it is malformed."""
        if len(payload) < 12:
            raise LedgerDamaged(f"{where} is malformed: a record is too short")
        first, count = struct.unpack_from(">QI", payload)
        end = 12
        for _ in range(count):
            if end + 2 > len(payload):
                raise LedgerDamaged(f"{where} is malformed: a record ends within an entry")
            end += 2 + struct.unpack_from(">H", payload, end)[0]
        try:
            note = payload[end:].decode()
        except UnicodeDecodeError as error:
            raise LedgerDamaged(f"{where} is malformed: a head is not UTF-8") from error
        return Record(first, tuple(unpack_bundle(payload[12:end], count, where)), note)


def read(path: Path) -> tuple[list[Record], int]:
    """Return the whole records of a journal and the byte at which the last one ends.

    What follows that byte was being written when the process or the machine stopped: it was never acknowledged.
    Raises LedgerDamaged if a whole record does not match its check, which a crash does not do.
    """
    if not path.exists():
        return [], 0
    data = path.read_bytes()
    if not data.startswith(HEADER):
        if HEADER.startswith(data):
            return [], 0
        raise LedgerDamaged(f"{path} is no journal of a ledger")
    records = []
    position = len(HEADER)
    while (payload := _frame(data, position, path)) is not None:
        records.append(Record.unpack(payload, str(path)))
        position += _FRAME_BYTES + len(payload)
    return records, position


class Journal:
    """Appends records, each durable when `append` returns."""

    def __init__(self, path: Path, end: int) -> None:
        """Open the journal to go on behind byte `end`, as `read` told it; 0 starts it anew."""
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = end
        if end < len(HEADER):
            self.clear()
        else:
            os.ftruncate(self._file, end)

    def append(self, first: int, entries: Sequence[bytes], note: str) -> None:
        """Write one record and wait until the disk has it.

        Raises StorageRefused if the disk is full or fails; the journal is then as it was before.
        """
        data = Record(first, tuple(entries), note).pack()
        try:
            position = self._end
            while data:
                written = os.pwrite(self._file, data, position)
                data, position = data[written:], position + written
            os.fdatasync(self._file)
        except OSError as error:
            self._cut_back()
            raise StorageRefused(
                f"{self.path} could not be written ({error.strerror}): nothing was recorded and nothing is cosigned. "
                "Make room on the disk; the run can then be resumed"
            ) from error
        self._end = position

    def clear(self) -> None:
        """Forget all records: they lie in tiles now."""
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, HEADER, 0)
            os.fsync(self._file)
        except OSError as error:
            raise StorageRefused(
                f"{self.path} could not be written ({error.strerror}). Make room on the disk"
            ) from error
        self._end = len(HEADER)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def _cut_back(self) -> None:
        """Take a half-written record off again, as far as the disk lets us: reading would cut it off, too."""
        try:
            os.ftruncate(self._file, self._end)
        except OSError as error:
            raise StorageRefused(f"{self.path} could neither be written nor cut back ({error.strerror})") from error


def _frame(data: bytes, position: int, path: Path) -> bytes | None:
    """Return the payload of the record at this byte; None where no whole record follows."""
    head = data[position : position + 8]
    if len(head) < 8 or not any(data[position:]):
        return None
    (length,) = struct.unpack_from(">I", head)
    end = position + _FRAME_BYTES + length
    payload = data[position + 8 : position + 8 + length]
    intact = head[4:] == _check(head[:4], 4)
    if intact and end > len(data):
        return None
    if not intact or data[end - 8 : end] != _check(payload, 8):
        raise LedgerDamaged(
            f"{path} is damaged: the record at byte {position} does not match its check. "
            "Set the folder aside and copy the ledger anew from another member"
        )
    return payload


def _check(data: bytes, width: int) -> bytes:
    return hashlib.sha256(data).digest()[:width]
