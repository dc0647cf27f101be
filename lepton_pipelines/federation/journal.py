"""What a member writes down in a run, so that a restart neither sends other numbers nor asks for what it had.

Commitments and epochs stand in SQLite with `synchronous=FULL`: a masked vector leaves only after its commitment is on
disk. Totals are written behind the run's back: a small one in the transaction of the next commitment, so that a sum
waits for the disk once; a long one as a file of its own.
"""

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.poly1305 import Poly1305

from lepton_pipelines.federation.effects import Commitment, EpochOpened, Record, TotalHeld, Write
from lepton_pipelines.identity.private_files import make_private_folder
from lepton_pipelines.sums import Int64Array

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commitments (
    number INTEGER NOT NULL, name TEXT PRIMARY KEY, shape TEXT NOT NULL, bound TEXT NOT NULL, context BLOB NOT NULL,
    salt BLOB NOT NULL, plaintext BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS dropped (below INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS totals (number INTEGER PRIMARY KEY, total BLOB NOT NULL);
"""
SMALL_TOTAL = 1 << 16  # bytes up to which a total stands in the database
_IDLE_SECONDS = 0.02  # after which small totals do not wait for a commitment any longer
_LATER = Write(0, EpochOpened(0))  # tells the writer's thread that small totals wait
_CHECKSUM = b"lepton/total/1 is no secret: 32 B"[:32]


class JournalFailedError(OSError):
    """The disk does not take what must be on it before anything is sent."""


class RunJournal:
    """One run's journal in a folder of its own (0700).

    Reading is for the state machine, writing for `JournalWriter`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._totals = folder, folder / "totals"
        path = folder / "journal.sqlite"
        self._lock = threading.Lock()
        try:
            make_private_folder(folder)
            make_private_folder(self._totals)
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise JournalFailedError(f"the run's journal at {path} cannot be written: {error}") from error
        rows = self._database.execute("SELECT number, name, shape, bound, context, salt, plaintext FROM commitments")
        self._commitments = {row[1]: _commitment(*row) for row in rows}
        self._next = 1 + max((one.number for one in self._commitments.values()), default=-1)
        (self._epoch,) = self._database.execute("SELECT coalesce(max(epoch), 0) FROM epochs").fetchone()
        (dropped,) = self._database.execute("SELECT coalesce(max(below), 0) FROM dropped").fetchone()
        self._held = {int(file.stem) for file in self._totals.glob("*.total")}
        self._held |= {int(number) for (number,) in self._database.execute("SELECT number FROM totals")}
        self._done = int(dropped)
        while self._done in self._held:
            self._done += 1

    @property
    def epoch(self) -> int:
        """The highest epoch that was written down."""
        return int(self._epoch)

    @property
    def done(self) -> int:
        """Number of the first sum whose total is not held (or was, and is behind a checkpoint)."""
        return self._done

    @property
    def next_number(self) -> int:
        """Number after the last sum that was committed to."""
        return self._next

    def commitment(self, name: str) -> Commitment | None:
        """What was written ahead of the sum of this name."""
        return self._commitments.get(name)

    def total(self, number: int) -> Int64Array | None:
        """The total of this sum, if it is held and whole."""
        if number not in self._held:
            return None
        with self._lock:
            row = self._database.execute("SELECT total FROM totals WHERE number = ?", (number,)).fetchone()
        data = self._path(number).read_bytes() if row is None else bytes(row[0])
        body = data[16:]
        if _checksum(body) != data[:16]:
            return None
        (dimensions,) = np.frombuffer(body[:8], "<i8")
        shape = np.frombuffer(body[8 : 8 + 8 * int(dimensions)], "<i8")
        return np.frombuffer(body[8 + 8 * int(dimensions) :], "<i8").reshape(shape).astype(np.int64)

    def write_small(self, records: Sequence[Record]) -> None:
        """Make commitments, epochs and small totals durable in one transaction. Raises JournalFailedError."""
        try:
            with self._lock:
                self._database.execute("BEGIN IMMEDIATE")
                for record in records:
                    if isinstance(record, EpochOpened):
                        self._database.execute("INSERT OR IGNORE INTO epochs VALUES (?)", (record.epoch,))
                    elif isinstance(record, TotalHeld):
                        body = b"".join(_body(record.total))
                        values = (record.number, _checksum(body) + body)
                        self._database.execute("INSERT OR REPLACE INTO totals VALUES (?, ?)", values)
                    else:
                        self._database.execute("INSERT INTO commitments VALUES (?, ?, ?, ?, ?, ?, ?)", _row(record))
                self._database.execute("COMMIT")
                for record in records:
                    if isinstance(record, EpochOpened):
                        self._epoch = max(self._epoch, record.epoch)
                    elif isinstance(record, TotalHeld):
                        self._hold(record.number)
                    else:
                        self._commitments[record.name] = record
                        self._next = max(self._next, record.number + 1)
        except sqlite3.Error as error:
            raise JournalFailedError(f"the run's journal in {self.folder} cannot be written: {error}") from error

    def write_total(self, record: TotalHeld) -> None:
        """Make a total durable. Raises JournalFailedError."""
        body = _body(record.total)
        path = self._path(record.number)
        beside = path.with_suffix(".new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_checksum(*body))
                file.writelines(body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise JournalFailedError(f"the total of sum {record.number} cannot be kept at {path}: {error}") from error
        with self._lock:
            self._hold(record.number)

    def drop_totals(self, below: int) -> None:
        """Let go of totals of which every member's checkpoint knows."""
        below = min(below, self._done)
        with self._lock:
            self._database.execute("INSERT INTO dropped VALUES (?)", (below,))
            self._database.execute("DELETE FROM totals WHERE number < ?", (below,))
        for number in [number for number in self._held if number < below]:
            self._path(number).unlink(missing_ok=True)
            self._held.discard(number)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _hold(self, number: int) -> None:
        self._held.add(number)
        while self._done in self._held:
            self._done += 1

    def _path(self, number: int) -> Path:
        return self._totals / f"{number:010d}.total"


class JournalWriter:
    """Carries out `Write` effects: commitments at once and together, totals when there is time.

    Small totals go with the next commitment, or after a moment in which there was none.

    written: called with the token when a record is durable. failed: called once if the disk refuses.
    """

    def __init__(self, journal: RunJournal, written: Callable[[int], None], failed: Callable[[str], None]) -> None:
        self._journal = journal
        self._written = written
        self._failed = failed
        self._lock = threading.Lock()
        self._lazy: list[Write] = []
        self._lazy_since = 0.0
        self._awaited = False  # whether the thread below knows that there are small totals
        self._small: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._totals: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._write_small, name="journal", daemon=True),
            threading.Thread(target=self._write_totals, name="journal of totals", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def write(self, effect: Write) -> None:
        """Queue a record."""
        record = effect.record
        if not isinstance(record, TotalHeld):
            self._small.put(effect)
        elif record.total.nbytes > SMALL_TOTAL:
            self._totals.put(effect)
        else:
            with self._lock:
                if not self._lazy:
                    self._lazy_since = time.monotonic()
                self._lazy.append(effect)
                known, self._awaited = self._awaited, True
            if not known:
                self._small.put(_LATER)

    def write_now(self, effects: Sequence[Write]) -> None:
        """Make records durable before this returns, and with them the small totals that wait."""
        with self._lock:
            everything, self._lazy = [*self._lazy, *effects], []
        self._try_small(everything)

    def close(self) -> None:
        """Write what is queued, and end."""
        self._small.put(None)
        self._totals.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _write_small(self) -> None:
        effects: list[Write] = []
        while True:
            pause = self._pause() if not effects else 0.0
            try:
                effect = self._small.get(timeout=pause) if pause is None or pause > 0 else self._small.get_nowait()
            except queue.Empty:
                self.write_now(effects)
                effects = []
                continue
            if effect is None:
                self.write_now(effects)
                return
            if effect is not _LATER:
                effects.append(effect)

    def _pause(self) -> float | None:
        """Seconds after which small totals do not wait any longer; None if there are none."""
        with self._lock:
            if not self._lazy:
                if self._awaited and time.monotonic() - self._lazy_since < _IDLE_SECONDS:
                    return _IDLE_SECONDS  # sums follow each other: their totals go with the commitments
                self._awaited = False
                return None
            return max(self._lazy_since + _IDLE_SECONDS - time.monotonic(), 0.0)

    def _write_totals(self) -> None:
        while (effect := self._totals.get()) is not None:
            record: Record = effect.record
            assert isinstance(record, TotalHeld)  # noqa: S101 - `write` has sorted them
            if not self._try(partial(self._journal.write_total, record), [effect]):
                return

    def _try_small(self, effects: Sequence[Write]) -> None:
        if effects:
            self._try(partial(self._journal.write_small, [effect.record for effect in effects]), effects)

    def _try(self, work: Callable[[], None], effects: Sequence[Write]) -> bool:
        try:
            work()
        except JournalFailedError as error:
            self._failed(str(error))
            return False
        for effect in effects:
            self._written(effect.token)
        return True


def _row(record: Commitment) -> tuple[object, ...]:
    shape = ",".join(map(str, record.shape))
    return (record.number, record.name, shape, str(record.bound), record.context, record.salt, record.plaintext)


def _commitment(
    number: int, name: str, shape: str, bound: str, context: bytes, salt: bytes, plaintext: bytes
) -> Commitment:
    lengths = tuple(int(length) for length in shape.split(",") if length)
    return Commitment(number, name, lengths, int(bound), bytes(context), bytes(salt), bytes(plaintext))


def _body(total: Int64Array) -> tuple[bytes, memoryview]:
    """A total as it stands on disk: its shape, then its values, not copied."""
    values = np.ascontiguousarray(total).astype("<i8", copy=False)
    head = np.array([total.ndim, *total.shape], "<i8").tobytes()
    return head, memoryview(values.reshape(-1).view(np.uint8))


def _checksum(*parts: bytes | memoryview) -> bytes:
    """Tell a torn or rotten file from a whole one: Poly1305 under a constant, faster than a hash and no less sure."""
    state = Poly1305(_CHECKSUM)
    for part in parts:
        state.update(part)
    return state.finalize()
