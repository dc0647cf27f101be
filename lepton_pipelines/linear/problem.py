"""What a solver minimises: evaluated at a point by one sum over all rows of all parties."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import ldexp

import numpy as np

from lepton_pipelines.linear.design import Design
from lepton_pipelines.linear.fixed_point import TOTAL_BOUND, Float64Array, fixed_sum, real
from lepton_pipelines.linear.losses import LOSSES
from lepton_pipelines.linear.penalty import Penalty
from lepton_pipelines.linear.rows import Shard
from lepton_pipelines.spec.algorithm import Round, Rows
from lepton_pipelines.sums import Int64Array, Sums

_SEPARATED = 1e-6  # mean log loss at which every row is as good as certain


@dataclass(frozen=True)
class Evaluate:
    """Losses, and gradient and Hessian of the loss on the rows to train on, at coefficients theta.

    theta: float64, (coordinates,). evaluation: further sets whose losses are added up.
    Vector: a loss for each set, the gradient, and with `hessian` the Hessian's upper triangle row by row.
    """

    design: Design
    objective: str
    theta: Float64Array
    evaluation: tuple[str, ...]
    hessian: bool

    def run(self, shard: Shard) -> Int64Array:
        """Add up. A row's margin is made of its features one by one: the same wherever the row stands."""
        design, loss = self.design, LOSSES[self.objective]
        precision = design.precision(self.theta, loss)
        gradient_scale = np.ldexp(1.0, precision.gradient)[:, None]
        hessian_scale = np.ldexp(1.0, precision.hessian)
        losses = np.zeros(1 + len(self.evaluation), np.int64)
        gradient = np.zeros(design.size, np.int64)
        hessian = np.zeros((design.size, design.size), np.int64)
        for position, name in enumerate((design.train, *self.evaluation)):
            for block in shard.blocks(name):
                coordinates = design.coordinates(block)
                row = loss.of(_margins(coordinates, self.theta), block.label - design.label_centre)
                losses[position] += fixed_sum(block.weight * row.loss, precision.losses[name])
                if position:
                    continue
                parts = coordinates * (block.weight * row.slope)
                parts *= gradient_scale
                gradient += np.rint(parts, out=parts).astype(np.int64).sum(axis=1)
                if self.hessian:
                    _add_products(coordinates, block.weight * row.curvature, hessian_scale, hessian)
        upper = hessian[np.triu_indices(design.size)] if self.hessian else hessian[:0, 0]
        return np.concatenate([losses, gradient, upper])


@dataclass(frozen=True)
class Point:
    """What is known at theta, as means over the weight of all rows.

    value: loss and penalty, which is minimised; rounding: how far it may be off. gradient: of the loss, (coordinates,).
    hessian: of the loss, (coordinates, coordinates), if asked for. slope: the smallest subgradient of the value.
    """

    theta: Float64Array
    value: float
    rounding: float
    gradient: Float64Array
    slope: Float64Array
    hessian: Float64Array | None


@dataclass
class Problem:
    """The loss over all parties' rows plus the penalty, and a record of every evaluation, which is a round.

    own_weights: the sums of this party's weights by set, for its own scores.
    """

    rows: Rows
    sums: Sums
    design: Design
    objective: str
    penalty: Penalty
    rounds: int
    evaluation: tuple[str, ...]
    own_weights: dict[str, float]
    on_round: Callable[[Round], None] | None = None
    round: int = 0
    history: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    own_history: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.began = time.monotonic()
        self.agreed = self.design.digest()

    @property
    def exhausted(self) -> bool:
        """Whether all rounds are used up."""
        return self.round >= self.rounds

    @property
    def separated(self) -> bool:
        """Whether the last evaluation had next to no log loss, which unpenalised coefficients can always lessen."""
        loss = LOSSES[self.objective]
        last = self.history[self.design.train][loss.metric][-1]
        return not loss.quadratic and last < _SEPARATED and not self.penalty.l1.any() and not self.penalty.l2.any()

    def distance(self, point: Point) -> float:
        """Return the largest partial derivative, as a share of the largest that it could be."""
        largest = self.design.spread * self.design.label_spread
        shares = np.divide(np.abs(point.slope), largest, out=np.zeros_like(largest), where=largest > 0)
        return float(shares.max(initial=0.0))

    def evaluate(self, theta: Float64Array, *, hessian: bool = False) -> Point:
        """Add up over all rows what there is to know at theta."""
        self.round += 1
        step = Evaluate(self.design, self.objective, theta, self.evaluation, hessian)
        own = self.rows.add_up(step)
        # NaN is the same everywhere, but its bits need not be.
        context = sha256(self.agreed + self.objective.encode() + theta.tobytes()).digest()
        total = self.sums.sum(f"linear/round {self.round}", own, bound=TOTAL_BOUND, context=context)
        self._record(own, total, step)
        return self._point(total, step)

    def _point(self, total: Int64Array, step: Evaluate) -> Point:
        design, theta = self.design, step.theta
        precision = design.precision(theta, LOSSES[self.objective])
        weight = design.weights[design.train]
        size, first = design.size, 1 + len(self.evaluation)
        bits = precision.losses[design.train]
        value = real(int(total[0]), bits) / weight + self.penalty.value(theta)
        gradient = np.array(
            [
                real(cell, one) / weight
                for cell, one in zip(total[first : first + size].tolist(), precision.gradient.tolist(), strict=True)
            ]
        )
        hessian = None
        if step.hessian:
            upper = np.triu_indices(size)
            cells = zip(total[first + size :].tolist(), precision.hessian[upper].tolist(), strict=True)
            hessian = np.zeros((size, size))
            hessian[upper] = [real(cell, one) / weight for cell, one in cells]
            hessian.T[upper] = hessian[upper]
        rounding = ldexp(1.0, -bits) * design.rows[design.train] / weight + 2.0**-48 * abs(value)
        return Point(theta, value, rounding, gradient, self.penalty.slope(theta, gradient), hessian)

    def _record(self, own: Int64Array, total: Int64Array, step: Evaluate) -> None:
        """Keep the scores of every set, over all rows and over this party's."""
        loss = LOSSES[self.objective]
        bits = self.design.precision(step.theta, loss).losses
        scores: dict[str, dict[str, float]] = {}
        own_scores: dict[str, dict[str, float]] = {}
        for position, name in enumerate((self.design.train, *self.evaluation)):
            for vector, weights, kept, history in (
                (total, self.design.weights, scores, self.history),
                (own, self.own_weights, own_scores, self.own_history),
            ):
                if not weights[name] > 0:
                    continue
                score = loss.score(real(int(vector[position]), bits[name]) / weights[name])
                kept[name] = {loss.metric: score}
                history.setdefault(name, {}).setdefault(loss.metric, []).append(score)
        if self.on_round is not None:
            seconds = time.monotonic() - self.began
            self.on_round(Round(self.round, self.rounds, scores, own_scores, seconds, self.sums.traffic))


def _margins(coordinates: Float64Array, theta: Float64Array) -> Float64Array:
    margins = np.zeros(coordinates.shape[1])
    for values, coefficient in zip(coordinates, theta.tolist(), strict=True):
        if coefficient:
            margins += values * coefficient
    return margins


def _add_products(coordinates: Float64Array, curvature: Float64Array, scale: Float64Array, hessian: Int64Array) -> None:
    """Add every row's products of two coordinates, times the curvature, to the upper triangle, each one rounded."""
    for one, values in enumerate(coordinates):
        products = coordinates[one:] * (values * curvature)
        products *= scale[one, one:, None]
        hessian[one, one:] += np.rint(products, out=products).astype(np.int64).sum(axis=1)


def sets_of(train: str, evaluation: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all sets, the one to train on first. Raises ValueError for a set that is named twice."""
    names = (train, *evaluation)
    if len(set(names)) < len(names):
        raise ValueError(f"the sets {', '.join(names)} are not all different")
    return names
