"""Newton's method over all parties' rows; for squared error it is the closed form, by one matrix of products.

The Hessian of the loss is summed like the gradient. With squared error it is the Gram matrix of the columns, the
same everywhere, and the first step ends at the minimum (a second one removes what rounding left). With log loss it
is iteratively reweighted least squares, with a step that is halved until the value falls. An L1 penalty makes each
step a lasso problem of its own, which every party solves from the totals by coordinate descent (Friedman, Hastie
and Tibshirani, "Regularization paths for generalized linear models via coordinate descent", 2010).

Linear algebra is written out: every party must find the same bits, and a BLAS adds up in an order of its own.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from lepton_pipelines.linear.exact_math import Float64Array, dot
from lepton_pipelines.linear.gradient_descent import Solution
from lepton_pipelines.linear.losses import LOSSES
from lepton_pipelines.linear.penalty import Penalty, soft
from lepton_pipelines.linear.problem import Point, Problem
from lepton_pipelines.spec.errors import UserError

_DECREASE = 1e-4
_SHORTEST = 2.0**-30
_SINGULAR = 1e-11  # share of a coordinate's own square that the others must leave unexplained
_SWEEPS = 10_000


class NotPositiveDefinite(ArithmeticError):  # noqa: N818 - the condition's name
    """A matrix has no Cholesky factor: `row` depends on the rows before it."""

    def __init__(self, row: int) -> None:
        self.row = row
        super().__init__(f"row {row} depends on the rows before it")


def newton(problem: Problem, start: Float64Array, tolerance: float, *, names: Sequence[str]) -> Solution:
    """Minimise. names: of the columns, for messages.

    Raises UserError if columns depend on each other, or if classes are told apart perfectly, and no penalty decides.
    """
    quadratic = LOSSES[problem.objective].quadratic
    point = problem.evaluate(start, hessian=True)
    hessian = _hessian(point)
    while (distance := problem.distance(point)) > tolerance:
        try:
            target = minimise_model(point, hessian, problem.penalty)
        except NotPositiveDefinite as error:
            raise UserError(_singular(problem, error.row, names)) from None
        new = _search(problem, point, target - point.theta, hessian_too=not quadratic)
        if new is None or (quadratic and problem.distance(new) > 0.9 * distance):
            reason = (
                f"all {problem.rounds} rounds were used up"
                if problem.exhausted
                else "a further step is below the resolution of the sums"
            )
            return Solution(point.theta, False, f"{reason}; the gradient is at {distance:.2g} of its scale")
        point = new
        hessian = hessian if quadratic else _hessian(point)
    return Solution(point.theta, True)


def minimise_model(point: Point, hessian: Float64Array, penalty: Penalty) -> Float64Array:
    """Return the coefficients that minimise the quadratic model at a point plus the penalty.

    Coordinates without any spread stay as they are. Raises NotPositiveDefinite.
    """
    if penalty.l1.any():
        return _coordinate_descent(point, hessian, penalty)
    live = np.flatnonzero(np.diagonal(hessian) > 0)
    matrix = hessian[np.ix_(live, live)] + np.diag(penalty.l2[live])
    slope = point.gradient + penalty.l2 * point.theta
    target = point.theta.copy()
    try:
        target[live] -= solve(matrix, slope[live])
    except NotPositiveDefinite as error:
        raise NotPositiveDefinite(int(live[error.row])) from None
    return target


def solve(matrix: Float64Array, right: Float64Array) -> Float64Array:
    """Solve a symmetric, positive definite system by Cholesky's factors L D Lᵀ. Raises NotPositiveDefinite."""
    rest = matrix.copy()
    size = len(right)
    lower = np.eye(size)
    solution = right.copy()
    pivots = np.empty(size)
    for i in range(size):
        pivots[i] = rest[i, i]
        if not pivots[i] > _SINGULAR * matrix[i, i]:
            raise NotPositiveDefinite(i)
        column = rest[i + 1 :, i] / pivots[i]
        lower[i + 1 :, i] = column
        rest[i + 1 :, i + 1 :] -= column[:, None] * rest[i, i + 1 :]
        solution[i + 1 :] -= column * solution[i]
    solution /= pivots
    for i in range(size - 1, 0, -1):
        solution[:i] -= lower[i, :i] * solution[i]
    return solution


def _coordinate_descent(point: Point, hessian: Float64Array, penalty: Penalty) -> Float64Array:
    theta = point.theta.copy()
    slope = point.gradient.copy()  # of the model's loss at theta
    squares = np.diagonal(hessian).tolist()
    l1, l2 = penalty.l1.tolist(), penalty.l2.tolist()
    for _ in range(_SWEEPS):
        furthest = 0.0
        for j, square in enumerate(squares):
            if square <= 0:
                continue
            old = float(theta[j])
            drawn = np.array([square * old - float(slope[j])])
            new = float(soft(drawn, np.array([l1[j]]))[0]) / (square + l2[j])
            if new != old:
                theta[j] = new
                slope += hessian[j] * (new - old)
                furthest = max(furthest, abs(new - old) * sqrt(square))
        scale = float(np.abs(theta).max(initial=0.0))
        if furthest <= 1e-14 * scale:
            break
    return theta


def _search(problem: Problem, point: Point, direction: Float64Array, *, hessian_too: bool) -> Point | None:
    """Go along the direction as far as the value falls, halving; None when rounds or digits run out."""
    length = 1.0
    full = problem.penalty.value(point.theta + direction) - problem.penalty.value(point.theta)
    promised = dot(point.gradient, direction) + full
    while not problem.exhausted and length > _SHORTEST:
        new = problem.evaluate(point.theta + length * direction, hessian=hessian_too)
        if new.value <= point.value + _DECREASE * length * min(promised, 0.0) + point.rounding + new.rounding:
            return new
        length *= 0.5
    return None


def _hessian(point: Point) -> Float64Array:
    if point.hessian is None:
        raise ValueError("the point was evaluated without its Hessian")
    return point.hessian


def _singular(problem: Problem, row: int, names: Sequence[str]) -> str:
    column = row - problem.design.intercept
    if LOSSES[problem.objective].quadratic or problem.round <= 1:
        return (
            f"column {names[column]} is a combination of the columns before it, so its coefficient is not determined. "
            "Take it out, or set training.lambda above 0."
        )
    return (
        f"after {problem.round} rounds the Hessian has no inverse: the columns tell the two classes apart (almost) "
        "perfectly, so coefficients grow without end. Set training.lambda above 0."
    )
