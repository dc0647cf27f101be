"""The objectives, by XGBoost's names: gradients, label domains, and how a margin becomes a prediction.

An objective is a row of a table: its compiled kernel (`gradient_kernels`), the constants that the kernel takes from
the parameters, the labels that it allows, its link and its default metric. Two of them, `reg:absoluteerror` and
`reg:quantileerror`, also need one small sum a round (the scale of the residuals), as in XGBoost 3.4's smooth form.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting import gradient_kernels as kernels
from lepton_pipelines.boosting.exact_sum import LIMBS, exact_sum, read_sum
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Kernel = Callable[[Float32Array, Float32Array, Float32Array, Float64Array, int, int, Float32Array], None]
Link = Callable[[Float32Array, int, int, Float32Array], None]
CustomFunction = Callable[[Float32Array, Any], tuple[Any, Any]]

NO_CONSTANTS = np.zeros(0)
_MAX_DELTA_STEP_OF_POISSON = 0.7


@dataclass(frozen=True)
class LabelDomain:
    """The labels that an objective allows.

    text: how a message names them. allows: bool of each label, from float32.
    """

    text: str
    allows: Callable[[Float32Array], NDArray[np.bool_]]


ANY_NUMBER = LabelDomain("finite numbers", np.isfinite)
UNIT_INTERVAL = LabelDomain("numbers from 0 to 1", lambda y: (y >= 0) & (y <= 1))
NOT_NEGATIVE = LabelDomain("numbers not below 0", lambda y: (y >= 0) & np.isfinite(y))
POSITIVE = LabelDomain("numbers above 0", lambda y: (y > 0) & np.isfinite(y))
ABOVE_MINUS_ONE = LabelDomain("numbers above -1", lambda y: (y > -1) & np.isfinite(y))


def classes(number: int) -> LabelDomain:
    """The whole numbers from 0 to number - 1."""
    return LabelDomain(
        f"whole numbers from 0 to {number - 1} (num_class is {number})",
        lambda y: (y >= 0) & (y < number) & (np.floor(y) == y),
    )


@dataclass(frozen=True)
class Objective:
    """What boosting optimises.

    name: XGBoost's. outputs: margins a row, and trees a round (times num_parallel_tree).
    default_metric: what XGBoost evaluates when nothing is asked for.
    domain: the labels it allows.
    kernel, constants: the compiled loop and its float64 constants (see `gradient_kernels`); a kernel that needs
        the sum of `statistic` takes its constants from `constants_after` instead.
    link: writes predictions of margins; None where the margin is the prediction.
    gradient_bound, hessian_bound: the largest absolute values for a row of weight 1, None if the labels decide.
    custom: the user's function, which replaces the kernel.
    """

    name: str
    outputs: int
    default_metric: str
    domain: LabelDomain
    kernel: Kernel | None
    constants: Float64Array = field(default_factory=lambda: NO_CONSTANTS)
    link: Link | None = None
    gradient_bound: float | None = None
    hessian_bound: float | None = None
    levels: tuple[float, ...] = ()
    needs_statistic: bool = False
    custom: CustomFunction | None = None

    def statistic(self, label: Float32Array, weight: Float32Array, margin: Float32Array) -> Int64Array:
        """The sums of this round that gradients need, int64, ((outputs + 1) * LIMBS,): they add up over rows.

        For each output the sum of w √|margin − label|, then the sum of weights (`exact_sum`).
        """
        sums = []
        roots = np.empty(len(label), np.float32)
        for one_output in margin:
            kernels.root_residuals(label, weight, one_output, 0, len(label), roots)
            sums.append(exact_sum(roots))
        sums.append(exact_sum(weight if len(weight) else np.ones(len(label), np.float32)))
        return np.concatenate(sums)

    def constants_after(self, total: Int64Array) -> Float64Array:
        """The kernel's constants of this round, from the total of `statistic` over everybody.

        The scale of an output's residuals is the squared mean of their roots.
        """
        if not self.needs_statistic:
            return self.constants
        *roots, weight = (read_sum(limbs, what=f"the residuals of {self.name}") for limbs in total.reshape(-1, LIMBS))
        scales = [(root / weight) ** 2 if weight else 0.0 for root in roots]
        return np.array([np.float32(scale) for scale in scales] + list(self.levels), np.float64)

    def gradients(
        self,
        label: Float32Array,
        weight: Float32Array,
        margin: Float32Array,
        constants: Float64Array,
        lo: int,
        hi: int,
        out: Float32Array,
    ) -> None:
        """Write gradient and hessian of the rows lo to hi to out, float32, (outputs, rows, 2).

        label: float32, (rows,). weight: float32, (rows,), or empty for ones. margin: float32, (outputs, rows).
        constants: `constants`, or `constants_after` the round's statistic. Runs without the interpreter's lock;
        a row's result does not depend on lo and hi.
        """
        if self.kernel is None:
            raise TypeError(f"{self.name} is the user's own function: call custom_gradients")
        self.kernel(label, weight, margin, constants, lo, hi, out)

    def custom_gradients(self, data: Any, margin: Float32Array, out: Float32Array) -> None:
        """Write what the user's function returns for all rows to out, float32, (outputs, rows, 2).

        data: what the function is given beside the margin, usually the Dataset. The function sees margins of shape
        (rows,) or (rows, outputs) and returns gradient and hessian of the same shape, as in `xgboost.train`.
        Raises UserError if a shape is not that, or a value is infinite or undefined.
        """
        if self.custom is None:
            raise TypeError(f"{self.name} is not a custom objective")
        outputs, rows = margin.shape
        seen = margin[0].copy() if outputs == 1 else np.ascontiguousarray(margin.T)
        results = self.custom(seen, data)
        for place, (name, values) in enumerate(zip(("gradient", "hessian"), results, strict=True)):
            array = np.asarray(values, np.float32)
            if array.size != rows * outputs:
                raise UserError(
                    f"obj: the {name} has shape {array.shape}, the margin {seen.shape}. "
                    "Return one gradient and one hessian for every margin."
                )
            if not np.isfinite(array).all():
                bad = int(np.count_nonzero(~np.isfinite(array)))
                raise UserError(f"obj: the {name} is infinite or undefined in {bad} of {array.size} places.")
            out[:, :, place] = array.reshape(rows, outputs).T

    def predictions(self, margin: Float32Array, *, out: Float32Array | None = None) -> Float32Array:
        """Predictions as metrics take them, float32, (outputs, rows), of margins of the same shape.

        Probabilities for the logistic and the multi-class objectives (`multi:softmax` too), means for those with a
        logarithmic link, else the margin itself.
        """
        if self.link is None:
            return margin
        result = np.empty_like(margin) if out is None else out
        self.link(margin, 0, margin.shape[1], result)
        return result

    def check_labels(self, label: Float32Array, *, where: str = "") -> None:
        """Refuse labels outside the objective's domain.

        where: the organisation or data set that a message names.
        Raises UserError with the number of rows and an example.
        """
        wrong = ~self.domain.allows(label)
        count = int(np.count_nonzero(wrong))
        if count:
            example = float(label[np.argmax(wrong)])
            raise UserError(
                f"{where + ': ' if where else ''}{count} of {len(label)} rows have a label that {self.name} does not "
                f"allow (for example {example:g}): it takes {self.domain.text}. "
                "Correct the labels, leave those rows out, or choose another objective."
            )


def objective_of(parameters: BoosterParameters, custom: CustomFunction | None = None) -> Objective:
    """The objective that the parameters name, or the user's own function.

    Raises UserError if a multi-class objective lacks `num_class`, or `reg:quantileerror` its `quantile_alpha`.
    """
    name = parameters.objective
    if custom is not None:
        outputs = max(parameters.num_class, 1)
        metric = _TABLE[name](parameters).default_metric if name in _TABLE and outputs == 1 else "rmse"
        return Objective("custom objective", outputs, metric, ANY_NUMBER, None, custom=custom)
    if name not in _TABLE:
        raise UserError(f"objective: {name!r} is not known here. Choose one of {', '.join(sorted(_TABLE))}.")
    return _TABLE[name](parameters)


def _logistic(name: str, metric: str, link: Link | None) -> Callable[[BoosterParameters], Objective]:
    def objective(parameters: BoosterParameters) -> Objective:
        largest = max(1.0, parameters.scale_pos_weight)
        constants = np.array([parameters.scale_pos_weight])
        return Objective(
            name, 1, metric, UNIT_INTERVAL, kernels.logistic, constants, link, 1.0 * largest, 0.25 * largest
        )

    return objective


def _multi_class(name: str) -> Callable[[BoosterParameters], Objective]:
    def objective(parameters: BoosterParameters) -> Objective:
        number = parameters.num_class
        if number < 1:
            raise UserError(f"num_class: {name} needs the number of classes. Set num_class to it, at least 2.")
        return Objective(
            name,
            number,
            "mlogloss",
            classes(number),
            kernels.softmax,
            link=kernels.apply_softmax,
            gradient_bound=1.0,
            hessian_bound=0.5,
        )

    return objective


def _squared_error(parameters: BoosterParameters) -> Objective:
    return Objective(
        "reg:squarederror",
        1,
        "rmse",
        ANY_NUMBER,
        kernels.squared_error,
        np.array([parameters.scale_pos_weight]),
        hessian_bound=max(1.0, parameters.scale_pos_weight),
    )


def _squared_log_error(parameters: BoosterParameters) -> Objective:
    return Objective("reg:squaredlogerror", 1, "rmsle", ABOVE_MINUS_ONE, kernels.squared_log_error)


def _pseudo_huber(parameters: BoosterParameters) -> Objective:
    slope = parameters.huber_slope
    return Objective(
        "reg:pseudohubererror",
        1,
        "mphe",
        ANY_NUMBER,
        kernels.pseudo_huber_error,
        np.array([slope]),
        gradient_bound=abs(slope),
        hessian_bound=1.0,
    )


def _hinge(parameters: BoosterParameters) -> Objective:
    return Objective(
        "binary:hinge",
        1,
        "error",
        UNIT_INTERVAL,
        kernels.hinge,
        link=kernels.apply_hinge,
        gradient_bound=1.0,
        hessian_bound=1.0,
    )


def _poisson(parameters: BoosterParameters) -> Objective:
    return Objective(
        "count:poisson",
        1,
        "poisson-nloglik",
        NOT_NEGATIVE,
        kernels.poisson,
        np.array([max_delta_step(parameters)]),
        kernels.apply_exp,
    )


def _gamma(parameters: BoosterParameters) -> Objective:
    constants = np.array([parameters.scale_pos_weight])
    return Objective("reg:gamma", 1, "gamma-deviance", POSITIVE, kernels.gamma, constants, kernels.apply_exp)


def _tweedie(parameters: BoosterParameters) -> Objective:
    rho = parameters.tweedie_variance_power
    metric = f"tweedie-nloglik@{rho:g}"
    return Objective("reg:tweedie", 1, metric, NOT_NEGATIVE, kernels.tweedie, np.array([rho]), kernels.apply_exp)


def _absolute_error(parameters: BoosterParameters) -> Objective:
    return Objective(
        "reg:absoluteerror",
        1,
        "mae",
        ANY_NUMBER,
        kernels.absolute_error,
        hessian_bound=1.0,
        needs_statistic=True,
    )


def _quantile_error(parameters: BoosterParameters) -> Objective:
    levels = parameters.quantile_levels
    if not levels:
        raise UserError("quantile_alpha: reg:quantileerror needs the quantile to predict. Set it, 0.5 say.")
    return Objective(
        "reg:quantileerror",
        len(levels),
        "quantile",
        ANY_NUMBER,
        kernels.quantile_error,
        link=kernels.apply_sort if len(levels) > 1 else None,
        hessian_bound=12.5,
        levels=levels,
        needs_statistic=True,
    )


def max_delta_step(parameters: BoosterParameters) -> float:
    """The step limit that is in force: XGBoost sets 0.7 for `count:poisson` unless one is given."""
    if parameters.max_delta_step is not None:
        return parameters.max_delta_step
    return _MAX_DELTA_STEP_OF_POISSON if parameters.objective == "count:poisson" else 0.0


_TABLE: dict[str, Callable[[BoosterParameters], Objective]] = {
    "reg:squarederror": _squared_error,
    "reg:squaredlogerror": _squared_log_error,
    "reg:pseudohubererror": _pseudo_huber,
    "reg:absoluteerror": _absolute_error,
    "reg:quantileerror": _quantile_error,
    "reg:logistic": _logistic("reg:logistic", "rmse", kernels.apply_sigmoid),
    "binary:logistic": _logistic("binary:logistic", "logloss", kernels.apply_sigmoid),
    "binary:logitraw": _logistic("binary:logitraw", "logloss", None),
    "binary:hinge": _hinge,
    "multi:softmax": _multi_class("multi:softmax"),
    "multi:softprob": _multi_class("multi:softprob"),
    "count:poisson": _poisson,
    "reg:gamma": _gamma,
    "reg:tweedie": _tweedie,
}
