"""What each organisation's rows add to the model: trained with all, and once more without each in turn.

All models are scored on everybody's held-out rows, the left-out organisation's included, so that the scores can be held
against each other. Nothing is registered. Every member has signed for it: it is part of the spec's digest, and each
one's policy says so at home; docs/security.md shows what the totals of such runs give away.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from lepton_pipelines.boosting.model_file import read_model
from lepton_pipelines.evaluation.contribution import Added, ContributionReport, gain
from lepton_pipelines.evaluation.result import Scores
from lepton_pipelines.evaluation.score_histogram import task_of
from lepton_pipelines.federation.proposal import nobody_signed
from lepton_pipelines.federation.runs import join
from lepton_pipelines.ledger.predicate import disclosed
from lepton_pipelines.organisation.algorithms import uses_engine
from lepton_pipelines.organisation.checking import check_allowed, check_product
from lepton_pipelines.organisation.disclosure import contribution_notes
from lepton_pipelines.organisation.evaluating import Contender, Evaluating
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.journal import Journal
from lepton_pipelines.organisation.outcome import PRIMARY
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import Pipeline

Part = TypeVar("Part")


class InStep(Protocol):
    """Does every organisation's part of a run at the same time; returns what they return, by the members' order."""

    def __call__(self, pipeline: Pipeline, run_id: str, start: Callable[[str], Part], /) -> list[Part]:
        """Do them all."""
        ...


@dataclass(frozen=True)
class Trained:
    """What one member tells of one training. rows, digest: of its own rows; scores: by model, with all members only."""

    organisation: str
    model: bytes
    rows: int
    digest: str
    scores: dict[str, Scores]
    held_out: int


@dataclass(frozen=True)
class Training:
    """One of the trainings: with whom, without whom, and what its members tell of it. without: None is with all."""

    run: str
    pipeline: Pipeline
    without: str | None
    parts: list[Trained]

    @property
    def model(self) -> bytes:
        """The model, the same at every member."""
        return self.parts[0].model

    @property
    def trees(self) -> int:
        """Boosting rounds; 1 for a model that grows no trees, as the ledger counts it."""
        return trees_of(self.pipeline, self.model)


def measure(
    pipeline: Pipeline, run: str, var: Path, in_step: InStep, told: Callable[[str], None] = lambda _: None
) -> tuple[ContributionReport, list[Training]]:
    """Train with all and without each in turn; return what each one's rows added, and the trainings, all first.

    run: the report's id. told: what is going on, a line each. Raises UserError if not everybody signed for it.
    """
    if not pipeline.contribution.report:
        raise UserError(nobody_signed(pipeline))
    began = time.perf_counter()
    organisations = pipeline.read_organisations()
    asked = [(f"{run}-without-{name}", without(pipeline, name), name) for name in pipeline.members]
    _check(pipeline, organisations, var, run, asked)
    trainings, models = [], {}
    for run_id, shorter, name in asked:
        one = _train(shorter, run_id, name, organisations, var, in_step, {})
        told(f"without {name}: {one.trees} rounds")
        trainings.append(one)
        models[name] = one.model
    everybody = _train(pipeline, run, None, organisations, var, in_step, models)
    told(f"with all: {everybody.trees} rounds")
    scores, held_out = everybody.parts[0].scores, everybody.parts[0].held_out
    report = report_of(pipeline, run, {"": everybody.model, **models}, scores, held_out, time.perf_counter() - began)
    return report, [everybody, *trainings]


def report_of(
    pipeline: Pipeline, run: str, models: dict[str, bytes], scores: dict[str, Scores], held_out: int, seconds: float
) -> ContributionReport:
    """Return what each organisation's rows added. models, scores: by who was left out; by no name, of all.

    Raises UserError if the metric that the pipeline names is not among the scores.
    """
    metric = pipeline.contribution.metric or PRIMARY[task_of(pipeline.training.objective)]
    if metric not in scores[""]:
        known = ", ".join(sorted(scores[""]))
        raise UserError(f"contribution.metric: {metric} is not scored here; there are {known}.")
    added = [
        Added(
            organisation=name,
            scores=scores[name],
            added=gain(metric, scores[""][metric], scores[name][metric]),
            trees=trees_of(pipeline, models[name]),
        )
        for name in pipeline.members
    ]
    return ContributionReport(
        run=run,
        pipeline=pipeline.name,
        metric=metric,
        members=pipeline.members,
        rows=disclosed(held_out),
        scores=scores[""],
        trees=trees_of(pipeline, models[""]),
        added=sorted(added, key=lambda one: (-one.added, one.organisation)),
        trainings=len(models),
        seconds=seconds,
        reveals=contribution_notes(pipeline),
    )


def trees_of(pipeline: Pipeline, model: bytes) -> int:
    """Return how many boosting rounds a model has; 1 if it grows no trees, as the ledger counts it."""
    return len(read_model(model).rounds) - 1 if uses_engine(pipeline) else 1


def without(pipeline: Pipeline, name: str) -> Pipeline:
    """Return the spec of a training without one organisation; for terms and policies, whose model it is stays."""
    told = pipeline.organisations
    registry = pipeline.registry.model_copy(update={"publisher": pipeline.publisher})
    others: object = [each for each in told if each != name]
    if isinstance(told, dict):  # in one process they name files
        others = {each: file for each, file in told.items() if each != name}
    return pipeline.model_copy(update={"organisations": others, "registry": registry})


def _check(
    pipeline: Pipeline,
    organisations: dict[str, Organisation],
    var: Path,
    run: str,
    asked: list[tuple[str, Pipeline, str]],
) -> None:
    """Refuse before anything is trained: every run, by the policy and the product's terms of each of its members."""
    problems: list[str] = []
    for name, organisation in organisations.items():
        try:
            Journal.of(var, name).check(organisation, run, runs=len(asked))  # all but the one without it
        except UserError as error:
            problems += error.problems
    for run_id, one in [(run, pipeline), *((run_id, shorter) for run_id, shorter, _ in asked)]:
        for name in one.members:
            try:
                check_allowed(one, organisations[name], var, run_id)
                check_product(one, organisations[name], var, run_id)
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(list(dict.fromkeys(problems)))


def _train(
    pipeline: Pipeline,
    run_id: str,
    left_out: str | None,
    organisations: dict[str, Organisation],
    var: Path,
    in_step: InStep,
    models: dict[str, bytes],
) -> Training:
    """Train once. models: scored beside the new one, by who was left out."""
    folder = RunFolder(var, run_id)
    folder.create()

    def start(name: str) -> Trained:
        with join(run_id, name) as sums:
            share = len(pipeline.members)
            part = OrganisationRun(pipeline, organisations[name], sums, folder, share=share, registers=False)
            try:
                part.ingest()
                part.validate()
                part.bin()
                part.train()
                held_out, scores = score_all(part, models) if models else (0, {})
                sums.finish(hashlib.sha256(part.model).digest())
                return Trained(name, part.model, part.summary.total, part.digest, scores, held_out)
            finally:
                part.close()

    try:
        return Training(run_id, pipeline, left_out, in_step(pipeline, run_id, start))
    except BaseException:
        folder.discard()
        raise


def score_all(part: OrganisationRun, models: dict[str, bytes]) -> tuple[int, dict[str, Scores]]:
    """Score the new model (by no name) and those without somebody on everybody's held-out rows."""
    own = np.array([part.summary.rows["test"]], np.int64)
    held_out = int(part.sums.sum("contribution/rows", own, bound=1 << 40)[0])
    if held_out == 0:
        raise UserError("The split holds no rows out: nothing can be compared on. Set split.test.")
    algorithm, scoring = part.pipeline.training.algorithm, Evaluating(part)
    found = {}
    for name, model in {"": part.model, **models}.items():
        contender = Contender(f"without {name}" if name else "everybody", "federated", model, algorithm)
        found[name] = scoring.score(contender, held_out).scores
    return held_out, found
