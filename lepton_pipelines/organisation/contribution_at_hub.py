"""A contribution report at a hub, as one organisation takes part in it: one training after another, then the scores.

All members sign the whole run first. While it is open, those that are left train without each in turn, every training a
run of its own in the ledger; then all train together, hand the models around and score them on everybody's held-out
rows. A part that is started again goes on where it was: what it has trained is kept until the report is there.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lepton_pipelines.evaluation.contribution import ContributionReport
from lepton_pipelines.federation.home_rules import RunHistory
from lepton_pipelines.federation.manifest import Manifest
from lepton_pipelines.federation.proposal import hub_of, nobody_signed
from lepton_pipelines.federation.runs import forget_totals, joined_run
from lepton_pipelines.federation.series import left_out
from lepton_pipelines.federation.stages import StagedSums
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.organisation.checking import check_allowed
from lepton_pipelines.organisation.contribution import report_of, score_all, without
from lepton_pipelines.organisation.folder import RunFolder, write_private
from lepton_pipelines.organisation.hub_record import recorded_run
from lepton_pipelines.organisation.journal import Journal
from lepton_pipelines.organisation.recording import OPENING_FILE
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.organisation.wire import gather
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.sums import SumAborted

TRAINED_FILE = "left-out.ubj"  # a model that stands, of a run that all its members have finished
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class ContributionPart:
    """One organisation's part of a contribution report at a hub.

    pipeline: its own copy. own: its own file. run: the whole run's id. home: with its keys. told: what is going on, a
    line each.
    """

    pipeline: Pipeline
    own: Organisation
    run: str
    var: Path
    home: OrganisationHome
    told: Callable[[str], None]

    @property
    def name(self) -> str:
        """The organisation's name."""
        return self.own.organisation

    def measure(self) -> ContributionReport:
        """Take part until the report is there, the same at every member; a run that is new to the hub is proposed.

        Raises UserError if this organisation's own rules refuse it, RunSuspended if a member was away for too long,
        SumAborted if one stopped.
        """
        if not self.pipeline.contribution.report:
            raise UserError(nobody_signed(self.pipeline))
        began = time.perf_counter()
        self._check()
        models: dict[str, bytes] = {}
        with self._joined(self.run, None) as whole:
            self._wait_until_signed(whole)
            for name in self.pipeline.members:
                if name != self.name:
                    models[name] = self._train_without(name, whole)
            whole.wait_until_ready()
            with recorded_run(whole, self.home, self.pipeline, hub_of(self.pipeline).hub):
                report = self._train_with_all(whole, models, began)
        for run in (self.run, *(self._run_without(name) for name in models)):
            forget_totals(run, self.home)
            RunFolder(self.var, run).keep_only(OPENING_FILE)
        return report

    def _wait_until_signed(self, whole: StagedSums) -> None:
        """Wait until every member has signed; one that comes back is waited for in a training, not in the whole run."""
        with closing(RunHistory(self.home.folder)) as history:
            if not history.is_complete(self.run):
                whole.wait_until_ready()
                history.complete(self.run)

    def _check(self) -> None:
        """Refuse before anybody is invited what this organisation's policy does not allow of any of the trainings."""
        journal, others = Journal.of(self.var, self.name), [n for n in self.pipeline.members if n != self.name]
        runs = {self._run_without(name): without(self.pipeline, name) for name in others}
        journal.check(self.own, self.run, runs=len(runs) + 1, begun=runs)
        for run, pipeline in {self.run: self.pipeline, **runs}.items():
            check_allowed(pipeline, self.own, self.var, run, trains=False)

    def _run_without(self, name: str) -> str:
        return f"{self.run}-without-{name}"

    @contextmanager
    def _joined(self, run: str, manifest: Manifest | None) -> Iterator[StagedSums]:
        with joined_run(
            run,
            self.home,
            policy=self.own.policy,
            pipeline=self.pipeline,
            kind="contribution",
            manifest=manifest,
            tell=self.told,
        ) as sums:
            yield sums

    def _train_without(self, name: str, whole: StagedSums) -> bytes:
        """Return the model without one member, trained with the others, or that of the attempt before."""
        manifest = left_out(whole.manifest, name)
        folder = RunFolder(self.var, manifest.run)
        kept = folder.of(self.name).path / TRAINED_FILE
        if kept.exists():
            return kept.read_bytes()
        folder.create()
        with (
            self._joined(manifest.run, manifest) as sums,
            recorded_run(sums, self.home, self.pipeline, hub_of(self.pipeline).hub),
        ):
            _wait_until_ready(sums, whole)
            with self._part(without(self.pipeline, name), sums, folder) as part:
                model = _train(part)
                _end(part, sums, hashlib.sha256(model).digest())
        write_private(kept, model)
        self.told(f"without {name}: trained")
        return model

    def _train_with_all(self, whole: StagedSums, models: dict[str, bytes], began: float) -> ContributionReport:
        with self._part(self.pipeline, whole, RunFolder(self.var, self.run)) as part:
            model = _train(part)
            self.told("with all: trained")
            shared = {name: _hand_around(part, name, models.get(name)) for name in self.pipeline.members}
            held_out, scores = score_all(part, shared)
            seconds = time.perf_counter() - began
            report = report_of(self.pipeline, self.run, {"": model, **shared}, scores, held_out, seconds)
            _end(part, whole, hashlib.sha256(json.dumps(scores, sort_keys=True).encode() + model).digest())
            return report

    @contextmanager
    def _part(self, pipeline: Pipeline, sums: StagedSums, folder: RunFolder) -> Iterator[OrganisationRun]:
        part = OrganisationRun(
            pipeline, self.own, sums, folder, repeats=sums.repeats, guard=sums.guard, registers=False
        )
        try:
            yield part
        finally:
            part.close()


def _train(part: OrganisationRun) -> bytes:
    part.ingest()
    part.validate()
    part.bin()
    part.train()
    return part.model


def _end(part: OrganisationRun, sums: StagedSums, outcome: bytes) -> None:
    """End a training together: in the ledger, and at the hub. outcome: what must be the same at every member."""
    if part.record is not None:
        part.record.finish(part.model)
    sums.finish(outcome)


def _wait_until_ready(sums: StagedSums, whole: StagedSums) -> None:
    """Wait until all that are left are here. Raises SumAborted if the whole run, which the left-out one is in, ends."""
    ready = False
    while not ready:
        try:
            sums.wait_until_ready(timeout=_LOOK_SECONDS)
            ready = True
        except TimeoutError:
            if whole.ended:
                sums.abort("the contribution report that it belongs to has ended")
                whole.wait_until_ready()  # raises what ended it
                raise SumAborted(f"run {whole.manifest.run} has ended") from None


def _hand_around(part: OrganisationRun, name: str, mine: bytes | None) -> bytes:
    """Return the model without a member, which it gets from the first of the others, too; mine: as it stands here.

    Raises UserError if a model was handed around that is not the one that stands here.
    """
    teller = next(each for each in part.pipeline.members if each != name)
    document = mine if part.name == teller and mine is not None else b""
    members = part.pipeline.members
    told = gather(part.sums, f"contribution/without {name}", member=part.name, members=members, document=document)
    if mine is not None and told[teller] != mine:
        raise UserError(f"{teller} has handed around another model without {name} than the one that was trained here.")
    return told[teller]
