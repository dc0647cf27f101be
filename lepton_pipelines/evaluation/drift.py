"""Have the rows moved? Fresh rows against those that a model learned from, by counts that add up.

Counts by bin of every column are summed over organisations, as everything else is. Two figures tell how far a
column moved: the population stability index, which scorecards have long been watched with, and the
Kolmogorov–Smirnov statistic, taken on the bins' edges. A column counts as drifted when its index is beyond the
contract's limit and the statistic beyond what chance does in samples of that size: with few rows the index alone
cries wolf.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_pipelines.evaluation.result import HIGHER_IS_BETTER, DriftLine
from lepton_pipelines.sums import Int64Array

PSI_LIMIT = 0.2
"""Below 0.1 a population is called stable, from 0.2 on moved (Siddiqi, 2006)."""

SIGNIFICANCE = 0.01
MOST_BINS = 20
SMOOTHING = 0.5
"""Rows that each bin counts beforehand, so that an empty one does not make the index infinite."""


@dataclass(frozen=True)
class ColumnBins:
    """How one column is counted.

    edges: of a number, increasing: bin i holds edges[i-1] <= x < edges[i]; the first bin is open below and the
    last one above. categories: of a category, instead of edges, how many there are. psi_limit: the contract's.
    """

    name: str
    edges: tuple[float, ...] = ()
    categories: int = 0
    psi_limit: float = PSI_LIMIT

    @property
    def cells(self) -> int:
        """Bins, and last one cell for missing values."""
        return (self.categories or len(self.edges) + 1) + 1


@dataclass(frozen=True)
class DriftCounts:
    """Counts rows by the bins of every column: int64, (the sum of all columns' cells,)."""

    columns: tuple[ColumnBins, ...]

    @property
    def length(self) -> int:
        """Cells of the vector."""
        return sum(column.cells for column in self.columns)

    def bound(self, rows: int) -> int:
        """Give the largest value that a cell of the total over this many rows may have."""
        return max(1, rows)

    def count(self, values: ArrayLike) -> Int64Array:
        """Count rows.

        values: float, (rows, columns) in the order of `columns`; NaN is missing, categories are their codes.
        Raises ValueError for a code that the column does not have.
        """
        table = np.asarray(values)
        if table.ndim != 2 or table.shape[1] != len(self.columns):
            raise ValueError(f"{table.shape} values for {len(self.columns)} columns")
        return np.concatenate(
            [_count(table[:, place], column) for place, column in enumerate(self.columns)]
            or [np.zeros(0, dtype=np.int64)]
        )

    def compare(self, before: Int64Array, now: Int64Array) -> list[DriftLine]:
        """Say how far each column moved between two totals."""
        ends = np.cumsum([column.cells for column in self.columns])[:-1]
        return [
            compare_column(column, old, new)
            for column, old, new in zip(self.columns, np.split(before, ends), np.split(now, ends), strict=True)
        ]


def _count(values: NDArray[np.generic], column: ColumnBins) -> Int64Array:
    numbers = values.astype(np.float64)
    missing = np.isnan(numbers)
    some = numbers[~missing]
    if column.categories:
        strange = int(np.count_nonzero((some < 0) | (some >= column.categories) | (some != np.floor(some))))
        if strange:
            raise ValueError(f"{strange} rows have a code in {column.name!r} that is none of its {column.categories}")
        cells = some.astype(np.intp)
    else:
        cells = np.searchsorted(np.asarray(column.edges), some, side="right")
    return np.append(np.bincount(cells, minlength=column.cells - 1), missing.sum()).astype(np.int64)


def compare_column(column: ColumnBins, before: Int64Array, now: Int64Array) -> DriftLine:
    """Compare a column's counts, (cells,), missing values among them as one more bin.

    The Kolmogorov–Smirnov statistic is of the values that are there; for categories, which have no order, it is
    the total variation distance, half the sum of all changes of shares.
    """
    rows = int(before.sum()), int(now.sum())
    there = before[:-1], now[:-1]
    both = int(there[0].sum()), int(there[1].sum())
    psi = population_stability_index(before, now) if all(rows) else 0.0
    distance = 0.0
    if all(both):
        changes = there[0] / both[0] - there[1] / both[1]
        distance = float(np.abs(changes).sum() / 2 if column.categories else np.abs(np.cumsum(changes)).max())
    missing = [float(counts[-1] / whole) if whole else 0.0 for counts, whole in zip((before, now), rows, strict=True)]
    # A jump of the share of missing values is a difference of two shares, to which the same limit applies.
    moved = max(distance, abs(missing[1] - missing[0]))
    limit = chance_limit(*rows) if not column.categories else chance_limit(*rows) * sqrt(max(1, column.categories - 1))
    return DriftLine(
        column=column.name,
        psi=psi,
        ks=distance,
        psi_limit=column.psi_limit,
        ks_limit=limit,
        missing_before=missing[0],
        missing_now=missing[1],
        drifted=psi > column.psi_limit and moved > limit,
    )


def population_stability_index(before: Int64Array, now: Int64Array) -> float:
    """Give the sum over bins of (p − q) · ln(p / q), with half a row added to every bin of both.

    before, now: counts, (bins,), neither of them all zero.
    """
    p = (before + SMOOTHING) / (before.sum() + SMOOTHING * len(before))
    q = (now + SMOOTHING) / (now.sum() + SMOOTHING * len(now))
    return float(((p - q) * np.log(p / q)).sum())


def chance_limit(rows_before: int, rows_now: int, significance: float = SIGNIFICANCE) -> float:
    """Give the Kolmogorov–Smirnov statistic that samples of one population exceed this rarely (asymptotically).

    1.0, which nothing exceeds, where there are no rows. Ties and bins only make exceeding it rarer.
    """
    if not (rows_before and rows_now):
        return 1.0
    return min(1.0, sqrt(-log(significance / 2) / 2) * sqrt((rows_before + rows_now) / (rows_before * rows_now)))


def coarse_edges(edges: ArrayLike, counts: ArrayLike, *, bins: int = MOST_BINS, smallest: int = 1) -> tuple[float, ...]:
    """Choose few of a column's edges, so that the bins between them hold about equally many rows.

    edges: float, (n,), increasing: the engine's. counts: int, (n + 1,), rows in the bins of these edges, over
    everybody. smallest: rows that a bin of the result holds at least: the disclosure limit.
    """
    all_edges, rows = np.asarray(edges, dtype=np.float64), np.asarray(counts, dtype=np.int64)
    if rows.shape != (len(all_edges) + 1,):
        raise ValueError(f"{len(rows)} counts for {len(all_edges)} edges")
    whole = int(rows.sum())
    wanted = max(smallest, -(-whole // max(1, bins)))
    chosen: list[float] = []
    held, left = 0, whole
    for edge, count in zip(all_edges.tolist(), rows.tolist(), strict=False):
        held += count
        left -= count
        if held >= wanted and left >= smallest:
            chosen.append(edge)
            held = 0
    return tuple(chosen)


def affordable_bins(rows: int, smallest: int) -> int:
    """Say how many bins fresh rows can fill with `smallest` rows each, 2 to 20: fewer rows, coarser bins."""
    return int(np.clip(rows // max(1, smallest), 2, MOST_BINS))


def label_bins(name: str, classes: int = 0, edges: Sequence[float] = ()) -> ColumnBins:
    """Count a label as any column: its classes, or a regression's values by edges."""
    return ColumnBins(name, edges=tuple(edges), categories=classes)


def score_bins(bins: int = 10) -> ColumnBins:
    """Count probabilities by bins of equal width."""
    return ColumnBins("predictions", edges=tuple((np.arange(1, bins) / bins).tolist()))


def decay(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Say by how much each score is worse than it was; negative where it is better."""
    return {
        metric: before[metric] - now[metric] if metric in HIGHER_IS_BETTER else now[metric] - before[metric]
        for metric in before
        if metric in now
    }
