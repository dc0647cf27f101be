"""JSON in the one form that RFC 8785 gives it, so that equal things have equal digests."""

import json
from typing import Any

import rfc8785

from lepton_pipelines.ledger.errors import EntryRefused


class _NotPlain(Exception):  # noqa: N818 - says which way to go on
    """A document holds a fraction or a large integer."""


def _refuse(text: str) -> float:
    raise _NotPlain


def _double(text: str) -> int | float:
    """From 2^53 on, a number in JSON is a double, however it is spelt."""
    return int(text) if abs(int(text)) < 1 << 53 else float(text)


def _small(text: str) -> int:
    if len(text) > 15:
        raise _NotPlain
    return int(text)


# The standard library's encoder, several times as fast, writes ASCII text and small integers exactly as RFC 8785 does.
_PLAIN_DECODER = json.JSONDecoder(parse_float=_refuse, parse_int=_small, parse_constant=_refuse)
_PLAIN_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


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
    """Return what the JSON says, and the canonical form of it."""
    text = data.decode()
    if text.isascii():
        try:
            value = _PLAIN_DECODER.decode(text)
        except _NotPlain:
            pass
        else:
            return value, _PLAIN_ENCODER.encode(value).encode()
    value = json.loads(text, parse_int=_double)
    return value, encode(value)


def _with_decimal_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_decimal_strings(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_decimal_strings(each) for each in value]
    if isinstance(value, int) and abs(value) >= 1 << 53:
        return str(value)
    return value
