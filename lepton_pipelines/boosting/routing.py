"""Rows on their way from the root to a leaf: margins of rows that took no part in growing the tree.

Codes are routed through trees that were grown on the same edges, raw values through any tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning, Codes
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.pool import Pool, spans
from lepton_pipelines.boosting.tree import Tree

ByteArray = NDArray[np.uint8]
Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]

_SMALL = 8192  # rows up to which one thread works alone
ALL_ROWS: Int32Array = np.zeros(0, np.int32)


@dataclass(frozen=True)
class _CategoryTables:
    """Which codes go left in categorical nodes: uint8, (categorical nodes, codes); of: int32, a node's row, or -1."""

    of: Int32Array
    goes_left: ByteArray


def on_edges(tree: Tree, binning: Binning) -> Tree | None:
    """Return the tree with its thresholds found among the edges, or None if one is not an edge."""
    bins = np.full(len(tree), -1, np.int32)
    for node in np.flatnonzero(~tree.is_leaf):
        feature = int(tree.feature[node])
        if binning.categorical[feature] != (int(node) in tree.categories):
            return None
        if (right := tree.categories.get(int(node))) is not None:
            if right.max(initial=0) >= binning.bins[feature]:
                return None
            continue
        if tree.threshold[node] == -np.inf:
            continue
        edges = binning.edges[feature]
        place = int(np.searchsorted(edges, tree.threshold[node]))
        if place == len(edges) or edges[place] != tree.threshold[node]:
            return None
        bins[node] = place
    return replace(tree, bin=bins)


def add_by_codes(
    tree: Tree, binning: Binning, codes: Codes, margin: Float32Array, pool: Pool, rows: Int32Array = ALL_ROWS
) -> None:
    """Add each row's leaf value to its margin.

    margin: float32, (rows,), changed in place. rows: int32, the rows to route; empty means all of them.
    """
    widest = int(binning.bins.max(initial=0)) + 2
    tables = _tables(tree, widest)
    default = tree.default_left.view(np.uint8)
    nodes = (tree.left, tree.feature, tree.bin, default, tree.threshold, tables.of, tables.goes_left)
    many = len(rows) or codes.rows
    parts = pool.threads if many > _SMALL else 1
    pool.run(
        [
            (_add_by_codes, (codes.values, codes.features, binning.bins, *nodes, rows, lo, hi, margin))
            for lo, hi in spans(many, parts)
        ]
    )


def add_by_values(trees: Sequence[Tree], block: Float32Array, margins: Float32Array) -> None:
    """Add the leaf values of raw rows to their margins, tree by tree.

    block: float32, (rows, features). margins: float32, (outputs, rows), changed in place.
    """
    for tree in trees:
        widest = max((int(codes.max()) + 1 for codes in tree.categories.values() if len(codes)), default=1)
        tables = _tables(tree, widest)
        default = tree.default_left.view(np.uint8)
        nodes = (tree.left, tree.right, tree.feature, default, tree.threshold, tables.of, tables.goes_left)
        _add_by_values(block, *nodes, margins[tree.class_index])


def _tables(tree: Tree, width: int) -> _CategoryTables:
    of = np.full(len(tree), -1, np.int32)
    goes_left = np.ones((len(tree.categories), width), np.uint8)
    for place, (node, right) in enumerate(tree.categories.items()):
        of[node] = place
        goes_left[place, right] = 0
    return _CategoryTables(of, goes_left)


@kernel
def _add_by_codes(
    codes: NDArray[np.uint8],
    features: int,
    bins: Int32Array,
    left: Int32Array,
    feature: Int32Array,
    bin_: Int32Array,
    default_left: ByteArray,
    threshold: Float32Array,
    table_of: Int32Array,
    tables: ByteArray,
    rows: Int32Array,
    lo: int,
    hi: int,
    margin: Float32Array,
) -> None:
    for k in range(lo, hi):
        row = np.int64(rows[k]) if len(rows) > 0 else k
        node = np.int64(0)
        while left[node] >= 0:
            f = np.int64(feature[node])
            code = np.int64(codes[row * features + f])
            if code == bins[f]:
                goes_left = default_left[node] != 0
            elif table_of[node] >= 0:
                goes_left = tables[table_of[node], code] != 0
            else:
                goes_left = code <= bin_[node]
            node = np.int64(left[node]) if goes_left else np.int64(left[node]) + 1
        margin[row] += threshold[node]


@kernel
def _add_by_values(
    block: Float32Array,
    left: Int32Array,
    right: Int32Array,
    feature: Int32Array,
    default_left: ByteArray,
    threshold: Float32Array,
    table_of: Int32Array,
    tables: ByteArray,
    margin: Float32Array,
) -> None:
    for row in range(len(block)):
        node = np.int64(0)
        while left[node] >= 0:
            x = block[row, feature[node]]
            if x != x:
                goes_left = default_left[node] != 0
            elif table_of[node] >= 0:
                # A category that the model never saw goes left, as in XGBoost.
                known = x >= 0 and x < tables.shape[1]
                goes_left = not known or tables[table_of[node], np.int64(x)] != 0
            else:
                goes_left = x < threshold[node]
            node = np.int64(left[node]) if goes_left else np.int64(right[node])
        margin[row] += threshold[node]
