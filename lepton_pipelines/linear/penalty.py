"""L1 and L2 penalties of the coordinates' coefficients, and the proximal step that they call for."""

from dataclasses import dataclass
from math import fsum

import numpy as np

from lepton_pipelines.linear.design import Design
from lepton_pipelines.linear.exact_math import Float64Array, dot
from lepton_pipelines.linear.parameters import LinearParameters


@dataclass(frozen=True)
class Penalty:
    """Σ l1_j |θ_j| + ½ Σ l2_j θ_j². l1, l2: float64, (coordinates,), 0 for the intercept."""

    l1: Float64Array
    l2: Float64Array

    @classmethod
    def of(cls, parameters: LinearParameters, design: Design) -> "Penalty":
        """Carry a penalty over to the coordinates, by their scale if it does not hold for standardised columns."""
        scale = np.ones_like(design.inverse) if parameters.standardize else design.inverse
        free = [0.0] if design.intercept else []
        return cls(
            np.array([*free, *(parameters.reg_alpha * scale)]),
            np.array([*free, *(parameters.reg_lambda * (scale * scale))]),
        )

    def value(self, theta: Float64Array) -> float:
        """Return the penalty of these coefficients."""
        return fsum((self.l1 * np.abs(theta)).tolist()) + 0.5 * dot(self.l2 * theta, theta)

    def proximal(self, theta: Float64Array, step: float) -> Float64Array:
        """Return the coefficients that minimise the penalty plus ‖· − theta‖² / (2 step): shrunk, small ones to 0."""
        return soft(theta, step * self.l1) / (1.0 + step * self.l2)

    def slope(self, theta: Float64Array, gradient: Float64Array) -> Float64Array:
        """Return the smallest subgradient of loss and penalty together; 0 throughout at the minimum.

        gradient: of the loss at theta.
        """
        smooth = gradient + self.l2 * theta
        return np.where(theta != 0, smooth + self.l1 * np.sign(theta), soft(smooth, self.l1))


def soft(values: Float64Array, threshold: Float64Array) -> Float64Array:
    """Soft thresholding: nearer to 0 by the threshold, and 0 within it."""
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0.0)
