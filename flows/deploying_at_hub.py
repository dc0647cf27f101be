"""Deployments of a pipeline at a hub: an organisation's parts, and what starts everybody's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType

from flows.automations import install_automations
from flows.deploying import HEARTBEATS, ONE_AT_A_TIME, TAG, decisions, make_pool, schedules_of, told, watch_schedules
from flows.federated_retrain import federated_retrain
from flows.on_pools import part_name, retrain_on_pools, watch_on_pools
from flows.score_batch import score_batch
from flows.watch_drift import watch_drift
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import Pipeline


@dataclass(frozen=True)
class PartFiles:
    """What one organisation's part needs. organisation: its own file. home: with its keys; None: as the file says.

    A relative folder of keys is looked for where the deployment is made.
    """

    organisation: Path
    home: Path | None
    var: Path

    def parameters(self) -> dict[str, str]:
        """Return them as a flow's parameters."""
        keys = self.home or Path(read_organisation(self.organisation).identity or "organisation")
        return {
            "var": str(self.var.absolute()),
            "organisation": str(self.organisation.absolute()),
            "home": str(keys.absolute()),
        }


def deploy_part(
    pipeline: Pipeline, files: PartFiles, *, pool: str, proposes: bool = False, watch: str | None = None
) -> UUID:
    """Register one organisation's parts of a pipeline at a hub, at its own work pool: of training, and of watching.

    proposes: they begin runs on their schedules, at which the others take part through their own agents; else
    something else starts them. watch: then the watch's cron line. The publisher's also asks a person, and goes back.
    Returns the training's deployment.
    """
    name = read_organisation(files.organisation).organisation
    make_pool(pool)
    where = files.parameters()
    settings: dict[str, Any] = {
        **_settings(pipeline, pool),
        "name": part_name(pipeline.name, name).partition("/")[2],
        "tags": [TAG, pipeline.name, name],
        "parameters": {"pipeline": told(pipeline), **where},
        "concurrency_limit": ONE_AT_A_TIME,
    }
    by = "begins it; the others take part through lepton org serve" if proposes else "is started from elsewhere"
    retrain = _applied(
        federated_retrain,
        settings,
        description=f"{name}'s part of {pipeline.name}: {by}.",
        schedules=schedules_of(pipeline) if proposes else [],
    )
    _applied(
        watch_drift,
        settings,
        description=f"{name}'s part of watching {pipeline.name} for drift: {by}.",
        schedules=watch_schedules(pipeline, watch) if proposes else [],
    )
    scoring: Any = score_batch.to_deployment(
        **_settings(pipeline, pool)
        | {"name": settings["name"], "tags": settings["tags"]}
        | {"parameters": {"model": pipeline.model_name, "organisation": where["organisation"], "var": where["var"]}},
        description=f"Scores {name}'s files with a version of {pipeline.model_name} in its MLflow.",
    )
    scoring.apply()
    if name == pipeline.publisher:
        for deployment in decisions(pipeline, {"model": pipeline.model_name, **where}, _settings(pipeline, pool)):
            deployment.apply()
    if proposes:
        install_automations(pipeline, retrain, watcher=name)
    return retrain


def deploy_starter(pipeline: Pipeline, *, pool: str, watch: str | None = None) -> UUID:
    """Register what starts the parts of a pipeline at a hub, on its schedule, and of its watch, on cron line `watch`.

    Returns the training's deployment.
    """
    make_pool(pool)
    settings: dict[str, Any] = {
        **_settings(pipeline, pool),
        "name": pipeline.name,
        "parameters": {"pipeline": told(pipeline)},
        "concurrency_limit": ONE_AT_A_TIME,
    }
    members = ", ".join(pipeline.members)
    retrain = _applied(
        retrain_on_pools,
        settings,
        description=f"Trains {pipeline.model_name}: starts each part at its pool ({members}).",
        schedules=schedules_of(pipeline),
    )
    _applied(
        watch_on_pools,
        settings,
        description=f"Compares the rows with what the champion of {pipeline.model_name} was trained on ({members}).",
        schedules=watch_schedules(pipeline, watch),
    )
    install_automations(pipeline, retrain)
    return retrain


def has_starter(pipeline: Pipeline) -> bool:
    """Tell whether this Prefect server has what starts the parts at their pools."""
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(f"retrain-on-pools/{pipeline.name}")
        except ObjectNotFound:
            return False
    return True


def _settings(pipeline: Pipeline, pool: str) -> dict[str, Any]:
    return {
        "name": pipeline.name,
        "tags": [TAG, pipeline.name],
        "work_pool_name": pool,
        "job_variables": HEARTBEATS,
        "entrypoint_type": EntrypointType.MODULE_PATH,
    }


def _applied(
    flow: Flow[..., Any],
    settings: dict[str, Any],
    *,
    description: str,
    schedules: Sequence[CronSchedule | IntervalSchedule],
) -> UUID:
    deployment: Any = flow.to_deployment(description=description, schedules=list(schedules), **settings)
    made: UUID = deployment.apply()
    return made
