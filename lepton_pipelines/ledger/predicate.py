"""What every entry has, and the types that its fields are made of.

No personal data: names are those of organisations, products, runs and models, whose form leaves no room for more, and
reasons are short and looked through. No count below the disclosure limit. Everything else is a digest or a commitment.
"""

import base64
import binascii
import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

DISCLOSURE_LIMIT = 20
MAXIMUM_SAFE_INTEGER = (1 << 53) - 1
TYPE_PREFIX = "urn:lepton:ledger:"

_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_PERSONAL = re.compile(r"\S@\S+\.\S|\d[\d ./-]{6,}\d")


def _impersonal(text: str) -> str:
    if _PERSONAL.search(_DATE.sub("", text)):
        raise ValueError(
            "looks like an address or a number of a person (an e-mail, a telephone or an account number); "
            "the ledger is never erased: say it without"
        )
    return text


def _whole_key(text: str) -> str:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64") from error
    if len(raw) != 32 or base64.b64encode(raw).decode() != text:
        raise ValueError("is not the base64 of an Ed25519 key's 32 bytes")
    return text


def pattern(expression: str) -> StringConstraints:
    """Constrain a string to a regular expression as a whole."""
    return StringConstraints(pattern=f"^{expression}$")


Sha256 = Annotated[str, pattern("[0-9a-f]{64}")]
Organisation = Annotated[str, pattern("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")]
Name = Annotated[str, pattern("[A-Za-z0-9][A-Za-z0-9._-]{0,126}")]
ProductId = Annotated[str, pattern("[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[A-Za-z0-9][A-Za-z0-9._-]{0,126}")]
KeyId = Annotated[str, pattern("ed25519:[0-9a-f]{64}")]
Commitment = Annotated[str, pattern("hmac-sha256:[0-9a-f]{64}")]
Time = Annotated[str, pattern("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")]
Line = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(_impersonal)]
Reason = Annotated[Line, StringConstraints(max_length=300)]
Purpose = Annotated[Line, StringConstraints(max_length=120)]
Release = Annotated[str, pattern("[0-9A-Za-z][0-9A-Za-z.+!_-]{0,63}")]
Rows = Annotated[int, Field(ge=DISCLOSURE_LIMIT, le=MAXIMUM_SAFE_INTEGER)]
Metric = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """Strict and closed: an unknown field is an error, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PublicKey(Part):
    """A key and the algorithm that it is for; the next algorithm gets a name of its own here."""

    algorithm: Literal["ed25519"] = "ed25519"
    public_key: Annotated[str, AfterValidator(_whole_key)]

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the key."""
        return base64.b64decode(self.public_key)

    @staticmethod
    def of(raw: bytes) -> "PublicKey":
        """Describe a key by its 32 bytes."""
        return PublicKey(public_key=base64.b64encode(raw).decode())


class Author(Part):
    """Who says it: an organisation, or the operator of the log, and the key that it signs with."""

    organisation: Organisation
    key: KeyId


class Predicate(Part):
    """What every entry has. `ledger` and `id` make an entry good for one ledger and for one time only.

    ledger: the log's origin. id: 128 random bits. time: the author's clock, UTC. author: who signs.
    """

    KIND: ClassVar[str]

    ledger: Annotated[str, pattern("[a-z0-9][a-z0-9._/-]{0,199}")]
    id: Annotated[str, pattern("[0-9a-f]{32}")]
    time: Time
    author: Author

    def subjects(self) -> list[tuple[str, str]]:
        """What the statement is about: names and SHA-256 digests, at least one."""
        raise TypeError(f"{type(self).__name__} is no kind of entry")


def fresh(author: str, key_id: str, ledger: str) -> dict[str, Any]:
    """Return the fields that every entry has, for one that is written now."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "ledger": ledger,
        "id": secrets.token_hex(16),
        "time": now,
        "author": Author(organisation=author, key=key_id),
    }


def disclosed(rows: int, limit: int = DISCLOSURE_LIMIT) -> int | None:
    """Return a number of rows as it may stand in the ledger: None below the disclosure limit."""
    return rows if rows >= max(limit, DISCLOSURE_LIMIT) else None


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
