"""Score histograms: rows in, a vector of integers out that adds up over workers and organisations.

One object says how the rows of a task are counted (`count`), how large a total may get (`bound`) and what a
total means (`read`). Everybody builds the same object from the same spec, so vectors have one length and one
meaning everywhere. Regression needs a scale that nobody has to make public beforehand: a first sum counts rows
by powers of two (`regression_scores.count_magnitudes`), and the histogram is built from its total.

    histogram = score_histogram("binary:logistic")
    total = sums.sum("scores", histogram.count(label, prediction), bound=histogram.bound(rows))
    figures = histogram.read(total)
"""

from collections.abc import Sequence
from typing import Protocol

from numpy.typing import ArrayLike

from lepton_pipelines.evaluation.result import BinaryFigures, MulticlassFigures, RegressionFigures, Task
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array

BINARY = ("binary:logistic", "binary:logitraw", "binary:hinge", "reg:logistic")
MULTICLASS = ("multi:softprob", "multi:softmax")
REGRESSION = (
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:quantileerror",
    "reg:gamma",
    "reg:tweedie",
    "count:poisson",
)


class ScoreHistogram(Protocol):
    """How the rows of one task are counted, and what the totals mean."""

    @property
    def length(self) -> int:
        """Cells of the vector, the same for everybody."""
        ...

    def bound(self, rows: int) -> int:
        """Give the largest value that a cell of the total over this many rows may have."""
        ...

    def count(self, label: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Int64Array:
        """Count rows: int64, (length,). Vectors of disjoint rows add up to the vector of all of them."""
        ...

    def read(self, total: Int64Array) -> BinaryFigures | RegressionFigures | MulticlassFigures:
        """Say what a total means."""
        ...


def task_of(objective: str) -> Task:
    """Name the task of an objective. Raises UserError for one that has no evaluation."""
    if objective in BINARY:
        return "binary"
    if objective in MULTICLASS:
        return "multiclass"
    if objective in REGRESSION:
        return "regression"
    known = ", ".join((*BINARY, *MULTICLASS, *REGRESSION))
    raise UserError(f"training.objective: there is no evaluation for {objective}. Choose one of: {known}.")


def score_histogram(
    objective: str,
    *,
    classes: Sequence[str] = ("0", "1"),
    threshold: float = 0.5,
    magnitudes: Int64Array | None = None,
    largest_weight: float | None = None,
) -> ScoreHistogram:
    """Build the histogram of an objective's scores.

    classes: names of the label's classes in the order of their codes; two for binary, not used in regression.
    threshold: predicted positive from this probability on; binary only.
    magnitudes: regression only: the total over everybody of `regression_scores.count_magnitudes`.
    largest_weight: the contract's bound on weights; None where it declares no weight column.
    Raises UserError for an objective that has no evaluation, ValueError for a regression without magnitudes.
    """
    from lepton_pipelines.evaluation.binary_scores import BinaryScores
    from lepton_pipelines.evaluation.multiclass_scores import MulticlassScores
    from lepton_pipelines.evaluation.regression_scores import RegressionScores, read_magnitudes

    task = task_of(objective)
    if task == "binary":
        return BinaryScores(classes=tuple(classes), threshold=threshold, largest_weight=largest_weight)
    if task == "multiclass":
        return MulticlassScores(classes=tuple(classes), largest_weight=largest_weight)
    if magnitudes is None:
        raise ValueError("a regression's score histogram is built from the total of count_magnitudes")
    return RegressionScores(read_magnitudes(magnitudes), largest_weight=largest_weight)
