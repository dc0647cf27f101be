"""Going on without a member that was lost, or with one that came back: which manifest follows, and what is kept.

It leaks, so it happens only if every member signed for it beforehand (`when_lost: go_on`); docs/security.md says what
and with which numbers. The members that are there sign a new manifest, which names all manifests before it: a *stage*.
Everything that was added up in earlier stages stays as it is. The first sums of a stage tell who holds how many totals
of the earlier ones, and hand totals that somebody lacks to everyone; then each member trains again from the first sum
on, out of the totals that it holds, and closes the tree that was begun where the earlier stage ended. No sum that
anyone holds the total of is made again with other members. No I/O in here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lepton_pipelines.federation.manifest import Manifest, Stage
from lepton_pipelines.sums import Int64Array

HELD = "stage/held"  # name of a stage's first sum
HELD_BOUND = 1 << 40
MOST_STAGES = 16


def following(root: Manifest, latest: Manifest, lost: Sequence[str], returning: Sequence[str]) -> Manifest:
    """Return the manifest with which a run goes on: without `lost`, with those of `returning` who were in it at first.

    root: the manifest that the run began with. latest: the one whose stage has ended.
    Raises ValueError, saying why, if root does not allow it.
    """
    names = (set(latest.names) - set(lost)) | (set(returning) & set(root.names))
    if root.when_lost != "go_on":
        raise ValueError("its members did not sign for going on with other members")
    if len(names) < root.minimum_members:
        raise ValueError(f"{len(names)} members are left, and it needs {root.minimum_members} to go on")
    if len(latest.continues) + 1 >= MOST_STAGES:
        raise ValueError(f"its members have changed {MOST_STAGES - 1} times already")
    before = (*latest.continues, Stage(run=latest.run, manifest=latest.digest().hex()))
    changes = {
        "run": f"{root.run}.{len(before)}",
        "members": tuple(member for member in root.members if member.name in names),
        "continues": before,
    }
    return Manifest.model_validate({**root.model_dump(), **changes})


def misfit(root: Manifest, manifest: Manifest) -> str:
    """Say in what a manifest does not go on from the one that was signed for at first; empty if it does."""
    if not manifest.continues or manifest.continues[0] != Stage(run=root.run, manifest=root.digest().hex()):
        return f"it does not go on from the manifest of run {root.run} that was signed here"
    try:
        expected = following(root, root.model_copy(update={"continues": manifest.continues[:-1]}), (), ())
    except ValueError as error:
        return str(error)
    own = {"members": manifest.members, "continues": manifest.continues}
    if expected.model_copy(update=own) != manifest:
        return f"it changes more of the manifest of run {root.run} than its members"
    strangers = [member.name for member in manifest.members if member not in root.members]
    if strangers:
        return f"{', '.join(strangers)} did not sign the manifest of run {root.run}"
    if len(manifest.members) < root.minimum_members:
        return f"it has {len(manifest.members)} members, run {root.run} needs {root.minimum_members} to go on"
    return ""


@dataclass
class Replay:
    """Where a member stands that trains again out of the totals of earlier stages.

    ends: of each earlier stage, how many of the algorithm's totals somebody holds: so many count. common: how many
    everybody holds; those between are handed around.
    """

    ends: Sequence[int]
    common: Sequence[int]
    stage: int = 0
    index: int = 0
    may_change: bool = field(default=False)

    @classmethod
    def read(cls, held: Int64Array) -> "Replay":
        """Read the total of a stage's first sum: int64, (members, earlier stages)."""
        return cls([int(most) for most in held.max(axis=0)], [int(least) for least in held.min(axis=0)])

    @property
    def live(self) -> bool:
        """Whether all totals of earlier stages were taken."""
        return self.stage == len(self.ends)

    @property
    def members_change(self) -> bool:
        """Whether the next sum is the first one of another stage."""
        return not self.live and self.index == self.ends[self.stage]

    def is_handed(self, place: tuple[int, int]) -> bool:
        """Whether somebody lacks a total. place: its stage and index."""
        return self.common[place[0]] <= place[1]

    @property
    def handed(self) -> list[tuple[int, int]]:
        """Totals that somebody lacks, by stage and index, in the order in which they are handed around."""
        return [(s, i) for s in range(len(self.ends)) for i in range(self.common[s], self.ends[s])]

    def next(self) -> tuple[int, int] | None:
        """Return the stage and index of the next sum's total; None if it is to be made by the members of now.

        Raises ValueError if members changed where they must not: before bins and base score were agreed.
        """
        while self.members_change:
            if not self.may_change:
                raise ValueError("a member was lost before the first tree: what is agreed until then counts all rows")
            self.stage, self.index = self.stage + 1, 0
        if self.live:
            return None
        self.index += 1
        return self.stage, self.index - 1


def held_vector(names: Sequence[str], member: str, held: Sequence[int]) -> Int64Array:
    """Return what a member puts into a stage's first sum: how many totals of each earlier stage it holds."""
    vector = np.zeros((len(names), len(held)), np.int64)
    vector[list(names).index(member)] = held
    return vector


def handing(stage: int, index: int) -> str:
    """Name the sum that hands a total around."""
    return f"stage/handed {stage}.{index}"


def handed_vector(
    held: Int64Array,
    names: Sequence[str],
    member: str,
    place: tuple[int, int],
    shape: tuple[int, ...],
    total: Callable[[], Int64Array],
) -> Int64Array:
    """Return what a member puts into the sum that hands a total around: the total if it is the one to do so, or zeros.

    held: of `held_vector`s the total. place: stage and index. The first member that holds it does.
    """
    stage, index = place
    giver = next(name for row, name in enumerate(names) if held[row, stage] > index)
    return total() if giver == member else np.zeros(shape, np.int64)
