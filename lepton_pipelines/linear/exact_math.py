"""Exponential and logarithm whose bits depend neither on the processor nor on where a row stands.

Every party must compute the same bits from the same totals, and a row the same contribution wherever it lies;
NumPy's own `exp` may round the end of an array differently from its middle. Here are IEEE additions,
multiplications and divisions only, each an operation of its own, which NumPy does not contract. Argument
reduction by powers of two, then Taylor's polynomial; the error is below two units in the last place.
"""

from collections.abc import Sequence
from math import factorial, fsum

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

_LOG2_E = 1.4426950408889634
# ln 2 in two parts: the upper one ends in zero bits, so that its product with a whole number is exact.
_LN2_UPPER = 0.6931471803691238
_LN2_LOWER = 1.9082149292705877e-10
_EXP = tuple(1.0 / factorial(n) for n in range(14))
_ATANH = tuple(1.0 / (2 * n + 1) for n in range(18))


def exp_of_negative(x: Float64Array) -> Float64Array:
    """e^x for x ≤ 0; below -708 as at -708."""
    x = np.maximum(x, -708.0)
    whole = np.rint(x * _LOG2_E)
    rest = (x - whole * _LN2_UPPER) - whole * _LN2_LOWER
    powers = ((whole.astype(np.int64) + 1023) << 52).view(np.float64)
    return _horner(_EXP, rest) * powers


def log1p_of_share(x: Float64Array) -> Float64Array:
    """ln(1 + x) for 0 ≤ x ≤ 1, as twice the area tangent of x / (2 + x)."""
    tangent = x / (2.0 + x)
    return 2.0 * tangent * _horner(_ATANH, tangent * tangent)


def dot(left: Float64Array, right: Float64Array) -> float:
    """Return the inner product of two short vectors, rounded once: a BLAS sums in an order that is its own."""
    return fsum((left * right).tolist())


def _horner(coefficients: Sequence[float], x: Float64Array) -> Float64Array:
    value = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value *= x
        value += coefficient
    return value
