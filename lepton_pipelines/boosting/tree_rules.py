"""What decides a tree, beside the sums."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.categorical import CategoricalRule
from lepton_pipelines.boosting.gain import Regularisation
from lepton_pipelines.boosting.sampling import ColumnSampler


@dataclass(frozen=True)
class GrowthLimits:
    """How far a tree may grow; 0 means no limit.

    lossguide: split the node that gains most next, instead of level by level.
    """

    max_depth: int
    max_leaves: int
    lossguide: bool


@dataclass(frozen=True)
class TreeRules:
    """All that decides a tree, but for the totals."""

    binning: Binning
    regularisation: Regularisation
    categorical: CategoricalRule
    limits: GrowthLimits
    learning_rate: float
    monotone: NDArray[np.int8]
    interactions: Sequence[Sequence[int]] = ()
    columns: ColumnSampler | None = None
