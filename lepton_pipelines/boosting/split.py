"""The best split of each node, from its histogram alone.

XGBoost's search: each column is scanned forward with missing values to the right, and, if the node has missing
values there, backward with them to the left; a later split must be strictly better, within a column and across
columns. A pure function of integer totals: every party finds the same split, nothing is sent back.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.compiled import inlined, kernel
from lepton_pipelines.boosting.gain import Regularisation, clamp, gain_of, leaf_weight
from lepton_pipelines.boosting.pool import Pool, spans

Int8Array = NDArray[np.int8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
ByteArray = NDArray[np.uint8]
Float32Array = NDArray[np.float32]

_SMALL = 1 << 14  # cells up to which one thread searches alone


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
class NodeBatch:
    """Nodes whose best splits are wanted, one entry a node.

    histograms: int64, (nodes, 2 * cells). totals: int64, (nodes, 2). gain: float32, what the node is worth without
    a split. lower, upper: float32, the bounds that monotone constraints leave its children's weights.
    allowed: uint8, (nodes, features), which columns may be asked about.
    """

    histograms: Int64Array
    totals: Int64Array
    gain: Float32Array
    lower: Float32Array
    upper: Float32Array
    allowed: ByteArray


def search_numeric(
    nodes: NodeBatch,
    binning: Binning,
    rule: Regularisation,
    monotone: Int8Array,
    inverse: tuple[float, float],
    pool: Pool,
) -> Candidates:
    """Search the numeric columns of all nodes.

    monotone: int8, one a column, -1, 0 or 1. inverse: what one quantised unit of gradient and of hessian is worth.
    """
    count, features = nodes.allowed.shape
    found = Candidates.none(count, features)
    numeric = nodes.allowed & ~binning.categorical.view(np.uint8) & 1
    arguments = (
        *(nodes.histograms, binning.offsets, binning.bins, nodes.totals, nodes.gain, numeric, *inverse),
        *(nodes.lower, nodes.upper, monotone),
        *(rule.reg_lambda, rule.reg_alpha, rule.min_child_weight, rule.max_delta_step),
        *(found.gain, found.bin, found.default_left, found.left),
    )
    parts = pool.threads if count * binning.cells > _SMALL else 1
    pool.run([(_search, (*arguments, lo, hi)) for lo, hi in spans(count * features, parts)])
    return found


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


@kernel
def _search(
    histograms: Int64Array,
    offsets: Int32Array,
    bins: Int32Array,
    totals: Int64Array,
    node_gain: Float32Array,
    allowed: ByteArray,
    unit_g: float,
    unit_h: float,
    lower: Float32Array,
    upper: Float32Array,
    monotone: Int8Array,
    reg_lambda: float,
    alpha: float,
    min_child_weight: float,
    max_delta_step: float,
    gain: Float32Array,
    bin_: Int32Array,
    default_left: ByteArray,
    left: Int64Array,
    lo: int,
    hi: int,
) -> None:
    features = allowed.shape[1]
    widest = np.int64(np.max(bins)) if len(bins) else np.int64(1)
    # One column at a time: the left side's sums of every split, then all gains at once, in vector instructions.
    left_g, left_h = np.empty(widest, np.int64), np.empty(widest, np.int64)
    changes = np.empty(widest, np.float32)
    for place in range(lo, hi):
        node, f = place // features, place % features
        if not allowed[node, f]:
            continue
        total_g, total_h = totals[node, 0], totals[node, 1]
        worth, low, high, direction = node_gain[node], lower[node], upper[node], np.int64(monotone[f])
        at, count = 2 * np.int64(offsets[f]), np.int64(bins[f])
        sum_g = sum_h = np.int64(0)
        for k in range(count):
            sum_g += histograms[node, at + 2 * k]
            sum_h += histograms[node, at + 2 * k + 1]
            left_g[k], left_h[k] = sum_g, sum_h
        best, best_bin, best_left = np.float32(0.0), -1, 0
        best_g = best_h = np.int64(0)
        missing_g, missing_h = total_g - sum_g, total_h - sum_h
        passes = 2 if (missing_g != 0) | (missing_h != 0) else 1
        for backward in range(passes):
            # Backward, rows that lack the value are on the left. A split there ends before the bin that XGBoost's
            # scan has just added to the right, and the one before the first bin leaves them alone on the left.
            add_g, add_h = (missing_g, missing_h) if backward else (np.int64(0), np.int64(0))
            for k in range(count):
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
                for k in range(count):
                    if changes[k] > best:
                        best, best_bin = changes[k], k
                        best_g, best_h = left_g[k], left_h[k]
            else:
                # The last bin's split has no row right of it; before the first bin there is one more.
                for k in range(count - 2, -1, -1):
                    if changes[k] > best:
                        best, best_bin, best_left = changes[k], k, 1
                        best_g, best_h = left_g[k] + missing_g, left_h[k] + missing_h
                change = change_of(
                    np.float64(missing_g) * unit_g,
                    np.float64(missing_h) * unit_h,
                    np.float64(sum_g) * unit_g,
                    np.float64(sum_h) * unit_h,
                    worth,
                    low,
                    high,
                    direction,
                    reg_lambda,
                    alpha,
                    min_child_weight,
                    max_delta_step,
                )
                if change > best:
                    best, best_bin, best_left = change, -1, 1
                    best_g, best_h = missing_g, missing_h
        gain[node, f], bin_[node, f], default_left[node, f] = best, best_bin, best_left
        left[node, f, 0], left[node, f, 1] = best_g, best_h
