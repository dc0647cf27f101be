"""Gates: the scores that a model must reach before it may become the champion."""

from typing import ClassVar

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .fields import Column, SpecModel

# What the federation can score, and whether more is better.
METRICS: dict[str, bool] = {
    "auc": True,
    "aucpr": True,
    "logloss": False,
    "brier": False,
    "calibration_error": False,
    "rmse": False,
    "mae": False,
    "r2": True,
    "mlogloss": False,
    "merror": False,
}

# Differences between groups that can be limited.
GAPS = ("demographic_parity_gap", "equal_opportunity_gap", "auc_gap", "calibration_gap")


class Limit(SpecModel):
    """Bounds of one score."""

    min: float | None = Field(default=None, title="At least", description="The score must be this or more.")
    max: float | None = Field(default=None, title="At most", description="The score must be this or less.")

    noun: ClassVar[str] = "limit"

    @model_validator(mode="after")
    def _some(self) -> "Limit":
        if self.min is None and self.max is None:
            raise PydanticCustomError("spec", "sets no limit. Write min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise PydanticCustomError("spec", "has its min above its max: nothing could pass")
        return self


class MetricLimits(SpecModel):
    """Bounds of scores by the metric's name."""

    auc: Limit | None = Field(default=None, title="AUC", description="Area under the ROC curve.")
    aucpr: Limit | None = Field(default=None, title="PR AUC", description="Area under the precision–recall curve.")
    logloss: Limit | None = Field(default=None, title="Log loss", description="Mean negative log likelihood.")
    brier: Limit | None = Field(default=None, title="Brier score", description="Mean squared error of the probability.")
    calibration_error: Limit | None = Field(
        default=None, title="Calibration error", description="Expected difference of predicted and observed share."
    )
    rmse: Limit | None = Field(
        default=None, title="RMSE", description="Root of the mean squared error, in the label's unit."
    )
    mae: Limit | None = Field(default=None, title="MAE", description="Mean absolute error, in the label's unit.")
    r2: Limit | None = Field(default=None, title="R²", description="Share of the label's variance that is explained.")
    mlogloss: Limit | None = Field(
        default=None, title="Multi-class log loss", description="Mean negative log likelihood."
    )
    merror: Limit | None = Field(
        default=None, title="Multi-class error", description="Share of rows put in a wrong class."
    )

    noun: ClassVar[str] = "metric"

    def limits(self) -> dict[str, Limit]:
        """Return the limits that are set, by metric."""
        return {name: limit for name in METRICS if (limit := getattr(self, name)) is not None}


class Improvement(SpecModel):
    """By how much a new model must beat the champion on the same held-out rows."""

    auc: float | None = Field(default=None, ge=0, title="AUC", description="Required gain.")
    aucpr: float | None = Field(default=None, ge=0, title="PR AUC", description="Required gain.")
    logloss: float | None = Field(default=None, ge=0, title="Log loss", description="Required fall.")
    brier: float | None = Field(default=None, ge=0, title="Brier score", description="Required fall.")
    calibration_error: float | None = Field(default=None, ge=0, title="Calibration error", description="Required fall.")
    rmse: float | None = Field(default=None, ge=0, title="RMSE", description="Required fall, in the label's unit.")
    mae: float | None = Field(default=None, ge=0, title="MAE", description="Required fall, in the label's unit.")
    r2: float | None = Field(default=None, ge=0, title="R²", description="Required gain.")
    mlogloss: float | None = Field(default=None, ge=0, title="Multi-class log loss", description="Required fall.")
    merror: float | None = Field(default=None, ge=0, title="Multi-class error", description="Required fall.")

    noun: ClassVar[str] = "metric"

    def required(self) -> dict[str, float]:
        """Return the required improvements that are set, by metric; all are amounts, also where less is better."""
        return {name: amount for name in METRICS if (amount := getattr(self, name)) is not None}


class Fairness(SpecModel):
    """Limits of differences between the groups of one column, such as sex or age band."""

    group: Column = Field(title="Group", description="Column of the contract whose categories are compared.")
    auc_gap: Limit | None = Field(default=None, title="AUC gap", description="Best group's AUC less the worst group's.")
    calibration_gap: Limit | None = Field(
        default=None,
        title="Calibration gap",
        description="Largest difference of mean prediction and mean label in a group.",
    )
    demographic_parity_gap: Limit | None = Field(
        default=None,
        title="Demographic parity gap",
        description="Highest less lowest share of predictions of at least 0.5.",
    )
    equal_opportunity_gap: Limit | None = Field(
        default=None,
        title="Equal opportunity gap",
        description="Highest less lowest share of positives that are predicted positive.",
    )

    def limits(self) -> dict[str, Limit]:
        """Return the limits that are set, by the gap's name."""
        return {name: limit for name in GAPS if (limit := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _some(self) -> "Fairness":
        if not self.limits():
            raise PydanticCustomError("spec", "sets no limit. Write {gaps}", {"gaps": " or ".join(GAPS)})
        return self


class Gates(MetricLimits):
    """What a model must reach on the held-out rows before it may be used."""

    worst_organisation: MetricLimits | None = Field(
        default=None, title="Worst organisation", description="Limits that hold at every single organisation."
    )
    improvement: Improvement = Field(
        default_factory=Improvement,
        title="Improvement",
        description="By how much the champion must be beaten; unset: AUC or log loss by 0.001, RMSE by anything.",
    )
    fairness: Fairness | None = Field(
        default=None, title="Fairness", description="Limits of differences between groups."
    )
    size_mb: Limit | None = Field(
        default=None, title="Model size", description="Size of the model file in megabytes (10^6 bytes)."
    )
    latency_ms: Limit | None = Field(
        default=None, title="Latency", description="Milliseconds to score one row, the median of many single rows."
    )

    noun: ClassVar[str] = "gate"

    def required_improvement(self, objective: str) -> dict[str, float]:
        """Return by how much the champion must be beaten, by metric.

        objective: XGBoost's name; it chooses the metric where the spec names none.
        """
        if told := self.improvement.required():
            return told
        if objective.startswith("binary:"):
            return {"auc": 0.001}
        if objective.startswith("multi:"):
            return {"mlogloss": 0.001}
        return {"rmse": 0.0}
