"""A checkpoint: the head of a log, as in C2SP `tlog-checkpoint`: origin, size and root, in three lines."""

import base64
import binascii
import re
from dataclasses import dataclass

from lepton_pipelines.ledger.errors import ProofRefused
from lepton_pipelines.ledger.merkle import HASH_BYTES
from lepton_pipelines.ledger.note import Note, Signer, Verifier, check_signature, sign_note

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
ORIGIN = re.compile(r"[a-z0-9][a-z0-9._/-]{0,199}")


@dataclass(frozen=True)
class Checkpoint:
    """The head of the log `origin`: how many entries it has and the root over them (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Write the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def sign(self, signer: Signer) -> Note:
        """Sign the head with the log's key, whose name is the origin."""
        if signer.name != self.origin:
            raise ProofRefused(f"the key {signer.name} cannot sign a head of {self.origin}")
        return sign_note(self.text(), signer)

    @staticmethod
    def parse(text: str) -> "Checkpoint":
        """Read a note's text as a head. Raises ProofRefused where it departs from the format.

        Extension lines are refused: nothing that others' monitors cannot audit is to be signed along.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise ProofRefused("a head has three lines: origin, size and root")
        origin, size, root = lines[:3]
        if not ORIGIN.fullmatch(origin):
            raise ProofRefused(f"{origin[:80]!r} is no origin: lower-case letters, digits, dots, dashes and slashes")
        if not _SIZE.fullmatch(size):
            raise ProofRefused(f"{size[:40]!r} is not the size of a log")
        try:
            raw = base64.b64decode(root, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProofRefused("the root in the head is not base64") from error
        if len(raw) != HASH_BYTES or base64.b64encode(raw).decode() != root:
            raise ProofRefused("the root in the head is not the base64 of 32 bytes")
        return Checkpoint(origin, int(size), raw)


def open_head(note: Note, log: Verifier) -> Checkpoint:
    """Return the head that a note carries, its signature by the log's key checked. Raises ProofRefused otherwise."""
    check_signature(note, log)
    head = Checkpoint.parse(note.text)
    if head.origin != log.name:
        raise ProofRefused(f"the head is one of {head.origin}, not of {log.name}")
    return head
