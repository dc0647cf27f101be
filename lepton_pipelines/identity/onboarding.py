"""How an organisation and a hub come to know each other: two files, two fingerprints compared by people.

The organisation writes a request (public halves, signed), the hub's operator compares its fingerprint with what the
organisation says over another channel and answers with an admission, whose fingerprint the organisation compares in
turn. Neither file is secret; without the comparison neither is believed.
"""

import hashlib
import json
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_pipelines.identity.signing import Signer, verified
from lepton_pipelines.spec.errors import UserError

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_LARGEST = 1 << 16
_Model = TypeVar("_Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(_Strict):
    """What an organisation asks a hub to certify: its name, its identity key, a TLS request."""

    version: int = 1
    organisation: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    signing_key: Hex32
    certificate_request: str = Field(max_length=10_000)
    signature: str = Field(default="", max_length=200)

    @property
    def fingerprint(self) -> str:
        """What people compare: it covers the name and the identity key."""
        return fingerprint("organisation", self.organisation, self.signing_key)

    def statement(self) -> bytes:
        """What the signature covers."""
        return _statement("lepton/request/1", self.organisation, self.signing_key, self.certificate_request)

    def signed(self, signer: Signer) -> "Request":
        """Return it with the organisation's signature."""
        return self.model_copy(update={"signature": signer.sign(self.statement()).hex()})


class Admission(_Strict):
    """What a hub answers: its address and authority, its identity key, the organisation's certificate."""

    version: int = 1
    organisation: str
    signing_key: Hex32
    address: str = Field(pattern=r"^[^\s:/]+:[0-9]{1,5}$")
    hub_key: Hex32
    authority: str = Field(max_length=10_000)
    certificate: str = Field(max_length=10_000)
    signature: str = Field(default="", max_length=200)

    @property
    def fingerprint(self) -> str:
        """What people compare: it covers the hub's identity key and its authority."""
        return hub_fingerprint(self.hub_key, self.authority)

    def statement(self) -> bytes:
        """What the signature covers."""
        fields = (self.organisation, self.signing_key, self.address, self.hub_key, self.authority, self.certificate)
        return _statement("lepton/admission/1", *fields)

    def signed(self, signer: Signer) -> "Admission":
        """Return it with the hub's signature."""
        return self.model_copy(update={"signature": signer.sign(self.statement()).hex()})


def read_request(data: bytes) -> Request:
    """Read a request. Raises UserError if it is not one, or not signed by the key that it names."""
    request = _read(Request, data, "request")
    if not verified(bytes.fromhex(request.signing_key), _bytes(request.signature), request.statement()):
        raise UserError(f"the request of {request.organisation} is not signed by its own key. Ask for a new one.")
    return request


def read_admission(data: bytes) -> Admission:
    """Read an admission. Raises UserError if it is not one, or not signed by the hub key that it names."""
    admission = _read(Admission, data, "admission")
    if not verified(bytes.fromhex(admission.hub_key), _bytes(admission.signature), admission.statement()):
        raise UserError("the admission is not signed by the hub that it names. Ask the hub's operator for a new one.")
    return admission


def hub_fingerprint(hub_key: str, authority: str) -> str:
    """The hub's fingerprint, as its operator reads it out."""
    return fingerprint("hub", hub_key, hashlib.sha256(authority.encode()).hexdigest())


def fingerprint(*parts: str) -> str:
    """SHA-256 over the parts as 16 groups of four hexadecimal digits."""
    digest = hashlib.sha256(_statement("lepton/fingerprint/1", *parts)).hexdigest()
    return " ".join(digest[i : i + 4] for i in range(0, 64, 4))


def compare_fingerprints(*, shown: str, told: str, whose: str) -> None:
    """Raise UserError unless the fingerprint that a person was told is the one of the file."""
    if _digits(shown) != _digits(told):
        raise UserError(
            f"the fingerprint of {whose} is\n  {shown}\nand you were told\n  {told}\nThese keys differ: somebody "
            "may stand between you. Do not go on before you know why."
        )


def _digits(text: str) -> str:
    return "".join(text.lower().replace(":", "").replace("-", "").split())


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _statement(*parts: str) -> bytes:
    return b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)


def _read(kind: type[_Model], data: bytes, what: str) -> _Model:
    if len(data) > _LARGEST:
        raise UserError(f"the {what} has {len(data)} bytes: it is refused unread.")
    try:
        return kind.model_validate(json.loads(data))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or what}: {p['msg']}" for p in error.errors())
        raise UserError(f"the {what} is refused: {problems}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"the {what} is not JSON ({error}).") from error
