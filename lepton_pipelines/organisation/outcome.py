"""What becomes of a trained model: gates, publication, aliases, and the document that says it all.

These steps are the publisher's: it holds the model file and the figures that everybody may see, and its own MLflow.
Each can be repeated for a run without doing anything twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from lepton_pipelines.boosting.edges import SMALLEST_BIN
from lepton_pipelines.evaluation.plots import draw
from lepton_pipelines.evaluation.report import render
from lepton_pipelines.evaluation.result import (
    Evaluation,
    GateLine,
    Privacy,
    Registration,
    Reproduction,
)
from lepton_pipelines.evaluation.score_histogram import task_of
from lepton_pipelines.organisation.algorithms import uses_engine
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.reports import PartReport
from lepton_pipelines.registry.gates import Candidate, GateResult, decide
from lepton_pipelines.registry.promotion import Decision, settle
from lepton_pipelines.registry.publishing import Publication, Published, RowsUsed, attach, publish
from lepton_pipelines.registry.signature import InputColumn
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.contract import Column, Contract
from lepton_pipelines.spec.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL_FILE = "model.ubj"
REPORT_FILE = "report.html"
SPEC_FILE = "pipeline.json"
RESULTS_FILE = "results.json"
PACKAGES = ("xgboost-cpu", "xgboost", "numpy", "dask", "prefect", "mlflow")
PRIMARY = {"binary": "auc", "multiclass": "mlogloss", "regression": "rmse"}


@dataclass(frozen=True)
class Outcome:
    """A run that has ended: everything known of its model, and where things are."""

    evaluation: Evaluation
    published: Published
    decision: Decision
    report: str


def judge(pipeline: Pipeline, part: PartReport, model: bytes) -> list[GateResult]:
    """Hold the model against the spec's gates."""
    evaluated = part.evaluated
    federated = next(row for row in evaluated.comparison if row.kind == "federated")
    column = pipeline.gates.fairness.group if pipeline.gates.fairness else None
    gaps = next((one.gaps for one in evaluated.fairness if one.column == column), {})
    candidate = Candidate(
        scores=evaluated.figures.scores,
        organisations=pipeline.members,
        per_organisation=federated.per_organisation,
        verdicts=evaluated.verdicts,
        gaps=gaps,
        size_bytes=len(model),
        latency_ms=evaluated.latency_ms,
        champion=None if evaluated.champion is None else evaluated.champion.scores,
    )
    return decide(pipeline.gates, pipeline.training.objective, candidate)


def publish_model(
    pipeline: Pipeline, parts: Sequence[PartReport], model: bytes, tracking: Tracking, experiment: str | None
) -> Published:
    """Register the model as a new version, with its run: parameters, curves, datasets, figures.

    parts: the publisher's first. Raises UserError for what MLflow refuses.
    """
    mine = parts[0]
    told = pipeline.with_categories(mine.ingest.categories)
    contract = told.read_contract()
    own_history = {one.name: one.history for one in mine.evaluated.organisations if one.history is not None}
    publication = Publication(
        run_id=mine.run_id,
        experiment=experiment or pipeline.name,
        registered_model=pipeline.model_name,
        model=model,
        algorithm=pipeline.training.algorithm,
        columns=[input_column(column) for column in contract.features],
        computed={column.name: column.description or "" for column in contract.derived_columns},
        description=describe(pipeline, mine),
        parameters=shown_parameters(pipeline),
        history=mine.trained.history,
        own_history=own_history,
        scores=mine.evaluated.figures.scores,
        datasets=[rows_used(pipeline, contract, part) for part in parts],
        files={SPEC_FILE: told.with_contract_inside().model_dump_json(indent=2)},
        tags={
            "lepton.organisations": ", ".join(pipeline.members),
            "lepton.spec_digest": pipeline.digest().hex(),
            "lepton.secure_sums": "true",
            **({"lepton.smallest_bin": str(SMALLEST_BIN)} if uses_engine(pipeline) else {}),
            "lepton.code_version": code_version(),
        },
    )
    return publish(tracking, publication)


def settle_model(
    pipeline: Pipeline, published: Published, results: Sequence[GateResult], tracking: Tracking
) -> Decision:
    """Move the aliases as the gates decide, or leave it to a person if the spec says so."""
    return settle(tracking, published.registered_model, published.version, results, promote=pipeline.registry.promote)


def assemble(
    pipeline: Pipeline,
    part: PartReport,
    results: Sequence[GateResult],
    published: Published | None,
    decision: Decision | None,
    seconds: "Mapping[str, float]",
    folder: RunFolder,
) -> Evaluation:
    """Put together everything that is known of the model. published, decision: None where another registers it."""
    evaluated, contract = part.evaluated, pipeline.read_contract()
    label = contract.label
    task = task_of(pipeline.training.objective)
    return Evaluation(
        pipeline=pipeline.name,
        run_id=part.run_id,
        finished=datetime.now(UTC),
        description=contract.description or "",
        label="" if label is None else label.name,
        objective=pipeline.training.objective,
        primary_metric=PRIMARY[task],
        unit=(label.unit or "") if label is not None and task == "regression" else "",
        rounds=part.trained.boosted,
        best_round=part.trained.best_round,
        features=part.binned.features,
        reader=pipeline.publisher if evaluated.shap else None,
        organisations=evaluated.organisations,
        figures=evaluated.figures,
        comparison=in_order(evaluated.comparison),
        champion=evaluated.champion,
        trees_equal=None if part.compared is None else part.compared.trees_equal,
        history=part.trained.history,
        gain=evaluated.gain,
        shap=evaluated.shap,
        fairness=evaluated.fairness,
        gates=[
            GateLine(name=one.name, figure=one.figure, limit=one.limit, passed=one.passed, message=one.message)
            for one in results
        ],
        registration=None
        if published is None or decision is None
        else Registration(
            model=published.registered_model,
            version=published.version,
            alias="champion" if decision.outcome == "champion" else "challenger",
            decision=decision.sentence,
        ),
        privacy=Privacy(
            secure_sums=True,
            parties=len(pipeline.members),
            smallest_bin=SMALLEST_BIN if uses_engine(pipeline) else None,
            notes=privacy_notes(pipeline),
        ),
        wire=part.wire,
        seconds=dict(seconds),
        reproduction=Reproduction(
            command=f"lepton run {folder.path / SPEC_FILE}",
            spec_digest=pipeline.digest().hex(),
            model_digest=part.trained.digest,
            code_version=code_version(),
            packages=package_versions(),
            parameters=shown_parameters(pipeline),
        ),
    )


def record(
    folder: RunFolder, evaluation: Evaluation, published: Published | None = None, tracking: Tracking | None = None
) -> str:
    """Write report and figures into the run's folder and beside the model in MLflow; return the report's path.

    published, tracking: None where another organisation registers the model.
    """
    plots = draw(evaluation)
    page = render(evaluation, plots)
    figures = evaluation.model_dump_json(indent=2)
    path = folder.write(REPORT_FILE, page)
    folder.write(RESULTS_FILE, figures)
    files = {f"plots/{name}.svg": drawn for name, drawn in plots.items()}
    if published is not None and tracking is not None:
        attach(tracking, published, {REPORT_FILE: page, RESULTS_FILE: figures, **files})
    return str(path)


def in_order(rows: Sequence[Any]) -> list[Any]:
    """Sort a comparison as it is read: each alone, the federation, the pooled model, the champion."""
    order = ("alone", "federated", "pooled", "champion")
    return sorted(rows, key=lambda row: order.index(row.kind))


def input_column(column: Column) -> InputColumn:
    """Describe a contract's feature as the served model takes it."""
    kind = "integer" if column.kind == "number" and column.integer else column.kind
    return InputColumn(
        column.name,
        kind=kind if kind in ("number", "integer", "boolean", "category") else "number",
        missing=not column.required,
        categories=tuple(column.categories),
        minimum=column.minimum,
        maximum=column.maximum,
    )


def rows_used(pipeline: Pipeline, contract: Contract, part: PartReport) -> RowsUsed:
    """Describe an organisation's rows for the model's lineage; how many only where it shows that."""
    shown = next((one.rows for one in part.evaluated.organisations if one.name == part.organisation), None)
    return RowsUsed(
        organisation=part.organisation,
        context="training",
        digest=part.validated.digest,
        rows=None if shown is None else shown["train"],
        source=f"{contract.id} {contract.version}",
    )


def describe(pipeline: Pipeline, part: PartReport) -> str:
    """Say in a paragraph what the model is, for people who find it in the registry."""
    scores = part.evaluated.figures.scores
    metric = PRIMARY[task_of(pipeline.training.objective)]
    told = f"{metric} {scores[metric]:.4f} on {part.evaluated.figures.rows} held-out rows" if metric in scores else ""
    return (
        f"Predicts {pipeline.training.label} ({pipeline.training.objective}, {part.trained.rounds} rounds). "
        f"Trained by {', '.join(pipeline.members)} together; no rows left their organisation. {told}. "
        f"{_computed(pipeline)}"
        f"Run {part.run_id}."
    )


def _computed(pipeline: Pipeline) -> str:
    """Name the inputs that whoever calls the model computes."""
    if not pipeline.derived:
        return ""
    return f"Its caller computes {'; '.join(f'{told.name}: {told.explain()}' for told in pipeline.derived)}. "


def privacy_notes(pipeline: Pipeline) -> list[str]:
    """Say what the figures above do not."""
    notes = ["Sums are masked pairwise: what adds them up sees uniformly random numbers."]
    if pipeline.federation == "in-process":
        notes.append("All organisations ran in one process: a demonstration, with nobody to hide from.")
    if pipeline.comparison.pooled:
        notes.append("For the comparison with a pooled model, rows were put together: only a demonstration may do so.")
    return notes


def shown_parameters(pipeline: Pipeline) -> dict[str, Any]:
    """Return the training's parameters that the spec sets, and its rounds."""
    told = pipeline.training.model_dump(exclude_unset=True, mode="json")
    return {name: told[name] for name in told if name != "start"}


def code_version() -> str:
    """Return this library's version."""
    return version("lepton-pipelines")


def package_versions() -> dict[str, str]:
    """Return the versions of what a model's bits may depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
