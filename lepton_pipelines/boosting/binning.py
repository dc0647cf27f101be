"""Rows as codes: which bin of its column each value falls into.

Codes lie row by row, one byte a value where the bins allow it, because a tree node's rows are visited one after
the other and one row's codes then share a cache line or two. Bin b of a column holds `edges[b-1] <= x < edges[b]`;
what lies beyond the last edge falls into the last bin. A missing value has the code after the last bin, a category
that training never saw (in rows to be scored only) the one after that.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.pool import Pool
from lepton_pipelines.boosting.row_set import HasPartCodes, RowSet
from lepton_pipelines.spec.errors import UserError

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]
CodeArray = NDArray[Any]  # uint8 or uint16

MAX_BIN = 256
_BLOCK_VALUES = 1 << 20  # values that are turned into codes at a time, by one thread
_ROWS = 64  # rows whose values stay in the first-level cache while a column's edges are used


@dataclass(frozen=True)
class Binning:
    """How values become codes; the same at every party.

    edges: for each column float32, ascending, the upper ends of its bins; for a categorical column its codes
        0 … n-1.
    categorical: bool, one a column.
    missing: bool, one a column: some row that is trained on lacks the value.
    """

    edges: Sequence[Float32Array]
    categorical: NDArray[np.bool_]
    missing: NDArray[np.bool_]

    @cached_property
    def bins(self) -> Int32Array:
        """int32, one a column: how many bins it has, the missing one not counted."""
        return np.array([len(edges) for edges in self.edges], np.int32)

    @cached_property
    def widths(self) -> Int32Array:
        """int32, one a column: how many cells of a histogram it takes."""
        return self.bins + self.missing.astype(np.int32)

    @cached_property
    def offsets(self) -> Int32Array:
        """int32, columns + 1: where each column's cells begin in a histogram, and the end."""
        return np.concatenate([[0], np.cumsum(self.widths, dtype=np.int64)]).astype(np.int32)

    @cached_property
    def flat_edges(self) -> tuple[Float32Array, NDArray[np.int64]]:
        """All columns' edges one after the other, float32, and where each column's begin, int64."""
        starts = np.cumsum(self.bins, dtype=np.int64) - self.bins
        return np.concatenate([np.zeros(0, np.float32), *self.edges]).astype(np.float32), starts

    @property
    def features(self) -> int:
        """The number of columns."""
        return len(self.edges)

    @property
    def cells(self) -> int:
        """How many cells, of a gradient and a hessian each, a node's histogram has."""
        return int(self.offsets[-1])

    @cached_property
    def digest(self) -> bytes:
        """What all parties must agree on before they sum histograms."""
        state = hashlib.sha256()
        for edges, categorical, missing in zip(self.edges, self.categorical, self.missing, strict=True):
            state.update(len(edges).to_bytes(4, "little") + bytes([bool(categorical), bool(missing)]))
            state.update(np.ascontiguousarray(edges, "<f4").tobytes())
        return state.digest()

    def threshold(self, feature: int, bin_: int) -> np.float32:
        """The value below which the bins up to and including this one lie; -inf for -1."""
        return np.float32(-np.inf) if bin_ < 0 else np.float32(self.edges[feature][bin_])

    @cached_property
    def _search_table(self) -> Float32Array:
        # All edges but the last of each column, padded to a power of two, for a search without branches.
        longest = max((int(n) - 1 for n in self.bins), default=0)
        width = 1 << max(longest, 1).bit_length()
        table = np.full((self.features, width), np.inf, np.float32)
        for feature, edges in enumerate(self.edges):
            table[feature, : max(len(edges) - 1, 0)] = edges[:-1]
        return table


@dataclass(frozen=True)
class Codes:
    """A set of rows as codes.

    values: uint8 or uint16, rows * columns, row by row. complete: the binning has a code for every value, as rows that
    are trained on need it.
    """

    values: CodeArray
    rows: int
    features: int
    complete: bool = True


def encode(rows: RowSet, binning: Binning, schema: FeatureSchema, pool: Pool, *, name: str, trained_on: bool) -> Codes:
    """Turn a set of rows into codes.

    name: what the set is called, for messages. trained_on: the binning must have a code for every value.
    Raises UserError, naming the column and how many rows, for infinite values and, in rows that are trained on,
    for categories beyond those agreed and for missing values in a column that was agreed to have none.
    """
    roomy = int((binning.bins + 1 + binning.categorical).max(initial=0)) > MAX_BIN
    needed = int(binning.widths.max(initial=0)) > MAX_BIN
    codes, faults, made = _encode(rows, binning, pool, np.uint16 if needed else np.uint8)
    missing, infinite, unknown = faults.sum(axis=0)
    if infinite.any():
        column = int(infinite.argmax())
        raise UserError(
            f"{name}: column {schema.name(column)!r} holds {infinite[column]} infinite values. "
            "Replace them, or make them missing (NaN)."
        )
    if trained_on:
        _check_agreed(binning, schema, missing, unknown, name)
    elif roomy and not needed and (missing[binning.bins >= MAX_BIN].any() or unknown.any()):
        return replace(_encode(rows, binning, pool, np.uint16)[0], complete=False)
    complete = not (missing[~binning.missing].any() or unknown.any())
    if complete:  # what is kept is not looked at again
        _keep(rows, binning, codes, made)
    return replace(codes, complete=complete)


def _check_agreed(
    binning: Binning, schema: FeatureSchema, missing: NDArray[np.int64], unknown: NDArray[np.int64], name: str
) -> None:
    for column in np.flatnonzero(missing.astype(bool) & ~binning.missing).tolist():
        raise UserError(
            f"{name}: column {schema.name(column)!r} lacks its value in {missing[column]} rows, but it was agreed "
            "that none is missing."
        )
    for column in np.flatnonzero(unknown).tolist():
        raise UserError(
            f"{name}: column {schema.name(column)!r} holds a category beyond 0 … {binning.bins[column] - 1} in "
            f"{unknown[column]} rows. Categories are codes from 0 on, the same at every organisation."
        )


def _encode(
    rows: RowSet, binning: Binning, pool: Pool, dtype: type[np.uint8] | type[np.uint16]
) -> tuple[Codes, NDArray[np.int64], list[int]]:
    """Return codes, what was found wrong by block (missing, infinite, unknown), and which parts were not kept."""
    features = binning.features
    values = np.empty(rows.n_rows * features, dtype)
    step = max(_ROWS, _BLOCK_VALUES // max(features, 1) // _ROWS * _ROWS)
    made, ranges = _load(rows, binning, values)
    blocks = [(start, min(start + step, stop)) for first, stop in ranges for start in range(first, stop, step)]
    faults = np.zeros((max(len(blocks), 1), 3, features), np.int64)
    table, bins, categorical = binning._search_table, binning.bins, binning.categorical

    def work(place: int, start: int, stop: int) -> None:
        block = rows.block(start, stop)
        _encode_block(block, table, bins, categorical, values[start * features : stop * features], faults[place])

    pool.run([(work, (place, start, stop)) for place, (start, stop) in enumerate(blocks)])
    return Codes(values, rows.n_rows, features), faults, made


def _load(rows: RowSet, binning: Binning, values: CodeArray) -> tuple[list[int], list[tuple[int, int]]]:
    """Fill in the codes of the parts that are kept; return the others, and which rows these are."""
    kept = rows.part_codes if isinstance(rows, HasPartCodes) else None
    if kept is None:
        return [], [(0, rows.n_rows)]
    made, ranges, start, width = [], [], 0, binning.features
    for part, count in enumerate(kept.rows):
        codes = kept.load(part, binning.digest)
        if codes is not None and codes.dtype == values.dtype and len(codes) == count * width:
            values[start * width : (start + count) * width] = codes
        else:
            made.append(part)
            ranges.append((start, start + count))
        start += count
    return made, ranges


def _keep(rows: RowSet, binning: Binning, codes: Codes, made: Sequence[int]) -> None:
    """Keep the codes of the parts that were made now."""
    kept = rows.part_codes if isinstance(rows, HasPartCodes) else None
    if kept is None:
        return
    ends = np.cumsum([0, *kept.rows], dtype=np.int64) * codes.features
    for part in made:
        kept.keep(part, binning.digest, codes.values[ends[part] : ends[part + 1]])


@kernel
def _encode_block(
    block: Float32Array,
    table: Float32Array,
    bins: Int32Array,
    categorical: NDArray[np.bool_],
    out: CodeArray,
    faults: NDArray[np.int64],
) -> None:
    rows, features = block.shape
    half = table.shape[1] >> 1
    for start in range(0, rows, _ROWS):
        stop = min(start + _ROWS, rows)
        for f in range(features):
            last = np.int64(bins[f]) - 1
            missing = infinite = unknown = 0
            if categorical[f]:
                for r in range(start, stop):
                    x = block[r, f]
                    if x != x:
                        missing += 1
                        out[r * features + f] = last + 1
                    elif x >= 0 and x <= last:
                        out[r * features + f] = np.int64(x)
                    else:
                        unknown += 1
                        out[r * features + f] = last + 2
            else:
                for r in range(start, stop):
                    x = block[r, f]
                    at, step = np.int64(0), half
                    while step > 0:
                        at += step * (table[f, at + step - 1] <= x)
                        step >>= 1
                    nan = x != x
                    missing += nan
                    infinite += np.abs(x) == np.inf
                    at = at if at < last else last
                    out[r * features + f] = last + 1 if nan else at
            faults[0, f] += missing
            faults[1, f] += infinite
            faults[2, f] += unknown
