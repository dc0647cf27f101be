"""Objectives: gradients to the bit as XGBoost 3.4 computes them, labels outside the domain refused."""

import json

import numpy as np
import pytest
import xgboost

import lepton_pipelines as lp
from lepton_pipelines.boosting.objectives import objective_of
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError

SMOOTH = tuple(map(int, xgboost.__version__.split(".")[:2])) >= (3, 4)
ROWS = 60
RANDOM = np.random.default_rng(3)
BINARY = RANDOM.integers(0, 2, ROWS)
SHARES = RANDOM.random(ROWS)
POSITIVE = RANDOM.gamma(2, 2, ROWS) + 0.01
COUNTS = RANDOM.poisson(2, ROWS)
CLASSES = RANDOM.integers(0, 4, ROWS)

CASES = {
    "squared": ({"objective": "reg:squarederror"}, POSITIVE),
    "squared, positive weight": ({"objective": "reg:squarederror", "scale_pos_weight": 3}, BINARY),
    "pseudo-Huber": ({"objective": "reg:pseudohubererror", "huber_slope": 1.7}, POSITIVE),
    "reg:logistic": ({"objective": "reg:logistic"}, SHARES),
    "logistic": ({"objective": "binary:logistic"}, BINARY),
    "logistic, positive weight": ({"objective": "binary:logistic", "scale_pos_weight": 2.5}, BINARY),
    "logitraw": ({"objective": "binary:logitraw"}, BINARY),
    "hinge": ({"objective": "binary:hinge"}, BINARY),
    "Poisson": ({"objective": "count:poisson", "max_delta_step": 0}, COUNTS),
    "gamma": ({"objective": "reg:gamma"}, POSITIVE),
    "gamma, positive weight": ({"objective": "reg:gamma", "scale_pos_weight": 2}, COUNTS + 1),
    "Tweedie": ({"objective": "reg:tweedie", "tweedie_variance_power": 1.3}, COUNTS),
    "softmax": ({"objective": "multi:softmax", "num_class": 4}, CLASSES),
    "softprob": ({"objective": "multi:softprob", "num_class": 4}, CLASSES),
    "absolute error": ({"objective": "reg:absoluteerror"}, POSITIVE),
    "quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.3, 0.8]}, POSITIVE),
    "squared log": ({"objective": "reg:squaredlogerror"}, POSITIVE),
}


def xgboost_gradients(params, margin, label, weight):
    """One row's gradient and hessian of every output, read from the root of a tree that cannot split.

    With a lambda of 2^40 the root's weight is the gradient, exact in float32, and with 1 row the root's sum of
    hessians is the hessian.
    """
    base = margin[None, :] if len(margin) > 1 else margin
    data = xgboost.DMatrix(np.zeros((1, 1), np.float32), [label], weight=[weight], base_margin=base)
    settings = {"min_child_weight": 0, "eta": 1, "max_delta_step": 0, "lambda": str(1 << 40), "nthread": 1}
    booster = xgboost.train({**params, **settings}, data, 1)
    trees = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    gradients = [-np.float32(tree["base_weights"][0]) * np.float32(1 << 40) for tree in trees]
    return np.array(gradients, np.float32), np.array([tree["sum_hessian"][0] for tree in trees], np.float32)


def our_gradients(params, margin, label, weight):
    """Gradients of rows, (outputs, rows, 2); margin: (outputs, rows)."""
    objective = objective_of(BoosterParameters.read(params))
    out = np.empty((objective.outputs, len(label), 2), np.float32)
    constants = objective.constants
    if objective.needs_statistic:
        constants = objective.constants_after(objective.statistic(label, weight, margin))
    objective.gradients(label, weight, margin, constants, 0, len(label), out)
    return out


@pytest.fixture(params=CASES, scope="module")
def case(request):
    params, label = CASES[request.param]
    outputs = objective_of(BoosterParameters.read(params)).outputs
    if request.param in ("absolute error", "quantiles") and not SMOOTH:
        pytest.skip("smooth from XGBoost 3.4 on; 3.2 searches its leaves' labels, which no sum can")
    random = np.random.default_rng(5)
    margin = (random.normal(size=(outputs, ROWS)) * 2).astype(np.float32)
    if request.param == "squared log":
        margin = np.abs(margin)
    return params, margin, label.astype(np.float32), random.uniform(0.1, 3, ROWS).astype(np.float32)


def test_gradients_are_xgboosts_to_the_bit(case):
    params, margin, label, weight = case
    equal = 0
    for row in range(ROWS):
        ours = our_gradients(params, margin[:, row : row + 1].copy(), label[row : row + 1], weight[row : row + 1])
        gradient, hessian = xgboost_gradients(params, margin[:, row], label[row], weight[row])
        assert ours[:, 0, 0] == pytest.approx(gradient, rel=1e-5)
        assert ours[:, 0, 1] == pytest.approx(hessian, rel=1e-5)
        equal += (ours[:, 0, 0] == gradient).all() and (ours[:, 0, 1] == hessian).all()
    # XGBoost takes log1p from the system's library, whose last bit some systems round wrongly.
    assert equal >= (ROWS * 0.7 if params["objective"] == "reg:squaredlogerror" else ROWS - 1)


def test_a_gradient_does_not_depend_on_where_its_row_stands(case):
    params, margin, label, weight = case
    objective = objective_of(BoosterParameters.read(params))
    constants = objective.constants
    if objective.needs_statistic:
        constants = objective.constants_after(objective.statistic(label, weight, margin))
    whole = np.empty((objective.outputs, ROWS, 2), np.float32)
    objective.gradients(label, weight, margin, constants, 0, ROWS, whole)
    order = np.random.default_rng(1).permutation(ROWS)
    moved = np.empty_like(whole)
    for lo, hi in ((0, 1), (1, 18), (18, 51), (51, ROWS)):
        objective.gradients(label[order], weight[order], margin[:, order].copy(), constants, lo, hi, moved)
    assert (moved.view(np.int32) == whole[:, order].view(np.int32)).all()


def test_weights_left_out_count_as_one(case):
    params, margin, label, _ = case
    without = our_gradients(params, margin, label, np.zeros(0, np.float32))
    assert (without == our_gradients(params, margin, label, np.ones(ROWS, np.float32))).all()


def test_gradients_stay_within_the_bounds_that_the_objective_states(case):
    params, margin, label, _ = case
    objective = objective_of(BoosterParameters.read(params))
    out = our_gradients(params, margin * 20, label, np.zeros(0, np.float32))
    for bound, values in ((objective.gradient_bound, out[:, :, 0]), (objective.hessian_bound, out[:, :, 1])):
        assert bound is None or np.abs(values).max() <= bound


def test_predictions_are_xgboosts(case):
    params, margin, label, _ = case
    if params["objective"] == "multi:softmax":
        params = {**params, "objective": "multi:softprob"}
    base = margin[0] if len(margin) == 1 else margin.T.copy()
    data = xgboost.DMatrix(np.zeros((ROWS, 1), np.float32), label, base_margin=base)
    booster = xgboost.train({**params, "eta": 0}, data, 1)
    ours = objective_of(BoosterParameters.read(params)).predictions(margin)
    assert np.atleast_2d(booster.predict(data).T) == pytest.approx(ours, rel=3e-7)


def test_the_scale_of_residuals_is_that_of_all_parts_together():
    objective = objective_of(BoosterParameters.read({"objective": "reg:absoluteerror"}))
    label, margin = POSITIVE.astype(np.float32), np.zeros((1, ROWS), np.float32)
    weight = np.zeros(0, np.float32)
    whole = objective.statistic(label, weight, margin)
    parts = [objective.statistic(label[s], weight, margin[:, s]) for s in (slice(0, 7), slice(7, 7), slice(7, ROWS))]
    assert (sum(parts) == whole).all()
    assert objective.constants_after(whole)[0] == pytest.approx(np.sqrt(POSITIVE).mean() ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("params", "labels", "message"),
    [
        ({"objective": "binary:logistic"}, [0, 1, 2, 3], "train: 2 of 4 rows .* binary:logistic .* 0 to 1"),
        ({"objective": "count:poisson"}, [0, -1], "1 of 2 rows .* not below 0"),
        ({"objective": "reg:gamma"}, [0, 1], "1 of 2 rows .* above 0"),
        ({"objective": "reg:squaredlogerror"}, [-1, 1], "1 of 2 rows .* above -1"),
        ({"objective": "multi:softprob", "num_class": 3}, [0, 1.5, 3], r"2 of 3 rows .* 0 to 2 \(num_class is 3\)"),
    ],
)
def test_labels_outside_the_domain_are_refused_with_their_number(params, labels, message):
    with pytest.raises(UserError, match=message):
        objective_of(BoosterParameters.read(params)).check_labels(np.array(labels, np.float32), where="train")


@pytest.mark.parametrize("outputs", [0, 3])
def test_a_custom_objective_sees_margins_as_in_xgboost(outputs):
    seen = []

    def halfway(margin, data):
        seen.append((margin.shape, data))
        return margin / 2, np.ones_like(margin)

    params = {"objective": "multi:softprob", "num_class": outputs} if outputs else {}
    objective = objective_of(BoosterParameters.read(params), halfway)
    margin = np.arange(12, dtype=np.float32).reshape(max(outputs, 1), -1)
    out = np.empty((*margin.shape, 2), np.float32)
    objective.custom_gradients("the data", margin, out)
    assert seen == [((12,) if not outputs else (4, 3), "the data")]
    assert (out[:, :, 0] == margin / 2).all()
    assert (out[:, :, 1] == 1).all()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda margin, data: (margin[:2], margin), "gradient has shape"),
        (lambda margin, data: (margin, margin * np.nan), "hessian is infinite or undefined in 3 of 3"),
    ],
)
def test_what_a_custom_objective_must_not_return_is_refused(function, message):
    objective = objective_of(BoosterParameters(), function)
    with pytest.raises(UserError, match=message):
        objective.custom_gradients(None, np.ones((1, 3), np.float32), np.empty((1, 3, 2), np.float32))


def test_the_model_and_its_scores_are_the_same_however_rows_are_spread(case):
    params, _, label, weight = case
    if params["objective"] == "reg:quantileerror":
        # the quantile itself is found more coarsely over several parties: test_base_score
        params = {**params, "base_score": 0.1}
    X = np.random.default_rng(2).normal(size=(ROWS, 3)).astype(np.float32)
    edges = [np.linspace(-2, 2, 20, dtype=np.float32)] * 3
    models, scores = set(), []
    for cuts in ([], [9, 9, 40]):
        order = np.random.default_rng(len(cuts)).permutation(ROWS)
        parts = [lp.Dataset(X[p], label[p], weight=weight[p]) for p in np.split(order, cuts)]
        result = {}
        settings = {**params, "max_depth": 3, "nthread": 1}
        booster = lp.simulate(
            settings, parts, 3, edges=edges, evals=[(parts, "rows")], evals_result=result, verbose_eval=False
        )
        models.add(bytes(booster.save_raw("ubj")))
        scores.append(result)
    assert len(models) == 1
    assert scores[0] == scores[1]
