"""A piece of a source made ready for training where it was read: checked, cleaned, split, encoded, digested."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import KeySplit, TimeSplit

from .derived import derive, read_windows
from .encoding import Encoded, Gathered, encode_values
from .lineage import piece_digest
from .piece_cache import PieceCache
from .sources import Piece, Source
from .splits import SETS, ValuesByColumn, assign
from .validation import Checked, read
from .values import Values
from .violations import Violations

if TYPE_CHECKING:
    import pandas as pd


Told = Callable[[Piece, int, bool], None]
"""Takes a piece, how many of its rows are read, and whether it is done."""


@dataclass(frozen=True)
class Prepared:
    """One piece, ready.

    sets: the encoded rows by the set's name, in the piece's order; every set is there, if only with no rows.
    violations: what was found, also of the rows that were set aside. digest: SHA-256 of the rows as read.
    """

    sets: Mapping[str, Encoded]
    violations: Violations
    digest: bytes


def prepare(
    source: Source,
    piece: Piece,
    split: KeySplit | TimeSplit,
    *,
    windows: ValuesByColumn | None = None,
    quarantine: Path | str | None = None,
    told: Told | None = None,
) -> Prepared:
    """Read a piece and make it ready. Rows that break the contract are left out and counted.

    windows: the piece's columns that look at earlier rows, from `derived.read_windows`, if the contract has such.
    quarantine: folder at home into which such rows are written, with the reason; None writes nothing.
    told: told of the rows of the piece that are read, block by block.
    Whether they refuse the run is for `Violations.refuse` over all pieces. Raises UserError as `Source.read`.
    """
    contract = source.contract
    gathered = {name: Gathered() for name in SETS}
    violations, digests, done = Violations(), [], 0
    for frame in source.blocks(piece):
        checked = read(frame, contract, numbers=frame.index)
        digests.append(piece_digest(frame))
        if quarantine is not None and checked.rejected.any():
            write_quarantine(frame, checked, Path(quarantine), piece, digests[-1], organisation=source.organisation)
        kept = _kept(checked, contract)
        looked_back = _rows(windows or {}, slice(done, done + len(frame)))
        values = derive(_rows(checked.values, kept), contract, _rows(looked_back, kept))
        sets = assign(values, split, contract)
        encoded = encode_values(values, contract)
        for place, set_name in enumerate(SETS):
            gathered[set_name].add(encoded.rows(sets == place))
        violations += checked.violations
        done += len(frame)
        if told is not None:
            told(piece, done, False)
    digest = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
    return Prepared({name: rows.encoded() for name, rows in gathered.items()}, violations, digest)


def prepare_pieces(
    source: Source,
    pieces: Sequence[Piece],
    split: KeySplit | TimeSplit,
    *,
    quarantine: Path | str | None = None,
    told: Told | None = None,
) -> Iterator[Prepared]:
    """Make some pieces ready, one after the other; from `data.cache`, if the organisation keeps one, where it can.

    quarantine, told: as in `prepare`. Raises UserError as `prepare`, and if the cache cannot be written.
    """
    cache = cache_of(source, split)
    if cache is not None:
        cache.forget_others(source.pieces())
    fresh = [piece for piece in pieces if cache is None or not cache.holds(piece)]
    windowed = bool(source.contract.windowed)
    windows = dict(read_windows(source, fresh)) if windowed and fresh else {}
    for piece in pieces:
        ready = None if cache is None else cache.load(piece)
        if ready is None:
            if windowed and piece.index not in windows:
                windows |= read_windows(source, [piece])  # its entry was damaged
            looked_back = windows.pop(piece.index, None)
            ready = prepare(source, piece, split, windows=looked_back, quarantine=quarantine, told=told)
            if cache is not None:
                cache.store(piece, ready)
        if told is not None:
            told(piece, ready.violations.rows, True)
        yield ready


def cache_of(source: Source, split: KeySplit | TimeSplit) -> PieceCache | None:
    """Return where prepared pieces are kept; None if the organisation keeps none."""
    return None if source.data.cache is None else PieceCache.of(source, split, source.data.cache)


def _kept(checked: Checked, contract: Contract) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Tell which rows are trained or tested on: those that break no rule and have a label."""
    kept = ~checked.rejected
    if contract.label is not None and contract.label.may_be_unknown:
        kept &= ~checked.values[contract.label.name].missing
    return kept


def _rows(values: ValuesByColumn, which: "np.ndarray[tuple[int], np.dtype[np.bool_]] | slice") -> ValuesByColumn:
    if not isinstance(which, slice) and which.all():
        return values
    return {n: Values(v.values[which], v.missing[which], v.wrong[which]) for n, v in values.items()}


def write_quarantine(
    frame: "pd.DataFrame",
    checked: Checked,
    folder: Path,
    piece: Piece,
    digest: bytes,
    *,
    organisation: str,
) -> Path:
    """Write the rows that break the contract as they stand, with their file, row and reason; return the file.

    frame: indexed by its rows' numbers in the file. The folder is readable by its owner alone. A piece that is prepared
    again writes the same file again.
    Raises UserError if the folder cannot be written.
    """
    path = folder / f"{digest.hex()[:16]}.parquet"
    places = np.flatnonzero(checked.rejected)
    rows = frame.iloc[places].copy()
    # Values of mixed kinds have no parquet type of their own; as text they stay readable.
    for name in rows.columns:
        if rows[name].dtype == object:
            rows[name] = rows[name].astype("string")
    rows.insert(0, "reason", _reasons(checked, places))
    rows.insert(0, "row", frame.index.to_numpy()[places] + 1)
    rows.insert(0, "file", piece.file.path)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        rows.to_parquet(path, index=False)
    except OSError as error:
        raise UserError(
            f"{organisation}: quarantined rows cannot be written to {folder}: {error.strerror or error}. "
            "Make it writable, or set on_violation: refuse."
        ) from error
    return path


def _reasons(checked: Checked, places: "np.ndarray[tuple[int], np.dtype[np.intp]]") -> list[str]:
    reasons: list[list[str]] = [[] for _ in places]
    for name, rule, broken in checked.broken:
        for i in np.flatnonzero(broken[places]):
            reasons[i].append(f"{name}: {rule}")
    return ["; ".join(r) for r in reasons]
