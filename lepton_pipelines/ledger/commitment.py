"""Commitments to data sets: binding, and silent until their owner opens them.

The ledger holds `hmac-sha256:` and HMAC-SHA-256, keyed with 32 random bytes, of an RFC 8785 document that describes the
data (digests of files and what else the owner wants to be able to prove). Without the salt nothing can be guessed from
it, not even by trying all data sets that it might be; with the salt and the document anyone can check it.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lepton_pipelines.ledger import canonical
from lepton_pipelines.ledger.errors import ProofRefused, StorageRefused

FORMAT = "lepton-dataset-opening/v1"
SALT_BYTES = 32


@dataclass(frozen=True)
class Opening:
    """What opens a commitment: kept by the owner, shown to an auditor and to no one else."""

    document: dict[str, Any]
    salt: bytes = field(repr=False, default_factory=lambda: secrets.token_bytes(SALT_BYTES))

    @property
    def commitment(self) -> str:
        """The commitment that goes into the ledger."""
        return f"hmac-sha256:{hmac.new(self.salt, canonical.encode(self.document), hashlib.sha256).hexdigest()}"

    def check(self, commitment: str) -> None:
        """Check that this opens the commitment. Raises ProofRefused if it does not."""
        if not hmac.compare_digest(self.commitment, commitment):
            raise ProofRefused("this opening does not belong to the commitment in the ledger")

    def save(self, path: Path) -> None:
        """Write the opening to a file that its owner alone may read. Raises StorageRefused if the disk is full."""
        value = {"format": FORMAT, "document": self.document, "salt": base64.b64encode(self.salt).decode()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(canonical.encode(value) + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise StorageRefused(
                f"{path} could not be written ({error.strerror}); without it the data set can never be proved"
            ) from error

    @staticmethod
    def load(path: Path) -> "Opening":
        """Read an opening from its file. Raises ProofRefused if it is none."""
        try:
            value = json.loads(path.read_bytes())
            salt = base64.b64decode(value["salt"], validate=True)
            if value["format"] == FORMAT and isinstance(value["document"], dict) and len(salt) == SALT_BYTES:
                return Opening(value["document"], salt)
        except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
            raise ProofRefused(f"{path} is no opening of a data set's commitment: {error}") from error
        raise ProofRefused(f"{path} is no opening of a data set's commitment ({FORMAT})")


def dataset_document(product: str, digests: dict[str, str], *, rows: int, contract: str) -> dict[str, Any]:
    """Describe a data set for a commitment.

    product: its id. digests: name of a file or part → SHA-256. rows: exact, for it stays with the owner.
    contract: SHA-256 of the contract that the rows were checked against.
    """
    return {"product": product, "digests": digests, "rows": rows, "contract": contract}
