"""Histograms: for each bin of each column, the sums of gradient and hessian over a node's rows.

A node's histogram is int64, 2 * cells: gradient and hessian of each cell side by side, the columns one after the
other, each as wide as it has bins (`Binning.offsets`). Only the smaller child of a split is counted; its sibling
is what is left of the parent, exactly, because these are integers.
"""

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.intrinsics import aligned_empty

Int64Array = NDArray[np.int64]

_SLOTS = 4  # room to begin with


class Histograms:
    """Room for the histograms of a tree's open nodes, one slot each, kept from tree to tree.

    values: int64, (slots, 2 * cells).
    """

    def __init__(self, cells: int) -> None:
        self.values = aligned_empty((_SLOTS, 2 * cells))
        self.clear()

    def clear(self) -> None:
        """Let go of all slots."""
        self._free = list(range(len(self.values) - 1, -1, -1))

    def take(self, count: int) -> Int64Array:
        """Return the numbers of so many slots, int64, whatever they hold. Makes room where there is none."""
        have = len(self.values)
        if count > len(self._free):
            more = aligned_empty((max(2 * have, have + count), self.values.shape[1]))
            more[:have] = self.values
            self.values = more
            self._free = [*range(len(more) - 1, have - 1, -1), *self._free]
        slots = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        return np.array(slots[::-1], np.int64)

    def give_back(self, slots: Int64Array) -> None:
        """Let go of slots."""
        self._free += slots.tolist()
