"""What goes wrong with a ledger; each message names the ledger, the place in it and the next step."""

from pathlib import Path

from lepton_pipelines.spec.errors import UserError


class LedgerError(UserError):
    """The ledger cannot do what was asked, or found something that it must not pass over."""


class LedgerInUse(LedgerError):  # noqa: N818
    """Another process holds the ledger's folder for writing."""


class EntryRefused(LedgerError):  # noqa: N818 - an entry is refused; nothing broke
    """An entry is forged, replayed, malformed, or breaks a rule of the entries before it."""


class ProofRefused(LedgerError):  # noqa: N818
    """A proof, a signature or a head does not hold."""


class LedgerDamaged(LedgerError):  # noqa: N818
    """A file of the ledger is malformed or does not hash to what the signed head says."""


class StorageRefused(LedgerError):  # noqa: N818
    """The disk did not take what was written: nothing was acknowledged, nothing is half there."""


class DocumentRefused(LedgerError):  # noqa: N818
    """A document that the ledger names by its digest is too long, missing, or was changed."""


class ReplicaBehind(LedgerError):  # noqa: N818
    """A replica lacks entries; `size` says from where on they must be sent."""

    def __init__(self, problem: str, size: int) -> None:
        super().__init__(problem)
        self.size = size

    def __reduce__(self) -> tuple[type["ReplicaBehind"], tuple[str, int]]:  # type: ignore[override]
        """Keep the size when the error travels between processes."""
        return type(self), (self.problems[0], self.size)


class WitnessSilent(LedgerError):  # noqa: N818
    """A member whose cosignature the run needs gave none in time."""


class LedgerForked(LedgerError):  # noqa: N818
    """Two heads of one log disagree, or the log was shortened. `evidence` is the file that shows it."""

    def __init__(self, problem: str, evidence: Path) -> None:
        super().__init__(f"{problem} Evidence that others can check: {evidence} (lepton ledger verify {evidence})")
        self.problem = problem
        self.evidence = evidence

    def __reduce__(self) -> tuple[type["LedgerForked"], tuple[str, Path]]:  # type: ignore[override]
        """Keep the evidence's path when the error travels between processes."""
        return type(self), (self.problem, self.evidence)
