"""Which rows and columns a tree is grown from.

Both are drawn by hashing what is drawn, never by a generator that is stepped along: so a row's lot depends on the
seed, the tree and the row's own number, not on where it lies, and every party draws the same columns.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import inlined, kernel

BoolArray = NDArray[np.bool_]
UInt64Array = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """Hash numbers to 64 bits (the finaliser of SplitMix64, once a number)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _MIX1) & _MASK
        state = ((state ^ (state >> 27)) * _MIX2) & _MASK
        state ^= state >> 31
    return state


@inlined
def _mixed(key: np.uint64, number: np.uint64) -> np.uint64:
    state = key + number + np.uint64(_GOLDEN)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX2)
    return state ^ (state >> np.uint64(31))


@kernel
def _draw(
    row_id: UInt64Array, key: np.uint64, below: np.uint64, drawn: NDArray[np.int32], others: NDArray[np.int32]
) -> int:
    taken: Any = 0
    for row in range(len(row_id)):
        is_in = np.int64(_mixed(key, row_id[row]) < below)
        drawn[taken] = row
        others[row - taken] = row
        taken += is_in
    return int(taken)


def draw_rows(
    row_id: UInt64Array, *, seed: int, tree: int, fraction: float, drawn: NDArray[np.int32], others: NDArray[np.int32]
) -> int:
    """Draw rows for a tree.

    row_id: uint64, (rows,). fraction: of the rows, on average. drawn, others: int32, (rows + 1,), filled with the
    numbers of the rows that were drawn and of those that were not, ascending. Returns how many were drawn.
    """
    below = min(round(fraction * 2.0**64), _MASK)
    return int(_draw(row_id, np.uint64(mix(seed, tree)), np.uint64(below), drawn, others))


@dataclass(frozen=True)
class ColumnSampler:
    """Draws columns by tree, of those by level, of those by node, as XGBoost's three fractions say."""

    seed: int
    features: int
    by_tree: float = 1.0
    by_level: float = 1.0
    by_node: float = 1.0

    @property
    def draws(self) -> bool:
        """Tell whether anything is drawn at all."""
        return min(self.by_tree, self.by_level, self.by_node) < 1.0

    def columns(self, tree: int, depth: int, node: int) -> BoolArray:
        """Bool, one a column: it may be asked about in this node, at this depth of this tree."""
        chosen = np.arange(self.features)
        for place, fraction in enumerate((self.by_tree, self.by_level, self.by_node)):
            if fraction < 1.0:
                where = (tree, depth, node)[: place + 1]
                lots = [mix(self.seed, place, *where, int(column)) for column in chosen]
                wanted = max(1, int(fraction * len(chosen)))
                chosen = np.sort(chosen[np.argsort(np.array(lots, np.uint64), kind="stable")[:wanted]])
        mask = np.zeros(self.features, bool)
        mask[chosen] = True
        return mask
