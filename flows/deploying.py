"""Deployments: a pipeline registered at a Prefect server, to run on its schedule or from the UI's form."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectAlreadyExists
from prefect.types.entrypoint import EntrypointType

from flows.federated_retrain import federated_retrain
from flows.promote import promote, rollback
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.spec.schedule import Schedule

POOL = "lepton"
TAG = "lepton"


def deploy(pipeline: Pipeline, *, var: Path, pool: str = POOL) -> UUID:
    """Register a pipeline's retraining at the Prefect server that is configured; a second time updates it.

    The spec's values become the run form's defaults. At most one run of a pipeline goes on at a time: one that is
    due while the last is still going is cancelled by Prefect, not queued. Returns the deployment's id.
    """
    make_pool(pool)
    deployment: Any = federated_retrain.to_deployment(
        name=pipeline.name,
        description=f"Trains {pipeline.model_name} over {', '.join(pipeline.members)} and registers it.",
        parameters={
            "pipeline": pipeline.model_dump(mode="json", exclude_unset=True, by_alias=True),
            "var": str(var.absolute()),
        },
        schedules=[] if pipeline.schedule is None else [schedule_of(pipeline.schedule)],
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        tags=[TAG, pipeline.name],
        work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made: UUID = deployment.apply()
    for companion in _companions(pipeline, var, pool):
        companion.apply()
    return made


def _companions(pipeline: Pipeline, var: Path, pool: str) -> list[Any]:
    """Return the deployments that go with a pipeline: a form that asks a person, and a button that goes back."""
    if not isinstance(pipeline.organisations, dict):
        return []
    where = {
        "model": pipeline.model_name,
        "organisation": str(Path(pipeline.organisations[pipeline.publisher]).absolute()),
        "var": str(var.absolute()),
    }
    settings: dict[str, Any] = {
        "name": pipeline.name,
        "parameters": where,
        "tags": [TAG, pipeline.name],
        "work_pool_name": pool,
        "entrypoint_type": EntrypointType.MODULE_PATH,
    }
    return [
        promote.to_deployment(
            description=f"Asks a person whether a version of {pipeline.model_name} becomes champion.", **settings
        ),
        rollback.to_deployment(
            description=f"Makes the previous champion of {pipeline.model_name} champion again: press Run.", **settings
        ),
    ]


def make_pool(name: str) -> None:
    """Make a work pool of processes, unless there is a pool of this name."""
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", description="Lepton's flows"))
        except ObjectAlreadyExists:
            return


def schedule_of(schedule: Schedule) -> CronSchedule | IntervalSchedule:
    """Translate a spec's schedule into Prefect's."""
    if schedule.cron is not None:
        return CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    return IntervalSchedule(interval=schedule.interval or timedelta(days=1), timezone=schedule.timezone)
