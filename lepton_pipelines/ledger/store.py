"""A log's folder: tiles, entry bundles and heads in files that anyone can read, and a journal for what is newer.

    checkpoint            the newest published head, signed by the log and cosigned by members
    heads/<size>          the heads published before, as they were cosigned
    tile/…                tiles and entry bundles (see tiles.py)
    journal               what was taken on since (see journal.py)
    policy                whose signatures the owner of this replica relies on (see policy.py)

An extension is durable when `append` returns, for one fsync. `publish` moves the journal into tiles.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from lepton_pipelines.ledger import journal
from lepton_pipelines.ledger.checkpoint import Checkpoint
from lepton_pipelines.ledger.durable_file import write_durably
from lepton_pipelines.ledger.errors import EntryRefused, LedgerDamaged, LedgerError, LedgerInUse, ProofRefused
from lepton_pipelines.ledger.merkle import consistency_proof, inclusion_proof, leaf_hash, root_at
from lepton_pipelines.ledger.note import Note
from lepton_pipelines.ledger.tiles import (
    MAXIMUM_ENTRY_BYTES,
    TILE_WIDTH,
    TileEdge,
    TileReader,
    bundle_path,
    pack_bundle,
    widths,
)

PUBLISH_EVERY = 1024


class LedgerView:
    """Reads a ledger's folder as it stands, without changing it: published tiles and what the journal adds.

    note: the newest head, signed; None if the ledger is empty. Nothing here checks signatures: `Replica` and
    `verification` do. What is checked on opening is that the files are well-formed and hash to the heads' roots.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.published = 0
        self.note: Note | None = None
        checkpoint = folder / "checkpoint"
        if checkpoint.exists():
            self.note = read_note(checkpoint)
            self.published = self._checkpoint(self.note).size
        elif not folder.is_dir():
            raise LedgerError(f"{folder} is no ledger: there is no such folder")
        reader = TileReader(folder, self.published)
        self.edge = TileEdge.read(reader)
        self._check_root(self.note, folder / "checkpoint")
        self._recent_start = self.published // TILE_WIDTH * TILE_WIDTH
        self._recent = list(reader.bundle(self.published // TILE_WIDTH)) if self.published % TILE_WIDTH else []
        records, self.journal_end = journal.read(folder / "journal")
        for record in records:
            self._replay(record)
        self._tiles = _EdgeReader(folder, self.edge)

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self.edge.size

    @property
    def root(self) -> bytes:
        """The root over all entries."""
        return self.edge.frontier.root()

    @property
    def head(self) -> Checkpoint | None:
        """The newest head; None if the ledger is empty."""
        return None if self.note is None else self._checkpoint(self.note)

    def entry(self, index: int) -> bytes:
        """Return one entry. Raises ProofRefused if there is none of this index."""
        if not 0 <= index < self.size:
            raise ProofRefused(f"{self.folder} has no entry {index}: its {self.size} entries count from 0")
        if index >= self._recent_start:
            return self._recent[index - self._recent_start]
        return self._tiles.entry(index)

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the entries from `start` up to, not including, `end` (all of them unless given)."""
        for index in range(start, self.size if end is None else end):
            yield self.entry(index)

    def root_at(self, size: int) -> bytes:
        """Return the root over the first `size` entries."""
        return root_at(size, self._tiles.subtree)

    def leaf(self, index: int) -> bytes:
        """Return the hash of one entry, as the tiles have it."""
        return self._tiles.subtree(0, index)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """Prove that the entry at `index` is among the first `size`."""
        return inclusion_proof(index, size, self._tiles.subtree)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """Prove that the first `new` entries begin with the first `old`."""
        return consistency_proof(old, new, self._tiles.subtree)

    def heads(self) -> list[tuple[int, Note]]:
        """Return the published heads, the oldest first. Raises LedgerDamaged if a file is not what its name says."""
        found = []
        for path in (self.folder / "heads").glob("*"):
            if not path.name.isdecimal():
                continue
            note = read_note(path)
            if self._checkpoint(note).size != int(path.name):
                raise LedgerDamaged(f"{path} holds a head of another size")
            found.append((int(path.name), note))
        return sorted(found, key=lambda each: each[0])

    def _replay(self, record: journal.Record) -> None:
        if record.first + len(record.entries) <= self.published and self.published:
            return
        where = self.folder / "journal"
        if record.first != self.size:
            raise LedgerDamaged(f"{where}: a record begins at entry {record.first}, expected {self.size}")
        self._take(record.entries)
        try:
            self.note = Note.parse(record.note)
        except ProofRefused as error:
            raise LedgerDamaged(f"{where}: {error}") from error
        self._check_root(self.note, where)

    def _take(self, entries: Sequence[bytes]) -> None:
        for entry in entries:
            self.edge.append(leaf_hash(entry))
        self._recent.extend(entries)

    def _check_root(self, note: Note | None, where: Path) -> None:
        head = None if note is None else self._checkpoint(note)
        if head is not None and (head.size != self.size or head.root != self.root):
            raise LedgerDamaged(
                f"{where}: the head's root is not that of {self.folder}'s {self.size} entries: a file was changed. "
                "Set the folder aside and copy the ledger anew from another member"
            )

    def _checkpoint(self, note: Note) -> Checkpoint:
        try:
            return Checkpoint.parse(note.text)
        except ProofRefused as error:
            raise LedgerDamaged(f"{self.folder}: a head is malformed: {error}") from error


class LedgerStore(LedgerView):
    """A ledger's folder held for writing by one process at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise LedgerInUse(f"{folder} is in use by another process: wait for it, or end it") from error
        try:
            super().__init__(folder)
            self._journal = journal.Journal(folder / "journal", self.journal_end)
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, entries: Sequence[bytes], note: Note) -> None:
        """Take on entries and the signed head that they lead to; on return the disk has both.

        Raises StorageRefused if the disk does not take them, EntryRefused if one is too long; the ledger is then
        as before. The caller has checked signatures and the root.
        """
        for entry in entries:
            if len(entry) > MAXIMUM_ENTRY_BYTES:
                raise EntryRefused(
                    f"an entry of {len(entry)} bytes does not fit the ledger: at most {MAXIMUM_ENTRY_BYTES}"
                )
        self._journal.append(self.size, entries, str(note))
        self._take(entries)
        self.note = note

    def confirm(self, note: Note) -> None:
        """Keep the newest head with the cosignatures that it has got, and publish if the journal has grown long."""
        self.note = note
        if self.size - self.published >= PUBLISH_EVERY:
            self.publish()

    def publish(self) -> None:
        """Write what is new as tiles, bundles and a head, then empty the journal. A crash in between loses nothing."""
        if self.note is None or (self.size == self.published and self._published_note() == str(self.note)):
            return
        for path, data in [*self._bundles(), *self.edge.files()]:
            if not (self.folder / path).exists() or (self.folder / path).read_bytes() != data:
                write_durably(self.folder / path, data)
        write_durably(self.folder / "heads" / str(self.size), str(self.note).encode())
        write_durably(self.folder / "checkpoint", str(self.note).encode())
        self._journal.clear()
        self._drop_partial_files()
        self.edge.finished.clear()
        self.published = self.size
        start = self.size // TILE_WIDTH * TILE_WIDTH
        self._recent, self._recent_start = self._recent[start - self._recent_start :], start

    def close(self) -> None:
        """Publish, and give the folder back."""
        try:
            self.publish()
        finally:
            self.give_back()

    def give_back(self) -> None:
        """Let another process have the folder; the journal keeps what is not published. Once is enough."""
        if self._lock >= 0:
            self._journal.close()
            os.close(self._lock)
            self._lock = -1

    def _published_note(self) -> str | None:
        path = self.folder / "checkpoint"
        return path.read_text() if path.exists() else None

    def _bundles(self) -> Iterator[tuple[str, bytes]]:
        for number, width in widths(len(self._recent)):
            entries = self._recent[number * TILE_WIDTH : number * TILE_WIDTH + width]
            yield bundle_path(self._recent_start // TILE_WIDTH + number, width), pack_bundle(entries)

    def _drop_partial_files(self) -> None:
        """Remove the partial tiles of which the full one is there now, as `tlog-tiles` allows."""
        full = [path for path, _ in self.edge.files() if ".p/" not in path]
        full += [path for path, _ in self._bundles() if ".p/" not in path]
        for path in full:
            shutil.rmtree(self.folder / f"{path}.p", ignore_errors=True)


class _EdgeReader(TileReader):
    """Reads tiles from memory where they are not written yet, from files where they are."""

    def __init__(self, folder: Path, edge: TileEdge) -> None:
        super().__init__(folder, 0)
        self._edge = edge

    def tile(self, level: int, number: int) -> list[bytes]:
        """Return the hashes of one tile as the ledger stands now."""
        self.size = self._edge.size
        if (level, number) in self._edge.finished:
            return self._edge.finished[level, number]
        if level < len(self._edge.hashes) and number == (self.size >> (8 * level)) // TILE_WIDTH:
            return self._edge.hashes[level]
        return super().tile(level, number)

    def bundle(self, number: int) -> list[bytes]:
        """Return the entries of one full bundle."""
        self.size = self._edge.size
        return super().bundle(number)


def read_note(path: Path) -> Note:
    """Read a signed note from a file. Raises LedgerDamaged, naming the file, if it is malformed."""
    try:
        return Note.parse(path.read_bytes().decode())
    except (ProofRefused, UnicodeDecodeError) as error:
        raise LedgerDamaged(f"{path} is malformed: {error}") from error
