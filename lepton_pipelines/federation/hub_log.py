"""What the hub writes down: manifests, statements that are needed to resume, and evidence.

Of masked vectors only small ones, until everyone holds the total: members that went on could not send them again.
"""

import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

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
_OF_A_SUM = (wire.KIND_ANNOUNCE, wire.KIND_UPLOAD, wire.KIND_TRANSCRIPT, wire.KIND_FORM)


class HubLog:
    """The hub's log in SQLite (0600). Written before the hub answers, so that it never forgets what it said."""

    def __init__(self, folder: Path) -> None:
        path = make_private_folder(folder) / "hub.sqlite"
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")  # survives a killed hub; after a power cut members resend
        self._database.executescript(_SCHEMA)

    def open_run(self, run: str, manifest: bytes, proposed_by: str) -> None:
        """Keep a new run's manifest."""
        with self._lock:
            self._database.execute("INSERT INTO runs VALUES (?, ?, ?)", (run, manifest, proposed_by))

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
            self._database.execute("COMMIT")

    def records(self, run: str) -> list[Keep]:
        """Return what was kept of a run, in its order."""
        with self._lock:
            rows = self._database.execute(
                "SELECT envelope, state, evidence, data FROM log WHERE run = ? ORDER BY sequence", (run,)
            ).fetchall()
        return [_record(run, *row) for row in rows]

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()


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
