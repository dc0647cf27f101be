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

from flows.automations import install, install_automations, mark_zombies
from flows.federated_retrain import federated_retrain
from flows.on_pools import part_name, retrain_on_pools
from flows.promote import promote, rollback
from flows.score_batch import score_batch
from flows.watch_drift import watch_drift
from lepton_pipelines.spec.organisation import read_organisation
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
            "pipeline": _told(pipeline),
            "var": str(var.absolute()),
        },
        schedules=[] if pipeline.schedule is None else [schedule_of(pipeline.schedule)],
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


def deploy_part(pipeline: Pipeline, organisation: Path, *, home: Path | None, var: Path, pool: str) -> UUID:
    """Register one organisation's part of a pipeline at a hub, at its own work pool; something else starts it.

    organisation: its own file. home: the folder with its keys; None: as its file says. Returns the deployment's id.
    """
    name = read_organisation(organisation).organisation
    make_pool(pool)
    deployment: Any = federated_retrain.to_deployment(
        name=part_name(pipeline.name, name).partition("/")[2],
        description=f"{name}'s part of {pipeline.name}: started by retrain-on-pools/{pipeline.name}.",
        parameters={
            "pipeline": _told(pipeline),
            "var": str(var.absolute()),
            "organisation": str(organisation.absolute()),
            "home": None if home is None else str(home.absolute()),
        },
        concurrency_limit=ONE_AT_A_TIME,
        tags=[TAG, pipeline.name, name],
        work_pool_name=pool,
        job_variables=HEARTBEATS,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made: UUID = deployment.apply()
    scoring: Any = score_batch.to_deployment(
        name=part_name(pipeline.name, name).partition("/")[2],
        description=f"Scores {name}'s files with a version of {pipeline.model_name} in its MLflow.",
        parameters={
            "model": pipeline.model_name,
            "organisation": str(organisation.absolute()),
            "var": str(var.absolute()),
        },
        tags=[TAG, pipeline.name, name],
        work_pool_name=pool,
        job_variables=HEARTBEATS,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    scoring.apply()
    return made


def deploy_starter(pipeline: Pipeline, *, pool: str) -> UUID:
    """Register what starts the parts of a pipeline at a hub, on its schedule. Returns the deployment's id."""
    make_pool(pool)
    deployment: Any = retrain_on_pools.to_deployment(
        name=pipeline.name,
        description=f"Trains {pipeline.model_name}: starts each part at its pool ({', '.join(pipeline.members)}).",
        parameters={"pipeline": _told(pipeline)},
        schedules=[] if pipeline.schedule is None else [schedule_of(pipeline.schedule)],
        concurrency_limit=ONE_AT_A_TIME,
        tags=[TAG, pipeline.name],
        work_pool_name=pool,
        job_variables=HEARTBEATS,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made: UUID = deployment.apply()
    install(mark_zombies())
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
    zone = "UTC" if pipeline.schedule is None else pipeline.schedule.timezone
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
        score_batch.to_deployment(
            description=f"Scores files with {pipeline.model_name}: say in the form which, and where to.",
            parameters=where,
            **settings,
        ),
        watch_drift.to_deployment(
            description=f"Compares the rows with what the champion of {pipeline.model_name} was trained on.",
            parameters={"pipeline": _told(pipeline), "var": str(var.absolute())},
            schedules=[] if watch is None else [CronSchedule(cron=watch, timezone=zone)],
            concurrency_limit=ONE_AT_A_TIME,
            **settings,
        ),
    ]


def _told(pipeline: Pipeline) -> dict[str, Any]:
    return pipeline.model_dump(mode="json", exclude_unset=True, by_alias=True)


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
