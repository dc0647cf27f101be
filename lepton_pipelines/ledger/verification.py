"""Offline verification of a ledger's folder, from files alone: everything is recomputed, nothing is believed.

What is proved and what is not is part of the answer: a ledger proves what was recorded and that it was not changed
since, not that a member told the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lepton_pipelines.ledger.checkpoint import Checkpoint, open_head
from lepton_pipelines.ledger.envelope import Envelope, encode_for_signing
from lepton_pipelines.ledger.errors import EntryRefused, LedgerDamaged, LedgerError
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.merkle import leaf_hash
from lepton_pipelines.ledger.note import Verifier, cosigners
from lepton_pipelines.ledger.policy import FILE_NAME, Policy, read_policy
from lepton_pipelines.ledger.replica import changed_file
from lepton_pipelines.ledger.runs import Run
from lepton_pipelines.ledger.signature_pool import SignaturePool
from lepton_pipelines.ledger.statement import read_entry
from lepton_pipelines.ledger.store import LedgerView
from lepton_pipelines.ledger.tiles import TILE_WIDTH, TileEdge, bundle_path, levels, tile_path, widths

Progress = Callable[[int, int], None]
"""(entries checked, entries in all)"""

_OWN_FILES = {"checkpoint", "journal", "lock", FILE_NAME}


@dataclass
class Verified:
    """A ledger that holds. heads: size → who cosigned it, when; history: what the entries add up to."""

    folder: Path
    policy: Policy
    view: LedgerView
    history: History
    head: Checkpoint
    heads: dict[int, dict[str, int]]
    proved: list[str] = field(default_factory=list)
    not_proved: list[str] = field(default_factory=list)

    def cosigned_after(self, index: int, members: list[str]) -> int | None:
        """Return the size of the first head over entry `index` that all these members cosigned; None without one."""
        later = (size for size in sorted(self.heads) if size > index)
        return next((size for size in later if set(members) <= self.heads[size].keys()), None)


def verify_ledger(
    folder: Path,
    *,
    policy: Policy | None = None,
    evidence: Path | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Verify every file, hash, signature and rule of a ledger.

    policy: whose signatures count, from outside the ledger; the one in its folder unless given.
    evidence: where to write evidence if a file was changed; nowhere unless given.
    Raises LedgerDamaged, ProofRefused or EntryRefused, naming the place, if anything does not hold.
    """
    trusted = policy if policy is not None else read_policy(folder / FILE_NAME)
    view = LedgerView(folder)
    if view.note is None:
        raise LedgerError(f"{folder} holds no entries: there is nothing to verify")
    head = open_head(view.note, trusted.log)
    notes = dict(view.heads())
    published = {size: open_head(note, trusted.log) for size, note in notes.items()}
    history = _recompute(view, trusted.log, published, evidence, progress)
    keys = [*history.members.every_key(), *trusted.witnesses.values()]
    signed = {size: cosigners(note, keys) for size, note in notes.items()}
    signed[head.size] = signed.get(head.size, {}) | cosigners(view.note, keys)
    verified = Verified(folder, trusted, view, history, head, signed)
    _check_policy(verified, given=policy is not None)
    _say(verified, given=policy is not None)
    return verified


def _recompute(
    view: LedgerView,
    log: Verifier,
    heads: dict[int, Checkpoint],
    evidence: Path | None,
    progress: Progress | None,
) -> History:
    """Hash all entries anew, hold them against tiles and heads, and fold them, signatures included."""
    history, edge, signatures = History(log), TileEdge(), _Signatures()
    try:
        for index, leaf in enumerate(view.entries()):
            hashed = leaf_hash(leaf)
            if hashed != view.leaf(index):
                raise _changed(view, log, index, evidence)
            edge.append(hashed)
            history.take_read(read_entry(leaf), signatures.note(index))
            if edge.size in heads and heads[edge.size].root != edge.frontier.root():
                raise LedgerDamaged(
                    f"{view.folder}/heads/{edge.size}: the root is not that of the first {edge.size} entries"
                )
            if progress is not None and edge.size % 1000 == 0:
                progress(edge.size, view.size)
        signatures.finish()
    finally:
        signatures.close()
    if edge.frontier.root() != view.root:
        raise LedgerDamaged(f"{view.folder}: the entries do not lead to the root of the newest head")
    _check_files(view, edge)
    return history


class _Signatures:
    """Collects the signatures of entries, checks them on all cores, and names the entry of a wrong one."""

    def __init__(self) -> None:
        self._pool = SignaturePool()
        self._where: list[tuple[int, str]] = []

    def note(self, index: int) -> Callable[[Envelope, Verifier], None]:
        def check(envelope: Envelope, verifier: Verifier) -> None:
            self._where.append((index, verifier.name))
            signature = envelope.signatures[verifier.key_id]
            self._refuse(self._pool.add((verifier.raw, signature, encode_for_signing(envelope.payload))))

        return check

    def finish(self) -> None:
        self._refuse(self._pool.finish())

    def close(self) -> None:
        self._pool.close()

    def _refuse(self, wrong: int | None) -> None:
        if wrong is not None:
            index, name = self._where[wrong]
            raise EntryRefused(f"entry {index} is forged: the signature of {name} is wrong")


def _changed(view: LedgerView, log: Verifier, index: int, evidence: Path | None) -> LedgerDamaged:
    if evidence is not None:
        return changed_file(view, log, "the reader", index, evidence)
    return LedgerDamaged(
        f"{view.folder}: entry {index} in its bundle is not the one under the signed head: a file was changed. "
        "Add --evidence FOLDER for a file that shows it to others; copy the ledger anew from another member"
    )


def _check_files(view: LedgerView, edge: TileEdge) -> None:
    """Hold every tile and bundle in the folder, earlier partial ones included, against what was recomputed."""
    due = {path for level, count in levels(view.published) for path in _paths(level, count)}
    due |= {bundle_path(number, width) for number, width in widths(view.published)}
    found = {str(path.relative_to(view.folder)) for path in (view.folder / "tile").rglob("*") if path.is_file()}
    found = {path for path in found if not path.rpartition("/")[2].startswith(".")}
    full = dict(edge.files())
    for path in sorted(found - due):
        base, _, width = path.partition(".p/")
        if not width.isdecimal() or not _is_beginning(view, path, base, int(width), full):
            raise LedgerDamaged(f"{view.folder / path} does not belong to this ledger: remove it")
    missing = sorted(due - found)
    if missing:
        raise LedgerDamaged(f"{view.folder / missing[0]} is missing: copy the ledger anew from another member")
    for path in sorted(due & full.keys()):
        if (view.folder / path).read_bytes() != full[path]:
            raise LedgerDamaged(f"{view.folder / path} was changed: it does not hold the hashes of the entries")
    strangers = sorted(
        each.name for each in view.folder.iterdir()
        if each.is_file() and each.name not in _OWN_FILES and not each.name.startswith(".")
    )  # fmt: skip
    if strangers:
        raise LedgerDamaged(f"{view.folder / strangers[0]} does not belong to a ledger: move it elsewhere")


def _is_beginning(view: LedgerView, path: str, base: str, width: int, full: dict[str, bytes]) -> bool:
    """Tell whether a partial file, of a head published earlier, is the beginning of what stands there now."""
    data = (view.folder / path).read_bytes()
    if base.startswith("tile/entries/"):
        later = [each for each in (base, *_wider(view, base, width)) if (view.folder / each).is_file()]
        return bool(later) and (view.folder / later[0]).read_bytes().startswith(data)
    wider = next((each for name, each in full.items() if name.partition(".p/")[0] == base), b"")
    return len(data) == 32 * width and wider.startswith(data)


def _wider(view: LedgerView, base: str, width: int) -> list[str]:
    count = view.published % TILE_WIDTH
    return [f"{base}.p/{count}"] if count > width else []


def _paths(level: int, count: int) -> list[str]:
    return [tile_path(level, number, width) for number, width in widths(count)]


def _check_policy(verified: Verified, *, given: bool) -> None:
    """With a policy from outside, the newest head must satisfy it."""
    if given and not verified.policy.satisfied_by(list(verified.heads[verified.head.size])):
        who = ", ".join(sorted(verified.heads[verified.head.size])) or "no one"
        raise LedgerDamaged(f"{verified.folder}: the newest head is cosigned by {who}; the policy asks for more")


def _say(verified: Verified, *, given: bool) -> None:
    """Put into words what was proved and what was not."""
    head, history = verified.head, verified.history
    who = ", ".join(sorted(verified.heads[head.size]))
    verified.proved += [
        f"the {head.size} entries hash to the root that {head.origin} signed; nothing was changed since",
        f"every head that was kept ({len(verified.heads)}) is one of this ledger at its time",
        f"every entry is signed by its author, was never said before, and keeps the rules ({_counts(history)})",
    ]
    if who:
        verified.proved.append(f"{who} had seen exactly these {head.size} entries when they cosigned the newest head")
    else:
        verified.not_proved.append("that any member has seen the newest head: nobody cosigned it")
    for name, run in history.runs.by_id.items():
        _say_run(verified, name, run)
    source = "the policy that you gave" if given else f"{verified.folder / FILE_NAME}"
    if not given:
        verified.not_proved.append(
            f"that the log's key is the true one: it was taken from {source}. Compare it with "
            "another member's, or pass your own with --policy"
        )
    verified.not_proved += [
        "that nothing newer exists: who holds the files can leave out the end. Compare the head with another member's",
        "that members told the truth: the ledger proves what was recorded and by whom, not that it is so",
    ]
    waiting = verified.view.size - verified.view.published
    if waiting:
        verified.not_proved.append(f"the last {waiting} entries to others: they are in the journal, not yet in tiles")


def _say_run(verified: Verified, name: str, run: Run) -> None:
    if run.state != "finished" or run.ended_at is None:
        verified.not_proved.append(f"an end of run {name}: it is {run.state}")
        return
    at = verified.cosigned_after(run.ended_at, run.members)
    members = ", ".join(run.members)
    if at is None:
        verified.not_proved.append(
            f"that all members of run {name} ({members}) saw its end: no head has all their cosignatures"
        )
    else:
        verified.proved.append(f"run {name}: {run.trees} trees, opened to finished, cosigned by {members} (head {at})")


def _counts(history: History) -> str:
    parts = [
        (len(history.members.by_name), "member"),
        (len(history.grants.products), "data product"),
        (len(history.algorithms.releases), "algorithm"),
        (len(history.compute.offers), "compute offer"),
        (len(history.runs.by_id), "run"),
        (len(history.runs.versions), "model version"),
    ]
    return ", ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in parts if count) or "nothing yet"
