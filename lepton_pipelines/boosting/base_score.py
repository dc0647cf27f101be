"""The base score: what is predicted before the first tree, estimated from all rows as XGBoost estimates it.

Four ways, by objective: the mean label (squared error, logistic, Poisson, gamma, Tweedie), one Newton step from
margin 0 (the others, and the first ones if `scale_pos_weight` is not 1), the classes' log frequencies, and the
label's quantiles. All are read from exact sums, so they do not depend on how rows are spread. XGBoost's own differ
in the last digit at most, except with many weighted rows for classes and quantiles: there it adds up weights in
float32, one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.cells import lowest_value
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.exact_math import log
from lepton_pipelines.boosting.exact_sum import BOUND, LIMBS, exact_sum, read_sum
from lepton_pipelines.boosting.objectives import Objective, objective_of
from lepton_pipelines.boosting.quantisation import count_exponents, read_exponents
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array

Float32Array = NDArray[np.float32]

_WITHOUT_ESTIMATE = 0.5  # XGBoost's, for objectives of the user's own
_RELATIVE = np.float32(1e-6)
_MEAN = (
    "reg:squarederror",
    "reg:logistic",
    "binary:logistic",
    "binary:logitraw",
    "count:poisson",
    "reg:gamma",
    "reg:tweedie",
)
_SCALED = ("reg:squarederror", "reg:logistic", "binary:logistic", "binary:logitraw", "reg:gamma")
_LOGISTIC = ("reg:logistic", "binary:logistic")  # binary:logitraw has no link: its score is a margin
_LOGARITHMIC = ("count:poisson", "reg:gamma", "reg:tweedie")
_KEY_WAYS = (12, 10, 10)  # bits of a label's place among all float32 that each sum looks at
_FEWEST_ROWS = 20  # rows in the cell that a quantile is read from, where several parties' labels are in it
_UNIT_BITS = 20
_ONE = np.float32(1.0)


def estimate_base_score(
    rows: Collective, parameters: BoosterParameters, objective: Objective, train: str
) -> tuple[float, ...]:
    """The base score as a model file stores it (float32 values), one an output.

    What the parameters give is taken; else it is estimated over everybody's rows of the set `train`. See
    `margins_of` for the margins that it stands for.
    Raises UserError if the given numbers do not fit the outputs or the objective.
    """
    outputs = objective.outputs
    if parameters.base_score is not None:
        given = parameters.base_score
        if len(given) not in (1, outputs):
            raise UserError(f"base_score: {len(given)} values for {outputs} outputs. Give one, or one for each.")
        _check_given(given, parameters.objective)
        return tuple(float(np.float32(v)) for v in (given if len(given) == outputs else given * outputs))
    if objective.custom is not None:
        return (_WITHOUT_ESTIMATE,) * outputs
    name = parameters.objective
    if name.startswith("multi:"):
        return _log_frequencies(rows, outputs, train)
    if name == "reg:quantileerror":
        return _quantiles(rows, objective.levels, train)
    if name == "reg:absoluteerror":
        return _absolute_error(rows, parameters, objective, train)
    if name in _MEAN and not (name in _SCALED and abs(parameters.scale_pos_weight - 1) > _RELATIVE):
        return (_mean_label(rows, train),)
    return (_linked(objective, _newton_step(rows, parameters, objective, train, np.zeros(1, np.float32))),)


def _check_given(given: Sequence[float], name: str) -> None:
    if name in _LOGISTIC and not all(0 < value < 1 for value in given):
        raise UserError(f"base_score: {name} takes a probability between 0 and 1, not {given}.")
    if name in _LOGARITHMIC and not all(value > 0 for value in given):
        raise UserError(f"base_score: {name} takes a mean above 0, not {given}.")


def margins_of(base_score: Sequence[float], parameters: BoosterParameters, outputs: int) -> Float32Array:
    """The margins that a stored base score stands for, float32, (outputs,): the inverse of the objective's link.

    Raises UserError if it has none: a mean of 0 has no logarithm.
    """
    score = np.array(base_score, np.float32)
    if len(score) == 1:
        score = np.repeat(score, outputs)
    if parameters.objective in _LOGISTIC:
        inside = [min(max(value, _RELATIVE), _ONE - _RELATIVE) for value in score]
        return np.array([-log(_ONE / value - _ONE) for value in inside], np.float32)
    if parameters.objective in _LOGARITHMIC:
        if not (score > 0).all():
            raise UserError(
                f"{parameters.objective}: the mean label is {score.min():g}, which has no logarithm. "
                "Look for labels that are 0 throughout, or give base_score."
            )
        return np.array([log(value) for value in score], np.float32)
    return score


@dataclass(frozen=True)
class SumLabels:
    """Add up w·y and w, exactly."""

    train: str

    def run(self, shard: Shard) -> Int64Array:
        """Add up; returns int64, 2 * LIMBS."""
        label, weight = shard.label(self.train), shard.weight(self.train)
        if not len(weight):
            return np.concatenate([exact_sum(label), exact_sum(np.ones(len(label), np.float32))])
        product = label.astype(np.float64) * weight
        upper = product.astype(np.float32)
        lower = (product - upper).astype(np.float32)  # 48 bits in two float32: nothing is lost
        return np.concatenate([exact_sum(upper) + exact_sum(lower), exact_sum(weight)])


def _mean_label(rows: Collective, train: str) -> float:
    total = rows.sum(SumLabels(train), "base-score", bound=BOUND)
    label, weight = (read_sum(limbs, what="labels and weights") for limbs in total.reshape(2, LIMBS))
    return float(np.float32(label / weight)) if weight else 0.0


@dataclass(frozen=True)
class SumGradients:
    """Add up gradients and hessians at one margin, exactly.

    margin: float32, (outputs,). total: of the objective's statistic, if it needs one.
    """

    train: str
    parameters: BoosterParameters
    margin: Float32Array
    total: Int64Array | None = None

    def run(self, shard: Shard) -> Int64Array:
        """Add up; returns int64, outputs * 2 * LIMBS."""
        objective = objective_of(self.parameters)
        label, weight = shard.label(self.train), shard.weight(self.train)
        margin = np.repeat(self.margin[:, None], len(label), axis=1)
        pairs = np.empty((objective.outputs, len(label), 2), np.float32)
        constants = objective.constants if self.total is None else objective.constants_after(self.total)
        objective.gradients(label, weight, margin, constants, 0, len(label), pairs)
        return np.concatenate([exact_sum(pairs[k, :, place]) for k in range(objective.outputs) for place in (0, 1)])


def _newton_step(
    rows: Collective,
    parameters: BoosterParameters,
    objective: Objective,
    train: str,
    margin: Float32Array,
    statistic: Int64Array | None = None,
) -> float:
    """Minus the sum of gradients by that of hessians, for objectives with one output."""
    total = rows.sum(SumGradients(train, parameters, margin, statistic), "base-score-step", bound=BOUND)
    gradient, hessian = (read_sum(limbs, what="gradients at the base score") for limbs in total.reshape(2, LIMBS))
    return float(np.float32(-gradient / max(hessian, 1e-6)))


def _linked(objective: Objective, margin: float) -> float:
    return float(objective.predictions(np.full((1, 1), margin, np.float32))[0, 0])


@dataclass(frozen=True)
class SumResiduals:
    """Add up what the scale of residuals at one margin needs."""

    train: str
    parameters: BoosterParameters
    margin: Float32Array

    def run(self, shard: Shard) -> Int64Array:
        """Add up; returns the objective's statistic."""
        objective = objective_of(self.parameters)
        label, weight = shard.label(self.train), shard.weight(self.train)
        return objective.statistic(label, weight, np.repeat(self.margin[:, None], len(label), axis=1))


def _absolute_error(
    rows: Collective, parameters: BoosterParameters, objective: Objective, train: str
) -> tuple[float, ...]:
    """The mean, and one step of the smoothed loss from there, as XGBoost 3.4 does."""
    mean = _mean_label(rows, train)
    margin = np.array([mean], np.float32)
    statistic = rows.sum(SumResiduals(train, parameters, margin), "base-score-residuals", bound=BOUND)
    step = _newton_step(rows, parameters, objective, train, margin, statistic)
    return (float(np.float32(step) + np.float32(mean)),)


@dataclass(frozen=True)
class SumClasses:
    """Add up the weights of each class, exactly."""

    train: str
    classes: int

    def run(self, shard: Shard) -> Int64Array:
        """Add up; returns int64, classes * LIMBS."""
        label, weight = shard.label(self.train), shard.weight(self.train)
        ones = weight if len(weight) else np.ones(len(label), np.float32)
        return np.concatenate([exact_sum(ones[label == k]) for k in range(self.classes)])


def _log_frequencies(rows: Collective, classes: int, train: str) -> tuple[float, ...]:
    """ln(frequency + 1e-6) of each class, less their mean; steps in float32 as XGBoost's."""
    total = rows.sum(SumClasses(train, classes), "base-score", bound=BOUND)
    counts = np.array([read_sum(limbs, what="weights of the classes") for limbs in total.reshape(classes, LIMBS)])
    if not counts.sum():
        return (0.0,) * classes
    shares = counts.astype(np.float32) / np.float32(counts.sum())
    logs = np.array([log(share + _RELATIVE) for share in shares], np.float32)
    mean = np.float32(0)
    for value in logs:
        mean += value / np.float32(classes)
    return tuple(float(value) for value in logs - mean)


@dataclass(frozen=True)
class CountLabels:
    """Count labels in the cells of an order-preserving map of float32 (see `cells`), as fine as asked for.

    prefixes: int64, the leading bits of the cells that are split; step: how many steps were made before.
    scale: integers for a weight of 1.0; 0 counts rows.
    """

    train: str
    prefixes: Int64Array
    step: int
    scale: float

    def run(self, shard: Shard) -> Int64Array:
        """Count; returns int64, 2 * prefixes * 2^ways: rows, and their weights (rows again if there are none)."""
        label, weight = shard.label(self.train), shard.weight(self.train)
        keys = _keys(label)
        ways = _KEY_WAYS[self.step]
        left = 32 - sum(_KEY_WAYS[: self.step + 1])
        units = _units(weight, len(label), self.scale)
        counts = np.zeros((2, len(self.prefixes), 1 << ways), np.int64)
        for place, prefix in enumerate(self.prefixes):
            inside = (keys >> (left + ways)) == prefix
            parts = (keys[inside] >> left) & ((1 << ways) - 1)
            np.add.at(counts[0, place], parts, 1)
            np.add.at(counts[1, place], parts, units[inside])
        return counts.ravel()


def _keys(label: Float32Array) -> Int64Array:
    """int64: each label's place among all float32."""
    bits = (label + np.float32(0)).view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, bits ^ 0xFFFFFFFF, bits ^ 0x80000000)


def _units(weight: Float32Array, rows: int, scale: float) -> Int64Array:
    if not scale:
        return np.ones(rows, np.int64)
    wide = weight.astype(np.float64) if len(weight) else np.ones(rows)
    return np.rint(wide * scale).astype(np.int64)


@dataclass(frozen=True)
class LargestWeight:
    """Find the power of two that is above all weights."""

    train: str

    def run(self, shard: Shard) -> Int64Array:
        """Count this shard at its exponent; returns int64, 1 + 2 * EXPONENTS: whether it has weights, and where."""
        weight = shard.weight(self.train)
        largest = max(float(weight.max(initial=0)), 1.0)
        return np.concatenate([[int(len(weight) > 0)], count_exponents(largest, 0.0)])


class _Target:
    """A place in the order of the labels: the first label up to which so much weight (or so many rows) is counted."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.prefix = self.before = 0
        self.value: float | None = None

    def narrow(self, rows: Int64Array, measure: Int64Array, fewest: int, step: int) -> None:
        """Go on in the part of the cell that holds the place, unless it has too few rows."""
        if self.value is not None:
            return
        upto = self.before + np.cumsum(measure)
        part = min(int(np.searchsorted(upto, self.threshold, side="left")), int(np.flatnonzero(measure)[-1]))
        if rows[part] < fewest:
            first, last = _widened(rows, part, fewest)
            left = 32 - sum(_KEY_WAYS[: step + 1])
            start = ((self.prefix << _KEY_WAYS[step]) | first) << left
            end = ((((self.prefix << _KEY_WAYS[step]) | last) + 1) << left) - 1
            lowest, highest = lowest_value(np.array([start, end], np.int64)).astype(np.float64)
            self.value = float(np.float32((lowest + highest) / 2))
            return
        self.before = int(upto[part] - measure[part])
        self.prefix = (self.prefix << _KEY_WAYS[step]) | part
        if step == len(_KEY_WAYS) - 1:
            self.value = float(lowest_value(np.array([self.prefix], np.int64))[0])


def _widened(rows: Int64Array, part: int, fewest: int) -> tuple[int, int]:
    """The first and the last of the neighbouring parts around one that together hold enough rows."""
    first = last = part
    while rows[first : last + 1].sum() < fewest:
        below, above = np.flatnonzero(rows[:first]), np.flatnonzero(rows[last + 1 :])
        if len(above) and (not len(below) or above[0] + 1 <= first - below[-1]):
            last += int(above[0]) + 1
        else:
            first = int(below[-1])
    return first, last


def _quantiles(rows: Collective, levels: Sequence[float], train: str) -> tuple[float, ...]:
    """The labels' quantiles: of one party's rows XGBoost's own, exactly.

    Over several parties the search ends where a cell would have fewer than 20 rows of the total, so that no single
    row's label is shown: the middle of the neighbouring cells that have as many is taken, or the mean label if there
    are fewer rows altogether.
    """
    weights = rows.sum(LargestWeight(train), "base-score-weights", bound=1 << 40)
    weighted = bool(weights[0])
    scale = float(np.ldexp(1.0, _UNIT_BITS - read_exponents(weights[1:])[0])) if weighted else 0.0
    fewest = _FEWEST_ROWS if rows.parties > 1 else 1
    targets: list[_Target] = []
    places: list[Callable[[list[float]], float]] = []
    for step in range(len(_KEY_WAYS)):
        prefixes = np.array(sorted({t.prefix for t in targets if t.value is None}) if step else [0], np.int64)
        if not len(prefixes):
            break
        count = CountLabels(train, prefixes, step, scale)
        total = rows.sum(count, f"base-score-{step}", bound=BOUND).reshape(2, len(prefixes), -1)
        if step == 0:
            if total[0].sum() < fewest:
                return (_mean_label(rows, train),) * len(levels)
            targets, places = _targets(levels, total[int(weighted)].sum(), weighted=weighted)
        for target in targets:
            cell = int(np.searchsorted(prefixes, target.prefix))
            if target.value is None:
                target.narrow(total[0, cell], total[1, cell], fewest, step)
    values = [target.value or 0.0 for target in targets]
    return tuple(float(np.float32(place(values))) for place in places)


def _targets(
    levels: Sequence[float], total: int, *, weighted: bool
) -> tuple[list[_Target], list[Callable[[list[float]], float]]]:
    """What to look for, and how each level's quantile is made of what was found.

    Without weights XGBoost interpolates between the labels of rank ⌊α(n + 1)⌋ and the next; with weights it takes the
    first label up to which the share α of all weight lies.
    """
    targets: list[_Target] = []
    places: list[Callable[[list[float]], float]] = []
    for given in levels:
        level = float(np.float32(given))
        number = len(targets)
        rank = level * (total + 1)
        if weighted or level <= 1 / (total + 1) or level >= total / (total + 1):
            last = 1.0 if level <= 1 / (total + 1) else float(total)
            targets.append(_Target(max(level * total, 1e-9) if weighted else last))
            places.append(lambda values, number=number: values[number])  # type: ignore[misc]
            continue
        lower = int(np.floor(rank))
        targets += [_Target(lower), _Target(lower + 1)]
        places.append(
            lambda values, number=number, share=rank - lower: (  # type: ignore[misc]
                values[number] + share * (values[number + 1] - values[number])
            )
        )
    return targets, places
