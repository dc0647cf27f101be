"""Which rows are trained on and which are held out: the same on every machine and in every run."""

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import KeySplit, TimeSplit

from .keys import UInt64Array, combine, hash_floats, hash_integers, hash_texts, start
from .values import NO_TIME, Values

SETS = ("train", "valid", "test")
"""The sets of rows; a row's set number is the place here."""

UInt8Array = NDArray[np.uint8]
ValuesByColumn = dict[str, Values]


def assign(values: ValuesByColumn, split: KeySplit | TimeSplit, contract: Contract) -> UInt8Array:
    """Deal rows out to the sets.

    values: the columns' values by name; the split's column must be there, without missing or wrong values.
    Returns uint8, (rows,), places in SETS.
    Raises UserError if the split's column has missing values.
    """
    name = split.key if isinstance(split, KeySplit) else split.time
    column = values[name]
    gone = column.missing | column.wrong
    if gone.any():
        raise UserError(
            f"{int(gone.sum())} rows have no {name}, by which rows are split. "
            f"Mark {name} as required in contract {contract.id}, and fill it or set on_violation: quarantine."
        )
    if isinstance(split, KeySplit):
        return by_hash(hash_column(column, start("split", split.salt), contract.column(name).categories), split)
    return by_time(column.values, split)


def by_hash(hashes: UInt64Array, split: KeySplit) -> UInt8Array:
    """Deal rows out by the hash of their key: the lowest share is trained on, the highest held out.

    hashes: uint64, (rows,). Returns uint8, (rows,), places in SETS.
    """
    ends = np.array([_share(split.train), _share(split.train + split.valid)], dtype=np.uint64)
    return np.searchsorted(ends, hashes, side="right").astype(np.uint8)


def by_time(microseconds: NDArray[np.int64], split: TimeSplit) -> UInt8Array:
    """Deal rows out by their time; the validation rows begin at `valid_from`, the held-out ones at `test_from`.

    microseconds: int64, (rows,), since 1970. Returns uint8, (rows,), places in SETS.
    """
    if (microseconds == NO_TIME).any():
        raise UserError(f"some rows have no {split.time}, by which rows are split.")
    test = _microseconds(split.test_from)
    valid = test if split.valid_from is None else _microseconds(split.valid_from)
    return np.where(microseconds >= test, 2, np.where(microseconds >= valid, 1, 0)).astype(np.uint8)


def row_ids(values: ValuesByColumn, contract: Contract) -> UInt64Array:
    """Number rows by their key, or where no key is unique by all that is read of them.

    A row has its number wherever it lies, so that what is drawn by it does not depend on machine or partition.
    Returns uint64, (rows,).
    """
    columns = contract.keys if contract.has_unique_key else [c for c in contract.columns if c.role != "unused"]
    state = start("row")
    return combine(hash_column(values[c.name], state, c.categories) for c in columns)


def hash_column(column: Values, state: np.uint64, categories: tuple[str, ...] = ()) -> UInt64Array:
    """Hash a column by its values, whatever they are; categories by their text, not their code.

    Returns uint64, (rows,).
    """
    values = column.values
    if values.dtype == np.int32:
        # Codes follow the contract's order; a contract that gains a category must not deal the rows out anew.
        texts = np.array([*categories, None, None], dtype=object)
        hashed: UInt64Array = hash_texts(texts, state)[values]
        return hashed
    if values.dtype.kind in "iu":
        return hash_integers(values, state)
    if values.dtype.kind == "f":
        return hash_floats(values, state)
    return hash_texts(values, state)


def _share(share: float) -> int:
    return min(round(share * (1 << 53)) << 11, (1 << 64) - 1)


def _microseconds(moment: str) -> int:
    time = datetime.fromisoformat(moment)
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    difference = time - epoch
    return (difference.days * 86400 + difference.seconds) * 1_000_000 + difference.microseconds
