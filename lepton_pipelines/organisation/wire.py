"""What crosses an organisation's boundary, sum by sum, and documents that travel as sums.

`CountedSums` stands between an organisation's part and its sums and keeps account by purpose. `gather` lets every
member hand the others a document that is meant for them (scores that may be shown, a champion's model file): each
writes into cells of its own and zeros elsewhere, so a sum brings everybody all of them, and whoever adds up sees
no more of it than of any other sum.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lepton_pipelines.evaluation.result import Wire
from lepton_pipelines.sums import ChangingSums, Int64Array, PendingSum, Sums, Traffic

BYTES_A_CELL = 6  # a cell's bound is 2^48: masks stay in machine words

PURPOSES = {
    "agreement": "agreement before the run",
    "categories": "union of categories",
    "binning": "bin edges",
    "rows": "row counts",
    "base": "base score",
    "start": "first gradients' scale",
    "gradients": "gradients' scale",
    "tree": "gradient histograms",
    "scores": "scores, next tree's root",
    "evaluation": "evaluation",
    "shown": "figures that may be shown",
    "comparison": "the demo's comparison",
}
"""Purposes by a word in a sum's name."""


class CountedSums:
    """Sums that pass through to others and are counted by purpose."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self.traffic = sums.traffic
        self._by_purpose: dict[str, Wire] = {}

    @property
    def parties(self) -> int:
        """How many parties' vectors a total is made of."""
        return self._sums.parties

    @property
    def members_may_change(self) -> bool:
        """Whether members can change in this run."""
        return isinstance(self._sums, ChangingSums) and self._sums.members_may_change

    @property
    def members_change(self) -> bool:
        """Whether the next sum is the first one of other members."""
        return isinstance(self._sums, ChangingSums) and self._sums.members_change

    def let_members_change(self) -> None:
        """Pass on that totals of other members make sense from here on."""
        if isinstance(self._sums, ChangingSums):
            self._sums.let_members_change()

    def start(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> PendingSum:
        """Begin a sum and count it."""
        before = replace(self.traffic)
        pending = self._sums.start(name, vector, bound=bound, context=context)
        self._count(name, before)
        return pending

    def sum(self, name: str, vector: Int64Array, *, bound: int, context: bytes = b"") -> Int64Array:
        """Make a sum and count it."""
        before = replace(self.traffic)
        total = self._sums.sum(name, vector, bound=bound, context=context)
        self._count(name, before)
        return total

    def by_purpose(self) -> list[Wire]:
        """Return what was exchanged, by purpose, in the order of first use."""
        return list(self._by_purpose.values())

    def _count(self, name: str, before: Traffic) -> None:
        purpose = purpose_of(name)
        told, now = self._by_purpose.get(purpose), self.traffic
        sums, sent, received = (told and (told.sums, told.bytes_sent, told.bytes_received)) or (0, 0, 0)
        self._by_purpose[purpose] = Wire(
            purpose=purpose,
            sums=sums + 1,
            bytes_sent=sent + now.bytes_sent - before.bytes_sent,
            bytes_received=received + now.bytes_received - before.bytes_received,
        )


def purpose_of(name: str) -> str:
    """Return what a sum was for, from its name: the last of its parts that says so."""
    for part in reversed(name.split("/")):
        word = part.partition(" ")[0]
        if word in PURPOSES:
            return PURPOSES[word]
    return name.partition("/")[0]


def gather(sums: Sums, name: str, *, member: str, members: Sequence[str], document: bytes) -> dict[str, bytes]:
    """Hand every member's document to every member; two sums, of the lengths and of the contents.

    member: who we are. members: all of them, in the order that all use. Where members changed between or before the
    two sums, who was not in both has an empty document, or one of zeros.
    """
    place = list(members).index(member)
    lengths = np.zeros(len(members), np.int64)
    lengths[place] = len(document)
    lengths = sums.sum(f"{name}/lengths", lengths, bound=1 << 40)
    cells = -(-lengths // BYTES_A_CELL)
    ends = np.cumsum(cells)
    total = np.zeros(int(ends[-1]), np.int64)
    if len(document) == lengths[place] > 0:
        total[ends[place] - cells[place] : ends[place]] = _to_cells(document)
    if len(total):
        total = sums.sum(f"{name}/contents", total, bound=(1 << (8 * BYTES_A_CELL)) - 1)
    return {
        other: _from_cells(total[end - count : end], int(length))
        for other, end, count, length in zip(members, ends, cells, lengths, strict=True)
    }


def gather_json(sums: Sums, name: str, *, member: str, members: Sequence[str], document: Any) -> dict[str, Any]:
    """`gather` of documents of JSON's types; members that were lost meanwhile are left out."""
    encoded = json.dumps(document, separators=(",", ":")).encode()
    told = gather(sums, name, member=member, members=members, document=encoded)
    return {other: json.loads(text) for other, text in told.items() if text.strip(b"\0")}


def _to_cells(document: bytes) -> Int64Array:
    padded = np.frombuffer(document + b"\0" * (-len(document) % BYTES_A_CELL), np.uint8).reshape(-1, BYTES_A_CELL)
    wide = np.zeros((len(padded), 8), np.uint8)
    wide[:, :BYTES_A_CELL] = padded
    return wide.view("<i8").ravel().astype(np.int64)


def _from_cells(cells: Int64Array, length: int) -> bytes:
    wide = np.ascontiguousarray(cells.astype("<i8")).view(np.uint8).reshape(-1, 8)
    return wide[:, :BYTES_A_CELL].tobytes()[:length]
