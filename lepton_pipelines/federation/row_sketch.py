"""Rows as a sketch of fixed size that adds up over workers and tells how many rows two data sets differ by.

Each row's digest is put through AES under a secret of the home (a digest by universal hashing, then a pseudorandom
permutation: Carter and Wegman's construction), which names one of 65,536 cells and a 64-bit value. A cell holds how
many rows it has and the sum of their values, modulo 2^64. So a sketch is a multiset hash that is added up
(MSet-Add-Hash of Clarke, Devadas, van Dijk, Gassend and Suh, ASIACRYPT 2003) with cells as in an invertible Bloom
lookup table (Eppstein, Goodrich, Uyeda and Varghese, SIGCOMM 2011): it does not depend on order or on how rows are
spread, and where two data sets differ by a few rows, the difference of their sketches shows these few, each in a cell
of its own.

Different rows in the same cells with the same sums, which would pass as no change, have a probability of 2^-64 a cell.
Rows that came and rows that went can share a cell and hide each other's number, not that something changed: the number
found is never above the true one, and for two data sets that differ by 20 rows it is too low with a probability of less
than 1 %. So too few changes are never taken for enough.
"""

import hashlib
import zlib
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

CELLS = 1 << 16
_BLOCK = 1 << 17  # rows at a time
_MARK = b"lepton/sketch/1\0"


@dataclass(frozen=True)
class RowSketch:
    """A sketch of rows. counts: int64, (cells,). sums: uint64, (cells,), modulo 2^64."""

    counts: NDArray[np.int64] = field(repr=False)
    sums: NDArray[np.uint64] = field(repr=False)

    @classmethod
    def of(cls, digests: NDArray[np.uint64], secret: bytes) -> "RowSketch":
        """Sketch rows by their digests, uint64, (rows,), under a secret of the home."""
        counts, sums = np.zeros(CELLS, np.int64), np.zeros(CELLS, np.uint64)
        key = hashlib.sha256(b"lepton/row-sketch/1" + secret).digest()
        # One block a row: AES as a keyed permutation of single numbers, not as a way to hide a text.
        permutation = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
        for start in range(0, len(digests), _BLOCK):
            blocks = np.zeros((len(digests[start : start + _BLOCK]), 2), "<u8")
            blocks[:, 0] = digests[start : start + _BLOCK]
            mixed = np.frombuffer(permutation.update(blocks.tobytes()), "<u8").reshape(-1, 2)
            cells = (mixed[:, 1] % np.uint64(CELLS)).astype(np.int64)
            counts += np.bincount(cells, minlength=CELLS)
            np.add.at(sums, cells, mixed[:, 0])
        return cls(counts, sums)

    def __add__(self, other: "RowSketch") -> "RowSketch":
        """Add other rows."""
        return RowSketch(self.counts + other.counts, self.sums + other.sums)

    def changed_since(self, earlier: "RowSketch") -> int:
        """Return how many rows were added or removed, whichever is more; one that comes twice counts twice.

        Never more than there were; 0 only if none was.
        """
        change = self.counts - earlier.counts
        # As many came into the cell as went from it: at least one each.
        exchanged = int(((change == 0) & (self.sums != earlier.sums)).sum())
        return exchanged + max(int(change[change > 0].sum()), int(-change[change < 0].sum()))

    def to_bytes(self) -> bytes:
        """Encode for the history."""
        cells = np.concatenate([self.counts.astype("<i8").view("<u8"), self.sums.astype("<u8")])
        return _MARK + zlib.compress(cells.tobytes(), 1)

    @classmethod
    def from_bytes(cls, data: bytes) -> "RowSketch":
        """Decode what `to_bytes` wrote. Raises ValueError for anything else."""
        if not cls.is_one(data):
            raise ValueError("no sketch of rows")
        cells = np.frombuffer(zlib.decompress(data[len(_MARK) :]), "<u8").astype(np.uint64)
        return cls(cells[:CELLS].view(np.int64), cells[CELLS:])

    @staticmethod
    def is_one(data: bytes) -> bool:
        """Tell a sketch from the digests of single rows that earlier releases kept."""
        return data.startswith(_MARK)
