"""Checks rows against the contract, with pandera; sets rows that break it aside, or leaves that to the caller.

What is not of the contract's kind is found where columns are read (`values`); ranges, categories, required and
unique values are a pandera schema made from the contract, which can be used by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.contract import Column, Contract, category_text

from .splits import ValuesByColumn, row_ids
from .values import NO_TIME, read_values
from .violations import NAMED, KeySample, Violation, Violations

if TYPE_CHECKING:
    import pandas as pd
    from pandera.pandas import DataFrameSchema

BoolArray = NDArray[np.bool_]

# Whole numbers up to here are themselves in float32.
_EXACT_IN_FLOAT32 = float(1 << 24)


@dataclass(frozen=True)
class Checked:
    """Some rows, read by the contract.

    values: the columns' values by name. violations: what was found. rejected: bool, (rows,), rows that break a rule.
    broken: column, rule and the rows that break it, bool, (rows,).
    """

    values: ValuesByColumn
    violations: Violations
    rejected: BoolArray
    broken: tuple[tuple[str, str, BoolArray], ...]


def check(
    frame: "pd.DataFrame", contract: Contract, *, numbers: "Sequence[int] | pd.Index[Any] | None" = None
) -> Violations:
    """Count what breaks the contract in some rows.

    frame: as a source reads it. numbers: of its rows in their file, from 0, by which rows without a key are named;
    unset: counted. Returns violations that can be added up over pieces.
    """
    return read(frame, contract, numbers=numbers).violations


def read(
    frame: "pd.DataFrame", contract: Contract, *, numbers: "Sequence[int] | pd.Index[Any] | None" = None
) -> Checked:
    """Read raw rows by the contract and check them. frame: (rows, columns), as a source reads it; numbers: as there."""
    values = {c.name: read_values(frame[c.name], c) for c in contract.columns if c.role != "unused"}
    n = len(frame)
    broken: list[tuple[str, str, BoolArray]] = [(name, "type", v.wrong) for name, v in values.items()]
    broken = [(name, "category" if contract.column(name).kind == "category" else rule, w) for name, rule, w in broken]
    broken += _schema_failures(values, contract, n)
    rejected = np.zeros(n, dtype=np.bool_)
    found = []
    for name, rule, rows in broken:
        if not rows.any():
            continue
        rejected |= rows
        places = np.flatnonzero(rows)[:NAMED]
        found.append(
            Violation(
                name,
                rule,
                int(np.count_nonzero(rows)),
                keys=_row_names(frame, contract, places, range(n) if numbers is None else numbers),
                values=_shown(frame, contract, name, rule, np.flatnonzero(rows)),
            )
        )
    violations = _violations(values, contract, n, tuple(found), rejected)
    return Checked(values, violations, rejected, tuple(broken))


def schema(contract: Contract) -> "DataFrameSchema":
    """Return the contract as a pandera schema over values as `read_values` makes them."""
    import pandera.pandas as pa

    columns = {c.name: pa.Column(None, _checks(c), nullable=True) for c in contract.columns if c.role != "unused"}
    unique = [c.name for c in contract.columns if c.unique and c.role not in {"unused", "key"}]
    for name in unique:
        columns[name].unique = True
    keys = [c.name for c in contract.keys] if contract.has_unique_key else None
    return pa.DataFrameSchema(columns, unique=keys, name=contract.id)


def _checks(column: Column) -> list[Any]:
    import pandera.pandas as pa

    checks = []
    if column.kind in {"number", "boolean"} and column.role != "key":
        checks.append(pa.Check(lambda s: ~np.isinf(s), error="finite"))
    if column.kind == "number":
        if column.minimum is not None:
            checks.append(pa.Check.greater_than_or_equal_to(column.minimum, error="range"))
        if column.maximum is not None:
            checks.append(pa.Check.less_than_or_equal_to(column.maximum, error="range"))
        if column.role == "weight":
            checks.append(pa.Check.greater_than_or_equal_to(0, error="range"))
    if column.kind == "time":
        for bound, after in ((column.earliest, True), (column.latest, False)):
            if bound is not None:
                checks.append(pa.Check(_Bound(_microseconds(bound), after), error="time", ignore_na=False))
    return checks


@dataclass(frozen=True)
class _Bound:
    """Tells which times lie on the allowed side of a bound; missing ones do."""

    bound: int
    after: bool

    def __call__(self, times: "pd.Series[Any]") -> Any:
        inside = times >= self.bound if self.after else times <= self.bound
        return inside | (times == NO_TIME)


def _schema_failures(values: ValuesByColumn, contract: Contract, n: int) -> list[tuple[str, str, BoolArray]]:
    import pandas as pd
    import pandera.errors

    broken = []
    for column in contract.columns:
        needed = column.required or (column.role in {"label", "weight"} and not column.may_be_unknown)
        if needed and column.name in values:
            broken.append((column.name, "required", values[column.name].missing))
    # The columns are ours already and nothing here changes them: copies would cost more than the checks.
    frame = pd.DataFrame({name: v.values for name, v in values.items()}, copy=False)
    try:
        schema(contract).validate(frame, lazy=True, inplace=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        keys = _keys_column(contract)
        for (named, rule), rows in cases.groupby(["column", "check"], sort=False, dropna=False)["index"]:
            name, rule = (keys, "duplicate") if "unique" in str(rule) else (str(named), str(rule))
            failed = np.zeros(n, dtype=np.bool_)
            failed[rows.dropna().to_numpy(dtype=np.int64)] = True
            if rule == "duplicate":
                name = name if contract.has_unique_key else str(named)
            broken.append((name, rule, failed))
    return _merged(broken)


def _merged(broken: list[tuple[str, str, BoolArray]]) -> list[tuple[str, str, BoolArray]]:
    """Join failures of one column and rule, as of its minimum and its maximum; an infinity is out of range, too."""
    merged: dict[tuple[str, str], BoolArray] = {}
    for name, rule, rows in broken:
        merged[name, rule] = merged[name, rule] | rows if (name, rule) in merged else rows
    for name, rule in list(merged):
        if rule == "range" and (name, "finite") in merged:
            merged[name, rule] = merged[name, rule] & ~merged[name, "finite"]
        if rule == "duplicate" and (name, "required") in merged:
            merged[name, rule] = merged[name, rule] & ~merged[name, "required"]
    return [(name, rule, rows) for (name, rule), rows in merged.items()]


def _keys_column(contract: Contract) -> str:
    return contract.keys[0].name if contract.keys else ""


def _violations(
    values: ValuesByColumn, contract: Contract, n: int, found: tuple[Violation, ...], rejected: BoolArray
) -> Violations:
    missing = tuple((name, int(np.count_nonzero(v.missing))) for name, v in values.items() if v.missing.any())
    inexact = []
    for column in contract.features:
        if column.kind == "number" and n and column.name in values:
            with np.errstate(invalid="ignore"):
                large = np.abs(values[column.name].values) > _EXACT_IN_FLOAT32
            if column.integer and large.any():
                inexact.append((column.name, int(np.count_nonzero(large))))
    label_range = None
    if contract.label is not None:
        label = values[contract.label.name]
        labels = label.values[~(rejected | label.missing)]
        if len(labels):
            label_range = (float(labels.min()), float(labels.max()))
    sample = KeySample()
    if contract.has_unique_key:
        # Merging with the empty sample cuts a large piece down.
        named = ~np.logical_or.reduce([values[c.name].missing | values[c.name].wrong for c in contract.keys])
        sample = sample + KeySample(np.sort(row_ids(values, contract)[named]))
    return Violations(n, int(np.count_nonzero(rejected)), found, missing, tuple(inexact), label_range, sample)


def _row_names(
    frame: "pd.DataFrame", contract: Contract, places: NDArray[np.int64], numbers: "Sequence[int] | pd.Index[Any]"
) -> tuple[str, ...]:
    """Return how a person finds the rows: by their key, or by their number in the file (the header is row 0)."""
    if not contract.keys or any(c.personal for c in contract.keys):
        return tuple(str(int(numbers[int(place)]) + 1) for place in places)
    names = []
    for place in places:
        parts = [frame[c.name].iloc[int(place)] for c in contract.keys]
        gone = any(part is None or part != part for part in parts)
        names.append("nothing" if gone else "/".join(_plain(part).strip("'") for part in parts))
    return tuple(names)


def _shown(
    frame: "pd.DataFrame", contract: Contract, name: str, rule: str, places: NDArray[np.int64]
) -> tuple[str, ...]:
    """Return up to five of the values at fault, unless the column is personal."""
    if contract.column(name).personal or rule in {"required", "duplicate", "finite"}:
        return ()
    import pandas as pd

    return tuple(_plain(v) for v in pd.unique(frame[name].iloc[places])[:NAMED])


def _plain(value: Any) -> str:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        # Quotes tell a word in the data from the sentence around it.
        return value[:60] if value[:1].isdigit() else repr(value[:60])
    return "nothing" if value is None else category_text(value)[:60]


def _microseconds(moment: str) -> int:
    time = datetime.fromisoformat(moment)
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1_000_000)
