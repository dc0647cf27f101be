"""The whole pipeline: every organisation's part at the same time, then gates, publication and the record."""

import os
from datetime import datetime
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.run_ids import run_to_work_on
from flows.stopping import end_children, stopped_in_time
from lepton_pipelines.evaluation.result import Evaluation
from lepton_pipelines.monitoring.json_log import VARIABLE, also_log_json
from lepton_pipelines.organisation.folder import RunFolder, check_writable
from lepton_pipelines.spec.pipeline import Pipeline
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
    # What computes is imported here: Prefect loads this module once more after a run was cancelled, in a process for
    # the hook above, and that shall be gone soon, too.
    from flows.at_a_hub import calls_off, retrain_at_hub
    from flows.in_one_process import retrain_here
    from lepton_pipelines.organisation.checking import check_spec

    folder = RunFolder(var, run_to_work_on(run))
    check_spec(pipeline)
    check_writable(var)
    also_log_json(os.environ.get(VARIABLE))
    cancelled = calls_off(pipeline, folder.run_id, organisation, home)
    with (
        stopped_in_time(when_cancelled=cancelled),
        told_run(pipeline.name, folder.run_id, pipeline.members) as told,
    ):
        if pipeline.federation != "in-process":
            told.append(retrain_at_hub(pipeline, folder, organisation, home))
        else:
            told.append(retrain_here(pipeline, folder))
    return told[0]
