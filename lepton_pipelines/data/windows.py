"""Lags and rolling windows over series of rows: each row sees earlier rows of its own series, never itself.

Every window is added up by itself, from its oldest row to its newest, so that a value has the same bits however
the rows are cut into files and workers; a running sum would carry the rounding of what lies before.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.derived import Lag, Rolling, Statistic

from .values import MISSING, Values

Int64Array = NDArray[np.int64]
Float64Array = NDArray[np.float64]

# Rows are worked on in blocks that stay in the cache.
_BLOCK = 1 << 15


@dataclass(frozen=True)
class Ordered:
    """Rows in the order of series and time.

    order: places of the rows in the order in which they came, (rows,); rows without series or time are not among them.
    start: int64, (rows,): where a row's series begins. rank, moments: a row's time is moments[rank]; moments are
    sorted and each is there once. series: int64, (rows,): number of a row's series, from 0.
    """

    order: NDArray[np.intp]
    series: Int64Array
    start: Int64Array
    rank: Int64Array
    moments: Int64Array

    @staticmethod
    def of(series: NDArray[np.uint64], times: Int64Array, known: NDArray[np.bool_]) -> "Ordered":
        """Put rows in order. series: uint64 hashes. times: int64 microseconds. known: bool; others are left out."""
        places = np.flatnonzero(known)
        order = places[np.lexsort((times[places], series[places]))]
        moments, rank = np.unique(times[order], return_inverse=True)
        first = np.append(True, series[order][1:] != series[order][:-1])[: len(order)]
        number = np.cumsum(first) - 1
        return Ordered(order, number, np.flatnonzero(first)[number], rank.astype(np.int64), moments)

    def twice(self) -> int:
        """How many rows have a time that an earlier row of their series has, too."""
        return int(np.count_nonzero((np.diff(self.rank) == 0) & (np.diff(self.series) == 0)))

    def since(self, earlier: int) -> Int64Array:
        """Return for each row the place of its series' first row that is at most `earlier` microseconds older."""
        wide = np.int64(len(self.moments) + 1)
        wanted = np.searchsorted(self.moments, self.moments - earlier)
        return np.searchsorted(self.series * wide + self.rank, self.series * wide + wanted[self.rank])


def compute(derived: Lag | Rolling, rows: Ordered, column: Values) -> Values:
    """Compute a windowed column.

    column: the source's values, as the rows came. Returns values in the same order; rows that are in no series
    have none.
    """
    values = column.values[rows.order]
    if isinstance(derived, Lag):
        found, there = _lagged(derived, rows)
        missing_value = MISSING if values.dtype == np.int32 else np.nan
        made = np.where(there, values[found], missing_value).astype(values.dtype)
    else:
        numbers = np.where(column.missing[rows.order], np.nan, values.astype(np.float64))
        made = _rolled(derived.rolling, numbers, *_window(derived, rows), derived.at_least)
    out = np.full(len(column.values), MISSING if made.dtype == np.int32 else np.nan, made.dtype)
    out[rows.order] = made
    missing = out < 0 if out.dtype == np.int32 else np.isnan(out)
    return Values(out, missing, np.zeros(len(out), np.bool_))


def _lagged(derived: Lag, rows: Ordered) -> tuple[Int64Array, NDArray[np.bool_]]:
    """Return which row each looks at, and whether there is one."""
    place = np.arange(len(rows.order), dtype=np.int64)
    if isinstance(derived.before, int):
        found = place - derived.before
        return np.maximum(found, 0), found >= rows.start
    earlier = _microseconds(derived.before)
    found = rows.since(earlier)
    # Every row has itself after such a place, so that none lies beyond the end.
    exact = rows.moments[rows.rank[found]] == rows.moments[rows.rank] - earlier
    return found, exact & (rows.series[found] == rows.series)


def _window(derived: Rolling, rows: Ordered) -> tuple[Int64Array, Int64Array]:
    """Return where each row's window begins and ends: begin <= row < end."""
    if isinstance(derived.over, timedelta):
        gap = _microseconds(derived.gap) if isinstance(derived.gap, timedelta) else 0
        end = rows.since(gap) if gap else np.arange(len(rows.order), dtype=np.int64)
        return rows.since(gap + _microseconds(derived.over)), end
    gap_rows = derived.gap if isinstance(derived.gap, int) else 0
    end = np.maximum(np.arange(len(rows.order), dtype=np.int64) - gap_rows, rows.start)
    return np.maximum(end - derived.over, rows.start), end


def _rolled(
    statistic: Statistic, values: Float64Array, begin: Int64Array, end: Int64Array, at_least: int
) -> Float64Array:
    out = np.empty(len(values))
    for first in range(0, len(values), _BLOCK):
        block = slice(first, first + _BLOCK)
        out[block] = _rolled_block(statistic, values, begin[block], end[block], at_least)
    return out


def _rolled_block(
    statistic: Statistic, values: Float64Array, begin: Int64Array, end: Int64Array, at_least: int
) -> Float64Array:
    count = np.zeros(len(begin))
    total = np.zeros(len(begin))
    lowest, highest = np.full(len(begin), np.nan), np.full(len(begin), np.nan)
    longest = int((end - begin).max(initial=0))
    for step in range(longest):
        one = _nth(values, begin, end, step)
        there = ~np.isnan(one)
        count += there
        total += np.where(there, one, 0.0)
        np.fmin(lowest, one, out=lowest)
        np.fmax(highest, one, out=highest)
    least = max(at_least, 2) if statistic == "std" else at_least
    few = count < least
    if statistic == "count":
        return np.where(few, np.nan, count) if at_least > 1 else count
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = total / count
        if statistic == "std":
            squares = np.zeros(len(begin))
            for step in range(longest):
                apart = _nth(values, begin, end, step) - mean
                squares += np.where(np.isnan(apart), 0.0, apart * apart)
            made = np.sqrt(squares / (count - 1))
        else:
            made = {"mean": mean, "sum": total, "min": lowest, "max": highest}[statistic]
    return np.where(few | ~np.isfinite(made), np.nan, made)


def _nth(values: Float64Array, begin: Int64Array, end: Int64Array, step: int) -> Any:
    place = begin + step
    return np.where(place < end, values[np.minimum(place, len(values) - 1)], np.nan)


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
