"""The union of what members offer, found through sums: what it is, how many members hold each, and nothing else.

Every member writes its entries into an invertible Bloom lookup table (Goodrich and Mitzenmacher, "Invertible Bloom
Lookup Tables", Allerton 2011): each entry into three cells that its SHA-256 names, as a count, a check and its bytes as
numbers. Tables add up. A cell of the total that holds one entry only, c times, is c times that entry's numbers; it is
divided, checked, taken out of its other cells, and so on until the table is empty. The total is the same as if each
entry and the number of its holders had been written in by one hand, so it tells those and nothing of who they are.
"""

import hashlib
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array, Sums

Entry = tuple[int, str]
"""A column's number and one of its categories."""

LONGEST = 120  # bytes of a category in UTF-8
MOST_OFFERED = 4096  # entries of one member

_HASHES = 3
_TEXT_WORDS = LONGEST // 4
_WORDS = 5 + _TEXT_WORDS  # count, two words of check, column, length, text
_ATTEMPTS = 24  # a table too small or unlucky is tried again: twenty-four times is a member that writes no entries
_FEWEST_CELLS = 16


def find_union(sums: Sums, offered: Collection[Entry], *, context: bytes = b"") -> dict[Entry, int]:
    """Find what members offer together. offered: this member's entries; at most MOST_OFFERED, of at most LONGEST bytes.

    context: as in `Sums`. Returns how many members offer each entry, the same at every member. The sums are one of how
    many entries are offered, then tables, small ones first: what two members offer takes no more room than one's.
    Raises UserError if a member wrote what are no entries.
    """
    bound = sums.parties * MOST_OFFERED
    total = int(sums.sum("categories/offered", np.array([len(offered)], np.int64), bound=bound, context=context)[0])
    room = -(-total // sums.parties)
    for attempt in range(_ATTEMPTS if total else 0):
        table = write_table(offered, room, attempt)
        held = sums.sum(f"categories/table {attempt}", table, bound=total << 32, context=context)
        found = read_table(held, attempt, most=sums.parties)
        if found is not None:
            return found
        room = min(2 * room, total)
    if total:
        raise UserError(
            "the categories that members offered cannot be read from their sum: one of them wrote something else. "
            "Bring all organisations to the same release, or list the categories in the contract."
        )
    return {}


def write_table(offered: Collection[Entry], room: int, attempt: int) -> Int64Array:
    """Write entries into a table. room: for how many different ones. Returns int64, (cells, words)."""
    part = _FEWEST_CELLS + -(-room // 2)
    table = np.zeros((_HASHES * part, _WORDS), np.int64)
    for entry in offered:
        row, cells = _row(entry), _cells(entry, part, attempt)
        for cell in cells:
            table[cell] += row
    return table


def read_table(total: Int64Array, attempt: int, *, most: int) -> dict[Entry, int] | None:
    """Take a table apart; None if that does not come to an end. most: times that an entry can be in it."""
    left, found = total.copy(), {}
    part = len(left) // _HASHES
    waiting = list(range(len(left)))
    while waiting:
        held = _only_entry(left[waiting.pop()], most)
        if held is None or held[0] in found:
            continue
        entry, times = held
        found[entry] = times
        row = _row(entry) * times
        for cell in _cells(entry, part, attempt):
            left[cell] -= row
            waiting.append(cell)
    return None if left.any() else found


def _only_entry(cell: Int64Array, most: int) -> tuple[Entry, int] | None:
    """Return the entry that a cell holds and how many times; None if it holds none or several."""
    times = int(cell[0])
    if not 1 <= times <= most or (cell % times).any():
        return None
    row = cell // times
    column, length = int(row[3]), int(row[4])
    if not 0 < length <= LONGEST or not 0 <= column < 1 << 31 or row.min() < 0 or row.max() >= 1 << 32:
        return None
    try:
        text = row[5:].astype("<u4").tobytes()[:length].decode()
    except UnicodeDecodeError:
        return None
    entry = (column, text)
    return (entry, times) if (row == _row(entry)).all() else None


def _row(entry: Entry) -> Int64Array:
    """Return an entry's numbers, each below 2^32."""
    column, text = entry
    encoded = text.encode()
    row = np.zeros(_WORDS, np.int64)
    row[0] = 1
    row[1:3] = np.frombuffer(_digest(entry, b"check")[:8], "<u4")
    row[3:5] = column, len(encoded)
    row[5:] = np.frombuffer(encoded.ljust(LONGEST, b"\0"), "<u4")
    return row


def _cells(entry: Entry, part: int, attempt: int) -> list[int]:
    """Return an entry's cells, one in each part of the table; other ones at each attempt."""
    drawn: NDArray[np.uint64] = np.frombuffer(_digest(entry, b"cells %d" % attempt)[: 8 * _HASHES], "<u8")
    return [place * part + int(number) % part for place, number in enumerate(drawn)]


def _digest(entry: Entry, use: bytes) -> bytes:
    column, text = entry
    return hashlib.sha256(b"lepton/categories/1\0" + use + b"\0" + column.to_bytes(4, "big") + text.encode()).digest()
