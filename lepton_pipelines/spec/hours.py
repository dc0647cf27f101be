"""Hours of a week, UTC: when something is on offer, as in `mon-fri 18:00-06:00` or `sat-sun 00:00-24:00`."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK = 7 * 24 * 60
PATTERN = (
    r"(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?"
    r" ([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)"
)


def spans(hours: str) -> list[tuple[int, int]]:
    """Return minutes of the week, from Monday 00:00 UTC, as (start, length); past midnight where it ends earlier."""
    if not re.fullmatch(PATTERN, hours):
        raise ValueError(f"{hours!r} are no hours of a week: write them as mon-fri 18:00-06:00, in UTC")
    days, times = hours.split(" ")
    first, _, last = days.partition("-")
    start, end = (60 * int(time[:2]) + int(time[3:]) for time in times.split("-"))
    length = end - start if end > start else end - start + 24 * 60
    begin, stop = DAYS.index(first), DAYS.index(last or first)
    count = (stop - begin) % 7 + 1
    return [((begin + day) % 7 * 24 * 60 + start, length) for day in range(count)]


def covers(hours: Sequence[str], start: datetime, end: datetime) -> bool:
    """Tell whether all of a time lies in the hours; no hours mean always."""
    if not hours:
        return True
    reached = start
    known = [span for each in hours for span in spans(each)]
    while reached < end:
        monday = (reached - timedelta(days=reached.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
        further = reached
        for begin, length in known:
            for week in (-1, 0):  # one that began last week may go on
                opens = monday + timedelta(minutes=begin + week * WEEK)
                closes = opens + timedelta(minutes=length)
                if opens <= reached < closes:
                    further = max(further, closes)
        if further == reached:
            return False
        reached = further
    return True


def moment(text: str) -> datetime:
    """Read a time as the ledger writes it. Raises ValueError."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
