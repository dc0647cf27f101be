"""What a split is worth, in XGBoost's arithmetic.

Real data is full of exact ties between splits, and which of them wins decides the tree. So weights and gains are
rounded where XGBoost 3.4 rounds them: sums in double, weights, their squares and gains to float32, differences in
float32. (XGBoost: `src/tree/param.h`, `src/tree/split_evaluator.h`. Release 3.2 rounds the same gain at another
place, which now and then decides a tie differently.)
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lepton_pipelines.boosting.compiled import inlined

EPSILON = np.float32(1e-6)  # a gain up to here is none (XGBoost's kRtEps)


class Weighing(NamedTuple):
    """What kernels weigh sums with.

    unit_g, unit_h: what one quantised unit of gradient and of hessian is worth. The others as in `Regularisation`.
    """

    unit_g: float
    unit_h: float
    reg_lambda: float
    reg_alpha: float
    min_child_weight: float
    max_delta_step: float


@dataclass(frozen=True)
class Regularisation:
    """The parameters that weigh gradients against complexity; float32 values, as XGBoost keeps them.

    reg_lambda, reg_alpha: L2 and L1 on leaf weights. min_child_weight: least sum of hessians in a child.
    max_delta_step: largest leaf weight, infinite for no limit. min_split_loss: least gain of a split.
    """

    reg_lambda: float
    reg_alpha: float
    min_child_weight: float
    max_delta_step: float
    min_split_loss: float

    @staticmethod
    def rounded(
        *, reg_lambda: float, reg_alpha: float, min_child_weight: float, max_delta_step: float, min_split_loss: float
    ) -> "Regularisation":
        """Round each parameter to float32; a max_delta_step of 0 means no limit, as in XGBoost."""
        max_delta_step = max_delta_step or np.inf
        return Regularisation(
            *(
                float(np.float32(value))
                for value in (reg_lambda, reg_alpha, min_child_weight, max_delta_step, min_split_loss)
            )
        )

    def weighing(self, inverse: tuple[float, float]) -> Weighing:
        """Return the rule for kernels; inverse: what one quantised unit of gradient and of hessian is worth."""
        return Weighing(*inverse, self.reg_lambda, self.reg_alpha, self.min_child_weight, self.max_delta_step)


@inlined
def shrunk(g: float, alpha: float) -> float:
    """The gradient, brought nearer to zero by alpha."""
    rest = np.abs(g) - alpha
    rest = rest if rest > 0.0 else 0.0
    return rest if g > 0.0 else -rest


@inlined
def leaf_weight(g: float, h: float, reg_lambda: float, alpha: float, max_delta_step: float) -> np.float32:
    """The weight of a node by itself; max_delta_step: infinite for no limit."""
    weight = -shrunk(g, alpha) / (h + reg_lambda)
    weight = weight if weight < max_delta_step else max_delta_step
    weight = weight if weight > -max_delta_step else -max_delta_step
    return np.float32(weight if h > 0.0 else 0.0)


@inlined
def clamp(weight: np.float32, lower: np.float32, upper: np.float32) -> np.float32:
    """Bring a weight between the bounds that monotone constraints leave it."""
    return lower if weight < lower else (upper if weight > upper else weight)


@inlined
def gain_of(g: float, h: float, weight: np.float32, reg_lambda: float, alpha: float) -> np.float32:
    """The gain of a node that takes this weight."""
    wide, square = np.float64(weight), np.float64(weight * weight)
    gain = -(2.0 * g * wide + (h + reg_lambda) * square + 2.0 * alpha * np.abs(wide))
    return np.float32(gain) if h > 0.0 else np.float32(0.0)
