"""One organisation's part of a watch for drift: ingest → validate → agree to compare → compare with training."""

import hashlib
from pathlib import Path

from prefect import flow, get_run_logger

from lepton_pipelines.evaluation.result import DriftReport
from lepton_pipelines.federation.home_rules import WatchGuard
from lepton_pipelines.federation.runs import join
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import Pipeline
from tasks import drift as drift_tasks
from tasks import organisation_part as tasks

COMPARED, NOT_COMPARED = hashlib.sha256(b"compared").digest(), hashlib.sha256(b"not compared").digest()


@flow(name="organisation-watch", flow_run_name="{organisation}", persist_result=False)
def organisation_watch(
    organisation: str, run: str, pipeline: Pipeline, file: Path, var: Path, share: int, worse: float
) -> DriftReport | None:
    """Do one organisation's part of watching, in step with the others; None if rows changed too little to compare them.

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
        guard = None if sums.guard is None else WatchGuard.like(sums.guard)
        part = OrganisationRun(
            pipeline,
            read_organisation(file),
            sums,
            RunFolder(var, run),
            share=share,
            repeats=sums.repeats,
            guard=guard,
            trains=False,
        )
        try:
            tasks.ingest(part)
            tasks.validate(part)
            if not drift_tasks.agree_to_compare(part):
                own = None if guard is None else guard.reason
                get_run_logger().warning("nothing is compared: %s", own or "another organisation's rows say no today")
                if part.record is not None:
                    part.record.dropped()
                sums.finish(NOT_COMPARED)
                return None
            report: DriftReport = drift_tasks.compare_with_training(part, worse)
            sums.finish(COMPARED)
            return report
        finally:
            part.close()
