"""Derived columns beside the contract's: whether they can be computed from it, and what their values are."""

from collections.abc import Mapping, Sequence
from typing import Any

from .column import Column, fault
from .derived import DatePart, Derived, Lag, Rolling, Windowed
from .fields import did_you_mean

_PART_RANGES: dict[str, tuple[int | None, int | None]] = {
    "hour": (0, 23),
    "weekday": (0, 6),
    "day": (1, 31),
    "day_of_year": (1, 366),
    "week": (1, 53),
    "month": (1, 12),
    "quarter": (1, 4),
    "year": (None, None),
}


def derived_column(told: Derived, known: Mapping[str, Column]) -> Column:
    """Describe a derived column: what its values are, and the range that follows. known: what it may be made of."""
    source = known[told.sources[0]]
    column: dict[str, Any] = {"name": told.name, "description": told.explain()}
    if isinstance(told, Lag):
        kept = ("kind", "integer", "unit", "minimum", "maximum", "categories", "personal", "drift")
        column |= {name: getattr(source, name) for name in kept}
    elif isinstance(told, Rolling) and told.rolling in {"mean", "min", "max"}:
        column |= {"unit": source.unit, "minimum": source.minimum, "maximum": source.maximum}
        column["integer"] = source.integer and told.rolling != "mean"
    elif isinstance(told, Rolling) and told.rolling == "count":
        column |= {"integer": True, "minimum": 0}
    elif isinstance(told, DatePart) and told.part == "weekend":
        column["kind"] = "boolean"
    elif isinstance(told, DatePart):
        low, high = _PART_RANGES[told.part]
        column |= {"integer": True, "minimum": low, "maximum": high}
    return Column.model_validate(column)


def check_derived(told: Derived, known: Mapping[str, Column], table: Sequence[Column]) -> None:
    """Refuse a derived column that cannot be computed, or would give the label away.

    known: the columns that stand before it, the table's and derived ones. Raises a problem for pydantic to tell.
    """
    if told.name in known:
        raise fault(f"derives {told.name}, a name that another column has")
    for source in told.sources:
        if source not in known:
            guess = did_you_mean(source, list(known)) or " A derived column may use what stands before it."
            raise fault(f"derives {told.name} from {source}, which is no column.{guess}")
        _check_source(told, known[source], derived=source not in [c.name for c in table])
    if isinstance(told, Windowed):
        _check_series(told, table)


def _check_source(told: Derived, source: Column, *, derived: bool) -> None:
    named = f"derives {told.name} from {source.name}"
    if source.role == "unused":
        raise fault(f"{named}, which is not read. Say lepton.role: ingredient at {source.name}")
    if source.role == "label" and not isinstance(told, Windowed):
        raise fault(
            f"derives {told.name} from the label {source.name} of the same row, which would give the answer away. "
            "Take a lag or a rolling window of it"
        )
    if derived and isinstance(told, Windowed):
        raise fault(f"{named}, but lags and windows look at the contract's own columns only")
    wanted: tuple[str, ...] = ("time",) if isinstance(told, DatePart) else ("number", "boolean")
    if isinstance(told, Lag) or (isinstance(told, Rolling) and told.rolling == "count"):
        wanted = ("number", "boolean", "category")
    if source.kind not in wanted:
        raise fault(f"{named}, which is a {source.kind} and not a {' or '.join(wanted)}")


def _check_series(told: Windowed, table: Sequence[Column]) -> None:
    if not any(c.role == "time" for c in table):
        raise fault(f"derives {told.name} from earlier rows, but no column has lepton.role: time. Mark one")
    for name in told.by:
        found = next((c for c in table if c.name == name), None)
        if found is None:
            guess = did_you_mean(name, [c.name for c in table])
            raise fault(f"derives {told.name} by {name}, which is no column of the table.{guess}")
        if found.role in {"unused", "label", "weight", "time"}:
            raise fault(f"derives {told.name} by {name}, which is {found.role} and names no series")
