"""CSV files, plain or compressed: read by the contract's types, not by guesses."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lepton_pipelines.spec.contract import Column, Contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Csv

from .row_filter import RowFilter, numbers_wanted

if TYPE_CHECKING:
    import pandas as pd

CSV_SUFFIXES = (".csv", ".tsv", ".data", ".csv.gz", ".tsv.gz", ".csv.zst", ".csv.bz2")

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}

# What other programs write for a missing value.
_NULLS = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null", "None")

_BLOCK = 1 << 24

# A file's text is read and checked in blocks of so many bytes, so that memory does not grow with the file.
_BLOCK_BYTES = 1 << 26


def csv_header(filesystem: Any, path: str, csv: Csv, contract: Contract, *, where: str) -> list[str]:
    """Return the names of a file's columns.

    Without a header the contract's columns are taken in their order. Raises UserError for a file that is empty
    or holds its header only, a delimiter that does not fit, an unknown encoding.
    """
    _known_encoding(csv, where)
    names = [c.name for c in contract.columns]
    lines = _first_lines(filesystem, path, csv, 2, where=where)
    if not lines:
        raise UserError(f"{where} is empty. Take it away, or fill it.")
    first = _split(lines[0], csv.delimiter)
    if not csv.header:
        _width(first, names, csv, lines[0], where)
        return names
    if len(first) == 1 and len(names) > 1 and (better := _delimiter(lines[0])):
        raise UserError(
            f'{where} has one column only when split at "{csv.delimiter}", but "{better}" stands in its header. '
            f'Set data.csv.delimiter: "{better}".'
        )
    if len(lines) < 2:
        raise UserError(f"{where} holds a header and no rows. Take it away, or fill it.")
    return first


def read_csv(
    filesystem: Any,
    path: str,
    csv: Csv,
    contract: Contract,
    *,
    renamed: dict[str, str],
    where: str,
    conditions: RowFilter | None = None,
) -> "Iterator[pd.DataFrame]":
    """Read the columns of a file that the contract uses, in blocks of some hundred thousand rows.

    renamed: {the data's name: the contract's name} of the columns to read. Numbers come as float64 where all
    are numbers; otherwise the block's column comes as text, so that the wrong values can be counted and named.
    conditions: which rows are read. Yields frames indexed by the rows' numbers in the file, from 0.
    Raises UserError for a file that is cut off, not in its encoding, or ragged.
    """
    import pandas as pd

    types = {there: _arrow_type(contract.column(name)) for there, name in renamed.items()}
    for name, told in (conditions or RowFilter({})).conditions.items():
        types.setdefault(name, _compared_type(numbers=numbers_wanted(told)))
    names = None if csv.header else [c.name for c in contract.columns]
    rows = 0
    with _told_errors(csv, where):
        for block in _blocks(filesystem, path, csv):
            later = where if rows == 0 else f"{where}, counted from row {rows + 1},"
            with _told_errors(csv, later):
                table = _parse(block, csv, contract, types, names)
            if names is None:
                header = block[: block.find(b"\n") + 1].decode(csv.encoding).lstrip("\ufeff")
                names = _split(header.rstrip("\r\n"), csv.delimiter)
            numbers: pd.Index[Any] = pd.RangeIndex(rows, rows + table.num_rows)
            rows += table.num_rows
            if conditions:
                met = conditions.places(table, where=where)
                table, numbers = table.take(met), numbers[met]
            frame: pd.DataFrame = table.select(list(renamed)).to_pandas()
            frame.index = numbers
            yield frame


@contextmanager
def _told_errors(csv: Csv, where: str) -> Iterator[None]:
    """Say what is wrong with a file, and what to do."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        raise UserError(f"{where} cannot be read: {_explain(error, csv)}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not {csv.encoding} throughout (byte {error.start} of a block): {_ENCODING_HINT}"
        ) from error
    except (OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise UserError(f"{where} ends too early or is damaged: {error}. Write or copy it again.") from error


def _blocks(filesystem: Any, path: str, csv: Csv) -> Iterator[bytes]:
    """Cut a file's text into blocks that end with a line; in one piece where a line's end is more than one byte."""
    whole = "\n".encode(csv.encoding) != b"\n"
    with _stream(filesystem, path) as stream:
        rest = b""
        while True:
            more = bytes(stream.read() if whole else stream.read(_BLOCK_BYTES))
            if not more:
                break
            text = rest + more
            end = len(text) if whole else text.rfind(b"\n") + 1
            if end:
                yield text[:end]
            rest = text[end:]
        if rest.strip():
            yield rest


def infer_csv(filesystem: Any, path: str, csv: Csv, *, where: str) -> "pd.DataFrame":
    """Read a whole file of which no contract is known, with types guessed from its values.

    Raises UserError for a file that has no header, is cut off, not in its encoding, or ragged.
    """
    import pyarrow as pa
    import pyarrow.csv as pacsv

    _known_encoding(csv, where)
    if not csv.header:
        raise UserError(f"{where} has no header: its columns have no names to draft a contract from. Add one.")
    convert = pacsv.ConvertOptions(null_values=list(_NULLS), strings_can_be_null=True, decimal_point=csv.decimal)
    read = pacsv.ReadOptions(block_size=_BLOCK, encoding=csv.encoding)
    try:
        with _stream(filesystem, path) as stream:
            table = pacsv.read_csv(
                stream,
                read_options=read,
                parse_options=pacsv.ParseOptions(delimiter=csv.delimiter),
                convert_options=convert,
            )
    except pa.ArrowInvalid as error:
        raise UserError(f"{where} cannot be read: {_explain(error, csv)}") from error
    except (OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise UserError(f"{where} ends too early or is damaged: {error}. Write or copy it again.") from error
    frame: pd.DataFrame = table.to_pandas()
    return frame


_ENCODING_HINT = "Set data.csv.encoding, such as latin-1, or write the file in one encoding."


def _parse(block: bytes, csv: Csv, contract: Contract, types: dict[str, Any], names: list[str] | None) -> Any:
    """Parse a block of lines. types: Arrow's, of the columns to read. names: of all; None if the first line has them.

    What cannot be converted makes the block's columns texts.
    """
    import pyarrow as pa

    try:
        return _read(block, csv, contract, types, names)
    except pa.ArrowInvalid as error:
        if "conversion error" not in str(error):
            raise
        return _read(block, csv, contract, dict.fromkeys(types, pa.string()), names)


def _read(block: bytes, csv: Csv, contract: Contract, types: dict[str, Any], names: list[str] | None) -> Any:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    convert = pacsv.ConvertOptions(
        include_columns=list(types),
        column_types=types,
        null_values=_nulls(contract),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        decimal_point=csv.decimal,
        check_utf8=True,
    )
    read = pacsv.ReadOptions(block_size=_BLOCK, encoding=csv.encoding, column_names=names)
    parse = pacsv.ParseOptions(delimiter=csv.delimiter)
    return pacsv.read_csv(pa.BufferReader(block), read_options=read, parse_options=parse, convert_options=convert)


def _arrow_type(column: Column) -> Any:
    import pyarrow as pa

    # A key's whole numbers may be beyond what float64 holds.
    if column.kind == "number":
        return pa.int64() if column.integer and column.role == "key" else pa.float64()
    return pa.string()


def _compared_type(*, numbers: bool) -> Any:
    """The type of a column that no contract knows, only a condition."""
    import pyarrow as pa

    return pa.float64() if numbers else pa.string()


def _nulls(contract: Contract) -> list[str]:
    """Return what is read as missing: the usual words and the contract's markers, if they are nobody's category."""
    categories = {category for column in contract.columns for category in column.categories}
    markers = {m for column in contract.columns for m in column.missing if not _is_number(m)}
    return [word for word in (*_NULLS, *sorted(markers)) if word not in categories]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _stream(filesystem: Any, path: str) -> Any:
    """Open a file and take off its compression. Its end is checked: a gz that was cut off is an error."""
    import pyarrow as pa

    compression = next((c for suffix, c in _COMPRESSIONS.items() if path.lower().endswith(suffix)), None)
    raw = filesystem.open(path, "rb")
    if compression == "gzip":
        # Arrow takes a cut-off gz for a finished one; Python's reader does not.
        import gzip

        return pa.PythonFile(gzip.GzipFile(fileobj=raw), mode="r")
    return pa.CompressedInputStream(raw, compression) if compression else raw


def _first_lines(filesystem: Any, path: str, csv: Csv, count: int, *, where: str) -> list[str]:
    try:
        with _stream(filesystem, path) as stream:
            start = stream.read(1 << 20)
    except (OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise UserError(f"{where} ends too early or is damaged: {error}. Write or copy it again.") from error
    text = bytes(start).decode(csv.encoding, errors="replace").lstrip("\ufeff")
    return [line for line in text.splitlines() if line.strip()][:count]


def _split(line: str, delimiter: str) -> list[str]:
    import csv as standard_csv

    return [cell.strip() for cell in next(standard_csv.reader([line], delimiter=delimiter))]


def _delimiter(line: str) -> str | None:
    found = max(";\t|,", key=line.count)
    return found if line.count(found) else None


def _width(first: list[str], names: list[str], csv: Csv, line: str, where: str) -> None:
    if len(first) == len(names):
        return
    better = _delimiter(line)
    if better and better != csv.delimiter and len(_split(line, better)) == len(names):
        raise UserError(f'{where}: values are separated by "{better}". Set data.csv.delimiter: "{better}".')
    raise UserError(
        f"{where} has {len(first)} columns and no header, the contract has {len(names)}. "
        "List all columns of the file in the contract (lepton.role: unused for those not needed), "
        "or set data.csv.header."
    )


def _known_encoding(csv: Csv, where: str) -> None:
    try:
        codecs.lookup(csv.encoding)
    except LookupError:
        raise UserError(f"{where}: data.csv.encoding {csv.encoding} is not known. Write utf-8 or latin-1.") from None


def _explain(error: BaseException, csv: Csv) -> str:
    text = str(error).splitlines()[0]
    if "UTF8" in text or "UTF-8" in text or "invalid UTF" in text:
        return f"it is not {csv.encoding} throughout. {_ENCODING_HINT}"
    if "Expected" in text and "columns" in text:
        row = text.partition(": ")[2].rstrip(".") if "Row" in text else text
        return f'{row[:200]}. Check data.csv.delimiter ("{csv.delimiter}") and the quotes there.'
    return f"{text.rstrip('.')[:300]}. Check data.csv."
