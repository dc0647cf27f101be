"""Histograms: for each bin of each column, the sums of gradient and hessian over a node's rows.

A node's histogram is int64, 2 * cells: gradient and hessian of each cell side by side, the columns one after the
other, each as wide as it has bins (`Binning.offsets`). Only the smaller child of a split is counted; its sibling
is what is left of the parent, exactly, because these are integers.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Codes
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.intrinsics import add_pair, aligned_empty, prefetch
from lepton_pipelines.boosting.partition import cut
from lepton_pipelines.boosting.pool import Pool, spans

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]

_AHEAD = 16  # rows to prefetch ahead
_SMALL = 1 << 16  # cells up to which one thread subtracts alone


def count(
    codes: Codes,
    offsets: Int32Array,
    rows: Int32Array,
    pairs: Int32Array,
    starts: Int64Array,
    ends: Int64Array,
    pool: Pool,
) -> Int64Array:
    """Count the histograms of nodes.

    offsets: int32, where each column's cells begin, and the end. rows: int32, row numbers, each node's stretch
    starts[k] … ends[k]. pairs: int32, quantised gradient and hessian of each row. Returns int64, (nodes, 2 * cells).
    """
    nodes = len(starts)
    pieces = cut(starts, ends, pool.threads)
    # A node's first piece counts into the node's own histogram, the others into ones that are added to it.
    first_of_node = np.ones(len(pieces.place), bool)
    first_of_node[1:] = pieces.place[1:] != pieces.place[:-1]
    others = np.flatnonzero(~first_of_node)
    slots = pieces.place.copy()
    slots[others] = nodes + np.arange(len(others))
    out = aligned_empty((nodes + len(others), 2 * int(offsets[-1])))
    empty = np.setdiff1d(np.arange(nodes), pieces.place)
    out[empty] = 0
    shares = zip(pieces.first, pieces.first[1:], strict=False)
    pool.run(
        [
            (_count, (codes.values, codes.features, offsets, rows, pairs, pieces.lo, pieces.hi, slots, out, a, b))
            for a, b in shares
        ]
    )
    for slot, piece in enumerate(others, nodes):
        out[pieces.place[piece]] += out[slot]
    return out[:nodes]


def complete(
    parents: Sequence[Int64Array], counted: Int64Array, left_was_counted: NDArray[np.bool_], pool: Pool
) -> Int64Array:
    """Return the histograms of both children of each split node, int64, (2 * nodes, 2 * cells), left before right.

    parents: int64, (2 * cells,) each. counted: int64, (nodes, 2 * cells), one child's histogram.
    """
    nodes, cells = counted.shape
    out = aligned_empty((2 * nodes, cells))
    parts = pool.threads if out.size > _SMALL else 1
    pool.run(
        [
            (_complete, (parents[k], counted[k], out[2 * k + 1 - side], out[2 * k + side], lo, hi))
            for k, side in enumerate(left_was_counted.astype(int))
            for lo, hi in spans(cells, parts if nodes < parts else 1)
        ]
    )
    return out


@kernel
def _complete(parent: Int64Array, counted: Int64Array, same: Int64Array, sibling: Int64Array, lo: int, hi: int) -> None:
    for k in range(lo, hi):
        same[k] = counted[k]
        sibling[k] = parent[k] - counted[k]


@kernel
def _count(
    codes: NDArray[np.uint8],
    features: int,
    offsets: Int32Array,
    rows: Int32Array,
    pairs: Int32Array,
    los: Int64Array,
    his: Int64Array,
    slots: Int64Array,
    out: Int64Array,
    first: int,
    last: int,
) -> None:
    for piece in range(first, last):
        histogram = out[slots[piece]]
        histogram[:] = 0
        lo, hi = los[piece], his[piece]
        for k in range(lo, hi):
            if k + _AHEAD < hi:
                ahead = np.int64(rows[k + _AHEAD])
                for line in range(0, features, 64):
                    prefetch(codes, ahead * features + line)
                prefetch(codes, ahead * features + features - 1)
                prefetch(pairs, ahead * 2)
            row = np.int64(rows[k])
            gradient, hessian = np.int64(pairs[2 * row]), np.int64(pairs[2 * row + 1])
            base = row * features
            for f in range(features):
                cell = np.int64(offsets[f]) + np.int64(codes[base + f])
                add_pair(histogram, cell * 2, gradient, hessian)
