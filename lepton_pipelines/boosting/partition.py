"""Which rows lie in which node of the tree under construction, and the histograms of those that are wanted.

One array holds all row numbers, each node a stretch of it. A split rearranges the node's stretch, rows that go left
first, so that memory is visited in one direction. Every row is written to two places and one of them advances: there
is no branch to mispredict. The rows of one child are counted on the way, block by block, while their codes are still
near: fetching them from memory costs more than adding them up. Of what is kept beside the codes, see `lookup`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning, CodeArray
from lepton_pipelines.boosting.compiled import inlined, kernel, part
from lepton_pipelines.boosting.intrinsics import add_pair, aligned_empty, at, fetch_add, lowest_bit, prefetch, put
from lepton_pipelines.boosting.lookup import WORD, Lookup
from lepton_pipelines.boosting.pool import Pool

Int8Array = NDArray[np.int8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
ByteArray = NDArray[np.uint8]

LEFT, RIGHT, NEITHER, WHOLE = 0, 1, 2, 3  # whose rows are counted: a child's, none, those of a node that is not split

SMALL = 16_384  # rows up to which one thread works alone
_SMALL_COPY = 1 << 18  # row numbers up to which one thread copies alone
_SHARES = 6  # pieces a thread gets about: so many that none waits long for another
_BLOCK = 2048  # rows that are divided, then counted: their codes fit into the second-level cache
_AHEAD = 32  # rows to prefetch ahead where one line of each is wanted
_COUNT_AHEAD = 16  # and where all of it is


@dataclass(frozen=True)
class Pieces:
    """A level's rows cut into stretches that threads work on one after the other.

    node: int64, which of the level's nodes a piece belongs to. lo, hi: int64, its stretch of the row array. of_node:
    int64, (nodes,), how many pieces a node has, at least one. threads: how many to work on them.
    """

    node: Int64Array
    lo: Int64Array
    hi: Int64Array
    of_node: Int64Array
    threads: int


def cut(starts: Int64Array, ends: Int64Array, threads: int) -> Pieces:
    """Cut the stretches starts[k] … ends[k] into pieces of a size that keeps all threads busy."""
    nodes = len(starts)
    sizes = ends - starts
    total = int(sizes.sum())
    if threads == 1 or total <= SMALL:
        return Pieces(np.arange(nodes), starts, ends, np.ones(nodes, np.int64), 1)
    size = max(SMALL // 2, -(-total // (threads * _SHARES)))
    of_node = np.maximum(-(-sizes // size), 1)
    node = np.repeat(np.arange(nodes), of_node)
    place = np.arange(len(node)) - np.repeat(np.cumsum(of_node) - of_node, of_node)
    lo = starts[node] + place * size
    return Pieces(node, lo, np.minimum(lo + size, ends[node]), of_node, threads)


@dataclass(frozen=True)
class Questions:
    """What the nodes of a level ask, one entry a node.

    feature: int32, the column; -1 where a node is not split. goes_left: uint8, (nodes, codes), 1 where a code goes
    left. wanted: int8, whose rows to count: LEFT, RIGHT, NEITHER or, of a node that is not split, WHOLE.
    """

    feature: Int32Array
    goes_left: ByteArray
    wanted: Int8Array


def follow(
    lookup: Lookup,
    binning: Binning,
    rows: Int32Array,
    scratch: Int32Array,
    starts: Int64Array,
    ends: Int64Array,
    questions: Questions,
    pairs: Int32Array,
    pool: Pool,
) -> tuple[Int64Array, Int64Array]:
    """Bring each node's rows into order, left ones first, and count those that are wanted.

    rows: int32, row numbers, rearranged in place. scratch: int32, as long. starts, ends: int64, each node's stretch.
    pairs: int32, quantised gradient and hessian of each row, side by side. Returns int64, where in `rows` each node's
    right side begins, and the histograms, int64, (nodes, 2 * cells), uninitialised where nothing is wanted.
    """
    nodes, codes, offsets = len(starts), lookup.codes, binning.offsets
    pieces = cut(starts, ends, pool.threads)
    feature, goes_left, wanted = questions.feature, questions.goes_left, questions.wanted
    split = feature >= 0
    lookup.ask(feature[split], (ends - starts)[split], pool)
    copy = np.where(split, lookup.place[feature], -1).astype(np.int32)
    # A node's histogram is counted by every thread that gets a piece of it: the first into the node's own place.
    helpers = np.minimum(pieces.of_node, pieces.threads) - 1
    extra = nodes + np.cumsum(helpers) - helpers
    out = aligned_empty((nodes + int(helpers.sum()), 2 * int(offsets[-1])))
    totals = np.zeros((len(out), 2), np.int64)  # of all rows counted there, where missing values are not
    claimed = np.zeros(nodes, np.int64)
    lefts = np.zeros(len(pieces.lo), np.int64)
    counters = np.zeros(2, np.int64)
    work = (
        *(codes.values, codes.features, lookup.present, lookup.copies, copy, offsets, rows, scratch),
        *(pieces.node, pieces.lo, pieces.hi, pieces.of_node, feature, goes_left, wanted, pairs, counters, lefts),
        *(claimed, extra, out, totals),
    )
    pool.run([(_follow, work)] * pieces.threads)
    middles = starts.copy()
    # Where each piece's two sides go: behind those of the node's pieces before it.
    left_at, right_at = np.empty(len(lefts), np.int64), np.empty(len(lefts), np.int64)
    _places(pieces.node, pieces.lo, pieces.hi, lefts, starts, middles, left_at, right_at)
    rest = (
        *(rows, scratch, pieces.node, pieces.lo, pieces.hi, pieces.of_node, feature, lefts, left_at, right_at),
        *(counters, claimed, extra, out, totals, len(lookup.present) > 0, offsets, binning.bins),
    )
    copied = int((ends - starts).sum())
    pool.run([(_put_together, rest)] * (pieces.threads if copied > _SMALL_COPY else 1))
    return middles, out[:nodes]


@inlined
def _count_row(
    codes: NDArray[np.uint8],
    features: int,
    offsets: Int32Array,
    pairs: Int32Array,
    row: np.int64,
    histogram: Int64Array,
) -> None:
    """Add a row's gradient and hessian to its cells."""
    gradient, hessian = np.int64(at(pairs, 2 * row)), np.int64(at(pairs, 2 * row + 1))
    base = row * features
    for f in range(features):
        cell = np.int64(at(offsets, f)) + np.int64(at(codes, base + f))
        add_pair(histogram, cell * 2, gradient, hessian)


@inlined
def _prefetch_row(codes: NDArray[np.uint8], features: int, pairs: Int32Array, row: np.int64) -> None:
    """Ask for all that `_count_row` will read."""
    for line in range(0, features, 64):
        prefetch(codes, row * features + line)
    prefetch(codes, row * features + features - 1)
    prefetch(pairs, row * 2)


@part
def count_all(
    codes: CodeArray,
    features: int,
    offsets: Int32Array,
    pairs: Int32Array,
    rows: Int32Array,
    start: np.int64,
    step: np.int64,
    many: np.int64,
    histogram: Int64Array,
) -> None:
    """Count so many rows, every value: those from `start` on, every step-th."""
    for n in range(many):
        if n + _COUNT_AHEAD < many:
            _prefetch_row(codes, features, pairs, np.int64(at(rows, start + step * (n + _COUNT_AHEAD))))
        _count_row(codes, features, offsets, pairs, np.int64(at(rows, start + step * n)), histogram)


@part
def count_present(
    codes: CodeArray,
    features: int,
    present: NDArray[np.uint32],
    offsets: Int32Array,
    pairs: Int32Array,
    rows: Int32Array,
    start: np.int64,
    step: np.int64,
    many: np.int64,
    histogram: Int64Array,
    total: Int64Array,
) -> None:
    """Count so many rows, only the values that are there; all rows are added to total, int64, (2,).

    Columns that `present` does not tell of are counted in full.
    """
    words = len(present) * features // len(codes)
    total_g, total_h = total[0], total[1]
    for n in range(many):
        if n + _COUNT_AHEAD < many:
            ahead = np.int64(at(rows, start + step * (n + _COUNT_AHEAD)))
            _prefetch_row(codes, features, pairs, ahead)
            prefetch(present, ahead * words)
        row = np.int64(at(rows, start + step * n))
        gradient, hessian = np.int64(at(pairs, 2 * row)), np.int64(at(pairs, 2 * row + 1))
        total_g += gradient
        total_h += hessian
        for word in range(words):
            bits = np.int64(at(present, row * words + word))
            base, first = row * features + word * WORD, word * WORD
            while bits != 0:
                f = lowest_bit(bits)
                bits &= bits - 1
                cell = np.int64(at(offsets, first + f)) + np.int64(at(codes, base + f))
                add_pair(histogram, cell * 2, gradient, hessian)
        for f in range(words * WORD, features):
            cell = np.int64(at(offsets, f)) + np.int64(at(codes, row * features + f))
            add_pair(histogram, cell * 2, gradient, hessian)
    total[0], total[1] = total_g, total_h


@part
def divide(
    codes: CodeArray,
    features: int,
    present: NDArray[np.uint32],
    copies: CodeArray,
    copy: np.int64,
    offsets: Int32Array,
    pairs: Int32Array,
    rows: Int32Array,
    scratch: Int32Array,
    lo: np.int64,
    hi: np.int64,
    column: np.int64,
    table: ByteArray,
    alone: bool,
    side: np.int64,
    histogram: Int64Array,
    total: Int64Array,
) -> np.int64:
    """Divide one piece of a node's rows, lo up to hi, and count those of one side. Returns how many go left.

    copy: where the column's copy is; -1 for none. table: uint8, 1 where a code goes left. alone: it is all of the
    node, whose rows are then in order; else the left ones lie in scratch from lo on, the right ones from its end down.
    """
    sparse = len(present) > 0
    source, width, first = codes, np.int64(features), column
    if copy >= 0:
        source, width, first = copies[copy], np.int64(1), np.int64(0)
    # A node in one piece keeps its left rows where they are; of several pieces both sides have to move.
    to_left = rows if alone else scratch
    a = lo
    b, step = (lo, np.int64(1)) if alone else (hi - 1, np.int64(-1))
    end: Any = hi  # not by its type: ranges of numpy's integers are nothing that a type checker knows
    for start in range(lo, end, _BLOCK):
        stop = min(start + _BLOCK, end)
        a_before, b_before = a, b
        for r in range(start, stop):
            if r + _AHEAD < hi:
                prefetch(source, np.int64(at(rows, r + _AHEAD)) * width + first)
            row = at(rows, r)
            left = np.int64(at(table, np.int64(at(source, np.int64(row) * width + first))))
            put(to_left, a, row)
            put(scratch, b, row)
            a += left
            b += step * (1 - left)
        if side == NEITHER:
            continue
        counted, start_at, by, many = (
            (to_left, a_before, np.int64(1), a - a_before)
            if side == LEFT
            else (scratch, b_before, step, (b - b_before) * step)
        )
        if sparse:
            count_present(codes, features, present, offsets, pairs, counted, start_at, by, many, histogram, total)
        else:
            count_all(codes, features, offsets, pairs, counted, start_at, by, many, histogram)
    middle = a
    if alone:
        while a < hi:  # not by slices, whose check of lengths takes seconds to compile
            put(rows, a, at(scratch, lo + a - middle))
            a += 1
    return middle - lo


@kernel
def _follow(
    codes: CodeArray,
    features: int,
    present: NDArray[np.uint32],
    copies: CodeArray,
    copy: Int32Array,
    offsets: Int32Array,
    rows: Int32Array,
    scratch: Int32Array,
    node_of: Int64Array,
    los: Int64Array,
    his: Int64Array,
    of_node: Int64Array,
    feature: Int32Array,
    goes_left: ByteArray,
    wanted: Int8Array,
    pairs: Int32Array,
    counters: Int64Array,
    lefts: Int64Array,
    claimed: Int64Array,
    extra: Int64Array,
    out: Int64Array,
    totals: Int64Array,
) -> None:
    sparse = len(present) > 0
    current, slot = np.int64(-1), np.int64(0)
    while True:
        piece = fetch_add(counters, np.int64(0))
        if piece >= len(los):
            return
        lo, hi, node = los[piece], his[piece], node_of[piece]
        column, side = np.int64(feature[node]), np.int64(wanted[node])
        if side != NEITHER and node != current:
            claim = fetch_add(claimed, node)
            current, slot = node, (node if claim == 0 else extra[node] + claim - 1)
            out[slot][:] = 0
        histogram, total = out[slot], totals[slot]
        if column < 0:
            if side == WHOLE:
                if sparse:
                    count_present(
                        codes, features, present, offsets, pairs, rows, lo, np.int64(1), hi - lo, histogram, total
                    )
                else:
                    count_all(codes, features, offsets, pairs, rows, lo, np.int64(1), hi - lo, histogram)
            continue
        alone = of_node[node] == 1
        lefts[piece] = divide(
            *(codes, features, present, copies, np.int64(copy[node]), offsets, pairs, rows, scratch, lo, hi, column),
            *(goes_left[node], alone, side, histogram, total),
        )


@kernel
def _places(
    node_of: Int64Array,
    los: Int64Array,
    his: Int64Array,
    lefts: Int64Array,
    starts: Int64Array,
    middles: Int64Array,
    left_at: Int64Array,
    right_at: Int64Array,
) -> None:
    for piece in range(len(lefts)):
        node = node_of[piece]
        left_at[piece] = middles[node]
        middles[node] += lefts[piece]
    at_node, place = np.int64(-1), np.int64(0)
    for piece in range(len(lefts)):
        node = node_of[piece]
        place = middles[node] if node != at_node else place
        right_at[piece] = place
        place += his[piece] - los[piece] - lefts[piece]
        at_node = node


@part
def bring_back(
    rows: Int32Array,
    scratch: Int32Array,
    lo: np.int64,
    hi: np.int64,
    left: np.int64,
    left_at: np.int64,
    right_at: np.int64,
) -> None:
    """Bring both sides of a divided piece from the scratch array to their places."""
    for k in range(hi - lo - left):
        put(rows, right_at + k, at(scratch, hi - 1 - k))
    for k in range(left):
        put(rows, left_at + k, at(scratch, lo + k))


@kernel
def _put_together(
    rows: Int32Array,
    scratch: Int32Array,
    node_of: Int64Array,
    los: Int64Array,
    his: Int64Array,
    of_node: Int64Array,
    feature: Int32Array,
    lefts: Int64Array,
    left_at: Int64Array,
    right_at: Int64Array,
    counters: Int64Array,
    claimed: Int64Array,
    extra: Int64Array,
    out: Int64Array,
    totals: Int64Array,
    sparse: bool,
    offsets: Int32Array,
    bins: Int32Array,
) -> None:
    """Bring the rows of both sides from the scratch array to their places, and add up what threads counted."""
    while True:
        piece = fetch_add(counters, np.int64(1))
        if piece >= len(los):
            return
        lo, hi, node, left = los[piece], his[piece], node_of[piece], lefts[piece]
        if feature[node] >= 0 and of_node[node] > 1:
            bring_back(rows, scratch, lo, hi, left, left_at[piece], right_at[piece])
        if claimed[node] == 0 or (piece > 0 and node_of[piece - 1] == node):
            continue
        histogram, total = out[node], totals[node]
        for helper in range(claimed[node] - 1):
            more = out[extra[node] + helper]
            for k in range(len(histogram)):
                histogram[k] += more[k]
            total += totals[extra[node] + helper]
        if sparse:
            for f in range(len(bins)):
                begin, end = np.int64(offsets[f]), np.int64(offsets[f + 1])
                if end - begin > bins[f]:
                    merge_missing(histogram[2 * begin : 2 * end], total[0], total[1])


@part
def merge_missing(cells: Int64Array, g: np.int64, h: np.int64) -> None:
    """Give a column its missing cell, the last: what the node holds and the column's other cells don't.

    g, h: gradient and hessian of all the node's rows.
    """
    for cell in range(len(cells) // 2 - 1):
        g -= cells[2 * cell]
        h -= cells[2 * cell + 1]
    cells[-2], cells[-1] = g, h
