"""Signed notes, as in C2SP `signed-note`, and cosignatures, as in C2SP `tlog-cosignature` (version 1).

A note is text with signature lines below it. The log signs with type 0x01 (Ed25519 over the text); a witness cosigns
with type 0x04 (Ed25519 over a header, a time and the text). The type byte goes into the key's id and stands before the
key in its written form, so an algorithm that comes later (0x06 is ML-DSA-44) is told apart and never mistaken.
"""

import base64
import binascii
import hashlib
import re
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from lepton_pipelines.identity.signing import Signer as SigningInterface
from lepton_pipelines.identity.signing import SigningKey, verified
from lepton_pipelines.ledger.errors import ProofRefused

LOG_SIGNATURE = 0x01
COSIGNATURE = 0x04
MAXIMUM_SIGNATURES = 64
MAXIMUM_BYTES = 64 * 1024
_DASH = "\u2014"
_NAME = re.compile(r"[^\s+\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True)
class Verifier:
    """A name and the 32 bytes of its Ed25519 public key.

    What stands behind the key (an organisation, a log) and where the private half lies is `identity`'s business.
    """

    name: str
    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ProofRefused(f"{self.name!r} cannot name a key: a name has no spaces and no plus sign")
        if len(self.raw) != 32:
            raise ProofRefused(f"{self.name}: {len(self.raw)} bytes are no Ed25519 public key, which has 32")

    @property
    def key_id(self) -> str:
        """The id of the key in envelopes: its algorithm, and the SHA-256 of its 32 bytes in hexadecimal."""
        return _key_id(self.raw)

    def note_id(self, kind: int) -> bytes:
        """The four bytes that name this key in a note's signature line of this type."""
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([kind]) + self.raw).digest()[:4]

    def vkey(self, kind: int) -> str:
        """Write the key as C2SP tools read it: name+id+base64(type ‖ key)."""
        encoded = base64.b64encode(bytes([kind]) + self.raw).decode()
        return f"{self.name}+{self.note_id(kind).hex()}+{encoded}"

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Tell whether this key signed the message."""
        return _genuine(self.raw, signature, message)

    @staticmethod
    def from_vkey(text: str, kind: int) -> "Verifier":
        """Read a key from its written form. Raises ProofRefused if it is malformed or of another type."""
        parts = text.split("+", 2)
        if len(parts) != 3:
            raise ProofRefused(f"{text!r} is not a key: it should read name+id+base64")
        raw = _decode(parts[2], f"the key of {parts[0]}")
        if not raw or raw[0] != kind:
            raise ProofRefused(f"the key of {parts[0]} is of type {raw[:1].hex() or 'none'}, expected {kind:02x}")
        verifier = Verifier(parts[0], raw[1:])
        if verifier.note_id(kind).hex() != parts[1]:
            raise ProofRefused(f"the key of {parts[0]} does not belong to the id {parts[1]}")
        return verifier


@dataclass(frozen=True)
class Signer:
    """A name and whatever can sign with its private Ed25519 key (see `identity.signing`)."""

    name: str
    key: SigningInterface = field(repr=False)
    verifier: Verifier = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verifier", Verifier(self.name, self.key.public))

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self.key.sign(message)

    @staticmethod
    def generate(name: str) -> "Signer":
        """Make a fresh key in memory, for tests and for what lives no longer than the process."""
        return Signer(name, SigningKey.generate())


@dataclass(frozen=True)
class Signature:
    """One signature line: who, the four bytes that name the key, and the bytes that follow."""

    name: str
    note_id: bytes
    signature: bytes

    def __str__(self) -> str:
        """Write the line, without its newline."""
        return f"{_DASH} {self.name} {base64.b64encode(self.note_id + self.signature).decode()}"


@dataclass(frozen=True)
class Note:
    """A text, ending in a newline, and the signatures below it."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        """Write the note as it is stored and sent."""
        return self.text + "\n" + "".join(f"{line}\n" for line in self.signatures)

    def with_signatures(self, lines: Iterable[Signature]) -> "Note":
        """Return the note with these lines added; a line that is there already (same key) is replaced."""
        added = {(line.name, line.note_id): line for line in lines}
        kept = {(line.name, line.note_id): line for line in self.signatures}
        return Note(self.text, tuple((kept | added).values()))

    @staticmethod
    def parse(text: str) -> "Note":
        """Read a signed note. Raises ProofRefused where it departs from the format."""
        if len(text.encode("utf-8", "surrogatepass")) > MAXIMUM_BYTES:
            raise ProofRefused(f"the signed note is longer than {MAXIMUM_BYTES} bytes")
        if _CONTROL.search(text):
            raise ProofRefused("the signed note holds a control character")
        body, separator, signed = text.rpartition("\n\n")
        if not separator or not body or not signed.endswith("\n"):
            raise ProofRefused("this is no signed note: text, an empty line, and signature lines are expected")
        lines = signed[:-1].split("\n")
        if len(lines) > MAXIMUM_SIGNATURES:
            raise ProofRefused(f"the signed note has {len(lines)} signatures, more than {MAXIMUM_SIGNATURES}")
        return Note(body + "\n", tuple(parse_signature(line) for line in lines))


def parse_signature(line: str) -> Signature:
    """Read one signature line (with or without its newline). Raises ProofRefused if it is malformed."""
    parts = line.removesuffix("\n").split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not _NAME.fullmatch(parts[1]):
        raise ProofRefused(f"this is no signature line: {line[:80]!r}")
    raw = _decode(parts[2], f"the signature of {parts[1]}")
    if len(raw) < 5:
        raise ProofRefused(f"the signature of {parts[1]} is too short")
    return Signature(parts[1], raw[:4], raw[4:])


def sign_note(text: str, signer: Signer) -> Note:
    """Sign a text (ending in a newline) with type 0x01."""
    line = Signature(signer.name, signer.verifier.note_id(LOG_SIGNATURE), signer.sign(text.encode()))
    return Note(text, (line,))


def cosign(text: str, signer: Signer, *, at: int | None = None) -> Signature:
    """Cosign a checkpoint's text with type 0x04: as of now, the longest head that this witness has seen.

    at: POSIX seconds; the clock's time unless given.
    """
    seconds = int(time.time()) if at is None else at
    signed = signer.sign(_cosigned_message(text, seconds))
    return Signature(signer.name, signer.verifier.note_id(COSIGNATURE), struct.pack(">Q", seconds) + signed)


def check_signature(note: Note, verifier: Verifier) -> None:
    """Check that the log's key signed the note. Raises ProofRefused if its line is missing or wrong."""
    note_id = verifier.note_id(LOG_SIGNATURE)
    lines = [line for line in note.signatures if line.name == verifier.name and line.note_id == note_id]
    if not lines:
        raise ProofRefused(f"the head is not signed by the log's key {verifier.vkey(LOG_SIGNATURE)}")
    for line in lines:
        if not verifier.verify(line.signature, note.text.encode()):
            raise ProofRefused(f"the signature of {verifier.name} on the head is wrong")


def cosigners(note: Note, verifiers: Sequence[Verifier]) -> dict[str, int]:
    """Return who of these cosigned the note, and when (POSIX seconds).

    Lines of unknown keys are passed over, as the format demands; a wrong line of a known key raises ProofRefused.
    """
    known: Mapping[tuple[str, bytes], Verifier] = {(v.name, v.note_id(COSIGNATURE)): v for v in verifiers}
    found: dict[str, int] = {}
    for line in note.signatures:
        verifier = known.get((line.name, line.note_id))
        if verifier is not None:
            found[verifier.name] = check_cosignature(note.text, line, verifier)
    return found


def check_cosignature(text: str, line: Signature, verifier: Verifier) -> int:
    """Check one cosignature line of this key and return its time. Raises ProofRefused if it is wrong."""
    if line.name != verifier.name or line.note_id != verifier.note_id(COSIGNATURE):
        raise ProofRefused(f"the cosignature of {line.name} was not made with the key of {verifier.name}")
    if len(line.signature) != 72:
        raise ProofRefused(f"the cosignature of {line.name} has {len(line.signature)} bytes instead of 72")
    seconds = int(struct.unpack(">Q", line.signature[:8])[0])
    if seconds >= 1 << 63 or not verifier.verify(line.signature[8:], _cosigned_message(text, seconds)):
        raise ProofRefused(f"the cosignature of {line.name} is wrong")
    return seconds


@lru_cache(maxsize=1024)
def _key_id(raw: bytes) -> str:
    return f"ed25519:{hashlib.sha256(raw).hexdigest()}"


@lru_cache(maxsize=1024)
def _genuine(key: bytes, signature: bytes, message: bytes) -> bool:
    """Check a signature once where several members live in one process and look at the same ones."""
    return verified(key, signature, message)


def _cosigned_message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _decode(text: str, what: str) -> bytes:
    """Decode base64 of the one form that an encoder writes. Raises ProofRefused for any other."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProofRefused(f"{what} is not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise ProofRefused(f"{what} is not base64 as an encoder writes it")
    return raw
