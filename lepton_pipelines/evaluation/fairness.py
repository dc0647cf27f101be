"""Differences between declared groups: whom a model selects, whom it misses, whose probabilities are off.

The terms are the field's (Fairlearn, AIF360): demographic parity gap, the largest difference of selection rates;
equal opportunity gap, the largest difference of true positive rates; beside them the gaps of AUC and of
calibration. A group with fewer rows than the disclosure limit is neither shown nor compared.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lepton_pipelines.evaluation.binary_scores import area_under_roc, check_binary, log_odds_cells
from lepton_pipelines.evaluation.fixed_point import cells_sum, fixed
from lepton_pipelines.evaluation.result import Fairness, GroupRates
from lepton_pipelines.sums import Int64Array

CELLS = 512
SCORE_BITS = 24
PER_GROUP = 2 * CELLS + 3
"""Cells a group: rows by label and score, positives selected, negatives selected, sum of probability."""

MISSING = "missing"


@dataclass(frozen=True)
class GroupRows:
    """Counts the rows of a two-class task by the groups of one column.

    groups: the column's categories by the contract; rows without one are counted as one more group, "missing".
    threshold: selected from this probability on. smallest: rows that a group must have to be shown.
    The vector, int64: (groups + 1) × 1027, see PER_GROUP. Rows count whole, also where they carry weights:
    gaps are about people.
    """

    column: str
    groups: tuple[str, ...]
    threshold: float = 0.5
    smallest: int = 20

    @property
    def length(self) -> int:
        """Cells of the vector."""
        return (len(self.groups) + 1) * PER_GROUP

    def bound(self, rows: int) -> int:
        """Give the largest value that a cell of the total over this many rows may have."""
        return max(1, rows) << SCORE_BITS

    def count(self, label: ArrayLike, prediction: ArrayLike, group: ArrayLike) -> Int64Array:
        """Count rows.

        label: 0 or 1, (rows,). prediction: probability of class 1, (rows,). group: codes into `groups`, negative
        or NaN for missing, (rows,). Returns int64, (length,).
        """
        labels = np.asarray(label, dtype=np.float64).reshape(-1)
        scores = np.asarray(prediction, dtype=np.float64).reshape(-1)
        check_binary(labels, scores)
        codes = np.asarray(group, dtype=np.float64).reshape(-1)
        last = len(self.groups)
        known = np.isin(codes, np.arange(last))
        stray = int(np.count_nonzero(~known & ~np.isnan(codes) & ~(codes < 0)))
        if stray or codes.shape != labels.shape:
            raise ValueError(f"{stray} of {len(labels)} rows have a group that {self.column!r} does not list")
        own = np.where(known, codes, last).astype(np.intp) * PER_GROUP
        positive = labels == 1
        ones = np.ones(len(labels), dtype=np.int64)
        out = cells_sum(own + log_odds_cells(scores, CELLS) + CELLS * positive, ones, self.length)
        selected = scores >= self.threshold
        for place, rows in enumerate((selected & positive, selected & ~positive)):
            out += cells_sum(own[rows] + 2 * CELLS + place, ones[rows], self.length)
        return out + cells_sum(own + 2 * CELLS + 2, fixed(scores, SCORE_BITS), self.length)

    def read(self, total: Int64Array) -> Fairness:
        """Say what a total means."""
        rates = [
            self._rates(name, cells)
            for name, cells in zip((*self.groups, MISSING), total.reshape(-1, PER_GROUP), strict=True)
            if name != MISSING or cells.any()
        ]
        gaps = {}
        for gap, field in (
            ("demographic_parity_gap", "selection_rate"),
            ("equal_opportunity_gap", "true_positive_rate"),
            ("auc_gap", "auc"),
        ):
            known = [value for one in rates if (value := getattr(one, field)) is not None]
            if len(known) >= 2:
                gaps[gap] = max(known) - min(known)
        off = [one.calibration_gap for one in rates if one.calibration_gap is not None]
        if len(off) >= 2:
            gaps["calibration_gap"] = max(off)
        return Fairness(
            column=self.column, threshold=self.threshold, groups=rates, smallest_group=self.smallest, gaps=gaps
        )

    def _rates(self, name: str, cells: Int64Array) -> GroupRates:
        negatives, positives = cells[:CELLS], cells[CELLS : 2 * CELLS]
        won, lost, probability = (int(cell) for cell in cells[2 * CELLS :])
        p, n = int(positives.sum()), int(negatives.sum())
        if p + n < self.smallest:
            return GroupRates(group=name, rows=None)
        enough = p >= self.smallest
        return GroupRates(
            group=name,
            rows=p + n,
            selection_rate=(won + lost) / (p + n),
            true_positive_rate=won / p if enough else None,
            auc=area_under_roc(negatives, positives)[0] if enough and n >= self.smallest else None,
            calibration_gap=abs(float(np.ldexp(probability, -SCORE_BITS)) - p) / (p + n),
        )
