"""What the engine asks of a set of rows; `Dataset` is one."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]


class RowSet(Protocol):
    """Rows with their labels, read in blocks."""

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
        """float32, (rows,) or (rows, outputs): where boosting starts, instead of the base score."""
        ...

    @property
    def row_id(self) -> NDArray[np.uint64] | None:
        """uint64, (rows,): a row's own number, which does not depend on where it lies; None means unknown."""
        ...

    def block(self, start: int, stop: int) -> Float32Array:
        """float32, (stop - start, features), C-contiguous, NaN where a value is missing; category codes as numbers."""
        ...


class PartCodes(Protocol):
    """Codes of a set's parts that are kept between trainings: what is kept need not be made again."""

    @property
    def rows(self) -> Sequence[int]:
        """How many rows each part has, in the order of the set's rows."""
        ...

    def load(self, part: int, binning: bytes) -> NDArray[Any] | None:
        """Return a part's codes under the edges of this digest, row by row; None if there are none."""
        ...

    def keep(self, part: int, binning: bytes, codes: NDArray[Any]) -> None:
        """Keep a part's codes."""
        ...


@runtime_checkable
class HasPartCodes(Protocol):
    """A set of rows whose codes may be kept between trainings."""

    @property
    def part_codes(self) -> PartCodes | None:
        """Where they are kept; None if they are not."""
        ...
