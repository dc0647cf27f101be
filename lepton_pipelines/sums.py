"""The one interface between algorithms and everything that adds up.

Every collective step (bin edges, base score, histograms, metrics, linear gradients, drift statistics) is a sum
of integer vectors over parties. Whoever implements `Sums` decides how far the vectors travel and who may see
them; whoever calls it gets the same exact total as every other party, because integer sums do not depend on
their order. Privacy, audit and tests have this one door to watch.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]


class SumAborted(RuntimeError):  # noqa: N818 - an abort is what it is, as in the protocol's messages
    """A sum ended for every party without a total; the message names the cause."""


class BoundExceeded(ValueError):  # noqa: N818 - names the condition, as OverflowError does not
    """A vector or a total holds a value beyond the bound that its sum was announced with."""


@dataclass
class Traffic:
    """What one party sent and received through its sums so far, and how long it waited for them."""

    sums: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0


class PendingSum(Protocol):
    """A sum under way."""

    def result(self) -> Int64Array:
        """Wait for the total, int64, of the vector's shape. Raises SumAborted if there will be none."""
        ...


@runtime_checkable
class Sums(Protocol):
    """Adds up integer vectors over all organisations (or workers). Every caller gets the same exact total.

    All parties start the same sums, by name, in the same order; a name is used once in a run.
    """

    traffic: Traffic

    @property
    def parties(self) -> int:
        """How many parties' vectors a total is made of; 1 means that nothing is shown to anyone."""
        ...

    def start(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> PendingSum:
        """Begin a sum and go on computing.

        vector: int64, any shape, the same at every party; not changed by the caller until the result is there.
        bound: the largest absolute value that a cell of the total may have; it chooses the modulus and is checked.
        context: digest of the state that the caller believes everyone shares. Compared before anything is sent.
        Raises BoundExceeded if the party's own vector is already beyond the bound.
        """
        ...

    def sum(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> Int64Array:
        """`start(...).result()`: the total, int64, of the vector's shape."""
        ...


@runtime_checkable
class ChangingSums(Protocol):
    """Sums whose members can change in the middle of a run, if all of them agreed to that beforehand."""

    @property
    def members_may_change(self) -> bool:
        """Whether all members signed for going on with other members, so that it can happen in this run."""
        ...

    @property
    def members_change(self) -> bool:
        """Whether the next sum is the first one of other members: what was begun with the old ones is closed before."""
        ...

    def let_members_change(self) -> None:
        """Say that from here on totals of other members make sense: what they are measured with is agreed."""
        ...


@dataclass(frozen=True)
class FinishedSum:
    """A sum whose total was there at once."""

    total: Int64Array

    def result(self) -> Int64Array:
        """Return the total."""
        return self.total


def check_bound(name: str, vector: Int64Array, bound: int) -> None:
    """Refuse a vector that a sum of this bound cannot carry.

    Raises BoundExceeded, naming the sum, the bound and how many cells are beyond it; TypeError if the vector
    is not int64; ValueError if the bound itself does not fit int64.
    """
    if vector.dtype != np.int64:
        raise TypeError(f"sum {name!r}: the vector is {vector.dtype}, sums add up int64")
    if not 0 <= bound < 1 << 63:
        raise ValueError(f"sum {name!r}: the bound {bound} does not fit int64")
    if vector.size and not (-bound <= int(vector.min()) and int(vector.max()) <= bound):
        beyond = int(np.count_nonzero((vector > bound) | (vector < -bound)))
        raise BoundExceeded(f"sum {name!r}: {beyond} of {vector.size} values are beyond the bound {bound}")


class LocalSums:
    """The sums of one party: the total is its own vector."""

    def __init__(self) -> None:
        self.traffic = Traffic()

    @property
    def parties(self) -> int:
        """One: nothing is shown to anyone."""
        return 1

    def start(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> FinishedSum:
        """Check the bound and return a copy of the vector as its total."""
        check_bound(name, vector, bound)
        self.traffic.sums += 1
        return FinishedSum(vector.copy())

    def sum(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> Int64Array:
        """Return `start(...).result()`."""
        return self.start(name, vector, bound=bound, context=context).result()
