"""What one run writes into the ledger; it goes on only under heads that its present members cosigned.

    ledger.record(RunJoined, by="harbour", run="r-7f3a", …)     # as many as there are to say
    ledger.checkpoint()                                         # one head, one cosignature of each member

`record` signs and orders; `checkpoint` makes everything recorded durable at every member, or raises and stops the run.
"""

from collections.abc import Mapping
from typing import Any

from lepton_pipelines.ledger.errors import LedgerError
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.note import Note, Signer
from lepton_pipelines.ledger.predicate import Predicate, fresh
from lepton_pipelines.ledger.replica import Witness
from lepton_pipelines.ledger.sequencer import ANSWER_SECONDS, Sequencer
from lepton_pipelines.ledger.statement import sign_entry


class RunLedger:
    """The door of a run to the ledger, for the members whose keys are at hand.

    members: those who take part now, and cosign: name → replica, or a witness on a wire.
    signers: those in whose name this process may speak: all in one process, one alone at an organisation's agent.
    timeout: how many seconds a member may take to cosign.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        members: Mapping[str, Witness],
        signers: Mapping[str, Signer],
        *,
        timeout: float = ANSWER_SECONDS,
    ) -> None:
        self._sequencer = sequencer
        self._members = dict(members)
        self._signers = dict(signers)
        self._timeout = timeout

    @property
    def history(self) -> History:
        """What the entries so far add up to, those of this run included."""
        return self._sequencer.history

    def record(self, kind: type[Predicate], *, by: str, **fields: Any) -> int:
        """Say something in the name of a member and return the index that it has in the ledger.

        fields: those of the kind, without ledger, id, time and author.
        Raises EntryRefused if a rule is broken, pydantic's ValidationError if a field is malformed.
        """
        signer = self._signers.get(by)
        if signer is None:
            raise LedgerError(f"this process cannot speak for {by}: it has no key of that name")
        common = fresh(by, signer.verifier.key_id, self._sequencer.signer.name)
        return self._sequencer.submit(sign_entry(kind(**common, **fields), [signer]))

    def checkpoint(self) -> Note:
        """Sign a head over what was recorded and have every present member cosign it.

        Returns the head with all cosignatures. Raises what stops the run: LedgerForked, EntryRefused, WitnessSilent,
        StorageRefused; see `Sequencer.collect`.
        """
        self._sequencer.sign_head()
        return self._sequencer.collect(self._members, timeout=self._timeout)
