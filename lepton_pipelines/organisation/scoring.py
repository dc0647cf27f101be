"""Scoring an organisation's files in batches with a registered model, on its own Dask cluster.

Rows are read as training read them: by the contract that the model was trained with, which lies beside it, with the
organisation's own names of columns, markers of missing values and derived columns. A model that came without its
contract (one pulled from the market) takes its columns as its signature names them. What is done is not done again:
each scored file says of which version of which file it was made, and by which model.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lepton_pipelines.data.derived import Windows, derive, features_of, read_windows
from lepton_pipelines.data.sources import File, Source, list_files, open_source
from lepton_pipelines.data.storage import open_filesystem, plain_errors, storage_options
from lepton_pipelines.data.validation import read
from lepton_pipelines.organisation.outcome import SPEC_FILE, input_column
from lepton_pipelines.registry.champion import RegisteredModel, load_champion, load_version
from lepton_pipelines.registry.run_files import read_run_file
from lepton_pipelines.registry.scoring import (
    ROWS_A_PIECE,
    Scored,
    ScoredFile,
    check_algorithm,
    check_columns,
    registered_columns,
    write_scored,
    written_over,
)
from lepton_pipelines.registry.signature import InputColumn
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation, Storage
from lepton_pipelines.spec.pipeline import parse_pipeline

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from distributed import Client

NOTE = "lepton.scored"
GROUPS_A_THREAD = 4
Told = Callable[[int, int, int], None]
"""Is told after some files: how many are done, of how many, and rows so far."""


class Batch:
    """What is scored, with what, and where to. Small and picklable: workers get it.

    columns: the model's inputs. contract: that it was trained with, None if it came without. organisation: whose rows
    they are; its `data.url` is the batch's source. target: a folder. files: of the source, as they were found.
    """

    # No dataclass: Prefect takes those apart when a task is given one, and cannot with a contract, which has `keys`.
    def __init__(
        self,
        model: RegisteredModel,
        columns: Sequence[InputColumn],
        contract: Contract | None,
        organisation: Organisation,
        target: str,
    ) -> None:
        self.model, self.columns, self.contract = model, tuple(columns), contract
        self.organisation, self.target = organisation, target
        self.files = _files(organisation)

    def address(self, file: File) -> str:
        """Return where a file's scored rows go: its place below the source, below the target."""
        url = self.organisation.data.url
        _, path = open_filesystem(url, self.organisation.data.storage)
        if any(mark in path for mark in "*?["):
            base = path.split("*", maxsplit=1)[0].rpartition("/")[0]
        else:
            base = path if file.path != path else path.rpartition("/")[0]
        return f"{self.target.rstrip('/')}/{file.path.removeprefix(base.rstrip('/')).lstrip('/')}"

    def note(self, file: File) -> dict[str, str]:
        """Return what a scored file says of how it was made: what would be scored otherwise is told apart by it.

        Windows look into other files: then all files' versions count.
        """
        looked_at = self.files if self.contract is not None and self.contract.windowed else (file,)
        versions = json.dumps([[one.path, one.version] for one in looked_at])
        told = {"model": self.model.digest, "source": hashlib.sha256(versions.encode()).hexdigest()}
        return {NOTE: json.dumps(told, sort_keys=True)}


def open_batch(
    tracking: Tracking, model: str, version: str | None, organisation: Organisation, source: str, target: str
) -> Batch:
    """Find the model, its contract and the files of a batch.

    version: None takes the champion. source: a parquet file, a folder or a pattern; target: a folder; both paths or
    fsspec URLs, with the storage settings of the organisation's own file. Raises UserError for a model that is not
    there or not XGBoost's, and for a source without parquet files or with the target inside.
    """
    found = load_champion(tracking, model) if version is None else load_version(tracking, model, version)
    if found is None:
        raise UserError(f"{model} has no champion to score with. Name a version with --version, or promote one.")
    check_algorithm(found)
    contract = _contract(tracking, model, found.version)
    columns = (
        registered_columns(tracking, model, found.version)
        if contract is None
        else [input_column(column) for column in contract.features]
    )
    # Every row of a batch is scored: what the organisation's own file filters is for training.
    other: dict[str, Any] = {"url": source, "format": None, "filter": {}, "sql": None, "cache": None}
    data = organisation.data.model_copy(update=other)
    own = organisation.model_copy(update={"data": data})
    _outside(own, target)
    return Batch(found, columns, contract, own, target)


def _contract(tracking: Tracking, model: str, version: str) -> Contract | None:
    spec = read_run_file(tracking, model, version, SPEC_FILE)
    if spec is None:
        return None
    return parse_pipeline(json.loads(spec), name=f"the spec of {model} v{version}").read_contract()


def _files(own: Organisation) -> tuple[File, ...]:
    """List the parquet files of a source. Raises UserError if there are none, or files of another kind."""
    name, data = own.organisation, own.data
    with plain_errors(name, data.url, data.storage):
        filesystem, path = open_filesystem(data.url, data.storage)
        files = tuple(list_files(name, data, filesystem, path))
    if other := [one.path for one in files if one.format != "parquet"]:
        raise UserError(f"{name}: {other[0]} is no parquet file, and batches are parquet. Write it as parquet.")
    return files


def _outside(own: Organisation, target: str) -> None:
    """Refuse a target within the source: the next batch would score what this one has written."""
    data = own.data
    filesystem, source = open_filesystem(data.url, data.storage)
    other, place = open_filesystem(target, data.storage if "://" in target else Storage())
    inside = f"{place.rstrip('/')}/".startswith(f"{source.rstrip('/')}/")
    if type(filesystem) is type(other) and inside:
        raise UserError(f"{target} lies inside {data.url}: scored rows would be scored again. Choose another.")


def score_on_cluster(batch: Batch, client: "Client", tell: Told) -> Scored:
    """Score every file of a batch on a Dask cluster; what was scored before is left as it is.

    Raises UserError with a file's own problem; files that are done stay, and are not done again the next time.
    """
    from distributed import as_completed

    done: list[ScoredFile] = []
    with client.as_current():
        here = client.scatter(batch, broadcast=True)  # type: ignore[no-untyped-call]
        groups = _groups(batch, client)
        running = [client.submit(score_files, here, group, pure=False) for group in groups]
        try:
            for ended in as_completed(running):  # type: ignore[no-untyped-call]
                done += ended.result()
                tell(len(done), len(batch.files), sum(one.rows for one in done))
        finally:
            client.cancel(running)  # type: ignore[no-untyped-call]
    done.sort(key=lambda one: one.address)
    return Scored(batch.model.name, batch.model.version, batch.model.digest, tuple(done))


def _groups(batch: Batch, client: "Client") -> list[list[File]]:
    """Put files together for one worker at a time: where windows look into all files, as few groups as use all."""
    threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
    windowed = batch.contract is not None and batch.contract.windowed
    wanted = threads if windowed else GROUPS_A_THREAD * threads
    size = -(-len(batch.files) // max(wanted, 1))
    return [list(batch.files[start : start + size]) for start in range(0, len(batch.files), size)]


def score_files(batch: Batch, files: Sequence[File]) -> list[ScoredFile]:
    """Score some files of a batch; what a worker does. Those that are done already are not done again."""
    organisation = batch.organisation
    todo, done = [], []
    with plain_errors(organisation.organisation, batch.target, organisation.data.storage):
        for file in files:
            before = _done_before(batch, file)
            if before is None:
                todo.append(file)
            else:
                done.append(before)
    if todo:
        done += _by_contract(batch, todo) if batch.contract is not None else [_by_signature(batch, one) for one in todo]
    return done


def _done_before(batch: Batch, file: File) -> ScoredFile | None:
    import pyarrow.parquet as pq
    from fsspec.core import url_to_fs

    address = batch.address(file)
    filesystem, path = url_to_fs(address, **storage_options(address, batch.organisation.data.storage))
    if not filesystem.exists(path):
        return None
    with filesystem.open(path, "rb") as stored:
        try:
            metadata = pq.ParquetFile(stored).metadata
        except (OSError, ValueError):
            return None  # not ours, or not whole: it is written anew
    kept = (metadata.metadata or {}).get(NOTE.encode())
    if kept is None or kept.decode() != batch.note(file)[NOTE]:
        return None
    return ScoredFile(address, metadata.num_rows, kept=True)


def _by_contract(batch: Batch, files: Sequence[File]) -> list[ScoredFile]:
    """Read files as training does, and score them."""
    assert batch.contract is not None  # noqa: S101 - the caller asked
    source = open_source(batch.organisation, batch.contract.to_score(), empty=True)
    paths = {file.path for file in files}
    pieces = [piece for piece in source.pieces() if piece.file.path in paths]
    windows = read_windows(source, pieces) if pieces else {}
    return [_write(batch, file, _pieces_by_contract(source, file, windows)) for file in files]


def _pieces_by_contract(source: Source, file: File, windows: Windows) -> "Iterator[tuple[pa.Table, pd.DataFrame]]":
    with _opened(source.organisation, source.data, file) as parquet:
        contract = source.contract
        if problems := written_over(f"{source.organisation}: {file.path}", parquet.schema_arrow):
            raise UserError(problems)
        pieces = [piece for piece in source.pieces() if piece.file.path == file.path]
        if not pieces:
            yield parquet.schema_arrow.empty_table(), features_of({}, contract)
        for piece in pieces:
            frame = source.read(piece)
            checked = read(frame, contract, numbers=frame.index)
            checked.violations.refuse(contract, organisation=source.organisation, on_violation="refuse")
            values = derive(checked.values, contract, windows.get(piece.index, {}))
            yield parquet.read_row_groups(list(piece.row_groups)), features_of(values, contract)


def _by_signature(batch: Batch, file: File) -> ScoredFile:
    """Take a file's columns as the model's signature names them, and score them."""
    import pyarrow as pa

    def pieces() -> "Iterator[tuple[pa.Table, pd.DataFrame]]":
        names = [column.name for column in batch.columns]
        with _opened(batch.organisation.organisation, batch.organisation.data, file) as parquet:
            check_columns(file.path, parquet.schema_arrow, batch.columns)
            if parquet.metadata.num_rows == 0:
                empty = parquet.schema_arrow.empty_table()
                yield empty, empty.select(names).to_pandas()
            for rows in parquet.iter_batches(ROWS_A_PIECE):
                table = pa.table(rows)
                yield table, table.select(names).to_pandas()

    return _write(batch, file, pieces())


def _write(batch: Batch, file: File, pieces: "Iterator[tuple[pa.Table, pd.DataFrame]]") -> ScoredFile:
    from lepton_pipelines.registry.model_version import booster_of

    address = batch.address(file)
    storage = batch.organisation.data.storage
    with plain_errors(batch.organisation.organisation, address, storage):
        rows = write_scored(
            pieces,
            booster_of(batch.model.model),
            batch.columns,
            batch.model,
            address,
            storage_options(address, storage),
            batch.note(file),
        )
    return ScoredFile(address, rows)


def _opened(organisation: str, data: Any, file: File) -> Any:
    """Open a parquet file; its errors name the organisation."""
    import pyarrow.parquet as pq

    with plain_errors(organisation, data.url, data.storage):
        filesystem, _ = open_filesystem(data.url, data.storage)
        return pq.ParquetFile(filesystem.open(file.path, "rb"), pre_buffer=True)
