"""Metrics: stock XGBoost's numbers, from vectors that add up over any partition."""

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lepton_pipelines.boosting.metrics import REFUSED_METRICS, CustomMetric, metrics_of
from lepton_pipelines.boosting.objectives import objective_of
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError

SMOOTH = tuple(map(int, xgboost.__version__.split(".")[:2])) >= (3, 4)
ROWS = 5000
RANDOM = np.random.default_rng(0)
SCORE = RANDOM.normal(size=ROWS)
BINARY = (RANDOM.random(ROWS) < 1 / (1 + np.exp(-SCORE))).astype(np.float32)
COUNTS = RANDOM.poisson(np.exp(SCORE)).astype(np.float32)
POSITIVE = (RANDOM.gamma(2, 1, ROWS) * np.exp(SCORE) + 1e-3).astype(np.float32)
CLASSES = RANDOM.integers(0, 4, ROWS).astype(np.float32)
MARGIN = (SCORE * 2).astype(np.float32)[None]
FOUR = RANDOM.normal(size=(4, ROWS)).astype(np.float32)
WEIGHT = RANDOM.uniform(0.1, 3, ROWS).astype(np.float32)
NO_WEIGHT = np.zeros(0, np.float32)

CASES = [
    (
        {"objective": "binary:logistic"},
        ["logloss", "error", "error@0.7", "auc", "aucpr", "rmse", "mae"],
        BINARY,
        MARGIN,
    ),
    ({"objective": "binary:logitraw"}, ["auc", "aucpr"], BINARY, MARGIN),
    ({"objective": "reg:squarederror"}, ["rmse", "mae", "mape"], POSITIVE, MARGIN),
    ({"objective": "reg:squaredlogerror"}, ["rmsle"], POSITIVE, np.abs(MARGIN)),
    ({"objective": "reg:pseudohubererror", "huber_slope": 1.7}, ["mphe"], POSITIVE, MARGIN),
    ({"objective": "count:poisson"}, ["poisson-nloglik"], COUNTS, MARGIN),
    ({"objective": "reg:gamma"}, ["gamma-nloglik", "gamma-deviance"], POSITIVE, MARGIN),
    ({"objective": "reg:tweedie"}, ["tweedie-nloglik@1.3", "tweedie-nloglik@1.7"], COUNTS, MARGIN),
    ({"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.4, 0.5, 0.8]}, ["quantile"], POSITIVE, FOUR),
    ({"objective": "multi:softprob", "num_class": 4}, ["mlogloss", "merror", "auc", "aucpr"], CLASSES, FOUR),
]


def xgboost_scores(params, metrics, label, margin, weight):
    base = margin[0] if len(margin) == 1 else margin.T.copy()
    weights = weight if len(weight) else None
    data = xgboost.DMatrix(np.zeros((len(label), 1), np.float32), label, weight=weights, base_margin=base)
    scores = {}
    xgboost.train(
        {**params, "eta": 0, "eval_metric": metrics},
        data,
        1,
        evals=[(data, "rows")],
        evals_result=scores,
        verbose_eval=False,
    )
    return {name: values[0] for name, values in scores["rows"].items()}


def ours(params, metrics, weight):
    parameters = BoosterParameters.read({**params, "eval_metric": metrics})
    objective = objective_of(parameters)
    return objective, metrics_of(parameters, objective, weight_exponent=2 if len(weight) else None)


@pytest.mark.parametrize("weight", [NO_WEIGHT, WEIGHT], ids=["no weights", "weights"])
@pytest.mark.parametrize(("params", "metrics", "label", "margin"), CASES, ids=[c[0]["objective"] for c in CASES])
def test_scores_are_xgboosts(params, metrics, label, margin, weight):
    objective, computed = ours(params, metrics, weight)
    if params["objective"] == "reg:quantileerror" and not SMOOTH:
        margin = np.sort(margin, axis=0)  # 3.4 sorts a row's quantiles before it scores them, 3.2 does not
    theirs = xgboost_scores(params, metrics, label, margin, weight)
    for metric in computed:
        total = metric.measure(label, weight, objective.predictions(margin))
        assert len(total) == metric.length
        assert np.abs(total).max() <= metric.bound
        bound = metric.error_bound(total)
        assert metric.read(total) == pytest.approx(theirs[metric.name], rel=1e-7, abs=bound), metric.name
        assert bound <= (2e-3 if metric.name.startswith("auc") else 0)


@settings(deadline=None, max_examples=25)
@given(cuts=st.lists(st.integers(0, 300), max_size=4), seed=st.integers(0, 100))
@pytest.mark.parametrize(("params", "metrics", "label", "margin"), CASES, ids=[c[0]["objective"] for c in CASES])
def test_parts_add_up_to_the_whole_in_any_order(params, metrics, label, margin, cuts, seed):
    objective, computed = ours(params, metrics, WEIGHT)
    order = np.random.default_rng(seed).permutation(300)
    prediction = objective.predictions(margin[:, :300].copy())
    for metric in computed:
        whole = metric.measure(label[:300], WEIGHT[:300], prediction)
        parts = np.split(order, sorted(cuts))
        vectors = [metric.measure(label[p], WEIGHT[p], prediction[:, p].copy()) for p in parts]
        assert (np.sum(vectors, axis=0) == whole).all()


@settings(deadline=None, max_examples=60)
@given(
    spread=st.sampled_from([0.01, 1.0, 6.0]),
    share=st.sampled_from([0.01, 0.3, 0.9]),
    ties=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_areas_are_within_their_own_bound_of_the_exact_ones(spread, share, ties, seed):
    random = np.random.default_rng(seed)
    label = (random.random(800) < share).astype(np.float32)
    label[:2] = 0, 1
    margin = (random.normal(size=(1, 800)) * spread + label).astype(np.float32)
    margin = np.round(margin, 1) if ties else margin
    objective, computed = ours({"objective": "binary:logistic"}, ["auc", "aucpr"], NO_WEIGHT)
    prediction = objective.predictions(margin)
    exact = xgboost_scores({"objective": "binary:logistic"}, ["auc", "aucpr"], label, margin, NO_WEIGHT)
    exact["auc"] = roc_auc_score(label, prediction[0])
    for metric in computed:
        total = metric.measure(label, NO_WEIGHT, prediction)
        assert abs(metric.read(total) - exact[metric.name]) <= metric.error_bound(total) + 1e-9


def test_an_area_has_no_value_without_rows_of_both_labels():
    objective, computed = ours({"objective": "binary:logistic"}, ["auc", "aucpr"], NO_WEIGHT)
    for metric in computed:
        total = metric.measure(np.ones(4, np.float32), NO_WEIGHT, objective.predictions(np.zeros((1, 4), np.float32)))
        assert np.isnan(metric.read(total))


def test_without_a_name_the_objective_brings_xgboosts_own_metric():
    for params, _, label, _ in CASES:
        data = xgboost.DMatrix(np.zeros((ROWS, 1), np.float32), label)
        scores = {}
        xgboost.train(params, data, 1, evals=[(data, "rows")], evals_result=scores, verbose_eval=False)
        _, computed = ours(params, [], NO_WEIGHT)
        assert [metric.name for metric in computed] == list(scores["rows"])


@pytest.mark.parametrize(
    ("params", "metric", "message"),
    [
        ({"objective": "binary:logistic"}, "mlogloss", "is for multi-class objectives"),
        ({"objective": "multi:softprob", "num_class": 3}, "rmse", "takes one output a row"),
        ({"objective": "reg:squarederror"}, "rsme", r"is not a metric\. Did you mean rmse\?"),
        ({"objective": "binary:logistic"}, "error@high", "not a number"),
        ({"objective": "reg:tweedie"}, "tweedie-nloglik@2.5", "from 1 to below 2"),
        ({"objective": "reg:squarederror"}, "quantile", "needs quantile_alpha"),
        ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, "mae", "takes one output a row"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(params, metric, message):
    with pytest.raises(UserError, match=message):
        ours(params, [metric], NO_WEIGHT)


@pytest.mark.parametrize("name", sorted(REFUSED_METRICS))
def test_a_metric_that_only_xgboost_has_is_refused_by_name(name):
    with pytest.raises(UserError, match=f"eval_metric: {name} "):
        ours({"objective": "binary:logistic"}, [name], NO_WEIGHT)


def test_a_custom_metric_is_the_mean_over_parties_weighted_by_rows():
    metric = CustomMetric("half", lambda prediction, data: ("half", float(data)))
    vectors = [
        metric.measure_custom(value, np.zeros((1, rows), np.float32)) for value, rows in ((1, 10), (4, 30), (9, 0))
    ]
    assert metric.read(np.sum(vectors, axis=0)) == pytest.approx((1 * 10 + 4 * 30) / 40)
