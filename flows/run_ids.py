"""Which run a flow run works on: a new one, its own from before, or that of the one before it, if that has died."""

import secrets
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import deployment, flow_run
from pydantic import ValidationError

from lepton_pipelines.spec.pipeline import Pipeline

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

RUN_LABEL = "lepton.run"
_LOOKED_AT = 10  # runs that ended last; those that were skipped while another was going are among them


def new_run_id() -> str:
    """Name a run by when it began, and by Prefect's run where there is one: a retried flow goes on with its run."""
    prefect_id = flow_run.get_id()
    began = flow_run.get_scheduled_start_time() if prefect_id else datetime.now().astimezone()
    return f"{began:%Y%m%d-%H%M%S}-{str(prefect_id)[:4] if prefect_id else secrets.token_hex(2)}"


def new_watch_id() -> str:
    """Name a watch as a run is named."""
    return f"{new_run_id()}-drift"


def run_to_work_on(asked: str | None) -> str:
    """Return the id of the run that this flow run works on, and label the flow run with it. asked: by its parameter.

    A flow run that is retried stays with its run. One that a schedule starts goes on with the run of the one before
    it, if that crashed with the same pipeline: its process, worker or machine died, and what it had is on disk.
    """
    deployed, mine = deployment.id, flow_run.get_id()
    if deployed is None or mine is None:
        return asked or new_run_id()
    with get_client(sync_client=True) as client:
        this = client.read_flow_run(UUID(str(mine)))
        run_id = asked or this.labels.get(RUN_LABEL) or _died_before(client, this) or new_run_id()
        client.update_flow_run_labels(this.id, {RUN_LABEL: str(run_id)})
    return str(run_id)


def _died_before(client: SyncPrefectClient, this: "FlowRun") -> str | None:
    """Return the run of the last flow run of this deployment that has begun and ended, if it crashed."""
    if this.deployment_id is None:
        return None
    ended = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[this.deployment_id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(TERMINAL_STATES))),
        ),
        sort=FlowRunSort.START_TIME_DESC,
        limit=_LOOKED_AT,
    )
    for run in ended:
        if run.id == this.id or run.start_time is None:
            continue
        same = _to_be_trained(run) == _to_be_trained(this)
        died = run.state is not None and run.state.is_crashed()
        found = run.labels.get(RUN_LABEL)
        return str(found) if same and died and found else None
    return None


def _to_be_trained(run: "FlowRun") -> dict[str, Any] | None:
    """Return what a flow run's pipeline says of the training: when it runs, and how it is shown, is left out."""
    try:
        pipeline = Pipeline.model_validate(run.parameters["pipeline"])
    except ValidationError:  # of another version of this code
        return None
    return pipeline.model_dump(mode="json", exclude={"schedule", "comparison"})
