"""One party's rows as this algorithm holds them, and how steps reach them.

`Rows` and `Step` are those of `spec.algorithm`; here is what a step finds: a shard of named sets, read in blocks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_pipelines.spec.algorithm import Step
from lepton_pipelines.sums import FinishedSum, Int64Array

Float64Array = NDArray[np.float64]

BLOCK_ROWS = 4096
"""Rows that are worked on at a time: thirty columns of them as float64 lie in a second-level cache."""


class Table:
    """A set of rows in memory.

    features: (rows, columns), any real numbers, NaN where missing. label: (rows,). weight: (rows,), not negative.
    Raises ValueError if their lengths differ.
    """

    def __init__(self, features: ArrayLike, label: ArrayLike, weight: ArrayLike | None = None) -> None:
        self.features = _floating(features)
        self.label: NDArray[np.floating[Any]] = _floating(label)
        self.weight: NDArray[np.floating[Any]] | None = None if weight is None else _floating(weight)
        if self.features.ndim != 2:
            raise ValueError(f"features are a table of two dimensions, not {self.features.ndim}")
        for name, values in (("labels", self.label), ("weights", self.weight)):
            if values is not None and values.shape != (self.n_rows,):
                raise ValueError(f"{self.n_rows} rows of features but {name} of shape {values.shape}")

    @property
    def n_rows(self) -> int:
        """How many rows."""
        return len(self.features)

    @property
    def n_features(self) -> int:
        """How many columns."""
        return int(self.features.shape[1])

    def block(self, start: int, stop: int) -> NDArray[np.floating[Any]]:
        """The features of some rows, (stop - start, columns)."""
        return self.features[start:stop]


@dataclass(frozen=True)
class Block:
    """Some rows of a set, as float64: columns (features, rows), C-contiguous; label and weight (rows,)."""

    columns: Float64Array
    label: Float64Array
    weight: Float64Array


class Labelled(Protocol):
    """What a linear model needs of `spec.algorithm.RowSet`; `Table` is one."""

    @property
    def n_rows(self) -> int:
        """How many rows."""
        ...

    @property
    def n_features(self) -> int:
        """How many columns."""
        ...

    @property
    def label(self) -> NDArray[np.floating[Any]] | None:
        """Floating point, (rows,)."""
        ...

    @property
    def weight(self) -> NDArray[np.floating[Any]] | None:
        """Floating point, (rows,), or None for ones."""
        ...

    def block(self, start: int, stop: int) -> NDArray[np.floating[Any]]:
        """Floating point, (stop - start, features), NaN where a value is missing."""
        ...


class Shard:
    """The rows of one place, in named sets.

    Raises ValueError if a set has no labels.
    """

    def __init__(self, sets: Mapping[str, Labelled]) -> None:
        self.sets = dict(sets)
        for name, rows in self.sets.items():
            if rows.label is None:
                raise ValueError(f"the rows of set {name!r} have no labels, a linear model is trained on labels")

    def blocks(self, name: str) -> Iterator[Block]:
        """Read a set in blocks; a set that this place does not have is empty."""
        rows = self.sets.get(name)
        if rows is None or rows.label is None:
            return
        for start in range(0, rows.n_rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, rows.n_rows)
            # One feature after the other, so that adding a feature to the margins walks through memory in order.
            columns = np.array(rows.block(start, stop).T, dtype=np.float64, order="C")
            label = np.asarray(rows.label[start:stop], np.float64)
            weight = np.ones(stop - start) if rows.weight is None else np.asarray(rows.weight[start:stop], np.float64)
            yield Block(columns, label, weight)


class LocalRows:
    """Rows that lie in one shard in this process."""

    def __init__(self, shard: Any) -> None:
        self.shard = shard

    def start(self, step: Step) -> FinishedSum:
        """Run the step on the shard at once."""
        return FinishedSum(step.run(self.shard))

    def add_up(self, step: Step) -> Int64Array:
        """Run the step on the shard and return its vector."""
        return step.run(self.shard)


def _floating(values: ArrayLike) -> NDArray[np.floating[Any]]:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)
