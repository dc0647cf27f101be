"""Deployments: a pipeline registered at a Prefect server, to run on its schedule or from the UI's form.

Those of pipelines at a hub stand in `deploying_at_hub`.
"""

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

from flows.automations import install_automations
from flows.federated_retrain import federated_retrain
from flows.pool_jobs import pool_jobs
from flows.promote import promote, rollback
from flows.score_batch import score_batch
from flows.watch_drift import watch_drift
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.spec.schedule import Schedule

POOL = "lepton"
TAG = "lepton"
WATCH = "0 5 * * *"
HEARTBEATS = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}}
"""What a run's process is told: to show every half minute that it lives."""
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


def deploy(pipeline: Pipeline, *, var: Path, pool: str = POOL, watch: str | None = WATCH) -> UUID:
    """Register a pipeline's retraining at the Prefect server that is configured; a second time updates it.

    The spec's values become the run form's defaults. At most one run of a pipeline goes on at a time: one that is
    due while the last is still going is cancelled by Prefect, not queued; so of those that piled up while no worker was
    there, one runs. watch: cron line of the watch for drift, in the schedule's time zone; None: only by hand.
    Returns the deployment's id.
    """
    make_pool(pool)
    deployment: Any = federated_retrain.to_deployment(
        name=pipeline.name,
        description=f"Trains {pipeline.model_name} over {', '.join(pipeline.members)} and registers it.",
        parameters={
            "pipeline": told(pipeline),
            "var": str(var.absolute()),
        },
        schedules=schedules_of(pipeline),
        concurrency_limit=ONE_AT_A_TIME,
        tags=[TAG, pipeline.name],
        work_pool_name=pool,
        job_variables=HEARTBEATS,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made: UUID = deployment.apply()
    for companion in _companions(pipeline, var, pool, watch):
        companion.apply()
    install_automations(pipeline, made)
    return made


def _companions(pipeline: Pipeline, var: Path, pool: str, watch: str | None) -> list[Any]:
    """Return what goes with a pipeline: a form that asks a person, a button that goes back, scoring, a watch."""
    if not isinstance(pipeline.organisations, dict):
        return []
    where = {
        "model": pipeline.model_name,
        "organisation": str(Path(pipeline.organisations[pipeline.publisher]).absolute()),
        "var": str(var.absolute()),
    }
    settings: dict[str, Any] = {
        "name": pipeline.name,
        "tags": [TAG, pipeline.name],
        "work_pool_name": pool,
        "job_variables": HEARTBEATS,
        "entrypoint_type": EntrypointType.MODULE_PATH,
    }
    return [
        *decisions(pipeline, where, settings),
        score_batch.to_deployment(
            description=f"Scores files with {pipeline.model_name}: say in the form which, and where to.",
            parameters=where,
            **settings,
        ),
        watch_drift.to_deployment(
            description=f"Compares the rows with what the champion of {pipeline.model_name} was trained on.",
            parameters={"pipeline": told(pipeline), "var": str(var.absolute())},
            schedules=watch_schedules(pipeline, watch),
            concurrency_limit=ONE_AT_A_TIME,
            **settings,
        ),
    ]


def decisions(pipeline: Pipeline, where: dict[str, Any], settings: dict[str, Any]) -> list[Any]:
    """Return the deployments by which a person decides: a form that asks, a button that goes back.

    where: the flows' parameters. settings: of all deployments of a pipeline.
    """
    return [
        promote.to_deployment(
            description=f"Asks a person whether a version of {pipeline.model_name} becomes champion.",
            parameters=where,
            **settings,
        ),
        rollback.to_deployment(
            description=f"Makes the previous champion of {pipeline.model_name} champion again: press Run.",
            parameters=where,
            **settings,
        ),
    ]


def deploy_pool_jobs(
    name: str, offer: str, file: Path, *, home: Path | None, var: Path, pool: str, every: timedelta
) -> str:
    """Register, at the owner's own Prefect server, what does the jobs of an offer in one of the owner's work pools.

    name, offer: the owner's, and its offer's. file: of the offer. every: how often jobs are looked for, one run at a
    time.
    Returns the deployment's name.
    """
    make_pool(pool)
    deployment: Any = pool_jobs.to_deployment(
        name=f"{name}-{offer}",
        description=f"Does what is asked of {name}'s offer {offer} under reservations.",
        parameters={
            "name": name,
            "offer": str(file.absolute()),
            "home": None if home is None else str(home.absolute()),
            "var": str(var.absolute()),
        },
        schedules=[IntervalSchedule(interval=every)],
        concurrency_limit=ONE_AT_A_TIME,
        tags=[TAG, "pool"],
        work_pool_name=pool,
        job_variables=HEARTBEATS,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    deployment.apply()
    return f"{pool_jobs.name}/{name}-{offer}"


def told(pipeline: Pipeline) -> dict[str, Any]:
    """Return a pipeline as a deployment's parameter, which becomes the run form's defaults."""
    return pipeline.model_dump(mode="json", exclude_unset=True, by_alias=True)


def make_pool(name: str) -> None:
    """Make a work pool of processes, unless there is a pool of this name."""
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", description="Lepton's flows"))
        except ObjectAlreadyExists:
            return


def schedules_of(pipeline: Pipeline) -> list[CronSchedule | IntervalSchedule]:
    """Return when a pipeline trains; nothing if only by hand."""
    return [] if pipeline.schedule is None else [schedule_of(pipeline.schedule)]


def watch_schedules(pipeline: Pipeline, watch: str | None) -> list[CronSchedule]:
    """Return when its rows are watched, in the time zone of its schedule. watch: cron line; None: only by hand."""
    zone = "UTC" if pipeline.schedule is None else pipeline.schedule.timezone
    return [] if watch is None else [CronSchedule(cron=watch, timezone=zone)]


def schedule_of(schedule: Schedule) -> CronSchedule | IntervalSchedule:
    """Translate a spec's schedule into Prefect's."""
    if schedule.cron is not None:
        return CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    return IntervalSchedule(interval=schedule.interval or timedelta(days=1), timezone=schedule.timezone)
