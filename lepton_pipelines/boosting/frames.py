"""Tables of several libraries as plain columns and rows that are read in blocks of float32.

NumPy arrays, pandas and polars frames, Arrow tables and SciPy's compressed rows are kept as they came, without a
copy where that can be; `block` gives any range of rows as float32 with NaN for what is missing. Category columns
become codes, with the names behind them kept for the model file. What XGBoost would not take is refused by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.exact_math import float_bits
from lepton_pipelines.spec.errors import UserError

Float32Array = NDArray[np.float32]
CategoryNames = tuple[str, ...] | tuple[int, ...]

_LARGEST = float(np.finfo(np.float32).max)
_NUMBER_KINDS = "fiub"


class RowSource(Protocol):
    """Rows somewhere in memory."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def block(self, start: int, stop: int) -> Float32Array:
        """float32, (stop - start, columns), C-contiguous, NaN where a value is missing."""
        ...

    def infinite(self) -> dict[int, int]:
        """How many values of each column are infinite, or beyond float32; columns without any are left out."""
        ...


@dataclass(frozen=True)
class Table:
    """Rows with what is known about their columns.

    names: one a column, empty if they have none. types: XGBoost's (`float`, `int`, `i`, `c`), empty if unknown.
    categories: for each column the names behind its codes, empty for numbers; empty altogether if there are none.
    """

    rows: RowSource
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    categories: tuple[CategoryNames, ...] = ()


@kernel
def _infinities(values: Float32Array) -> int:
    count = 0
    for place in range(len(values)):
        count += (float_bits(values[place]) & np.int32(0x7FFFFFFF)) == np.int32(0x7F800000)
    return count


def _count_infinite(values: NDArray[Any]) -> int:
    if values.dtype.kind != "f":
        return 0
    if values.dtype == np.float32 and values.flags.c_contiguous:
        return int(_infinities(values.ravel()))
    with np.errstate(invalid="ignore"):
        return int(np.count_nonzero(np.abs(values) > _LARGEST))


@dataclass(frozen=True)
class DenseRows:
    """A NumPy array, (rows, columns), of any number type."""

    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    def block(self, start: int, stop: int) -> Float32Array:
        """float32 rows; a view where the array is float32 already."""
        return np.ascontiguousarray(self.values[start:stop], np.float32)

    def infinite(self) -> dict[int, int]:
        """Count infinite values by column."""
        if not _count_infinite(self.values):
            return {}
        return _present(_count_infinite(self.values[:, column]) for column in range(self.shape[1]))


@dataclass(frozen=True)
class Columns:
    """One NumPy array a column, of any number types."""

    values: Sequence[NDArray[Any]]
    rows: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, len(self.values)

    def block(self, start: int, stop: int) -> Float32Array:
        """float32 rows, copied column by column."""
        out = np.empty((stop - start, len(self.values)), np.float32)
        for place, column in enumerate(self.values):
            out[:, place] = column[start:stop]
        return out

    def infinite(self) -> dict[int, int]:
        """Count infinite values by column."""
        return _present(_count_infinite(column) for column in self.values)


@dataclass(frozen=True)
class SparseRows:
    """SciPy's compressed rows; what is not stored is missing, as in XGBoost."""

    matrix: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.matrix.shape[0]), int(self.matrix.shape[1])

    def block(self, start: int, stop: int) -> Float32Array:
        """float32 rows, NaN where nothing is stored."""
        out = np.full((stop - start, self.shape[1]), np.nan, np.float32)
        places = self.matrix.indptr[start : stop + 1].astype(np.int64)
        rows = np.repeat(np.arange(stop - start), np.diff(places))
        stored = slice(places[0], places[-1])
        out[rows, self.matrix.indices[stored]] = self.matrix.data[stored]
        return out

    def infinite(self) -> dict[int, int]:
        """Count infinite values by column."""
        if not _count_infinite(self.matrix.data):
            return {}
        with np.errstate(invalid="ignore"):
            beyond = np.abs(self.matrix.data) > _LARGEST
        columns, counts = np.unique(self.matrix.indices[beyond], return_counts=True)
        return {int(column): int(count) for column, count in zip(columns, counts, strict=True)}


def _present(counts: Any) -> dict[int, int]:
    return {place: count for place, count in enumerate(counts) if count}


def read_table(X: Any) -> Table:
    """Take a NumPy array, a pandas or polars frame, an Arrow table or SciPy compressed rows.

    Raises UserError for other things, other dimensions, and for columns that are neither numbers nor categories.
    """
    module = type(X).__module__.split(".")[0]
    if module == "pandas" and hasattr(X, "columns"):
        return _from_pandas(X)
    if module == "polars":
        if not hasattr(X, "columns"):
            raise UserError(f"X is a polars {type(X).__name__}, not a DataFrame. Give the frame.")
        return _from_arrow((X.collect() if hasattr(X, "collect") else X).to_arrow())
    if module == "pyarrow":
        return _from_arrow(X)
    if hasattr(X, "tocsr"):
        return _from_scipy(X)
    array = X if isinstance(X, np.ndarray) else np.asarray(X)
    if array.ndim != 2:
        raise UserError(f"X has {array.ndim} dimensions; rows and columns are wanted, (rows, columns).")
    if array.dtype.kind not in _NUMBER_KINDS:
        raise UserError(
            f"X is an array of {_kind(array.dtype)}, which are not numbers. Convert it, "
            "or give a frame with columns of categories."
        )
    return Table(DenseRows(array))


def _kind(dtype: Any) -> str:
    return "objects" if dtype == np.dtype(object) else str(dtype)


def _from_scipy(X: Any) -> Table:
    matrix = X.tocsr()
    if matrix.dtype.kind not in _NUMBER_KINDS:
        raise UserError(f"X is a sparse matrix of {matrix.dtype}, which are not numbers. Convert it.")
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return Table(SparseRows(matrix))


@dataclass
class _Reading:
    """The columns of a frame while they are read; problems are gathered and reported together."""

    names: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    values: list[NDArray[Any]] = field(default_factory=list)
    categories: list[CategoryNames] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, name: str, kind: str, values: NDArray[Any], categories: CategoryNames = ()) -> None:
        """Take a column."""
        self.names.append(name)
        self.types.append(kind)
        self.values.append(values)
        self.categories.append(categories)

    def table(self, rows: int) -> Table:
        """Return what was read; raises UserError if there were problems."""
        if self.problems:
            raise UserError(self.problems)
        categories = tuple(self.categories) if any(self.categories) else ()
        return Table(Columns(self.values, rows), tuple(self.names), tuple(self.types), categories)


def _refused(name: str, dtype: Any) -> str:
    return (
        f'column "{name}" holds {_kind(dtype)}, which are neither numbers nor categories. '
        "Convert it to numbers or to a category type, or leave it out."
    )


def _from_pandas(frame: Any) -> Table:
    import pandas as pd

    reading = _Reading()
    for place, label in enumerate(frame.columns):
        column, name = frame.iloc[:, place], _column_name(label)
        dtype = column.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            _add_categories(reading, name, column.cat.codes.to_numpy(), column.cat.categories.tolist())
        elif isinstance(dtype, pd.ArrowDtype):
            _add_arrow(reading, name, dtype.pyarrow_dtype, column.array.__arrow_array__())
        elif isinstance(dtype, np.dtype) and dtype.kind in _NUMBER_KINDS:
            reading.add(name, _type_of(dtype.kind), column.to_numpy())
        elif pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
            kind = "float" if pd.api.types.is_float_dtype(dtype) else _nullable_type(dtype)
            reading.add(name, kind, column.to_numpy(dtype=np.float32, na_value=np.nan))
        else:
            reading.problems.append(_refused(name, dtype))
    return reading.table(len(frame))


def _column_name(label: Any) -> str:
    return " ".join(str(part) for part in label) if isinstance(label, tuple) else str(label)


def _type_of(kind: str) -> str:
    return {"f": "float", "b": "i"}.get(kind, "int")


def _nullable_type(dtype: Any) -> str:
    return "i" if str(dtype) == "boolean" else "int"


def _add_categories(reading: _Reading, name: str, codes: NDArray[Any], categories: list[Any]) -> None:
    names: CategoryNames
    if all(isinstance(category, str) for category in categories):
        names = tuple(categories)
    elif all(isinstance(category, (int, np.integer)) and not isinstance(category, bool) for category in categories):
        names = tuple(int(category) for category in categories)
    else:
        kinds = sorted({type(category).__name__ for category in categories})
        reading.problems.append(
            f'column "{name}" has categories of type {", ".join(kinds)}; XGBoost stores text or whole numbers. '
            "Rename the categories."
        )
        return
    values = codes.astype(np.float32)
    values[codes < 0] = np.nan
    reading.add(name, "c", values, names)


def _from_arrow(table: Any) -> Table:
    if not hasattr(table, "column_names"):
        raise UserError(f"X is a pyarrow {type(table).__name__}; a Table is wanted. Give the table.")
    reading = _Reading()
    for name, column in zip(table.column_names, table.columns, strict=True):
        _add_arrow(reading, str(name), column.type, column)
    return reading.table(table.num_rows)


def _add_arrow(reading: _Reading, name: str, kind: Any, column: Any) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    array = column
    if isinstance(column, pa.ChunkedArray):
        array = column.unify_dictionaries().combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):  # an empty column has no chunk to combine
        array = pa.array([], type=kind)
    if pa.types.is_dictionary(kind):
        codes = array.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        _add_categories(reading, name, codes, array.dictionary.to_pylist())
    elif pa.types.is_boolean(kind):
        reading.add(name, "i", array.cast(pa.float32()).to_numpy(zero_copy_only=False))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        wide = pc.cast(array, pa.float64(), safe=False) if array.null_count or pa.types.is_decimal(kind) else array
        reading.add(name, "int" if pa.types.is_integer(kind) else "float", wide.to_numpy(zero_copy_only=False))
    elif pa.types.is_null(kind):
        reading.add(name, "float", np.full(len(array), np.nan, np.float32))
    else:
        reading.problems.append(_refused(name, kind))
