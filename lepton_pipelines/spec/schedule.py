"""When a pipeline runs."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .fields import SpecModel, Text, did_you_mean

_INTERVAL = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*$")
_SECONDS = {
    "s": 1,
    "second": 1,
    "seconds": 1,
    "min": 60,
    "minute": 60,
    "minutes": 60,
    "h": 3600,
    "hour": 3600,
    "hours": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
    "w": 604800,
    "week": 604800,
    "weeks": 604800,
}


def _cron(value: str) -> str:
    if len(value.split()) != 5:
        raise PydanticCustomError(
            "spec", 'is "{value}"; a cron line has five fields: minute hour day month weekday', {"value": value}
        )
    try:
        CronSim(value, datetime.now(UTC))
    except CronSimError as error:
        raise PydanticCustomError(
            "spec", 'is "{value}", which is no cron line: {error}', {"value": value, "error": str(error)}
        ) from None
    return value


def _interval(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _INTERVAL.match(value)
    if found and found[2] in _SECONDS:
        return float(found[1]) * _SECONDS[found[2]]
    if re.match(r"^[-+]?P", value):
        return value
    hint = did_you_mean(found[2], list(_SECONDS)) if found else ""
    raise PydanticCustomError(
        "spec",
        'is "{value}", which is no span of time. Write it as 30 min, 6 h or 7 days.{hint}',
        {"value": value, "hint": hint},
    )


Span = Annotated[timedelta, BeforeValidator(_interval, json_schema_input_type=float | str)]
"""A span of time, written as 30 min, 6 h or 7 days, in seconds, or as ISO 8601 has it."""

SpanInWords = Annotated[timedelta, BeforeValidator(_interval, json_schema_input_type=str)]
"""A span of time where a bare number means something else."""


def _timezone(value: str) -> str:
    # Listing the zones reads the disk; one that can be opened needs no list.
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise PydanticCustomError(
            "spec",
            'is "{value}", which is no time zone.{hint}',
            {
                "value": value,
                "hint": did_you_mean(value, sorted(available_timezones())) or " Write it as Europe/Berlin or UTC.",
            },
        ) from None
    return value


class Schedule(SpecModel):
    """When the pipeline runs by itself."""

    cron: Annotated[Text, AfterValidator(_cron)] | None = Field(
        default=None, title="Cron", description="Five fields: minute, hour, day, month, weekday."
    )
    interval: Span | None = Field(
        default=None, title="Interval", description="Time between runs, such as 6 h or 7 days."
    )
    timezone: Annotated[str, AfterValidator(_timezone)] = Field(
        default="UTC", title="Time zone", description="The cron line's time zone, such as Europe/Berlin."
    )

    @model_validator(mode="after")
    def _one(self) -> "Schedule":
        if (self.cron is None) == (self.interval is None):
            raise PydanticCustomError("spec", "needs cron or interval, one of them")
        if self.interval is not None and self.interval < timedelta(minutes=1):
            raise PydanticCustomError("spec", "has an interval below one minute")
        return self
