"""Derived columns of rows that lie in many pieces: lags and windows, ratios, logarithms, parts of dates.

What looks at earlier rows needs rows of other pieces, which may lie with other workers. A worker that holds some
pieces reads of all pieces the few columns that windows need, and keeps of them the rows of its own series within
reach: no rows move between workers, and a value does not depend on who holds what.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.spec.contract import Column, Contract
from lepton_pipelines.spec.derived import DatePart, Difference, Lag, Log, Ratio, Rolling, Windowed
from lepton_pipelines.spec.errors import UserError

from .keys import UInt64Array, combine, start
from .splits import ValuesByColumn, hash_column
from .validation import read
from .values import NO_TIME, OUTSIDE, Values
from .windows import Ordered, compute

if TYPE_CHECKING:
    import pandas as pd

    from .sources import Piece, Source

Float64Array = NDArray[np.float64]
Windows = Mapping[int, ValuesByColumn]
"""Windowed columns of pieces, by the piece's index: values by name, in the piece's order of rows."""

_ONE_SERIES = np.uint64(0)


@dataclass(frozen=True)
class _Narrow:
    """The columns of some rows that windows need. series: uint64, (rows,); known: rows that are in one."""

    series: UInt64Array
    times: NDArray[np.int64]
    known: NDArray[np.bool_]
    values: ValuesByColumn

    def __len__(self) -> int:
        return len(self.times)

    def rows(self, which: NDArray[np.bool_]) -> "_Narrow":
        """Return some of the rows."""
        values = {n: Values(v.values[which], v.missing[which], v.wrong[which]) for n, v in self.values.items()}
        return _Narrow(self.series[which], self.times[which], self.known[which], values)


def read_windows(source: "Source", pieces: "Sequence[Piece]") -> Windows:
    """Compute the windowed columns of some pieces of a source, looking back into all of them.

    Values that break the contract count as missing here; rows without a time or a series have no windowed values.
    Raises UserError as `Source.read`, and if two rows of a series have the same time.
    """
    made: dict[int, ValuesByColumn] = {piece.index: {} for piece in pieces}
    for by, columns in _by_series(source.contract).items():
        for index, values in _windows_by(source, pieces, by, columns).items():
            made[index] |= values
    return made


def derive_frame(frame: "pd.DataFrame", contract: Contract, *, organisation: str = "") -> "pd.DataFrame":
    """Return a frame's features, derived ones computed: what the model takes, for scoring.

    frame: raw rows with the contract's columns, the label only if windows look at it; all rows that windows may
    look back on must be there. contract: with its derived columns (`Pipeline.read_contract`). Categories stay texts.
    Returns (rows, features), indexed as the frame. Raises UserError for missing columns, values that break the
    contract, and times that stand twice in a series.
    """
    needed = set(contract.needed_columns)
    if gone := [name for name in contract.needed_columns if name not in frame.columns]:
        raise UserError(
            f"{_led(organisation)}the rows have no column {', '.join(gone)}, which the model's need. Add it."
        )
    narrow = contract.only(needed)
    checked = read(frame[[c.name for c in narrow.columns]], narrow)
    checked.violations.refuse(narrow, organisation=organisation or "the rows", on_violation="refuse")
    windows: ValuesByColumn = {}
    for by, columns in _by_series(contract).items():
        windows |= _computed(_narrowed(checked.values, contract, by, columns), contract, by, columns, organisation)
    values = derive(checked.values, contract, windows)
    return features_of(values, contract).set_index(frame.index)


def features_of(values: ValuesByColumn, contract: Contract) -> "pd.DataFrame":
    """Return the features of some rows as a caller of the model writes them. values: derived ones among them.

    No values at all give a frame without rows.
    """
    import pandas as pd

    none = np.empty(0)
    return pd.DataFrame({c.name: _as_called(values[c.name], c) if values else none for c in contract.features})


def write_features(source: "Source", folder: Path) -> list[Path]:
    """Write the features of an organisation's rows, derived ones computed, with the rows' keys and time.

    One parquet file a piece, to be scored by a published model. Returns the files. Raises UserError as `Source.read`,
    for rows that break the contract, and if the folder cannot be written.
    """
    contract = source.contract
    named = [c.name for c in contract.columns if c in contract.keys or c.role == "time"]
    wanted = [name for name in contract.read_columns if name in {*contract.needed_columns, *named}]
    narrow = contract.only(set(wanted))
    windows = read_windows(source, source.pieces())
    files = []
    for piece in source.pieces():
        frame = source.read(piece, wanted)  # its features are one file
        checked = read(frame, narrow, numbers=frame.index)
        checked.violations.refuse(narrow, organisation=source.organisation, on_violation="refuse")
        values = derive(checked.values, contract, windows[piece.index])
        made = frame[named].assign(**{c.name: _as_called(values[c.name], c) for c in contract.features})
        files.append(folder / f"part-{piece.index:05d}.parquet")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made.to_parquet(files[-1], index=False)
        except OSError as error:
            raise UserError(
                f"{source.organisation}: features cannot be written to {folder}: {error.strerror or error}."
            ) from error
    return files


def _as_called(held: Values, column: Column) -> "NDArray[Any]":
    """Return a feature's values as a caller of the model writes them: numbers, and categories as texts."""
    if column.kind != "category":
        return held.values
    texts = np.array([*column.categories, None], dtype=object)
    return texts[np.where(held.values < 0, len(column.categories), held.values)]


def _by_series(contract: Contract) -> dict[tuple[str, ...], list[Windowed]]:
    groups: dict[tuple[str, ...], list[Windowed]] = {}
    for told in contract.windowed:
        groups.setdefault(told.by, []).append(told)
    return groups


def derive(values: ValuesByColumn, contract: Contract, windows: ValuesByColumn) -> ValuesByColumn:
    """Add the derived columns to the values of some rows.

    windows: the windowed ones, computed before, for the same rows.
    """
    known = dict(values)
    for told in contract.derived:
        known[told.name] = windows[told.name] if isinstance(told, Windowed) else _of_row(told, known)
    return known


def natural_log(x: Float64Array) -> Float64Array:
    """ln(x) of positive, finite numbers by IEEE operations only, so that every processor gives the same bits.

    x is taken apart into 2^e · m, and ln(m) is twice the area tangent of (m - 1) / (m + 1); the error is below two
    units in the last place but near x = 1, where it is below 3e-16.
    """
    mantissa, exponent = np.frexp(x)
    low = mantissa < np.sqrt(0.5)
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    exponent = exponent - low
    tangent = (mantissa - 1.0) / (mantissa + 1.0)
    square = tangent * tangent
    series = np.full_like(square, 1.0 / 23.0)
    for odd in range(21, 0, -2):
        series = series * square + 1.0 / odd
    log: Float64Array = exponent * 0.6931471803691238 + (2.0 * tangent * series + exponent * 1.9082149292705877e-10)
    return log


def _of_row(told: Any, known: ValuesByColumn) -> Values:
    if isinstance(told, DatePart):
        return _date_part(told, known[told.of])
    sources = [known[name] for name in told.sources]
    missing = np.logical_or.reduce([s.missing | s.wrong for s in sources])
    numbers = [np.where(missing, np.nan, s.values.astype(np.float64)) for s in sources]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if isinstance(told, Ratio):
            made = np.where(numbers[1] == 0, np.nan, numbers[0] / numbers[1])
        elif isinstance(told, Difference):
            made = numbers[0] - numbers[1]
        elif isinstance(told, Log):
            shifted = numbers[0] + told.plus
            made = np.where(shifted > 0, natural_log(np.where(shifted > 0, shifted, 1.0)), np.nan)
        else:
            raise TypeError(f"no rule for {type(told).__name__}")
    made = np.where(np.isfinite(made), made, np.nan)
    return Values(made, np.isnan(made), np.zeros(len(made), np.bool_))


def _date_part(told: DatePart, source: Values) -> Values:
    import pandas as pd

    missing = source.missing | source.wrong | (source.values == NO_TIME)
    moments = pd.Series(np.where(missing, 0, source.values).astype("datetime64[us]")).dt
    if told.part == "weekend":
        made = (moments.day_of_week >= 5).to_numpy(np.float64)
    elif told.part == "week":
        made = moments.isocalendar()["week"].to_numpy(np.float64)
    else:
        name = "day_of_week" if told.part == "weekday" else told.part
        made = getattr(moments, name).to_numpy(np.float64)
    made[missing] = np.nan
    return Values(made, missing, np.zeros(len(made), np.bool_))


def _windows_by(
    source: "Source", pieces: "Sequence[Piece]", by: tuple[str, ...], columns: list[Windowed]
) -> dict[int, ValuesByColumn]:
    """Compute the windowed columns of one kind of series: of some pieces, with what they look back on."""
    own = [_read_narrow(source, piece, by, columns) for piece in pieces]
    keys = np.unique(np.concatenate([n.series[n.known] for n in own])) if own else np.empty(0, np.uint64)
    times = np.concatenate([n.times[n.known] for n in own]) if own else np.empty(0, np.int64)
    earliest, latest = _reached(columns, times)
    mine = {piece.index for piece in pieces}
    looked_at = list(own)
    for piece in source.pieces():
        if piece.index in mine or not len(times):
            continue
        other = _read_narrow(source, piece, by, columns)
        held = other.known & (other.times >= earliest) & (other.times < latest) & np.isin(other.series, keys)
        looked_at.append(other.rows(held))
    made = _computed(_joined(looked_at), source.contract, by, columns, source.organisation)
    ends = np.cumsum([len(n) for n in own])
    parts: dict[int, ValuesByColumn] = {}
    for piece, end, narrow in zip(pieces, ends, own, strict=True):
        place = slice(int(end) - len(narrow), int(end))
        parts[piece.index] = {n: Values(v.values[place], v.missing[place], v.wrong[place]) for n, v in made.items()}
    return parts


def _reached(columns: list[Windowed], times: NDArray[np.int64]) -> tuple[int, int]:
    """Return between which times rows matter to rows of these times."""
    if not len(times):
        return 0, 0
    spans = [told.reach for told in columns]
    first = int(times.min())
    if any(isinstance(span, int) for span in spans):
        return NO_TIME + 1, int(times.max()) + 1
    longest = max(span // timedelta(microseconds=1) for span in spans if isinstance(span, timedelta))
    return first - longest, int(times.max()) + 1


def _read_narrow(source: "Source", piece: "Piece", by: tuple[str, ...], columns: list[Windowed]) -> _Narrow:
    contract = source.contract
    names = {*by, *(name for told in columns for name in told.sources)}
    if contract.time is not None:
        names.add(contract.time.name)
    narrow = contract.only(names)
    parts = []
    for frame in source.blocks(piece, narrow.read_columns):
        checked = read(frame, narrow)
        parts.append(_narrowed(_without_broken(checked.values, checked.broken), contract, by, columns))
    return _joined(parts)


def _narrowed(values: ValuesByColumn, contract: Contract, by: tuple[str, ...], columns: list[Windowed]) -> _Narrow:
    if contract.time is None:
        raise ValueError("windows need a column with the role time")
    times = values[contract.time.name]
    known = ~(times.missing | times.wrong) & (times.values != NO_TIME)
    for name in by:
        known &= ~(values[name].missing | values[name].wrong)
        if contract.column(name).kind == "category":
            known &= values[name].values != OUTSIDE  # read as missing, though no violation
    state = start("series")
    hashes = [hash_column(values[name], state, contract.column(name).categories) for name in by]
    series = combine(hashes) if by else np.full(len(known), _ONE_SERIES, np.uint64)
    return _Narrow(series, times.values, known, {n: values[n] for told in columns for n in told.sources})


def _without_broken(values: ValuesByColumn, broken: Sequence[tuple[str, str, NDArray[np.bool_]]]) -> ValuesByColumn:
    """Make values that break the contract missing: no window may look at them."""
    kept = dict(values)
    for name, _, rows in broken:
        held = kept[name]
        kept[name] = Values(held.values, held.missing | rows, held.wrong)
    return {name: _blanked(held) for name, held in kept.items()}


def _blanked(held: Values) -> Values:
    gone = held.missing | held.wrong
    if held.values.dtype.kind != "f" or not gone.any():
        if held.values.dtype == np.int32 and gone.any():
            return Values(np.where(gone, np.int32(-1), held.values).astype(np.int32), gone, held.wrong)
        return Values(held.values, gone, held.wrong)
    return Values(np.where(gone, np.nan, held.values), gone, held.wrong)


def _joined(parts: list[_Narrow]) -> _Narrow:
    names = parts[0].values if parts else {}
    return _Narrow(
        np.concatenate([p.series for p in parts]),
        np.concatenate([p.times for p in parts]),
        np.concatenate([p.known for p in parts]),
        {
            name: Values(
                np.concatenate([p.values[name].values for p in parts]),
                np.concatenate([p.values[name].missing for p in parts]),
                np.concatenate([p.values[name].wrong for p in parts]),
            )
            for name in names
        },
    )


def _computed(
    rows: _Narrow, contract: Contract, by: tuple[str, ...], columns: list[Windowed], organisation: str
) -> ValuesByColumn:
    ordered = Ordered.of(rows.series, rows.times, rows.known)
    if twice := ordered.twice():
        time = contract.time.name if contract.time is not None else "time"
        series = f"their {' and '.join(by)}" if by else "the table"
        raise UserError(
            f"{_led(organisation)}{twice} row{'s have' if twice > 1 else ' has'} a {time} that another row of {series} "
            f"has, too, so {', '.join(told.name for told in columns[:3])} cannot be told. Take the copies out, or add "
            f"to `by` under derived what tells the series apart."
        )
    made = {}
    for told in columns:
        if isinstance(told, Lag | Rolling):
            made[told.name] = compute(told, ordered, rows.values[told.sources[0]])
    return made


def _led(organisation: str) -> str:
    return f"{organisation}: " if organisation else ""
