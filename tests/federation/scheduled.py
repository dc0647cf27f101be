"""Sums between threads whose members change as a schedule says: what a run at a hub is held against."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.sums import FinishedSum, SumAborted, Traffic


@dataclass
class Stage:
    """Who adds up, and after how many of its sums others take over; None: until the end."""

    members: tuple[str, ...]
    end: int | None = None


@dataclass
class Scheduled:
    """A federation under a schedule of members, and every total that it made."""

    stages: Sequence[Stage]
    totals: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    names: dict[tuple[int, int], str] = field(default_factory=dict)
    own: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    made: threading.Condition = field(default_factory=threading.Condition)

    def run(self, part: Callable[["ScheduledSums"], Any]) -> dict[str, Any]:
        """Run a part at every member in a thread of its own; a lost member's result is its SumAborted."""
        federations = [InProcessFederation(stage.members, allow_two_parties=True) for stage in self.stages]
        found: dict[str, Any] = {}

        def work(member: str) -> None:
            try:
                found[member] = part(ScheduledSums(self, federations, member))
            except SumAborted as error:
                found[member] = error

        everybody = sorted({name for stage in self.stages for name in stage.members})
        threads = [threading.Thread(target=work, args=(name,)) for name in everybody]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for federation in federations:
            federation.close()
        return found


class ScheduledSums:
    """One member's `Sums`. Who is not in a stage takes that stage's totals, as one that rejoins does."""

    def __init__(self, schedule: Scheduled, federations: Sequence[InProcessFederation], member: str) -> None:
        self.schedule, self.member, self.traffic = schedule, member, Traffic()
        self._ends = [federation.sums(member) if member in federation.members else None for federation in federations]
        self._stage = self._index = 0

    @property
    def parties(self) -> int:
        return len(self.schedule.stages[self._stage].members)

    @property
    def members_may_change(self) -> bool:
        return True

    @property
    def members_change(self) -> bool:
        return self._index == self.schedule.stages[self._stage].end

    def let_members_change(self) -> None:
        pass

    def start(self, name: str, vector: np.ndarray, *, bound: int, context: bytes = b"") -> FinishedSum:
        while self.members_change:
            self._stage, self._index = self._stage + 1, 0
        if all(sums is None for sums in self._ends[self._stage :]):
            raise SumAborted(f"{self.member} is lost")
        place, sums = (self._stage, self._index), self._ends[self._stage]
        self._index += 1
        made = self.schedule.made
        self.schedule.own[self.member, name] = vector.copy()
        if sums is not None:
            total = sums.sum(name, vector, bound=bound, context=context)
            with made:
                self.schedule.totals[place], self.schedule.names[place] = total, name
                made.notify_all()
        with made:
            assert made.wait_for(lambda: place in self.schedule.totals, 60)
            return FinishedSum(self.schedule.totals[place])

    def sum(self, name: str, vector: np.ndarray, *, bound: int, context: bytes = b"") -> np.ndarray:
        return self.start(name, vector, bound=bound, context=context).result()
