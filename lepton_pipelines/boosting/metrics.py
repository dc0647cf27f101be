"""The metrics, by XGBoost's names: int64 vectors that add up over rows, and a number read from their total.

A mean loss is two exact sums (`exact_sum`), of weighted losses and of weights; its total is the pooled rows' own
metric, to the rounding of one row's float32 loss. `auc` and `aucpr` need all scores in order, which no sum gives:
rows are counted in cells of equal scores' neighbourhood, and the area is that of the cells. How far it can be
off is known from the counts themselves (`error_bound`): what the order within the cells could still change.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting import loss_kernels as losses
from lepton_pipelines.boosting.exact_sum import BOUND, LIMBS, exact_sum, limbs_of, new_cells, read_sum
from lepton_pipelines.boosting.objectives import Objective
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean
from lepton_pipelines.sums import Int64Array

Float32Array = NDArray[np.float32]
CustomMetricFunction = Callable[[Any, Any], tuple[str, float]]

SCORE_CELLS = 1 << 13
"""Into how many cells scores are sorted. Around the logit 0 a cell is 1/4096 wide, at logit 9 it is 1/41."""

WEIGHT_BITS = 20
"""Weights are counted in units of 2^-20 of the power of two above the largest, where rows are sorted by score."""

_UNWEIGHTED: Float32Array = np.zeros(0, np.float32)


@dataclass(frozen=True)
class MeanLoss:
    """A metric that is a mean of the rows' losses.

    name: XGBoost's. kernel, constants: the compiled loop and its constants (`loss_kernels`).
    finish: what is made of (sum of losses, sum of weights).
    per_row: how many losses a row has (the outputs of `quantile`).
    """

    name: str
    kernel: losses.LossKernel
    constants: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    finish: Callable[[float, float], float] = lambda loss, weight: loss / weight if weight else loss
    per_row: int = 1
    maximise: bool = False

    @property
    def length(self) -> int:
        """How many int64 `measure` returns."""
        return 2 * LIMBS

    @property
    def bound(self) -> int:
        """The largest absolute value of a cell of the total."""
        return BOUND

    def measure(self, label: Float32Array, weight: Float32Array, prediction: Float32Array) -> Int64Array:
        """What these rows add to the total, int64, (length,).

        label: float32, (rows,). weight: float32, (rows,), or empty for ones.
        prediction: float32, (outputs, rows), as `Objective.predictions` gives.
        """
        cells = new_cells()
        self.kernel(label, weight, prediction, self.constants, cells[0])
        return np.concatenate([limbs_of(cells), _weight_limbs(weight, len(label))])

    def read(self, total: Int64Array) -> float:
        """The metric of all rows, from the sum of their vectors."""
        loss = read_sum(total[:LIMBS], what=self.name)
        return self.finish(loss, read_sum(total[LIMBS:], what="weights") * self.per_row)

    def error_bound(self, total: Int64Array) -> float:
        """How far the number can be off for lack of resolution: not at all, losses are added exactly."""
        return 0.0


def _weight_limbs(weight: Float32Array, rows: int) -> Int64Array:
    if len(weight):
        return exact_sum(weight)
    cells = new_cells()
    cells[0, 127] = rows << 23  # as many ones: 2^23 times 2^-23
    return limbs_of(cells)


@dataclass(frozen=True)
class AreaUnderCurve:
    """`auc` and `aucpr`, from counts of rows by score.

    area: (negatives, positives) of the cells, best score first, to the area.
    probability: whether predictions are probabilities.
    classes: 1, or the number of classes: then the mean of each against the rest.
    by_frequency: whether that mean weighs classes by how frequent they are; XGBoost does for auc, not for aucpr.
    weight_exponent: all weights are at most 2 to this power; None if no party has weights.
    """

    name: str
    area: Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[float, float]]
    probability: bool
    classes: int = 1
    weight_exponent: int | None = None
    by_frequency: bool = True
    maximise: bool = True

    @property
    def length(self) -> int:
        """How many int64 `measure` returns."""
        return self.classes * 2 * SCORE_CELLS

    @property
    def bound(self) -> int:
        """The largest absolute value of a cell of the total: 2^31 rows of the largest weight."""
        return 1 << (31 if self.weight_exponent is None else 31 + WEIGHT_BITS)

    def measure(self, label: Float32Array, weight: Float32Array, prediction: Float32Array) -> Int64Array:
        """What these rows add to the total, int64, (length,): rows, or units of weight, by class, label and score."""
        histogram = np.zeros((self.classes, 2, SCORE_CELLS), np.int64)
        units = self._units(weight, len(label))
        for place in range(self.classes):
            positive = label == place if self.classes > 1 else label >= np.float32(0.5)
            losses.count_scores(positive, units, prediction[place], self.probability, histogram[place])
        return histogram.ravel()

    def _units(self, weight: Float32Array, rows: int) -> Int64Array:
        if self.weight_exponent is None:
            if len(weight):
                raise ValueError(f"{self.name}: these rows have weights, but none were announced")
            return np.zeros(0, np.int64)
        wide = weight.astype(np.float64) if len(weight) else np.ones(rows)
        return np.rint(np.ldexp(wide, WEIGHT_BITS - self.weight_exponent)).astype(np.int64)

    def read(self, total: Int64Array) -> float:
        """The area of all rows, from the sum of their vectors; NaN if a label is missing throughout, as XGBoost."""
        return self._areas(total)[0]

    def error_bound(self, total: Int64Array) -> float:
        """How far the area can be from that of the single scores: the most that order within cells could change."""
        return self._areas(total)[1]

    def _areas(self, total: Int64Array) -> tuple[float, float]:
        value = bound = weights = 0.0
        for negative, positive in total.reshape(self.classes, 2, SCORE_CELLS)[:, :, ::-1].astype(np.float64):
            if not negative.sum() or not positive.sum():
                return float("nan"), float("nan")
            area, off = self.area(negative, positive)
            weight = positive.sum() if self.by_frequency else 1.0
            value += area * weight
            bound += off * weight
            weights += weight
        return value / weights, bound / weights


def roc_area(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> tuple[float, float]:
    """Area under the ROC curve of cells in order of falling score, and how far it can be off.

    Within a cell half of the pairs count as ordered rightly, as for equal scores.
    """
    above = np.cumsum(positive) - positive
    pairs = negative.sum() * positive.sum()
    undecided = float(negative @ positive) / 2
    return float((negative @ above + undecided) / pairs), float(undecided / pairs)


def precision_recall_area(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> tuple[float, float]:
    """Area under the precision–recall curve of cells in order of falling score, and how far it can be off.

    Interpolated between cells as XGBoost does (Davis and Goadrich 2006). The bounds order each cell at its best, all
    positive rows first, and at its worst.
    """
    zeros = np.zeros_like(positive)
    value = _interpolated(negative, positive)
    best = _interpolated(np.stack([zeros, negative], 1).ravel(), np.stack([positive, zeros], 1).ravel())
    worst = _interpolated(np.stack([negative, zeros], 1).ravel(), np.stack([zeros, positive], 1).ravel())
    return value, max(best - value, value - worst)


def _interpolated(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float:
    true, false, total = np.cumsum(positive), np.cumsum(negative), positive.sum()
    moved = positive > 0
    before_true, before_false = (true - positive)[moved], (false - negative)[moved]
    slope = negative[moved] / positive[moved]
    a = 1.0 + slope
    b = (before_false - slope * before_true) / total
    recall, before = true[moved] / total, before_true / total
    with np.errstate(divide="ignore", invalid="ignore"):
        curved = (recall - before - b / a * (np.log(a * recall + b) - np.log(a * before + b))) / a
    return float(np.where(b != 0, curved, (recall - before) / a).sum())


@dataclass(frozen=True)
class CustomMetric:
    """The user's own function of one party's rows: over several parties, the mean weighted by their rows.

    function: (prediction, data) to (name, value), as in `xgboost.train`. maximise: whether more is better.
    """

    name: str
    function: CustomMetricFunction
    maximise: bool = False

    @property
    def length(self) -> int:
        """How many int64 `measure` returns."""
        return 2 * LIMBS

    @property
    def bound(self) -> int:
        """The largest absolute value of a cell of the total."""
        return BOUND

    def measure_custom(self, data: Any, prediction: Float32Array) -> Int64Array:
        """What these rows add to the total: their value times their number, and their number.

        data: what the function is given, usually the Dataset. prediction: float32, (outputs, rows).
        """
        rows = prediction.shape[1]
        seen = prediction[0] if len(prediction) == 1 else np.ascontiguousarray(prediction.T)
        value = float(self.function(seen, data)[1]) if rows else 0.0
        return np.concatenate([exact_sum(np.array([value * rows], np.float32)), _weight_limbs(_UNWEIGHTED, rows)])

    def read(self, total: Int64Array) -> float:
        """The mean over parties, weighted by rows."""
        rows = read_sum(total[LIMBS:], what="rows")
        return read_sum(total[:LIMBS], what=self.name) / rows if rows else float("nan")

    def error_bound(self, total: Int64Array) -> float:
        """How far the number can be off for lack of resolution: not at all."""
        return 0.0


Metric = MeanLoss | AreaUnderCurve


def metrics_of(
    parameters: BoosterParameters, objective: Objective, *, weight_exponent: int | None = None
) -> list[Metric]:
    """The metrics that the parameters ask for, in order; the objective's own if none are named.

    weight_exponent: a power of two that no party's weight exceeds; None if no party has weights.
    Raises UserError for names that are not known, do not fit the objective, or are not supported.
    """
    names: Sequence[str] = parameters.eval_metric
    if not names:
        names = () if parameters.disable_default_eval_metric else (objective.default_metric,)
    return [_metric(name, parameters, objective, weight_exponent) for name in dict.fromkeys(names)]


def _metric(name: str, parameters: BoosterParameters, objective: Objective, weight_exponent: int | None) -> Metric:
    base, _, argument = name.partition("@")
    outputs = objective.outputs
    multi_class = objective.name.startswith("multi:") or parameters.num_class > 1
    if base in ("auc", "aucpr") and not argument:
        area = roc_area if base == "auc" else precision_recall_area
        probability = objective.link is not None and (multi_class or "logistic" in objective.name)
        return AreaUnderCurve(name, area, probability, outputs if multi_class else 1, weight_exponent, base == "auc")
    if base in ("mlogloss", "merror") and not argument:
        if not multi_class:
            raise UserError(f"eval_metric: {name} is for multi-class objectives, not for {objective.name}.")
        return MeanLoss(name, losses.multi_class_log_loss if base == "mlogloss" else losses.multi_class_error)
    if multi_class and (base in _MEANS or base in _WITH_ARGUMENT):
        raise UserError(f"eval_metric: {name} takes one output a row, {objective.name} has {outputs}. Use mlogloss.")
    if base == "quantile":
        levels = parameters.quantile_levels or parameters.quantile_alpha
        if len(levels) != outputs:
            raise UserError("eval_metric: quantile needs quantile_alpha, one level for each output. Set it.")
        return MeanLoss(name, losses.quantile, np.array(levels), per_row=outputs)
    if outputs > 1:
        raise UserError(f"eval_metric: {name} takes one output a row, {objective.name} has {outputs}. Use quantile.")
    if base == "mphe":
        return MeanLoss(name, losses.pseudo_huber, np.array([parameters.huber_slope]))
    if base in _WITH_ARGUMENT:
        return _with_argument(name, base, argument, parameters)
    if base in _MEANS and not argument:
        loss, finish = _MEANS[base]
        return MeanLoss(name, loss, finish=finish)
    if base in REFUSED_METRICS:
        raise UserError(f"eval_metric: {name} {REFUSED_METRICS[base]}.")
    known = [*_MEANS, *_WITH_ARGUMENT, "mphe", "quantile", "auc", "aucpr", "mlogloss", "merror"]
    raise UserError(f"eval_metric: {name} is not a metric.{did_you_mean(base, known)} Known are: {', '.join(known)}.")


def _with_argument(name: str, base: str, argument: str, parameters: BoosterParameters) -> Metric:
    """`error@0.7` and `tweedie-nloglik@1.3`: the number behind the @ is the metric's constant."""
    default = 0.5 if base == "error" else parameters.tweedie_variance_power
    try:
        constant = float(argument) if argument else default
    except ValueError:
        raise UserError(f"eval_metric: {name} has {argument!r} behind the @, which is not a number.") from None
    if base == "tweedie-nloglik" and not 1 <= constant < 2:
        raise UserError(f"eval_metric: {name} needs a power from 1 to below 2 behind the @.")
    return MeanLoss(name, losses.error if base == "error" else losses.tweedie, np.array([constant]))


def _mean(loss: float, weight: float) -> float:
    return loss / weight if weight else loss


def _root_mean(loss: float, weight: float) -> float:
    return float(np.sqrt(_mean(loss, weight)))


def _twice_mean(loss: float, weight: float) -> float:
    return 2 * loss / (weight if weight > 0 else 1e-6)


_MEANS: dict[str, tuple[losses.LossKernel, Callable[[float, float], float]]] = {
    "rmse": (losses.squared, _root_mean),
    "rmsle": (losses.squared_log, _root_mean),
    "mae": (losses.absolute, _mean),
    "mape": (losses.relative, _mean),
    "logloss": (losses.log_loss, _mean),
    "poisson-nloglik": (losses.poisson, _mean),
    "gamma-nloglik": (losses.gamma, _mean),
    "gamma-deviance": (losses.gamma_deviance, _twice_mean),
}
_WITH_ARGUMENT = ("error", "tweedie-nloglik")
_OF_RANKING = "ranks rows within a query, which is not supported"
REFUSED_METRICS = {
    "ndcg": _OF_RANKING,
    "map": _OF_RANKING,
    "pre": _OF_RANKING,
    "ams": "needs the rows in order of their scores, which is not supported. Use auc or aucpr",
    "cox-nloglik": "belongs to survival:cox, which is not supported",
    "aft-nloglik": "belongs to survival:aft, which is not supported",
    "interval-regression-accuracy": "belongs to survival:aft, which is not supported",
    "expectile": "belongs to reg:expectileerror, which is not supported",
}
"""Metrics that XGBoost has and this library refuses, each with the rest of the sentence."""
