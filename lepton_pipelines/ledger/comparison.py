"""Two members' copies of one ledger, held against each other: is the shorter one a beginning of the longer one?"""

from pathlib import Path

from lepton_pipelines.ledger import evidence
from lepton_pipelines.ledger.checkpoint import open_head
from lepton_pipelines.ledger.errors import LedgerDamaged, LedgerError
from lepton_pipelines.ledger.note import Verifier
from lepton_pipelines.ledger.store import LedgerView


def compare_copies(mine: LedgerView, other: LedgerView, log: Verifier, evidence_folder: Path | None) -> str:
    """Say how two copies relate. Raises LedgerDamaged if the log signed different ledgers for them.

    evidence_folder: where evidence of that is written; nowhere if None.
    """
    if mine.note is None or other.note is None:
        raise LedgerError(f"{mine.folder if mine.note is None else other.folder} is empty: there is nothing to compare")
    open_head(mine.note, log)
    open_head(other.note, log)
    shorter, longer = sorted((mine, other), key=lambda view: view.size)
    at = longer.root_at(shorter.size)
    if at == shorter.root:
        if shorter.size == longer.size:
            return f"{other.folder} is the same ledger to the last entry"
        return f"{shorter.folder} is the beginning of {longer.folder}, {longer.size - shorter.size} entries behind"
    problem = f"{log.name} signed different ledgers for {mine.folder} and {other.folder}"
    if evidence_folder is None or shorter.note is None or longer.note is None:
        raise LedgerDamaged(f"{problem}. Add --evidence FOLDER for a file that proves it to others")
    proof = None if shorter.size == longer.size else (at, longer.consistency_proof(shorter.size, longer.size))
    found = evidence.split_view(log, "the reader", [shorter.note, longer.note], proof)
    raise LedgerDamaged(f"{problem}. Evidence that others can check: {evidence.save(found, evidence_folder)}")
