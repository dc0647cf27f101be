"""Real numbers as integers that add up: the same total in whatever order rows, workers and organisations come.

A value is rounded once, at its row, to a whole multiple of a unit that everybody shares; from there on all is
integer arithmetic. What the rounding costs is at most half a unit a row, which the readers of totals state.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_pipelines.sums import Int64Array

WEIGHT_BITS = 16
"""Sample weights are counted in units of 2**-16; rows without weights are counted whole."""

TOTAL_BITS = 62
"""A total stays below 2**62 in absolute value, one bit clear of int64's sign."""


def weight_unit(largest_weight: float | None) -> int:
    """Give the most units that one row counts: 1 without weights (None), else the largest weight's."""
    return 1 if largest_weight is None else int(np.ceil(largest_weight * (1 << WEIGHT_BITS)))


def weight_units(weight: ArrayLike | None, rows: int, largest_weight: float | None) -> Int64Array:
    """Give each row's weight in whole units: 1 without weights, else multiples of 2**-16.

    weight: float, (rows,), or None for rows that all count 1.
    largest_weight: the contract's bound on weights, None where it declares no weight column; the same for
        everybody, or units would not match.
    Raises ValueError for a weight that is negative, not finite, beyond the bound, or given where none counts.
    """
    if largest_weight is None:
        if weight is not None:
            raise ValueError("these rows have weights, but the run's contract declares no weight column")
        return np.ones(rows, dtype=np.int64)
    if weight is None:
        return np.full(rows, 1 << WEIGHT_BITS, dtype=np.int64)
    weights = np.asarray(weight, dtype=np.float64)
    if weights.shape != (rows,):
        raise ValueError(f"{weights.size} weights for {rows} rows")
    wrong = int(np.count_nonzero(~((weights >= 0) & (weights <= largest_weight))))
    if wrong:
        raise ValueError(f"{wrong} of {rows} weights are not between 0 and {largest_weight}, the contract's bound")
    return np.rint(weights * (1 << WEIGHT_BITS)).astype(np.int64)


def fixed(values: NDArray[np.float64], bits: int) -> Int64Array:
    """Round values to whole multiples of 2**-bits, ties to even."""
    return np.rint(np.ldexp(values, bits)).astype(np.int64)


def fixed_sum(values: NDArray[np.float64], units: Int64Array, bits: int) -> int:
    """Add up weight × value, in units of 2**-bits of a weight unit, as an integer.

    values: float64, (rows,). units: int64, (rows,), from `weight_units`.
    """
    return int(np.dot(fixed(values, bits), units))


def float_of(total: int, bits: int, *, weighted: bool) -> float:
    """Turn a total of `fixed_sum` back into the number that it stands for."""
    return float(np.ldexp(float(total), -bits - (WEIGHT_BITS if weighted else 0)))


def cells_sum(cells: NDArray[np.intp], units: Int64Array, length: int) -> Int64Array:
    """Add up units by cell: int64, (length,). Exact, which `numpy.bincount` with weights (float64) is not."""
    out = np.zeros(length, dtype=np.int64)
    np.add.at(out, cells, units)
    return out
