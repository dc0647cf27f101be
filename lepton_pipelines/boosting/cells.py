"""Counting values in cells of an order-preserving map of float32, as fine as asked for.

A float32's bits, with the sign's meaning undone, are an unsigned number in the same order as the values. A cell is
all values that share the leading bits of that number. Cells are split step by step (2^10 of them, each of interest
2^6 ways, then 2^4 ways, …), and only those of interest are followed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import inlined, kernel
from lepton_pipelines.boosting.exact_math import float_bits
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.sums import Int64Array

Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]
UInt32Array = NDArray[np.uint32]

WAYS = (10, 6, 4, 4, 4, 4)  # bits that each step looks at; together all 32
_BLOCK_VALUES = 1 << 20
_ROWS = 64
WEIGHT_BITS = 24
_BITS_LEFT = 32 - np.cumsum(WAYS)


def lower_key(prefix: Int64Array, step: Int64Array) -> Int64Array:
    """int64: where cells with these leading bits, counted in these steps, begin in the order of all float32."""
    return np.left_shift(prefix, _BITS_LEFT[step])


def lowest_value(key: Int64Array) -> Float32Array:
    """float32: the values at these places of the order."""
    keys = key.astype(np.uint32)
    return np.where(keys >> 31, keys ^ np.uint32(0x80000000), ~keys).view(np.float32)


def weight_scale(exponent: int) -> float:
    """The integer that stands for a weight of 1.0 if 2^exponent is above all weights."""
    return float(np.ldexp(1.0, WEIGHT_BITS - exponent))


@dataclass(frozen=True)
class CountCells:
    """Count the rows of a set in the cells of interest, and their weights.

    followed: one table a step that was made before. The first is int32, (columns, 2^10), the others (cells of
    interest, ways): the number of the cell among those that are split further, or -1.
    categorical: bool, one a column; a categorical column's codes are counted in the first step, not its cells.
    weight_scale: integers for a weight of 1.0; 0 if no rows are weighted.
    """

    name: str
    categorical: NDArray[np.bool_]
    followed: tuple[Int32Array, ...]
    weight_scale: float

    @property
    def cells(self) -> tuple[int, int]:
        """What is counted: cells of interest, and how many ways each is split."""
        if not self.followed:
            return len(self.categorical), 1 << WAYS[0]
        return int(self.followed[-1].max(initial=-1)) + 1, 1 << WAYS[len(self.followed)]

    def run(self, shard: Shard) -> Int64Array:
        """Count.

        Returns int64: how many values each column lacks (in the first step), how many rows lie in each part of
        each cell, and if there are weights, the same for weights.
        """
        rows, features = shard.sets[self.name], len(self.categorical)
        weight = shard.weight(self.name)
        weighted = self.weight_scale > 0
        measures = 2 if weighted else 1
        step = max(_ROWS, _BLOCK_VALUES // max(features, 1) // _ROWS * _ROWS)
        starts = range(0, rows.n_rows, step)
        threads = max(1, min(shard.pool.threads, len(starts)))
        counts = np.zeros((threads, measures, *self.cells), np.int64)
        missing = np.zeros((threads, measures, features), np.int64)
        first, second, third, fourth, fifth = self._tables()

        def work(thread: int) -> None:
            for start in starts[thread::threads]:
                stop = min(start + step, rows.n_rows)
                block = rows.block(start, stop)
                measure = np.ones((1, stop - start), np.int64) if not weighted else self._measures(weight, start, stop)
                _count_cells(
                    block,
                    measure,
                    self.categorical,
                    len(self.followed),
                    first,
                    second,
                    third,
                    fourth,
                    fifth,
                    counts[thread],
                    missing[thread],
                )

        shard.pool.run([(work, (thread,)) for thread in range(threads)])
        total = counts.sum(axis=0).ravel()
        return total if self.followed else np.concatenate([missing.sum(axis=0).ravel(), total])

    def _measures(self, weight: Float32Array, start: int, stop: int) -> Int64Array:
        ones = np.ones(stop - start, np.int64)
        if not len(weight):
            return np.stack([ones, ones * round(self.weight_scale)])
        units = np.rint(weight[start:stop].astype(np.float64) * self.weight_scale).astype(np.int64)
        # Rows without weight make no edges, as if they were not there.
        return np.stack([(weight[start:stop] > 0).astype(np.int64), units])

    def _tables(self) -> Sequence[Int32Array]:
        nothing = np.zeros((1, 1), np.int32)
        return [*self.followed, *[nothing] * (5 - len(self.followed))]


@inlined
def key_of(x: np.float32) -> np.int64:
    """The unsigned number, 32 bits, that has the value's place in the order of all float32."""
    bits = np.int64(float_bits(x + np.float32(0.0))) & 0xFFFFFFFF  # + 0: minus zero is zero
    return bits ^ (0xFFFFFFFF if bits >> 31 else 0x80000000)


@kernel
def _count_cells(
    block: Float32Array,
    measure: Int64Array,
    categorical: NDArray[np.bool_],
    steps: int,
    first: Int32Array,
    second: Int32Array,
    third: Int32Array,
    fourth: Int32Array,
    fifth: Int32Array,
    counts: Int64Array,
    missing: Int64Array,
) -> None:
    rows, features = block.shape
    measures = len(measure)
    for start in range(0, rows, _ROWS):
        stop = min(start + _ROWS, rows)
        for f in range(features):
            if categorical[f] and steps > 0:
                continue
            for r in range(start, stop):
                x = block[r, f]
                cell, part = np.int64(f), np.int64(0)
                if x != x:
                    if steps == 0:
                        missing[0, f] += 1
                        for m in range(1, measures):
                            missing[m, f] += measure[m, r]
                    continue
                if categorical[f]:
                    last = counts.shape[2] - 1
                    part = np.int64(x) if x >= 0 and x < last else last
                else:
                    key = key_of(x)
                    part = key >> 22
                    if steps >= 1:
                        cell, part = np.int64(first[f, part]), (key >> 16) & 63
                    if steps >= 2 and cell >= 0:
                        cell, part = np.int64(second[cell, part]), (key >> 12) & 15
                    if steps >= 3 and cell >= 0:
                        cell, part = np.int64(third[cell, part]), (key >> 8) & 15
                    if steps >= 4 and cell >= 0:
                        cell, part = np.int64(fourth[cell, part]), (key >> 4) & 15
                    if steps >= 5 and cell >= 0:
                        cell, part = np.int64(fifth[cell, part]), key & 15
                    if cell < 0:
                        continue
                # A code is known, and a value missing, even if only rows without weight have it.
                counts[0, cell, part] += 1 if categorical[f] else measure[0, r]
                for m in range(1, measures):
                    counts[m, cell, part] += measure[m, r]
