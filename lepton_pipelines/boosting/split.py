"""The best split of each node, from its histogram alone.

XGBoost's search: each column is scanned forward with missing values to the right, and, if the node has missing
values there, backward with them to the left; a later split must be strictly better, within a column and across
columns. A pure function of integer totals: every party finds the same split, nothing is sent back.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.compiled import inlined, kernel, part
from lepton_pipelines.boosting.gain import Regularisation, Weighing, clamp, gain_of, leaf_weight
from lepton_pipelines.boosting.intrinsics import fetch_add
from lepton_pipelines.boosting.pool import Pool

Int8Array = NDArray[np.int8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
ByteArray = NDArray[np.uint8]
Float32Array = NDArray[np.float32]

_SMALL = 1 << 15  # cells up to which one thread searches alone


@dataclass(frozen=True)
class Candidates:
    """The best split of each column in each node. All arrays are (nodes, features), `left` (nodes, features, 2).

    gain: float32, 0 where no split is better than none. bin: int32, the last bin that goes left, -1 for none; in
    categorical columns the category, or where in the sorted order the cut is. default_left: uint8. left: int64,
    quantised gradient and hessian of the left side.
    """

    gain: Float32Array
    bin: Int32Array
    default_left: ByteArray
    left: Int64Array

    @staticmethod
    def none(nodes: int, features: int) -> "Candidates":
        """Return candidates none of which is better than no split."""
        shape = nodes, features
        return Candidates(
            np.zeros(shape, np.float32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.uint8),
            np.zeros((*shape, 2), np.int64),
        )


@dataclass(frozen=True)
class Best:
    """The best split of each node, one entry a node: as in `Candidates`, and of which column (feature, int64).

    two_sided: bool, both children hold some hessian.
    """

    gain: Float32Array
    feature: Int64Array
    bin: Int32Array
    default_left: ByteArray
    left: Int64Array
    two_sided: NDArray[np.bool_]


@dataclass(frozen=True)
class NodeBatch:
    """Nodes whose best splits are wanted, one entry a node.

    histograms: int64, (slots, 2 * cells). slots: int64, where among them each node's is. totals: int64, (nodes, 2).
    gain: float32, what the node is worth without a split. lower, upper: float32, the bounds that monotone
    constraints leave its children's weights. allowed: uint8, (nodes, features), which columns may be asked about.
    """

    histograms: Int64Array
    slots: Int64Array
    totals: Int64Array
    gain: Float32Array
    lower: Float32Array
    upper: Float32Array
    allowed: ByteArray


@dataclass(frozen=True)
class Counted:
    """What was counted of the nodes that were just split, whose children, left before right, are a `NodeBatch`.

    histograms: int64, (splits, 2 * cells), of one child each. right: uint8, 1 where that is the right one. The slot
    of the other child still holds their parent's.
    """

    histograms: Int64Array
    right: ByteArray

    @staticmethod
    def nothing() -> "Counted":
        """Return that the slots hold the nodes' histograms already."""
        return Counted(np.zeros((0, 0), np.int64), np.zeros(0, np.uint8))


def search_numeric(
    nodes: NodeBatch,
    counted: Counted,
    binning: Binning,
    rule: Regularisation,
    monotone: Int8Array,
    inverse: tuple[float, float],
    pool: Pool,
) -> Candidates:
    """Complete the nodes' histograms from what was counted, and search their numeric columns.

    monotone: int8, one a column, -1, 0 or 1. inverse: what one quantised unit of gradient and of hessian is worth.
    """
    count, features = nodes.allowed.shape
    found = Candidates.none(count, features)
    arguments = (
        *(nodes.histograms, nodes.slots, counted.histograms, counted.right, binning.offsets, binning.bins),
        *(binning.categorical, nodes.totals, nodes.gain, nodes.allowed),
        *(nodes.lower, nodes.upper, monotone, rule.weighing(inverse)),
        *(found.gain, found.bin, found.default_left, found.left, np.zeros(1, np.int64)),
    )
    pool.run([(_search, arguments)] * (pool.threads if count * binning.cells > _SMALL else 1))
    return found


def best_of(found: Candidates, totals: Int64Array) -> Best:
    """Choose each node's best column: the first of equals, a later one must be strictly better."""
    nodes = len(totals)
    best = Best(
        np.empty(nodes, np.float32),
        np.empty(nodes, np.int64),
        np.empty(nodes, np.int32),
        np.empty(nodes, np.uint8),
        np.empty((nodes, 2), np.int64),
        np.empty(nodes, np.bool_),
    )
    _choose(
        found.gain,
        found.bin,
        found.default_left,
        found.left,
        totals,
        best.gain,
        best.feature,
        best.bin,
        best.default_left,
        best.left,
        best.two_sided,
    )
    return best


@kernel
def _choose(
    gain: Float32Array,
    bin_: Int32Array,
    default_left: ByteArray,
    left: Int64Array,
    totals: Int64Array,
    best_gain: Float32Array,
    best_feature: Int64Array,
    best_bin: Int32Array,
    best_default: ByteArray,
    best_left: Int64Array,
    two_sided: NDArray[np.bool_],
) -> None:
    nodes, features = gain.shape
    for node in range(nodes):
        best = 0
        for f in range(1, features):
            best = f if gain[node, f] > gain[node, best] else best
        best_gain[node], best_feature[node], best_bin[node] = gain[node, best], best, bin_[node, best]
        best_default[node] = default_left[node, best]
        best_left[node, 0], best_left[node, 1] = left[node, best, 0], left[node, best, 1]
        two_sided[node] = left[node, best, 1] != 0 and left[node, best, 1] != totals[node, 1]


@inlined
def change_of(
    g_left: float,
    h_left: float,
    g_right: float,
    h_right: float,
    worth: np.float32,
    lower: np.float32,
    upper: np.float32,
    direction: Any,
    reg_lambda: float,
    alpha: float,
    min_child_weight: float,
    max_delta_step: float,
) -> np.float32:
    """What a split gains, over `worth` without it; minus infinity if it is not allowed. Without branches."""
    left = clamp(leaf_weight(g_left, h_left, reg_lambda, alpha, max_delta_step), lower, upper)
    right = clamp(leaf_weight(g_right, h_right, reg_lambda, alpha, max_delta_step), lower, upper)
    both = gain_of(g_left, h_left, left, reg_lambda, alpha) + gain_of(g_right, h_right, right, reg_lambda, alpha)
    rising, falling = left <= right, left >= right
    allowed = (
        (h_left >= min_child_weight)
        & (h_right >= min_child_weight)
        & ((direction <= 0) | rising)
        & ((direction >= 0) | falling)
    )
    return both - worth if allowed else np.float32(-np.inf)


class SearchRoom(NamedTuple):
    """Room for one column at a time: the left side's sums of every split and the last bin of each, and all gains."""

    left_g: Int64Array
    left_h: Int64Array
    ends: Int64Array
    changes: Float32Array


@part
def room_to_search(widest: np.int64) -> SearchRoom:
    """Make room for a thread that searches columns of so many cells at most."""
    widest, i64 = widest + 1, np.int64
    return SearchRoom(np.empty(widest, i64), np.empty(widest, i64), np.empty(widest, i64), np.empty(widest, np.float32))


@part
def search_column(
    cells: Int64Array,
    count: np.int64,
    total_g: np.int64,
    total_h: np.int64,
    worth: np.float32,
    low: np.float32,
    high: np.float32,
    direction: np.int64,
    rule: Weighing,
    room: SearchRoom,
) -> tuple[np.float32, np.int64, int, np.int64, np.int64]:
    """Search one numeric column of one node, of so many bins: gain, bin, default_left and left as in `Candidates`."""
    left_g, left_h, ends, changes = room
    unit_g, unit_h, reg_lambda, alpha, min_child_weight, max_delta_step = rule
    # A bin that holds nothing offers the split of the bin before it: entry n is for the bins from the end of entry
    # n - 1 up to its own. Forward the first of them wins, backward the last. Entry 0 is the split before the first bin.
    n = np.int64(0)
    sum_g = sum_h = np.int64(0)
    left_g[0], left_h[0], ends[0] = 0, 0, -1
    for k in range(count):
        g, h = cells[2 * k], cells[2 * k + 1]
        n += (k == 0) | (g != 0) | (h != 0)
        sum_g += g
        sum_h += h
        left_g[n], left_h[n], ends[n] = sum_g, sum_h, k
    entries = n + 1
    best, best_bin, best_left = np.float32(0.0), np.int64(-1), 0
    best_g = best_h = np.int64(0)
    missing_g, missing_h = total_g - sum_g, total_h - sum_h
    passes = 2 if (missing_g != 0) | (missing_h != 0) else 1
    for backward in range(passes):
        # Backward, rows that lack the value are on the left. A split there ends before the bin that XGBoost's scan has
        # just added to the right, and the one before the first bin leaves them alone on the left.
        add_g, add_h = (missing_g, missing_h) if backward else (np.int64(0), np.int64(0))
        for k in range(entries):
            g, h = left_g[k] + add_g, left_h[k] + add_h
            changes[k] = change_of(
                np.float64(g) * unit_g,
                np.float64(h) * unit_h,
                np.float64(total_g - g) * unit_g,
                np.float64(total_h - h) * unit_h,
                worth,
                low,
                high,
                direction,
                reg_lambda,
                alpha,
                min_child_weight,
                max_delta_step,
            )
        if not backward:
            for k in range(1, entries):
                if changes[k] > best:
                    best, best_bin = changes[k], ends[k - 1] + 1
                    best_g, best_h = left_g[k], left_h[k]
        else:
            # The last bin's split has no row right of it, unless empty bins follow one that is earlier.
            for k in range(entries - 1, -1, -1):
                here = min(ends[k], count - 2)
                if changes[k] > best and (k < 2 or here > ends[k - 1]) and (k == 0 or here >= 0):
                    best, best_bin, best_left = changes[k], here, 1
                    best_g, best_h = left_g[k] + missing_g, left_h[k] + missing_h
    return best, best_bin, best_left, best_g, best_h


@kernel
def _search(
    histograms: Int64Array,
    slots: Int64Array,
    counted: Int64Array,
    counted_right: ByteArray,
    offsets: Int32Array,
    bins: Int32Array,
    categorical: NDArray[np.bool_],
    totals: Int64Array,
    node_gain: Float32Array,
    allowed: ByteArray,
    lower: Float32Array,
    upper: Float32Array,
    monotone: Int8Array,
    rule: Weighing,
    gain: Float32Array,
    bin_: Int32Array,
    default_left: ByteArray,
    left: Int64Array,
    counter: Int64Array,
) -> None:
    nodes, features = allowed.shape
    together = 2 if len(counted) > 0 else 1  # two children are completed, then searched, while they are near
    room = room_to_search(np.int64(np.max(bins)) + 1 if len(bins) > 0 else np.int64(1))
    while True:
        place = fetch_add(counter, np.int64(0))
        if place >= nodes // together * features:
            return
        first, f = place // features * together, place % features
        begin, end = 2 * np.int64(offsets[f]), 2 * np.int64(offsets[f + 1])
        if together == 2:
            split = first // 2
            side = np.int64(counted_right[split])
            new = counted[split][begin:end]
            same = histograms[slots[first + side]][begin:end]
            other = histograms[slots[first + 1 - side]][begin:end]
            for k in range(end - begin):
                same[k] = new[k]
                other[k] -= new[k]
        if categorical[f]:
            continue
        for node in range(first, first + together):
            if not allowed[node, f]:
                continue
            cells = histograms[slots[node]][begin:end]
            best, best_bin, best_left, best_g, best_h = search_column(
                *(cells, np.int64(bins[f]), totals[node, 0], totals[node, 1], node_gain[node], lower[node]),
                *(upper[node], np.int64(monotone[f]), rule, room),
            )
            gain[node, f], bin_[node, f], default_left[node, f] = best, best_bin, best_left
            left[node, f, 0], left[node, f, 1] = best_g, best_h
