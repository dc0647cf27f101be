"""Scores of a model with several classes: log loss, error, confusion, each class against the rest, calibration."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lepton_pipelines.evaluation.binary_scores import (
    CALIBRATION_BINS,
    EPSILON,
    LARGEST_LOSS,
    LOSS_BITS,
    area_under_roc,
    calibration_bins,
    expected_calibration_error,
    log_odds_cells,
    roc_curve,
)
from lepton_pipelines.evaluation.fixed_point import cells_sum, fixed, fixed_sum, float_of, weight_unit, weight_units
from lepton_pipelines.evaluation.result import Confusion, MulticlassFigures
from lepton_pipelines.sums import Int64Array

CLASS_CELLS = 512
"""Cells of log-odds a class; AUCs of one class against the rest need fewer than a binary task's."""


@dataclass(frozen=True)
class MulticlassScores:
    """Counts the rows of a task with K classes.

    The vector, int64: rows by true and predicted class (K × K), rows of the rest and of the class by cell (K × 2 ×
    512), calibration of the predicted class (3 × 10), log loss, number of rows.
    """

    classes: tuple[str, ...]
    largest_weight: float | None = None

    @property
    def weighted(self) -> bool:
        """Whether rows carry weights."""
        return self.largest_weight is not None

    @property
    def length(self) -> int:
        """Cells of the vector."""
        k = len(self.classes)
        return k * k + 2 * k * CLASS_CELLS + 3 * CALIBRATION_BINS + 2

    def bound(self, rows: int) -> int:
        """Give the largest value that a cell of the total over this many rows may have."""
        return max(1, rows) * weight_unit(self.largest_weight) * (LARGEST_LOSS << LOSS_BITS)

    def count(self, label: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Int64Array:
        """Count rows.

        label: class codes 0 … K−1, (rows,). prediction: probabilities, (rows, K). weight: (rows,) or None.
        Returns int64, (length,). Raises ValueError for a label outside the classes or what is no probability.
        """
        k = len(self.classes)
        scores = np.asarray(prediction, dtype=np.float64).reshape(-1, k)
        labels = np.asarray(label, dtype=np.float64).reshape(-1)
        outside = int(np.count_nonzero(~np.isin(labels, np.arange(k))))
        if outside or len(labels) != len(scores):
            raise ValueError(f"{outside} of {len(labels)} labels are no class code from 0 to {k - 1}")
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError("predictions are no probabilities between 0 and 1: evaluate multi:softprob's output")
        units = weight_units(weight, len(labels), self.largest_weight)
        codes = labels.astype(np.intp)
        chosen = scores.argmax(axis=1)
        confidence = scores.max(axis=1)
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
        right = chosen == codes
        by_class = [
            cells_sum(
                log_odds_cells(scores[:, one], CLASS_CELLS) + CLASS_CELLS * (codes == one), units, 2 * CLASS_CELLS
            )
            for one in range(k)
        ]
        own = np.maximum(scores[np.arange(len(codes)), codes], EPSILON)
        return np.concatenate(
            [
                cells_sum(codes * k + chosen, units, k * k),
                *by_class,
                cells_sum(bins, units, CALIBRATION_BINS),
                cells_sum(bins[right], units[right], CALIBRATION_BINS),
                cells_sum(bins, units * fixed(confidence, LOSS_BITS), CALIBRATION_BINS),
                np.array([fixed_sum(-np.log(own), units, LOSS_BITS), len(labels)], dtype=np.int64),
            ]
        )

    def read(self, total: Int64Array) -> MulticlassFigures:
        """Say what a total means. `scores`: mlogloss, merror, accuracy, calibration_error, auc (mean over classes)."""
        k = len(self.classes)
        confusion = total[: k * k].reshape(k, k)
        by_class = total[k * k : k * k + 2 * k * CLASS_CELLS].reshape(k, 2, CLASS_CELLS)
        table = total[k * k + 2 * k * CLASS_CELLS : -2].reshape(3, CALIBRATION_BINS)
        bins = calibration_bins(table, bits=LOSS_BITS, weighted=self.weighted)
        weight = float_of(int(confusion.sum()), 0, weighted=self.weighted)
        scores: dict[str, float] = {}
        if weight:
            right = float_of(int(np.trace(confusion)), 0, weighted=self.weighted) / weight
            scores["mlogloss"] = float_of(int(total[-2]), LOSS_BITS, weighted=self.weighted) / weight
            scores["merror"] = 1 - right
            scores["accuracy"] = right
            scores["calibration_error"] = expected_calibration_error(bins)
        known = [one for one in range(k) if by_class[one, 0].any() and by_class[one, 1].any()]
        class_auc = {self.classes[one]: area_under_roc(by_class[one, 0], by_class[one, 1])[0] for one in known}
        if len(known) == k:
            scores["auc"] = sum(class_auc.values()) / k
        return MulticlassFigures(
            rows=int(total[-1]),
            scores=scores,
            class_auc=class_auc,
            roc={self.classes[one]: roc_curve(by_class[one, 0], by_class[one, 1]) for one in known},
            calibration=bins,
            confusion=Confusion(
                classes=list(self.classes),
                counts=[[float_of(cell, 0, weighted=self.weighted) for cell in row] for row in confusion.tolist()],
            ),
        )
