"""The rows of one place (a process, a Dask worker) during a training.

A shard holds named sets of rows, their codes once the edges are agreed, and the state that a training leaves
behind: margins, the round's gradients, and which row lies in which node of the tree under construction. Steps
(`steps.py`) read and change it; nothing but their integer vectors ever leaves it.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.rows import NOTHING
from lepton_pipelines.sums import Int64Array

Float32Array = NDArray[np.float32]


class RowSet(Protocol):
    """What a shard asks of a set of rows; `Dataset` is one."""

    @property
    def n_rows(self) -> int:
        """How many rows."""
        ...

    @property
    def n_features(self) -> int:
        """How many columns."""
        ...

    @property
    def label(self) -> Float32Array | None:
        """float32, (rows,)."""
        ...

    @property
    def weight(self) -> Float32Array | None:
        """float32, (rows,), not negative; None means 1 throughout."""
        ...

    @property
    def base_margin(self) -> Float32Array | None:
        """float32, (rows, outputs): where boosting starts, instead of the base score."""
        ...

    @property
    def row_id(self) -> NDArray[np.uint64] | None:
        """uint64, (rows,): a row's own number, which does not depend on where it lies; None means unknown."""
        ...

    def block(self, start: int, stop: int) -> Float32Array:
        """float32, (stop - start, features), C-contiguous, NaN where a value is missing; category codes as numbers."""
        ...


class Shard:
    """Named sets of rows and what a training knows about them.

    sets: the rows as given, by name ("train", "valid", "test").
    margins: float32, (rows, outputs), by set name: the model's raw scores so far, kept up to date tree by tree.
    """

    def __init__(self, sets: Mapping[str, RowSet]) -> None:
        self.sets = dict(sets)
        self.margins: dict[str, Float32Array] = {}

    def nothing(self) -> Int64Array:
        """Return the vector of a step that has nothing to add up."""
        return NOTHING
