"""DSSE envelopes: a payload and who signed it, in the form that is a leaf of the log.

The signature covers DSSE's pre-authentication encoding, so it cannot be taken for one of another kind. The envelope
itself is RFC 8785 JSON with exactly the fields of DSSE: one statement under one set of signatures has one form.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lepton_pipelines.ledger.errors import EntryRefused
from lepton_pipelines.ledger.note import Signer, Verifier

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_KEY_ID = re.compile("[a-z0-9-]{1,32}:[0-9a-f]{64}")
_SIGNATURE = r'\{"keyid":"([a-z0-9-]{1,32}:[0-9a-f]{64})","sig":"([A-Za-z0-9+/]+={0,2})"\}'
_SIGNATURES = re.compile(_SIGNATURE.encode())
_CANONICAL = re.compile(
    rf'\{{"payload":"([A-Za-z0-9+/]+={{0,2}})","payloadType":"{re.escape(PAYLOAD_TYPE)}",'
    rf'"signatures":\[({_SIGNATURE}(?:,{_SIGNATURE})*)\]\}}'.encode()
)


@dataclass(frozen=True)
class Envelope:
    """A payload and its signatures: key id → 64 bytes."""

    payload: bytes
    signatures: Mapping[str, bytes]

    def pack(self) -> bytes:
        """Write the envelope as it becomes a leaf."""
        signatures = ",".join(
            f'{{"keyid":"{key}","sig":"{_base64(sig)}"}}' for key, sig in sorted(self.signatures.items())
        )
        payload = _base64(self.payload)
        return f'{{"payload":"{payload}","payloadType":"{PAYLOAD_TYPE}","signatures":[{signatures}]}}'.encode()

    def check(self, verifier: Verifier) -> None:
        """Check the signature of this key. Raises EntryRefused if it is missing or wrong."""
        signature = self.signatures.get(verifier.key_id)
        if signature is None:
            raise EntryRefused(f"the entry is not signed by {verifier.name} ({verifier.key_id[:24]}…)")
        if not verifier.verify(signature, encode_for_signing(self.payload)):
            raise EntryRefused(f"the entry is forged: the signature of {verifier.name} is wrong")

    @staticmethod
    def unpack(data: bytes) -> "Envelope":
        """Read a leaf. Raises EntryRefused if it is not an envelope in the one form that it may have."""
        envelope = _read_canonical(data) or Envelope._read_any(data)
        if envelope.pack() != data:
            raise EntryRefused("the envelope is not in the canonical form of RFC 8785, its signatures in order")
        return envelope

    @staticmethod
    def _read_any(data: bytes) -> "Envelope":
        """Read an envelope however its JSON is written, and say what is wrong with it if it is none."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise EntryRefused(f"the entry is not JSON: {error}") from error
        if not isinstance(value, dict) or value.keys() != {"payload", "payloadType", "signatures"}:
            raise EntryRefused("the entry is no DSSE envelope: payload, payloadType and signatures are expected")
        if value["payloadType"] != PAYLOAD_TYPE:
            raise EntryRefused(f"the envelope holds {str(value['payloadType'])[:80]!r}, expected {PAYLOAD_TYPE}")
        given = value["signatures"]
        if not isinstance(given, list) or not given:
            raise EntryRefused("the envelope is not signed")
        return Envelope(_bytes(value["payload"], "the payload"), dict(map(_signature, given)))


def seal(payload: bytes, signers: Sequence[Signer]) -> Envelope:
    """Sign a payload with every key."""
    message = encode_for_signing(payload)
    return Envelope(payload, {signer.verifier.key_id: signer.sign(message) for signer in signers})


def encode_for_signing(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding (PAE) of the payload: what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _read_canonical(data: bytes) -> Envelope | None:
    """Read an envelope that looks canonical, three times as fast as its JSON is parsed; None if it does not."""
    found = _CANONICAL.fullmatch(data)
    if found is None:
        return None
    given = _SIGNATURES.findall(found[2])
    signatures = {key.decode(): _bytes(signature, "a signature") for key, signature in given}
    return Envelope(_bytes(found[1], "the payload"), signatures)


def _signature(value: Any) -> tuple[str, bytes]:
    if not isinstance(value, dict) or value.keys() != {"keyid", "sig"}:
        raise EntryRefused("a signature in the envelope is malformed: keyid and sig are expected")
    if not isinstance(value["keyid"], str) or not _KEY_ID.fullmatch(value["keyid"]):
        raise EntryRefused("a signature in the envelope has no key id of the form algorithm:SHA-256")
    return value["keyid"], _bytes(value["sig"], "a signature")


def _bytes(value: Any, what: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise EntryRefused(f"{what} in the envelope is not base64") from error


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
