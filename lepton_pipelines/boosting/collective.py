"""Steps on one party's rows, summed over all parties."""

import hashlib
from collections.abc import Sequence

import numpy as np

from lepton_pipelines.boosting.rows import LocalRows, Rows, Step
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.sums import ChangingSums, Int64Array, LocalSums, Sums


class Collective:
    """One party's rows, and the sums that join them to the others'.

    name: begins the name of every sum, so that several trainings of one run do not collide.
    own: int64, what this party put into the last sum: its own part of the total.
    """

    def __init__(self, rows: Rows, sums: Sums, name: str) -> None:
        self._rows, self._sums, self._name = rows, sums, name
        self._alone = type(sums) is LocalSums
        self.own: Int64Array | None = None

    @property
    def parties(self) -> int:
        """How many parties' rows a total is made of."""
        return self._sums.parties

    @property
    def members_change(self) -> bool:
        """Whether the next sum is the first one of other members: a started tree is closed before it."""
        return isinstance(self._sums, ChangingSums) and self._sums.members_change

    @property
    def members_may_change(self) -> bool:
        """Whether a sum may be made by other members than the one before."""
        return isinstance(self._sums, ChangingSums) and self._sums.members_may_change

    @property
    def only_shard(self) -> Shard | None:
        """The shard that holds all rows of all parties, if they lie in one of this process."""
        return self._rows.shard if self._alone and type(self._rows) is LocalRows else None

    def let_members_change(self) -> None:
        """Say that bins and base score are agreed: from here on members may change, if all of them signed for that."""
        if isinstance(self._sums, ChangingSums):
            self._sums.let_members_change()

    def run(self, step: Step) -> None:
        """Run a step that has nothing to add up."""
        self._rows.start(step).result()

    def sum(self, step: Step, name: str, *, bound: int, context: Sequence[bytes] = (), padded: int = 0) -> Int64Array:
        """Run a step and return its vector's total over all parties.

        name: of the sum, once in a training. bound: of the total's cells. context: what all parties believe.
        padded: how many cells are summed at least, with zeros after the vector, so that its length is not seen.
        """
        self.own = vector = self._rows.add_up(step)
        if self._alone:
            return vector  # the total of one party; a megabyte a level is not worth a copy
        if padded > vector.size:
            whole = np.zeros(padded, np.int64)
            whole[: vector.size] = vector.ravel()
            return self._sum(whole, name, bound, context)[: vector.size].reshape(vector.shape)
        return self._sum(vector, name, bound, context)

    def sum_nothing(self, name: str, length: int, *, bound: int, context: Sequence[bytes] = ()) -> None:
        """Add up zeros, so that nobody sees that there was nothing to add up."""
        if not self._alone:
            self._sum(np.zeros(length, np.int64), name, bound, context)

    def _sum(self, vector: Int64Array, name: str, bound: int, context: Sequence[bytes]) -> Int64Array:
        digest = hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in context)).digest()
        return self._sums.sum(f"{self._name}/{name}", vector, bound=bound, context=digest)
