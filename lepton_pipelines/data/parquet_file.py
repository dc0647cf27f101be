"""Parquet files of any writer: their columns, row groups and rows."""

from typing import TYPE_CHECKING, Any

from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.errors import UserError

from .row_filter import RowFilter

if TYPE_CHECKING:
    import pandas as pd


def parquet_columns(filesystem: Any, path: str, *, where: str) -> list[str]:
    """Return the names of a file's columns. Raises UserError if it is no parquet file."""
    return list(_open(filesystem, path, where=where).schema_arrow.names)


def row_group_sizes(filesystem: Any, path: str) -> list[int]:
    """Return how many rows each row group holds."""
    metadata = _open(filesystem, path, where=path).metadata
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def row_groups_with(filesystem: Any, path: str, conditions: RowFilter, *, where: str) -> list[int]:
    """Return the row groups that may hold rows which meet the conditions, by the statistics in the file's footer.

    Raises UserError if a column cannot be compared with what its condition names.
    """
    import pyarrow.dataset as ds

    schema = _open(filesystem, path, where=where).schema_arrow
    met = conditions.expression(schema, where=where)
    with filesystem.open(path, "rb") as file:
        fragment = ds.ParquetFileFormat().make_fragment(file)
        return [group.id for group in fragment.subset(met, schema=schema).row_groups]


def check_units(filesystem: Any, path: str, contract: Contract, renamed: dict[str, str], *, where: str) -> None:
    """Compare the units that a file states in its columns' metadata (`unit`) with the contract's.

    Raises UserError if one differs: numbers in another unit would train without an error and predict wrongly.
    """
    schema = _open(filesystem, path, where=where).schema_arrow
    problems = []
    for column in contract.columns:
        there = renamed.get(column.name, column.name)
        if column.unit is None or there not in schema.names:
            continue
        stated = (schema.field(there).metadata or {}).get(b"unit")
        if stated is not None and stated.decode() != column.unit:
            problems.append(
                f'{where}: column "{there}" is in {stated.decode()}, the contract wants {column.unit}. '
                "Convert it, or correct the unit."
            )
    if problems:
        raise UserError(problems)


def read_row_groups(
    filesystem: Any,
    path: str,
    groups: tuple[int, ...],
    columns: list[str],
    *,
    where: str,
    conditions: RowFilter | None = None,
) -> "pd.DataFrame":
    """Read some columns of some row groups, of the rows that meet the conditions.

    Returns a frame, indexed by the rows' numbers in the file, from 0.
    Raises UserError if the file cannot be read to its end or a column holds what no table of numbers can.
    """
    import pandas as pd
    import pyarrow as pa

    file = _open(filesystem, path, where=where)
    for name in columns:
        kind = file.schema_arrow.field(name).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind):
            raise UserError(f'{where}: column "{name}" is {kind}, which cannot be trained on. Flatten it first.')
    looked_at = dict.fromkeys([*columns, *(conditions.conditions if conditions else ())])
    try:
        table = file.read_row_groups(list(groups), columns=list(looked_at))
    except (pa.ArrowException, OSError, EOFError) as error:
        raise UserError(f"{where} cannot be read to its end: {_short(error)}. Write it again.") from error
    numbers = _row_numbers(file.metadata, groups)
    if conditions:
        met = conditions.places(table, where=where)
        table, numbers = table.take(met), numbers[met]
    frame: pd.DataFrame = table.select(columns).to_pandas(date_as_object=False, ignore_metadata=True)
    frame.index = numbers
    return frame


def _row_numbers(metadata: Any, groups: tuple[int, ...]) -> "pd.Index[Any]":
    """Return the numbers in the file of some row groups' rows."""
    import numpy as np
    import pandas as pd

    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    ends = np.cumsum(sizes).tolist()
    numbers: pd.Index[Any] = pd.Index(np.concatenate([np.arange(ends[i] - sizes[i], ends[i]) for i in groups]))
    return numbers


def _open(filesystem: Any, path: str, *, where: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(filesystem.open(path, "rb"), pre_buffer=True)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{where} is not a parquet file: {_short(error)}. Write it again, or set data.format."
        ) from error


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
