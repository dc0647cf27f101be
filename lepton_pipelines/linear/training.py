"""Train a linear or logistic model on the rows of several parties."""

from collections.abc import Callable, Sequence

import numpy as np

from lepton_pipelines.linear.exact_math import Float64Array
from lepton_pipelines.linear.gradient_descent import Solution, search_descent, steady_descent
from lepton_pipelines.linear.model_file import LinearModel
from lepton_pipelines.linear.moments import Survey, survey
from lepton_pipelines.linear.newton import newton
from lepton_pipelines.linear.parameters import LinearParameters
from lepton_pipelines.linear.penalty import Penalty
from lepton_pipelines.linear.problem import Problem, sets_of
from lepton_pipelines.spec.algorithm import Features, Round, Rows, Trained
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Sums

NUMERIC = frozenset({"q", "float", "int", "i"})


def fit(
    parameters: LinearParameters,
    rows: Rows,
    *,
    sums: Sums,
    rounds: int,
    features: Features,
    train: str = "train",
    evaluation: Sequence[str] = (),
    on_round: Callable[[Round], None] | None = None,
    warm_start: bytes | None = None,
) -> Trained:
    """Minimise the penalised mean loss over all parties' rows; see `spec.algorithm.Algorithm.train`.

    A round is one evaluation of loss and gradient, which is one sum; four sums for counts and moments come before.
    Raises UserError, at every party alike, for rows, columns or parameters that a linear model cannot be trained with.
    """
    if rounds < 1:
        raise UserError(f"training.rounds is {rounds}; at least one round is needed.")
    names = tuple(features.names)
    _check_types(names, features.types)
    agreed = survey(rows, sums, parameters=parameters, names=names, train=train, sets=sets_of(train, tuple(evaluation)))
    design = agreed.design
    problem = Problem(
        rows=rows,
        sums=sums,
        design=design,
        objective=parameters.objective,
        penalty=Penalty.of(parameters, design),
        rounds=rounds,
        evaluation=tuple(evaluation),
        own_weights=agreed.own_weights,
        on_round=on_round,
    )
    start = np.zeros(design.size) if warm_start is None else _start(warm_start, parameters, names, agreed)
    solution = _solve(parameters, problem, start, names)
    coefficients, intercept = design.coefficients(solution.theta)
    fill = design.fill if parameters.missing == "mean" else None
    model = LinearModel(parameters.objective, names, coefficients, intercept, fill)
    notes = [f"Column {name} has one value at all organisations: its coefficient is 0." for name in agreed.constant]
    if problem.separated:
        notes.append(
            "The columns tell the two classes apart perfectly: without a penalty coefficients grow without end, these "
            "are where the tolerance ended it. Set training.lambda above 0."
        )
    if not solution.converged:
        notes.append(
            f"Not converged to tolerance {parameters.tolerance:g}: {solution.why}. Raise rounds or tolerance, "
            "or add a little lambda."
        )
    return Trained(model.to_bytes(), problem.round, problem.history, problem.own_history, tuple(notes))


def _solve(parameters: LinearParameters, problem: Problem, start: Float64Array, names: Sequence[str]) -> Solution:
    if parameters.solver != "gradient_descent":
        return newton(problem, start, parameters.tolerance, names=names)
    if parameters.learning_rate == "auto":
        return search_descent(problem, start, parameters.tolerance)
    return steady_descent(
        problem,
        start,
        parameters.tolerance,
        learning_rate=parameters.learning_rate,
        momentum=parameters.momentum,
    )


def _start(warm_start: bytes, parameters: LinearParameters, names: Sequence[str], agreed: Survey) -> Float64Array:
    """Return a model's coefficients in this training's coordinates."""
    model = LinearModel.from_bytes(warm_start)
    if (model.objective, model.features) != (parameters.objective, tuple(names)):
        raise UserError(
            f"the model to go on from is a {model.objective} of {', '.join(model.features)}; this training is a "
            f"{parameters.objective} of {', '.join(names)}. Train anew (training.start: anew)."
        )
    return agreed.design.theta(model.coefficients, model.intercept)


def _check_types(names: Sequence[str], types: Sequence[str]) -> None:
    wrong = [name for name, kind in zip(names, types, strict=bool(types)) if kind not in NUMERIC]
    if wrong:
        raise UserError(
            f"algorithm linear takes numbers and booleans; these columns are categories: {', '.join(wrong)}. "
            "Derive a number from each, set their role to unused in the contract, or take algorithm: xgboost."
        )
