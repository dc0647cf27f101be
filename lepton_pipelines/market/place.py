"""Where the market is held: a ledger in which one organisation speaks, and the documents that its entries name."""

from typing import Any, Protocol

from lepton_pipelines.ledger.documents import LARGEST
from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.predicate import Predicate


class Place(Protocol):
    """One organisation's stand in the market: at a hub, or in a folder."""

    @property
    def organisation(self) -> str:
        """Who speaks here."""
        ...

    def history(self) -> History:
        """Return what the ledger's entries add up to now."""
        ...

    def record(self, kind: type[Predicate], **fields: Any) -> int:
        """Say something in the organisation's name; return the entry's index. Raises UserError if a rule is broken."""
        ...

    def put(self, document: bytes, *, most: int = LARGEST) -> str:
        """Keep a document of at most so many bytes for everyone to read, and return its digest."""
        ...

    def get(self, digest: str) -> bytes:
        """Return a document. Raises DocumentRefused if it is nowhere, or not what its digest says."""
        ...
