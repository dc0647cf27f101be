"""The compiled loops behind the objectives: gradient and hessian of each row, in XGBoost's float32 arithmetic.

All kernels have one form, so that the objectives are a table:

    kernel(label, weight, margin, constants, lo, hi, out)

label: float32, (rows,). weight: float32, (rows,) or empty for ones. margin: float32, (outputs, rows).
constants: float64, what the objective's parameters come to, in the order that its entry in the table gives.
lo, hi: the rows to compute. out: float32, (outputs, rows, 2), gradient and hessian.

Each step is rounded to float32 where XGBoost rounds it: the sums are quantised to 24 bits later, and a gradient
that is off by its last bit may fall to the other side. (XGBoost 3.4: `src/objective/`.)
"""

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.exact_math import exp, hypotenuse, log1p, sigmoid, tanh

F32 = NDArray[np.float32]  # short, because every kernel has the same seven arguments
F64 = NDArray[np.float64]

_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)
_SMALLEST_HESSIAN = np.float32(1e-16)
_SMALLEST_NORMAL = np.float32(1.1754943508222875e-38)
_LOG1P_FLOOR = np.float32(-1.0 + 1e-6)
_SQUARED_LOG_HESSIAN_FLOOR = np.float32(1e-6)
_QUANTILE_BANDWIDTH = np.float32(0.04)
_QUANTILE_HESSIAN = np.float32(0.5) / np.float32(0.04)
_QUANTILE_RATIO_FLOOR = np.float32(3.0e-4)
# Rows whose exponentials are computed in a loop of their own, which becomes vector code: together with weights and
# labels it does not, nor with start + r as index, which might be negative for all Numba knows. Hence the slices.
# A block stays in the first-level cache.
_BLOCK = 256


@kernel
def squared_error(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """reg:squarederror; constants: scale_pos_weight."""
    positive = np.float32(constants[0])
    weighted = len(weight) > 0
    for i in range(lo, hi):
        w = weight[i] if weighted else _ONE
        w = w * positive if label[i] == _ONE else w
        out[0, i, 0] = (margin[0, i] - label[i]) * w
        out[0, i, 1] = w


@kernel
def squared_log_error(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """reg:squaredlogerror; no constants."""
    weighted = len(weight) > 0
    log_p, log_y = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(lo, hi, _BLOCK):
        rows = min(_BLOCK, hi - start)
        margins, labels = margin[0, start : start + rows], label[start : start + rows]
        for r in range(rows):
            log_p[r] = log1p(margins[r] if margins[r] > _LOG1P_FLOOR else _LOG1P_FLOOR)
        for r in range(rows):
            log_y[r] = log1p(labels[r])
        for r in range(rows):
            i = start + r
            w = weight[i] if weighted else _ONE
            p = margin[0, i]
            shifted = (p if p > _LOG1P_FLOOR else _LOG1P_FLOOR) + _ONE
            h = np.float32(np.float64(-log_p[r] + log_y[r] + _ONE) / (np.float64(shifted) * np.float64(shifted)))
            h = h if h > _SQUARED_LOG_HESSIAN_FLOOR else _SQUARED_LOG_HESSIAN_FLOOR
            out[0, i, 0] = ((log_p[r] - log_y[r]) / shifted) * w
            out[0, i, 1] = h * w


@kernel
def pseudo_huber_error(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """reg:pseudohubererror; constants: huber_slope."""
    slope = np.float32(constants[0])
    slope_square = slope * slope
    weighted = len(weight) > 0
    for i in range(lo, hi):
        w = weight[i] if weighted else _ONE
        z = margin[0, i] - label[i]
        z_square = z * z
        root = np.sqrt(_ONE + z_square / slope_square)
        out[0, i, 0] = (z / root) * w
        out[0, i, 1] = (slope_square / ((slope_square + z_square) * root)) * w


@kernel
def logistic(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """binary:logistic, binary:logitraw, reg:logistic; constants: scale_pos_weight."""
    positive = np.float32(constants[0])
    weighted = len(weight) > 0
    probability = np.empty(_BLOCK, np.float32)
    for start in range(lo, hi, _BLOCK):
        rows = min(_BLOCK, hi - start)
        margins = margin[0, start : start + rows]
        for r in range(rows):
            probability[r] = sigmoid(margins[r])
        for r in range(rows):
            i = start + r
            w = weight[i] if weighted else _ONE
            w = w * positive if label[i] == _ONE else w
            p = probability[r]
            h = p * (_ONE - p)
            h = h if h > _SMALLEST_HESSIAN else _SMALLEST_HESSIAN
            out[0, i, 0] = (p - label[i]) * w
            out[0, i, 1] = h * w


@kernel
def hinge(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """binary:hinge; no constants."""
    weighted = len(weight) > 0
    for i in range(lo, hi):
        w = weight[i] if weighted else _ONE
        y = label[i] * _TWO - _ONE
        inside = margin[0, i] * y < _ONE
        out[0, i, 0] = -y * w if inside else _ZERO
        out[0, i, 1] = w if inside else _SMALLEST_NORMAL


@kernel
def poisson(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """count:poisson; constants: max_delta_step."""
    step = np.float32(constants[0])
    weighted = len(weight) > 0
    mean, later = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(lo, hi, _BLOCK):
        rows = min(_BLOCK, hi - start)
        margins = margin[0, start : start + rows]
        for r in range(rows):
            mean[r] = exp(margins[r])
        for r in range(rows):
            later[r] = exp(margins[r] + step)
        for r in range(rows):
            i = start + r
            w = weight[i] if weighted else _ONE
            out[0, i, 0] = (mean[r] - label[i]) * w
            out[0, i, 1] = later[r] * w


@kernel
def gamma(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """reg:gamma; constants: scale_pos_weight."""
    positive = np.float32(constants[0])
    weighted = len(weight) > 0
    mean = np.empty(_BLOCK, np.float32)
    for start in range(lo, hi, _BLOCK):
        rows = min(_BLOCK, hi - start)
        margins = margin[0, start : start + rows]
        for r in range(rows):
            mean[r] = exp(margins[r])
        for r in range(rows):
            i = start + r
            w = weight[i] if weighted else _ONE
            w = w * positive if label[i] == _ONE else w
            ratio = label[i] / mean[r]
            out[0, i, 0] = (_ONE - ratio) * w
            out[0, i, 1] = ratio * w


@kernel
def tweedie(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """reg:tweedie; constants: tweedie_variance_power."""
    rho = np.float32(constants[0])
    one_less, two_less = _ONE - rho, _TWO - rho
    weighted = len(weight) > 0
    first, second = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for start in range(lo, hi, _BLOCK):
        rows = min(_BLOCK, hi - start)
        margins = margin[0, start : start + rows]
        for r in range(rows):
            first[r] = exp(one_less * margins[r])
        for r in range(rows):
            second[r] = exp(two_less * margins[r])
        for r in range(rows):
            i = start + r
            w = weight[i] if weighted else _ONE
            y = label[i]
            out[0, i, 0] = (-y * first[r] + second[r]) * w
            out[0, i, 1] = (-y * one_less * first[r] + two_less * second[r]) * w


@kernel
def absolute_error(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """reg:absoluteerror as XGBoost 3.4 smooths it; constants: the scale of this round's residuals."""
    scale = np.float32(constants[0])
    weighted = len(weight) > 0
    for i in range(lo, hi):
        w = weight[i] if weighted else _ONE
        residual = margin[0, i] - label[i]
        norm = hypotenuse(scale, residual)
        curvature = scale / norm if norm > _ZERO else _ONE
        out[0, i, 0] = w * residual * curvature
        out[0, i, 1] = w * curvature


@kernel
def quantile_error(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """reg:quantileerror as XGBoost 3.4 smooths it; constants: for each output the scale of this round's residuals,
    then for each output its level (alpha).
    """
    weighted = len(weight) > 0
    outputs = len(margin)
    x, t = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    for k in range(outputs):
        scale, alpha = np.float32(constants[k]), np.float32(constants[outputs + k])
        bandwidth = _QUANTILE_BANDWIDTH * scale
        half_scale = _HALF * scale
        for start in range(lo, hi, _BLOCK):
            rows = min(_BLOCK, hi - start)
            margins, labels = margin[k, start : start + rows], label[start : start + rows]
            for r in range(rows):
                x[r] = (margins[r] - labels[r]) / bandwidth
            for r in range(rows):
                t[r] = tanh(x[r])
            for r in range(rows):
                i = start + r
                w = weight[i] if weighted else _ONE
                ratio = t[r] / x[r] if x[r] != _ZERO else _ONE
                ratio = ratio if ratio > _QUANTILE_RATIO_FLOOR else _QUANTILE_RATIO_FLOOR
                counts = (scale > _ZERO) & (w != _ZERO)
                out[k, i, 0] = w * (half_scale * (t[r] + _ONE - _TWO * alpha)) if counts else _ZERO
                out[k, i, 1] = w * (_QUANTILE_HESSIAN * ratio) if counts else _ZERO


@kernel
def softmax(label: F32, weight: F32, margin: F32, constants: F64, lo: int, hi: int, out: F32) -> None:
    """multi:softmax, multi:softprob; no constants."""
    weighted = len(weight) > 0
    classes = len(margin)
    largest = np.empty(_BLOCK, np.float32)
    total = np.empty(_BLOCK, np.float64)
    power = np.empty(_BLOCK, np.float32)
    shares = np.empty((classes, _BLOCK), np.float32)
    for start in range(lo, hi, _BLOCK):
        rows = min(_BLOCK, hi - start)
        largest[:rows] = _SMALLEST_NORMAL  # XGBoost begins its search for the largest margin here
        total[:rows] = 0.0
        for k in range(classes):
            margins = margin[k, start : start + rows]
            for r in range(rows):
                largest[r] = margins[r] if margins[r] > largest[r] else largest[r]
        for k in range(classes):
            margins = margin[k, start : start + rows]
            for r in range(rows):
                power[r] = exp(margins[r] - largest[r])
            for r in range(rows):
                shares[k, r] = power[r]
                total[r] += np.float64(power[r])
        for k in range(classes):
            this_class = np.float32(k)
            for r in range(rows):
                i = start + r
                w = weight[i] if weighted else _ONE
                p = shares[k, r] / np.float32(total[r])
                h = _TWO * p * (_ONE - p) * w
                out[k, i, 0] = (p - _ONE if label[i] == this_class else p) * w
                out[k, i, 1] = h if h > _SMALLEST_HESSIAN else _SMALLEST_HESSIAN


@kernel
def root_residuals(label: F32, weight: F32, margin: F32, lo: int, hi: int, out: F32) -> None:
    """Write w √|margin − label| of each row to out, float32, (rows,); margin: float32, (rows,), one output's."""
    weighted = len(weight) > 0
    for i in range(lo, hi):
        w = weight[i] if weighted else _ONE
        out[i] = w * np.sqrt(np.abs(margin[i] - label[i]))


@kernel
def apply_sigmoid(margin: F32, lo: int, hi: int, out: F32) -> None:
    """Probabilities of margins; both float32, (outputs, rows)."""
    for k in range(len(margin)):
        for i in range(lo, hi):
            out[k, i] = sigmoid(margin[k, i])


@kernel
def apply_exp(margin: F32, lo: int, hi: int, out: F32) -> None:
    """e^margin; both float32, (outputs, rows)."""
    for k in range(len(margin)):
        for i in range(lo, hi):
            out[k, i] = exp(margin[k, i])


@kernel
def apply_hinge(margin: F32, lo: int, hi: int, out: F32) -> None:
    """1 where the margin is above 0, else 0; both float32, (outputs, rows)."""
    for k in range(len(margin)):
        for i in range(lo, hi):
            out[k, i] = _ONE if margin[k, i] > _ZERO else _ZERO


@kernel
def apply_softmax(margin: F32, lo: int, hi: int, out: F32) -> None:
    """Probabilities of the classes; both float32, (classes, rows)."""
    largest = np.empty(_BLOCK, np.float32)
    total = np.empty(_BLOCK, np.float64)
    power = np.empty(_BLOCK, np.float32)
    for start in range(lo, hi, _BLOCK):
        rows = min(_BLOCK, hi - start)
        largest[:rows] = margin[0, start : start + rows]
        total[:rows] = 0.0
        for k in range(1, len(margin)):
            margins = margin[k, start : start + rows]
            for r in range(rows):
                largest[r] = margins[r] if margins[r] > largest[r] else largest[r]
        for k in range(len(margin)):
            margins, shares = margin[k, start : start + rows], out[k, start : start + rows]
            for r in range(rows):
                power[r] = exp(margins[r] - largest[r])
            for r in range(rows):
                shares[r] = power[r]
                total[r] += np.float64(power[r])
        for k in range(len(margin)):
            shares = out[k, start : start + rows]
            for r in range(rows):
                shares[r] /= np.float32(total[r])


@kernel
def apply_sort(margin: F32, lo: int, hi: int, out: F32) -> None:
    """Each row's quantiles in ascending order, as XGBoost 3.4 predicts them; both float32, (outputs, rows)."""
    for i in range(lo, hi):
        for k in range(len(margin)):
            value = margin[k, i]
            place = k
            while place > 0 and out[place - 1, i] > value:
                out[place, i] = out[place - 1, i]
                place -= 1
            out[place, i] = value
