"""What is kept beside the codes of rows that are trained on, so that fewer bytes and values are touched.

- Copies of columns that rows are divided by. A row's codes share a cache line or two, which is right for counting,
  where all of them are read; to divide rows one code each is read, and a column's codes side by side take a
  twenty-eighth of the lines of 28 columns. Only as many columns are copied as memory allows.
- Where many values are missing, one bit a value that says which are there. Missing ones need not be counted: a
  column's missing cell holds what the node holds and the column's other cells don't. Counted like values they would
  be slower than values, since row after row would wait for the same cell. Of the first 160 columns: more bits would
  exceed the memory of a row, so the others are counted in full.

Neither changes a total: both are each shard's own choice.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning, CodeArray, Codes
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.intrinsics import at, put
from lepton_pipelines.boosting.pool import Pool, spans

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
WordArray = NDArray[np.uint32]

WORD = 32  # values that one word of `Lookup.present` tells of
_BYTES = 14  # a row: with gradients, row numbers and margins that stays below 40
_WORDS = 5  # of `Lookup.present`, a row: without copies of columns that stays at 40 bytes
_SPARSE = 1 / 16  # share of missing values from which they are worth skipping
_SMALL = 1 << 16  # rows up to which one thread works alone


@dataclass
class Lookup:
    """A set of rows as codes, and what is kept beside them.

    present: uint32, rows * words, bit f % 32 of a row's word f // 32 is 1 if the row has column f's value, for as many
    columns as there are words for; empty where few values of theirs are missing. copies: uint8 or uint16, (room, rows),
    codes of some columns. place: int32, one a column, where its copy is; -1 for none.
    """

    codes: Codes
    present: WordArray
    copies: CodeArray
    place: Int32Array
    _copied: int = field(default=0)

    @staticmethod
    def of(codes: Codes, binning: Binning, pool: Pool) -> "Lookup":
        """Look at the codes; copies are made when columns are asked for."""
        rows, features = codes.rows, codes.features
        pieces = spans(rows, pool.threads if rows > _SMALL else 1)
        counts = np.zeros(max(len(pieces), 1), np.int64)
        present = np.zeros(0, np.uint32)
        if binning.missing.any():
            words = min(-(-features // WORD), _WORDS)
            told = min(features, words * WORD)
            work = codes.values, features, told, binning.bins
            pool.run([(_count_missing, (*work, lo, hi, counts, k)) for k, (lo, hi) in enumerate(pieces)])
            if counts.sum() >= _SPARSE * rows * told:
                present = np.zeros(rows * words, np.uint32)
                pool.run([(_mark_present, (*work, lo, hi, present)) for lo, hi in pieces])
        left = _BYTES - present.nbytes // max(rows, 1)
        room = min(features, max(left // codes.values.itemsize, 0))
        copies = np.empty((room, rows), codes.values.dtype)
        return Lookup(codes, present, copies, np.full(features, -1, np.int32))

    def ask(self, columns: Int32Array, rows: Int64Array, pool: Pool) -> None:
        """Copy columns that rows are to be divided by, while there is room.

        columns: int32, may hold one several times. rows: int64, how many rows are divided by each entry.
        """
        room = len(self.copies) - self._copied
        if room == 0 or (self.place[columns] >= 0).all():
            return
        wanted = np.bincount(columns, weights=rows, minlength=len(self.place))
        wanted[self.place >= 0] = 0
        new = np.argsort(-wanted, kind="stable")[: min(room, np.count_nonzero(wanted))].astype(np.int32)
        self.place[new] = np.arange(self._copied, self._copied + len(new), dtype=np.int32)
        self._copied += len(new)
        codes = self.codes
        pieces = spans(codes.rows, pool.threads if codes.rows > _SMALL else 1)
        work = codes.values, codes.features, new, self.place, self.copies
        pool.run([(_copy_columns, (*work, lo, hi)) for lo, hi in pieces])


@kernel
def _count_missing(
    codes: CodeArray, features: int, told: int, bins: Int32Array, lo: int, hi: int, counts: Int64Array, place: int
) -> None:
    missing = np.int64(0)
    for row in range(lo, hi):
        for f in range(told):
            missing += np.int64(at(codes, row * features + f)) == np.int64(at(bins, f))
    counts[place] = missing


@kernel
def _mark_present(
    codes: CodeArray, features: int, told: int, bins: Int32Array, lo: int, hi: int, present: WordArray
) -> None:
    words = -(-told // WORD)
    for row in range(lo, hi):
        for word in range(words):
            bits = np.int64(0)
            for f in range(word * WORD, min(word * WORD + WORD, told)):
                here = np.int64(at(codes, row * features + f)) != np.int64(at(bins, f))
                bits |= np.int64(here) << (f - word * WORD)
            present[row * words + word] = np.uint32(bits)


@kernel
def _copy_columns(
    codes: CodeArray, features: int, columns: Int32Array, place: Int32Array, copies: CodeArray, lo: int, hi: int
) -> None:
    for start in range(lo, hi, 512):  # rows whose codes stay near while one column after the other is read
        for column in columns:
            f, copy = np.int64(column), copies[place[column]]
            for row in range(start, min(start + 512, hi)):
                put(copy, row, at(codes, row * features + f))
