"""One 64-bit number for a row's key: the same on every machine, in every version, from every file format.

Keys are hashed as bytes, eight at a time, by the 64-bit finaliser of MurmurHash3 over a start that SHA-256 draws
from the purpose and the salt. Every input bit reaches every output bit, so shares of the numbers are shares of
the keys; a million keys take some hundredths of a second. It hides nothing: whoever knows the keys can compute it.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt64Array = NDArray[np.uint64]

# Strings are hashed in blocks of rows, padded to the longest of the block.
_BLOCK = 1 << 16


def start(purpose: str, salt: str = "") -> np.uint64:
    """Return where the hashing for a purpose begins: the first eight bytes of SHA-256, little-endian."""
    return np.uint64(int.from_bytes(hashlib.sha256(f"lepton/1/{purpose}/{salt}".encode()).digest()[:8], "little"))


def hash_integers(values: NDArray[Any], state: np.uint64) -> UInt64Array:
    """Hash whole numbers. values: int64 (or what fits it), (n,). Returns uint64, (n,)."""
    words = np.ascontiguousarray(values, dtype=np.int64).view(np.uint64)
    return _mix(np.bitwise_xor(words, state))


def hash_floats(values: NDArray[Any], state: np.uint64) -> UInt64Array:
    """Hash numbers by their value: −0 as 0, and every NaN alike. values: float64, (n,). Returns uint64, (n,)."""
    plain = np.ascontiguousarray(values, dtype=np.float64) + 0.0
    plain[np.isnan(plain)] = np.nan
    return _mix(np.bitwise_xor(plain.view(np.uint64), state))


def hash_texts(values: Any, state: np.uint64) -> UInt64Array:
    """Hash texts by their UTF-8 bytes and length; a missing text is not the empty text.

    values: a pandas or Arrow column, (n,). Returns uint64, (n,).
    """
    import pyarrow as pa

    column = pa.array(values, type=pa.large_string(), from_pandas=True)
    hashed = np.empty(len(column), dtype=np.uint64)
    for first in range(0, len(column), _BLOCK):
        block = slice(first, min(first + _BLOCK, len(column)))
        hashed[block] = _hash_text_block(column[block], state)
    return hashed


def combine(hashes: Iterable[UInt64Array]) -> UInt64Array:
    """Hash several columns' hashes into one, in their order. Raises ValueError if there are none."""
    combined: UInt64Array | None = None
    for column in hashes:
        combined = column if combined is None else _mix(np.bitwise_xor(_mix(combined), column))
    if combined is None:
        raise ValueError("a row's key needs at least one column")
    return combined


def _hash_text_block(column: Any, state: np.uint64) -> UInt64Array:
    import pyarrow as pa

    missing = column.is_null().to_numpy(zero_copy_only=False)
    filled = column.fill_null("")
    # A slice keeps its parent's buffers: one copy makes the offsets begin at zero.
    filled = pa.concat_arrays([filled])
    _, offset_buffer, data_buffer = filled.buffers()
    n = len(filled)
    first = filled.offset
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[first : first + n + 1]
    lengths = np.diff(offsets)
    width = max(1, -(-int(lengths.max(initial=0)) // 8))
    padded = np.zeros((n, width * 8), dtype=np.uint8)
    if data_buffer is not None and int(lengths.sum()):
        data = np.frombuffer(data_buffer, dtype=np.uint8)[offsets[0] : offsets[-1]]
        padded[np.arange(width * 8) < lengths[:, None]] = data
    words = padded.view("<u8").astype(np.uint64, copy=False)
    # Missing takes a length that no text has.
    hashed = _mix(np.bitwise_xor(np.where(missing, -1, lengths).astype(np.int64).view(np.uint64), state))
    for place in range(width):
        # A row ends with its own last word, however wide its neighbours are.
        inside = lengths > place * 8
        hashed = np.where(inside, _mix(np.bitwise_xor(words[:, place], hashed)), hashed)
    return hashed


def _mix(words: UInt64Array) -> UInt64Array:
    """MurmurHash3's fmix64: a bijection in which each bit of the input flips each of the output half the time."""
    mixed = words ^ (words >> np.uint64(33))
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed
