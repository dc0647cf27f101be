"""Rows left out while they are read: `data.filter`, told to whoever reads so that little is read in vain.

What lies in folders' names leaves whole files out, a parquet file's statistics leave row groups out, a database gets a
WHERE; what remains is looked at row by row. A row without a value, or with one of another kind, meets no condition.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.contract import category_text
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.row_filter import Condition, Limits, is_moment

# A partition that a writer made of missing values.
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"

_TESTS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "min": (">=", lambda value, limit: value >= limit),
    "max": ("<=", lambda value, limit: value <= limit),
    "below": ("<", lambda value, limit: value < limit),
}

_PLACE = "place of the row"


@dataclass(frozen=True)
class RowFilter:
    """The conditions that a row must meet, by the data's names of the columns."""

    conditions: Mapping[str, Condition]

    def __bool__(self) -> bool:
        """Whether there is any condition."""
        return bool(self.conditions)

    def without(self, constants: Sequence[tuple[str, str]]) -> "RowFilter":
        """Return the conditions that the folders' names do not settle."""
        settled = {name for name, _ in constants}
        return RowFilter({name: told for name, told in self.conditions.items() if name not in settled})

    def allows(self, constants: Sequence[tuple[str, str]]) -> bool:
        """Tell whether a file whose folders have these values can hold rows that are read."""
        return all(_allows(value, self.conditions[name]) for name, value in constants if name in self.conditions)

    def expression(self, schema: Any, *, where: str) -> Any:
        """Return the conditions as an Arrow expression on rows of this schema.

        Raises UserError if a column cannot be compared with what its condition names.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        met = pc.scalar(True)
        for name, told in self.conditions.items():
            kind, column = schema.field(name).type, pc.field(name)
            if isinstance(told, Limits):
                for limit, value in told.told.items():
                    met &= _TESTS[limit][1](column, _literal(kind, name, value, where))
            else:
                values = [_literal(kind, name, value, where) for value in told]
                met &= column.isin(pa.array([value.as_py() for value in values], values[0].type))
        return met

    def places(self, table: Any, *, where: str) -> NDArray[np.int64]:
        """Return which rows of an Arrow table meet the conditions, int64, ascending.

        Texts that are compared with numbers, times or booleans are read as such. Raises UserError as `expression`.
        """
        import pyarrow as pa

        columns = {name: _compared(table.column(name), told) for name, told in self.conditions.items()}
        narrow = pa.table({**columns, _PLACE: np.arange(table.num_rows)})
        met = narrow.filter(self.expression(narrow.schema, where=where))
        found: NDArray[np.int64] = met.column(_PLACE).to_numpy()
        return found

    def clause(self, quote: Callable[[str], str]) -> tuple[str, dict[str, Any]]:
        """Return a WHERE clause and its parameters, empty if there are no conditions. quote: a column's name."""
        parts: list[str] = []
        parameters: dict[str, Any] = {}

        def bound(value: Any) -> str:
            parameters[name := f"lepton_{len(parameters)}"] = value
            return f":{name}"

        for column, told in self.conditions.items():
            if isinstance(told, Limits):
                parts += [f"{quote(column)} {_TESTS[limit][0]} {bound(value)}" for limit, value in told.told.items()]
            else:
                parts.append(f"{quote(column)} IN ({', '.join(bound(value) for value in told)})")
        return (f" WHERE {' AND '.join(parts)}" if parts else ""), parameters


def numbers_wanted(told: Condition) -> bool:
    """Tell whether a condition compares with numbers."""
    return not any(isinstance(value, (bool, str)) for value in _values(told))


def _values(told: Condition) -> list[Any]:
    return list(told.told.values()) if isinstance(told, Limits) else list(told)


def _allows(folder: str, told: Condition) -> bool:
    """Tell whether a folder's value, a text, meets a condition."""
    if folder == _NO_PARTITION:
        return False
    values = _values(told)
    read: Callable[[Any], Any] = str
    if numbers_wanted(told):
        read = float
    elif all(map(is_moment, values)):
        read = _time
    elif any(isinstance(value, bool) for value in values):
        read = _lowered
    try:
        held = read(folder)
    except ValueError:
        return False
    if isinstance(told, Limits):
        return all(_TESTS[name][1](held, read(limit)) for name, limit in told.told.items())
    return held in [read(value) for value in told]


def _lowered(value: Any) -> str:
    return category_text(value).lower()


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _literal(kind: Any, name: str, value: Any, where: str) -> Any:
    """Return a condition's value as Arrow's of a column's kind."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    try:
        if pa.types.is_boolean(kind) and isinstance(value, bool):
            return pa.scalar(value)
        if pa.types.is_temporal(kind) and is_moment(value):
            return pa.scalar(_time_for(kind, value)).cast(kind)
        if _is_text(kind) and isinstance(value, str):
            return pa.scalar(value, kind)
        if not isinstance(value, (bool, str)):
            if pa.types.is_integer(kind) and value == int(value):
                return pa.scalar(int(value), kind)
            if pa.types.is_decimal(kind):
                return pa.scalar(Decimal(str(value)), kind)
            if pa.types.is_floating(kind):
                return pa.scalar(float(value), kind)
    except (ValueError, OverflowError, pa.ArrowException):
        pass  # said below, as for all that does not fit
    raise UserError(
        f'{where}: data.filter compares "{name}" with {value!r}, but that column is {kind}. Write the value as the '
        "column has it."
    )


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _time_for(kind: Any, value: str) -> datetime:
    time = datetime.fromisoformat(value)
    if getattr(kind, "tz", None) is None:
        return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _compared(column: Any, told: Condition) -> Any:
    """Return a column as what its condition compares it with: what a CSV file has is text, whatever it means."""
    import pandas as pd
    import pyarrow as pa

    values = _values(told)
    if not _is_text(column.type) or all(isinstance(value, str) and not is_moment(value) for value in values):
        return column
    texts = column.to_pandas().astype("string").str.strip()
    if numbers_wanted(told):
        return pa.array(pd.to_numeric(texts, errors="coerce").astype("Float64"), pa.float64(), from_pandas=True)
    if all(isinstance(value, bool) for value in values):
        return pa.array(texts.str.lower().map({"true": True, "1": True, "false": False, "0": False}), pa.bool_())
    if all(map(is_moment, values)):
        times = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
        in_utc = times.dt.tz_convert(None).to_numpy(dtype="datetime64[us]")
        return pa.array(in_utc, from_pandas=True).cast(pa.timestamp("us", tz="UTC"))
    return column
