"""What the hub writes down: manifests, statements that are needed to resume, and evidence.

Of masked vectors only small ones, until everyone holds the total: members that went on could not send them again.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lepton_pipelines.federation.hub import ABORTED, CONTINUED, FINISHED
from lepton_pipelines.federation.hub_outputs import Drop, Keep
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.private_files import make_private_folder

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, manifest BLOB NOT NULL, proposed_by TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS log (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, number INTEGER, envelope BLOB, state TEXT,
    evidence INTEGER NOT NULL, data BLOB
);
CREATE INDEX IF NOT EXISTS log_of_a_run ON log (run, sequence);
"""
_OVER = (ABORTED, FINISHED, CONTINUED)
_OF_A_SUM = (wire.KIND_ANNOUNCE, wire.KIND_UPLOAD, wire.KIND_TRANSCRIPT, wire.KIND_FORM)
# who signed for the run, and how it ended: what a member is shown that comes when it is over
_LASTING = (wire.KIND_MANIFEST, wire.KIND_FINISH, wire.KIND_ABORT)


class HubLog:
    """The hub's log in SQLite (0600). Written before the hub answers, so that it never forgets what it said.

    clock: seconds since 1970, by which it notes when a run was over.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        path = make_private_folder(folder) / "hub.sqlite"
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")  # survives a killed hub; after a power cut members resend
        self._database.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        self._database.executescript(_SCHEMA)
        self._note_ends()

    def open_run(self, run: str, manifest: bytes, proposed_by: str) -> None:
        """Keep a new run's manifest."""
        with self._lock:
            self._database.execute(
                "INSERT INTO runs (run, manifest, proposed_by) VALUES (?, ?, ?)", (run, manifest, proposed_by)
            )

    def runs(self) -> list[tuple[str, bytes]]:
        """Return all runs with their manifests."""
        with self._lock:
            rows = self._database.execute("SELECT run, manifest FROM runs").fetchall()
        return [(run, bytes(manifest)) for run, manifest in rows]

    def carry_out(self, outputs: Sequence[Keep | Drop]) -> None:
        """Write down what a state machine wants kept, in one transaction."""
        if not outputs:
            return
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            for output in outputs:
                if isinstance(output, Drop):
                    self._database.execute(
                        "DELETE FROM log WHERE run = ? AND number < ? AND NOT evidence", (output.run, output.below)
                    )
                else:
                    self._database.execute(
                        "INSERT INTO log (run, number, envelope, state, evidence, data) VALUES (?, ?, ?, ?, ?, ?)",
                        _row(output),
                    )
                    if output.state in _OVER:
                        self._database.execute(
                            "UPDATE runs SET ended = coalesce(ended, ?) WHERE run = ?", (self._clock(), output.run)
                        )
            self._database.execute("COMMIT")

    def records(self, run: str) -> list[Keep]:
        """Return what was kept of a run, in its order."""
        with self._lock:
            rows = self._database.execute(
                "SELECT envelope, state, evidence, data FROM log WHERE run = ? ORDER BY sequence", (run,)
            ).fetchall()
        return [_record(run, *row) for row in rows]

    def ends(self) -> dict[str, float | None]:
        """Return when each run was over, in seconds since 1970; None for one that is not."""
        with self._lock:
            return dict(self._database.execute("SELECT run, ended FROM runs").fetchall())

    def forget(self, run: str) -> tuple[int, int]:
        """Delete a run that is over, but for who signed it, how it ended, and evidence; how many statements, and bytes.

        With evidence stays what the same member said first in the same step: one proves nothing without the other.
        """
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            rows = self._database.execute(
                "SELECT sequence, envelope, state, evidence, coalesce(length(envelope), length(state)) + "
                "coalesce(length(data), 0) FROM log WHERE run = ? ORDER BY sequence",
                (run,),
            ).fetchall()
            said = {row[0]: wire.Envelope.FromString(row[1]) for row in rows if row[1] is not None}
            proved = {_step(said[sequence]) for sequence, _, _, evidence, _ in rows if evidence}
            last = max((row[0] for row in rows if row[2] is not None), default=0)
            going = {
                sequence: size
                for sequence, _, _, _, size in rows
                if sequence != last
                and (
                    sequence not in said
                    or (said[sequence].kind not in _LASTING and _step(said[sequence]) not in proved)
                )
            }
            self._database.executemany("DELETE FROM log WHERE sequence = ?", [(sequence,) for sequence in going])
            self._database.execute("COMMIT")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return len(going), sum(going.values())

    def _note_ends(self) -> None:
        """Lay out the column of ends in a log that was begun without it: runs that are over there end now."""
        self._database.execute("BEGIN IMMEDIATE")
        if not any(name == "ended" for _, name, *_ in self._database.execute("PRAGMA table_info(runs)")):
            self._database.execute("ALTER TABLE runs ADD COLUMN ended REAL")
            last = "SELECT run, state, max(sequence) FROM log WHERE state IS NOT NULL GROUP BY run"
            over = [run for run, state, _ in self._database.execute(last) if json.loads(state)["state"] in _OVER]
            now = self._clock()
            self._database.executemany("UPDATE runs SET ended = ? WHERE run = ?", [(now, run) for run in over])
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()


def _step(envelope: wire.Envelope) -> tuple[str, int, int, int]:
    return envelope.member, envelope.kind, envelope.epoch, envelope.number


def _row(keep: Keep) -> tuple[object, ...]:
    if keep.envelope is None:
        state = {
            "state": keep.state,
            "epoch": keep.epoch,
            "incarnations": {name: value.hex() for name, value in keep.incarnations.items()},
            "reason": keep.reason,
            "lost": keep.lost,
        }
        return keep.run, None, None, json.dumps(state), 0, None
    number = keep.envelope.number if keep.envelope.kind in _OF_A_SUM else None
    return keep.run, number, keep.envelope.SerializeToString(), None, int(keep.evidence), keep.data or None


def _record(run: str, envelope: bytes | None, state: str | None, evidence: int, data: bytes | None) -> Keep:
    if envelope is not None:
        return Keep(run, wire.Envelope.FromString(envelope), evidence=bool(evidence), data=bytes(data or b""))
    fields = json.loads(state or "{}")
    incarnations = {name: bytes.fromhex(value) for name, value in fields["incarnations"].items()}
    lost = tuple(fields.get("lost", ()))
    return Keep(run, None, fields["state"], fields["epoch"], incarnations, fields.get("reason", ""), lost)
