"""Scores of a two-class model, from counts of positives and negatives by score.

Scores are counted on 4096 cells of equal width of the log-odds from -16 to 16, which is where float32
probabilities can be told apart at both ends. AUC, ROC and precision–recall take the rows of one cell as tied:
the AUC of the unbinned scores differs by at most `auc_resolution`, half the share of (positive, negative) pairs
that lie in one cell. Log loss and Brier score are sums of rounded row values (2**-24) and need no cells.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_pipelines.evaluation.fixed_point import cells_sum, fixed, fixed_sum, float_of, weight_unit, weight_units
from lepton_pipelines.evaluation.result import BinaryFigures, CalibrationBin, Confusion, Curve
from lepton_pipelines.sums import Int64Array

CELLS = 4096
LARGEST_LOG_ODDS = 16.0
CALIBRATION_BINS = 10
LOSS_BITS = 24
LARGEST_LOSS = 37  # -log(1e-16), where XGBoost clips a probability, is 36.85
EPSILON = 1e-16
POINTS = 400  # of a curve, as many as a plot can show


def log_odds_cells(probability: NDArray[np.float64], cells: int = CELLS) -> NDArray[np.intp]:
    """Give each probability its cell: equal widths of log-odds, the ends clipped; 0.5 opens the upper half."""
    with np.errstate(divide="ignore"):
        log_odds = np.log(probability) - np.log1p(-probability)
    scaled = np.floor((np.clip(log_odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS) / LARGEST_LOG_ODDS + 1) * (cells / 2))
    cell: NDArray[np.intp] = np.clip(scaled, 0, cells - 1).astype(np.intp)
    return cell


@dataclass(frozen=True)
class BinaryScores:
    """Counts the rows of a two-class task.

    The vector, int64: negatives by cell (4096), positives by cell (4096), then for each calibration bin weight,
    positives and sum of probability (10 × 3), and last log loss, Brier score and number of rows.
    """

    classes: tuple[str, ...] = ("0", "1")
    threshold: float = 0.5
    largest_weight: float | None = None

    @property
    def weighted(self) -> bool:
        """Whether rows carry weights."""
        return self.largest_weight is not None

    def __post_init__(self) -> None:
        if len(self.classes) != 2:
            raise ValueError(f"a binary task has two classes, not {len(self.classes)}: {', '.join(self.classes)}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"the decision threshold {self.threshold} is not between 0 and 1")

    @cached_property
    def length(self) -> int:
        """Cells of the vector."""
        return 2 * CELLS + 3 * CALIBRATION_BINS + 3

    def bound(self, rows: int) -> int:
        """Give the largest value that a cell of the total over this many rows may have."""
        return max(1, rows) * weight_unit(self.largest_weight) * (LARGEST_LOSS << LOSS_BITS)

    def count(self, label: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Int64Array:
        """Count rows.

        label: 0 or 1, (rows,). prediction: probability of class 1, (rows,). weight: (rows,) or None.
        Returns int64, (length,). Raises ValueError for a label or a prediction outside its range.
        """
        labels = np.asarray(label, dtype=np.float64).reshape(-1)
        scores = np.asarray(prediction, dtype=np.float64).reshape(-1)
        check_binary(labels, scores)
        units = weight_units(weight, len(labels), self.largest_weight)
        positive = labels == 1
        cells = log_odds_cells(scores) + CELLS * positive
        bins = np.minimum((scores * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
        chosen = np.where(positive, scores, 1 - scores)
        return np.concatenate(
            [
                cells_sum(cells, units, 2 * CELLS),
                cells_sum(bins, units, CALIBRATION_BINS),
                cells_sum(bins[positive], units[positive], CALIBRATION_BINS),
                cells_sum(bins, units * fixed(scores, LOSS_BITS), CALIBRATION_BINS),
                np.array(
                    [
                        fixed_sum(-np.log(np.maximum(chosen, EPSILON)), units, LOSS_BITS),
                        fixed_sum((scores - positive) ** 2, units, LOSS_BITS),
                        len(labels),
                    ],
                    dtype=np.int64,
                ),
            ]
        )

    def read(self, total: Int64Array) -> BinaryFigures:
        """Say what a total means.

        `scores` holds auc and aucpr (XGBoost's interpolation), logloss, brier, calibration_error (expected
        calibration error over ten bins of equal width) and, at the threshold, accuracy, precision and recall.
        What is not defined (an AUC of one class, anything of no rows) is left out.
        """
        negatives, positives = total[:CELLS], total[CELLS : 2 * CELLS]
        calibration = total[2 * CELLS : 2 * CELLS + 3 * CALIBRATION_BINS].reshape(3, CALIBRATION_BINS)
        loss, brier, rows = (int(value) for value in total[-3:])
        counted = float_of(int(negatives.sum() + positives.sum()), 0, weighted=self.weighted)
        bins = self._calibration(calibration)
        confusion, at_threshold = self._decisions(negatives, positives)
        scores: dict[str, float] = {}
        resolution = 0.0
        if negatives.any() and positives.any():
            scores["auc"], resolution = area_under_roc(negatives, positives)
        if positives.any():
            scores["aucpr"] = area_under_precision_recall(negatives, positives)
        if counted:
            scores["logloss"] = float_of(loss, LOSS_BITS, weighted=self.weighted) / counted
            scores["brier"] = float_of(brier, LOSS_BITS, weighted=self.weighted) / counted
            scores["calibration_error"] = expected_calibration_error(bins)
        return BinaryFigures(
            rows=rows,
            scores=scores | at_threshold,
            auc_resolution=resolution,
            roc=roc_curve(negatives, positives),
            precision_recall=precision_recall_curve(negatives, positives),
            calibration=bins,
            confusion=confusion,
        )

    def _calibration(self, table: Int64Array) -> list[CalibrationBin]:
        return calibration_bins(table, bits=LOSS_BITS, weighted=self.weighted)

    def _decisions(self, negatives: Int64Array, positives: Int64Array) -> tuple[Confusion, dict[str, float]]:
        """Read the confusion at the cell edge that is nearest to the threshold, and what follows from it."""
        log_odds = np.log(self.threshold / (1 - self.threshold))
        edge = int(np.clip(round((log_odds / LARGEST_LOG_ODDS + 1) * CELLS / 2), 0, CELLS))
        effective = 1 / (1 + np.exp(-(edge / (CELLS / 2) - 1) * LARGEST_LOG_ODDS))
        tn, fp = (float_of(int(part.sum()), 0, weighted=self.weighted) for part in (negatives[:edge], negatives[edge:]))
        fn, tp = (float_of(int(part.sum()), 0, weighted=self.weighted) for part in (positives[:edge], positives[edge:]))
        confusion = Confusion(classes=list(self.classes), counts=[[tn, fp], [fn, tp]], threshold=float(effective))
        shares = {"accuracy": (tp + tn, tp + tn + fp + fn), "precision": (tp, tp + fp), "recall": (tp, tp + fn)}
        return confusion, {name: part / whole for name, (part, whole) in shares.items() if whole}


def check_binary(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
    """Refuse labels other than 0 and 1 and predictions that are no probabilities, with how many there are."""
    if labels.shape != scores.shape:
        raise ValueError(f"{len(labels)} labels and {len(scores)} predictions")
    wrong = int(np.count_nonzero((labels != 0) & (labels != 1)))
    if wrong:
        raise ValueError(f"{wrong} of {len(labels)} labels are neither 0 nor 1")
    outside = int(np.count_nonzero(~((scores >= 0) & (scores <= 1))))
    if outside:
        raise ValueError(f"{outside} of {len(scores)} predictions are no probabilities between 0 and 1")


def area_under_roc(negatives: Int64Array, positives: Int64Array) -> tuple[float, float]:
    """Give the AUC with rows of one cell as ties, and how far the AUC of the unbinned scores may be from it.

    negatives, positives: int64, (cells,), cells in increasing order of score, neither of them all zero.
    Exact integers until the last division.
    """
    below = 0
    twice = tied = 0
    for lost, won in zip(negatives.tolist(), positives.tolist(), strict=True):
        twice += won * (2 * below + lost)
        tied += won * lost
        below += lost
    pairs = below * int(positives.sum())
    return twice / (2 * pairs), tied / (2 * pairs)


def area_under_precision_recall(negatives: Int64Array, positives: Int64Array) -> float:
    """Give the area under the precision–recall curve with the interpolation that XGBoost's `aucpr` uses.

    Between two cells true and false positives grow in proportion (Davis and Goadrich, 2006), and the area below
    that curve has a closed form.
    """
    tp = np.concatenate([[0], np.cumsum(positives[::-1])]).astype(np.float64)
    fp = np.concatenate([[0], np.cumsum(negatives[::-1])]).astype(np.float64)
    rising = np.diff(tp) > 0
    tp0, tp1, fp0, fp1 = tp[:-1][rising], tp[1:][rising], fp[:-1][rising], fp[1:][rising]
    slope = (fp1 - fp0) / (tp1 - tp0)
    intercept = fp0 - slope * tp0
    steep = 1 + slope
    # precision(t) = t / (steep·t + intercept), integrated over t from tp0 to tp1.
    with np.errstate(divide="ignore", invalid="ignore"):
        curved = (tp1 - tp0 - intercept / steep * np.log((steep * tp1 + intercept) / (steep * tp0 + intercept))) / steep
    straight = (tp1 - tp0) / steep
    return float(np.where(intercept == 0, straight, curved).sum() / tp[-1])


def roc_curve(negatives: Int64Array, positives: Int64Array) -> Curve:
    """Give false positive rate (x) and true positive rate (y), from the highest threshold to the lowest."""
    if not (negatives.any() and positives.any()):
        return Curve(x=[], y=[])
    x = np.concatenate([[0], np.cumsum(negatives[::-1])]) / negatives.sum()
    y = np.concatenate([[0], np.cumsum(positives[::-1])]) / positives.sum()
    return _thinned(x, y)


def precision_recall_curve(negatives: Int64Array, positives: Int64Array) -> Curve:
    """Give recall (x) and precision (y), from the highest threshold to the lowest."""
    if not positives.any():
        return Curve(x=[], y=[])
    tp, fp = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    some = tp + fp > 0
    return _thinned(tp[some] / tp[-1], tp[some] / (tp + fp)[some])


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> Curve:
    """Keep a curve's corners, and of very many points those that a plot can show; first and last always."""
    moved = np.append(True, (np.diff(x) != 0) | (np.diff(y) != 0))
    x, y = x[moved], y[moved]
    # On a straight line that follows an axis only its ends matter.
    along_x, along_y = np.diff(y) == 0, np.diff(x) == 0
    straight = (along_x[:-1] & along_x[1:]) | (along_y[:-1] & along_y[1:])
    corners = np.concatenate([[True], ~straight, [True]]) if len(x) > 2 else np.ones(len(x), dtype=bool)
    x, y = x[corners], y[corners]
    if len(x) > POINTS:
        # Along the curve's length, so that a steep part keeps as many points as a flat one.
        along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        keep = np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)).clip(0, len(x) - 1))
        keep = np.unique(np.concatenate([[0], keep, [len(x) - 1]]))
        x, y = x[keep], y[keep]
    return Curve(x=[round(float(value), 6) for value in x], y=[round(float(value), 6) for value in y])


def calibration_bins(table: Int64Array, *, bits: int, weighted: bool) -> list[CalibrationBin]:
    """Read the calibration table.

    table: int64, (3, bins): weight, weight of what came true, and weight × probability in units of 2**-bits.
    """
    bins = table.shape[1]
    out = []
    for index, (weight, came_true, predicted) in enumerate(zip(*table.tolist(), strict=True)):
        out.append(
            CalibrationBin(
                low=index / bins,
                high=(index + 1) / bins,
                rows=float_of(weight, 0, weighted=weighted),
                predicted=float(np.ldexp(predicted / weight, -bits)) if weight else None,
                observed=came_true / weight if weight else None,
            )
        )
    return out


def expected_calibration_error(bins: list[CalibrationBin]) -> float:
    """Give the mean distance between predicted probability and observed share over the bins, weighted by rows."""
    total = sum(one.rows for one in bins)
    gaps = (
        one.rows * abs(one.predicted - one.observed)
        for one in bins
        if one.predicted is not None and one.observed is not None
    )
    return sum(gaps) / total if total else 0.0
