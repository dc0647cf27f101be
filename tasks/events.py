"""What Prefect is told by events: a run that began, ended or was stopped, its rounds, its gates.

An automation may start from any of them. They hold names, counts and what every member may see; of an error its kind,
because its words may quote a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prefect.events import emit_event
from prefect.runtime import flow_run

from lepton_pipelines.evaluation.result import Evaluation
from lepton_pipelines.organisation.progress import RoundFinished
from lepton_pipelines.registry.gates import GateResult

STARTED, FINISHED, STOPPED = "lepton.run.started", "lepton.run.finished", "lepton.run.stopped"
ROUND = "lepton.round"
PASSED, FAILED = "lepton.gate.passed", "lepton.gate.failed"


def resource_of(pipeline: str) -> str:
    """Name a pipeline as Prefect's events do."""
    return f"lepton.pipeline.{pipeline}"


def say(event: str, pipeline: str, payload: dict[str, Any], labels: Mapping[str, str] | None = None) -> None:
    """Tell Prefect of something that happened to a pipeline, in the flow run that goes on.

    labels: further ones of the resource, by which automations choose.
    """
    run = flow_run.get_id()
    related = [{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}] if run else []
    resource = {"prefect.resource.id": resource_of(pipeline), "prefect.resource.name": pipeline, **(labels or {})}
    emit_event(event, resource=resource, related=related, payload=payload)


@contextmanager
def told_run(pipeline: str, run: str, members: Sequence[str]) -> Iterator[list[Evaluation]]:
    """Tell of a run's begin, and of its end when the block ends. Yields a list that takes what came of it."""
    say(STARTED, pipeline, {"run": run, "members": list(members)})
    found: list[Evaluation] = []
    try:
        yield found
    except BaseException as error:
        say(STOPPED, pipeline, {"run": run, "error": type(error).__name__})
        raise
    for one in found:
        told = one.registration
        decision = {} if told is None else {"model": told.model, "version": told.version, "alias": told.alias}
        payload = {"run": run, "rounds": one.rounds, "scores": one.figures.scores, "seconds": one.seconds}
        say(FINISHED, pipeline, payload | decision)


def tell_round(pipeline: str, run: str, event: RoundFinished) -> None:
    """Tell how far an organisation's training has come."""
    payload = {
        "run": run,
        "organisation": event.organisation,
        "round": event.round,
        "rounds": event.rounds,
        "scores": event.scores,
        "sent_bytes": event.bytes_sent,
        "seconds": event.seconds,
    }
    say(ROUND, pipeline, payload)


def tell_gates(pipeline: str, run: str, results: Sequence[GateResult]) -> None:
    """Tell of every gate whether it was passed, with its figure."""
    for one in results:
        payload = {"run": run, "gate": one.name, "figure": one.figure, "limit": one.limit, "message": one.message}
        say(PASSED if one.passed else FAILED, pipeline, payload)
