"""What an organisation checks at home before it signs a manifest: its policy, and what it took part in before.

A hub relays invitations, it does not judge them. Two rules look back at earlier runs over the same data product, by
its id and not its digest, or a daily refresh would get round them (docs/security.md shows what they prevent):

- the members of two runs differ by none or by at least two: the difference of two sums whose members differ by one is
  that one's own sum (but where every member signed for that beforehand: `_signed_for`);
- a product that changed by fewer rows than the disclosure limit is not trained on again: the difference of two sums
  would be that of a few people. Rows are known by digests under a secret of this home, which tell nobody else anything.
"""

import json
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lepton_pipelines.federation.manifest import Manifest, read_manifest
from lepton_pipelines.federation.row_sketch import RowSketch
from lepton_pipelines.federation.series import misfit as series_misfit
from lepton_pipelines.federation.series import trainings
from lepton_pipelines.federation.succession import misfit
from lepton_pipelines.identity.private_files import make_private_folder, read_private, write_private
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Policy

_WEEK = 7 * 86400
DISCLOSURE_LIMIT = 20
RUNS_REMEMBERED = 8  # of a product: how many runs' rows are kept to compare with
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, signed REAL NOT NULL, product TEXT NOT NULL, members TEXT NOT NULL, private INTEGER NOT NULL,
    people BLOB, rows BLOB, kind TEXT NOT NULL DEFAULT 'training', manifest BLOB,
    forgotten REAL, complete REAL
);
CREATE TABLE IF NOT EXISTS refused (
    run TEXT NOT NULL, at REAL NOT NULL, manifest BLOB NOT NULL, reason TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class RowDigests:
    """Rows by digests under a secret of the home, as sketches: of who they are about, and of all that they say.

    Which set a row is in (train, valid, test) is part of both: a row that changes sets changes two sums.
    """

    people: RowSketch
    rows: RowSketch

    def __add__(self, other: "RowDigests") -> "RowDigests":
        """Add other rows."""
        return RowDigests(self.people + other.people, self.rows + other.rows)

    def changed_since(self, earlier: "RowDigests") -> int:
        """Return the fewest rows or people that were added or removed, whichever changed at all; 0 if none did."""
        changes = (self.people.changed_since(earlier.people), self.rows.changed_since(earlier.rows))
        return min((change for change in changes if change), default=0)


@dataclass(frozen=True)
class EarlierRun:
    """A run whose manifest was signed here.

    rows: digests of its rows; None if they were not told or not kept. kind: as in the manifest. manifest: None if a
    release kept none.
    """

    run: str
    signed: float
    product: str
    members: frozenset[str]
    private: bool
    rows: RowDigests | None
    kind: str = "training"
    manifest: Manifest | None = None

    @property
    def goes_on(self) -> bool:
        """Whether it is an earlier run that went on with other members."""
        return self.manifest is not None and bool(self.manifest.continues)

    @property
    def counts(self) -> int:
        """As how many of the runs that a policy allows it counts."""
        return int(self.kind == "training") if self.manifest is None else trainings(self.manifest)


class RunHistory:
    """Runs that this organisation signed for, and invitations that it refused, in SQLite (0600)."""

    def __init__(self, folder: Path) -> None:
        path = make_private_folder(folder) / "history.sqlite"
        path.touch(mode=0o600)
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)
        columns = {name for _, name, *_ in self._database.execute("PRAGMA table_info(runs)")}
        if "kind" not in columns:  # written before runs had kinds
            self._database.execute("ALTER TABLE runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'training'")
        if "manifest" not in columns:
            self._database.execute("ALTER TABLE runs ADD COLUMN manifest BLOB")  # of a release that kept none
        for name in {"forgotten", "complete"} - columns:
            self._database.execute(f"ALTER TABLE runs ADD COLUMN {name} REAL")

    def signed(self, manifest: Manifest, organisation: str, *, now: float | None = None) -> None:
        """Note that the manifest was signed; before it is sent."""
        product = manifest.products.get(organisation, "")
        members, private = json.dumps(manifest.names), int(_is_private(manifest))
        self._database.execute(
            "INSERT OR IGNORE INTO runs (run, signed, product, members, private, kind, manifest)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (manifest.run, now or time.time(), product, members, private, manifest.kind, manifest.encoded()),
        )

    def manifest(self, run: str) -> Manifest | None:
        """Return the manifest that was signed for a run; None if none was, or by a release that kept none."""
        row = self._database.execute("SELECT manifest FROM runs WHERE run = ?", (run,)).fetchone()
        return None if row is None or row[0] is None else read_manifest(bytes(row[0]))

    def complete(self, run: str, *, now: float | None = None) -> None:
        """Note that every member of a run has signed its manifest, as was seen here."""
        told = "UPDATE runs SET complete = ? WHERE run = ? AND complete IS NULL"
        self._database.execute(told, (now or time.time(), run))

    def is_complete(self, run: str) -> bool:
        """Whether every member of a run was seen to have signed it; noted of contribution reports alone."""
        row = self._database.execute("SELECT complete FROM runs WHERE run = ?", (run,)).fetchone()
        return row is not None and row[0] is not None

    def forget(self, run: str, *, now: float | None = None) -> None:
        """Note that a run's journal is to go: it is not signed for again. Its members and rows stay remembered."""
        told = "INSERT OR IGNORE INTO runs (run, signed, product, members, private) VALUES (?, 0, '', '[]', 0)"
        self._database.execute(told, (run,))  # one that was never signed for here, or by a release that kept no history
        self._database.execute("UPDATE runs SET forgotten = ? WHERE run = ?", (now or time.time(), run))

    def forgotten(self, run: str) -> float | None:
        """Return when a run's journal went; None if it did not."""
        row = self._database.execute("SELECT forgotten FROM runs WHERE run = ?", (run,)).fetchone()
        return None if row is None or row[0] is None else float(row[0])

    def trained_on(self, run: str, digests: RowDigests) -> None:
        """Note a run's rows, and forget those of the oldest runs of its kind over the same product.

        A daily watch must not make the rows of the last trainings forgotten.
        """
        told = (digests.people.to_bytes(), digests.rows.to_bytes(), run)
        self._database.execute("UPDATE runs SET people = ?, rows = ? WHERE run = ?", told)
        self._database.execute(
            "UPDATE runs SET people = NULL, rows = NULL WHERE rows IS NOT NULL"
            " AND (product, kind) = (SELECT product, kind FROM runs WHERE run = ?) AND run NOT IN (SELECT run FROM runs"
            " WHERE rows IS NOT NULL AND (product, kind) = (SELECT product, kind FROM runs WHERE run = ?)"
            " ORDER BY signed DESC LIMIT ?)",
            (run, run, RUNS_REMEMBERED),
        )

    def sketch_single_digests(self, secret: bytes) -> None:
        """Replace digests of single rows, which earlier releases kept, by their sketches. secret: of the home."""
        told = "SELECT run, people, rows FROM runs WHERE rows IS NOT NULL"
        for run, *kept in self._database.execute(told).fetchall():
            if not RowSketch.is_one(kept[1]):
                sketches = [RowSketch.of(np.frombuffer(each, np.uint64), secret).to_bytes() for each in kept]
                self._database.execute("UPDATE runs SET people = ?, rows = ? WHERE run = ?", (*sketches, run))

    def refused(self, manifest: Manifest, reason: str, *, now: float | None = None) -> None:
        """Note an invitation that was refused, with the reason; once, however often it comes."""
        told = "SELECT 1 FROM refused WHERE run = ? AND reason = ?"
        if self._database.execute(told, (manifest.run, reason)).fetchone():
            return
        values = (manifest.run, now or time.time(), manifest.encoded(), reason)
        self._database.execute("INSERT INTO refused VALUES (?, ?, ?, ?)", values)

    def refusals(self) -> list[tuple[str, float, str]]:
        """Return refused invitations: run, time, reason."""
        return list(self._database.execute("SELECT run, at, reason FROM refused ORDER BY at"))

    def runs(self) -> list[EarlierRun]:
        """Return the runs that were signed for, oldest first."""
        told = "SELECT run, signed, product, members, private, people, rows, kind, manifest FROM runs"
        told += " WHERE members != '[]' ORDER BY signed"  # without those of which only their end is known
        return [
            EarlierRun(
                run,
                signed,
                product,
                frozenset(json.loads(members)),
                bool(private),
                _digests(people, rows),
                kind,
                None if manifest is None else read_manifest(bytes(manifest)),
            )
            for run, signed, product, members, private, people, rows, kind, manifest in self._database.execute(told)
        ]

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def check_invitation(
    manifest: Manifest,
    *,
    organisation: str,
    keys: Mapping[str, bytes],
    hub_key: bytes,
    policy: Policy,
    history: RunHistory,
    further: Sequence[str] = (),
    now: float | None = None,
) -> None:
    """Refuse an invitation that the organisation's own rules do not allow, and note why.

    keys: public keys, its own and those of members whose fingerprints were compared. hub_key: of the hub that was
    accepted. further: other reasons to refuse it, such as that it is not the pipeline that stands here.
    Raises UserError with every reason.
    """
    moment = now or time.time()
    earlier = [one for one in history.runs() if one.run != manifest.run]
    began = [one for one in earlier if not one.goes_on]
    reasons = [
        *_identity(manifest, organisation, keys, hub_key),
        *_against_policy(manifest, organisation, policy, began, moment),
        *_against_members(manifest, organisation, earlier, history),
        *_against_signed(manifest, history),
        *further,
    ]
    if reasons:
        message = f"{organisation} refuses run {manifest.run}: " + "; ".join(reasons) + "."
        history.refused(manifest, message, now=moment)
        raise UserError(message)


@dataclass(frozen=True)
class RowGuard:
    """What an organisation's part asks before its rows go into a sum.

    salt: a secret of this home that never leaves it, for the rows' digests.
    """

    home: Path
    manifest: Manifest
    organisation: str
    salt: bytes = field(repr=False)

    @classmethod
    def of(cls, home: Path, manifest: Manifest, organisation: str) -> "RowGuard":
        """Return the guard of a run; the home's secret is drawn the first time."""
        path = make_private_folder(home) / "rows.salt"
        if not path.exists():
            write_private(path, os.urandom(32))
        return cls(home, manifest, organisation, read_private(path, what="the secret of the rows' digests"))

    def check(self, digests: RowDigests) -> None:
        """Refuse rows that differ by a few from those of an earlier run; note them else. Raises UserError."""
        with closing(RunHistory(self.home)) as history:
            history.sketch_single_digests(self.salt)
            check_rows(self.manifest, self.organisation, digests, history)
            history.trained_on(self.manifest.run, digests)


@dataclass(frozen=True)
class WatchGuard(RowGuard):
    """What a watch asks: rows that differ by a few are no error there, they are compared another day.

    seen: why not, or nothing, and the rows' digests, which are noted once it is certain that they go into sums.
    """

    seen: list[tuple[str | None, RowDigests]] = field(default_factory=list, repr=False)

    @classmethod
    def like(cls, guard: RowGuard) -> "WatchGuard":
        """Return the guard of a watch for what another guards."""
        return cls(guard.home, guard.manifest, guard.organisation, guard.salt)

    def check(self, digests: RowDigests) -> None:
        """Find out whether the rows may be compared; nothing is noted yet."""
        with closing(RunHistory(self.home)) as history:
            history.sketch_single_digests(self.salt)
            self.seen[:] = [(few_changes(self.manifest, self.organisation, digests, history), digests)]

    @property
    def reason(self) -> str | None:
        """Why the rows that were seen may not be compared today; None if they may."""
        return self.seen[-1][0]

    def note(self) -> None:
        """Note the rows that were seen: they go into sums now."""
        with closing(RunHistory(self.home)) as history:
            history.trained_on(self.manifest.run, self.seen[-1][1])


def check_rows(
    manifest: Manifest, organisation: str, digests: RowDigests, history: RunHistory, *, limit: int | None = None
) -> None:
    """Refuse to train again on a product that changed by a few rows only, unless privacy protects them.

    limit: fewest rows, and people, that have to differ. Raises UserError that says how many do.
    """
    found = few_changes(manifest, organisation, digests, history, limit=limit)
    if found is not None:
        reason = f"{organisation} refuses run {manifest.run}: {found}"
        history.refused(manifest, reason)
        raise UserError(reason)


def few_changes(
    manifest: Manifest, organisation: str, digests: RowDigests, history: RunHistory, *, limit: int | None = None
) -> str | None:
    """Say from which earlier run's rows these differ by a few only; None if there is no such run."""
    least = DISCLOSURE_LIMIT if limit is None else limit
    product = manifest.products.get(organisation, "")
    if _is_private(manifest) or not product:
        return None
    for one in reversed(history.runs()):
        if one.run == manifest.run or one.product != product or one.rows is None or one.private:
            continue
        changed = digests.changed_since(one.rows)
        if 0 < changed < least:
            return (
                f"data product {product} differs by {changed} rows from the one of run {one.run}, fewer than {least}: "
                "the two runs together would tell about those rows. Wait until more rows have changed, or train with "
                "privacy."
            )
    return None


def _digests(people: bytes | None, rows: bytes | None) -> RowDigests | None:
    if people is None or rows is None or not RowSketch.is_one(rows):
        return None
    return RowDigests(RowSketch.from_bytes(people), RowSketch.from_bytes(rows))


def _against_signed(manifest: Manifest, history: RunHistory) -> list[str]:
    """Refuse a second manifest under one id, and one that goes on from a run otherwise than its members signed for."""
    reasons = []
    gone = [history.forgotten(run) for run in (manifest.root, manifest.run)]
    if any(gone):
        at = time.strftime("%Y-%m-%d", time.gmtime(next(filter(None, gone))))
        reasons.append(f"its journal was deleted here on {at}, as policy.kept_days says. Start a new run")
    signed = history.manifest(manifest.run)
    if signed is not None and signed != manifest:
        reasons.append("another manifest was signed here under this id")
    if manifest.continues:
        root = history.manifest(manifest.root)
        if root is None:
            reasons.append(f"it goes on from run {manifest.root}, which was not signed for here")
        elif problem := misfit(root, manifest):
            reasons.append(problem)
    if manifest.series is not None:
        whole = history.manifest(manifest.series.run)
        if whole is None or not history.is_complete(whole.run):
            reasons.append(f"it leaves a member out of run {manifest.series.run}, which not all of its members signed")
        elif problem := series_misfit(whole, manifest):
            reasons.append(problem)
    return reasons


def _identity(manifest: Manifest, organisation: str, keys: Mapping[str, bytes], hub_key: bytes) -> list[str]:
    reasons = []
    if organisation not in manifest.names:
        reasons.append(f"{organisation} is not among its members")
    for name, key in manifest.keys.items():
        if name not in keys:
            reasons.append(
                f"{name}'s key was never compared here: ask {name} for its fingerprint and its request file, then run "
                f"lepton org trust {name}.request"
            )
        elif keys[name] != key:
            reasons.append(f"it has another key for {name} than the one that was compared here")
    if bytes.fromhex(manifest.hub) != hub_key:
        reasons.append("it is for another hub than the one that was accepted here")
    return reasons


def _against_policy(
    manifest: Manifest, organisation: str, policy: Policy, earlier: list[EarlierRun], now: float
) -> list[str]:
    reasons = []
    others = [name for name in manifest.names if name != organisation]
    if policy.members is not None:
        strangers = [name for name in others if name not in policy.members]
        if strangers:
            reasons.append(f"{', '.join(strangers)} is not among the members that policy.members allows")
    leaves = int(manifest.kind == "contribution" and manifest.series is None)  # with one member less each
    if (fewest := len(manifest.names) - leaves) < policy.minimum_members:
        what = f"it is repeated with {fewest}" if leaves else f"it has {fewest}"
        reasons.append(f"{what} members, policy.minimum_members is {policy.minimum_members}")
    allowed = None if policy.algorithms is None else [each.name for each in policy.algorithms]
    if allowed is not None and manifest.algorithm not in allowed:
        reasons.append(f"it trains {manifest.algorithm}, policy.algorithms allows {', '.join(allowed)}")
    limits = {"max_depth": policy.max_depth, "rounds": policy.max_rounds, "max_bin": policy.max_bin}
    for name, limit in limits.items():
        asked = manifest.parameters.get(name)
        if limit is None:
            continue
        if not isinstance(asked, int) or isinstance(asked, bool) or asked > limit or asked < 1:
            reasons.append(f"it asks for {name} {asked}, the policy allows up to {limit}")
    if manifest.when_lost == "go_on" and policy.when_lost == "suspend":
        reasons.append(
            "it may go on without an organisation that was lost, which shows the others nearly that one's own sums: "
            "policy.when_lost is suspend"
        )
    if manifest.contribution and not policy.contribution:
        reasons.append(
            "it is for contribution reports, which show the others nearly each one's own sums, and policy.contribution "
            "does not sign for that"
        )
    asks = trainings(manifest)
    if manifest.continues or not asks or policy.runs_per_week is None:
        return reasons  # what goes on, or belongs to a series, was counted when it began
    recent = sum(one.counts for one in earlier if now - one.signed < _WEEK)
    if recent + asks > policy.runs_per_week:
        more = f", it is {asks} more" if asks > 1 else ""
        reasons.append(
            f"{recent} runs were signed within seven days{more}, policy.runs_per_week is {policy.runs_per_week}"
        )
    return reasons


def _against_members(
    manifest: Manifest, organisation: str, earlier: list[EarlierRun], history: RunHistory
) -> list[str]:
    product = manifest.products.get(organisation, "")
    if not product or _is_private(manifest):
        return []
    for one in earlier:
        if _signed_for(manifest, one, history):
            continue
        differ = one.members ^ set(manifest.names)
        if one.product == product and not one.private and len(differ) == 1:
            (name,) = differ
            return [
                f"its members differ from those of run {one.run} over data product {product} by {name} alone: the two "
                f"sums together would show {name}'s own. Let at least two members differ, or none"
            ]
    return []


def _signed_for(manifest: Manifest, one: EarlierRun, history: RunHistory) -> bool:
    """Whether all who would be shown by the difference to an earlier run have signed for that beforehand.

    That is so between the stages of one run, and between runs that the same members began, all of them signed for
    going on without somebody: losing one and letting it rejoin shows no more in two runs than a member that deviates
    gets from one. It is so, too, between runs of the same members who signed for contribution reports in each of them,
    and those reports' runs without one of them (`series.py`).
    """
    signed = one.manifest
    if signed is None:
        return False
    going_on = signed.when_lost == manifest.when_lost == "go_on"
    if not going_on and not (signed.contribution and manifest.contribution):
        return False
    then, now = (_whole(each, history) for each in (signed, manifest))
    return then is not None and now is not None and then.names == now.names


def _whole(manifest: Manifest, history: RunHistory) -> Manifest | None:
    """Return the manifest that all members signed at first; None if it was not signed here."""
    if manifest.series is not None:
        return history.manifest(manifest.series.run)
    return history.manifest(manifest.root) if manifest.continues else manifest


def _is_private(manifest: Manifest) -> bool:
    settings: Mapping[str, int | str | bool] = manifest.privacy
    return "epsilon" in settings
