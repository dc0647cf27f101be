"""Rows in the nodes of one tree under construction, in one shard."""

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning, CodeArray
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.growing_tree import Splits
from lepton_pipelines.boosting.intrinsics import at, fetch_add, prefetch, put
from lepton_pipelines.boosting.lookup import Lookup
from lepton_pipelines.boosting.partition import WHOLE, Questions, cut, follow
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

    def __init__(self, binning: Binning, lookup: Lookup, rows: Int32Array, scratch: Int32Array, pool: Pool) -> None:
        self._binning, self._lookup, self._pool = binning, lookup, pool
        self._rows, self._scratch = rows, scratch
        self._start, self._end = np.zeros(_NODES, np.int64), np.zeros(_NODES, np.int64)
        self._end[ROOT] = len(rows)

    def count_root(self, pairs: Int32Array) -> Int64Array:
        """Count the root's histogram: int64, 2 * cells. pairs: int32, (rows, 2), quantised gradients."""
        whole = Questions(np.full(1, -1, np.int32), np.zeros((1, 1), np.uint8), np.full(1, WHOLE, np.int8))
        root = np.array([ROOT])
        return self._follow(self._start[root], self._end[root], whole, pairs)[1].ravel()

    def split(self, splits: Splits, counted: Int32Array, pairs: Int32Array) -> Int64Array:
        """Let the rows of each split node follow its question, and count children's histograms.

        counted: int32, for each split the child to count. pairs: int32, (rows, 2), quantised gradients. Returns
        int64, (splits, 2 * cells).
        """
        starts, ends = self._start[splits.node], self._end[splits.node]
        questions = Questions(splits.feature, splits.tables(self._binning), (counted - splits.left).astype(np.int8))
        middles, histograms = self._follow(starts, ends, questions, pairs)
        left = splits.left.astype(np.int64)
        self._room(int(left.max()) + 2)
        self._start[left], self._end[left] = starts, middles
        self._start[left + 1], self._end[left + 1] = middles, ends
        return histograms

    def _follow(
        self, starts: Int64Array, ends: Int64Array, questions: Questions, pairs: Int32Array
    ) -> tuple[Int64Array, Int64Array]:
        rows, scratch, pool = self._rows, self._scratch, self._pool
        return follow(self._lookup, self._binning, rows, scratch, starts, ends, questions, pairs.ravel(), pool)

    def add_leaves(self, tree: Tree, last: Splits, places: Int32Array, margin: Float32Array) -> None:
        """Add each row's leaf value to its margin, float32, (rows,).

        last: the splits that the rows have not followed: both children are leaves, and one look tells which.
        places: int32, by node of the tree, the number under which its rows were divided.
        """
        whole = np.setdiff1d(np.flatnonzero(tree.is_leaf), np.concatenate([last.left, last.left + 1]))
        nodes = places[np.concatenate([last.node, whole])]
        feature = np.concatenate([last.feature, np.full(len(whole), -1, np.int32)]).astype(np.int32)
        left_value = tree.threshold[np.concatenate([last.left, whole])]
        right_value = tree.threshold[np.concatenate([last.left + 1, whole])]
        pieces = cut(self._start[nodes], self._end[nodes], self._pool.threads)
        codes, lookup = self._lookup.codes, self._lookup
        copy = np.where(feature >= 0, lookup.place[feature], -1).astype(np.int32)
        work = (
            *(codes.values, codes.features, lookup.copies, copy, self._rows, pieces.node, pieces.lo, pieces.hi),
            *(feature, last.tables(self._binning), left_value, right_value, margin, np.zeros(1, np.int64)),
        )
        self._pool.run([(_add_leaves, work)] * pieces.threads)

    def _room(self, nodes: int) -> None:
        if nodes > len(self._start):
            more = np.zeros(max(nodes, 2 * len(self._start)) - len(self._start), np.int64)
            self._start, self._end = np.concatenate([self._start, more]), np.concatenate([self._end, more])


@kernel
def number_rows(rows: Int32Array) -> None:
    """Write 0, 1, 2, … to an int32 array."""
    for row in range(len(rows)):
        rows[row] = row


@kernel
def _add_leaves(
    codes: CodeArray,
    features: int,
    copies: CodeArray,
    copy: Int32Array,
    rows: Int32Array,
    node_of: Int64Array,
    los: Int64Array,
    his: Int64Array,
    feature: Int32Array,
    tables: ByteArray,
    left_value: Float32Array,
    right_value: Float32Array,
    margin: Float32Array,
    counter: Int64Array,
) -> None:
    while True:
        piece = fetch_add(counter, np.int64(0))
        if piece >= len(los):
            return
        lo, hi, node = los[piece], his[piece], node_of[piece]
        column = np.int64(feature[node])
        left, right = left_value[node], right_value[node]
        if column < 0:
            for k in range(lo, hi):
                if k + _AHEAD < hi:
                    prefetch(margin, np.int64(at(rows, k + _AHEAD)))
                row = np.int64(at(rows, k))
                put(margin, row, at(margin, row) + left)
        else:
            table = tables[node]
            source, width, first = codes, np.int64(features), column
            if copy[node] >= 0:
                source, width, first = copies[copy[node]], np.int64(1), np.int64(0)
            for k in range(lo, hi):
                if k + _AHEAD < hi:
                    ahead = np.int64(at(rows, k + _AHEAD))
                    prefetch(source, ahead * width + first)
                    prefetch(margin, ahead)
                row = np.int64(at(rows, k))
                goes_left = at(table, np.int64(at(source, row * width + first))) != 0
                put(margin, row, at(margin, row) + (left if goes_left else right))
