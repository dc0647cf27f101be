"""One organisation's side of a ledger that is kept at a hub: its replica, its entries, its cosignatures."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lepton_pipelines.identity.signing import Signer as SigningInterface
from lepton_pipelines.ledger.entries import KeyRotated, MemberAdmitted
from lepton_pipelines.ledger.envelope import Envelope, encode_for_signing
from lepton_pipelines.ledger.errors import EntryRefused, LedgerError, LedgerInUse, ProofRefused, WitnessSilent
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.hub_ledger import origin_of
from lepton_pipelines.ledger.note import Note, Signer, Verifier
from lepton_pipelines.ledger.predicate import Predicate, fresh
from lepton_pipelines.ledger.replica import EntryCheck, Extension, Replica
from lepton_pipelines.ledger.statement import Entry, read_entry, sign_entry

Condition = Callable[[History], bool]
"""Tells whether what a member waits for is in the ledger."""

_POLL_SECONDS = 1.0  # how soon a member sees that its run has ended meanwhile


class LedgerWire(Protocol):
    """How a hub's log is reached; see `HubLedger` for what each call does."""

    def ledger_admission(self) -> bytes:
        """Return the entry that admits the caller, for its signature; empty if it is a member."""
        ...

    def ledger_submit(self, entry: bytes) -> int:
        """Submit an entry and return its index."""
        ...

    def ledger_read(self, first: int, signatures: int, wait: float) -> tuple[list[bytes], str]:
        """Return entries from `first` on and the newest head."""
        ...

    def ledger_cosign(self, signature: str) -> str:
        """Add a cosignature to the newest head and return it."""
        ...


class MemberLedger:
    """A member's replica of a hub's ledger, and its voice in it.

    folder: of the replica. wire: to the hub. name, key: the member's. hub_key: the hub's identity key, as it was
    compared when the organisation joined. trusted: keys of other organisations that were compared here: an entry that
    gives one of them another key is refused. own_check: a member refuses what misstates its own part.
    patience: how many seconds another process of the organisation, such as a portal, may take to give the folder back.
    """

    def __init__(
        self,
        folder: Path,
        wire: LedgerWire,
        name: str,
        key: SigningInterface,
        *,
        hub_key: bytes,
        trusted: Mapping[str, bytes],
        own_check: EntryCheck | None = None,
        patience: float = 0.0,
    ) -> None:
        self.signer = Signer(name, key)
        self._wire = wire
        self._trusted = dict(trusted)
        self._own_check = own_check
        self._lock = threading.Lock()
        self._head: Note | None = None
        log = Verifier(origin_of(hub_key), hub_key)
        self.replica = self._open(folder, log, time.monotonic() + patience)

    @property
    def history(self) -> History:
        """What the entries taken on so far add up to."""
        return self.replica.history

    def _open(self, folder: Path, log: Verifier, until: float) -> Replica:
        while True:
            try:
                return Replica(folder, self.signer, log, self._check)
            except LedgerInUse:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def enter(self) -> None:
        """Become a member of the ledger, unless this organisation is one already; then catch up."""
        entry = self._wire.ledger_admission()
        if entry:
            self._wire.ledger_submit(self._countersigned(entry))
        self.catch_up()

    def record(self, kind: type[Predicate], **fields: Any) -> int:
        """Say something in this organisation's name; return the index that it has in the ledger.

        fields: those of the kind, without ledger, id, time and author. Raises UserError if the log refuses it,
        pydantic's ValidationError if a field is malformed.
        """
        common = fresh(self.signer.name, self.signer.verifier.key_id, self.replica.log.name)
        return self._wire.ledger_submit(sign_entry(kind(**common, **fields), [self.signer]))

    def catch_up(self, *, wait: float = 0.0) -> None:
        """Take on what is new, and cosign the newest head.

        wait: seconds that the hub may wait for something new. Raises what `Replica.extend` raises: EntryRefused,
        LedgerForked with evidence, StorageRefused.
        """
        if wait > 0:
            self._wait_for_news(wait)
        with self._lock:
            self._catch_up()

    def checkpoint(
        self,
        members: Sequence[str],
        until: Condition = lambda history: True,
        *,
        timeout: float,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Note:
        """Wait until the ledger holds what is waited for, and the newest head has the cosignatures of these members.

        stopped: looked at now and then; ends the waiting. Returns the head, which the replica keeps.
        Raises WitnessSilent, naming who is missing, if `timeout` seconds pass; what `catch_up` raises.
        """
        end = time.monotonic() + timeout
        while True:
            with self._lock:
                self._catch_up()
                missing = self._missing(members, until)
                if missing is None and self._head is not None:
                    self.replica.confirm(str(self._head), list(members))
                    return self._head
            left = end - time.monotonic()
            if left <= 0 or stopped():
                raise WitnessSilent(
                    f"the ledger at the hub waits for {missing}: the run stands still until it is there. "
                    "See whether their agents are up, then resume the run"
                )
            self._wait_for_news(min(left, _POLL_SECONDS))

    def close(self) -> None:
        """Publish the replica's files, and give its folder back."""
        self.replica.close()

    def _wait_for_news(self, seconds: float) -> None:
        """Let the hub answer when there is something new. Without the lock: another thread may catch up meanwhile."""
        head = self._head
        self._wire.ledger_read(self.replica.size, 0 if head is None else len(head.signatures), seconds)

    def _catch_up(self) -> None:
        first = self.replica.size
        entries, head = self._wire.ledger_read(first, 0, 0.0)
        if not head:
            if first:
                raise LedgerError(f"the hub's ledger is empty, {self.signer.name}'s replica has {first} entries")
            return
        size = _size(head)
        while first + len(entries) < size:
            more, head = self._wire.ledger_read(first + len(entries), 0, 0.0)
            if not more:
                raise ProofRefused(f"the hub signed a head of {size} entries and shows only {first + len(entries)}")
            entries, size = entries + more, _size(head)
        self._head = Note.parse(head)
        if entries or self._lines() == 0:
            line = self.replica.extend(Extension(first, tuple(entries), head))
            self._head = Note.parse(self._wire.ledger_cosign(str(line)))
        elif self.replica.store.note is None or self._head.text != self.replica.store.note.text:
            self.replica.extend(Extension(first, (), head))  # another head of a size that was seen: raises

    def _lines(self) -> int:
        """Count this member's own lines below the newest head."""
        return 0 if self._head is None else sum(line.name == self.signer.name for line in self._head.signatures)

    def _missing(self, members: Sequence[str], until: Condition) -> str | None:
        """Say what the newest head lacks; None if nothing."""
        if not until(self.history):
            return "another member's entry"
        if self._head is None or self.replica.store.note is None:
            return "a first entry"
        if self._head.text != self.replica.store.note.text:
            return "a head that is newer than what was read"
        there = {line.name for line in self._head.signatures}
        absent = sorted(set(members) - there)
        return f"the cosignature of {', '.join(absent)}" if absent else None

    def _countersigned(self, leaf: bytes) -> bytes:
        """Sign the entry that admits this organisation, after checking that it says just that."""
        envelope, predicate = Envelope.unpack(leaf), read_entry(leaf).predicate
        mine = self.signer
        if not isinstance(predicate, MemberAdmitted) or (predicate.organisation, predicate.key.raw) != (
            mine.name,
            mine.verifier.raw,
        ):
            raise EntryRefused(f"the hub asks {mine.name} to sign something other than its own admission")
        signature = mine.sign(encode_for_signing(envelope.payload))
        return Envelope(envelope.payload, {**envelope.signatures, mine.verifier.key_id: signature}).pack()

    def _check(self, index: int, entry: Entry) -> None:
        predicate = entry.predicate
        name = ""
        if isinstance(predicate, MemberAdmitted):
            name = predicate.organisation
        elif isinstance(predicate, KeyRotated):
            name = predicate.author.organisation
        key = self._trusted.get(name)
        if key is not None and isinstance(predicate, MemberAdmitted | KeyRotated) and predicate.key.raw != key:
            raise EntryRefused(
                f"entry {index} gives {name} another key than the one that was compared here. If {name} has a new key, "
                f"ask it for its request file and fingerprint, then run lepton org trust {name}.request"
            )
        if self._own_check is not None:
            self._own_check(index, entry)


def _size(head: str) -> int:
    return int(head.split("\n", 2)[1])
