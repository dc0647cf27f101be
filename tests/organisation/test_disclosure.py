"""What is noted of leaves that few rows reach, held against the leaves that stock XGBoost grows."""

import numpy as np
import pytest
import xgboost

from lepton_pipelines.organisation.disclosure import disclosure_notes
from lepton_pipelines.spec.training import Training

ROWS = 400


def fewest_rows_in_a_leaf(objective, **limits):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((ROWS, 4), np.float32)
    y = (X[:, 0] + rng.standard_normal(ROWS) > 0).astype(np.float32)
    data = xgboost.DMatrix(X, y)
    params = {"objective": objective, "tree_method": "hist", "base_score": 0.5, "lambda": 0, **limits}
    leaves = xgboost.train(params, data, 1).predict(data, pred_leaf=True)
    return np.unique(leaves, return_counts=True)[1].min()


@pytest.mark.parametrize("objective", ["reg:squarederror", "binary:logistic"])
@pytest.mark.parametrize(
    "limits", [{"max_depth": 6}, {"max_depth": 0, "max_leaves": 0}, {"max_depth": 9, "max_leaves": 40}]
)
def test_trees_that_can_single_rows_out_are_noted(objective, limits):
    assert fewest_rows_in_a_leaf(objective, **limits) < 20
    notes = disclosure_notes(Training(label="y", objective=objective, max_bin=20, **limits), ROWS, whose="400 rows")
    assert len(notes) == 1
    assert "400 rows: a leaf may hold fewer than 20 rows" in notes[0]
    assert "training.max_depth to 4, training.max_leaves to 20" in notes[0]


@pytest.mark.parametrize(("objective", "least"), [("reg:squarederror", 20), ("binary:logistic", 5)])
def test_a_child_weight_that_keeps_twenty_rows_in_every_leaf_needs_no_note(objective, least):
    limits = {"max_depth": 6, "min_child_weight": least}
    assert fewest_rows_in_a_leaf(objective, **limits) >= 20
    training = Training(label="y", objective=objective, max_bin=20, **limits)
    assert disclosure_notes(training, ROWS, whose="400 rows") == []


def test_columns_get_no_more_bins_than_twenty_rows_each_fill():
    training = Training(label="y", max_depth=2)
    (note,) = disclosure_notes(training, 380, whose="all organisations' 380 training rows")
    assert "max_bin is 256; all organisations' 380 training rows make at most 19 bins" in note
    assert disclosure_notes(training, 256 * 20, whose="") == []
