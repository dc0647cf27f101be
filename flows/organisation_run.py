"""One organisation's part of a run: ingest → validate → bin → train → compare → evaluate."""

import hashlib
from pathlib import Path

from prefect import flow

from lepton_pipelines.federation.runs import join
from lepton_pipelines.monitoring.json_log import logged_part
from lepton_pipelines.monitoring.progress_file import kept_progress
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.reports import PartReport
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import Pipeline
from tasks import organisation_part as tasks
from tasks.drift import remember


@flow(name="organisation-run", flow_run_name="{organisation}", persist_result=False)
def organisation_run(organisation: str, run: str, pipeline: Pipeline, file: Path, var: Path, share: int) -> PartReport:
    """Do one organisation's part of a run, in step with the others.

    Args:
        organisation: Its name.
        run: The run's id, the same at every organisation.
        pipeline: The shared spec.
        file: The organisation's own file.
        var: Where runs and models are kept.
        share: How many organisations share this machine's cores.
    """
    folder = RunFolder(var, run)
    with (
        kept_progress(folder, organisation, pipeline.name),
        logged_part(run, organisation),
        join(run, organisation) as sums,
    ):
        part = OrganisationRun(
            pipeline,
            read_organisation(file),
            sums,
            folder,
            share=share,
            repeats=sums.repeats,
            guard=sums.guard,
        )
        try:
            tasks.ingest(part)
            tasks.validate(part)
            tasks.bin_rows(part)
            tasks.train(part)
            if pipeline.comparison.alone or pipeline.comparison.pooled:
                tasks.compare(part)
            tasks.evaluate(part)
            remember(part)
            sums.finish(hashlib.sha256(part.model).digest())
            return part.report()
        finally:
            part.close()
