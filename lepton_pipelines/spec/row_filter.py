"""Which of an organisation's rows are read at all: conditions on columns, as its own file states them."""

from datetime import date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .fields import Column, SpecModel, Text


def _moment(value: Any) -> Any:
    # YAML reads an unquoted 2016-03-01 as a date.
    return value.isoformat() if isinstance(value, date) else value


Value = Annotated[bool | int | float | Text, BeforeValidator(_moment)]
"""A value as a file writes it; times are ISO 8601."""


class Limits(SpecModel):
    """Between which values a column's lie."""

    min: Value | None = Field(default=None, title="Minimum", description="Smallest value that is read.")
    max: Value | None = Field(default=None, title="Maximum", description="Largest value that is read.")
    below: Value | None = Field(default=None, title="Below", description="First value that is not read any more.")

    @model_validator(mode="after")
    def _some(self) -> "Limits":
        told = self.told
        if not told:
            raise PydanticCustomError("spec", "needs min, max or below")
        if len({isinstance(value, str) for value in told.values()}) > 1:
            raise PydanticCustomError("spec", "compares with a number and with a text. Write both alike")
        return self

    @property
    def told(self) -> dict[str, bool | int | float | str]:
        """The limits that there are, by name."""
        return {name: value for name in ("min", "max", "below") if (value := getattr(self, name)) is not None}


def _some_values(values: list[Any]) -> list[Any]:
    if not values:
        raise PydanticCustomError("spec", "is an empty list, which no row is in. Name values, or take it out")
    return values


def _kind(value: Any) -> str:
    # Tags hold a space: no key of a file does, so a message never takes one for a field.
    return "the limits" if isinstance(value, (dict, Limits)) else "some values"


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, (dict, list, tuple, Limits)) else [value]


Condition = Annotated[
    Annotated[list[Value], AfterValidator(_some_values), Tag("some values")] | Annotated[Limits, Tag("the limits")],
    Discriminator(_kind),
    BeforeValidator(_one_or_more),
]
"""A value, a list of values of which a row has one, or limits."""

Conditions = dict[Column, Condition]
"""By the data's own names of its columns: a row is read if it meets all."""


def is_moment(text: Any) -> bool:
    """Tell whether a text is a date or time in ISO 8601."""
    if not isinstance(text, str) or len(text) < len("2016-03-01"):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
