"""Which rows lie in which node of the tree under construction.

One array holds all row numbers, each node a stretch of it, ascending. A split rearranges the node's stretch: rows
that go left first, both sides still ascending, so that memory is visited in one direction. Every row is written
to both ends of a scratch array and one of the two ends advances: there is no branch to mispredict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Codes
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.intrinsics import prefetch
from lepton_pipelines.boosting.pool import Pool

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
ByteArray = NDArray[np.uint8]

SMALL = 16_384  # rows up to which one thread works alone
_AHEAD = 24  # rows to prefetch ahead


@dataclass(frozen=True)
class Pieces:
    """A level's rows cut into stretches, so that every thread gets as many rows as the others.

    place: int64, which of the level's nodes a piece belongs to. lo, hi: int64, its stretch of the row array.
    first: the piece at which each thread's share begins, and the end.
    """

    place: Int64Array
    lo: Int64Array
    hi: Int64Array
    first: Sequence[int]


def cut(starts: Int64Array, ends: Int64Array, threads: int) -> Pieces:
    """Cut the stretches starts[k] … ends[k] so that `threads` shares hold equally many rows."""
    sizes = ends - starts
    total = int(sizes.sum())
    if threads == 1 or total <= SMALL:
        return Pieces(np.arange(len(starts)), starts, ends, (0, len(starts)))
    # In the row of all stretches laid end to end: where nodes end, and where shares end.
    node_ends = np.cumsum(sizes)
    cuts = np.union1d(node_ends, total * np.arange(1, threads + 1) // threads)
    cuts = cuts[cuts > 0]
    before = np.concatenate([[0], cuts[:-1]])
    place = np.searchsorted(node_ends, before, side="right")
    shift = starts[place] - (node_ends - sizes)[place]
    first = [0, *np.searchsorted(cuts, total * np.arange(1, threads + 1) // threads, side="right").tolist()]
    return Pieces(place, before + shift, cuts + shift, first)


def rearrange(
    codes: Codes,
    rows: Int32Array,
    scratch: Int32Array,
    starts: Int64Array,
    ends: Int64Array,
    feature: Int32Array,
    goes_left: ByteArray,
    pool: Pool,
) -> Int64Array:
    """Split nodes: bring each node's rows into order, left ones first.

    rows: int32, row numbers, rearranged in place. scratch: int32, as long. starts, ends: int64, each node's
    stretch. feature: int32, the column that each node asks about. goes_left: uint8, (nodes, codes), 1 where a code
    goes left. Returns int64, where in `rows` each node's right side begins.
    """
    pieces = cut(starts, ends, pool.threads)
    lefts = np.zeros(len(pieces.lo), np.int64)
    values, width = codes.values, codes.features
    shares = list(zip(pieces.first, pieces.first[1:], strict=False))
    pool.run(
        [
            (
                _divide,
                (values, width, rows, scratch, pieces.place, pieces.lo, pieces.hi, feature, goes_left, lefts, a, b),
            )
            for a, b in shares
        ]
    )
    middles = starts + np.bincount(pieces.place, lefts, len(starts)).astype(np.int64)
    # Where each piece's two sides go: behind those of the node's pieces before it.
    same = np.concatenate([[False], pieces.place[1:] == pieces.place[:-1]]) if len(pieces.place) else np.zeros(0, bool)
    left_at, right_at = starts[pieces.place], middles[pieces.place]
    for k in np.flatnonzero(same):
        left_at[k] = left_at[k - 1] + lefts[k - 1]
        right_at[k] = right_at[k - 1] + (pieces.hi[k - 1] - pieces.lo[k - 1] - lefts[k - 1])
    pool.run([(_put_back, (scratch, rows, pieces.lo, pieces.hi, lefts, left_at, right_at, a, b)) for a, b in shares])
    return middles


@kernel
def _divide(
    codes: NDArray[np.uint8],
    features: int,
    rows: Int32Array,
    scratch: Int32Array,
    place: Int64Array,
    los: Int64Array,
    his: Int64Array,
    feature: Int32Array,
    goes_left: ByteArray,
    lefts: Int64Array,
    first: int,
    last: int,
) -> None:
    for piece in range(first, last):
        lo, hi, node = los[piece], his[piece], place[piece]
        column, table = np.int64(feature[node]), goes_left[node]
        a, b = lo, hi - 1
        for r in range(lo, hi):
            if r + _AHEAD < hi:
                prefetch(codes, np.int64(rows[r + _AHEAD]) * features + column)
            row = rows[r]
            left = np.int64(table[codes[np.int64(row) * features + column]])
            scratch[a], scratch[b] = row, row
            a += left
            b -= 1 - left
        lefts[piece] = a - lo


@kernel
def _put_back(
    scratch: Int32Array,
    rows: Int32Array,
    los: Int64Array,
    his: Int64Array,
    lefts: Int64Array,
    left_at: Int64Array,
    right_at: Int64Array,
    first: int,
    last: int,
) -> None:
    for piece in range(first, last):
        lo, hi, left = los[piece], his[piece], lefts[piece]
        to = left_at[piece]
        for k in range(left):
            rows[to + k] = scratch[lo + k]
        to = right_at[piece]
        for k in range(hi - lo - left):
            rows[to + k] = scratch[hi - 1 - k]
