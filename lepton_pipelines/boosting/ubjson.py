"""Universal Binary JSON, as far as XGBoost's model files use it: written deterministically, read defensively.

A model is mostly long arrays of numbers; they are written and read as whole buffers. Format: ubjson.org, draft 12,
with the optimised containers (`$` type, `#` count). Keys are written in order of the alphabet, as XGBoost does.
"""

import struct
from typing import Any

import numpy as np

from lepton_pipelines.spec.errors import UserError

_TYPED = {
    np.dtype(np.float32): (b"d", ">f4"),
    np.dtype(np.float64): (b"D", ">f8"),
    np.dtype(np.uint8): (b"U", "u1"),
    np.dtype(np.int8): (b"i", "i1"),
    np.dtype(np.int16): (b"I", ">i2"),
    np.dtype(np.int32): (b"l", ">i4"),
    np.dtype(np.int64): (b"L", ">i8"),
}
_NUMBERS = {marker: np.dtype(order) for marker, order in _TYPED.values()}
_CONSTANTS = {b"Z": None, b"T": True, b"F": False}
_DEEPEST = 64


def write_ubjson(value: Any) -> bytes:
    """Encode dictionaries, lists, strings, whole numbers, booleans, None and NumPy arrays of one dimension.

    Raises TypeError for anything else: what a model holds is known.
    """
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def _length(number: int) -> bytes:
    return b"L" + struct.pack(">q", number)


def _write(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        marker, order = _TYPED[value.dtype]
        parts += [b"[$", marker, b"#", _length(len(value)), value.astype(order).tobytes()]
    elif isinstance(value, dict):
        parts.append(b"{")
        for key in sorted(value):
            text = key.encode()
            parts += [_length(len(text)), text]
            _write(value[key], parts)
        parts.append(b"}")
    elif isinstance(value, (list, tuple)):
        parts += [b"[#", _length(len(value))]
        for item in value:
            _write(item, parts)
    elif isinstance(value, str):
        text = value.encode()
        parts += [b"S", _length(len(text)), text]
    elif isinstance(value, bool):
        parts.append(b"T" if value else b"F")
    elif isinstance(value, int):
        parts.append(_whole(value))
    elif value is None:
        parts.append(b"Z")
    else:
        raise TypeError(f"a model holds no {type(value).__name__}")


def _whole(value: int) -> bytes:
    for marker, form, bits in ((b"i", ">b", 7), (b"I", ">h", 15), (b"l", ">i", 31), (b"L", ">q", 63)):
        if -(1 << bits) <= value < 1 << bits:
            return marker + struct.pack(form, value)
    raise TypeError(f"{value} does not fit 64 bits")


def read_ubjson(data: bytes) -> Any:
    """Decode to dictionaries, lists, strings, numbers and NumPy arrays (of containers with a type).

    Raises UserError if the bytes end early, hold an unknown marker, or nest deeper than any model does.
    """
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.place != len(data):
        raise UserError(f"the model file goes on for {len(data) - reader.place} bytes after its end: it is damaged.")
    return value


class _Reader:
    """A place in the bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, count: int) -> bytes:
        """Return the next bytes, and go on behind them."""
        end = self.place + count
        if count < 0 or end > len(self.data):
            raise UserError(f"the model file ends after {len(self.data)} bytes, inside a value: it is cut off.")
        taken = self.data[self.place : end]
        self.place = end
        return taken

    def number(self, marker: bytes) -> int | float:
        """Read one number of a marker's type."""
        if marker not in _NUMBERS:
            raise UserError(f"the model file has the marker {marker!r} at byte {self.place}, which is not UBJSON.")
        kind = _NUMBERS[marker]
        number: int | float = np.frombuffer(self.take(kind.itemsize), kind)[0].item()
        return number

    def length(self) -> int:
        """Read a length: a whole number with its marker."""
        number = self.number(self.take(1))
        if not isinstance(number, int) or number < 0:
            raise UserError(f"the model file has the length {number} at byte {self.place}: it is damaged.")
        return number

    def value(self, marker: bytes, depth: int) -> Any:
        """Read the value that a marker begins."""
        if depth > _DEEPEST:
            raise UserError("the model file nests deeper than any model does: it is damaged.")
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in (b"S", b"H"):
            return self.text()
        if marker == b"C":
            return self.take(1).decode("ascii", "replace")
        if marker == b"[":
            return self.array(depth)
        if marker == b"{":
            return self.table(depth)
        return self.number(marker)

    def text(self) -> str:
        """Read a string behind its length."""
        try:
            return self.take(self.length()).decode()
        except UnicodeDecodeError as error:
            raise UserError(f"the model file has text that is not UTF-8 before byte {self.place}.") from error

    def container(self) -> tuple[bytes | None, int | None]:
        """Read the type and the count that a container may begin with."""
        kind = None
        if self.peek() == b"$":
            self.take(1)
            kind = self.take(1)
        if self.peek() == b"#":
            self.take(1)
            return kind, self.length()
        return kind, None

    def peek(self) -> bytes:
        """Return the next byte without going on."""
        return self.data[self.place : self.place + 1]

    def array(self, depth: int) -> Any:
        """Read an array behind its bracket: NumPy's if it has a type of number, else a list."""
        kind, count = self.container()
        if kind in _NUMBERS and count is not None:
            number = _NUMBERS[kind]
            buffer = self.take(count * number.itemsize)
            return np.frombuffer(buffer, number).astype(number.newbyteorder("="))
        items: list[Any] = []
        while (self.peek() != b"]") if count is None else (len(items) < count):
            items.append(self.value(kind or self.take(1), depth + 1))
        if count is None:
            self.take(1)
        return items

    def table(self, depth: int) -> dict[str, Any]:
        """Read an object behind its brace."""
        kind, count = self.container()
        table: dict[str, Any] = {}
        while (self.peek() != b"}") if count is None else (len(table) < count):
            key = self.text()
            table[key] = self.value(kind or self.take(1), depth + 1)
        if count is None:
            self.take(1)
        return table
