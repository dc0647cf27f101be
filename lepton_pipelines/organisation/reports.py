"""What each step of an organisation's part reports: small documents of counts and scores, never rows."""

from pydantic import BaseModel, ConfigDict, Field

from lepton_pipelines.evaluation.result import (
    Champion,
    ComparisonRow,
    Fairness,
    Figures,
    History,
    Importance,
    OrganisationFigures,
    TreesEqual,
    Wire,
)


class Report(BaseModel):
    """Base of the reports."""

    model_config = ConfigDict(extra="forbid")


class IngestReport(Report):
    """What was read."""

    organisation: str
    files: int
    size: int = Field(description="bytes of all files")
    table_version: int | None = Field(default=None, description="of a Delta table")
    rows: dict[str, int] = Field(description="by set: train, valid, test")
    label_mean: float | None = Field(description="with two classes the share of positives")
    workers: int
    threads: int
    categories: dict[str, list[str]] = Field(default_factory=dict, description="that members found, by column")
    seconds: float


class ValidateReport(Report):
    """What checking found; a report exists only for rows that were accepted."""

    organisation: str
    checked: int
    set_aside: int
    warnings: list[str]
    digest: str = Field(description="of the rows as read, hex")
    seconds: float


class BinReport(Report):
    """The agreed bins."""

    organisation: str
    features: int
    bins: int
    sums: int
    kept: bool = Field(default=False, description="whether the edges are those of an earlier run")
    seconds: float


class TrainReport(Report):
    """The trained model, by its digest."""

    organisation: str
    rounds: int = Field(description="rounds of the published model")
    boosted: int = Field(description="rounds that were boosted, those after the best one included")
    best_round: int | None = Field(description="counted from 1; None without early stopping")
    resumed_at: int = Field(description="rounds that were there from an earlier attempt")
    digest: str = Field(description="SHA-256 of the model file, hex")
    history: History
    own_history: History
    seconds: float


class CompareReport(Report):
    """The demo's other models."""

    organisation: str
    rows: list[ComparisonRow]
    trees_equal: TreesEqual | None
    seconds: float


class EvaluateReport(Report):
    """What the model is worth, and everybody's figures that may be shown."""

    organisation: str
    figures: Figures
    comparison: list[ComparisonRow]
    champion: Champion | None
    fairness: list[Fairness]
    gain: list[Importance]
    shap: list[Importance]
    organisations: list[OrganisationFigures]
    verdicts: dict[str, dict[str, bool]] = Field(description="of organisations that show no scores: limits kept")
    latency_ms: float
    seconds: float


class PartReport(Report):
    """An organisation's whole part of a run."""

    organisation: str
    run_id: str
    ingest: IngestReport
    validated: ValidateReport
    binned: BinReport
    trained: TrainReport
    compared: CompareReport | None
    evaluated: EvaluateReport
    wire: list[Wire]
    core_seconds: float | None = Field(default=None, description="processor time of its Dask workers' threads")

    def seconds(self) -> dict[str, float]:
        """Return how long each step took, in their order."""
        reports: dict[str, Report | None] = {
            "ingest": self.ingest,
            "validate": self.validated,
            "bin": self.binned,
            "train": self.trained,
            "compare": self.compared,
            "evaluate": self.evaluated,
        }
        return {stage: float(report.model_dump()["seconds"]) for stage, report in reports.items() if report is not None}
