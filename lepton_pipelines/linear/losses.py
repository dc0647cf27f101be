"""Squared error and log loss: what a row contributes, and the most that it can.

A loss is a function of the margin (θᵀx and the intercept) and the label. Its derivatives with respect to the
margin, times the row's values, are the gradient and the Hessian.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lepton_pipelines.linear.exact_math import Float64Array, exp_of_negative, log1p_of_share
from lepton_pipelines.linear.parameters import LOGISTIC, SQUARED_ERROR


@dataclass(frozen=True)
class RowLosses:
    """Of every row, float64, (rows,): the loss and its first and second derivative by the margin."""

    loss: Float64Array
    slope: Float64Array
    curvature: Float64Array


@dataclass(frozen=True)
class LossBounds:
    """What no row exceeds in magnitude, while margins are within a bound."""

    loss: float
    slope: float
    curvature: float


class Loss(Protocol):
    """A loss of a generalised linear model."""

    @property
    def metric(self) -> str:
        """XGBoost's name of the metric that belongs to it."""
        ...

    @property
    def quadratic(self) -> bool:
        """Whether the curvature is the same everywhere, so that the Hessian need be added up only once."""
        ...

    def of(self, margin: Float64Array, label: Float64Array) -> RowLosses:
        """Compute every row's loss and derivatives."""
        ...

    def bounds(self, margin: float, label: float) -> LossBounds:
        """Bound them, given bounds on the magnitudes of margins and labels."""
        ...

    def score(self, mean_loss: float) -> float:
        """Turn the mean loss into the metric."""
        ...

    def predict(self, margin: Float64Array) -> Float64Array:
        """Turn margins into predictions."""
        ...


class SquaredError:
    """Half the squared residual: ½ (y − θᵀx)²."""

    metric = "rmse"
    quadratic = True

    def of(self, margin: Float64Array, label: Float64Array) -> RowLosses:
        """The slope is the residual, the curvature 1."""
        residual = margin - label
        return RowLosses(0.5 * (residual * residual), residual, np.ones_like(residual))

    def bounds(self, margin: float, label: float) -> LossBounds:
        """A residual is no larger than margin and label together."""
        largest = margin + label
        return LossBounds(0.5 * largest * largest, largest, 1.0)

    def score(self, mean_loss: float) -> float:
        """Root mean squared error."""
        return float(np.sqrt(2.0 * mean_loss))

    def predict(self, margin: Float64Array) -> Float64Array:
        """The margin is the prediction."""
        return margin


class Logistic:
    """The log loss of labels 0 and 1: ln(1 + e^m) − y m."""

    metric = "logloss"
    quadratic = False

    def of(self, margin: Float64Array, label: Float64Array) -> RowLosses:
        """The slope is p − y, the curvature p (1 − p); all from e^−|m|, which cannot overflow."""
        power = exp_of_negative(-np.abs(margin))
        share = 1.0 / (1.0 + power)
        loss = (np.maximum(margin, 0.0) - label * margin) + log1p_of_share(power)
        return RowLosses(loss, self._probability(margin, power) - label, power * (share * share))

    def bounds(self, margin: float, label: float) -> LossBounds:
        """Log loss is within ln 2 of |m|."""
        return LossBounds(margin * (1.0 + label) + 1.0, 1.0 + label, 0.25)

    def score(self, mean_loss: float) -> float:
        """Log loss."""
        return mean_loss

    def predict(self, margin: Float64Array) -> Float64Array:
        """Probability of class 1."""
        return self._probability(margin, exp_of_negative(-np.abs(margin)))

    @staticmethod
    def _probability(margin: Float64Array, power: Float64Array) -> Float64Array:
        return np.where(margin >= 0, 1.0, power) / (1.0 + power)


LOSSES: dict[str, Loss] = {SQUARED_ERROR: SquaredError(), LOGISTIC: Logistic()}
