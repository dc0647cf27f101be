"""Statements of members: what they cover, how they are signed, and when they are believed."""

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.signing import Signer, verified

Verify = Callable[[bytes, bytes, bytes], bool]
"""(public key, signature, statement) → whether it is genuine."""

_HEAD = struct.Struct(">QQQQQ")
HUB = "(hub)"  # the hub's own statements; no organisation can be called that


class Slot(NamedTuple):
    """Where a statement belongs: there is one of each member in each slot, ever."""

    epoch: int
    kind: wire.Kind
    number: int

    @property
    def step(self) -> str:
        """The step's name, for people."""
        known: dict[int, str] = {number: name for name, number in wire.Kind.items()}
        return known.get(self.kind, f"statement of kind {self.kind}").removeprefix("KIND_").lower()


class Untrusted(Exception):  # noqa: N818 - says what the statement is
    """A statement is not what its sender signed, or not what was asked for."""


@dataclass(frozen=True)
class Author:
    """A member that signs in one run."""

    run: str
    member: str
    signer: Signer

    def state(self, slot: Slot, body: bytes) -> wire.Envelope:
        """Sign a statement."""
        envelope = wire.Envelope(
            run=self.run, epoch=slot.epoch, kind=slot.kind, number=slot.number, member=self.member, body=body
        )
        envelope.signature = self.signer.sign(statement(envelope))
        return envelope


def statement(envelope: wire.Envelope) -> bytes:
    """Return what a signature covers: every field but the signature, each behind its length."""
    run, member = envelope.run.encode(), envelope.member.encode()
    head = _HEAD.pack(envelope.epoch, envelope.kind, envelope.number, len(run), len(member))
    return b"lepton/statement/1" + head + run + member + hashlib.sha256(envelope.body).digest()


def slot_of(envelope: wire.Envelope) -> Slot:
    """Return where the statement belongs."""
    return Slot(envelope.epoch, envelope.kind, envelope.number)


_AUTHENTICATED_OTHERWISE = (wire.KIND_UPLOAD, wire.KIND_FORM)
"""The digest of a long upload is signed again, by its own member, in the transcript, and nothing is done on its word
before that; a form carries an authenticator that the hub cannot make. Their signatures are kept as evidence."""


def check_all(
    envelopes: Sequence[wire.Envelope],
    *,
    run: str,
    slot: Slot,
    keys: Mapping[str, bytes],
    verify: Verify = verified,
    each: bool = False,
    own: wire.Envelope | None = None,
) -> dict[str, wire.Envelope]:
    """Take exactly one genuine statement of each member for this slot.

    keys: the members' public keys, as pinned in the manifest. each: verify every signature, also where another one
    would vouch later. own: what this member stated here itself: shown as it is, it needs no verification.
    Raises Untrusted, saying who is missing, who is not a member, or whose statement is not his.
    """
    found: dict[str, wire.Envelope] = {}
    for envelope in envelopes:
        if envelope.member not in keys:
            raise Untrusted(f"the hub shows a statement of {envelope.member!r}, which is not a member of run {run}")
        if envelope.member in found:
            raise Untrusted(f"the hub shows two statements of {envelope.member} for one step")
        if envelope.run != run or slot_of(envelope) != slot:
            raise Untrusted(
                f"the hub shows {envelope.member}'s statement of another step: {slot_of(envelope).step} "
                f"{envelope.number} of epoch {envelope.epoch} in {envelope.run}, not {slot.step} {slot.number} "
                f"of epoch {slot.epoch}"
            )
        otherwise = slot.kind in _AUTHENTICATED_OTHERWISE and not each
        genuine = otherwise or envelope == own or verify(keys[envelope.member], envelope.signature, statement(envelope))
        if not genuine:
            raise Untrusted(f"{envelope.member} did not sign the {slot.step} that the hub shows in its name")
        found[envelope.member] = envelope
    missing = sorted(keys.keys() - found.keys())
    if missing:
        raise Untrusted(f"the hub left out {', '.join(missing)} at {slot.step} {slot.number}")
    return found
