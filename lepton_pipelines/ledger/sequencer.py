"""The log itself: puts entries in order, signs heads, and collects the members' cosignatures.

It is trusted with nothing: what it orders is checked by every replica, and a head counts when the members have cosigned
it. In production it stands at the hub; in one process it is an object beside the replicas. Its own folder is written
before a head leaves, so that it never signs two heads of one size, whatever crashes.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lepton_pipelines.ledger.checkpoint import Checkpoint, open_head
from lepton_pipelines.ledger.entries import MemberAdmitted
from lepton_pipelines.ledger.errors import EntryRefused, LedgerError, ProofRefused, ReplicaBehind, WitnessSilent
from lepton_pipelines.ledger.members import OPERATOR
from lepton_pipelines.ledger.merkle import leaf_hash
from lepton_pipelines.ledger.note import Note, Signature, Signer, check_cosignature
from lepton_pipelines.ledger.policy import Policy, write_policy
from lepton_pipelines.ledger.predicate import PublicKey, fresh
from lepton_pipelines.ledger.replica import Extension, Witness, fold
from lepton_pipelines.ledger.statement import sign_entry
from lepton_pipelines.ledger.store import LedgerStore
from lepton_pipelines.ledger.tiles import MAXIMUM_ENTRY_BYTES

ANSWER_SECONDS = 30.0


class Sequencer:
    """Orders and signs for one log. signer: the log's key, named after the log's origin."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.signer = signer
        self.folder = folder
        self.store = LedgerStore(folder)
        self._pending: list[bytes] = []
        self._acknowledged: dict[str, int] = {}
        self._state = threading.RLock()
        self._collecting = threading.Lock()
        self._lines: dict[str, _Line] = {}
        try:
            if self.store.note is not None:
                open_head(self.store.note, signer.verifier)
            self.history = fold(self.store, signer.verifier, signer.name)
        except BaseException:
            self.store.give_back()
            raise

    @property
    def size(self) -> int:
        """How many entries there are under the newest signed head."""
        return self.store.size

    def submit(self, leaf: bytes) -> int:
        """Take an entry on and return its index; it counts from the next head on.

        Raises EntryRefused if it is forged, replayed, malformed or breaks a rule.
        """
        with self._state:
            if len(leaf) > MAXIMUM_ENTRY_BYTES:
                raise EntryRefused(f"an entry of {len(leaf)} bytes does not fit: at most {MAXIMUM_ENTRY_BYTES}")
            self.history.take(leaf)
            self._pending.append(leaf)
            return self.size + len(self._pending) - 1

    def admit(self, newcomer: Signer) -> int:
        """Admit an organisation whose key is at hand, in the operator's name; return the entry's index."""
        common = fresh(OPERATOR, self.signer.verifier.key_id, self.signer.name)
        key = PublicKey.of(newcomer.verifier.raw)
        entry = MemberAdmitted(**common, organisation=newcomer.name, key=key)
        return self.submit(sign_entry(entry, [self.signer, newcomer]))

    def sign_head(self) -> Note:
        """Make the submitted entries durable and sign the head over them (the newest one again if there are none).

        Raises StorageRefused if the disk is full: nothing was signed, and the entries wait for the next try.
        """
        with self._state:
            if not self._pending:
                return self._newest()
            frontier = self.store.edge.frontier.copy()
            for leaf in self._pending:
                frontier.append(leaf_hash(leaf))
            note = Checkpoint(self.signer.name, frontier.size, frontier.root()).sign(self.signer)
            self.store.append(self._pending, note)
            self._pending = []
            return note

    def extension(self, first: int, note: Note) -> Extension:
        """Return the entries from index `first` up to this head, and the head."""
        with self._state:
            return Extension(first, tuple(self.store.entries(first, Checkpoint.parse(note.text).size)), str(note))

    def collect(self, witnesses: Mapping[str, Witness], *, timeout: float = ANSWER_SECONDS) -> Note:
        """Have every witness cosign the newest head, and every one check that all the others did.

        A witness that is behind, new or was away is sent what it lacks. Returns the head with all cosignatures.
        Raises WitnessSilent, naming them, if some do not answer within `timeout` seconds; what a witness refuses is
        raised as it is. The head stays, and can be collected again.
        """
        with self._collecting:
            head = self._newest()
            until = time.monotonic() + timeout
            signed = self._ask({name: self._question(name, each, head) for name, each in witnesses.items()}, until)
            for name, line in signed.items():
                check_cosignature(head.text, line, self.history.members.key_of(name))
                self._acknowledged[name] = Checkpoint.parse(head.text).size
            note = head.with_signatures(signed.values())
            text, names = str(note), sorted(witnesses)
            self._ask({name: partial(each.confirm, text, names) for name, each in witnesses.items()}, until)
            with self._state:
                if self._newest().text == note.text:
                    self.store.confirm(note)
            return note

    def accept(self, name: str, line: Signature) -> Note:
        """Add a cosignature that a member sent of its own accord to the newest head, and return that head.

        One of a head that is not the newest any more is passed over: the member will read on and cosign again.
        Raises EntryRefused if the member has no valid key.
        """
        with self._state:
            head = self._newest()
            try:
                check_cosignature(head.text, line, self.history.members.key_of(name))
            except ProofRefused:
                return head
            head = head.with_signatures([line])
            self.store.confirm(head)
            return head

    def publish(self) -> None:
        """Write tiles and the newest head, and list the members' keys."""
        with self._state:
            self.store.publish()
            write_policy(self.folder, Policy.of(self.signer.verifier, self.history.members.verifiers()))

    def close(self) -> None:
        """Publish, and give the folder back. Submitted entries that no head covers are dropped: they never counted."""
        with self._state:
            for line in self._lines.values():
                line.stop()
            try:
                self.publish()
            finally:
                self.store.close()

    def _newest(self) -> Note:
        if self.store.note is None:
            raise LedgerError(f"{self.folder}: the log {self.signer.name} has no entries yet, hence no head")
        return self.store.note

    def _question(self, name: str, witness: Witness, head: Note) -> Callable[[], Signature]:
        """Ask a witness for its cosignature, sending what it lacks: as far as known, or as it says itself."""
        newest = self.extension(min(self._acknowledged.get(name, self.size), self.size), head)

        def ask() -> Signature:
            try:
                return witness.extend(newest)
            except ReplicaBehind as behind:
                return witness.extend(self.extension(behind.size, head))

        return ask

    def _ask(self, questions: Mapping[str, Callable[[], Any]], until: float) -> dict[str, Any]:
        """Put one question to each witness at the same time; return all answers, or raise the first refusal."""
        asked = {}
        for name, question in questions.items():
            line = self._lines.get(name)
            if line is None or line.busy:
                line = self._lines[name] = _Line(name)
            asked[name] = line.put(question)
        answers: dict[str, Any] = {}
        silent, refusals = [], []
        for name, answer in asked.items():
            try:
                value, error = answer.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                silent.append(name)
                continue
            if error is not None:
                refusals.append(error)
            answers[name] = value
        if refusals:
            raise refusals[0]
        if silent:
            raise WitnessSilent(
                f"no cosignature of the head of {self.size} entries from {', '.join(silent)}: the run waits. "
                "See whether its agent is up, then resume the run"
            )
        return answers


_Answer = queue.SimpleQueue[tuple[Any, BaseException | None]]


class _Line:
    """A thread that asks one witness, so that one that never answers holds up nobody but itself."""

    def __init__(self, name: str) -> None:
        self.busy = False
        self._questions: queue.SimpleQueue[tuple[Callable[[], Any], _Answer] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"ledger-{name}", daemon=True).start()

    def put(self, question: Callable[[], Any]) -> _Answer:
        """Ask; the answer, or what was raised instead, appears in the queue that is returned."""
        self.busy = True
        answer: _Answer = queue.SimpleQueue()
        self._questions.put((question, answer))
        return answer

    def stop(self) -> None:
        """End the thread once it has answered."""
        self._questions.put(None)

    def _run(self) -> None:
        while (asked := self._questions.get()) is not None:
            question, answer = asked
            try:
                value, error = question(), None
            except BaseException as raised:  # noqa: BLE001 - it is raised again where the question was put
                value, error = None, raised
            self.busy = False
            answer.put((value, error))
