"""Scoring in batches: parquet in, scored parquet out, wherever fsspec reaches, on one's own machines.

Every file of the input becomes one file of the output, with its name; rows keep their order and their columns and
get the prediction, the version and the digest of the model that made it. Files are read and written in pieces, so
memory does not grow with them. A file appears under its name only when it is complete.
"""

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_pipelines.registry.champion import RegisteredModel
from lepton_pipelines.registry.signature import ColumnKind, InputColumn, input_example
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PREDICTION, MODEL, VERSION, DIGEST = "prediction", "model", "model_version", "model_digest"
ROWS_A_PIECE = 65_536

StorageOptions = Mapping[str, Any]


@dataclass(frozen=True)
class ScoredFile:
    """A file that was written. address: where. rows: how many. kept: it had been written before, of the same rows."""

    address: str
    rows: int
    kept: bool = False


@dataclass(frozen=True)
class Scored:
    """A batch that was scored. model, version, digest: of the model that made every prediction in it."""

    model: str
    version: str
    digest: str
    files: tuple[ScoredFile, ...]

    @property
    def rows(self) -> int:
        """Rows over all files."""
        return sum(one.rows for one in self.files)


def list_parquet(address: str, options: StorageOptions | None = None) -> list[str]:
    """List the parquet files of an address: itself, or what a folder holds, sorted by name.

    Raises UserError if there is nothing.
    """
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(address, **(options or {}))
        found = [path] if files.isfile(path) else files.glob(posixpath.join(path, "**", "*.parquet"))
        return sorted(files.unstrip_protocol(one) for one in found) or _nothing(address)
    except (OSError, ValueError, ImportError) as problem:
        raise UserError(f"{address} cannot be listed: {problem}. Check the address and the rights to it.") from problem


def _nothing(address: str) -> list[str]:
    raise UserError(f"{address} holds no parquet file. Name a file that ends in .parquet, or a folder with some.")


def output_address(source: str, file: str, target: str) -> str:
    """Give the address of a scored file: its place below the source's folder, below the target's."""
    base = source.rstrip("/").partition("://")[2] or source.rstrip("/")
    own = file.partition("://")[2]
    inside = own.partition(base.lstrip("/"))[2].lstrip("/") or posixpath.basename(own)
    return posixpath.join(target, inside)


def score_batch(
    model: RegisteredModel,
    columns: Sequence[InputColumn],
    source: str,
    target: str,
    *,
    options: StorageOptions | None = None,
    apply: Callable[[Callable[[str], ScoredFile], list[str]], Iterable[ScoredFile]] = map,
) -> Scored:
    """Score every parquet file of an address.

    columns: the model's raw input columns, from `registered_columns`. source: a file or a folder. target: a
    folder. options: fsspec's storage options, for both. apply: how files are spread, `map` here; a Dask client's
    gathered map on a cluster. Raises UserError if a column is missing or of another kind, before it writes a
    file's rows.
    """
    from functools import partial

    check_algorithm(model)
    files = list_parquet(source, options)
    one = partial(score_file, model, columns, source=source, target=target, options=options)
    return Scored(model.name, model.version, model.digest, tuple(apply(one, files)))


def check_algorithm(model: RegisteredModel) -> None:
    """Refuse a model that is not XGBoost's. Raises UserError that says how it can be asked."""
    if model.algorithm != "xgboost":
        raise UserError(
            f"{model.name} v{model.version} was trained by {model.algorithm}; scoring in batches takes xgboost models. "
            f"Serve it with: mlflow models serve -m models:/{model.name}/{model.version}"
        )


def score_file(
    model: RegisteredModel,
    columns: Sequence[InputColumn],
    file: str,
    *,
    source: str,
    target: str,
    options: StorageOptions | None = None,
) -> ScoredFile:
    """Score one parquet file; what `score_batch` does for each, in whatever process."""
    import pyarrow.parquet as pq
    from fsspec.core import url_to_fs

    from lepton_pipelines.registry.model_version import booster_of

    files, path = url_to_fs(file, **(options or {}))
    address = output_address(source, file, target)
    with files.open(path, "rb") as stored:
        parquet = pq.ParquetFile(stored)
        check_columns(file, parquet.schema_arrow, columns)
        names = [column.name for column in columns]
        pieces = ((table, table.select(names).to_pandas()) for table in _pieces(parquet))
        rows = write_scored(pieces, booster_of(model.model), columns, model, address, options)
    return ScoredFile(address, rows)


def write_scored(
    pieces: "Iterable[tuple[pa.Table, pd.DataFrame]]",
    booster: Any,
    columns: Sequence[InputColumn],
    model: RegisteredModel,
    address: str,
    options: StorageOptions | None = None,
    note: Mapping[str, str] | None = None,
) -> int:
    """Score rows piece by piece into one parquet file, which is there only when it is complete; return how many.

    pieces: rows as they are kept, and the model's columns of the same rows, at least one piece. note: is kept among
    the file's metadata.
    """
    import pyarrow.parquet as pq

    from lepton_pipelines.registry.model_version import categories_of

    categories = categories_of(columns)
    kept = {name.encode(): text.encode() for name, text in (note or {}).items()}
    rows = 0
    with _complete(address, options) as out, ExitStack() as closing:
        writer = None
        for table, features in pieces:
            scored = add_scores(table, features, booster, columns, categories, model)
            scored = scored.replace_schema_metadata({**(scored.schema.metadata or {}), **kept})
            if writer is None:
                writer = closing.enter_context(pq.ParquetWriter(out, scored.schema))
            writer.write_table(scored)
            rows += scored.num_rows
    return rows


def _pieces(parquet: Any) -> "Iterator[pa.Table]":
    """Read a file piece by piece; one without rows gives one piece without rows."""
    import pyarrow as pa

    if parquet.metadata.num_rows == 0:
        yield parquet.schema_arrow.empty_table()
    for batch in parquet.iter_batches(ROWS_A_PIECE):
        yield pa.table(batch)


def check_columns(file: str, schema: "pa.Schema", columns: Sequence[InputColumn]) -> None:
    """Refuse a file without the model's columns, or with another kind of values in them.

    Raises UserError that lists every problem with the file's name.
    """
    import pyarrow.types as kinds

    problems = []
    for column in columns:
        if column.name not in schema.names:
            problems.append(f'{file}: column "{column.name}" is missing, the model needs it')
            continue
        kind = schema.field(column.name).type
        number = kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_null(kind)
        if column.kind != "category" and not number:
            problems.append(f'{file}: column "{column.name}" holds {kind}, the model takes numbers')
    problems += written_over(file, schema)
    if problems:
        raise UserError(problems)


def written_over(file: str, schema: "pa.Schema") -> list[str]:
    """Say which columns of a file have names that its scored copy needs."""
    return [
        f'{file}: column "{name}" would be written over. Rename it.'
        for name in (PREDICTION, MODEL, VERSION, DIGEST)
        if name in schema.names
    ]


def add_scores(
    table: "pa.Table",
    rows: "pd.DataFrame",
    booster: Any,
    columns: Sequence[InputColumn],
    categories: Mapping[str, Sequence[str]],
    model: RegisteredModel,
) -> "pa.Table":
    """Add prediction, version and digest to some rows. rows: the model's columns of them."""
    import pyarrow as pa

    from lepton_pipelines.registry.model_version import score

    # XGBoost warns of a matrix without rows; a made-up row tells how many outputs there are.
    some = rows if len(rows) else input_example(columns)
    for name in categories:
        some[name] = _texts(some[name])
    try:
        predicted = score(booster, some, categories)[: len(rows)]
    except Exception as problem:
        if type(problem).__name__ != "MlflowException":
            raise
        raise UserError(f"{problem}. Add it to the contract and train again, or mend the rows.") from problem
    by_class = {PREDICTION: predicted} if predicted.ndim == 1 else _classes(predicted)
    for name, values in by_class.items():
        table = table.append_column(name, pa.array(values, pa.float32()))
    told = {MODEL: model.name, VERSION: model.version, DIGEST: f"sha256:{model.digest}"}
    for name, text in told.items():
        codes = pa.array(np.zeros(len(rows), dtype=np.int8))
        table = table.append_column(name, pa.DictionaryArray.from_arrays(codes, pa.array([text])))
    return table


def _classes(predicted: "np.ndarray[Any, Any]") -> dict[str, "np.ndarray[Any, Any]"]:
    return {f"{PREDICTION}_{place}": predicted[:, place] for place in range(predicted.shape[1])}


def _texts(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Spell categories as the contract does: 3, 3.0 and "3" are the same one."""
    from lepton_pipelines.spec.contract import category_text

    return values.astype("object").map(category_text, na_action="ignore")


@contextmanager
def _complete(address: str, options: StorageOptions | None) -> Iterator[Any]:
    """Open a file for writing that appears under its name only if the block ends well."""
    from fsspec.core import url_to_fs

    # A transaction belongs to a file system object: this one is nobody else's.
    files, path = url_to_fs(address, **(options or {}), skip_instance_cache=True)
    try:
        if "s3" not in files.protocol:  # a store of objects has no folders, and a bucket is its owner's to make
            files.makedirs(posixpath.dirname(path), exist_ok=True)
        with files.transaction, files.open(path, "wb") as out:
            yield out
    except PermissionError as problem:
        raise UserError(f"{address} cannot be written: {problem}. Check the rights to it.") from problem


def registered_columns(tracking: Tracking, name: str, version: str) -> list[InputColumn]:
    """Read a version's raw input columns from its signature and its categories."""
    import json
    import tempfile
    from pathlib import Path

    from mlflow.artifacts import download_artifacts
    from mlflow.models import get_model_info

    address = f"models:/{name}/{version}"
    with tracking.as_current():
        info = get_model_info(address)
        categories: dict[str, list[str]] = {}
        if info.flavors["python_function"]["loader_module"] != "mlflow.xgboost":
            with tempfile.TemporaryDirectory(prefix="lepton-") as folder:
                stored = download_artifacts(artifact_uri=f"{address}/categories.json", dst_path=folder)
                categories = json.loads(Path(stored).read_text())
    kinds: dict[str, ColumnKind] = {"string": "category", "long": "integer", "boolean": "boolean"}
    return [
        InputColumn(
            column.name,
            kinds.get(column.type.name, "number"),
            missing=column.type.name in ("double", "string"),
            categories=tuple(categories.get(column.name, ())),
        )
        for column in info.signature.inputs
    ]
