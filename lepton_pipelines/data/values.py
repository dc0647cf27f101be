"""A column's raw values made into what the contract says they are; what is missing and what is wrong stays known."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.contract import Column, category_text

if TYPE_CHECKING:
    import pandas as pd

BoolArray = NDArray[np.bool_]

MISSING = -1
"""Code of a missing category."""

OUTSIDE = -2
"""Code of a category that the contract does not list; where `other_categories` is missing it is no violation."""

_TRUE = {"true", "t", "yes", "y", "1"}
_FALSE = {"false", "f", "no", "n", "0"}

_ZONE = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$")

NO_TIME = np.iinfo(np.int64).min
"""Stands for a missing time."""


@dataclass(frozen=True)
class Values:
    """One column's values.

    values: float64 with NaN for numbers and booleans (0, 1); int32 codes for categories (MISSING, OUTSIDE); int64
    microseconds since 1970 for times (NO_TIME); int64 for keys of whole numbers; objects for text. (rows,)
    missing, wrong: bool, (rows,). A wrong value is one of another kind; it reads as missing in `values`.
    """

    values: NDArray[Any]
    missing: BoolArray
    wrong: BoolArray


def read_values(series: "pd.Series[Any]", column: Column) -> Values:
    """Make a raw column into what the contract's column is. series: (rows,), as read from a file."""
    if column.kind == "category":
        return _categories(series, column)
    if column.kind == "text":
        return _texts(series, column)
    if column.kind == "time":
        return _times(series, column)
    if column.kind == "boolean":
        return _booleans(series, column)
    if column.integer and column.role == "key":
        return _integers(series, column)
    return _numbers(series, column)


def _numbers(series: "pd.Series[Any]", column: Column) -> Values:
    import pandas as pd

    if _is_time(series):
        return _all_wrong(series)
    if pd.api.types.is_numeric_dtype(series.dtype) or pd.api.types.is_bool_dtype(series.dtype):
        values = np.array(series.to_numpy(dtype=np.float64, na_value=np.nan), copy=True)
        missing = np.isnan(values)
        wrong = np.zeros(len(values), dtype=np.bool_)
    else:
        texts, missing = _stripped(series, column)
        values = np.array(pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan), copy=True)
        wrong = np.isnan(values) & ~missing
        # "nan" written as text is a missing number, not a wrong one.
        spelled = wrong & texts.str.lower().isin(["nan", "na", "none", "null"]).to_numpy(dtype=np.bool_, na_value=False)
        missing, wrong = missing | spelled, wrong & ~spelled
    markers = [float(m) for m in column.missing if _is_number(m)]
    if markers:
        marked = np.isin(values, markers)
        missing = missing | marked
    values[missing | wrong] = np.nan
    if column.integer:
        with np.errstate(invalid="ignore"):
            broken = np.isfinite(values) & (values != np.floor(values))
        wrong = wrong | broken
        values[broken] = np.nan
    return Values(values, missing, wrong)


def _integers(series: "pd.Series[Any]", column: Column) -> Values:
    """Whole numbers of a key, exact beyond 2^53."""
    import pandas as pd

    if pd.api.types.is_integer_dtype(series.dtype) and not column.missing:
        missing = series.isna().to_numpy(dtype=np.bool_)
        return Values(series.to_numpy(dtype=np.int64, na_value=0), missing, np.zeros(len(series), dtype=np.bool_))
    numbers = _numbers(series, column)
    held = ~(numbers.missing | numbers.wrong)
    inexact = np.zeros(len(series), dtype=np.bool_)
    values = np.zeros(len(series), dtype=np.int64)
    if pd.api.types.is_integer_dtype(series.dtype):
        values[held] = series.to_numpy(dtype=np.int64, na_value=0)[held]
    elif pd.api.types.is_float_dtype(series.dtype):
        inexact = held & (np.abs(numbers.values) > 2.0**53)
        values[held & ~inexact] = numbers.values[held & ~inexact].astype(np.int64)
    else:
        texts, _ = _stripped(series, column)
        parsed = pd.to_numeric(texts[held], errors="coerce")
        if pd.api.types.is_integer_dtype(parsed.dtype):
            values[held] = parsed.to_numpy(dtype=np.int64)
        else:
            values[held] = numbers.values[held].astype(np.int64)
            inexact = held & (np.abs(numbers.values) > 2.0**53)
    return Values(values, numbers.missing, numbers.wrong | inexact)


def _booleans(series: "pd.Series[Any]", column: Column) -> Values:
    import pandas as pd

    if pd.api.types.is_bool_dtype(series.dtype):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return Values(values, np.isnan(values), np.zeros(len(values), dtype=np.bool_))
    if _is_time(series):
        return _all_wrong(series)
    codes, uniques = pd.factorize(series, use_na_sentinel=True)
    spelled = [category_text(u).strip().lower() for u in uniques]
    markers = {m.lower() for m in column.missing} | {""}
    table = np.array(
        [1.0 if s in _TRUE else 0.0 if s in _FALSE else np.nan for s in spelled] + [np.nan], dtype=np.float64
    )
    is_marker = np.array([s in markers for s in spelled] + [True], dtype=np.bool_)
    values = table[codes]
    missing = is_marker[codes]
    values[missing] = np.nan
    return Values(values, missing, np.isnan(values) & ~missing)


def _categories(series: "pd.Series[Any]", column: Column) -> Values:
    import pandas as pd

    codes, uniques = pd.factorize(series, use_na_sentinel=True)
    places = {category: place for place, category in enumerate(column.categories)}
    markers = {*column.missing} - set(places) | ({""} if "" not in places else set())
    table = np.full(len(uniques) + 1, MISSING, dtype=np.int32)
    for i, unique in enumerate(uniques):
        text = _category(unique, places)
        table[i] = MISSING if text in markers else places.get(text, OUTSIDE)
    values = table[codes]
    wrong = values == OUTSIDE if column.other_categories == "refuse" else np.zeros(len(values), dtype=np.bool_)
    return Values(values, values == MISSING, wrong)


def count_categories(series: "pd.Series[Any]", column: Column) -> dict[str, int]:
    """Count a raw column's values as the categories that they would be. Returns rows by category, in no order."""
    import pandas as pd

    codes, uniques = pd.factorize(series, use_na_sentinel=True)
    counts = np.bincount(codes[codes >= 0], minlength=len(uniques))
    found: dict[str, int] = {}
    for unique, count in zip(uniques, counts, strict=True):
        text = _category(unique, {})
        if text and text not in column.missing:
            found[text] = found.get(text, 0) + int(count)
    return found


def _category(value: Any, places: dict[str, int]) -> str:
    text = category_text(value).strip()
    if text in places:
        return text
    # CSV files of floating columns write the category 3 as 3.0.
    return category_text(float(text)) if _is_number(text) and "." in text else text


def _texts(series: "pd.Series[Any]", column: Column) -> Values:
    import pandas as pd

    missing = series.isna().to_numpy(dtype=np.bool_)
    if pd.api.types.is_string_dtype(series.dtype):
        texts = series.astype(object).to_numpy()
    else:
        texts = np.array([None if gone else category_text(v) for v, gone in zip(series, missing, strict=True)], object)
    if column.missing:
        missing = missing | np.isin(np.where(missing, "", texts).astype(str), column.missing)
    texts = np.array(texts, dtype=object)
    texts[missing] = None
    return Values(texts, missing, np.zeros(len(texts), dtype=np.bool_))


def _times(series: "pd.Series[Any]", column: Column) -> Values:
    import pandas as pd

    if not _is_time(series):
        if pd.api.types.is_numeric_dtype(series.dtype):
            return _all_wrong(series)
        texts, missing = _stripped(series, column)
        zoned = texts.str.contains(_ZONE, na=False).to_numpy(dtype=np.bool_) & ~missing
        parsed = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
        wrong = parsed.isna().to_numpy() & ~missing
        if zoned.any() and (~zoned & ~missing & ~wrong).any():
            # A time without a zone among times with one could be any of twenty-four.
            wrong = wrong | (~zoned & ~missing)
    else:
        parsed = (
            series.dt.tz_convert("UTC") if getattr(series.dt, "tz", None) is not None else series.dt.tz_localize("UTC")
        )
        missing = parsed.isna().to_numpy()
        wrong = np.zeros(len(series), dtype=np.bool_)
    values = parsed.dt.tz_localize(None).to_numpy(dtype="datetime64[us]").view(np.int64).copy()
    values[missing | wrong] = NO_TIME
    return Values(values, missing, wrong)


def _stripped(series: "pd.Series[Any]", column: Column) -> "tuple[pd.Series[Any], BoolArray]":
    texts = series.astype("string").str.strip()
    missing = (texts.isna() | texts.isin(["", *column.missing])).to_numpy(dtype=np.bool_)
    return texts, missing


def _all_wrong(series: "pd.Series[Any]") -> Values:
    missing = series.isna().to_numpy(dtype=np.bool_)
    return Values(np.full(len(series), np.nan), missing, ~missing)


def _is_time(series: "pd.Series[Any]") -> bool:
    import pandas as pd

    return bool(pd.api.types.is_datetime64_any_dtype(series.dtype))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
