"""A run at a hub, as one organisation does it: its own part, the gates and the report; the publisher also registers.

Every organisation runs this by itself, on its own Prefect. Nobody starts anything at anybody else: what comes from the
hub is an invitation, which `lepton org serve` holds against the organisation's own rules.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.organisation_run import organisation_run
from flows.organisation_watch import organisation_watch
from flows.promote import ask_for_approval
from flows.stopping import is_called_off
from lepton_pipelines.evaluation.result import DriftReport, Evaluation
from lepton_pipelines.federation.calling_off import call_off, was_proposed_from
from lepton_pipelines.federation.changing import go_on, stages_here, stands_still_again
from lepton_pipelines.federation.grpc_member import RunSuspended
from lepton_pipelines.federation.manifest import Kind
from lepton_pipelines.federation.proposal import hub_of
from lepton_pipelines.federation.runs import forget_totals, joined_run
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.organisation import progress
from lepton_pipelines.organisation.algorithms import model_file
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.home import home_of
from lepton_pipelines.organisation.hub_record import record_published, recorded_run
from lepton_pipelines.organisation.outcome import SPEC_FILE
from lepton_pipelines.organisation.reports import PartReport
from lepton_pipelines.registry.tracking import open_tracking
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation, read_organisation
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.sums import SumAborted
from tasks import outcome as tasks

PART_FILE = "part.json"
DRIFT_FILE = "drift.json"


def retrain_at_hub(pipeline: Pipeline, folder: RunFolder, file: Path | None, home: Path | None) -> Evaluation:
    """Do one organisation's whole share of a run at a hub. file: its own file. home: with its keys.

    A run that the hub does not know is proposed to the other organisations. One that was begun is gone on with; one
    that was finished is only published and recorded, if that is what is missing.
    """
    file = _named(pipeline, file)
    own = read_organisation(file)
    name, publishes = own.organisation, own.organisation == pipeline.publisher
    began = time.perf_counter()
    folder.create()
    try:
        folder.write(SPEC_FILE, pipeline.with_contract_inside().model_dump_json(indent=2))
        keys = home_of(own, home)
        part = _done_before(folder, name) or _take_part(pipeline, own, folder, file, keys)
    except UserError:
        if not folder.of(name).path.exists():
            folder.discard()
        raise
    model = (folder.of(name).path / model_file(pipeline)).read_bytes()
    results = tasks.gates(pipeline, part, model)
    tracking, registered = None, None
    if publishes:
        tracking = open_tracking(own.tracking.mlflow, folder=folder.var.absolute())
        registered = tasks.publish(pipeline, [part], model, results, tracking, own.tracking.experiment)
        alias = "champion" if registered[1].outcome == "champion" else "challenger"
        record_published(keys, hub_of(pipeline).hub, stages_here(folder.run_id, keys)[-1], registered[0], alias)
    seconds = {**part.seconds(), "whole run": time.perf_counter() - began}
    evaluation: Evaluation = tasks.record_at_home(pipeline, part, results, registered, folder, tracking, seconds)
    if registered is not None and registered[1].outcome == "waiting":
        ask_for_approval(pipeline, registered[1], file, folder.var, keys.folder)
    return evaluation


def watch_at_hub(
    pipeline: Pipeline, folder: RunFolder, file: Path | None, home: Path | None, worse: float
) -> DriftReport | None:
    """Do one organisation's part of a watch for drift; arguments as in `retrain_at_hub` and `organisation_watch`.

    A watch that the hub does not know is proposed to the others. None if rows changed too little to be compared.
    """
    file = _named(pipeline, file)
    own = read_organisation(file)
    kept = folder.path / DRIFT_FILE
    if kept.exists():
        return DriftReport.model_validate_json(kept.read_bytes())
    folder.create()
    try:
        folder.write(SPEC_FILE, pipeline.with_contract_inside().model_dump_json(indent=2))
        keys = home_of(own, home)
        with _recorded(pipeline, own, folder, keys, "watch"):
            report: DriftReport | None = organisation_watch(
                organisation=own.organisation,
                run=folder.run_id,
                pipeline=pipeline,
                file=file,
                var=folder.var,
                share=1,
                worse=worse,
            )
    except UserError:
        if not folder.of(own.organisation).path.exists():
            folder.discard()
        raise
    if report is not None:
        folder.write(DRIFT_FILE, report.model_dump_json())
    forget_totals(folder.run_id, keys)
    return report


def calls_off(pipeline: Pipeline, run_id: str, file: Path | None, home: Path | None) -> Callable[[], None] | None:
    """Return what ends a run for everyone when its flow run is cancelled where it was begun; None without a hub.

    Elsewhere a cancelled part is a lost one: the others wait for it, or go on without it if all signed for that.
    """
    if pipeline.federation == "in-process" or file is None:
        return None
    own = read_organisation(file)

    def call_off_here() -> None:
        keys = home_of(own, home)
        if was_proposed_from(keys, run_id) and is_called_off():
            reason = f"{own.organisation}: run {run_id} was cancelled where it was begun"
            call_off(run_id, keys, reason, address=hub_of(pipeline).hub)

    return call_off_here


def part_path(organisation: str) -> str:
    """Return where what an organisation has to say of its finished part is kept, below the run's folder."""
    return f"organisations/{organisation}/{PART_FILE}"


def _take_part(
    pipeline: Pipeline, own: Organisation, folder: RunFolder, file: Path, home: OrganisationHome
) -> PartReport:
    def tell(sentence: str) -> None:
        progress.tell(folder.run_id, progress.Notice(own.organisation, sentence))

    while True:
        try:
            with _recorded(pipeline, own, folder, home, "training"):
                part: PartReport = organisation_run(
                    organisation=own.organisation,
                    run=folder.run_id,
                    pipeline=pipeline,
                    file=file,
                    var=folder.var,
                    share=1,
                )
            break
        except RunSuspended:
            if not go_on(folder.run_id, home, pipeline, policy=own.policy, tell=tell):
                raise
        except SumAborted as error:
            if not stands_still_again(folder.run_id, home, pipeline):
                raise
            raise RunSuspended(
                f"run {folder.run_id} does not go on without all of its members ({error}). It stands still; when all "
                f"are back, resume it with: lepton run --resume {folder.run_id}"
            ) from error
    # Written when everybody has finished: before that a part that is started again must repeat its sums for others.
    folder.write(part_path(own.organisation), part.model_dump_json())
    forget_totals(folder.run_id, home)
    return part


@contextmanager
def _recorded(
    pipeline: Pipeline, own: Organisation, folder: RunFolder, home: OrganisationHome, kind: Kind
) -> Iterator[None]:
    """Be in a run with everybody else, and in its record, for the length of a block."""

    def tell(sentence: str) -> None:
        progress.tell(folder.run_id, progress.Notice(own.organisation, sentence))

    with (
        joined_run(folder.run_id, home, policy=own.policy, pipeline=pipeline, kind=kind, tell=tell) as sums,
        recorded_run(sums, home, pipeline, hub_of(pipeline).hub),
    ):
        sums.wait_until_ready()
        yield


def _named(pipeline: Pipeline, file: Path | None) -> Path:
    if file is None:
        raise UserError(
            f"{pipeline.name}: federation is a hub, where every organisation starts its own part. Name this "
            "organisation's own file, as in: lepton run pipeline.yaml --organisation north.yaml"
        )
    return file


def _done_before(folder: RunFolder, name: str) -> PartReport | None:
    path = folder.path / part_path(name)
    return PartReport.model_validate_json(path.read_bytes()) if path.exists() else None
