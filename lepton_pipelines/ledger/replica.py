"""A member's replica: it checks every entry, recomputes the root, and cosigns only what extends what it has seen.

What it has taken on is on the disk before its cosignature leaves, so that it never signs against it after a crash.
Whatever contradicts what it saw becomes an evidence file in its folder, and an exception that stops the run.
"""

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lepton_pipelines.ledger import evidence
from lepton_pipelines.ledger.checkpoint import Checkpoint, open_head
from lepton_pipelines.ledger.envelope import Envelope
from lepton_pipelines.ledger.errors import EntryRefused, LedgerDamaged, LedgerForked, ProofRefused, ReplicaBehind
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.merkle import check_consistency, check_inclusion, leaf_hash
from lepton_pipelines.ledger.note import Note, Signature, Signer, Verifier, cosign, cosigners
from lepton_pipelines.ledger.policy import FILE_NAME, Policy, read_policy, write_policy
from lepton_pipelines.ledger.statement import Entry, read_entry
from lepton_pipelines.ledger.store import LedgerStore, LedgerView

EntryCheck = Callable[[int, Entry], None]
"""(index, entry) → raises EntryRefused if it contradicts what this member itself knows."""


@dataclass(frozen=True)
class Extension:
    """What a replica is asked to take on: entries from index `first` on, and the signed head that they lead to."""

    first: int
    entries: tuple[bytes, ...]
    note: str


class Witness(Protocol):
    """Whoever cosigns heads: a replica in this process, or one that is reached over a wire."""

    def extend(self, extension: Extension) -> Signature:
        """Take on the entries and return the cosignature of the head. Raises ReplicaBehind to ask for earlier ones."""
        ...

    def confirm(self, note: str, required: Sequence[str]) -> None:
        """Keep a head with everyone's cosignatures, after checking that those of `required` are there and genuine."""
        ...


class Replica:
    """One member's replica, in a folder of its own.

    signer: the member's name and key. log: the log's key; pinned when the replica is made, and compared ever after.
    own_check: called with every new entry: a member refuses what misstates its own part.
    """

    def __init__(self, folder: Path, signer: Signer, log: Verifier, own_check: EntryCheck | None = None) -> None:
        self.folder = folder
        self.signer = signer
        self.log = log
        self._own_check = own_check
        self._lock = threading.RLock()
        self.store = LedgerStore(folder)
        try:
            self._pin()
            self.history = self._fold()
        except BaseException:
            self.store.give_back()
            raise

    @property
    def size(self) -> int:
        """How many entries the replica has taken on."""
        return self.store.size

    def extend(self, extension: Extension) -> Signature:
        """Check entries and head, make them durable, and cosign.

        Raises ReplicaBehind if earlier entries are missing, EntryRefused if one is forged, replayed or breaks a rule,
        LedgerForked (with evidence) if the head contradicts what this replica saw, StorageRefused if the disk is full.
        In every case the replica is as it was before.
        """
        note = Note.parse(extension.note)
        head = open_head(note, self.log)
        with self._lock:
            return self._extend(extension, note, head)

    def _extend(self, extension: Extension, note: Note, head: Checkpoint) -> Signature:
        if head.size < self.size:
            raise self._shortened(note, head)
        if extension.first > self.size:
            problem = f"{self.signer.name}'s replica has {self.size} entries, the extension begins at {extension.first}"
            raise ReplicaBehind(problem, self.size)
        entries = extension.entries[self.size - extension.first :]
        if head.size == self.size:
            self._same_size(note, head)
        else:
            self._take(entries, note, head)
        return cosign(note.text, self.signer)

    def confirm(self, note: str, required: Sequence[str]) -> None:
        """Keep the newest head with everyone's cosignatures.

        Raises ProofRefused if it is not the head that this replica cosigned last, or lacks a genuine cosignature of a
        member in `required`: a hub that shows others another log cannot bring these cosignatures.
        """
        cosigned = Note.parse(note)
        with self._lock:
            if self.store.note is None or cosigned.text != self.store.note.text:
                raise ProofRefused(f"{self.signer.name}: the cosigned head is not the one that this replica cosigned")
            for name in required:
                if name != self.signer.name:
                    self._check_cosigned_by(cosigned, name)
            self.store.confirm(cosigned)

    def compare(self, note: str) -> None:
        """Compare with a head that another member has seen. Raises LedgerForked, with evidence, if they disagree.

        A head that is longer than this replica cannot be compared: ReplicaBehind asks for the entries.
        """
        other = Note.parse(note)
        head = open_head(other, self.log)
        if head.size > self.size:
            raise ReplicaBehind(
                f"{self.signer.name}'s replica has {self.size} entries, the head {head.size}", self.size
            )
        if self.store.note is not None and self.store.root_at(head.size) != head.root:
            raise self._split(other, head, self.store.note)

    def check_consistency(self, note: str, proof: Sequence[bytes]) -> None:
        """Check a longer head by its consistency proof alone. Raises ProofRefused if it does not extend this one."""
        head = open_head(Note.parse(note), self.log)
        check_consistency(self.size, self.store.root, head.size, head.root, proof)

    def close(self) -> None:
        """Publish what is new as tiles, list the members' keys, and give the folder back."""
        with self._lock:
            write_policy(self.folder, Policy.of(self.log, self.history.members.verifiers()))
            self.store.close()

    def _pin(self) -> None:
        path = self.folder / FILE_NAME
        if not path.exists():
            write_policy(self.folder, Policy(self.log))
        pinned = read_policy(path).log
        if (pinned.name, pinned.raw) != (self.log.name, self.log.raw):
            raise LedgerDamaged(f"{path} pins the log {pinned.vkey(1)}, which is not {self.log.vkey(1)}")
        if self.store.note is not None:
            open_head(self.store.note, self.log)

    def _fold(self) -> History:
        return fold(self.store, self.log, self.signer.name)

    def _take(self, entries: tuple[bytes, ...], note: Note, head: Checkpoint) -> None:
        frontier = self.store.edge.frontier.copy()
        for entry in entries:
            frontier.append(leaf_hash(entry))
        if frontier.size < head.size:
            raise ReplicaBehind(f"the head has {head.size} entries, {frontier.size} came with it", self.size)
        if (frontier.size, frontier.root()) != (head.size, head.root):
            raise self._foreign(entries, note, head)
        try:
            for offset, entry in enumerate(entries):
                read = self.history.take(entry)
                if self._own_check is not None:
                    self._own_check(self.size + offset, read)
            self.store.append(entries, note)
        except BaseException:
            self.history = self._fold()
            raise

    def _same_size(self, note: Note, head: Checkpoint) -> None:
        if self.store.note is not None and head.root != self.store.root:
            raise self._split(note, head, self.store.note)

    def _check_cosigned_by(self, note: Note, name: str) -> None:
        verifier = self.history.members.key_of(name)
        if name not in cosigners(note, [verifier]):
            raise ProofRefused(f"{name} did not cosign the head of {self.size} entries: the run cannot go on")

    def _split(self, note: Note, head: Checkpoint, mine: Note) -> LedgerForked:
        proof = None
        if head.size < self.size:
            proof = (self.store.root_at(head.size), self.store.consistency_proof(head.size, self.size))
        path = evidence.save(evidence.split_view(self.log, self.signer.name, [note, mine], proof), self.folder)
        return LedgerForked(
            f"{self.log.name} signed two heads that disagree: one of {head.size} entries, and the one of {self.size} "
            f"that {self.signer.name} has cosigned. The run stops.",
            path,
        )

    def _shortened(self, note: Note, head: Checkpoint) -> LedgerForked:
        if self.store.note is not None and self.store.root_at(head.size) != head.root:
            return self._split(note, head, self.store.note)
        found = evidence.Shortened(
            **evidence.common(self.log, self.signer.name, f"{self.size} entries were seen, {head.size} are shown"),
            seen=str(self.store.note),
            presented=str(note),
        )
        path = evidence.save(found, self.folder)
        return LedgerForked(
            f"{self.log.name} shows {head.size} entries, {self.signer.name} has cosigned {self.size}: it was "
            "shortened, or an old head was sent again. The run stops.",
            path,
        )

    def _foreign(self, entries: tuple[bytes, ...], note: Note, head: Checkpoint) -> LedgerForked:
        found = evidence.ForeignEntries(
            **evidence.common(self.log, self.signer.name, f"entries do not lead to the head of {head.size}"),
            seen=None if self.store.note is None else str(self.store.note),
            frontier=[(height, each.hex()) for height, each in self.store.edge.frontier.roots],
            entries=[base64.b64encode(entry).decode() for entry in entries],
            presented=str(note),
        )
        path = evidence.save(found, self.folder)
        return LedgerForked(
            f"the entries sent with {self.log.name}'s head of {head.size} entries do not lead to it: the head is "
            f"one of another log, or entries were changed on the way. {self.signer.name} does not cosign.",
            path,
        )


def fold(view: LedgerView, log: Verifier, found_by: str) -> History:
    """Read all entries of a ledger again and return what they add up to.

    Signatures were checked when the entries were taken on; hashes are checked now. Raises LedgerDamaged, with evidence
    where there can be any, if a file was changed since.
    """
    history = History(log)
    for index, leaf in enumerate(view.entries()):
        if leaf_hash(leaf) != view.leaf(index):
            raise changed_file(view, log, found_by, index, view.folder)
        history.take_read(read_entry(leaf), _checked_before)
    if view.root_at(view.size) != view.root:
        raise LedgerDamaged(
            f"{view.folder}: a tile was changed; the entries are whole. "
            "Set the folder aside and copy the ledger anew from another member"
        )
    return history


def changed_file(view: LedgerView, log: Verifier, found_by: str, index: int, folder: Path) -> LedgerDamaged:
    """Return the error for an entry that is not the one under the head.

    Evidence goes into `folder`/evidence, where the tiles still lead to the head and so prove the change.
    """
    problem = f"{view.folder}: entry {index} in its bundle is not the one under the signed head: a file was changed."
    advice = "Set the folder aside and copy the ledger anew from another member"
    head, leaf = view.head, view.leaf(index)
    if head is None or view.note is None:
        return LedgerDamaged(f"{problem} {advice}")
    proof = view.inclusion_proof(index, head.size)
    try:
        check_inclusion(index, head.size, leaf, proof, head.root)
    except ProofRefused:
        return LedgerDamaged(f"{problem} The tiles do not lead to the head either. {advice}")
    found = evidence.ChangedFile(
        **evidence.common(log, found_by, f"entry {index} was changed in the files of {found_by}"),
        head=str(view.note),
        index=index,
        leaf=leaf.hex(),
        proof=[each.hex() for each in proof],
        found=base64.b64encode(view.entry(index)).decode(),
    )
    path = evidence.save(found, folder)
    return LedgerDamaged(f"{problem} Evidence that others can check: {path}. {advice}")


def _checked_before(envelope: Envelope, verifier: Verifier) -> None:
    if verifier.key_id not in envelope.signatures:
        raise EntryRefused(f"it is not signed by {verifier.name}")
