"""The ledger at the hub: takes entries from those who may speak, orders them, signs heads, and passes heads around.

Organisations dial out only, so nobody is asked for a cosignature: each member reads what is new, checks it in its own
replica, and sends its line. The hub's own key is the log's: it is the one that every organisation compared when it
joined. What the hub claims here is checked by every replica; it can hold an entry back, it cannot make one up.
"""

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

from lepton_pipelines.identity.signing import Signer as SigningInterface
from lepton_pipelines.ledger.entries import KeyRevoked, MemberAdmitted
from lepton_pipelines.ledger.envelope import seal
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.members import OPERATOR
from lepton_pipelines.ledger.note import Signer, parse_signature
from lepton_pipelines.ledger.predicate import PublicKey, digest_of, fresh
from lepton_pipelines.ledger.sequencer import Sequencer
from lepton_pipelines.ledger.statement import encode_statement, read_entry, sign_entry

REPLY_BYTES = 1 << 20
REMEMBERED = 1000  # entries whose submission may be repeated after a restart of the hub


def origin_of(hub_key: bytes) -> str:
    """Return the name of the log that the hub with this identity key keeps."""
    return f"lepton.hub/{digest_of(hub_key)[:8]}"


class HubLedger:
    """The hub's log. folder: its own; key: the hub's identity key."""

    def __init__(self, folder: Path, key: SigningInterface) -> None:
        self._signer = Signer(origin_of(key.public), key)
        self._sequencer = Sequencer(folder, self._signer)
        self._changed = threading.Condition()
        self._released = False
        newest = max(0, self._sequencer.size - REMEMBERED)
        self._indices = {_digest(leaf): newest + at for at, leaf in enumerate(self._sequencer.store.entries(newest))}

    def admission(self, member: str, key: bytes) -> bytes:
        """Return the entry that admits an organisation, signed by the log alone: the newcomer signs it, too.

        key: the one that the hub's operator admitted it with. Empty if it is a member with this key already; a key
        that the operator has replaced is revoked first.
        """
        with self._changed:
            known = self._sequencer.history.members.by_name.get(member)
            if known is not None and known.key is not None:
                if known.key.raw == key:
                    return b""
                self._revoke(member, "the hub's operator admitted this organisation with another key")
            entry = MemberAdmitted(**self._common(), organisation=member, key=PublicKey.of(key))
            return seal(encode_statement(entry), [self._signer]).pack()

    def submit(self, member: str, leaf: bytes) -> int:
        """Take an entry on in the name of the caller, sign a head over it, and return its index.

        One that was taken on already, for its answer was lost on the way, keeps its index.
        Raises EntryRefused if it is somebody else's, forged, replayed, malformed, or breaks a rule.
        """
        predicate = read_entry(leaf).predicate
        speaker = predicate.author.organisation
        if isinstance(predicate, MemberAdmitted) and speaker == OPERATOR:
            speaker = predicate.organisation
        if speaker != member:
            raise EntryRefused(f"{member} cannot submit an entry of {speaker}")
        with self._changed:
            known = self._indices.get(_digest(leaf))
            if known is not None:
                return known
            index = self._indices[_digest(leaf)] = self._sequencer.submit(leaf)
            self._sequencer.sign_head()
            self._changed.notify_all()
            return index

    def read(self, first: int, signatures: int, wait: float) -> tuple[list[bytes], str]:
        """Return entries from `first` on, about a megabyte of them, and the newest head; empty without any.

        Waits up to `wait` seconds until the log is longer than `first`, or its head has more than `signatures` lines.
        """
        until = time.monotonic() + wait
        with self._changed:
            while not self._released and not self._is_news(first, signatures):
                if not self._changed.wait(max(until - time.monotonic(), 0.0)):
                    break
            note = self._sequencer.store.note
            entries: list[bytes] = []
            size = 0
            for leaf in self._sequencer.store.entries(first):
                entries.append(leaf)
                size += len(leaf)
                if size > REPLY_BYTES:
                    break
            return entries, "" if note is None else str(note)

    def cosign(self, member: str, line: str) -> str:
        """Add a member's cosignature to the newest head, and return that head.

        A line for a head that is not the newest any more is passed over. Raises ProofRefused if the line is nobody's,
        EntryRefused if the caller is not a member of the ledger.
        """
        signature = parse_signature(line)
        with self._changed:
            head = self._sequencer.accept(member, signature)
            self._changed.notify_all()
            return str(head)

    def release(self) -> None:
        """Let every call that waits return."""
        with self._changed:
            self._released = True
            self._changed.notify_all()

    def close(self) -> None:
        """Publish the log's files, and give its folder back."""
        self._sequencer.close()

    def _is_news(self, first: int, signatures: int) -> bool:
        note = self._sequencer.store.note
        return note is not None and (self._sequencer.size > first or len(note.signatures) > signatures)

    def _revoke(self, member: str, reason: str) -> None:
        key = self._sequencer.history.members.key_of(member).key_id
        entry = KeyRevoked(**self._common(), organisation=member, key=key, reason=reason)
        self._sequencer.submit(sign_entry(entry, [self._signer]))
        self._sequencer.sign_head()
        self._changed.notify_all()

    def _common(self) -> dict[str, Any]:
        return fresh(OPERATOR, self._signer.verifier.key_id, self._signer.name)


def _digest(leaf: bytes) -> bytes:
    return hashlib.sha256(leaf).digest()
