"""One party's rows, wherever they lie, and what is asked of them.

Rows lie in shards: one in plain use, one on every Dask worker of an organisation that has several. Everything
that a party does over all its rows is a step: a small picklable object that runs where the rows are and returns
an integer vector. The vectors of all shards add up to the party's, those of all parties to the total.
"""

from typing import Any, Protocol

import numpy as np

from lepton_pipelines.sums import FinishedSum, Int64Array, PendingSum

NOTHING = np.zeros(0, np.int64)


class Step(Protocol):
    """What is done with every shard, once each and in the order in which the steps were started."""

    def run(self, shard: Any) -> Int64Array:
        """Do it with one shard, which it may change.

        Returns int64, of a length that does not depend on the shard; empty if there is nothing to add up.
        """
        ...


class Rows(Protocol):
    """One party's rows: steps are sent to where the rows are, their vectors come back added up."""

    def start(self, step: Step) -> PendingSum:
        """Begin a step on every shard; the result is the sum of the shards' vectors."""
        ...

    def add_up(self, step: Step) -> Int64Array:
        """`start(step).result()`."""
        ...


class LocalRows:
    """Rows that lie in one shard in this process."""

    def __init__(self, shard: Any) -> None:
        self.shard = shard

    def start(self, step: Step) -> FinishedSum:
        """Run the step on the shard at once."""
        return FinishedSum(step.run(self.shard))

    def add_up(self, step: Step) -> Int64Array:
        """Run the step on the shard and return its vector."""
        return step.run(self.shard)
