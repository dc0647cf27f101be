"""One organisation's part of a run, from its files to the figures: ingest, validate, bin, train, compare, evaluate.

Each step is called once, in this order, and returns a report. Everything that others learn passes through `sums`.
The part is keyed by the run's id: a part that is started again goes on at its last tree.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

import numpy as np

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.progress import Progress, RoundReport
from lepton_pipelines.boosting.training import Boosted, boost
from lepton_pipelines.compute.cluster import open_cluster
from lepton_pipelines.compute.pinned import PinnedRows
from lepton_pipelines.data.lineage import dataset_digest
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.data.violations import Violations
from lepton_pipelines.federation.home_rules import RowGuard
from lepton_pipelines.organisation import progress
from lepton_pipelines.organisation.algorithms import ToHeld, model_file, uses_engine
from lepton_pipelines.organisation.algorithms import train as train_otherwise
from lepton_pipelines.organisation.checking import check_allowed, check_product, check_split
from lepton_pipelines.organisation.checkpoint_keeper import CheckpointKeeper
from lepton_pipelines.organisation.comparison import Compared, compare
from lepton_pipelines.organisation.evaluating import Evaluating, ModelInUse, shared_champion
from lepton_pipelines.organisation.folder import QUARANTINE, ROWS_FILE, RunFolder, write_private
from lepton_pipelines.organisation.found_categories import settle_categories
from lepton_pipelines.organisation.hub_record import record_of
from lepton_pipelines.organisation.journal import Journal
from lepton_pipelines.organisation.kept_edges import edges_of_run
from lepton_pipelines.organisation.models import first_rounds, rounds_of, without_statistics
from lepton_pipelines.organisation.product_use import ProductUse
from lepton_pipelines.organisation.reading import read_rows
from lepton_pipelines.organisation.recording import opening_of
from lepton_pipelines.organisation.reports import (
    BinReport,
    CompareReport,
    EvaluateReport,
    IngestReport,
    PartReport,
    Report,
    TrainReport,
    ValidateReport,
)
from lepton_pipelines.organisation.rows import (
    DigestRows,
    ToShard,
    feature_schema,
    summarise,
    together,
)
from lepton_pipelines.organisation.wire import CountedSums
from lepton_pipelines.registry.champion import OpenRegistry, open_registry
from lepton_pipelines.spec.algorithm import Trained
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.hub import Hub
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import KeySplit, Pipeline
from lepton_pipelines.spec.training import Training
from lepton_pipelines.sums import Sums

Reported = TypeVar("Reported", bound=Report)


class OrganisationRun:
    """One organisation's part of one run.

    sums: joins it to the other organisations. folder: the run's. share: how many organisations share this
    machine's cores. repeats: whether a part that is started again repeats its sums from the first on (at a hub, which
    has their totals written down at home) instead of going on at the last tree that all have. guard: refuses rows
    that differ by a few from an earlier run's. trains: whether a model comes of it; else rows are compared.
    registers: whether the publisher registers that model.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        organisation: Organisation,
        sums: Sums,
        folder: RunFolder,
        *,
        share: int = 1,
        repeats: bool = False,
        guard: RowGuard | None = None,
        trains: bool = True,
        registers: bool = True,
    ) -> None:
        self.repeats, self.guard, self.trains, self.registers = repeats, guard, trains, registers
        self.pipeline, self.organisation, self.folder, self.share = pipeline, organisation, folder, share
        self.name = organisation.organisation
        self.sums = CountedSums(sums)
        self.contract = pipeline.read_contract()
        self.features = feature_schema(self.contract)
        self.engine = uses_engine(pipeline)
        self.parameters = booster_parameters(pipeline)
        self.evaluation = ("train", "valid") if has_validation(pipeline) else ("train",)
        label = self.contract.label
        if label is None:
            raise ValueError(f"contract {self.contract.id} marks no label")
        self.label = label
        self.compared = Compared()
        self.own_folder = folder.of(self.name)
        self.reports: dict[str, Report] = {}
        self.rows: PinnedRows
        self.binning: Binning
        self.boosted: Boosted | Trained
        self.model: bytes
        self.complete_model: bytes  # with node statistics, whatever the spec says of what is shared
        self.record = record_of(folder.run_id, self.name)
        self.product: ProductUse | None = None
        self._journal = Journal.of(folder.var, self.name)
        self._registry: Future[OpenRegistry] | None = None
        self._categories: dict[str, list[str]] | None = None
        self._resources = ExitStack()

    @property
    def keeps_edges(self) -> bool:
        """Whether bins' edges are kept from run to run."""
        training = self.pipeline.training
        return isinstance(training, Training) and training.edges == "kept"

    @property
    def publishes(self) -> bool:
        """Whether this organisation registers the model."""
        return self.registers and self.name == self.pipeline.publisher

    def champion(self) -> ModelInUse | None:
        """Return the model in use; None if there is none, or we do not publish."""
        if self._registry is None:
            return None
        found = self._registry.result().champion(self.notice)
        return None if found is None else ModelInUse(found.version, found.algorithm, found.model, found.categories)

    def ingest(self) -> IngestReport:
        """Open the source and the cluster, and have every worker read its pieces.

        Raises UserError for what policy, storage or the files' columns do not allow.
        """
        self._resources.close()  # an attempt before this one
        check_allowed(self.pipeline, self.organisation, self.folder.var, self.folder.run_id, trains=self.trains)
        self.product = check_product(self.pipeline, self.organisation, self.folder.var, self.folder.run_id)
        return self._step("ingest", self._ingest)

    def _ingest(self) -> IngestReport:
        if self.publishes:
            # Whether the model can be registered is said before it is trained; MLflow takes seconds to import.
            opening = self._resources.enter_context(ThreadPoolExecutor(1, thread_name_prefix="mlflow"))
            self._registry = opening.submit(
                open_registry,
                self.organisation.tracking.mlflow,
                folder=self.folder.var.absolute(),
                name=self.pipeline.model_name,
            )
        source = open_source(self.organisation, self.contract)
        self.client = client = self._resources.enter_context(
            open_cluster(self.organisation.compute, organisation=self.name, share=self.share)
        )
        if self._categories is None:  # sums are made once, also where reading is tried again
            self._categories = settle_categories(self, client, source)
            self.contract = self.contract.with_categories(self._categories)
            self.features = feature_schema(self.contract)
        source = replace(source, contract=self.contract)
        if source.table_version is not None:
            self.notice(f"reads version {source.table_version} of Delta table {self.organisation.data.url}")
        quarantine = None
        if self.organisation.on_violation == "quarantine":
            quarantine = str((self.own_folder.path / QUARANTINE).absolute())
        self.rows = read_rows(
            client, source, self.pipeline.split, quarantine=quarantine, on_loss=self.notice, tell=self._tell
        )
        self._resources.callback(self.rows.close)
        threads = client.nthreads()  # type: ignore[no-untyped-call]
        self.threads = min(threads[part.worker] for part in self.rows.parts)
        self.summary = together(self.rows.ask(summarise))
        if self.guard is not None:
            first, *others = self.rows.ask(DigestRows(self.guard.salt))
            self.guard.check(sum(others, first))
        shown = None if np.isnan(self.summary.label_mean) else self.summary.label_mean
        self._tell(progress.RowsRead(self.name, self.summary.total, shown, len(self.rows.parts)))
        return IngestReport(
            organisation=self.name,
            files=len(source.files),
            size=source.size,
            table_version=source.table_version,
            rows=self.summary.rows,
            label_mean=shown,
            workers=len(self.rows.parts),
            threads=self.threads,
            categories=self._categories,
            seconds=0,
        )

    def validate(self) -> ValidateReport:
        """Refuse rows that break the contract; then wait until everybody has accepted theirs.

        Raises UserError with every problem of this organisation's rows.
        """
        return self._step("validate", self._validate)

    def _validate(self) -> ValidateReport:
        found: Violations = sum((held for held in self.rows.ask(_violations)), Violations())
        found.refuse(self.contract, organisation=self.name, on_violation=self.organisation.on_violation)
        check_split(self.name, self.summary.rows)
        warnings = found.warnings(self.contract, organisation=self.name)
        for warning in warnings:
            self.notice(warning.removeprefix(f"{self.name}: "))  # a notice says whose it is by itself
        self.digest = dataset_digest(digest for part in self.rows.ask(_digests) for digest in part)
        algorithm, policy = self.pipeline.training.algorithm, self.organisation.policy
        held = ToShard(self.threads, self.keeps_edges) if self.engine else ToHeld(algorithm, policy)
        self.rows.change(held)
        if self._registry is not None:
            self._registry.result()
        # Nobody bins before everybody's rows are accepted, and all work from the same spec.
        agreed, agreed_on = self.pipeline.digest(), self.pipeline.read_contract()
        self.sums.sum("agreement/accepted", np.ones(1, np.int64), bound=len(self.pipeline.members), context=agreed)
        if self.record is not None:
            self.record.begin(opening_of(self.name, agreed_on, self.digest, self.summary.total, self.own_folder.path))
        if self.product is not None:
            self.product.say()
        return ValidateReport(
            organisation=self.name,
            checked=found.rows,
            set_aside=found.rejected,
            warnings=warnings,
            digest=self.digest,
            seconds=0,
        )

    def bin(self) -> BinReport:
        """Agree on the bins' edges, without showing anyone a value; or take those of the attempt before."""
        return self._step("bin", self._bin)

    def _bin(self) -> BinReport:
        self._journal.note(self.folder.run_id, self.pipeline.name)
        if not self.engine:
            return BinReport(organisation=self.name, features=self.features.count, bins=0, sums=0, seconds=0)
        before, kept = self.sums.traffic.sums, False
        self.resumed_at = 0 if self.repeats else self._agree_on_resuming()
        if self.resumed_at:
            self.binning = self._progress().binning
        else:
            agreed = edges_of_run(self)
            self.binning, kept = agreed.binning, agreed.kept
            if kept:
                self.notice("the bins' edges are those of an earlier run: training.edges is kept")
        return BinReport(
            organisation=self.name,
            features=self.binning.features,
            bins=int(self.binning.bins.sum()),
            sums=self.sums.traffic.sums - before,
            kept=kept,
            seconds=0,
        )

    def train(self) -> TrainReport:
        """Boost, keeping the progress as it goes; the model is cut after its best round.

        Raises UserError for rows or parameters that cannot be trained with; SumAborted if another member stopped.
        """
        return self._step("train", self._train)

    def _train(self) -> TrainReport:
        training = self.pipeline.training
        if not isinstance(training, Training):
            return self._train_otherwise()
        resume = self._progress() if self.resumed_at else None
        start = self._champion_to_start_from() if training.start == "champion" and resume is None else None
        # A run that goes on from a champion has its rounds before its own, also when it is resumed.
        begun_with = rounds_of(start) if start else rounds_of(resume.model) - self.resumed_at if resume else 0
        self.boosted = boosted = boost(
            self.parameters,
            self.rows,
            sums=self.sums,
            rounds=training.rounds + (begun_with if resume else 0),
            features=self.features,
            evaluation=self.evaluation,
            early_stopping_rounds=training.early_stopping_rounds,
            edges=None if resume else self.binning,
            callbacks=[self],
            warm_start=start,
            resume=resume,
            checkpoint=CheckpointKeeper(self).keep,
            pad_levels=isinstance(self.pipeline.federation, Hub) and self.pipeline.federation.pad_levels,
        )
        best = boosted.best_iteration
        self.complete_model = boosted.model
        if best is not None:
            self.complete_model = first_rounds(boosted.model, begun_with + best + 1)
        self.model = self.shared(self.complete_model)
        write_private(self.own_folder.path / model_file(self.pipeline), self.model)
        return TrainReport(
            organisation=self.name,
            rounds=boosted.rounds if best is None else begun_with + best + 1,
            boosted=boosted.rounds,
            best_round=None if best is None else best + 1,
            resumed_at=self.resumed_at,
            digest=hashlib.sha256(self.model).hexdigest(),
            history=boosted.history,
            own_history=boosted.own_history,
            seconds=0,
        )

    def _train_otherwise(self) -> TrainReport:
        """Train with an algorithm that is not the engine."""
        start = self._champion_to_start_from() if self.pipeline.training.start == "champion" else None
        self.boosted = trained = train_otherwise(self, champion=start)
        self.model = self.complete_model = trained.model
        write_private(self.own_folder.path / model_file(self.pipeline), self.model)
        return TrainReport(
            organisation=self.name,
            rounds=trained.rounds,
            boosted=trained.rounds,
            best_round=None,
            resumed_at=0,
            digest=hashlib.sha256(self.model).hexdigest(),
            history=_listed(trained.history),
            own_history=_listed(trained.own_history),
            seconds=0,
        )

    def compare(self) -> CompareReport | None:
        """Train what a demo compares the federation with; None if the spec asks for no comparison."""
        told = self.pipeline.comparison
        if not (told.alone or told.pooled):
            return None
        return self._step("compare", self._compare)

    def _compare(self) -> CompareReport:
        self.compared = compare(self)
        return CompareReport(organisation=self.name, rows=[], trees_equal=self.compared.trees_equal, seconds=0)

    def evaluate(self) -> EvaluateReport:
        """Score the held-out rows of all organisations, and the champion on the same rows."""
        report = self._step("evaluate", lambda: Evaluating(self).evaluate())
        if self.record is not None:
            self.record.finish(self.model)
        return report

    def report(self) -> PartReport:
        """Return everything that was reported, before `close`. Raises KeyError before all steps were done."""
        steps = {"ingest": "ingest", "validated": "validate", "binned": "bin", "trained": "train"}
        steps |= {"evaluated": "evaluate"}
        return PartReport.model_validate(
            {
                "organisation": self.name,
                "run_id": self.folder.run_id,
                **{field: self.reports[step] for field, step in steps.items()},
                "compared": self.reports.get("compare"),
                "wire": self.sums.by_purpose(),
                "core_seconds": self.rows.core_seconds(),
            }
        )

    def shared(self, model: bytes) -> bytes:
        """Return a model as others get it: without node statistics if the spec says so."""
        return without_statistics(model) if self.pipeline.registry.node_statistics == "strip" else model

    def once(self, name: str, say: Callable[[], bytes]) -> bytes:
        """Return what goes into a sum and would be another the next time; where sums are repeated, what it was before.

        Timings and the champion's version are such: a repeated sum with other numbers is refused.
        """
        if not self.repeats:
            return say()
        path = self.own_folder.path / f"said-{name.replace('/', '-')}"
        if not path.exists():
            write_private(path, say())
        return path.read_bytes()

    def close(self) -> None:
        """Let go of the rows and the cluster."""
        self._resources.close()

    def on_round(self, report: RoundReport) -> None:
        """Tell of a round that the engine has finished."""
        self._tell(
            progress.RoundFinished(
                self.name,
                report.round + 1,
                report.rounds,
                report.scores,
                report.own_scores if self.organisation.policy.share_scores else {},
                report.traffic.bytes_sent,
                report.seconds,
            )
        )

    def _agree_on_resuming(self) -> int:
        """Return after how many rounds all members have a checkpoint; 0 if one of them has none."""
        counts = np.zeros(self.pipeline.training.rounds + 1, np.int64)
        counts[0] = 1
        if self._same_rows():
            counts[[rounds for rounds in self.own_folder.rounds() if rounds < len(counts)]] = 1
        members = len(self.pipeline.members)
        total = self.sums.sum("agreement/checkpoints", counts, bound=members, context=self.pipeline.digest())
        agreed = int(np.flatnonzero(total == members).max())
        self.own_folder.forget_after(agreed)
        write_private(self.own_folder.path / ROWS_FILE, self.digest)
        return agreed

    def _same_rows(self) -> bool:
        """Tell whether the rows are those of the attempt before; trees grown on others are not gone on with."""
        path = self.own_folder.path / ROWS_FILE
        if not self.own_folder.rounds() or not path.exists() or path.read_text() == self.digest:
            return True
        self.notice("its rows have changed since this run began: the trees are grown anew")
        return False

    def _progress(self) -> Progress:
        return Progress.from_bytes(self.own_folder.read_checkpoint(self.resumed_at))

    def _champion_to_start_from(self) -> bytes | None:
        found = shared_champion(self, "agreement/start")
        if found is None:
            self.notice("there is no champion to go on from: training anew")
            return None
        if found.algorithm != self.pipeline.training.algorithm:
            raise UserError(
                f"training.start is champion, but the champion (v{found.version}) is a model of algorithm "
                f"{found.algorithm}, not {self.pipeline.training.algorithm}. Write start: anew."
            )
        if other := found.other_codes(self.contract):
            self.notice(f"the champion was trained with other categories of {', '.join(other)}: training anew")
            return None
        return found.model

    def _step(self, stage: progress.Stage, work: Callable[[], Reported]) -> Reported:
        began = time.perf_counter()
        self._tell(progress.StageStarted(self.name, stage))
        report = work()
        seconds = time.perf_counter() - began
        report = report.model_copy(update={"seconds": seconds})
        self.reports[stage] = report
        self._tell(progress.StageFinished(self.name, stage, seconds))
        return report

    def notice(self, message: str) -> None:
        """Tell a person something about this organisation's part."""
        self._tell(progress.Notice(self.name, message))

    def _tell(self, event: progress.Event) -> None:
        progress.tell(self.folder.run_id, event)


def booster_parameters(pipeline: Pipeline) -> BoosterParameters:
    """Return the booster's part of a pipeline's training; the defaults if it is trained with another algorithm."""
    if not uses_engine(pipeline):
        return BoosterParameters()
    told = pipeline.training.model_dump(exclude_unset=True)
    return BoosterParameters.read({name: told[name] for name in told if name in BoosterParameters.model_fields})


def has_validation(pipeline: Pipeline) -> bool:
    """Tell whether the split sets rows aside for validation."""
    split = pipeline.split
    return split.valid > 0 if isinstance(split, KeySplit) else split.valid_from is not None


def _listed(history: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, list[float]]]:
    return {name: {metric: list(scores) for metric, scores in by.items()} for name, by in history.items()}


def _violations(held: object) -> Violations:
    return held.violations  # type: ignore[attr-defined, no-any-return]


def _digests(held: object) -> tuple[bytes, ...]:
    return held.digests  # type: ignore[attr-defined, no-any-return]
