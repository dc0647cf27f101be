"""Have the rows, or what the champion makes of them, moved since it was trained? Scheduled; drift starts a retrain."""

from datetime import datetime
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.run_ids import new_watch_id
from flows.stopping import end_children, stopped_in_time
from lepton_pipelines.evaluation.result import DriftReport
from lepton_pipelines.organisation.folder import RunFolder, check_writable
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import Pipeline


def _run_name() -> str:
    pipeline = flow_run.get_parameters()["pipeline"]
    name = pipeline["name"] if isinstance(pipeline, dict) else pipeline.name
    return f"{name} drift · {datetime.now().astimezone():%Y-%m-%d %H:%M}"


@flow(
    name="watch-drift",
    flow_run_name=_run_name,
    persist_result=False,
    on_cancellation=[end_children],
    on_crashed=[end_children],
)
def watch_drift(
    pipeline: Pipeline,
    var: Path = Path("var"),
    worse: float = 0.05,
    run: str | None = None,
    organisation: Path | None = None,
    home: Path | None = None,
) -> DriftReport | None:
    """Compare every organisation's rows with what the champion was trained on; tell Prefect if they have moved.

    Args:
        pipeline: Whose champion is watched, at which organisations.
        var: Where runs, models and records are kept.
        worse: By what share of its value at training the main score may be worse (0.05: AUC 0.80 may fall to 0.76).
        run: With a hub, take part in this watch; empty for a new one, which the others are invited to.
        organisation: With a hub, this organisation's own file; the others run their parts themselves.
        home: With a hub, the folder with this organisation's keys; empty for the one in its file, or ./organisation.
    """
    # What computes is imported here, as in `federated_retrain`.
    from flows.at_a_hub import calls_off, watch_at_hub
    from flows.in_one_process import watch_here
    from lepton_pipelines.organisation.checking import check_spec
    from tasks import drift as drift_tasks

    check_spec(pipeline)
    check_writable(var)
    watch = run or new_watch_id()
    report: DriftReport | None
    with stopped_in_time(when_cancelled=calls_off(pipeline, watch, organisation, home)):
        if pipeline.federation != "in-process":
            report = watch_at_hub(pipeline, RunFolder(var, watch), organisation, home, worse)
        else:
            report = watch_here(pipeline, watch, var, worse)
        if report is None:
            get_run_logger().warning("%s: too few rows have changed since an earlier run to be compared", pipeline.name)
            return None
        drift_tasks.publish_drift(pipeline, report, _watcher(pipeline, organisation))
        return report


def _watcher(pipeline: Pipeline, organisation: Path | None) -> str:
    return pipeline.publisher if organisation is None else read_organisation(organisation).organisation
