"""A member's sums in a run whose members can change: totals of earlier stages from disk, then the sums of now.

`succession.py` says which total comes from where; this module finds it: in the journals of the earlier stages, or, if
it is not held here, from whoever holds it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from lepton_pipelines.federation.effects import TotalHeld
from lepton_pipelines.federation.grpc_member import HubSums, PendingHubSum
from lepton_pipelines.federation.home_rules import RowGuard
from lepton_pipelines.federation.journal import RunJournal
from lepton_pipelines.federation.manifest import Manifest
from lepton_pipelines.federation.member_sum import same_plaintext
from lepton_pipelines.federation.succession import HELD, HELD_BOUND, Replay, handed_vector, handing, held_vector
from lepton_pipelines.federation.wire import federation_pb2 as wire
from lepton_pipelines.identity.private_files import write_private
from lepton_pipelines.sums import FinishedSum, Int64Array, SumAborted, Traffic

STAGE_FILE = "stage.json"  # in a stage's folder: what was said of earlier ones, and how many sums came before the run's
_MAY_CHANGE = "may-change"


class EarlierStage:
    """What is held here of a stage that has ended. folder: of its journal; empty where this member was not in it."""

    def __init__(self, folder: Path) -> None:
        self.journal = RunJournal(folder)
        path = folder / STAGE_FILE
        self.before = int(json.loads(path.read_bytes())["before"]) if path.exists() else 0

    @property
    def held(self) -> int:
        """How many of the algorithm's totals are held, from the first on."""
        return max(self.journal.done - self.before, 0)

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()


class StagedSums:
    """One member's `Sums` in a run at a hub, from its first stage to the one of now.

    live: the sums of now. earlier: folders of the stages before. folder: of the stage of now; root: of the first.
    """

    repeats = True

    def __init__(self, live: HubSums, earlier: Sequence[Path], *, folder: Path, root: Path) -> None:
        self.live, self._folder, self._root = live, folder, root
        self.traffic: Traffic = live.traffic
        self._earlier = [EarlierStage(path) for path in earlier]
        self._replay = Replay((), ())
        self._held = np.zeros((0, 0), np.int64)

    # ---- what it shares with the sums of now ----

    @property
    def guard(self) -> RowGuard | None:
        """Whom the rows are shown to first."""
        return self.live.guard

    @property
    def manifest(self) -> Manifest:
        """The manifest of now."""
        return self.live.manifest

    @property
    def parties(self) -> int:
        """How many members' vectors a total is made of now."""
        return self.live.parties

    @property
    def position(self) -> int:
        """How many sums were begun in this stage."""
        return self.live.position

    @property
    def ended(self) -> bool:
        """Whether there will be no more totals in this stage."""
        return self.live.ended

    def sent(self, since: int, until: int) -> dict[str, str]:
        """Return digests of masked uploads, by member. See `HubSums.sent`."""
        return self.live.sent(since, until)

    def status(self) -> wire.RunStatus:
        """Where the stage stands."""
        return self.live.status()

    def abort(self, reason: str) -> None:
        """End the run for every member, with a signed reason."""
        self.live.abort(reason)

    # ---- sums ----

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait until every member is here; then tell each other who holds which totals of earlier stages.

        Raises SumAborted if the run ends first, TimeoutError if the time is over.
        """
        self.live.wait_until_ready(timeout)
        manifest = self.manifest
        if not manifest.continues:
            return
        path = self._folder / STAGE_FILE
        # what was said once stays said: a sum that is repeated after a restart must have the same numbers
        said = json.loads(path.read_bytes())["held"] if path.exists() else [one.held for one in self._earlier]
        write_private(path, json.dumps({"held": said, "before": 1 << 40}).encode(), replace=True)
        vector = held_vector(manifest.names, self.live.member, said)
        self._held = self.live.sum(HELD, vector, bound=HELD_BOUND, context=manifest.digest())
        self._replay = Replay.read(self._held)
        before = 1 + len(self._replay.handed)
        write_private(path, json.dumps({"held": said, "before": before}).encode(), replace=True)

    @property
    def members_may_change(self) -> bool:
        """Whether all members signed for going on without one that is lost."""
        return self.manifest.when_lost == "go_on"

    @property
    def members_change(self) -> bool:
        """Whether the next sum is the first one of other members."""
        return self._replay.members_change

    def let_members_change(self) -> None:
        """Say that from here on the run can be gone on with by other members."""
        self._replay.may_change = True
        path = self._root / _MAY_CHANGE
        if not path.exists():
            write_private(path, b"")

    def start(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> FinishedSum | PendingHubSum:
        """Begin a sum, or find its total among those of earlier stages. See `lepton_pipelines.sums.Sums.start`."""
        place = self._next_place()
        if place is None:
            return self.live.start(name, vector, bound=bound, context=context)
        return FinishedSum(self._earlier_total(place, name, vector, bound, context))

    def sum(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> Int64Array:
        """Return `start(...).result()`."""
        place = self._next_place()
        if place is None:
            return self.live.sum(name, vector, bound=bound, context=context)
        return self._earlier_total(place, name, vector, bound, context)

    def _next_place(self) -> tuple[int, int] | None:
        try:
            return self._replay.next()
        except ValueError as error:
            raise self._aborted(f"run {self.manifest.root} cannot be gone on with: {error}. Start a new run") from error

    def finish(self, outcome: bytes) -> None:
        """End the run together. outcome: digest of the model; SumAborted if a member's is another."""
        while self._replay.members_change:
            self._replay.next()
        if not self._replay.live:
            raise self._aborted(f"{self.live.member} ended run {self.manifest.root} with fewer sums than the others")
        self.live.finish(outcome)

    def close(self) -> None:
        """Hang up without ending the run."""
        self.live.close()
        for one in self._earlier:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.__exit__(kind, error, traceback)
        for one in self._earlier:
            one.close()

    def _earlier_total(
        self, place: tuple[int, int], name: str, vector: Int64Array, bound: int, context: bytes
    ) -> Int64Array:
        stage, index = place
        one, names = self._earlier[stage], self.manifest.names
        number = one.before + index
        commitment = one.journal.commitment(name)
        if commitment is not None:
            changed = same_plaintext(commitment, number, vector, bound, context)
            if changed:
                raise self._aborted(changed)
        mine = one.journal.total(number) if self._held[names.index(self.live.member), stage] > index else None
        if mine is None and self._held[names.index(self.live.member), stage] > index:
            raise self._aborted(f"the total of sum {name!r} was written down and cannot be read any more")
        if not self._replay.is_handed(place):
            assert mine is not None  # noqa: S101 - everybody holds it
            return mine
        given = handed_vector(self._held, names, self.live.member, place, vector.shape, lambda: _there(mine))
        total = self.live.sum(handing(stage, index), given, bound=bound, context=context)
        if mine is not None and not np.array_equal(mine, total):
            raise self._aborted(f"another member hands around another total of sum {name!r} than stands here")
        if mine is None:
            one.journal.write_small([TotalHeld(number, total)])
        return total

    def _aborted(self, reason: str) -> SumAborted:
        self.live.abort(reason)
        return SumAborted(f"{self.live.member}: {reason}")


def may_change(root: Path) -> bool:
    """Whether a run came as far as its first tree here. root: the folder of its first stage."""
    return (root / _MAY_CHANGE).exists()


def _there(total: Int64Array | None) -> Int64Array:
    if total is None:
        raise ValueError("a total that is not held was to be handed around")
    return total
