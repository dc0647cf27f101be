"""Gradient descent over all parties' rows: θ ← θ − α ∂L/∂θ, with a proximal step where there is a penalty.

With a learning rate: the iteration as it stands, with Nesterov's momentum if asked for. Without: steps of Barzilai
and Borwein, "Two-point step size gradient methods" (1988), in a line search that lets the value rise above the
last one but not above the last ten (Wright, Nowak and Figueiredo, "Sparse reconstruction by separable
approximation", 2009). Every evaluation is one sum and counts as a round.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from lepton_pipelines.linear.exact_math import Float64Array, dot
from lepton_pipelines.linear.problem import Point, Problem
from lepton_pipelines.spec.errors import UserError

_MEMORY = 10  # values that a new one is compared with
_DECREASE = 1e-4  # share of the decrease that a step of this length promises
_DIVERGED = 1e6  # times the value at the start
_LARGEST = 1e60  # coefficients whose squares, times rows' values, are still doubles
_LONGEST = 1e10


@dataclass(frozen=True)
class Solution:
    """Where a solver ended. converged: whether within the tolerance; why: if not, in words."""

    theta: Float64Array
    converged: bool
    why: str = ""


def search_descent(problem: Problem, start: Float64Array, tolerance: float) -> Solution:
    """Descend with steps found by line search."""
    point = problem.evaluate(start)
    best = point
    values = deque([point.value], maxlen=_MEMORY)
    step = 1.0
    while problem.distance(point) > tolerance:
        found = _step(problem, point, step, max(values))
        if found is None:
            return _unfinished(problem, best)
        new, step = found
        values.append(new.value)
        change = new.theta - point.theta
        bend = dot(change, new.gradient - point.gradient)
        length = dot(change, change)
        # Along a straight stretch nothing bounds the step; then it doubles.
        step = min(length / bend if bend > length / _LONGEST else 2.0 * step, _LONGEST)
        point = new
        best = min(best, point, key=lambda one: one.value)
    return Solution(point.theta, True)


def _step(problem: Problem, point: Point, step: float, reference: float) -> tuple[Point, float] | None:
    """Shorten the step until the value falls enough; None when rounds or digits run out."""
    while not problem.exhausted:
        theta = problem.penalty.proximal(point.theta - step * point.gradient, step)
        change = theta - point.theta
        if not change.any():
            return None
        new = problem.evaluate(theta)
        promised = _DECREASE * dot(change, change) / (2.0 * step)
        if new.value <= reference - promised + point.rounding + new.rounding:
            return new, step
        step *= 0.25
    return None


def steady_descent(
    problem: Problem, start: Float64Array, tolerance: float, *, learning_rate: float, momentum: float
) -> Solution:
    """Descend with steps of one length. Raises UserError if they are too long and the values grow."""
    theta = ahead = start
    first: Point | None = None
    before: Point | None = None
    bend = 0.0
    while True:
        point = problem.evaluate(ahead)
        first = first or point
        if before is not None:
            change = point.theta - before.theta
            length = dot(change, change)
            bend = max(bend, dot(change, point.gradient - before.gradient) / length if length > 0 else 0.0)
        if problem.distance(point) <= tolerance:
            return Solution(ahead if momentum == 0 else theta, True)
        new = problem.penalty.proximal(ahead - learning_rate * point.gradient, learning_rate)
        if point.value > _DIVERGED * max(first.value, 1e-300) or not (np.abs(new) < _LARGEST).all():
            raise UserError(
                f"training.learning_rate {learning_rate:g} is too large: after {problem.round} rounds the loss has "
                f"grown from {first.value:.3g} to {point.value:.3g}. "
                f"Take {f'one below {1.0 / bend:.2g}' if bend > 0 else 'a smaller one'}, or auto."
            )
        if problem.exhausted:
            return _unfinished(problem, point)
        ahead = new + momentum * (new - theta) if momentum else new
        theta, before = new, point


def _unfinished(problem: Problem, point: Point) -> Solution:
    reason = (
        f"all {problem.rounds} rounds were used up"
        if problem.exhausted
        else "smaller steps are below the resolution of the sums"
    )
    return Solution(point.theta, False, f"{reason}; the gradient is at {problem.distance(point):.2g} of its scale")
