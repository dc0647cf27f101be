"""Runs at a hub whose parts are started on one Prefect server: each at the work pool of its organisation.

Whoever runs that server can start what is deployed at every pool, so this is for organisations that share one and trust
its operator; between others every organisation has its own Prefect, and `lepton org serve` takes part in invitations.
"""

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect._internal.control_listener import get_intent
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling, Crashed

from flows.run_ids import new_run_id, new_watch_id, run_to_work_on
from flows.stopping import CAN_GO_ON, end_children, stopped_in_time
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline

LOOK_SECONDS = 1.0
RETRAIN, WATCH = "federated-retrain", "watch-drift"


class PartDied(Exception):  # noqa: N818 - says what happened
    """The process, worker or machine of an organisation's part died."""


def part_name(pipeline: str, organisation: str, flow: str = RETRAIN) -> str:
    """Name the deployment of one organisation's part, at its own work pool."""
    return f"{flow}/{pipeline}-{organisation}"


def _pipeline_name() -> str:
    pipeline = flow_run.get_parameters()["pipeline"]
    return str(pipeline["name"] if isinstance(pipeline, dict) else pipeline.name)


def _run_name() -> str:
    return f"{_pipeline_name()} · {new_run_id()}"


def _watch_name() -> str:
    return f"{_pipeline_name()} drift · {new_run_id()}"


@flow(
    name="retrain-on-pools",
    flow_run_name=_run_name,
    persist_result=False,
    on_cancellation=[end_children],
    on_crashed=[end_children],
)
def retrain_on_pools(pipeline: Pipeline, run: str | None = None) -> str | State[str]:
    """Start every organisation's part at its own work pool, and wait; one that fails or a cancellation ends all.

    Args:
        pipeline: Whose organisations take part. Each works from its own deployed copy, which must be the same.
        run: Go on with this run; empty for a new one.
    """
    run_id = run_to_work_on(run)
    try:
        _on_pools(pipeline, RETRAIN, {name: {"run": run_id} for name in pipeline.members})
    except PartDied as died:
        # As itself: a retry, or what the schedule starts next, goes on with the run.
        return Crashed(message=f"{died} Run {run_id} goes on at its last tree.")
    return run_id


@flow(
    name="watch-on-pools",
    flow_run_name=_watch_name,
    persist_result=False,
    on_cancellation=[end_children],
    on_crashed=[end_children],
)
def watch_on_pools(pipeline: Pipeline, worse: float = 0.05) -> str:
    """Compare every organisation's rows with what the champion was trained on, each at its own work pool.

    Args:
        pipeline: Whose champion is watched. Each works from its own deployed copy, which must be the same.
        worse: By what share of its value at training the main score may be worse (0.05: AUC 0.80 may fall to 0.76).
    """
    run_id = new_watch_id()
    _on_pools(pipeline, WATCH, {name: {"run": run_id, "worse": worse} for name in pipeline.members})
    return run_id


def _on_pools(pipeline: Pipeline, flow: str, parameters: Mapping[str, dict[str, Any]]) -> None:
    """Run a deployed flow's part at every organisation's pool. parameters: by organisation."""
    parts: dict[str, FlowRun] = {}
    with stopped_in_time(), get_client(sync_client=True) as client:
        try:
            for name in _publisher_first(pipeline):
                parts[name] = _start(pipeline, flow, name, parameters[name])
            _wait(client, {name: part.id for name, part in parts.items()})
        except BaseException:
            # A part that failed, Ctrl-C, or Prefect cancels: nobody shall wait for a sum that never comes.
            _cancel(client, parts, "the run was cancelled" if get_intent() == "cancel" else f"stopped; {CAN_GO_ON}")
            raise


def _publisher_first(pipeline: Pipeline) -> list[str]:
    return sorted(pipeline.members, key=lambda name: name != pipeline.publisher)


def _start(pipeline: Pipeline, flow: str, organisation: str, parameters: dict[str, Any]) -> FlowRun:
    name = part_name(pipeline.name, organisation, flow)
    try:
        begun: Any = run_deployment(name, parameters=parameters, flow_run_name=organisation, timeout=0)
    except ObjectNotFound as error:
        raise UserError(
            f"{organisation}'s part of {pipeline.name} ({flow}) is not deployed. There run: lepton deploy "
            f"pipeline.yaml --organisation {organisation}.yaml --pool {organisation}"
        ) from error
    return begun  # type: ignore[no-any-return]


def _wait(client: SyncPrefectClient, parts: Mapping[str, UUID]) -> None:
    """Return when all parts are completed.

    Raises PartDied as soon as one has crashed, RuntimeError as soon as one has ended otherwise.
    """
    left = dict(parts)
    while left:
        time.sleep(LOOK_SECONDS)
        for name, part in list(left.items()):
            state = client.read_flow_run(part).state
            if state is None or not state.is_final():
                continue
            if state.is_crashed():
                raise PartDied(f"{name}'s part died: {state.message or 'no reason was given'}")
            if not state.is_completed():
                raise RuntimeError(f"{name} ended {state.name}: {state.message or 'no reason was given'}")
            get_run_logger().info("%s has done its part", name)
            del left[name]


def _cancel(client: SyncPrefectClient, parts: Mapping[str, FlowRun], why: str) -> None:
    for name, part in parts.items():
        state = client.read_flow_run(part.id).state
        if state is not None and not state.is_final() and not state.is_cancelling():
            get_run_logger().warning("cancelling %s's part", name)
            client.set_flow_run_state(part.id, Cancelling(message=why))
