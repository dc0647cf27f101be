"""A linear model as a file: JSON, the same bytes for the same model, readable without any code of ours.

{"format": "lepton-linear/1", "objective": …, "features": [names], "coefficients": [numbers], "intercept": number,
"fill": [numbers] or null}: the margin is the intercept plus the coefficients times the features, a missing one being
taken as its `fill`; a binary:logistic model predicts 1 / (1 + e^-margin). Numbers have the digits that give the same
double back.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.linear.exact_math import Float64Array
from lepton_pipelines.linear.losses import LOSSES
from lepton_pipelines.linear.parameters import Objective
from lepton_pipelines.spec.errors import UserError

FORMAT = "lepton-linear/1"


@dataclass(frozen=True)
class LinearModel:
    """A fitted model. coefficients, fill: float64, (features,); fill is None if missing values are refused."""

    objective: Objective
    features: tuple[str, ...]
    coefficients: Float64Array
    intercept: float
    fill: Float64Array | None = None

    def predict(self, features: NDArray[np.floating[Any]]) -> Float64Array:
        """Predict values, or probabilities of class 1: float64, (rows,).

        features: (rows, features), NaN where missing. Raises UserError for missing values that the model does not
        fill in, and for another number of columns.
        """
        values = np.asarray(features, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.features):
            raise UserError(f"the model takes {len(self.features)} columns, the rows have shape {values.shape}.")
        missing = np.isnan(values)
        if self.fill is not None:
            values = np.where(missing, self.fill, values)
        elif missing.any():
            name = self.features[int(np.flatnonzero(missing.any(axis=0))[0])]
            raise UserError(
                f"column {name} is missing in {int(missing.any(axis=1).sum())} of {len(values)} rows, and the model "
                "was trained with missing: refuse. Fill it in, or train with missing: mean."
            )
        margins = np.full(len(values), self.intercept)
        for column, coefficient in enumerate(self.coefficients.tolist()):
            margins += values[:, column] * coefficient
        return LOSSES[self.objective].predict(margins)

    def to_bytes(self) -> bytes:
        """Write the file."""
        told = {
            "format": FORMAT,
            "objective": self.objective,
            "features": list(self.features),
            "coefficients": self.coefficients.tolist(),
            "intercept": self.intercept,
            "fill": None if self.fill is None else self.fill.tolist(),
        }
        return json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "LinearModel":
        """Read a file. Raises UserError if it is not one."""
        try:
            return _read(json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"not a linear model file ({FORMAT}): {error}. Take the file that the training wrote."
            ) from None


def _read(told: Any) -> LinearModel:
    if told["format"] != FORMAT:
        raise ValueError(f"its format is {told['format']!r}")
    model = LinearModel(
        objective=_objective(told["objective"]),
        features=tuple(str(name) for name in told["features"]),
        coefficients=_numbers(told["coefficients"]),
        intercept=float(_numbers([told["intercept"]])[0]),
        fill=None if told["fill"] is None else _numbers(told["fill"]),
    )
    fills = len(model.features) if model.fill is None else len(model.fill)
    if not len(model.features) == len(model.coefficients) == fills:
        raise ValueError("it has not as many coefficients as features")
    return model


def _objective(name: Any) -> Objective:
    if name not in LOSSES:
        raise ValueError(f"its objective is {name!r}, not one of {', '.join(LOSSES)}")
    return cast(Objective, name)


def _numbers(values: Sequence[Any]) -> Float64Array:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError("its coefficients are not finite numbers")
    return array
