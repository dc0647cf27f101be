"""A run at a hub whose parts are started on one Prefect server: each at the work pool of its organisation.

Whoever runs that server can start what is deployed at every pool, so this is for organisations that share one and trust
its operator; between others every organisation has its own Prefect, and `lepton org serve` takes part in invitations.
"""

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling

from flows.federated_retrain import new_run_id
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline

LOOK_SECONDS = 1.0


def part_name(pipeline: str, organisation: str) -> str:
    """Name the deployment of one organisation's part, at its own work pool."""
    return f"federated-retrain/{pipeline}-{organisation}"


def _run_name() -> str:
    pipeline = flow_run.get_parameters()["pipeline"]
    return f"{pipeline['name'] if isinstance(pipeline, dict) else pipeline.name} · {new_run_id()}"


@flow(name="retrain-on-pools", flow_run_name=_run_name, persist_result=False)
def retrain_on_pools(pipeline: Pipeline, run: str | None = None) -> str:
    """Start every organisation's part at its own work pool, and wait; one that fails or a cancellation ends all.

    Args:
        pipeline: Whose organisations take part. Each works from its own deployed copy, which must be the same.
        run: Go on with this run; empty for a new one.
    """
    run_id = run or new_run_id()
    parts: dict[str, FlowRun] = {}
    with get_client(sync_client=True) as client:
        try:
            for name in _publisher_first(pipeline):
                parts[name] = _start(pipeline, name, run_id)
            _wait(client, {name: part.id for name, part in parts.items()})
        except BaseException:
            # A part that failed, Ctrl-C, or Prefect cancels: nobody shall wait for a sum that never comes.
            _cancel(client, parts)
            raise
    return run_id


def _publisher_first(pipeline: Pipeline) -> list[str]:
    return sorted(pipeline.members, key=lambda name: name != pipeline.publisher)


def _start(pipeline: Pipeline, organisation: str, run_id: str) -> FlowRun:
    name = part_name(pipeline.name, organisation)
    try:
        begun: Any = run_deployment(name, parameters={"run": run_id}, flow_run_name=organisation, timeout=0)
    except ObjectNotFound as error:
        raise UserError(
            f"{organisation}'s part of {pipeline.name} is not deployed. There run: lepton deploy pipeline.yaml "
            f"--organisation {organisation}.yaml --pool {organisation}"
        ) from error
    return begun  # type: ignore[no-any-return]


def _wait(client: SyncPrefectClient, parts: Mapping[str, UUID]) -> None:
    """Return when all parts are completed. Raises RuntimeError as soon as one has ended otherwise."""
    left = dict(parts)
    while left:
        time.sleep(LOOK_SECONDS)
        for name, part in list(left.items()):
            state = client.read_flow_run(part).state
            if state is None or not state.is_final():
                continue
            if not state.is_completed():
                raise RuntimeError(f"{name} ended {state.name}: {state.message or 'no reason was given'}")
            get_run_logger().info("%s has done its part", name)
            del left[name]


def _cancel(client: SyncPrefectClient, parts: Mapping[str, FlowRun]) -> None:
    for name, part in parts.items():
        state = client.read_flow_run(part.id).state
        if state is not None and not state.is_final():
            get_run_logger().warning("cancelling %s's part", name)
            client.set_flow_run_state(part.id, Cancelling(message="the run was stopped"))
