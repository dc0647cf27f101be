"""Splits of categorical columns: one category against the rest, or two groups.

With fewer than `max_cat_to_onehot` categories each is tried alone; with more they are sorted by the weight that
each would take, and cut in two along that order, with missing values tried on both sides (Fisher 1958, as in
XGBoost: `src/tree/hist/evaluate_splits.h`). The chosen categories go right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.gain import Regularisation, leaf_weight
from lepton_pipelines.boosting.pool import Pool, spans
from lepton_pipelines.boosting.split import Candidates, NodeBatch, change_of

Int8Array = NDArray[np.int8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
ByteArray = NDArray[np.uint8]
Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class CategoricalRule:
    """How categories are split.

    max_cat_to_onehot: columns with fewer categories are split one against the rest.
    max_cat_threshold: the most categories that are looked at from each end of the sorted order.
    """

    max_cat_to_onehot: int
    max_cat_threshold: int

    def is_one_hot(self, categories: int) -> bool:
        """Tell whether a column of so many categories is split one against the rest."""
        return categories < self.max_cat_to_onehot


def search_categorical(
    found: Candidates,
    nodes: NodeBatch,
    binning: Binning,
    rule: Regularisation,
    categorical: CategoricalRule,
    monotone: Int8Array,
    inverse: tuple[float, float],
    pool: Pool,
) -> None:
    """Search the categorical columns of all nodes and write what is found into `found`."""
    columns = np.flatnonzero(binning.categorical).astype(np.int64)
    arguments = (
        *(nodes.histograms, nodes.slots, binning.offsets, binning.bins, columns),
        *(nodes.totals, nodes.gain, nodes.allowed, *inverse),
        *(nodes.lower, nodes.upper, monotone),
        *(rule.reg_lambda, rule.reg_alpha, rule.min_child_weight, rule.max_delta_step),
        *(categorical.max_cat_to_onehot, categorical.max_cat_threshold),
        *(found.gain, found.bin, found.default_left, found.left),
    )
    places = spans(len(nodes.totals) * len(columns), pool.threads if len(nodes.totals) > 8 else 1)
    pool.run([(_search, (*arguments, lo, hi)) for lo, hi in places])


def categories_right(
    histogram: Int64Array,
    binning: Binning,
    feature: int,
    cut: int,
    rule: Regularisation,
    categorical: CategoricalRule,
    inverse: tuple[float, float],
) -> Int32Array:
    """Return the categories that go right, int32, ascending, of a split that `search_categorical` found.

    histogram: int64, 2 * cells, the node's. cut: the candidate's `bin`.
    """
    bins = int(binning.bins[feature])
    if categorical.is_one_hot(bins):
        return np.array([cut], np.int32)
    start = 2 * int(binning.offsets[feature])
    weights = np.empty(bins, np.float32)
    _weigh(
        histogram[start : start + 2 * bins],
        *inverse,
        rule.reg_lambda,
        rule.reg_alpha,
        rule.max_delta_step,
        weights,
    )
    return np.sort(np.argsort(weights, kind="stable")[:cut]).astype(np.int32)


@kernel
def _weigh(
    cells: Int64Array,
    unit_g: float,
    unit_h: float,
    reg_lambda: float,
    alpha: float,
    max_delta_step: float,
    out: Float32Array,
) -> None:
    for c in range(len(out)):
        g, h = np.float64(cells[2 * c]) * unit_g, np.float64(cells[2 * c + 1]) * unit_h
        out[c] = leaf_weight(g, h, reg_lambda, alpha, max_delta_step)


@kernel
def _search(
    histograms: Int64Array,
    slots: Int64Array,
    offsets: Int32Array,
    bins: Int32Array,
    columns: Int64Array,
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
    max_cat_to_onehot: int,
    max_cat_threshold: int,
    gain: Float32Array,
    bin_: Int32Array,
    default_left: ByteArray,
    left: Int64Array,
    lo: int,
    hi: int,
) -> None:
    for place in range(lo, hi):
        node, f = place // len(columns), columns[place % len(columns)]
        if not allowed[node, f]:
            continue
        count: Any = np.int64(bins[f])
        cells = histograms[slots[node], 2 * np.int64(offsets[f]) : 2 * (np.int64(offsets[f]) + count)]
        total_g, total_h = totals[node, 0], totals[node, 1]
        one_hot = count < max_cat_to_onehot
        order = np.arange(count)
        lost_g, lost_h = total_g, total_h
        if one_hot:
            looked_at = count
            for c in range(count):
                lost_g -= cells[2 * c]
                lost_h -= cells[2 * c + 1]
        else:
            looked_at = (count if count < max_cat_threshold else max_cat_threshold) - 1
            weights = np.empty(count, np.float32)
            _weigh(cells, unit_g, unit_h, reg_lambda, alpha, max_delta_step, weights)
            order = np.argsort(weights, kind="mergesort")
        cut: Any = 0
        missing_left: Any = True
        sum_g = sum_h = np.int64(0)
        # One-hot: each category, first with missing values to the left, then to the right. Sorted: from the front,
        # the right side grows and missing values stay left; then from the back, the left side grows.
        for step in range(2 * looked_at):
            if one_hot:
                cut, missing_left = step >> 1, step & 1 == 0
                right_g = cells[2 * cut] + (0 if missing_left else lost_g)
                right_h = cells[2 * cut + 1] + (0 if missing_left else lost_h)
            else:
                if step == looked_at:
                    sum_g = sum_h = np.int64(0)
                missing_left = step < looked_at
                j = step if missing_left else count - 1 - (step - looked_at)
                sum_g += cells[2 * order[j]]
                sum_h += cells[2 * order[j] + 1]
                cut = step + 1 if missing_left else j
                right_g = sum_g if missing_left else total_g - sum_g
                right_h = sum_h if missing_left else total_h - sum_h
            h_left, h_right = np.float64(total_h - right_h) * unit_h, np.float64(right_h) * unit_h
            change = change_of(
                np.float64(total_g - right_g) * unit_g,
                h_left,
                np.float64(right_g) * unit_g,
                h_right,
                node_gain[node],
                lower[node],
                upper[node],
                np.int64(monotone[f]),
                reg_lambda,
                alpha,
                min_child_weight,
                max_delta_step,
            )
            if change > gain[node, f]:
                gain[node, f], bin_[node, f], default_left[node, f] = change, cut, missing_left
                left[node, f, 0], left[node, f, 1] = total_g - right_g, total_h - right_h
