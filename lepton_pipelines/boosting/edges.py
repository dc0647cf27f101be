"""Bin edges over all organisations, without showing anyone's sketch.

Quantiles are found by refining cells of an order-preserving map of float32 (design §5): the counts of a few cells
are summed, the cells that hold a wanted rank are split, and again. Three to six sums. Edges are ends of cells, so
none is one person's value, and they depend on the sums alone, not on how the rows are spread.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import MAX_BIN, Binning
from lepton_pipelines.boosting.cells import WAYS, WEIGHT_BITS, CountCells, lower_key, lowest_value, weight_scale
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array

Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]

SMALLEST_BIN = 20  # rows of the total that a bin holds at least, where sums cross organisations
_FINEST = 2048  # a cell of fewer than rows / _FINEST rows is fine enough
_BLOCK = 65_536  # rows that are looked through at a time
_HIGHEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class EdgeSearch:
    """What edges are looked for.

    max_bin: the most bins of a column. smallest_bin: rows of the total that a bin holds at least.
    rows: of the total. weight_exponent: 2 to this is above all weights; None if no rows are weighted.
    """

    max_bin: int
    smallest_bin: int
    rows: int
    weight_exponent: int | None = None


def find_edges(rows: Collective, name: str, schema: FeatureSchema, search: EdgeSearch) -> Binning:
    """Find the edges of all columns together.

    rows: the party's rows and its sums. name: the set that is trained on.
    Raises UserError if a categorical column holds more categories than can be counted.
    """
    features = schema.count
    categorical = np.array([schema.is_categorical(f) for f in range(features)], bool)
    scale = 0.0 if search.weight_exponent is None else weight_scale(search.weight_exponent)
    measures = 2 if scale else 1
    bound = search.rows << WEIGHT_BITS if scale else search.rows
    followed: tuple[Int32Array, ...] = ()
    for step in range(len(WAYS)):
        request = CountCells(name, categorical, followed, scale)
        context = [table.tobytes() for table in followed]
        total = rows.sum(request, f"edges/{step}", bound=bound, context=context)
        if step == 0:
            missing = total[:features] > 0
            first = total[measures * features :].reshape(measures, *request.cells)
            columns = [_Column(first[:, f], f) for f in range(features)]
            bins = [_bins(has_missing, search) for has_missing in missing.tolist()]
        else:
            counts = total.reshape(measures, -1)
            for column in columns:
                column.refine(counts, step)
        last = np.full(request.cells, -1, np.int32)
        number = 0
        for f, column in enumerate(columns):
            if not categorical[f] and step + 1 < len(WAYS):
                number = column.choose(bins[f], search, step, number, last.ravel())
        if not number:
            break
        followed = (*followed, last)
    edges = [
        _codes(schema, f, column) if categorical[f] else column.edges(bins[f], search)
        for f, column in enumerate(columns)
    ]
    return Binning(edges, categorical, missing)


@dataclass(frozen=True)
class _CountMissing:
    """Count, for edges that were handed in, how many values each column lacks."""

    name: str
    features: int

    def run(self, shard: Shard) -> Int64Array:
        """Count; returns int64, one a column."""
        rows, counts = shard.sets[self.name], np.zeros(self.features, np.int64)
        for start in range(0, rows.n_rows, _BLOCK):
            counts += np.isnan(rows.block(start, min(start + _BLOCK, rows.n_rows))).sum(axis=0)
        return counts


def given_edges(
    rows: Collective, name: str, schema: FeatureSchema, edges: Sequence[Float32Array], row_count: int
) -> Binning:
    """Check edges that were handed in, and find out which columns have missing values.

    Raises UserError if they are not one ascending array a column.
    """
    if len(edges) != schema.count:
        raise UserError(f"edges: {len(edges)} arrays for {schema.count} columns. Give one a column.")
    arrays = [np.ascontiguousarray(column, np.float32) for column in edges]
    # Whether the lowest code is among a categorical column's "edges" depends on who wrote them: the codes do not.
    arrays = [
        np.arange(int(column.max(initial=0)) + 1, dtype=np.float32) if schema.is_categorical(f) else column
        for f, column in enumerate(arrays)
    ]
    for f, column in enumerate(arrays):
        if column.ndim != 1 or not len(column) or not (np.diff(column) > 0).all():
            raise UserError(
                f"edges: those of column {schema.name(f)!r} are not ascending. Give the upper ends of its bins, "
                "as xgboost.QuantileDMatrix.get_quantile_cut does, without the lower end that it puts first."
            )
        if len(column) > MAX_BIN and not schema.is_categorical(f):
            raise UserError(f"edges: column {schema.name(f)!r} has {len(column)} bins, at most {MAX_BIN} are possible.")
    missing = rows.sum(_CountMissing(name, len(arrays)), "missing", bound=row_count)
    categorical = np.array([schema.is_categorical(f) for f in range(schema.count)], bool)
    return Binning(arrays, categorical, missing > 0)


def _bins(has_missing: bool, search: EdgeSearch) -> int:
    """How many bins a column gets at most: a missing value needs a code too, and bins need rows."""
    most = min(search.max_bin, MAX_BIN - 1) if has_missing else search.max_bin
    return max(1, min(most, search.rows // search.smallest_bin))


class _Column:
    """A column's cells so far, ascending, none empty.

    prefix: int64, leading bits. step: int64, in which step the cell was counted. rows, weight: int64, what it holds.
    source: int64, where in the last step's counts its number stood.
    """

    def __init__(self, counts: Int64Array, feature: int) -> None:
        """counts: int64, (measures, 2^10), of the first step."""
        self.prefix = np.flatnonzero(counts[0])
        self.step = np.zeros(len(self.prefix), np.int64)
        self.rows, self.weight = counts[0, self.prefix], counts[-1, self.prefix]
        self.source = feature * counts.shape[1] + self.prefix
        self._split = np.zeros(0, np.int64)
        self._number = 0

    def choose(self, bins: int, search: EdgeSearch, step: int, number: int, table: Int32Array) -> int:
        """Choose the cells to split further: those that hold a wanted rank and too many rows.

        All that hold too many, while the column has few cells: a column with few values gets a bin for each.
        number: of the first cell chosen; the numbers are written to table, int32, at the cells' source. Returns the
        next free number.
        """
        coarse = (self.step == step) & (self.rows > max(search.smallest_bin, search.rows // _FINEST))
        if len(self.prefix) > bins // 2:
            after = np.cumsum(self.weight)
            before, total = after - self.weight, int(after[-1])
            # Rank r lies inside a cell if before < r * total / bins < after.
            coarse &= (after * bins - 1) // total > before * bins // total
        self._split, self._number = np.flatnonzero(coarse), number
        end = number + len(self._split)
        table[self.source[self._split]] = np.arange(number, end)
        return end

    def refine(self, counts: Int64Array, step: int) -> None:
        """Put the parts of the cells chosen last in their place; counts: int64, (measures, cells * ways)."""
        ways = 1 << WAYS[step]
        mine = counts[:, self._number * ways : (self._number + len(self._split)) * ways]
        cell, part = np.divmod(np.flatnonzero(mine[0]), ways)
        keep = np.ones(len(self.prefix), bool)
        keep[self._split] = False
        at = cell * ways + part
        prefix = np.concatenate([self.prefix[keep], (self.prefix[self._split][cell] << WAYS[step]) | part])
        steps = np.concatenate([self.step[keep], np.full(len(part), step)])
        order = np.argsort(lower_key(prefix, steps), kind="stable")
        self.prefix, self.step = prefix[order], steps[order]
        self.rows = np.concatenate([self.rows[keep], mine[0, at]])[order]
        self.weight = np.concatenate([self.weight[keep], mine[-1, at]])[order]
        self.source = np.concatenate([self.source[keep], self._number * ways + at])[order]
        self._split = np.zeros(0, np.int64)

    def edges(self, bins: int, search: EdgeSearch) -> Float32Array:
        """Return the upper ends of at most so many bins, float32; the last one is above every value."""
        inner = self._boundaries(bins)
        rows = np.cumsum(self.rows)
        kept, before = [], 0
        for boundary in inner:
            if rows[boundary] - before >= search.smallest_bin:
                kept.append(boundary)
                before = rows[boundary]
        while kept and rows[-1] - rows[kept[-1]] < search.smallest_bin:
            kept.pop()
        first_of_next = np.array(kept, np.int64) + 1
        ends = lowest_value(lower_key(self.prefix[first_of_next], self.step[first_of_next]))
        return np.append(ends, _HIGHEST).astype(np.float32)

    def _boundaries(self, bins: int) -> list[int]:
        """The cells after which a bin ends: nearest to the wanted ranks, then wherever a bin is largest."""
        cells = len(self.prefix)
        if cells <= bins:
            return list(range(cells - 1))
        after = np.cumsum(self.weight)
        ranks = np.arange(1, bins) * int(after[-1])
        above = np.minimum(np.searchsorted(after * bins, ranks), cells - 1)
        below = np.maximum(above - 1, 0)
        nearest = np.where(ranks - after[below] * bins <= after[above] * bins - ranks, below, above)
        chosen = set(nearest[nearest < cells - 1].tolist())
        # Heavy values leave ranks over: they go to the largest bins that can still be divided.
        ends = [-1, *sorted(chosen), cells - 1]
        heap = [_divisible(after, a, b) for a, b in pairwise(ends) if b - a > 1]
        heapq.heapify(heap)
        while heap and len(chosen) < bins - 1:
            _, a, b = heapq.heappop(heap)
            start = after[a] if a >= 0 else 0
            middle = a + 1 + int(np.searchsorted(after[a + 1 : b] * 2, start + after[b]))
            middle = min(middle, b - 1)
            chosen.add(middle)
            for lo, hi in ((a, middle), (middle, b)):
                if hi - lo > 1:
                    heapq.heappush(heap, _divisible(after, lo, hi))
        return sorted(chosen)


def _divisible(after: Int64Array, a: int, b: int) -> tuple[int, int, int]:
    return -int(after[b] - (after[a] if a >= 0 else 0)), a, b


def _codes(schema: FeatureSchema, feature: int, column: _Column) -> Float32Array:
    """The codes of a categorical column, 0 … n-1, float32."""
    declared = schema.categories[feature] if schema.categories else 0
    largest = int(column.prefix[-1]) if len(column.prefix) else 0
    if largest == (1 << WAYS[0]) - 1 and declared <= largest:
        raise UserError(
            f"column {schema.name(feature)!r} holds categories that are no whole numbers from 0 to {largest - 1}. "
            "Encode categories as codes from 0 on, or declare how many there are."
        )
    if declared and largest >= declared:
        raise UserError(
            f"column {schema.name(feature)!r} holds category {largest}, but {declared} were declared. "
            "Declare them all, in the same order everywhere."
        )
    return np.arange(declared or largest + 1, dtype=np.float32)
