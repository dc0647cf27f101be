"""The compiled loops behind the metrics: each row's loss in XGBoost's float32 arithmetic, added up exactly.

    kernel(label, weight, prediction, constants, cells)

label: float32, (rows,). weight: float32, (rows,) or empty for ones. prediction: float32, (outputs, rows).
constants: float64, the metric's own. cells: int64, (POWERS,), of `exact_sum`; the weighted losses are added.

Formulas: XGBoost 3.4, `src/metric/`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import inlined, kernel
from lepton_pipelines.boosting.exact_math import exp_double, log, log1p, log_double, log_gamma
from lepton_pipelines.boosting.exact_sum import add_float
from lepton_pipelines.sums import Int64Array

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
LossKernel = Callable[[F32, F32, F32, F64, Int64Array], None]

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TINY = np.float32(1e-16)
_RELATIVE = np.float32(1e-6)
_BLOCK = 512  # rows whose losses are computed as vectors before they are added up one by one


def _row_losses(loss: Callable[[Any, Any, Any], Any]) -> LossKernel:
    """A kernel of a loss that looks at one row's label and prediction: loss(label, prediction, constants)."""

    def add_losses(label: F32, weight: F32, prediction: F32, constants: F64, cells: Int64Array) -> None:
        weighted = len(weight) > 0
        losses = np.empty(_BLOCK, np.float32)
        for start in range(0, len(label), _BLOCK):
            rows = min(_BLOCK, len(label) - start)
            # Slices: with start + r as index, which might be negative for all Numba knows, no vector code comes out.
            labels, predictions = label[start : start + rows], prediction[0, start : start + rows]
            for r in range(rows):
                losses[r] = loss(labels[r], predictions[r], constants)
            if weighted:
                weights = weight[start : start + rows]
                for r in range(rows):
                    losses[r] *= weights[r]
            for r in range(rows):
                add_float(cells, losses[r])

    return kernel(add_losses)


@inlined
def _squared(y: np.float32, p: np.float32, constants: F64) -> Any:
    return (y - p) * (y - p)


@inlined
def _squared_log(y: np.float32, p: np.float32, constants: F64) -> Any:
    difference = log1p(y) - log1p(p)
    return difference * difference


@inlined
def _absolute(y: np.float32, p: np.float32, constants: F64) -> Any:
    return np.abs(y - p)


@inlined
def _relative(y: np.float32, p: np.float32, constants: F64) -> Any:
    return np.abs((y - p) / y)


@inlined
def _pseudo_huber(y: np.float32, p: np.float32, constants: F64) -> Any:
    slope = np.float32(constants[0])
    z = (y - p) / slope
    return slope * slope * (np.sqrt(_ONE + z * z) - _ONE)


@inlined
def _x_log_y(x: np.float32, y: np.float32) -> Any:
    product = x * log(y if y > _TINY else _TINY)
    return product if x != _ZERO else _ZERO


@inlined
def _log_loss(y: np.float32, p: np.float32, constants: F64) -> Any:
    return _x_log_y(-y, p) + _x_log_y(-(_ONE - y), _ONE - p)


@inlined
def _error(y: np.float32, p: np.float32, constants: F64) -> Any:
    return _ONE - y if p > np.float32(constants[0]) else y


@inlined
def _poisson(y: np.float32, p: np.float32, constants: F64) -> Any:
    mean = p if p > _TINY else _TINY
    return np.float32(log_gamma(np.float64(y) + 1.0)) + mean - log(mean) * y


@inlined
def _gamma(y: np.float32, p: np.float32, constants: F64) -> Any:
    mean = p if p > _RELATIVE else _RELATIVE
    theta = -_ONE / mean
    return -(y * theta + log(-theta))


@inlined
def _gamma_deviance(y: np.float32, p: np.float32, constants: F64) -> Any:
    p, y = p + _RELATIVE, y + _RELATIVE
    return log(p / y) + y / p - _ONE


@inlined
def _tweedie(y: np.float32, p: np.float32, constants: F64) -> Any:
    rho = np.float32(constants[0])
    one_less, two_less = _ONE - rho, np.float32(2.0) - rho
    log_p = log_double(np.float64(p))
    first = y * np.float32(exp_double(np.float64(one_less) * log_p)) / one_less
    second = np.float32(exp_double(np.float64(two_less) * log_p)) / two_less
    return -first + second


squared = _row_losses(_squared)
squared_log = _row_losses(_squared_log)
absolute = _row_losses(_absolute)
relative = _row_losses(_relative)
pseudo_huber = _row_losses(_pseudo_huber)
log_loss = _row_losses(_log_loss)
error = _row_losses(_error)
poisson = _row_losses(_poisson)
gamma = _row_losses(_gamma)
gamma_deviance = _row_losses(_gamma_deviance)
tweedie = _row_losses(_tweedie)


@kernel
def quantile(label: F32, weight: F32, prediction: F32, constants: F64, cells: Int64Array) -> None:
    """Pinball loss, of every output at its level; constants: the levels."""
    weighted = len(weight) > 0
    for k in range(len(prediction)):
        level = np.float32(constants[k])
        for i in range(len(label)):
            difference = label[i] - prediction[k, i]
            loss = level * difference if difference >= _ZERO else (level - _ONE) * difference
            add_float(cells, loss * weight[i] if weighted else loss)


@kernel
def multi_class_log_loss(label: F32, weight: F32, prediction: F32, constants: F64, cells: Int64Array) -> None:
    """Minus the logarithm of the probability of a row's own class; no constants."""
    weighted = len(weight) > 0
    for i in range(len(label)):
        p = prediction[int(label[i]), i]
        loss = -log(p if p > _TINY else _TINY)
        add_float(cells, loss * weight[i] if weighted else loss)


@kernel
def multi_class_error(label: F32, weight: F32, prediction: F32, constants: F64, cells: Int64Array) -> None:
    """1 where the likeliest class, the first of equals, is not the label; no constants."""
    weighted = len(weight) > 0
    best = np.empty(_BLOCK, np.float32)
    argument = np.empty(_BLOCK, np.float32)
    for start in range(0, len(label), _BLOCK):
        rows = min(_BLOCK, len(label) - start)
        best[:rows] = prediction[0, start : start + rows]
        argument[:rows] = _ZERO
        for k in range(1, len(prediction)):
            predictions = prediction[k, start : start + rows]
            for r in range(rows):
                argument[r] = np.float32(k) if predictions[r] > best[r] else argument[r]
                best[r] = predictions[r] if predictions[r] > best[r] else best[r]
        for r in range(rows):
            i = start + r
            loss = _ONE if argument[r] != label[i] else _ZERO
            add_float(cells, loss * weight[i] if weighted else loss)


@inlined
def _cell(prediction: np.float32, probability: bool, half: float) -> int:
    """The cell of a score, 0 … 2·half − 1, ascending with it.

    A probability becomes its logit first; then m / (1 + |m|) spreads all numbers over −1 … 1, finest around 0.
    """
    p = np.float64(prediction)
    # The floor stands below the smallest float32 above 0, the ceiling above the largest below 1.
    clipped = p if p > 1e-46 else 1e-46
    rest = 1.0 - p
    clipped_rest = rest if rest > 1e-9 else 1e-9
    score = log_double(clipped / clipped_rest) if probability else p
    return int((score / (1.0 + np.abs(score)) + 1.0) * half)


@kernel
def count_scores(
    positive: NDArray[np.bool_],
    units: Int64Array,
    prediction: F32,
    probability: bool,
    histogram: Int64Array,
) -> None:
    """Count rows by score.

    positive: bool, (rows,). units: int64, (rows,), what a row counts, or empty for 1. prediction: float32, (rows,).
    probability: whether predictions lie in 0 … 1. histogram: int64, (2, cells), negative and positive rows.
    """
    half = np.float64(histogram.shape[1] // 2)
    last = histogram.shape[1] - 1
    weighted = len(units) > 0
    places = np.empty(_BLOCK, np.int64)
    for start in range(0, len(prediction), _BLOCK):
        rows = min(_BLOCK, len(prediction) - start)
        predictions = prediction[start : start + rows]
        for r in range(rows):
            places[r] = _cell(predictions[r], probability, half)
        for r in range(rows):
            i = start + r
            histogram[int(positive[i]), min(places[r], last)] += units[i] if weighted else 1
