"""JSON in the one form that RFC 8785 gives it, so that equal things have equal digests."""

import json
from typing import Any

import orjson
import rfc8785

from lepton_pipelines.ledger.errors import EntryRefused


def _double(text: str) -> int | float:
    """From 2^53 on, a number in JSON is a double, however it is spelt."""
    return int(text) if abs(int(text)) < 1 << 53 else float(text)


def encode(value: Any) -> bytes:
    """Write a value in RFC 8785's form.

    Integers from 2^53 on, which a JSON number does not hold exactly, are written as decimal strings.
    Raises EntryRefused if the value has no such form.
    """
    try:
        try:
            return rfc8785.dumps(value)
        except rfc8785.IntegerDomainError:
            return rfc8785.dumps(_with_decimal_strings(value))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise EntryRefused(f"this has no canonical JSON form (RFC 8785): {error}") from error


def decode(data: bytes, what: str) -> Any:
    """Read JSON that must be in RFC 8785's form already. Raises EntryRefused, naming `what`, otherwise."""
    try:
        value, again = _parse(data)
    except (ValueError, RecursionError) as error:
        raise EntryRefused(f"{what} is not JSON: {error}") from error
    if again != data:
        raise EntryRefused(f"{what} is not in the canonical form of RFC 8785")
    return value


def _parse(data: bytes) -> tuple[Any, bytes]:
    """Return what the JSON says, and the canonical form of it.

    orjson, five times as fast, writes ASCII text and small integers exactly as RFC 8785 does; the rest is left to
    the library that knows the standard's numbers and its order of keys.
    """
    if data.isascii():
        value = orjson.loads(data)
        if _is_plain(value):
            return value, orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    value = json.loads(data.decode(), parse_int=_double)
    return value, encode(value)


def _is_plain(value: Any) -> bool:
    """Tell whether a value holds no fraction and no integer that a double does not hold."""
    if isinstance(value, dict):
        return all(isinstance(each, str) or _is_plain(each) for each in value.values())
    if isinstance(value, list):
        return all(isinstance(each, str) or _is_plain(each) for each in value)
    return not isinstance(value, float) and (not isinstance(value, int) or abs(value) < 1 << 53)


def _with_decimal_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_decimal_strings(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_decimal_strings(each) for each in value]
    if isinstance(value, int) and abs(value) >= 1 << 53:
        return str(value)
    return value
