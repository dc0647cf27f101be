"""The steps of one organisation's part, named as in the UI. What they do stands in `lepton_pipelines.organisation`.

Only reading from storage is tried again: what follows works on rows that are there, and is in step with the other
organisations. A part that failed is started again as a whole, and goes on at its last tree.
"""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from lepton_pipelines.organisation.reports import (
    BinReport,
    CompareReport,
    EvaluateReport,
    IngestReport,
    TrainReport,
    ValidateReport,
)
from lepton_pipelines.organisation.run import OrganisationRun
from tasks.artifacts import ReadingProgress, TrainingProgress
from tasks.retrying import worth_retrying


@task(
    name="ingest",
    task_run_name="ingest",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def ingest(part: OrganisationRun) -> IngestReport:
    """Read the organisation's rows onto its Dask workers; the progress artifact follows about every second."""
    with ReadingProgress(part.pipeline.name, part.folder.run_id, part.name):
        return part.ingest()


@task(name="validate", task_run_name="validate", cache_policy=NO_CACHE, persist_result=False)
def validate(part: OrganisationRun) -> ValidateReport:
    """Check the rows against the contract; wait until every organisation has accepted its own."""
    return part.validate()


@task(name="bin", task_run_name="bin", cache_policy=NO_CACHE, persist_result=False)
def bin_rows(part: OrganisationRun) -> BinReport:
    """Agree on the edges of the bins through secure sums."""
    return part.bin()


@task(name="train", task_run_name="train", cache_policy=NO_CACHE, persist_result=False)
def train(part: OrganisationRun) -> TrainReport:
    """Grow the trees together; the progress artifact follows about every second."""
    with TrainingProgress(part.pipeline.name, part.folder.run_id, part.name):
        return part.train()


@task(name="compare", task_run_name="compare", cache_policy=NO_CACHE, persist_result=False)
def compare(part: OrganisationRun) -> CompareReport | None:
    """Train the models that a demo compares the federation with."""
    return part.compare()


@task(name="evaluate", task_run_name="evaluate", cache_policy=NO_CACHE, persist_result=False)
def evaluate(part: OrganisationRun) -> EvaluateReport:
    """Score the held-out rows of all organisations."""
    return part.evaluate()
