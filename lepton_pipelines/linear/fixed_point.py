"""Real numbers as integers that add up to the same total in whatever order they come.

A row's contribution is rounded once, to a whole multiple of a power of two that all parties share. The power is
as small as it may be: a total of all rows, each at the largest magnitude that it could have, stays within 2^60.
Magnitudes are known as exponents only: each party counts itself at the exponent of its largest value, and the
sum of these counts shows the largest exponent of all.
"""

from math import frexp, ldexp

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.sums import Int64Array

Float64Array = NDArray[np.float64]

TOTAL_BITS = 60
TOTAL_BOUND = 1 << TOTAL_BITS
"""Largest magnitude of a total: room for the federation to add members' bits to, in 64."""

LOWEST_EXPONENT = -96
HIGHEST_EXPONENT = 128
EXPONENT_CELLS = HIGHEST_EXPONENT - LOWEST_EXPONENT + 2
"""One cell an exponent, from all that is below 2^-96 to 2^128, where float32 ends, and one for what is beyond."""


def exponent(bound: float) -> int:
    """Return the least e with bound < 2^e, or -1074 for 0."""
    return frexp(bound)[1] if bound > 0 else -1074


def bits_for(bound: float, rows: int) -> int:
    """Return how many bits below the point a contribution keeps, if none of `rows` exceeds `bound` in magnitude.

    Never so many that scaling by 2^bits leaves the range of double.
    """
    return min(TOTAL_BITS - exponent(bound) - max(rows, 1).bit_length(), 1000)


def fixed(values: Float64Array, bits: int) -> Int64Array:
    """Round values to whole multiples of 2^-bits, ties to even. Scaling by a power of two is exact."""
    return np.rint(values * ldexp(1.0, bits)).astype(np.int64)


def fixed_sum(values: Float64Array, bits: int) -> int:
    """Round values as `fixed` does and add them up."""
    return int(fixed(values, bits).sum())


def real(total: int, bits: int) -> float:
    """Return the number that a total of multiples of 2^-bits stands for."""
    return ldexp(float(total), -bits)


def count_exponent(largest: float) -> Int64Array:
    """Count one at the exponent of a magnitude: int64, (EXPONENT_CELLS,); nothing for 0."""
    cells = np.zeros(EXPONENT_CELLS, np.int64)
    if largest > 0:
        position = exponent(largest) if largest < float("inf") else HIGHEST_EXPONENT + 1
        cells[min(max(position, LOWEST_EXPONENT), HIGHEST_EXPONENT + 1) - LOWEST_EXPONENT] = 1
    return cells


def largest_magnitude(cells: Int64Array) -> float:
    """Return the power of two that nothing counted in these cells exceeds; 0 if nothing was counted.

    Infinite if something is beyond 2^128.
    """
    counted = np.flatnonzero(cells)
    if not counted.size:
        return 0.0
    position = int(counted[-1]) + LOWEST_EXPONENT
    return ldexp(1.0, position) if position <= HIGHEST_EXPONENT else float("inf")
