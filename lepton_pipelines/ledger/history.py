"""What the entries of a ledger add up to, and whether the next one fits.

Everyone who reads the ledger folds the same entries by the same rules, so everyone holds the same members, grants, runs
and models: the market's listings and `lepton model verify` are views of this.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from lepton_pipelines.ledger import compute_entries, entries
from lepton_pipelines.ledger.algorithms import Algorithms
from lepton_pipelines.ledger.compute import Compute
from lepton_pipelines.ledger.envelope import Envelope
from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.grants import Grants
from lepton_pipelines.ledger.members import Members
from lepton_pipelines.ledger.note import Verifier
from lepton_pipelines.ledger.predicate import Predicate
from lepton_pipelines.ledger.runs import Runs
from lepton_pipelines.ledger.statement import Entry, read_entry

SignatureCheck = Callable[[Envelope, Verifier], None]
"""Raises EntryRefused unless the envelope is signed with this key."""


class History:
    """The state after `size` entries of the log whose key is `log`."""

    def __init__(self, log: Verifier) -> None:
        self.ledger = log.name
        self.size = 0
        self.members = Members(log)
        self.grants = Grants()
        self.algorithms = Algorithms()
        self.compute = Compute()
        self.runs = Runs()
        self._seen: set[bytes] = set()

    def take(self, leaf: bytes) -> Entry:
        """Check the next entry in full and let it count. Raises EntryRefused, and is then as before."""
        entry = read_entry(leaf)
        self.take_read(entry, Envelope.check)
        return entry

    def take_read(self, entry: Entry, check: SignatureCheck) -> None:
        """Let an entry count that was read already, its signatures checked by `check`.

        Raises EntryRefused, and is then as before.
        """
        predicate = entry.predicate
        digest = hashlib.sha256(entry.envelope.payload).digest()
        try:
            self._check(entry, digest, check)
            self._apply(predicate)
        except EntryRefused as error:
            who = predicate.author.organisation
            raise EntryRefused(f"entry {self.size} ({predicate.KIND}, by {who}) is refused: {error}") from error
        self._seen.add(digest)
        self.size += 1

    def _check(self, entry: Entry, digest: bytes, check: SignatureCheck) -> None:
        if entry.predicate.ledger != self.ledger:
            raise EntryRefused(f"it was written for another ledger, {entry.predicate.ledger}")
        if digest in self._seen:
            raise EntryRefused("it is a replay: the same statement is in the ledger already")
        signers = self.members.required_signers(entry)
        if entry.envelope.signatures.keys() != {signer.key_id for signer in signers}:
            names = ", ".join(signer.name for signer in signers)
            raise EntryRefused(f"it must be signed by {names}, and by no one else")
        for signer in signers:
            check(entry.envelope, signer)

    def _apply(self, predicate: Predicate) -> None:
        index = self.size
        match predicate:
            case entries.TreeFinished():
                self.runs.finish_tree(predicate)
            case entries.RunOpened():
                self.runs.open(index, predicate, {key.name for key in self.members.verifiers()})
            case entries.RunJoined():
                self.runs.join(index, predicate)
            case entries.RunSuspended() | entries.RunResumed() | entries.RunAborted() | entries.RunFinished():
                self.runs.change_state(index, predicate)
            case entries.Evaluation():
                self.runs.evaluate(index, predicate)
            case entries.ModelPublished():
                self.runs.publish(index, predicate)
            case entries.ModelOffered():
                self.runs.offer(index, predicate)
            case entries.ModelWithdrawn():
                self.runs.withdraw(predicate)
            case entries.ModelPromoted() | entries.ModelRolledBack():
                self.runs.promote(predicate)
            case entries.PolicyRefused():
                self.runs.refuse(predicate)
            case entries.MemberAdmitted():
                self.members.admit(index, predicate)
            case entries.KeyRotated():
                self.members.rotate(index, predicate)
            case entries.KeyRevoked():
                self.members.revoke(index, predicate)
            case _:
                self._apply_to_market(predicate)

    def _apply_to_market(self, predicate: Any) -> None:
        index = self.size
        match predicate:
            case entries.ProductPublished():
                self.grants.publish(index, predicate)
            case entries.ProductChanged():
                self.grants.change(index, predicate)
            case entries.ProductWithdrawn():
                self.grants.withdraw(predicate)
            case entries.GrantAsked():
                self.grants.ask(index, predicate)
            case entries.GrantGiven():
                self.grants.give(index, predicate)
            case entries.GrantRefused() | entries.GrantRevoked():
                self.grants.answer(predicate)
            case entries.AlgorithmOffered():
                self.algorithms.offer(index, predicate)
            case entries.AlgorithmWithdrawn():
                self.algorithms.withdraw(predicate)
            case entries.GrantUsed():
                self.grants.use(predicate, self.runs.members_of(predicate.run))
            case _:
                self._apply_to_pool(predicate)

    def _apply_to_pool(self, predicate: Any) -> None:
        index = self.size
        match predicate:
            case compute_entries.ComputeOffered():
                self.compute.offer(index, predicate)
            case compute_entries.ComputeWithdrawn():
                self.compute.withdraw(predicate)
            case compute_entries.ComputeReserved():
                self.compute.reserve(index, predicate)
            case compute_entries.ComputeReleased():
                self.compute.release(predicate)
            case compute_entries.WorkAsked():
                self.compute.ask(predicate)
            case compute_entries.WorkEnded():
                self.compute.end(predicate)
            case _:
                raise EntryRefused(f"the ledger has no rule for {predicate.KIND} entries")
