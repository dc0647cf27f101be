import numpy as np
import pytest
import xgboost

from lepton_pipelines.evaluation.importance import gain_importance, shap_importance


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 4)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    label = (np.nan_to_num(rows[:, 0]) * 2 + np.nan_to_num(rows[:, 2]) > 0).astype(float)
    matrix = xgboost.DMatrix(rows, label=label, feature_names=["a", "b", "c", "d"])
    return xgboost.train({"objective": "binary:logistic", "max_depth": 2}, matrix, 8), rows


def test_gain_shares_add_up_to_one_and_the_largest_comes_first(trained):
    found = gain_importance(trained[0])
    assert sum(one.value for one in found) == pytest.approx(1)
    assert found[0].feature == "a"
    assert [one.value for one in found] == sorted((one.value for one in found), reverse=True)


def test_shap_values_are_xgboosts_mean_contributions(trained):
    booster, rows = trained
    matrix = xgboost.DMatrix(rows, feature_names=booster.feature_names)
    expected = np.abs(booster.predict(matrix, pred_contribs=True)).mean(axis=0)[:-1]
    found = {one.feature: one.value for one in shap_importance(booster, rows)}
    assert found == pytest.approx({n: v for n, v in zip("abcd", expected.tolist(), strict=True) if v > 0})


def test_classes_are_added_up_and_no_rows_have_no_importance():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 2)).astype(np.float32)
    matrix = xgboost.DMatrix(rows, label=np.digitize(rows[:, 0], [-0.5, 0.5]))
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3}, matrix, 3)
    assert shap_importance(booster, rows)[0].feature == "f0"
    assert shap_importance(booster, rows[:0]) == []


def test_a_model_of_bare_leaves_has_no_importance():
    matrix = xgboost.DMatrix(np.zeros((10, 1)), label=np.ones(10))
    booster = xgboost.train({"objective": "reg:squarederror"}, matrix, 1)
    assert gain_importance(booster) == []
