"""Values into the arrays that algorithms take: float32 features, label, weight, row numbers, groups.

Numbers stay numbers, booleans are 0 and 1, a category is its place in the contract's list, missing is NaN: what
XGBoost itself expects, so that a model's inputs mean the same in training and in serving.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.contract import Column, Contract

from .keys import UInt64Array
from .splits import ValuesByColumn, row_ids
from .validation import read
from .values import Values

if TYPE_CHECKING:
    import pandas as pd

Float32Array = NDArray[np.float32]

# Rows are written across columns in blocks that stay in the cache.
_BLOCK = 4096


@dataclass(frozen=True)
class Encoded:
    """Rows as arrays.

    X: float32, (rows, features), C order, NaN for missing; features in the contract's order.
    label: float32, (rows,); a category's code. weight: float32, (rows,), or None if the contract has none.
    row_id: uint64, (rows,). groups: int32 codes, (rows,), by column, -1 for missing.
    """

    X: Float32Array
    label: Float32Array
    weight: Float32Array | None
    row_id: UInt64Array
    groups: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many rows."""
        return len(self.X)

    def rows(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> "Encoded":
        """Return some of the rows. which: bool, (rows,), or places."""
        return Encoded(
            np.ascontiguousarray(self.X[which]),
            self.label[which],
            None if self.weight is None else self.weight[which],
            self.row_id[which],
            {name: codes[which] for name, codes in self.groups.items()},
        )

    @staticmethod
    def joined(parts: "list[Encoded]") -> "Encoded":
        """Return the rows of several parts, in their order. Raises ValueError if there is no part."""
        if not parts:
            raise ValueError("no rows to join")
        weights = [p.weight for p in parts if p.weight is not None]
        return Encoded(
            np.concatenate([p.X for p in parts]),
            np.concatenate([p.label for p in parts]),
            np.concatenate(weights) if weights else None,
            np.concatenate([p.row_id for p in parts]),
            {name: np.concatenate([p.groups[name] for p in parts]) for name in parts[0].groups},
        )


class Gathered:
    """Rows of several parts put behind each other as they come, without ever holding all of them twice.

    Arrays grow where they lie: the system moves pages of large ones instead of copying them.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._arrays: dict[str, NDArray[Any]] = {}

    def add(self, part: Encoded) -> None:
        """Put a part's rows behind those there are. Raises ValueError if it has other columns."""
        arrays: dict[str, NDArray[Any]] = {"X": part.X, "label": part.label, "row_id": part.row_id}
        if part.weight is not None:
            arrays["weight"] = part.weight
        arrays |= {f"group.{name}": codes for name, codes in part.groups.items()}
        if not self._arrays:
            self._arrays = {name: np.empty((0, *array.shape[1:]), array.dtype) for name, array in arrays.items()}
        if arrays.keys() != self._arrays.keys():
            raise ValueError(f"a part has {sorted(arrays)}, those before it {sorted(self._arrays)}")
        wanted = self._rows + len(part)
        for name, array in arrays.items():
            held = self._arrays[name]
            if wanted > len(held):
                # An eighth more than is needed, so that many small parts do not move it each time.
                held.resize((wanted + wanted // 8, *held.shape[1:]), refcheck=False)
            held[self._rows : wanted] = array
        self._rows = wanted

    def encoded(self) -> Encoded:
        """Return all rows; nothing can be added after it. Raises ValueError if there was no part."""
        if not self._arrays:
            raise ValueError("no rows to join")
        for held in self._arrays.values():
            held.resize((self._rows, *held.shape[1:]), refcheck=False)
        arrays = self._arrays
        groups = {name.removeprefix("group."): codes for name, codes in arrays.items() if name.startswith("group.")}
        return Encoded(arrays["X"], arrays["label"], arrays.get("weight"), arrays["row_id"], groups)


def encode(frame: "pd.DataFrame", contract: Contract) -> Encoded:
    """Encode raw rows that keep the contract. frame: as a source reads it. Wrong values become missing."""
    return encode_values(read(frame, contract).values, contract)


def encode_values(values: ValuesByColumn, contract: Contract) -> Encoded:
    """Encode values that were read by the contract. Raises ValueError if the contract marks no label."""
    if contract.label is None:
        raise ValueError(f"contract {contract.id} marks no label")
    n = len(next(iter(values.values())).missing)
    X = np.empty((n, len(contract.features)), dtype=np.float32)
    with np.errstate(over="ignore"):
        # A number beyond float32's range becomes an infinity; the contract's range or `finite` has refused it.
        columns = [_numbers(values[column.name], column) for column in contract.features]
        for first in range(0, n, _BLOCK):
            block = slice(first, first + _BLOCK)
            for place, numbers in enumerate(columns):
                X[block, place] = numbers[block]
        label = _numbers(values[contract.label.name], contract.label).astype(np.float32)
    weight = None
    if contract.weight is not None:
        weight = values[contract.weight.name].values.astype(np.float32)
    groups = {c.name: _codes(values[c.name]) for c in contract.groups}
    return Encoded(X, label, weight, row_ids(values, contract), groups)


def _numbers(column_values: Values, column: Column) -> NDArray[np.float64]:
    if column.kind != "category":
        return column_values.values
    codes = column_values.values.astype(np.float64)
    codes[column_values.values < 0] = np.nan
    return codes


def _codes(column_values: Values) -> NDArray[np.int32]:
    values = column_values.values
    if values.dtype == np.int32:
        codes: NDArray[np.int32] = np.where(values < 0, -1, values).astype(np.int32)
        return codes
    return np.where(np.isnan(values), -1, values).astype(np.int32)
