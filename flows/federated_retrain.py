"""The whole pipeline: every organisation's part at the same time, then gates, publication and the record."""

import os
import time
from datetime import datetime
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.at_a_hub import part_path, retrain_at_hub
from flows.in_step import all_in_step
from flows.organisation_run import organisation_run
from flows.promote import ask_for_approval
from flows.run_ids import run_to_work_on
from flows.stopping import end_children, stopped_in_time
from lepton_pipelines.evaluation.result import Evaluation
from lepton_pipelines.monitoring.json_log import VARIABLE, also_log_json
from lepton_pipelines.organisation.algorithms import model_file
from lepton_pipelines.organisation.checking import check_spec
from lepton_pipelines.organisation.decisions import record_stopped
from lepton_pipelines.organisation.folder import RunFolder, check_writable
from lepton_pipelines.organisation.outcome import SPEC_FILE
from lepton_pipelines.organisation.reports import PartReport
from lepton_pipelines.registry.tracking import open_tracking
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline
from tasks import outcome as tasks
from tasks.events import told_run


def _run_name() -> str:
    pipeline = flow_run.get_parameters()["pipeline"]
    name = pipeline["name"] if isinstance(pipeline, dict) else pipeline.name
    return f"{name} · {datetime.now().astimezone():%Y-%m-%d %H:%M}"


@flow(
    name="federated-retrain",
    flow_run_name=_run_name,
    persist_result=False,
    on_cancellation=[end_children],
    on_crashed=[end_children],
)
def federated_retrain(
    pipeline: Pipeline,
    var: Path = Path("var"),
    run: str | None = None,
    organisation: Path | None = None,
    home: Path | None = None,
) -> Evaluation:
    """Train one model over all organisations, hold it against the champion, and register it.

    Args:
        pipeline: What is trained, by whom, and what the model must reach.
        var: Where runs, models and records are kept.
        run: Go on with this run at its last tree, or deliver what is pending of it; empty for a new one.
        organisation: With a hub, this organisation's own file; the others run their parts themselves.
        home: With a hub, the folder with this organisation's keys; empty for the one in its file, or ./organisation.
    """
    folder = RunFolder(var, run_to_work_on(run))
    check_spec(pipeline)
    check_writable(var)
    also_log_json(os.environ.get(VARIABLE))
    with stopped_in_time(), told_run(pipeline.name, folder.run_id, pipeline.members) as told:
        if pipeline.federation != "in-process":
            told.append(retrain_at_hub(pipeline, folder, organisation, home))
        else:
            told.append(_retrain_here(pipeline, folder))
    return told[0]


def _retrain_here(pipeline: Pipeline, folder: RunFolder) -> Evaluation:
    """Do every organisation's part in this process, then what the publisher does."""
    organisations = pipeline.read_organisations()
    publisher = organisations[pipeline.publisher]
    tracking = open_tracking(publisher.tracking.mlflow, folder=folder.var.absolute())
    began = time.perf_counter()
    folder.create()
    try:
        folder.write(SPEC_FILE, pipeline.model_dump_json(indent=2))
        parts = _done_before(pipeline, folder) or _all_parts(pipeline, folder)
    except (Exception, KeyboardInterrupt) as error:
        rounds = {name: done[-1] for name in organisations if (done := folder.of(name).rounds())}
        _say_stopped(pipeline, folder, error, rounds)
        if isinstance(error, UserError) and not rounds:
            folder.discard()
        raise
    parts.sort(key=lambda part: part.organisation != pipeline.publisher)
    model = (folder.of(pipeline.publisher).path / model_file(pipeline)).read_bytes()
    results = tasks.gates(pipeline, parts[0], model)
    published, decision = tasks.publish(pipeline, parts, model, results, tracking, publisher.tracking.experiment)
    seconds = {**parts[0].seconds(), "whole run": time.perf_counter() - began}
    evaluation: Evaluation = tasks.record(
        pipeline, parts, model, results, published, decision, folder, tracking, seconds
    )
    if decision.outcome == "waiting":
        ask_for_approval(pipeline, decision, _files(pipeline)[pipeline.publisher], folder.var)
    return evaluation


def _say_stopped(pipeline: Pipeline, folder: RunFolder, error: BaseException, rounds: dict[str, int]) -> None:
    """Tell the ledger that the run did not end; what stopped it is raised, whatever becomes of that."""
    try:
        record_stopped(pipeline, folder, error, rounds)
    except UserError as second:
        get_run_logger().warning("run %s: its end could not be told to the ledger: %s", folder.run_id, second)


def _all_parts(pipeline: Pipeline, folder: RunFolder) -> list[PartReport]:
    """Run every organisation's part. Raises UserError with the problems of all, or what went wrong at the first."""
    files = _files(pipeline)

    def start(name: str) -> PartReport:
        part: PartReport = organisation_run(
            organisation=name,
            run=folder.run_id,
            pipeline=pipeline,
            file=files[name],
            var=folder.var,
            share=len(files),
        )
        return part

    parts = all_in_step(pipeline, folder.run_id, start)
    for part in parts:
        folder.write(part_path(part.organisation), part.model_dump_json())
    return parts


def _done_before(pipeline: Pipeline, folder: RunFolder) -> list[PartReport] | None:
    """Return the parts of a run that was trained and evaluated, of which only delivery is missing."""
    paths = [folder.path / part_path(name) for name in pipeline.members]
    if not all(path.is_file() for path in paths):
        return None
    return [PartReport.model_validate_json(path.read_bytes()) for path in paths]


def _files(pipeline: Pipeline) -> dict[str, Path]:
    if isinstance(pipeline.organisations, dict):
        return {name: Path(file) for name, file in pipeline.organisations.items()}
    raise UserError(
        f"{pipeline.name}: federation is a hub, where every organisation starts its own part. "
        "For a run in one process write federation: in-process."
    )
