"""Runs and watches of a pipeline whose organisations all take part in one process."""

import time
from pathlib import Path

from prefect import get_run_logger

from flows.at_a_hub import part_path
from flows.in_step import all_in_step
from flows.organisation_run import organisation_run
from flows.organisation_watch import organisation_watch
from flows.promote import ask_for_approval
from lepton_pipelines.evaluation.result import DriftReport, Evaluation
from lepton_pipelines.organisation.algorithms import model_file
from lepton_pipelines.organisation.decisions import record_stopped
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.outcome import SPEC_FILE
from lepton_pipelines.organisation.reports import PartReport
from lepton_pipelines.registry.tracking import open_tracking
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline
from tasks import outcome as tasks


def retrain_here(pipeline: Pipeline, folder: RunFolder) -> Evaluation:
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


def watch_here(pipeline: Pipeline, watch: str, var: Path, worse: float) -> DriftReport | None:
    """Do every organisation's part of a watch for drift. None if rows changed too little to be compared."""
    organisations = pipeline.read_organisations()
    files = _files(pipeline)

    def start(name: str) -> DriftReport | None:
        report: DriftReport | None = organisation_watch(
            name, watch, pipeline, files[name], var, len(organisations), worse
        )
        return report

    return all_in_step(pipeline, watch, start)[0]


def _say_stopped(pipeline: Pipeline, folder: RunFolder, error: BaseException, rounds: dict[str, int]) -> None:
    """Tell the ledger that the run did not end; what stopped it is raised, whatever becomes of that."""
    try:
        record_stopped(pipeline, folder, error, rounds)
    except (UserError, OSError) as second:  # a full disk, perhaps, which stopped the run in the first place
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
