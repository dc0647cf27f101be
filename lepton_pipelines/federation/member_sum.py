"""One sum at one member: its plaintext, its masks, and what was seen of the others. No I/O."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.poly1305 import Poly1305

from lepton_pipelines.federation.announcement import Announcement
from lepton_pipelines.federation.effects import Commitment
from lepton_pipelines.federation.envelope import Untrusted
from lepton_pipelines.federation.keys import KeyEpoch, MaskKeys, expand, mask_keys
from lepton_pipelines.federation.manifest import Manifest
from lepton_pipelines.federation.secure_sum import (
    CHALLENGE_BYTES,
    Cells,
    Layout,
    Packed,
    SecureSumError,
    add_up,
    forms_agree,
    lay_out,
    linear_form,
    masked_parts,
    pack,
    unmask,
    unpack,
    unpacked_parts,
)
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.sums import Int64Array


@dataclass
class MemberSum:
    """A sum from its announcement to its total.

    token: of the write-ahead that is still under way, 0 when it is durable. agreed: everybody announced the same.
    """

    commitment: Commitment
    vector: Int64Array = field(repr=False)
    total: Int64Array | None = field(default=None, repr=False)
    token: int = 0
    agreed: bool = False
    announcement: Announcement | None = None
    packed: bytes | bytearray = field(default=b"", repr=False)
    _layout: Layout | None = None
    _keys: MaskKeys | None = field(default=None, repr=False)
    _digest: bytes = b""
    _answer: bytes | bytearray = field(default=b"", repr=False)
    _transcript: wire.Transcript | None = None
    _challenge: bytes = b""

    @property
    def number(self) -> int:
        """Position in the run."""
        return self.commitment.number

    @property
    def name(self) -> str:
        """The sum's name."""
        return self.commitment.name

    @property
    def layout(self) -> Layout:
        """How its vectors travel; there once it was announced."""
        assert self._layout is not None  # noqa: S101
        return self._layout

    def reset(self) -> None:
        """Forget everything of the last epoch but the plaintext and, if it was reached, the total."""
        self.agreed, self.announcement = False, None
        self.packed, self._keys, self._digest, self._transcript, self._challenge = b"", None, b"", None, b""
        self._answer = b""

    def announce(self, manifest: Manifest, epoch: int, keys: KeyEpoch, member: str) -> wire.Announce:
        """Return what this member says that it is about to add up, sealed for the members."""
        commitment = self.commitment
        self.announcement = Announcement(
            run=manifest.run,
            number=commitment.number,
            name=commitment.name,
            shape=commitment.shape,
            bound=commitment.bound,
            context=commitment.context,
            members=manifest.names,
            epoch=epoch,
        )
        self._layout = lay_out(self.announcement.values, commitment.bound, len(manifest.names))
        self._keys = mask_keys(member, keys.pairs, keys.group, self.announcement)
        sealed = keys.seal_announcement(self.announcement)
        return wire.Announce(cells=self._layout.cells, width=self._layout.width, sealed=sealed)

    def upload(self, member: str, keys: KeyEpoch) -> tuple[wire.Upload, bytes | bytearray]:
        """Mask the vector. Called once an epoch: the masks' keys are dropped with it."""
        if self._keys is None or self.packed or self._digest:
            raise SecureSumError(f"sum {self.name!r} would use its masks twice in one epoch")
        parts = masked_parts(self.vector, self.layout, add=self._keys.add, subtract=self._keys.subtract)
        self._keys = MaskKeys((), (), self._keys.group)
        self.packed = pack(parts, self.layout)
        self._digest = hashlib.sha256(self.packed).digest()
        return self.uploaded()

    def uploaded(self) -> tuple[wire.Upload, bytes | bytearray]:
        """Return the same statement and the same bytes again."""
        layout = self.layout
        body = wire.Upload(digest=self._digest, size=layout.size, cells=layout.cells, width=layout.width)
        return body, self.packed

    def add_up(self, member: str, uploads: Mapping[str, wire.Upload], answer: bytes | bytearray) -> Int64Array:
        """Add up the members' own uploads, all of which the hub showed, and unmask and return the total.

        uploads: what each member has signed, signatures verified. answer: the uploads' bytes, in the members' order.
        Raises Untrusted for bytes that their member did not sign for; SecureSumError and BoundExceeded as `conclude`.
        """
        size, names = self.layout.size, sorted(uploads)
        if len(answer) != size * len(names):
            raise Untrusted(
                f"the hub's answer to sum {self.name!r} has {len(answer)} bytes, not {size} of each of {len(names)}"
            )
        vectors = []
        for place, name in enumerate(names):
            data = memoryview(answer)[place * size : (place + 1) * size]
            if hashlib.sha256(data).digest() != uploads[name].digest:
                raise Untrusted(f"the hub shows other bytes of {name} in sum {self.name!r} than {name} signed for")
            vectors.append(unpack(data, self.layout))
        if uploads[member].digest != self._digest:
            raise Untrusted(f"the hub shows another upload of {member} to sum {self.name!r} than {member} sent")
        return self._unmasked(add_up(vectors))

    def transcribe(self, uploads: Mapping[str, wire.Upload], answer: bytes | bytearray) -> None:
        """Write down what was sent and what the hub answered, for everyone to compare."""
        if len(answer) != self.layout.size:
            raise Untrusted(f"the hub's answer to sum {self.name!r} has {len(answer)} bytes, not {self.layout.size}")
        self._transcript = wire.Transcript(
            uploads={member: upload.digest for member, upload in uploads.items()},
            answer=hashlib.sha256(answer).digest(),
        )
        self._answer = answer

    def transcribed(self) -> bytes:
        """Return the transcript as it is signed."""
        assert self._transcript is not None  # noqa: S101
        encoded: bytes = self._transcript.SerializeToString(deterministic=True)
        return encoded

    def compare_transcripts(self, member: str, transcripts: Mapping[str, wire.Transcript]) -> None:
        """Raise Untrusted if anybody saw other uploads or another answer, or if one's own upload was not shown."""
        assert self._transcript is not None  # noqa: S101
        if self._transcript.uploads.get(member) != self._digest:
            raise Untrusted(f"the hub shows another upload of {member} to sum {self.name!r} than {member} sent")
        for other, transcript in transcripts.items():
            if transcript.answer != self._transcript.answer:
                raise Untrusted(f"the hub gave {other} another total of sum {self.name!r} than {member}")
            if dict(transcript.uploads) != dict(self._transcript.uploads):
                raise Untrusted(f"the hub showed {other} other uploads to sum {self.name!r} than {member}")

    def prove(self, member: str, keys: KeyEpoch, everything: bytes) -> wire.Form:
        """Derive the challenge from what everyone has signed, and evaluate one's own upload at it.

        The group key goes into the challenge: the hub can neither foresee it nor try changes until one fits.
        """
        self._challenge = expand(keys.group, b"lepton/challenge/1", everything)[:CHALLENGE_BYTES]
        value = linear_form(self._challenge, unpacked_parts(self.packed, self.layout)).to_bytes(16, "little")
        return wire.Form(value=value, authenticator=keys.authenticate_form(member, self.number, self._challenge, value))

    def conclude(self, keys: KeyEpoch, forms: Mapping[str, wire.Form]) -> Int64Array:
        """Check the forms against the answer, unmask it and return the total.

        Raises Untrusted for a form that its member did not make, SecureSumError for an answer that is not the sum,
        BoundExceeded for a total beyond the bound.
        """
        assert self.announcement is not None and self._keys is not None  # noqa: S101,PT018
        for member, form in forms.items():
            genuine = keys.authenticate_form(member, self.number, self._challenge, form.value)
            if form.authenticator != genuine or len(form.value) != 16:
                raise Untrusted(f"the hub shows a form of {member} for sum {self.name!r} that {member} did not make")
        blocks = self.layout.padded * self.layout.dtype.itemsize // 16
        answer = linear_form(self._challenge, unpacked_parts(self._answer, self.layout))
        values = [int.from_bytes(forms[member].value, "little") for member in sorted(forms)]
        if not forms_agree(self._challenge, values, answer, blocks):
            raise SecureSumError(f"the hub's answer to sum {self.name!r} is not the sum of what the members sent")
        return self._unmasked(self._answer)

    def _unmasked(self, answer: Cells | Packed) -> Int64Array:
        assert self.announcement is not None and self._keys is not None  # noqa: S101,PT018
        total = unmask(
            answer,
            self.layout,
            subtract=self._keys.group,
            shape=self.announcement.shape,
            bound=self.announcement.bound,
            members=len(self.announcement.members),
        )
        if self.total is None:
            self.total, self.vector = total, self.vector.copy()
        self.packed, self._answer, self._keys = b"", b"", None
        return total


def commit(number: int, name: str, vector: Int64Array, bound: int, context: bytes, *, salt: bytes) -> Commitment:
    """Return what is written ahead of a sum. salt: 16 random bytes, so that the digest does not give a guess away."""
    return Commitment(number, name, vector.shape, bound, context, salt, _plaintext(salt, vector))


def same_plaintext(before: Commitment, number: int, vector: Int64Array, bound: int, context: bytes) -> str | None:
    """Say what differs from what was committed to before; None if nothing does."""
    sum_ = f"sum {before.name!r} was begun before a restart"
    if before.number != number:
        return f"{sum_} as number {before.number}, now it is number {number}. Resume from the checkpoint before it"
    if before.context != context:
        return f"{sum_} from another model state. Resume from the run's own checkpoint"
    if before.shape != vector.shape or before.bound != bound:
        return (
            f"{sum_} with shape {before.shape} and bound {before.bound}, now they are {vector.shape} and {bound}. "
            "The spec or the code changed: start a new run"
        )
    if before.plaintext != _plaintext(before.salt, vector):
        return (
            f"{sum_} with other numbers. The rows changed in between, and sending both would show their difference: "
            "restore the source as it was, or start a new run"
        )
    return None


def _plaintext(salt: bytes, vector: Int64Array) -> bytes:
    """A tag of the vector under a key that is drawn for it: equal for another vector with probability 2^-80 at most.

    It stays at home and is compared at home, with what one's own source gives after a restart; SHA-256 would take
    longer than masking.
    """
    key = hashlib.sha256(b"lepton/plaintext/2" + salt).digest()
    return Poly1305.generate_tag(key, np.ascontiguousarray(vector).reshape(-1).view(np.uint8).data)
