"""What the state machines ask of the world, and what the world tells them. No I/O in here.

A member asks to say, to write and to deliver; the hub answers. Production answers with gRPC and SQLite, the simulator
with a virtual network and disk: the machines cannot tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lepton_pipelines.federation.envelope import Slot
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.sums import Int64Array


@dataclass(frozen=True)
class Commitment:
    """What a member writes ahead of a sum: which sum it is, and a salted digest of the plaintext."""

    number: int
    name: str
    shape: tuple[int, ...]
    bound: int
    context: bytes
    salt: bytes = field(repr=False)
    plaintext: bytes


@dataclass(frozen=True)
class EpochOpened:
    """A member writes down the epoch before it shows keys for it: it never shows two keys for one epoch."""

    epoch: int


@dataclass(frozen=True)
class TotalHeld:
    """A verified total, kept so that a restart need not ask the others to repeat the sum."""

    number: int
    total: Int64Array


Record = Commitment | EpochOpened | TotalHeld


class Journal(Protocol):
    """What a member finds again after a restart."""

    @property
    def epoch(self) -> int:
        """The highest epoch that was written down; 0 if none was."""
        ...

    @property
    def done(self) -> int:
        """Number of the first sum whose total is not held."""
        ...

    @property
    def next_number(self) -> int:
        """Number after the last sum that was committed to; 0 if none was."""
        ...

    def commitment(self, name: str) -> Commitment | None:
        """What was written ahead of the sum of this name."""
        ...

    def total(self, number: int) -> Int64Array | None:
        """The total of this sum, if it is held."""
        ...


@dataclass(frozen=True)
class Join:
    """To the hub: this member's process is here (anew, if the incarnation is)."""

    run: str
    member: str
    incarnation: bytes
    after_epoch: int


@dataclass(frozen=True)
class Say:
    """To the hub: a statement, for upload steps with the masked vector. Answered when everyone's is there.

    digest: SHA-256 of the data, where the hub's driver has worked it out already.
    """

    envelope: wire.Envelope
    data: bytes | bytearray = field(default=b"", repr=False)
    digest: bytes = b""


@dataclass(frozen=True)
class Write:
    """To the disk: make the record durable, then say `written(token)`."""

    token: int
    record: Record


@dataclass(frozen=True)
class Deliver:
    """To the caller: the total of a sum."""

    number: int
    total: Int64Array = field(repr=False)


@dataclass(frozen=True)
class Stop:
    """To the caller: there will be no more totals. suspended: the same members can resume."""

    reason: str
    suspended: bool = False


@dataclass(frozen=True)
class Finished:
    """To the caller: every member has ended the run with the same outcome."""


Effect = Join | Say | Write | Deliver | Stop | Finished


@dataclass(frozen=True)
class Reply:
    """The hub's answer to one member's `Say` or `Join`.

    slot: which statement is answered; None for a `Join`.
    """

    status: wire.Status
    epoch: int
    slot: Slot | None = None
    envelopes: Sequence[wire.Envelope] = ()
    answer: bytes | bytearray = field(default=b"", repr=False)
    missing: tuple[str, ...] = ()
    reason: str = ""
    seconds_left: float = 0.0
    abort: wire.Envelope | None = None
