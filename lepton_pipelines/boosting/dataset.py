"""Rows to train on or to evaluate: features, labels, weights, checked once when they are put together."""

import hashlib
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.features import CATEGORICAL, FeatureSchema
from lepton_pipelines.boosting.frames import CategoryNames, Table, read_table
from lepton_pipelines.spec.errors import UserError

Float32Array = NDArray[np.float32]

_FEATURE_TYPES = ("q", "float", "int", "i", CATEGORICAL)
_CHECKED_AT_ONCE = 1 << 16
_MOST_CATEGORIES = 1 << 24  # float32 tells whole numbers apart up to here


class Dataset:
    """One party's rows: what `xgboost.DMatrix` is to `xgboost.train`.

    X: NumPy array, pandas or polars frame, Arrow table, or SciPy compressed rows (what is not stored is missing).
        NaN and null are missing. Kept as given where that can be, so it must not be changed while in use.
    label: numbers, (rows,). weight: numbers not below 0, (rows,). base_margin: (rows,) or (rows, outputs), where
    boosting starts instead of the base score.
    row_id: whole numbers or text, (rows,): what a row is called wherever it lies; `subsample` draws by it.
    feature_names: one a column, if the frame has none of its own or others are wanted.
    feature_types: XGBoost's: `q`, `float`, `int`, `i`, or `c` for codes of categories.
    label_bounds: (lowest, highest) that a label may be. weight_bound: the largest that a weight may be. What a
        contract declares; rows beyond are refused.
    Raises UserError for whatever cannot be trained on: it names the column or the number of rows and what to do.
    """

    def __init__(
        self,
        X: Any,
        label: Any = None,
        *,
        weight: Any = None,
        base_margin: Any = None,
        row_id: Any = None,
        feature_names: Sequence[str] | None = None,
        feature_types: Sequence[str] | None = None,
        label_bounds: tuple[float, float] | None = None,
        weight_bound: float | None = None,
    ) -> None:
        table = read_table(X)
        self._rows = table.rows
        self.feature_names = _names(feature_names, table)
        self.feature_types = _types(feature_types, table)
        self.category_names: tuple[CategoryNames, ...] = table.categories if _has_categories(self.feature_types) else ()
        self._refuse_infinite()
        self._code_counts = self._count_codes()
        self.label = _vector("label", label, self.n_rows)
        self.weight = _vector("weight", weight, self.n_rows)
        self.base_margin = _margins(base_margin, self.n_rows)
        self.row_id = _row_ids(row_id, self.n_rows)
        self.label_bounds = label_bounds
        self.weight_bound = weight_bound
        self._check_bounds()

    @property
    def n_rows(self) -> int:
        """How many rows."""
        return self._rows.shape[0]

    @property
    def n_features(self) -> int:
        """How many columns."""
        return self._rows.shape[1]

    @property
    def schema(self) -> FeatureSchema:
        """The columns, with as many categories as this party's rows or category types have."""
        return FeatureSchema(self.feature_names, self.feature_types, self._code_counts, self.n_features)

    def block(self, start: int, stop: int) -> Float32Array:
        """float32, (stop - start, columns), C-contiguous, NaN where a value is missing; not to be written to."""
        return self._rows.block(start, stop)

    def without_rows(self) -> "Dataset":
        """Return a set of the same columns that holds no rows: the part of an organisation that has none."""
        empty = copy(self)
        empty._rows = read_table(np.zeros((0, self.n_features), np.float32)).rows
        for name in ("label", "weight", "base_margin", "row_id"):
            values = getattr(self, name)
            setattr(empty, name, None if values is None else values[:0])
        return empty

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n_rows

    def num_row(self) -> int:
        """How many rows; `xgboost.DMatrix` calls it so."""
        return self.n_rows

    def num_col(self) -> int:
        """How many columns; `xgboost.DMatrix` calls it so."""
        return self.n_features

    def get_label(self) -> Float32Array:
        """The labels, as functions written for `xgboost.DMatrix` ask for them; empty if there are none."""
        return np.zeros(0, np.float32) if self.label is None else self.label

    def get_weight(self) -> Float32Array:
        """The weights, as functions written for `xgboost.DMatrix` ask for them; empty if there are none."""
        return np.zeros(0, np.float32) if self.weight is None else self.weight

    def get_base_margin(self) -> Float32Array:
        """The base margins, as functions written for `xgboost.DMatrix` ask for them; empty if there are none."""
        return np.zeros(0, np.float32) if self.base_margin is None else self.base_margin

    def _name(self, column: int) -> str:
        return f'column "{self.feature_names[column]}"' if self.feature_names else f"column {column} of X"

    def _refuse_infinite(self) -> None:
        found = self._rows.infinite()
        if found:
            raise UserError(
                [
                    f"{self._name(column)}: {count} of {self.n_rows} values are infinite or beyond float32. "
                    "Replace them, by NaN if they mean missing."
                    for column, count in found.items()
                ]
            )

    def _count_codes(self) -> tuple[int, ...]:
        """How many codes each categorical column has; raises UserError for codes that are none."""
        categorical = [place for place, kind in enumerate(self.feature_types) if kind == CATEGORICAL]
        if not categorical:
            return ()
        counts = [0] * self.n_features
        unnamed = [place for place in categorical if not (self.category_names and self.category_names[place])]
        for place in categorical:
            counts[place] = len(self.category_names[place]) if place not in unnamed else 0
        for start in range(0, self.n_rows if unnamed else 0, _CHECKED_AT_ONCE):
            block = self.block(start, min(start + _CHECKED_AT_ONCE, self.n_rows))
            for place in unnamed:
                codes = block[:, place][~np.isnan(block[:, place])]
                wrong = (codes < 0) | (codes != np.floor(codes)) | (codes >= _MOST_CATEGORIES)
                if wrong.any():
                    raise UserError(
                        f"{self._name(place)}: {int(wrong.sum())} values of the first {start + len(block)} rows "
                        f"are no category codes (for example {codes[np.argmax(wrong)]:g}). Give whole numbers from 0."
                    )
                counts[place] = max(counts[place], int(codes.max(initial=-1)) + 1)
        return tuple(counts)

    def _check_bounds(self) -> None:
        if self.weight is not None:
            negative = int(np.count_nonzero(self.weight < 0))
            if negative:
                raise UserError(f"weight: {negative} of {self.n_rows} rows have a negative weight. Correct them.")
            bound = self.weight_bound
            if bound is not None and (beyond := int(np.count_nonzero(self.weight > np.float32(bound)))):
                raise UserError(
                    f"weight: {beyond} of {self.n_rows} rows have a weight beyond the declared bound {bound:g}. "
                    "Correct them, or declare a larger weight_bound."
                )
        if self.label is not None and self.label_bounds is not None:
            lowest, highest = self.label_bounds
            outside = (self.label < np.float32(lowest)) | (self.label > np.float32(highest))
            if outside.any():
                raise UserError(
                    f"label: {int(outside.sum())} of {self.n_rows} rows have a label outside the declared bounds "
                    f"{lowest:g} to {highest:g} (for example {self.label[np.argmax(outside)]:g}). "
                    "Correct them, or declare wider label_bounds."
                )


def _names(given: Sequence[str] | None, table: Table) -> tuple[str, ...]:
    names = table.names if given is None else tuple(str(name) for name in given)
    columns = table.rows.shape[1]
    if names and len(names) != columns:
        raise UserError(f"feature_names: {len(names)} names for {columns} columns of X. Give one for each.")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise UserError(f"feature_names: {', '.join(twice)} stands for several columns. Names must differ.")
    marked = [name for name in names if any(mark in name for mark in "[]<")]
    if marked:
        raise UserError(f"feature_names: {', '.join(marked)}: XGBoost's names hold no [, ] or <. Rename the columns.")
    return names


def _types(given: Sequence[str] | None, table: Table) -> tuple[str, ...]:
    if given is None:
        return table.types
    types = tuple(str(kind) for kind in given)
    columns = table.rows.shape[1]
    if len(types) != columns:
        raise UserError(f"feature_types: {len(types)} types for {columns} columns of X. Give one for each.")
    unknown = sorted(set(types) - set(_FEATURE_TYPES))
    if unknown:
        raise UserError(f"feature_types: {', '.join(unknown)} is not a type. Known are: {', '.join(_FEATURE_TYPES)}.")
    for place, (own, wanted) in enumerate(zip(table.types, types, strict=False)):
        if own == CATEGORICAL and wanted != CATEGORICAL:
            raise UserError(
                f'feature_types: column "{table.names[place]}" holds categories, {wanted} is not their type. Write c.'
            )
    return types


def _has_categories(types: Sequence[str]) -> bool:
    return CATEGORICAL in types


def _numbers(what: str, values: Any) -> NDArray[Any]:
    """Any column-like thing as an array of numbers."""
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    array = np.asarray(values)
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise UserError(f"{what} holds objects that are not numbers. Convert it.") from None
    if array.dtype.kind not in "fiub":
        raise UserError(f"{what} holds {array.dtype}, not numbers. Convert it: classes are numbers from 0.")
    return array


def _vector(what: str, values: Any, rows: int) -> Float32Array | None:
    if values is None:
        return None
    array = _numbers(what, values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise UserError(f"{what} has shape {array.shape}; one number a row is wanted. Several a row are not supported.")
    if len(array) != rows:
        raise UserError(f"{what} has {len(array)} values, X has {rows} rows. They must be the same rows.")
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(array, np.float32)
    wrong = int(np.count_nonzero(~np.isfinite(numbers)))
    if wrong:
        raise UserError(
            f"{what}: {wrong} of {rows} values are missing, infinite or beyond float32. "
            "Correct those rows or leave them out."
        )
    return numbers


def _margins(values: Any, rows: int) -> Float32Array | None:
    if values is None:
        return None
    array = _numbers("base_margin", values)
    if array.ndim not in (1, 2) or len(array) != rows:
        raise UserError(f"base_margin has shape {array.shape}; ({rows},) or ({rows}, outputs) is wanted.")
    margins = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(margins).all():
        wrong = int(np.count_nonzero(~np.isfinite(margins)))
        raise UserError(f"base_margin: {wrong} of {margins.size} values are infinite or undefined. Correct them.")
    return margins


def _row_ids(values: Any, rows: int) -> NDArray[np.uint64] | None:
    """Whole numbers as they are, text by its digest: the same id everywhere."""
    if values is None:
        return None
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.ndim != 1 or len(array) != rows:
        raise UserError(f"row_id has shape {array.shape}, X has {rows} rows. Give one id a row.")
    if array.dtype.kind in "iu":
        return array.astype(np.int64).view(np.uint64) if array.dtype.kind == "i" else array.astype(np.uint64)
    if array.dtype.kind in "fbcmM":
        raise UserError(f"row_id holds {array.dtype}. Give whole numbers or text.")
    digests = b"".join(hashlib.blake2b(str(value).encode(), digest_size=8).digest() for value in array)
    return np.frombuffer(digests, "<u8").astype(np.uint64)
