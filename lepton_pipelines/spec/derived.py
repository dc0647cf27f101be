"""Columns that are computed from the contract's: what a model may take beside what stands in the files.

Every organisation computes them where its rows are, in the same way in training and in scoring. Lags and rolling
windows look at earlier rows of the same series and never at the row itself, nor at a later one; the others look at
their own row only.
"""

from abc import abstractmethod
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .fields import Column, SpecModel
from .schedule import SpanInWords

Statistic = Literal["mean", "sum", "min", "max", "std", "count"]
Part = Literal["hour", "weekday", "day", "day_of_year", "week", "month", "quarter", "year", "weekend"]

MOST_ROWS = 10_000
"""Rows that a window may reach back: more would be a table of its own."""


def _columns(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _reach_kind(value: Any) -> str:
    return "rows" if isinstance(value, int) and not isinstance(value, bool) else "a span of time"


Reach = Annotated[
    Annotated[int, Field(ge=1, le=MOST_ROWS), Tag("rows")] | Annotated[SpanInWords, Tag("a span of time")],
    Discriminator(_reach_kind),
]
"""How far to look back: 3 (rows of the series), or a span of time such as 1 h or 7 days."""

By = Annotated[tuple[Column, ...], BeforeValidator(_columns, json_schema_input_type=str | list[str])]


class _Derived(SpecModel):
    """What all derived columns have."""

    noun: ClassVar[str] = "field of this derived column"

    name: Column = Field(title="Name", description="The new column's name, in the model and for its callers.")

    @property
    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """The columns that it is computed from."""

    @abstractmethod
    def explain(self) -> str:
        """Say in words how it is computed, for whoever has to compute it for a served model."""


class Windowed(_Derived):
    """A column that is computed from earlier rows of the same series."""

    by: By = Field(
        default=(),
        title="By",
        description="Columns whose equal values make a series, such as a station or a shop; unset: all rows are one.",
    )

    @property
    @abstractmethod
    def reach(self) -> "int | timedelta":
        """How far back the oldest row lies that it may look at."""

    def _series(self) -> str:
        return f" of the same {' and '.join(self.by)}" if self.by else ""


class Lag(Windowed):
    """An earlier value of a column."""

    lag: Column = Field(title="Lag", description="The column whose earlier value is taken.")
    before: Reach = Field(
        title="Before",
        description="How much earlier: rows of the series (3), or time (1 h): then the row of exactly that time, "
        "and a missing value where there is none.",
    )

    @model_validator(mode="after")
    def _forwards(self) -> "Lag":
        _positive(self.before, "before")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that it is computed from."""
        return (self.lag,)

    @property
    def reach(self) -> "int | timedelta":
        """How far back it looks."""
        return self.before

    def explain(self) -> str:
        """Say in words how it is computed."""
        return f"{self.lag} {told(self.before)} before{self._series()}"


class Rolling(Windowed):
    """A statistic over the rows before a row."""

    rolling: Statistic = Field(title="Rolling", description="The statistic; std is that of a sample (n - 1).")
    of: Column = Field(title="Of", description="The column that it is taken of.")
    over: Reach = Field(
        title="Over",
        description="The window before the row: so many rows of the series (24), or all since so long before (24 h). "
        "The row itself is never in it.",
    )
    gap: Reach | None = Field(
        default=None,
        title="Gap",
        description="The statistic as it stood so long before the row; in rows or time as over.",
    )
    at_least: int = Field(
        default=1, ge=1, le=MOST_ROWS, title="At least", description="Fewest values; with fewer the column is missing."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Rolling":
        _positive(self.over, "over")
        if self.gap is not None:
            _positive(self.gap, "gap")
            if isinstance(self.gap, int) != isinstance(self.over, int):
                raise PydanticCustomError("spec", "gives over and gap in rows and in time. Give both in the same way")
        if isinstance(self.over, int) and self.at_least > self.over:
            raise PydanticCustomError("spec", "wants at_least more values than over has rows")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that it is computed from."""
        return (self.of,)

    @property
    def reach(self) -> "int | timedelta":
        """How far back it looks."""
        if self.gap is None:
            return self.over
        return self.over + self.gap  # type: ignore[operator]

    def explain(self) -> str:
        """Say in words how it is computed."""
        gap = "" if self.gap is None else f", as it stood {told(self.gap)} before"
        few = "" if self.at_least == 1 else f", missing with fewer than {self.at_least} values"
        return f"{self.rolling} of {self.of} over the {told(self.over)} before the row{self._series()}{gap}{few}"


class Ratio(_Derived):
    """One column divided by another; missing where the second is zero."""

    ratio: tuple[Column, Column] = Field(title="Ratio", description="The column that is divided, and by which.")

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that it is computed from."""
        return self.ratio

    def explain(self) -> str:
        """Say in words how it is computed."""
        return f"{self.ratio[0]} / {self.ratio[1]}, missing where {self.ratio[1]} is 0"


class Difference(_Derived):
    """One column less another."""

    difference: tuple[Column, Column] = Field(title="Difference", description="The column, and what is taken off.")

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that it is computed from."""
        return self.difference

    def explain(self) -> str:
        """Say in words how it is computed."""
        return f"{self.difference[0]} - {self.difference[1]}"


class Log(_Derived):
    """The natural logarithm of a column; missing where there is none."""

    log: Column = Field(title="Log", description="The column whose natural logarithm is taken.")
    plus: float = Field(default=0.0, title="Plus", description="Added first: 1 makes zeros into zeros.")

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that it is computed from."""
        return (self.log,)

    def explain(self) -> str:
        """Say in words how it is computed."""
        inner = self.log if self.plus == 0 else f"{self.log} + {self.plus:g}"
        return f"ln({inner}), missing where that is not above 0"


class DatePart(_Derived):
    """A part of a date or time; of times with a zone, in UTC."""

    part: Part = Field(
        title="Part", description="Which; a weekday counts from Monday = 0, a week is ISO 8601's, weekend is yes or no."
    )
    of: Column = Field(title="Of", description="The column with the time.")

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that it is computed from."""
        return (self.of,)

    def explain(self) -> str:
        """Say in words how it is computed."""
        return f"{self.part} of {self.of}"


_BRANCHES: dict[str, type] = {
    "lag": Lag,
    "rolling": Rolling,
    "ratio": Ratio,
    "difference": Difference,
    "log": Log,
    "part": DatePart,
}
_TAGS: dict[type, str] = {model: f"a {key}" for key, model in _BRANCHES.items()}


def _kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return _TAGS.get(type(value))
    found = [model for key, model in _BRANCHES.items() if key in value]
    return _TAGS[found[0]] if len(found) == 1 else None


Derived = Annotated[
    Annotated[Lag, Tag("a lag")]
    | Annotated[Rolling, Tag("a rolling")]
    | Annotated[Ratio, Tag("a ratio")]
    | Annotated[Difference, Tag("a difference")]
    | Annotated[Log, Tag("a log")]
    | Annotated[DatePart, Tag("a part")],
    Discriminator(
        _kind,
        custom_error_type="spec",
        custom_error_message=f"needs a name and one of {', '.join(_BRANCHES)}, to say how it is computed",
    ),
]
"""A derived column, told by the field that says how it is computed."""


def told(reach: "int | timedelta") -> str:
    """Write a reach as a person does: 3 rows, 1 h, 7 days."""
    if isinstance(reach, int):
        return "1 row" if reach == 1 else f"{reach} rows"
    seconds = reach.total_seconds()
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds % size == 0:
            count = int(seconds // size)
            return "1 day" if unit == "days" and count == 1 else f"{count} {unit}"
    return f"{seconds:g} s"


def _positive(reach: "int | timedelta", field: str) -> None:
    if isinstance(reach, timedelta) and reach <= timedelta(0):
        raise PydanticCustomError(
            "spec", "has {field} of no length, which would be the row itself or a later one", {"field": field}
        )
