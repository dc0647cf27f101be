"""Transcendental functions whose bits do not depend on the processor or on where a row stands.

A vectorised `exp` of a mathematical library may round the lanes of a loop's remainder differently from the lanes
of its body, and two processors may get two libraries; then a row's gradient, and with it the model, would depend
on the row's place. The functions here are IEEE additions, multiplications and divisions in double, rounded once to
float32: the scalar and the vector form of these are the same by the standard, and nothing is contracted to a fused
multiply-add because Numba leaves that off unless `fastmath` is asked for. They have no branches and no tables, so
loops over them become vector code.

The double inside carries at least 36 correct bits, so that the float32 is the correctly rounded one but for some
value in ten thousand, and then its neighbour. Method: argument reduction by powers of two and Taylor polynomials
in Horner's form.
"""

from math import factorial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lepton_pipelines.boosting.compiled import inlined, kernel

_LOG2_E = 1.4426950408889634
# ln 2 in two parts: the upper one has 21 trailing zero bits, so that its product with an exponent is exact.
_LN2_UPPER = 0.6931471803691238
_LN2_LOWER = 1.9082149292705877e-10
# Adding and subtracting 1.5 * 2^52 rounds a double to the nearest integer, which stands in its lowest bits between.
_ROUNDING = 6755399441055744.0
_ROUNDING_BITS = 0x4338000000000000
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD

_EXP = tuple(1.0 / factorial(n) for n in range(11))
_ATANH = tuple(1.0 / (2 * n + 1) for n in range(10))


def _reinterpret(to: ir.Type, result: types.Type, source: types.Type) -> Any:
    """An intrinsic that reads the bits of one type as another's, without computing anything."""

    def reinterpret(typing: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], to)

        return result(source), code

    return intrinsic(reinterpret)


_bits: Any = _reinterpret(ir.IntType(64), types.int64, types.float64)
_from_bits: Any = _reinterpret(ir.DoubleType(), types.float64, types.int64)
float_bits: Any = _reinterpret(ir.IntType(32), types.int32, types.float32)


@inlined
def exp_double(x: float) -> float:
    """e^x of a double, to some 37 bits; 0 below −708 and e^709 above 709. NaN is not looked for."""
    x = x if x > -708.0 else -708.0
    x = x if x < 709.0 else 709.0
    shifted = x * _LOG2_E + _ROUNDING
    k = shifted - _ROUNDING
    r = (x - k * _LN2_UPPER) - k * _LN2_LOWER
    p = _EXP[10]
    p = p * r + _EXP[9]
    p = p * r + _EXP[8]
    p = p * r + _EXP[7]
    p = p * r + _EXP[6]
    p = p * r + _EXP[5]
    p = p * r + _EXP[4]
    p = p * r + _EXP[3]
    p = p * r + _EXP[2]
    p = p * r + _EXP[1]
    p = p * r + _EXP[0]
    power_of_two: float = _from_bits((_bits(shifted) - _ROUNDING_BITS + 1023) << 52)
    return p * power_of_two


@inlined
def _atanh_series(f: float) -> float:
    """2 artanh(f) for |f| ≤ 0.172: the logarithm of (1 + f) / (1 − f)."""
    s = f * f
    p = _ATANH[9]
    p = p * s + _ATANH[8]
    p = p * s + _ATANH[7]
    p = p * s + _ATANH[6]
    p = p * s + _ATANH[5]
    p = p * s + _ATANH[4]
    p = p * s + _ATANH[3]
    p = p * s + _ATANH[2]
    p = p * s + _ATANH[1]
    p = p * s + _ATANH[0]
    return 2.0 * f * p


@inlined
def log_double(x: float) -> float:
    """Ln x of a normal, positive double, to some 50 bits; −inf at 0, NaN below."""
    bits = _bits(x)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    mantissa = _from_bits(bits - (exponent << 52))
    k = np.float64(exponent)
    finite: float = k * _LN2_UPPER + (k * _LN2_LOWER + _atanh_series((mantissa - 1.0) / (mantissa + 1.0)))
    above_zero = finite if x > 0.0 else -np.inf
    below_infinity = above_zero if x < np.inf else np.inf
    return below_infinity if x >= 0.0 else np.nan


@inlined
def exp(x: np.float32) -> np.float32:
    """e^x of a float32; infinite where float32 ends, as `expf` has it."""
    return np.float32(exp_double(np.float64(x)))


@inlined
def log(x: np.float32) -> np.float32:
    """Ln x of a float32; −inf at 0, NaN below."""
    return np.float32(log_double(np.float64(x)))


@inlined
def log1p(x: np.float32) -> np.float32:
    """ln(1 + x) of a float32, exact to the last place around 0 too; −inf at −1, NaN below."""
    wide = np.float64(x)
    small = _atanh_series(wide / (2.0 + wide))
    large = log_double(1.0 + wide)
    return np.float32(small if (wide > -0.29) and (wide < 0.41) else large)


@inlined
def tanh(x: np.float32) -> np.float32:
    """Hyperbolic tangent of a float32."""
    wide = np.float64(x)
    clipped = wide if wide < 20.0 else 20.0
    clipped = clipped if clipped > -20.0 else -20.0
    e = exp_double(2.0 * clipped)
    s = wide * wide
    near_zero = wide * (1.0 + s * (-1.0 / 3.0 + s * (2.0 / 15.0)))
    return np.float32(near_zero if s < 1e-4 else (e - 1.0) / (e + 1.0))


@inlined
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + e^−x), each step rounded to float32 and −x capped at 88.7, as XGBoost computes it."""
    negative = -x
    capped = negative if negative < np.float32(88.7) else np.float32(88.7)
    return np.float32(1.0) / (exp(capped) + np.float32(1.0))


@inlined
def power(x: np.float32, y: float) -> np.float32:
    """x^y of a positive float32."""
    return np.float32(exp_double(y * log_double(np.float64(x))))


@inlined
def hypotenuse(x: np.float32, y: np.float32) -> np.float32:
    """√(x² + y²) of two float32, without overflow in between."""
    wide_x, wide_y = np.float64(x), np.float64(y)
    return np.float32(np.sqrt(wide_x * wide_x + wide_y * wide_y))


@kernel
def log_gamma(x: float) -> float:
    """Ln Γ(x) for x > 0: eight steps of the recurrence up, then Stirling's series, to some 40 bits."""
    product = 1.0
    for _ in range(8):
        product *= x
        x += 1.0
    inverse = 1.0 / x
    s = inverse * inverse
    series = inverse * (1.0 / 12.0 - s * (1.0 / 360.0 - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s / 1188.0))))
    return (x - 0.5) * log_double(x) - x + 0.9189385332046727 + series - log_double(product)
