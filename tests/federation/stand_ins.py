"""What stands in for a member's key and disk in the simulators, and what watches its masks."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from lepton_pipelines.federation import member_sum
from lepton_pipelines.federation.effects import Commitment, EpochOpened, TotalHeld


class Signature:
    """A stand-in for Ed25519 that a simulation can afford: a keyed hash, checked by whoever knows all keys."""

    secrets: dict[bytes, bytes] = {}  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.secret = hashlib.blake2b(name.encode(), digest_size=32).digest()
        self.public = hashlib.blake2b(self.secret, digest_size=32).digest()
        self.secrets[self.public] = self.secret

    def sign(self, statement: bytes) -> bytes:
        return hashlib.blake2b(statement, key=self.secret).digest()

    @classmethod
    def verify(cls, public: bytes, signature: bytes, statement: bytes) -> bool:
        return hashlib.blake2b(statement, key=cls.secrets[public]).digest() == signature


@dataclass
class Disk:
    """What survives a member's crash."""

    epoch: int = 0
    commitments: dict[str, Commitment] = field(default_factory=dict)
    totals: dict[int, np.ndarray] = field(default_factory=dict)
    checkpoints: list[tuple[int, bytes]] = field(default_factory=lambda: [(0, b"start")])
    failing: bool = False

    @property
    def done(self) -> int:
        number = 0
        while number in self.totals:
            number += 1
        return number

    @property
    def next_number(self) -> int:
        return 1 + max((one.number for one in self.commitments.values()), default=-1)

    def commitment(self, name: str) -> Commitment | None:
        return self.commitments.get(name)

    def total(self, number: int) -> np.ndarray | None:
        return self.totals.get(number)

    def write(self, record: object) -> None:
        match record:
            case Commitment():
                assert record.name not in self.commitments, "a commitment was written twice"
                self.commitments[record.name] = record
            case EpochOpened():
                self.epoch = record.epoch
            case TotalHeld():
                self.totals[record.number] = record.total


class MaskUsedTwiceError(AssertionError):
    """A mask met a second plaintext: their difference can be read off."""


@contextlib.contextmanager
def masks_watched() -> Iterator[None]:
    """Record every key that masks a vector, and fail if one ever masks two."""
    used: dict[bytes, bytes] = {}
    original = member_sum.masked_parts

    def watched(vector: np.ndarray, layout: object, *, add: tuple[bytes, ...], subtract: tuple[bytes, ...]) -> object:
        plaintext = hashlib.sha256(vector.tobytes()).digest()
        for sign, keys in (b"+", add), (b"-", subtract):
            for key in keys:
                if used.setdefault(sign + key, plaintext) != plaintext:
                    raise MaskUsedTwiceError("a mask met a second plaintext")
        return original(vector, layout, add=add, subtract=subtract)

    member_sum.masked_parts = watched
    try:
        yield
    finally:
        member_sum.masked_parts = original
