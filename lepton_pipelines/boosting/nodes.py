"""Rows in the nodes of one tree under construction, in one shard."""

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning, Codes
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.growing_tree import Splits
from lepton_pipelines.boosting.histogram import count
from lepton_pipelines.boosting.intrinsics import prefetch
from lepton_pipelines.boosting.partition import cut, rearrange
from lepton_pipelines.boosting.pool import Pool
from lepton_pipelines.boosting.tree import ROOT, Tree

ByteArray = NDArray[np.uint8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]

_NODES = 128  # room to begin with
_AHEAD = 24  # rows to prefetch ahead


class RowNodes:
    """One array of row numbers, each node a stretch of it.

    rows: int32, the rows that the tree is grown from. scratch: int32, at least as long.
    """

    def __init__(self, binning: Binning, codes: Codes, rows: Int32Array, scratch: Int32Array, pool: Pool) -> None:
        self._binning, self._codes, self._pool = binning, codes, pool
        self._rows, self._scratch = rows, scratch
        self._start, self._end = np.zeros(_NODES, np.int64), np.zeros(_NODES, np.int64)
        self._end[ROOT] = len(rows)

    def split(self, splits: Splits) -> None:
        """Let the rows of each split node follow its question."""
        if not len(splits):
            return
        starts, ends = self._start[splits.node], self._end[splits.node]
        middles = rearrange(
            self._codes,
            self._rows,
            self._scratch,
            starts,
            ends,
            splits.feature,
            splits.tables(self._binning),
            self._pool,
        )
        left = splits.left.astype(np.int64)
        self._room(int(left.max()) + 2)
        self._start[left], self._end[left] = starts, middles
        self._start[left + 1], self._end[left + 1] = middles, ends

    def count(self, nodes: Int32Array, pairs: Int32Array) -> Int64Array:
        """Count the histograms of nodes: int64, (nodes, 2 * cells). pairs: int32, (rows, 2), quantised gradients."""
        offsets = self._binning.offsets
        return count(self._codes, offsets, self._rows, pairs.ravel(), self._start[nodes], self._end[nodes], self._pool)

    def add_leaves(self, tree: Tree, last: Splits, margin: Float32Array) -> None:
        """Add each row's leaf value to its margin, float32, (rows,).

        last: the splits that the rows have not followed: both children are leaves, and one look tells which.
        """
        whole = np.setdiff1d(np.flatnonzero(tree.is_leaf), np.concatenate([last.left, last.left + 1]))
        nodes = np.concatenate([last.node, whole]).astype(np.int64)
        feature = np.concatenate([last.feature, np.full(len(whole), -1, np.int32)]).astype(np.int32)
        left_value = tree.threshold[np.concatenate([last.left, whole])]
        right_value = tree.threshold[np.concatenate([last.left + 1, whole])]
        pieces = cut(self._start[nodes], self._end[nodes], self._pool.threads)
        tables = last.tables(self._binning)
        self._pool.run(
            [
                (
                    _add_leaves,
                    (
                        *(self._codes.values, self._codes.features, self._rows, pieces.place, pieces.lo, pieces.hi),
                        *(feature, tables, left_value, right_value, margin, first, last_piece),
                    ),
                )
                for first, last_piece in zip(pieces.first, pieces.first[1:], strict=False)
            ]
        )

    def _room(self, nodes: int) -> None:
        if nodes > len(self._start):
            more = np.zeros(max(nodes, 2 * len(self._start)) - len(self._start), np.int64)
            self._start, self._end = np.concatenate([self._start, more]), np.concatenate([self._end, more])


@kernel
def _add_leaves(
    codes: NDArray[np.uint8],
    features: int,
    rows: Int32Array,
    place: Int64Array,
    los: Int64Array,
    his: Int64Array,
    feature: Int32Array,
    tables: ByteArray,
    left_value: Float32Array,
    right_value: Float32Array,
    margin: Float32Array,
    first: int,
    last: int,
) -> None:
    for piece in range(first, last):
        node = place[piece]
        column = np.int64(feature[node])
        left, right = left_value[node], right_value[node]
        if column < 0:
            for k in range(los[piece], his[piece]):
                if k + _AHEAD < his[piece]:
                    prefetch(margin, np.int64(rows[k + _AHEAD]))
                margin[rows[k]] += left
        else:
            table = tables[node]
            for k in range(los[piece], his[piece]):
                if k + _AHEAD < his[piece]:
                    ahead = np.int64(rows[k + _AHEAD])
                    prefetch(codes, ahead * features + column)
                    prefetch(margin, ahead)
                row = np.int64(rows[k])
                margin[row] += left if table[codes[row * features + column]] != 0 else right
