"""Have the rows, or what the champion makes of them, moved since it was trained? Scheduled; drift starts a retrain."""

from datetime import datetime
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.federated_retrain import new_run_id
from flows.in_step import all_in_step
from lepton_pipelines.evaluation.result import DriftReport
from lepton_pipelines.federation.runs import join
from lepton_pipelines.organisation.checking import check_spec
from lepton_pipelines.organisation.folder import RunFolder, check_writable
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import Pipeline
from tasks import drift as drift_tasks
from tasks import organisation_part as tasks


def _run_name() -> str:
    pipeline = flow_run.get_parameters()["pipeline"]
    name = pipeline["name"] if isinstance(pipeline, dict) else pipeline.name
    return f"{name} drift · {datetime.now().astimezone():%Y-%m-%d %H:%M}"


@flow(name="watch-drift", flow_run_name=_run_name, persist_result=False)
def watch_drift(pipeline: Pipeline, var: Path = Path("var"), worse: float = 0.05) -> DriftReport:
    """Compare every organisation's rows with what the champion was trained on; tell Prefect if they have moved.

    Args:
        pipeline: Whose champion is watched, at which organisations.
        var: Where runs, models and records are kept.
        worse: By what share of its value at training the main score may be worse (0.05: AUC 0.80 may fall to 0.76).
    """
    check_spec(pipeline)
    organisations = pipeline.read_organisations()
    check_writable(var)
    run = f"{new_run_id()}-drift"
    files = dict(pipeline.organisations) if isinstance(pipeline.organisations, dict) else {}

    def start(name: str) -> DriftReport:
        report: DriftReport = organisation_watch(name, run, pipeline, Path(files[name]), var, len(organisations), worse)
        return report

    report = all_in_step(pipeline, run, start)[0]
    drift_tasks.publish_drift(pipeline, report)
    return report


@flow(name="organisation-watch", flow_run_name="{organisation}", persist_result=False)
def organisation_watch(
    organisation: str, run: str, pipeline: Pipeline, file: Path, var: Path, share: int, worse: float
) -> DriftReport:
    """Do one organisation's part of watching, in step with the others.

    Args:
        organisation: Its name.
        run: The run's id, the same at every organisation.
        pipeline: The shared spec.
        file: The organisation's own file.
        var: Where runs and models are kept.
        share: How many organisations share this machine's cores.
        worse: By what share of its value at training the main score may be worse.
    """
    with join(run, organisation) as sums:
        part = OrganisationRun(pipeline, read_organisation(file), sums, RunFolder(var, run), share=share)
        try:
            tasks.ingest(part)
            tasks.validate(part)
            return drift_tasks.compare_with_training(part, worse)
        finally:
            part.close()
