"""Delta tables: which files are a table's rows at one version, as its log says.

Only the log is read with the `deltalake` library, which the extra `delta` installs; the files are parquet and are read
like any others, on the workers. The log is fetched through fsspec, so a table may lie wherever other files may, and is
read with the same credentials.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lepton_pipelines.spec.errors import UserError

LOG = "_delta_log"
INSTALL = 'pip install "lepton-pipelines[delta]"'
# What a table may ask of its readers without changing what a parquet file's rows and columns are.
_HARMLESS = frozenset({"timestampNtz", "vacuumProtocolCheck", "v2Checkpoint"})


@dataclass(frozen=True)
class DeltaTable:
    """A table at one version.

    files: by path below the table's folder, the values of the columns that the table is partitioned by.
    """

    version: int
    files: Mapping[str, tuple[tuple[str, str], ...]]


def is_log(file: str, folder: str) -> bool:
    """Tell whether a file is of the log of a Delta table in this folder."""
    return file.startswith(f"{folder}/{LOG}/")


def open_delta_table(filesystem: Any, path: str, *, where: str, version: int | None) -> DeltaTable:
    """Read a table's log. where: for messages. version: unset for the newest.

    Raises UserError if the library is not installed, there is no such version, or rows of the table are not simply
    those of its files.
    """
    try:
        import deltalake
        from deltalake.exceptions import DeltaError
    except ImportError:
        raise UserError(
            f"{where} is a Delta table: only its log tells which of its files hold rows that count. To have it read, "
            f"{INSTALL}; or write the table's present rows as parquet and name that folder."
        ) from None
    with tempfile.TemporaryDirectory(prefix="lepton-delta-") as copied:
        filesystem.get(f"{path.rstrip('/')}/{LOG}", f"{copied}/{LOG}", recursive=True)
        if not Path(copied, LOG).is_dir():
            raise UserError(f"{where}: the log of the Delta table cannot be read. Give read permission for {LOG}.")
        try:
            table = deltalake.DeltaTable(copied, version=version)
            _check_readable(table, where)
            actions = _rows(table.get_add_actions(flatten=True))
        except DeltaError as error:
            asked = "" if version is None else f" at data.delta_version {version}"
            raise UserError(
                f"{where} cannot be read as a Delta table{asked}: {str(error).splitlines()[0].rstrip('.')}. Name a "
                "version that its log still holds, or none for the newest."
            ) from error
        partitions = list(table.metadata().partition_columns)
        return DeltaTable(
            int(table.version()),
            {
                # The log holds paths as URIs.
                unquote(action["path"]): tuple((name, _text(action[f"partition.{name}"])) for name in partitions)
                for action in actions
            },
        )


def _check_readable(table: Any, where: str) -> None:
    """Refuse tables that ask more of a reader than to read their files."""
    asked = {*(table.protocol().reader_features or [])} - _HARMLESS
    if table.metadata().configuration.get("delta.columnMapping.mode", "none") == "none":
        asked -= {"columnMapping"}
    elif table.protocol().min_reader_version >= 2:
        asked |= {"columnMapping"}
    if asked:
        raise UserError(
            f"{where} is a Delta table that needs {', '.join(sorted(asked))}, which is not supported. Write the "
            "table's present rows as parquet and name that folder, or read it with data.sql."
        )


def _rows(actions: Any) -> list[dict[str, Any]]:
    import pyarrow as pa

    rows: list[dict[str, Any]] = pa.table(actions).to_pylist()
    return sorted(rows, key=lambda row: str(row["path"]))


def _text(value: Any) -> str:
    """A partition's value as folders name it; nothing for a missing one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
