"""Documents by their SHA-256: contracts, descriptions, terms and requests, of which the ledger has the digests."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from lepton_pipelines.ledger import canonical
from lepton_pipelines.ledger.errors import DocumentRefused
from lepton_pipelines.ledger.predicate import digest_of

LARGEST = 256 * 1024
LARGEST_MODEL = 2 * 1024 * 1024  # a model's file that travels as a document; larger ones are named by their address
_DIGEST = re.compile("[0-9a-f]{64}")


class Documents:
    """A folder of documents, each in a file that is called by its digest. What does not match its name is refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, document: bytes, *, most: int = LARGEST) -> str:
        """Keep a document and return its digest. Raises DocumentRefused if it has more bytes than `most`."""
        if len(document) > most:
            raise DocumentRefused(f"a document of {len(document):,} bytes is too long for the ledger: {most:,} at most")
        digest = digest_of(document)
        if not self.has(digest):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".new-", delete=False) as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self.folder / digest)
        return digest

    def has(self, digest: str) -> bool:
        """Tell whether there is a document with this digest."""
        return bool(_DIGEST.fullmatch(digest)) and (self.folder / digest).is_file()

    def get(self, digest: str) -> bytes:
        """Return a document. Raises DocumentRefused if it is not there, or was changed."""
        if not self.has(digest):
            raise DocumentRefused(f"{self.folder} has no document {digest[:16]}…: ask its owner to publish it again")
        document = (self.folder / digest).read_bytes()
        if digest_of(document) != digest:
            raise DocumentRefused(f"{self.folder / digest} was changed: it is not the document that the ledger names")
        return document


def encode(value: Any) -> bytes:
    """Write a document in RFC 8785's form, so that equal documents have equal digests."""
    return canonical.encode(value)


def decode(document: bytes) -> Any:
    """Read a document of JSON."""
    return json.loads(document)
