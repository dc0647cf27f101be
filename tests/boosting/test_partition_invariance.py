"""The model is byte for byte the same however the rows are spread, in whatever order, over any number of threads."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lepton_pipelines as lp

ROWS, ROUNDS = 600, 4
SETTINGS = {
    "binary": {"objective": "binary:logistic", "max_depth": 4},
    "subsample": {"objective": "binary:logistic", "max_depth": 4, "subsample": 0.6, "seed": 5},
    "columns": {"objective": "binary:logistic", "colsample_bytree": 0.7, "colsample_bynode": 0.7, "seed": 3},
    "squared error, lossguide": {"grow_policy": "lossguide", "max_leaves": 12, "max_depth": 0},
    "absolute error": {"objective": "reg:absoluteerror", "max_depth": 3},
    "three classes": {"objective": "multi:softprob", "num_class": 3, "max_depth": 3, "subsample": 0.8},
}
TYPES = ["q", "q", "q", "c", "q"]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(ROWS, 5)).astype(np.float32)
    X[:, 3] = rng.integers(0, 6, ROWS)
    X[rng.random(X.shape) < 0.1] = np.nan
    score = np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1]) ** 2 + np.nan_to_num(X[:, 3]) / 3
    return X, score, rng.random(ROWS).astype(np.float32) + np.float32(0.5)


def label_for(params, score):
    objective = params.get("objective", "")
    if objective.startswith("multi"):
        return np.digitize(score, [0.7, 1.6]).astype(np.float32)
    return (score > 1).astype(np.float32) if objective.startswith("binary") else score.astype(np.float32)


def model_of(params, rows, parts, threads=2):
    X, score, weight = rows
    label = label_for(params, score)
    sets = [
        lp.Dataset(X[part], label[part], weight=weight[part], row_id=part.astype(np.int64), feature_types=TYPES)
        for part in parts
    ]
    booster = lp.simulate({"nthread": threads, **params}, sets, ROUNDS, edges=edges(), verbose_eval=False)
    return bytes(booster.save_raw("ubj"))


def edges():
    numbers = np.append(np.linspace(-2.5, 2.5, 40), 9).astype(np.float32)
    return [np.arange(6, dtype=np.float32) if kind == "c" else numbers for kind in TYPES]


@pytest.fixture(scope="module")
def whole(rows):
    return {name: model_of(params, rows, [np.arange(ROWS)]) for name, params in SETTINGS.items()}


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), count=st.sampled_from([2, 3, 7, 16]), threads=st.sampled_from([1, 2, 5]))
def test_model_bytes_do_not_depend_on_the_partition(name, rows, whole, seed, count, threads):
    rng = np.random.default_rng(seed)
    order = rng.permutation(ROWS)
    parts = np.split(order, np.sort(rng.integers(0, ROWS + 1, count - 1)))  # some may be empty
    assert model_of(SETTINGS[name], rows, parts, threads) == whole[name]


def test_parts_of_one_class_or_without_a_feature_or_empty_give_the_same_model(rows, whole):
    X, score, _ = rows
    lacking = np.flatnonzero(np.isnan(X[:, 0]))
    others = np.setdiff1d(np.arange(ROWS), lacking)
    positive = others[score[others] > 1]
    negative = others[score[others] <= 1]
    parts = [positive, np.zeros(0, np.int64), lacking, negative]
    assert model_of(SETTINGS["binary"], rows, parts) == whole["binary"]


def test_edges_that_are_searched_do_not_depend_on_the_partition(rows):
    X, score, weight = rows
    label = (score > 1).astype(np.float32)

    def model(parts):
        sets = [lp.Dataset(X[p], label[p], weight=weight[p], feature_types=TYPES) for p in parts]
        params = {"objective": "binary:logistic", "max_bin": 16, "nthread": 2}
        return bytes(lp.simulate(params, sets, 2, verbose_eval=False).save_raw("ubj"))

    rng = np.random.default_rng(0)
    assert model(np.array_split(rng.permutation(ROWS), 3)) == model(np.array_split(rng.permutation(ROWS), 2))


def test_model_bytes_do_not_depend_on_who_misses_many_values(rows):
    X, score, weight = rows
    holes = X.copy()
    holes[: ROWS // 3][np.random.default_rng(2).random((ROWS // 3, X.shape[1])) < 0.7] = np.nan
    holes[ROWS // 3 :] = np.nan_to_num(X[ROWS // 3 :])
    sorted_parts, mixed = np.array_split(np.arange(ROWS), 3), [np.arange(k, ROWS, 3) for k in range(3)]
    for params in SETTINGS.values():
        a, b = (model_of(params, (holes, score, weight), parts) for parts in (sorted_parts, mixed))
        assert a == b
