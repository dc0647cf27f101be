"""The coordinates in which a linear model is trained: columns filled, centred and scaled alike at every party.

Coordinate j of a row is (x_j − centre_j) · inverse_j, a missing x_j being taken as fill_j; with an intercept there
is one coordinate more, in front, that is 1 throughout. All numbers here follow from totals (`moments.py`), so every
party has the same, to the last bit.
"""

from dataclasses import dataclass, fields
from hashlib import sha256

import numpy as np

from lepton_pipelines.linear.exact_math import dot
from lepton_pipelines.linear.fixed_point import Float64Array, bits_for
from lepton_pipelines.linear.losses import Loss
from lepton_pipelines.linear.rows import Block
from lepton_pipelines.sums import Int64Array

_ROUNDING = 1 + 1e-9  # what rounding may add to a bound


@dataclass(frozen=True)
class Precision:
    """Bits below the point that contributions keep: of the losses by set, the gradient and the Hessian.

    gradient: int64, (coordinates,). hessian: int64, (coordinates, coordinates), symmetric.
    """

    losses: dict[str, int]
    gradient: Int64Array
    hessian: Int64Array


@dataclass(frozen=True)
class Design:
    """What all parties agreed on about their rows. Arrays are float64, (features,), unless said otherwise.

    train: the set that is trained on. rows: how many rows each set has, over all parties; weights: their sums.
    fill: what stands in for a missing value. centre, inverse: see above; inverse is 0 for a column that is constant.
    reach: the largest magnitude of each coordinate, (coordinates,); spread: its root mean square, (coordinates,).
    label_centre: taken off every label. label_reach, weight_reach: largest magnitudes of the labels thus centred and
    of the weights. label_spread: root mean square of the centred labels.
    """

    intercept: bool
    train: str
    rows: dict[str, int]
    weights: dict[str, float]
    fill: Float64Array
    centre: Float64Array
    inverse: Float64Array
    reach: Float64Array
    spread: Float64Array
    label_centre: float
    label_reach: float
    label_spread: float
    weight_reach: float

    @property
    def size(self) -> int:
        """How many coordinates a row has."""
        return len(self.reach)

    def coordinates(self, block: Block) -> Float64Array:
        """Compute the coordinates of some rows, float64, (coordinates, rows), C-contiguous."""
        columns = block.columns
        out = np.empty((self.size, columns.shape[1]))
        values = out[1:] if self.intercept else out
        np.copyto(values, columns)
        np.copyto(values, self.fill[:, None], where=np.isnan(columns))
        values -= self.centre[:, None]
        values *= self.inverse[:, None]
        if self.intercept:
            out[0] = 1.0
        return out

    def precision(self, theta: Float64Array, loss: Loss) -> Precision:
        """Choose the finest fixed point in which no total can exceed its bound, for coefficients theta."""
        margin = dot(np.abs(theta), self.reach) * _ROUNDING
        bounds = loss.bounds(margin, self.label_reach)
        weight = self.weight_reach * _ROUNDING
        rows = self.rows[self.train]
        reach = self.reach.tolist()
        curvature = weight * bounds.curvature
        return Precision(
            {name: bits_for(weight * bounds.loss, count) for name, count in self.rows.items()},
            np.array([bits_for(weight * bounds.slope * one, rows) for one in reach], np.int64),
            np.array([[bits_for(curvature * one * other, rows) for other in reach] for one in reach], np.int64),
        )

    def coefficients(self, theta: Float64Array) -> tuple[Float64Array, float]:
        """Turn coefficients of the coordinates into those of the columns as they are, and the intercept."""
        slopes = (theta[1:] if self.intercept else theta) * self.inverse
        if not self.intercept:
            return slopes, 0.0
        return slopes, float(theta[0]) + self.label_centre - dot(slopes, self.centre)

    def theta(self, slopes: Float64Array, intercept: float) -> Float64Array:
        """Turn coefficients of the columns into those of the coordinates; what constant columns had is dropped."""
        scaled = np.divide(slopes, self.inverse, out=np.zeros_like(slopes), where=self.inverse != 0)
        if not self.intercept:
            return scaled
        first = intercept - self.label_centre + dot(slopes, self.centre)
        return np.concatenate([[first], scaled])

    def digest(self) -> bytes:
        """Return the SHA-256 of everything here: equal at parties that agree."""
        digest = sha256()
        for one in fields(self):
            value = getattr(self, one.name)
            told = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
            digest.update(b"%s %d " % (one.name.encode(), len(told)) + told)
        return digest.digest()
