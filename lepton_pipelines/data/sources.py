"""An organisation's rows as files: listed once, read in pieces where the worker is that keeps them.

A piece is some consecutive row groups of a parquet file, or one CSV file. Only the contract's columns are read.
A source is small and picklable: workers get it with their pieces and open the files themselves.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean, nearest
from lepton_pipelines.spec.organisation import Data, Organisation

from .csv_file import CSV_SUFFIXES, csv_header, read_csv
from .delta_table import DeltaTable, is_log, open_delta_table
from .parquet_file import check_units, parquet_columns, read_row_groups, row_group_sizes, row_groups_with
from .row_filter import RowFilter
from .sql_table import read_sql, sql_columns
from .storage import open_filesystem, plain_errors

if TYPE_CHECKING:
    import pandas as pd

# Row groups are gathered into pieces of about so many rows: enough to be worth a task, small enough for a worker.
_PIECE_ROWS = 500_000


@dataclass(frozen=True)
class File:
    """One file as it was when the source was opened.

    path: within its file system. version: what changes when the file is written again (size and time or ETag).
    constants: columns that stand in the folders' names, as in year=2016/.
    """

    path: str
    format: str
    size: int
    version: str
    constants: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Piece:
    """Some rows of one file, read in one go.

    index: place among the source's pieces. rows: how many there are to be read through, or -1 where only reading tells
    (CSV). first_row: its first row within the file, from 0.
    """

    index: int
    file: File
    row_groups: tuple[int, ...] = ()
    rows: int = -1
    first_row: int = 0

    @property
    def name(self) -> str:
        """The file's name, and which rows of it: for messages at home."""
        return f"{PurePosixPath(self.file.path).name} from row {self.first_row}"


@dataclass(frozen=True)
class Source:
    """An organisation's files, opened: what they are and how they are read. table_version: of a Delta table."""

    organisation: str
    data: Data
    contract: Contract
    files: tuple[File, ...]
    _pieces: tuple[Piece, ...] = field(repr=False)
    table_version: int | None = None

    def pieces(self) -> list[Piece]:
        """Return the pieces in the order of the files' names; together they are every row once."""
        return list(self._pieces)

    @property
    def rows(self) -> int | None:
        """How many rows there are, if the files tell without being read."""
        if self.data.filter or any(p.rows < 0 for p in self._pieces):
            return None
        return sum(p.rows for p in self._pieces)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def read(self, piece: Piece, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """Read a piece: the contract's columns that are in use, by the contract's names, values as they stand.

        columns: only these of them. Indexed as the frames of `blocks`. Raises as they do.
        """
        import pandas as pd

        parts = list(self.blocks(piece, columns))
        return parts[0] if len(parts) == 1 else pd.concat(parts)

    def blocks(self, piece: Piece, columns: Sequence[str] | None = None) -> "Iterator[pd.DataFrame]":
        """Read a piece as `read` does, in one or more frames: a large CSV file never is in memory as a whole.

        Rows that do not meet `data.filter` are left out. Frames are indexed by the rows' numbers in the file, from 0.
        Raises UserError if the file changed since the source was opened, cannot be read, or lacks a column.
        """
        names = self.contract.read_columns if columns is None else list(columns)
        wanted = self._wanted(piece.file, names)
        where = f"{self.organisation}: {piece.file.path}"
        filesystem = None
        if piece.file.format != "sql":  # a database is read in one transaction
            with plain_errors(self.organisation, self.data.url, self.data.storage):
                filesystem, _ = open_filesystem(self.data.url, self.data.storage)
                self._unchanged(filesystem, piece.file)
        frames = self._frames(filesystem, piece, wanted, where)
        while True:
            with plain_errors(self.organisation, self.data.url, self.data.storage):
                frame = next(frames, None)
                if frame is None:
                    if filesystem is not None:
                        self._unchanged(filesystem, piece.file)
                    return
            frame = frame.rename(columns=wanted)
            for name, value in piece.file.constants:
                if name in names:
                    frame[name] = value
            yield frame[names]

    def _frames(self, filesystem: Any, piece: Piece, wanted: dict[str, str], where: str) -> "Iterator[pd.DataFrame]":
        told = RowFilter(self.data.filter).without(piece.file.constants)
        if piece.file.format == "parquet":
            file, groups = piece.file.path, piece.row_groups
            yield read_row_groups(filesystem, file, groups, list(wanted), where=where, conditions=told)
        elif piece.file.format == "sql":
            yield from read_sql(self.data, self.contract, list(wanted), where=f"{self.organisation}: {self.data.url}")
        else:
            file, csv = piece.file.path, self.data.csv
            yield from read_csv(filesystem, file, csv, self.contract, renamed=wanted, where=where, conditions=told)

    def _wanted(self, file: File, names: Sequence[str]) -> dict[str, str]:
        """Return {the data's name: the contract's name} of the columns that are read from a file."""
        constants = {name for name, _ in file.constants}
        return {self.data.columns.get(n, n): n for n in names if n not in constants}

    def _unchanged(self, filesystem: Any, file: File) -> None:
        if (now := _version(filesystem.info(file.path))) != file.version:
            raise UserError(
                f"{self.organisation}: {file.path} changed while it was read (it was {file.version}, it is {now}). "
                "Start the run again when nothing writes to it."
            )


def open_source(organisation: Organisation, contract: Contract, *, empty: bool = False) -> Source:
    """List an organisation's files, read their headers and check that they hold the contract's columns.

    empty: files without any row will do. Raises UserError, naming organisation, file and column, for everything that
    can be seen without reading rows.
    """
    data, name = organisation.data, organisation.organisation
    _known_columns(name, data, contract)
    if data.sql is not None:
        return _open_database(name, data, contract)
    with plain_errors(name, data.url, data.storage):
        filesystem, path = open_filesystem(data.url, data.storage)
        files, version = _listed(name, data, filesystem, path)
        files = [file for file in files if RowFilter(data.filter).allows(file.constants)]
        problems: list[str] = []
        pieces: list[Piece] = []
        for file in files:
            try:
                pieces += _pieces(name, data, contract, filesystem, file, len(pieces))
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    if not pieces and not empty:
        if data.filter:
            raise UserError(f"{name}: no row of {data.url} meets data.filter. Correct it, or data.url.")
        raise UserError(f"{name}: {data.url} holds no rows. Correct data.url, or fill it.")
    return Source(name, data, contract, tuple(files), tuple(pieces), version)


def _open_database(name: str, data: Data, contract: Contract) -> Source:
    """Open a table or query of a database: one piece, read in blocks."""
    sql = data.sql
    rows = File(f"{data.url} {(sql.table or 'query') if sql is not None else ''}", "sql", 0, "")
    _has_columns(name, data, contract, rows, sql_columns(data, where=f"{name}: {data.url}"))
    return Source(name, data, contract, (rows,), (Piece(0, rows),))


def _known_columns(name: str, data: Data, contract: Contract) -> None:
    for column in data.columns:
        if column not in [c.name for c in contract.columns]:
            raise UserError(f"{name}: data.columns names {column}, which contract {contract.id} has not. Take it out.")


def list_files(name: str, data: Data, filesystem: Any, path: str) -> list[File]:
    """List the files of a path, folder, pattern or Delta table, in the order of their names.

    name: the organisation, for messages. Raises UserError if there is no file that can be read.
    """
    return _listed(name, data, filesystem, path)[0]


def _listed(name: str, data: Data, filesystem: Any, path: str) -> tuple[list[File], int | None]:
    """List the files; of a Delta table those that its log names, and its version."""
    if any(mark in path for mark in "*?["):
        found, base = filesystem.glob(path, detail=True), path.split("*", maxsplit=1)[0].rsplit("/", 1)[0]
    else:
        info = filesystem.info(path)
        if info["type"] == "file":
            found, base = {info["name"]: info}, path.rsplit("/", 1)[0]
        else:
            found, base = filesystem.find(path, detail=True), path.rstrip("/")
            if any(is_log(file, base) for file in found):
                table = open_delta_table(filesystem, base, where=f"{name}: {data.url}", version=data.delta_version)
                return _table_files(name, data, table, {f"{base}/{inner}": inner for inner in table.files}, found)
    if data.delta_version is not None:
        raise UserError(f"{name}: data.delta_version is set, but {data.url} is no Delta table. Take it out.")
    return _found(name, data, list(found.values()), base), None


def _table_files(
    name: str, data: Data, table: DeltaTable, paths: dict[str, str], found: dict[str, Any]
) -> tuple[list[File], int | None]:
    """Return the files that a Delta table's log names. paths: of these files, where they should be."""
    files = []
    for path, inner in paths.items():
        info = found.get(path)
        if info is None:
            raise UserError(
                f"{name}: {inner} is in the log of {data.url} at version {table.version}, but not in its folder. It "
                "was cleaned up: name a newer data.delta_version, or none."
            )
        files.append(File(path, "parquet", int(info["size"]), _version(info), table.files[inner]))
    return files, table.version


def _found(name: str, data: Data, infos: list[dict[str, Any]], base: str) -> list[File]:
    """Choose those of the files found that hold rows."""
    if kind := _table_format(str(i["name"]) for i in infos):
        raise UserError(
            f"{name}: {data.url} holds {kind} table: its folder also holds rows that were deleted or replaced, and "
            "only its log tells which. Write the table's present rows as parquet and name that folder, or read it with "
            "data.sql. A Delta table is read if data.url is its own folder."
        )
    infos = [i for i in infos if i["type"] == "file" and not _hidden(i["name"], base)]
    files = []
    skipped = []
    for info in sorted(infos, key=lambda i: str(i["name"])):
        format_ = data.format or _format(info["name"])
        if format_ is None:
            skipped.append(PurePosixPath(info["name"]).name)
            continue
        files.append(File(info["name"], format_, int(info["size"]), _version(info), _constants(info["name"], base)))
    if files:
        return files
    if skipped:
        raise UserError(
            f"{name}: {data.url} holds no parquet or CSV file (found {', '.join(skipped[:3])}). "
            "Set data.format to parquet or csv, or correct data.url."
        )
    raise UserError(f"{name}: no file is at {data.url}. Correct data.url, or put the data there.")


def _table_format(paths: Iterable[str]) -> str | None:
    """Name the kind of table whose log lies among the files: then not every parquet file is part of it."""
    for path in paths:
        parts = PurePosixPath(path).parts
        if "_delta_log" in parts:
            return "a Delta"
        if parts[-1].endswith(".metadata.json") and "metadata" in parts:
            return "an Iceberg"
        if ".hoodie" in parts:
            return "a Hudi"
    return None


def _hidden(path: str, base: str) -> bool:
    """Tell files that writers leave beside the data: _SUCCESS, _metadata, .crc."""
    inner = path[len(base) :] if path.startswith(base) else path
    return any(part.startswith((".", "_")) for part in PurePosixPath(inner).parts)


def _format(path: str) -> str | None:
    lowered = path.lower()
    if lowered.endswith((".parquet", ".pq", ".parq")):
        return "parquet"
    return "csv" if lowered.endswith(tuple(CSV_SUFFIXES)) else None


def _version(info: dict[str, Any]) -> str:
    stamp = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created") or ""
    return f"{info['size']} bytes, {stamp}"


def _constants(path: str, base: str) -> tuple[tuple[str, str], ...]:
    inner = PurePosixPath(path[len(base) :]).parent if path.startswith(base) else PurePosixPath()
    pairs = [part.partition("=") for part in inner.parts if "=" in part]
    return tuple((name, value) for name, _, value in pairs)


def _pieces(name: str, data: Data, contract: Contract, filesystem: Any, file: File, first: int) -> list[Piece]:
    where = f"{name}: {file.path}"
    if file.size == 0:
        raise UserError(f"{where} is empty. Take it away, or fill it.")
    if file.format == "csv":
        found = csv_header(filesystem, file.path, data.csv, contract, where=where)
        _has_columns(name, data, contract, file, found)
        return [Piece(first, file)]
    found = parquet_columns(filesystem, file.path, where=where)
    _has_columns(name, data, contract, file, found)
    check_units(filesystem, file.path, contract, data.columns, where=where)
    sizes = row_group_sizes(filesystem, file.path)
    groups = list(range(len(sizes)))
    if told := RowFilter(data.filter).without(file.constants):
        groups = row_groups_with(filesystem, file.path, told, where=where)
    return _gathered(file, groups, sizes, first)


def _gathered(file: File, groups: list[int], sizes: list[int], first: int) -> list[Piece]:
    """Gather row groups into pieces. groups: those that are read. sizes: rows of each of the file's. first: place."""
    pieces: list[Piece] = []
    gathered: list[int] = []

    def close() -> None:
        if rows := sum(sizes[group] for group in gathered):
            pieces.append(Piece(first + len(pieces), file, tuple(gathered), rows, sum(sizes[: gathered[0]])))
        gathered.clear()

    for group in groups:
        if gathered and sum(sizes[g] for g in (*gathered, group)) > _PIECE_ROWS:
            close()
        gathered.append(group)
    close()
    return pieces


def _has_columns(name: str, data: Data, contract: Contract, file: File, found: list[str]) -> None:
    constants = [column for column, _ in file.constants]
    twice = sorted({c for c in found if found.count(c) > 1})
    if twice:
        raise UserError(f'{name}: column "{twice[0]}" stands twice in {file.path}. Take one out.')
    problems = []
    for column in contract.read_columns:
        there = data.columns.get(column, column)
        if there in found or column in constants:
            continue
        guess = nearest(there, [c for c in found if c not in contract.read_columns])
        hint = f' (found "{guess}")' if guess else f" (found {', '.join(found[:8])}{', …' if len(found) > 8 else ''})"
        problems.append(
            f'{name}: column "{there}" is missing from {_place(data, file)}{hint}. Rename it in the contract under '
            f"schema.properties, in the data, or say data.columns: {{{column}: {guess or 'its name in the data'}}}."
        )
    for column in data.filter:
        if column not in found and column not in constants:
            problems.append(
                f'{name}: data.filter names "{column}", which {_place(data, file)} has not.'
                f"{did_you_mean(column, [*found, *constants])}"
            )
    if problems:
        raise UserError(problems)


def _place(data: Data, file: File) -> str:
    return data.url if "://" in data.url else str(Path(file.path))
