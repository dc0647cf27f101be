"""Sums of float32 numbers that do not depend on their order, carried by integers.

A float32 is a 24-bit integer times a power of two. The integers of each power of two are added up by themselves,
which is exact, and eight neighbouring powers share one int64 on the way (a limb). So a sum of floats becomes a
short vector that adds up over shards and organisations; read back it is the true sum, rounded once. No range has
to be agreed beforehand. (The idea is Kulisch's long accumulator.)
"""

import math

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import inlined, kernel
from lepton_pipelines.boosting.exact_math import float_bits
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array

POWERS = 256
_PER_LIMB = 8
_NOT_FINITE = POWERS // _PER_LIMB
LIMBS = _NOT_FINITE + 1  # the last one counts what was not finite
_UNIT = 150  # the lowest limb counts 2^-150: the smallest subnormal float32 is 2^-149
MAX_ROWS = 1 << 31
BOUND = 1 << 62  # of a limb's total: 2^31 numbers of 24 bits, shifted by up to 7


@inlined
def add_float(cells: Int64Array, value: np.float32) -> None:
    """Add one float32 to cells (int64, POWERS): its 24-bit integer at its power of two."""
    bits = np.int64(float_bits(value))
    power = (bits >> 23) & 255
    hidden = np.int64(power > 0) << 23
    mantissa = (bits & 0x7FFFFF) | hidden
    # What is not finite is counted without its sign: inf and -inf must not cancel.
    cells[power] += mantissa if (bits >= 0) | (power == POWERS - 1) else -mantissa


@kernel
def _add_floats(cells: Int64Array, values: NDArray[np.float32]) -> None:
    for value in values:
        add_float(cells, value)


@kernel
def _fold(cells: Int64Array, limbs: Int64Array) -> None:
    limbs[:] = 0
    for power in range(POWERS - 1):
        shift = max(power, 1)  # subnormal numbers have the lowest power, without a hidden bit
        limbs[shift // _PER_LIMB] += cells[power] << (shift % _PER_LIMB)
    limbs[_NOT_FINITE] = 0 if cells[POWERS - 1] == 0 else 1


def new_cells(sums: int = 1) -> Int64Array:
    """Return empty cells, int64, (sums, POWERS), for `add_float` in compiled loops."""
    return np.zeros((sums, POWERS), np.int64)


def limbs_of(cells: Int64Array) -> Int64Array:
    """Fold cells, (sums, POWERS), to the vector that is summed, int64, sums * LIMBS."""
    limbs = np.empty((len(cells), LIMBS), np.int64)
    for row, folded in zip(cells, limbs, strict=True):
        _fold(row, folded)
    return limbs.ravel()


def exact_sum(values: NDArray[np.float32]) -> Int64Array:
    """The sum of float32 values as int64, LIMBS: adds up with others' to the sum over all.

    At most MAX_ROWS values in total; BOUND is then the bound of every limb.
    """
    cells = new_cells()
    _add_floats(cells[0], values)
    return limbs_of(cells)


def read_sum(limbs: Int64Array, *, what: str) -> float:
    """The number that LIMBS integers stand for: the exact sum, rounded once to double.

    what: the name of what was added up, for the message.
    Raises UserError if infinite or undefined values were added.
    """
    if limbs[_NOT_FINITE]:
        raise UserError(
            f"{what}: infinite or undefined values (inf, nan) were added up. "
            "Look for labels, weights or margins that are too large."
        )
    total = sum(int(limb) << (_PER_LIMB * place) for place, limb in enumerate(limbs[:_NOT_FINITE]))
    return math.ldexp(float(total), -_UNIT)
