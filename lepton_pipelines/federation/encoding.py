"""The one byte string that a statement has: what is signed, compared and put into key derivations.

A subset of RFC 8785 (JSON Canonicalization Scheme): objects, lists, strings, booleans, null and integers. Numbers that
JavaScript would round, and those that are not integers, are refused: they have no encoding that everyone agrees on.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

_SAFE = 1 << 53


def canonical(value: object) -> bytes:
    """Encode a value of strings, booleans, integers, None, bytes (as hex), lists and mappings with string keys.

    Integers beyond ±2^53 are written as decimal strings. Raises TypeError for anything else, floats included.
    """
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(label: str, value: object) -> bytes:
    """SHA-256 over the canonical encoding, under a label that keeps digests of different kinds apart."""
    return hashlib.sha256(label.encode() + b"\0" + canonical(value)).digest()


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -_SAFE < value < _SAFE else str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a canonical encoding has string keys only")
        return {key: _plain(item) for key, item in sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical encoding")
