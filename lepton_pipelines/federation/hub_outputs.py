"""What the hub's state machine asks of the world: to write down, to let go, to answer. No I/O in here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lepton_pipelines.federation.effects import Reply
from lepton_pipelines.federation.envelope import Slot
from lepton_pipelines.federation.wire import federation_pb2 as wire


@dataclass(frozen=True)
class Keep:
    """To the hub's log: a statement, or the state that the run is in."""

    run: str
    envelope: wire.Envelope | None = None
    state: str = ""
    epoch: int = 0
    incarnations: Mapping[str, bytes] = field(default_factory=dict)
    reason: str = ""
    lost: tuple[str, ...] = ()
    evidence: bool = False
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Drop:
    """To the hub's log: statements of finished sums below this number are no longer needed to resume."""

    run: str
    below: int


@dataclass(frozen=True)
class Answer:
    """To one member, whose `Say` (in this slot) or `Join` (None) waits."""

    member: str
    asked: Slot | None
    reply: Reply


Output = Keep | Drop | Answer
