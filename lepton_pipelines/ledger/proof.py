"""A proof that one entry is in the ledger, in a file of its own: C2SP `tlog-proof`.

The entry travels as the proof's extra data, so the file and the policy are all that a reader needs.
"""

import base64
import binascii
from dataclasses import dataclass

from lepton_pipelines.ledger.checkpoint import Checkpoint, open_head
from lepton_pipelines.ledger.errors import ProofRefused
from lepton_pipelines.ledger.merkle import HASH_BYTES, check_inclusion, leaf_hash
from lepton_pipelines.ledger.note import Note, cosigners
from lepton_pipelines.ledger.policy import Policy

FIRST_LINE = "c2sp.org/tlog-proof@v1"
MAXIMUM_HASHES = 63


@dataclass(frozen=True)
class Proof:
    """The entry, its index, the hashes from the leaf to the root, and the head, signed and cosigned."""

    entry: bytes
    index: int
    hashes: tuple[bytes, ...]
    note: Note

    def __str__(self) -> str:
        """Write the proof's file."""
        lines = [FIRST_LINE, f"extra {_base64(self.entry)}", f"index {self.index}", *map(_base64, self.hashes), ""]
        return "\n".join(lines) + "\n" + str(self.note)

    def check(self, policy: Policy) -> tuple[Checkpoint, dict[str, int]]:
        """Check everything; return the head and who cosigned it when. Raises ProofRefused if anything does not hold."""
        head = open_head(self.note, policy.log)
        check_inclusion(self.index, head.size, leaf_hash(self.entry), self.hashes, head.root)
        seen_by = cosigners(self.note, list(policy.witnesses.values()))
        if not policy.satisfied_by(list(seen_by)):
            raise ProofRefused(f"the head is cosigned by {', '.join(seen_by) or 'no one'}: the policy asks for more")
        return head, seen_by

    @staticmethod
    def parse(text: str) -> "Proof":
        """Read a proof's file. Raises ProofRefused where it departs from the format."""
        top, separator, note = text.partition("\n\n")
        lines = top.split("\n")
        if not separator or lines[0] != FIRST_LINE or len(lines) < 3:
            raise ProofRefused(f"this is no proof: it should begin with {FIRST_LINE}, extra and index")
        extra, index, hashes = lines[1], lines[2], lines[3:]
        number = index.removeprefix("index ")
        if not extra.startswith("extra ") or not index.startswith("index ") or not _is_number(number):
            raise ProofRefused("the proof lacks its entry (a line «extra …») or its index (a line «index …»)")
        if len(hashes) > MAXIMUM_HASHES:
            raise ProofRefused(f"the proof has {len(hashes)} hashes, more than {MAXIMUM_HASHES}")
        siblings = tuple(_bytes(each) for each in hashes)
        if any(len(each) != HASH_BYTES for each in siblings):
            raise ProofRefused(f"a hash in the proof is not {HASH_BYTES} bytes long")
        return Proof(_bytes(extra.removeprefix("extra ")), int(number), siblings, Note.parse(note))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20 and (text == "0" or text[0] != "0")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProofRefused("a line of the proof is not base64") from error
    if _base64(data) != text:
        raise ProofRefused("a line of the proof is not base64 as an encoder writes it")
    return data
