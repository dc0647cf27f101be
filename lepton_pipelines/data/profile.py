"""A first draft of a contract from the data themselves: types, ranges, categories, and what looks suspicious.

The draft is for a person to read and correct before it is shared. Ranges are rounded outwards to two digits, so
that no bound is one row's value; categories stand as they are found.
"""

import json
import re
from dataclasses import dataclass, field
from math import floor, inf, log10
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean
from lepton_pipelines.spec.organisation import Data

from .csv_file import infer_csv
from .parquet_file import parquet_columns, read_row_groups, row_group_sizes
from .sources import list_files
from .storage import open_filesystem, plain_errors

if TYPE_CHECKING:
    import pandas as pd

# A column of texts is a category if it has no more values than this, each of them met often enough.
_MOST_CATEGORIES = 100
_ROWS_A_CATEGORY = 5

# A single column that tells the label this well was hardly known before it.
_LEAK_AUC = 0.99
_LEAK_CORRELATION = 0.995

_PERSONAL = re.compile(
    r"(?:^|_)(?:first|last|sur|full)?_?(?:name|email|mail|phone|mobile|address|street|zip|postcode|birth\w*|dob|ssn|"
    r"passport|iban|ip)(?:$|_)"
)
_IDENTIFIER = re.compile(r"(?:^|_)(?:id|key|number|no|uuid|guid)$|^id", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnProfile:
    """What a column holds.

    kind: number, integer, boolean, category, text or time. role: as a draft of the contract has it.
    missing: share. low, high: of numbers, rounded outwards. notes: what looks suspicious.
    """

    name: str
    kind: str
    role: str
    missing: float
    distinct: int
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    personal: bool = False
    notes: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Profile:
    """What a source holds: its columns, and how many rows they were drawn from."""

    rows: int
    columns: tuple[ColumnProfile, ...]


def read_sample(data: Data, *, rows: int = 1_000_000, name: str = "profile") -> "pd.DataFrame":
    """Read the first rows of a source with all its columns. Raises UserError as sources do."""
    import pandas as pd

    with plain_errors(name, data.url, data.storage):
        filesystem, path = open_filesystem(data.url, data.storage)
        frames: list[pd.DataFrame] = []
        for file in list_files(name, data, filesystem, path):
            where = f"{name}: {file.path}"
            if file.format == "csv":
                frame = infer_csv(filesystem, file.path, data.csv, where=where)
            else:
                columns = parquet_columns(filesystem, file.path, where=where)
                groups = range(len(row_group_sizes(filesystem, file.path)))
                frame = read_row_groups(filesystem, file.path, tuple(groups), columns, where=where)
            frames.append(frame.assign(**{n: v for n, v in file.constants if n not in frame}))
            if sum(map(len, frames)) >= rows:
                break
    sample = pd.concat(frames, ignore_index=True).head(rows)
    if sample.empty:
        raise UserError(f"{name}: {data.url} holds no rows. Correct the URL, or fill it.")
    return sample


def profile(frame: "pd.DataFrame", *, label: str | None = None) -> Profile:
    """Describe a table's columns, and name those that look like identifiers, constants or leaks of the label.

    Raises UserError if the label is not a column.
    """
    names = [str(n) for n in frame.columns]
    if label is not None and label not in names:
        raise UserError(f'there is no column "{label}".{did_you_mean(label, names)}')
    return Profile(len(frame), tuple(_column(frame, name, label) for name in names))


def draft_contract(found: Profile, *, name: str) -> str:
    """Return a contract (ODCS 3.1, YAML) for what was found, with what is suspicious as comments."""
    lines = [
        f"# Drafted from {found.rows} rows. Read it, correct it, and only then share it.",
        "apiVersion: v3.1.0",
        "kind: DataContract",
        f"id: {json.dumps(name)}",
        "version: 0.1.0",
        "status: draft",
        "schema:",
        f"  - name: {json.dumps(name)}",
        "    logicalType: object",
        "    customProperties:",
        "      - {property: lepton, value: {minimum_rows: 100}}",
        "    properties:",
    ]
    for column in found.columns:
        lines += _drafted(column)
    return "\n".join(lines) + "\n"


def _column(frame: "pd.DataFrame", name: str, label: str | None) -> ColumnProfile:
    series = frame[name]
    held = series.dropna()
    kind, values = _kind(held)
    distinct = int(held.nunique())
    role, notes = _role(name, kind, distinct, len(held), is_label=name == label)
    if kind == "text" and role == "feature":
        role = "unused"
        notes.append(f"is text with {distinct} values: list its categories, or leave it unused")
    if kind == "time" and role == "feature":
        role = "unused"
        notes.append("is a time: give it the role time for a split by time, or derive numbers from it")
    if label is not None and name != label and role == "feature" and (told := _leak(frame, name, label)):
        notes.append(told)
    personal = bool(_PERSONAL.search(name.lower()))
    if personal:
        notes.append("looks personal by its name")
    low = high = None
    if kind in {"number", "integer"} and len(values) and role not in {"key", "unused"}:
        finite = values[np.isfinite(values)]
        low, high = (
            (_outwards(float(finite.min()), -1), _outwards(float(finite.max()), 1)) if len(finite) else (None, None)
        )
        if len(finite) < len(values):
            notes.append(f"holds {len(values) - len(finite)} infinite values")
    categories = tuple(sorted(str(v) for v in held.unique())) if kind == "category" else ()
    if name == label and kind in {"integer", "boolean"} and distinct <= _MOST_CATEGORIES:
        categories = tuple(str(v) for v in sorted({int(v) for v in held}))
    missing = 1 - len(held) / len(series)
    return ColumnProfile(name, kind, role, missing, distinct, low, high, categories, personal, tuple(notes))


def _kind(held: "pd.Series[Any]") -> tuple[str, Any]:
    """Tell what a column's values are, and return its numbers, if they are numbers."""
    import pandas as pd

    if not len(held):
        return "number", np.empty(0)
    if pd.api.types.is_bool_dtype(held.dtype):
        return "boolean", None
    if pd.api.types.is_datetime64_any_dtype(held.dtype):
        return "time", None
    if pd.api.types.is_numeric_dtype(held.dtype):
        values = held.to_numpy(dtype=np.float64)
        finite = values[np.isfinite(values)]
        return ("integer" if len(finite) and (finite == np.floor(finite)).all() else "number"), values
    texts = held.astype("string").str.strip()
    if set(texts.str.lower().unique()) <= {"true", "false", "yes", "no", "t", "f"}:
        return "boolean", None
    numbers = pd.to_numeric(texts, errors="coerce")
    if not numbers.isna().any():
        return "number", numbers.to_numpy(dtype=np.float64)
    if not pd.to_datetime(texts.head(1000), errors="coerce", utc=True, format="ISO8601").isna().any():
        return "time", None
    distinct = texts.nunique()
    if distinct <= _MOST_CATEGORIES and distinct * _ROWS_A_CATEGORY <= len(texts):
        return "category", None
    return "text", None


def _role(name: str, kind: str, distinct: int, held: int, *, is_label: bool) -> tuple[str, list[str]]:
    if is_label:
        return "label", ([] if distinct > 1 else ["is the label and has one value only"])
    if not held:
        return "unused", ["is missing throughout"]
    if distinct == 1:
        return "unused", ["is constant"]
    if distinct == held and held > 1 and kind in {"integer", "text", "category"}:
        if _IDENTIFIER.search(name):
            return "key", ["has another value in every row: taken for the key"]
        if kind != "integer" or held > 100:
            return "unused", ["has another value in every row: an identifier?"]
    return "feature", []


def _leak(frame: "pd.DataFrame", name: str, label: str) -> str | None:
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    both = frame[[name, label]].dropna()
    if len(both) < 20:
        return None
    column = both[name]
    codes = column if pd.api.types.is_numeric_dtype(column.dtype) else pd.Series(pd.factorize(column, sort=True)[0])
    values = codes.to_numpy(dtype=np.float64)
    target = (
        both[label].to_numpy() if pd.api.types.is_numeric_dtype(both[label].dtype) else pd.factorize(both[label])[0]
    )
    if not np.isfinite(values).all() or len(np.unique(values)) < 2:
        return None
    if len(np.unique(target)) == 2:
        auc = float(roc_auc_score(target, values))
        if max(auc, 1 - auc) >= _LEAK_AUC:
            return f"tells the label by itself (AUC {max(auc, 1 - auc):.3f}): known before it?"
        return None
    correlation = float(np.corrcoef(values, target.astype(np.float64))[0, 1])
    return (
        f"tells the label by itself (correlation {correlation:.3f}): known before it?"
        if abs(correlation) >= _LEAK_CORRELATION
        else None
    )


def _outwards(value: float, direction: int) -> float:
    """Round to two significant digits, away from the values in between."""
    if value == 0 or abs(value) == inf:
        return value
    step = 10.0 ** (floor(log10(abs(value))) - 1)
    steps = np.floor(value / step) if direction < 0 else np.ceil(value / step)
    return float(f"{steps * step:.12g}")


_LOGICAL = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "category": "string",
    "text": "string",
    "time": "timestamp",
}


def _drafted(column: ColumnProfile) -> list[str]:
    lines = [f"      # {column.name} {note}" for note in column.notes]
    logical = "integer" if column.role == "label" and column.kind == "boolean" else _LOGICAL[column.kind]
    lines += [f"      - name: {json.dumps(column.name)}", f"        logicalType: {logical}"]
    if column.role == "key":
        lines.append("        primaryKey: true")
    if column.missing == 0 and column.role != "unused":
        lines.append("        required: true")
    ours: list[str] = []
    if column.role not in {"feature", "key"}:
        ours.append(f"role: {column.role}")
    if column.categories:
        ours.append(f"categories: {json.dumps(list(column.categories), ensure_ascii=False)}")
    elif column.low is not None and column.role == "feature":
        lines.append(f"        logicalTypeOptions: {{minimum: {column.low:g}, maximum: {column.high:g}}}")
    if 0 < column.missing < 1:
        ours.append(f"allowed_missing: {min(1.0, round(column.missing + 0.1, 1)):g}")
    if column.personal:
        ours.append("personal: true")
    if ours:
        lines.append(f"        customProperties: [{{property: lepton, value: {{{', '.join(ours)}}}}}]")
    return lines
