"""Scores of a regression, from two sums: how large values are, then what they add up to.

Nobody has to know a range beforehand. The first vector counts rows by powers of two; its total fixes the units
of the second one, fine enough that rounding to them is beyond any figure shown (at least 2**-20 of the largest
value, a row, and mostly far less) and coarse enough that no total overflows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_pipelines.evaluation.fixed_point import (
    TOTAL_BITS,
    cells_sum,
    fixed_sum,
    float_of,
    weight_unit,
    weight_units,
)
from lepton_pipelines.evaluation.result import RegressionFigures
from lepton_pipelines.sums import Int64Array

LOWEST_EXPONENT = -64
EXPONENTS = 193  # 2**-64 to 2**128, the whole range of float32 but for its smallest fractions
QUANTITIES = 4  # label above zero, label below zero, the same of the prediction by one table, and the error
MAGNITUDE_LENGTH = QUANTITIES * EXPONENTS
VALUE_CELLS = 48
ERROR_CELLS = 96
FINEST_BITS = 40
SHOWN = 0.995  # share of rows that the value axis is to hold; the rest is counted in its end cells


def _exponents(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Give the e of each |value| < 2**e, counted from LOWEST_EXPONENT; zero is the lowest."""
    _, exponents = np.frexp(np.abs(values))
    exponents = np.where(values == 0, LOWEST_EXPONENT, exponents)
    return (np.clip(exponents, LOWEST_EXPONENT, LOWEST_EXPONENT + EXPONENTS - 1) - LOWEST_EXPONENT).astype(np.intp)


def count_magnitudes(label: ArrayLike, prediction: ArrayLike) -> Int64Array:
    """Count rows by the powers of two that hold their values: int64, (MAGNITUDE_LENGTH,).

    Four tables: labels and predictions of zero or more, labels and predictions below zero, both counted together
    (a row counts twice), then absolute errors, then rows (in the first cell of the last table).
    Raises ValueError for a value that is not finite.
    """
    labels, predictions = _checked(label, prediction)
    both = np.concatenate([labels, predictions])
    table = np.zeros((QUANTITIES, EXPONENTS), dtype=np.int64)
    for row, values in enumerate((both[both >= 0], both[both < 0], labels - predictions)):
        table[row] = np.bincount(_exponents(values), minlength=EXPONENTS)
    table[3, 0] = len(labels)
    return table.reshape(-1)


def _checked(label: ArrayLike, prediction: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    labels = np.asarray(label, dtype=np.float64).reshape(-1)
    predictions = np.asarray(prediction, dtype=np.float64).reshape(-1)
    if labels.shape != predictions.shape:
        raise ValueError(f"{len(labels)} labels and {len(predictions)} predictions")
    for name, values in (("labels", labels), ("predictions", predictions)):
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        if wrong:
            raise ValueError(f"{wrong} of {len(values)} {name} are not finite")
    return labels, predictions


@dataclass(frozen=True)
class Magnitudes:
    """What the first sum said.

    value_power, error_power: every value, every error, is smaller than 2 to this. low, high: the axis on which
    values are counted. error_high: errors are counted from minus to plus this. rows: over everybody.
    """

    value_power: int
    error_power: int
    low: float
    high: float
    error_high: float
    rows: int


def read_magnitudes(total: Int64Array) -> Magnitudes:
    """Read the total of `count_magnitudes`. Raises ValueError if it counts no rows."""
    above, below, error, last = total.reshape(QUANTITIES, EXPONENTS)
    rows = int(last[0])
    if rows == 0:
        raise ValueError("no rows to evaluate")
    powers = np.arange(EXPONENTS) + LOWEST_EXPONENT

    def largest(counts: Int64Array) -> int:
        filled = np.flatnonzero(counts)
        return int(powers[filled[-1]]) if len(filled) else LOWEST_EXPONENT

    def holding(counts: Int64Array, of: int) -> float:
        """Give the power of two below which all but a share of `of` rows lie."""
        if not counts.any():
            return 0.0
        beyond = of * (1 - SHOWN)
        tail = np.cumsum(counts[::-1])[::-1]
        return float(np.ldexp(1.0, int(powers[np.flatnonzero(tail > beyond)[-1]]) if (tail > beyond).any() else 0))

    low, high = -holding(below, 2 * rows), holding(above, 2 * rows)
    return Magnitudes(
        value_power=max(largest(above), largest(below)),
        error_power=largest(error),
        low=low,
        high=high if high > low else low + 1.0,
        error_high=holding(error, rows) or 1.0,
        rows=rows,
    )


@dataclass(frozen=True)
class RegressionScores:
    """Counts the rows of a regression.

    The vector, int64: the sums of w, w·y, w·y², w·|e|, w·e and w·e² (e = prediction − label), the number of rows,
    errors by cell (96), and actual by predicted value (48 × 48). Cells at the ends hold what lies beyond.
    """

    magnitudes: Magnitudes
    largest_weight: float | None = None

    @property
    def weighted(self) -> bool:
        """Whether rows carry weights."""
        return self.largest_weight is not None

    @property
    def length(self) -> int:
        """Cells of the vector."""
        return 7 + ERROR_CELLS + VALUE_CELLS**2

    @property
    def bits(self) -> int:
        """How many bits below the largest value units are, so that totals stay below 2**62."""
        rows = max(1, self.magnitudes.rows - 1).bit_length()
        return min(FINEST_BITS, TOTAL_BITS - rows - weight_unit(self.largest_weight).bit_length())

    def bound(self, rows: int) -> int:
        """Give the largest value that a cell of the total over this many rows may have."""
        return max(1, rows) * weight_unit(self.largest_weight) << self.bits

    def count(self, label: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Int64Array:
        """Count rows.

        label, prediction: finite, (rows,). weight: (rows,) or None. Returns int64, (length,).
        Raises ValueError for a value beyond what the magnitudes' sum counted: then these are other rows.
        """
        labels, predictions = _checked(label, prediction)
        units = weight_units(weight, len(labels), self.largest_weight)
        errors = predictions - labels
        y, e = np.ldexp(labels, -self.magnitudes.value_power), np.ldexp(errors, -self.magnitudes.error_power)
        if (np.abs(y) > 1).any() or (np.abs(e) > 1).any():
            raise ValueError("a value is larger than any that the first sum counted: the rows have changed in between")
        sums = [int(units.sum()), *(fixed_sum(v, units, self.bits) for v in (y, y * y, np.abs(e), e, e * e))]
        actual, predicted = self._value_cells(labels), self._value_cells(predictions)
        high = self.magnitudes.error_high
        error_cells = np.clip(((errors / high + 1) * (ERROR_CELLS / 2)).astype(np.intp), 0, ERROR_CELLS - 1)
        return np.concatenate(
            [
                np.array([*sums, len(labels)], dtype=np.int64),
                cells_sum(error_cells, units, ERROR_CELLS),
                cells_sum(actual * VALUE_CELLS + predicted, units, VALUE_CELLS**2),
            ]
        )

    def _value_cells(self, values: NDArray[np.float64]) -> NDArray[np.intp]:
        low, high = self.magnitudes.low, self.magnitudes.high
        return np.clip((values - low) / (high - low) * VALUE_CELLS, 0, VALUE_CELLS - 1).astype(np.intp)

    def read(self, total: Int64Array) -> RegressionFigures:
        """Say what a total means. `scores`: rmse, mae, mean_error, and r2 unless all labels are equal."""
        value, error = self.magnitudes.value_power, self.magnitudes.error_power
        weight = float_of(int(total[0]), 0, weighted=self.weighted)
        y, yy, absolute, e, ee = (
            float_of(int(cell), self.bits, weighted=self.weighted) / weight if weight else 0.0 for cell in total[1:6]
        )
        scores: dict[str, float] = {}
        if weight:
            squared = float(np.ldexp(ee, 2 * error))
            scores = {
                "rmse": squared**0.5,
                "mae": float(np.ldexp(absolute, error)),
                "mean_error": float(np.ldexp(e, error)),
            }
            variance = yy - y * y
            if variance > np.ldexp(1.0, -self.bits):
                scores["r2"] = 1 - squared / float(np.ldexp(variance, 2 * value))
        rest = total[7:]
        high = self.magnitudes.error_high
        return RegressionFigures(
            rows=int(total[6]),
            scores=scores,
            error_edges=np.linspace(-high, high, ERROR_CELLS + 1).tolist(),
            error_counts=self._weights(rest[:ERROR_CELLS]),
            value_edges=np.linspace(self.magnitudes.low, self.magnitudes.high, VALUE_CELLS + 1).tolist(),
            joint=[self._weights(row) for row in rest[ERROR_CELLS:].reshape(VALUE_CELLS, VALUE_CELLS)],
        )

    def _weights(self, cells: Int64Array) -> list[float]:
        return [float_of(cell, 0, weighted=self.weighted) for cell in cells.tolist()]
