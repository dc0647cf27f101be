"""What Prefect's server does by itself for a deployed pipeline: train again on drift, and notice a run that died."""

from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture

from lepton_pipelines.spec.pipeline import Pipeline
from tasks.drift import DRIFT_EVENT, ORGANISATION_LABEL
from tasks.events import resource_of

SILENT = timedelta(seconds=120)
"""A run whose heartbeat (every 30 s) was not heard for so long has died with its worker or its machine."""

HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = {
    f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "Suspended", "Paused")
}
ZOMBIES = "lepton: a run without heartbeat has crashed"


def install_automations(pipeline: Pipeline, retrain: UUID, *, watcher: str | None = None) -> list[str]:
    """Install or update the automations of a deployed pipeline; return their names.

    retrain: its deployment. watcher: the organisation whose watch is listened to; None: the publisher.
    """
    made = [retrain_on_drift(pipeline, retrain, watcher or pipeline.publisher), mark_zombies()]
    for automation in made:
        install(automation)
    return [automation.name for automation in made]


def retrain_on_drift(pipeline: Pipeline, retrain: UUID, watcher: str) -> Automation:
    """Start the pipeline's training when an organisation's watch finds drift."""
    return Automation(
        name=f"lepton: {pipeline.name} trains again on drift",
        description="Set up by lepton deploy; switch it off here if a person shall decide.",
        trigger=EventTrigger(
            expect={DRIFT_EVENT},
            match={"prefect.resource.id": resource_of(pipeline.name), ORGANISATION_LABEL: watcher},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[RunDeployment(source="selected", deployment_id=retrain, parameters=None, job_variables=None)],
    )


def mark_zombies() -> Automation:
    """Mark a run as crashed whose heartbeat has stopped without an end: killed together with its worker."""
    return Automation(
        name=ZOMBIES,
        description="Set up by lepton deploy. A crashed run goes on at its last tree: start it with its id as `run`.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *ENDED},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENT,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message=f"no heartbeat for {SILENT.total_seconds():.0f} s: the process, its worker or machine died",
            )
        ],
    )


def install(automation: Automation) -> None:
    """Install an automation, or update the one of its name."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for known in client.read_automations_by_name(automation.name):
            client.update_automation(known.id, automation)
            return
    automation.create()
