"""Scoring in batches, as tasks. Both can be done twice: what is scored is not scored again."""

from uuid import UUID

from distributed import Client
from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from lepton_pipelines.organisation import progress, scoring
from lepton_pipelines.organisation.scoring import Batch
from lepton_pipelines.registry.scoring import Scored
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.organisation import Organisation
from tasks.artifacts import key
from tasks.promotion import PATIENT
from tasks.retrying import worth_retrying

LINES = 200
"""Most files that the page's table names; all are counted."""


@task(name="find model", task_run_name="find model", **PATIENT)
def find_model(
    tracking: Tracking, model: str, version: str | None, organisation: Organisation, source: str, target: str
) -> Batch:
    """Find the model, the contract that it was trained with, and the files."""
    batch = scoring.open_batch(tracking, model, version, organisation, source, target)
    get_run_logger().info("%s v%s scores %d files", batch.model.name, batch.model.version, len(batch.files))
    return batch


@task(
    name="score",
    task_run_name="score",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def score(batch: Batch, client: Client) -> Scored:
    """Score the files on the organisation's Dask workers; the progress artifact follows."""
    name = batch.organisation.organisation
    shown: UUID = create_progress_artifact(  # type: ignore[assignment]
        progress=0.0, key=key(name, batch.model.name, "scoring"), description=f"{name}: no file scored yet"
    )

    def tell(files: int, of: int, rows: int) -> None:
        update_progress_artifact(
            artifact_id=shown, progress=100.0 * files / of, description=f"{name}: {files} of {of} files, {rows} rows"
        )
        progress.tell(batch.target, progress.FilesScored(name, files, of, rows))

    return scoring.score_on_cluster(batch, client, tell)


@task(name="show scores", task_run_name="show scores", cache_policy=NO_CACHE, persist_result=False)
def show_scores(batch: Batch, scored: Scored) -> None:
    """Show on the run's page what was scored, by which model."""
    before = sum(one.kept for one in scored.files)
    told = f"{scored.rows} rows in {len(scored.files)} files by {scored.model} v{scored.version}"
    table = [
        {"file": one.address, "rows": one.rows, "scored": "before" if one.kept else "now"}
        for one in scored.files[:LINES]
    ]
    more = f"; the first {LINES} are named" if len(scored.files) > LINES else ""
    create_table_artifact(
        table=table,
        key=key(batch.organisation.organisation, scored.model, "scored"),
        description=f"{told}, SHA-256 `{scored.digest}`; {before} files were scored before{more}",
    )
    get_run_logger().info("%s; %d files were scored before", told, before)
