"""What an evaluation says: one document that holds every figure of the report and can be written as JSON.

Figures are the federation's unless a field is called after an organisation. An organisation's own figures are
there only where its policy allows that; a field that is None was not allowed or not defined (an AUC of rows that
all have one label), and the report says so in its place.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["binary", "regression", "multiclass"]
Scores = dict[str, float]
History = dict[str, dict[str, list[float]]]
"""{row set: {metric: [score after round 1, …]}}, as `xgboost.train(evals_result=…)` fills it."""

HIGHER_IS_BETTER = frozenset({"auc", "aucpr", "r2", "accuracy", "recall", "precision", "map", "ndcg", "pre"})
"""Metrics that are better when larger, by XGBoost's names; all others are better when smaller."""


def better(metric: str, score: float, other: float) -> bool:
    """Say whether a score beats another one in the metric's own direction (ties beat nothing)."""
    return score > other if metric.partition("@")[0] in HIGHER_IS_BETTER else score < other


class Figure(BaseModel):
    """A part of an evaluation: unknown fields are errors, so that reader and writer cannot drift apart."""

    model_config = ConfigDict(extra="forbid")


class Curve(Figure):
    """Points to be joined by a line."""

    x: list[float]
    y: list[float]


class CalibrationBin(Figure):
    """Rows whose predicted probability lies in [low, high): what was predicted and what happened."""

    low: float
    high: float
    rows: float = Field(description="rows, or the sum of their weights")
    predicted: float | None = Field(description="mean predicted probability; None for an empty bin")
    observed: float | None = Field(description="share of positives; None for an empty bin")


class Confusion(Figure):
    """Rows by true class (outer list) and predicted class (inner list)."""

    classes: list[str]
    counts: list[list[float]]
    threshold: float | None = Field(
        default=None, description="binary only: predicted positive from this probability on"
    )


class BinaryFigures(Figure):
    """What the totals of a binary score histogram say."""

    task: Literal["binary"] = "binary"
    rows: int
    scores: Scores
    auc_resolution: float = Field(description="the AUC of the unbinned scores differs by at most this much")
    roc: Curve
    precision_recall: Curve
    calibration: list[CalibrationBin]
    confusion: Confusion


class RegressionFigures(Figure):
    """What the totals of a regression score histogram say."""

    task: Literal["regression"] = "regression"
    rows: int
    scores: Scores
    error_edges: list[float]
    error_counts: list[float]
    value_edges: list[float] = Field(description="edges of both axes of `joint`")
    joint: list[list[float]] = Field(description="rows by actual value (outer list) and predicted value (inner list)")


class MulticlassFigures(Figure):
    """What the totals of a multi-class score histogram say."""

    task: Literal["multiclass"] = "multiclass"
    rows: int
    scores: Scores
    class_auc: dict[str, float] = Field(description="each class against the rest; classes without rows are left out")
    roc: dict[str, Curve]
    calibration: list[CalibrationBin] = Field(description="of the probability of the predicted class")
    confusion: Confusion


Figures = Annotated[BinaryFigures | RegressionFigures | MulticlassFigures, Field(discriminator="task")]


class GroupRates(Figure):
    """How a declared group fares; every figure is None where the group has too few rows to be shown."""

    group: str
    rows: int | None = Field(description="None below the smallest group that is shown")
    selection_rate: float | None = Field(default=None, description="share predicted positive")
    true_positive_rate: float | None = Field(default=None, description="share of its positives predicted positive")
    auc: float | None = None
    calibration_gap: float | None = Field(default=None, description="|mean probability − share of positives|")


class Fairness(Figure):
    """Differences between the groups of one declared column, over those groups that have enough rows."""

    column: str
    threshold: float
    groups: list[GroupRates]
    smallest_group: int = Field(description="groups with fewer rows are not shown and not compared")
    gaps: Scores = Field(description="by the names that gates use; what fewer than two groups have is left out")


class OrganisationFigures(Figure):
    """One organisation in the report. Fields are None where its policy does not allow them to be shown."""

    name: str
    rows: dict[str, int] | None = Field(default=None, description="rows by set: train, valid, test")
    share: float | None = Field(default=None, description="share of positives, or mean label")
    workers: int | None = None
    scores: Scores | None = Field(default=None, description="the federated model's scores on its own test rows")
    history: History | None = None
    seconds: dict[str, float] | None = Field(default=None, description="by step: ingest, bin, train, evaluate")
    core_seconds: float | None = Field(default=None, description="processor time of its Dask workers, up to here")
    bytes_sent: int | None = None
    bytes_received: int | None = None
    sums: int | None = None


class ComparisonRow(Figure):
    """A model on the same held-out rows: one organisation's own, the federated, the champion or the pooled one."""

    name: str
    kind: Literal["alone", "federated", "champion", "pooled"]
    scores: Scores
    per_organisation: dict[str, Scores] = Field(default_factory=dict, description="on each one's rows, where allowed")
    note: str = ""

    def worst(self, metric: str) -> float | None:
        """Give the worst organisation's score, or None if none is known."""
        values = [scores[metric] for scores in self.per_organisation.values() if metric in scores]
        if not values:
            return None
        return min(values) if metric.partition("@")[0] in HIGHER_IS_BETTER else max(values)

    def spread(self, metric: str) -> float | None:
        """Give the distance between the best and the worst organisation's score, or None if none is known."""
        values = [scores[metric] for scores in self.per_organisation.values() if metric in scores]
        return max(values) - min(values) if values else None


class TreesEqual(Figure):
    """Whether the federated trees are those that stock XGBoost grows on the pooled rows with the same edges."""

    equal: bool
    trees_equal: int
    trees: int
    largest_margin_difference: float | None = None
    reference: str = Field(description="for example: XGBoost 3.4.1, hist, pooled rows, same edges")


class Importance(Figure):
    """How much a feature matters; sorted, largest first."""

    feature: str
    value: float


class GateLine(Figure):
    """One gate's outcome, as the registry decided it."""

    name: str
    figure: float | None = Field(description="None where an organisation does not allow its figure to be shown")
    limit: float
    passed: bool
    message: str


class Champion(Figure):
    """The model in use when this one was judged, on the same held-out rows."""

    version: str
    scores: Scores


class Registration(Figure):
    """Where the model went."""

    model: str
    version: str | None = None
    alias: str | None = None
    decision: str = Field(description="why it was or was not promoted, in a sentence")


class DriftLine(Figure):
    """How far a column (or the label, or the model's scores) has moved from the rows that the model learned from."""

    column: str
    psi: float = Field(description="population stability index")
    ks: float = Field(description="Kolmogorov–Smirnov statistic on the bins; half the summed change for categories")
    psi_limit: float
    ks_limit: float = Field(description="what chance alone exceeds once in a hundred times, with so many rows")
    missing_before: float = Field(default=0.0, description="share of missing values then")
    missing_now: float = Field(default=0.0, description="share of missing values now")
    drifted: bool = Field(description="beyond both limits: large enough to matter, and no chance of a small sample")


class DriftReport(Figure):
    """Fresh rows and served predictions, compared with the rows that the model learned from."""

    rows_before: int
    rows_now: int
    columns: list[DriftLine]
    label: DriftLine | None = Field(default=None, description="label shift; None while there are no fresh labels")
    scores: DriftLine | None = Field(default=None, description="drift of the model's predictions")
    decay: Scores = Field(default_factory=dict, description="by metric: how much worse than when it was trained")
    decay_limits: Scores = Field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """Why the model should be trained again; empty while it should not."""
        lines = [line for line in (*self.columns, self.label, self.scores) if line is not None and line.drifted]
        told = [f"{line.column} moved (PSI {line.psi:.2f}, limit {line.psi_limit:.2f})" for line in lines]
        for metric, worse in self.decay.items():
            limit = self.decay_limits.get(metric)
            if limit is not None and worse > limit:
                told.append(f"{metric} is worse by {worse:.3f}, limit {limit:.3f}")
        return told


class Wire(Figure):
    """What crossed the boundary of an organisation, by purpose."""

    purpose: str = Field(description="bin edges, base score, histograms, metrics, …")
    sums: int
    bytes_sent: int
    bytes_received: int


class Privacy(Figure):
    """What protects the rows and what was exchanged."""

    secure_sums: bool
    parties: int
    smallest_bin: int | None = Field(default=None, description="rows of the total that every bin holds at least")
    epsilon: float | None = None
    notes: list[str] = Field(default_factory=list)


class Reproduction(Figure):
    """What somebody needs to get the same model again."""

    command: str
    spec_digest: str | None = None
    manifest_digest: str | None = None
    model_digest: str | None = None
    dataset_digests: dict[str, str] = Field(default_factory=dict)
    code_version: str
    packages: dict[str, str] = Field(default_factory=dict)
    parameters: dict[str, str | int | float | bool | list[int] | list[str] | None] = Field(default_factory=dict)


class Evaluation(Figure):
    """Everything that is known about a trained model when its run ends."""

    pipeline: str
    run_id: str
    finished: datetime
    description: str = ""
    label: str
    objective: str
    primary_metric: str = Field(description="the metric that the headline compares, by XGBoost's name")
    unit: str = Field(default="", description="the label's unit, regression only")
    rounds: int
    best_round: int | None = Field(default=None, description="counted from 1; None without early stopping")
    features: int
    reader: str | None = Field(default=None, description="the organisation whose own rows SHAP values were computed on")
    organisations: list[OrganisationFigures]
    figures: Figures
    comparison: list[ComparisonRow] = Field(default_factory=list)
    champion: Champion | None = None
    trees_equal: TreesEqual | None = None
    history: History = Field(default_factory=dict)
    gain: list[Importance] = Field(default_factory=list)
    shap: list[Importance] = Field(default_factory=list)
    fairness: list[Fairness] = Field(default_factory=list)
    gates: list[GateLine] = Field(default_factory=list)
    registration: Registration | None = None
    drift: list[DriftLine] = Field(default_factory=list)
    privacy: Privacy
    wire: list[Wire] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict, description="the run's steps, in their order")
    reproduction: Reproduction

    @property
    def passed(self) -> bool:
        """Whether every gate was passed (a run without gates passes)."""
        return all(gate.passed for gate in self.gates)
