"""The best split of each node, from its histogram alone.

XGBoost's search: each column is scanned forward with missing values to the right, and, if the node has missing
values there, backward with them to the left; a later split must be strictly better, within a column and across
columns. A pure function of integer totals: every party finds the same split, nothing is sent back.
"""

from dataclasses import dataclass

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
    limited = rule.max_delta_step != 0.0 or bool(monotone.any())
    arguments = (
        *(nodes.histograms, binning.offsets, binning.bins, nodes.totals, nodes.gain, numeric, *inverse),
        *(nodes.lower, nodes.upper, monotone, limited),
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
    direction: int,
    limited: bool,
    reg_lambda: float,
    alpha: float,
    max_delta_step: float,
) -> np.float32:
    """What a split gains, over `worth` without it.

    limited: whether max_delta_step or monotone constraints bound the weights. Both hessians reach min_child_weight.
    """
    left = leaf_weight(g_left, h_left, reg_lambda, alpha, max_delta_step)
    right = leaf_weight(g_right, h_right, reg_lambda, alpha, max_delta_step)
    if limited:
        left, right = clamp(left, lower, upper), clamp(right, lower, upper)
    both = gain_of(g_left, h_left, left, reg_lambda, alpha) + gain_of(g_right, h_right, right, reg_lambda, alpha)
    if (direction > 0 and not left <= right) or (direction < 0 and not left >= right):
        return np.float32(-np.inf)
    return both - worth


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
    limited: bool,
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
    for place in range(lo, hi):
        node, f = place // features, place % features
        if not allowed[node, f]:
            continue
        total_g, total_h = totals[node, 0], totals[node, 1]
        worth, low, high, direction = node_gain[node], lower[node], upper[node], monotone[f]
        best, best_bin, best_left = np.float32(0.0), -1, 0
        best_g = best_h = np.int64(0)
        at, count = 2 * np.int64(offsets[f]), np.int64(bins[f])
        sum_g = sum_h = np.int64(0)
        for k in range(count):
            g, h = histograms[node, at + 2 * k], histograms[node, at + 2 * k + 1]
            if g == 0 and h == 0:
                continue  # the same split as before, which is not strictly better
            sum_g += g
            sum_h += h
            h_left, h_right = np.float64(sum_h) * unit_h, np.float64(total_h - sum_h) * unit_h
            if h_left >= min_child_weight and h_right >= min_child_weight:
                g_left, g_right = np.float64(sum_g) * unit_g, np.float64(total_g - sum_g) * unit_g
                change = change_of(
                    g_left,
                    h_left,
                    g_right,
                    h_right,
                    worth,
                    low,
                    high,
                    direction,
                    limited,
                    reg_lambda,
                    alpha,
                    max_delta_step,
                )
                if change > best:
                    best, best_bin, best_g, best_h = change, k, sum_g, sum_h
        if sum_g != total_g or sum_h != total_h:  # some rows lack the value: once more, with them on the left
            sum_g = sum_h = np.int64(0)
            for k in range(count - 1, -1, -1):
                g, h = histograms[node, at + 2 * k], histograms[node, at + 2 * k + 1]
                if g == 0 and h == 0:
                    continue
                sum_g += g
                sum_h += h
                h_left, h_right = np.float64(total_h - sum_h) * unit_h, np.float64(sum_h) * unit_h
                if h_left >= min_child_weight and h_right >= min_child_weight:
                    g_left, g_right = np.float64(total_g - sum_g) * unit_g, np.float64(sum_g) * unit_g
                    change = change_of(
                        g_left,
                        h_left,
                        g_right,
                        h_right,
                        worth,
                        low,
                        high,
                        direction,
                        limited,
                        reg_lambda,
                        alpha,
                        max_delta_step,
                    )
                    if change > best:
                        best, best_bin, best_left = change, k - 1, 1
                        best_g, best_h = total_g - sum_g, total_h - sum_h
        gain[node, f], bin_[node, f], default_left[node, f] = best, best_bin, best_left
        left[node, f, 0], left[node, f, 1] = best_g, best_h
