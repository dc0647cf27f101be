"""Given the same edges, our trees are those that stock XGBoost grows on the pooled rows: all splits of all rounds.

What cannot be equal, and why, is `CANNOT_BE_EQUAL` below.
"""

import numpy as np
import pytest
import xgboost

RELEASE = tuple(int(part) for part in xgboost.__version__.split(".")[:2])
NEWER = RELEASE >= (3, 4)

BINARY = {"objective": "binary:logistic", "eta": 0.1}
SQUARED = {"objective": "reg:squarederror", "eta": 0.1}

CANNOT_BE_EQUAL = {
    "max_delta_step so small that both children's weights are cut": (
        "the gain then does not depend on the split at all: all candidates tie but for the last bits of their sums"
    ),
    "colsample_*, subsample": "XGBoost draws by position and by its own generator",
    "XGBoost 3.2: multi:softprob, reg:absoluteerror, reg:quantileerror": "other objectives than in 3.4",
    "XGBoost 3.2: min_child_weight with sorted categories, alpha with max_delta_step or monotone constraints": (
        "3.4 computes weights and gains differently there"
    ),
    "XGBoost 3.2: gains nearer to each other than float32 tells the node's own gain apart (reg:gamma)": (
        "3.2 rounds the same gain at another place and takes the other split"
    ),
}


def binary(rows):
    return type(rows)(rows.X, (rows.label > 1.5).astype(np.float32), rows.weight, rows.types)


def with_label(rows, label):
    return type(rows)(rows.X, label.astype(np.float32), rows.weight, rows.types)


LABELS = {
    "binary:logistic": lambda y: y > 1.5,
    "binary:logitraw": lambda y: y > 1.5,
    "reg:logistic": lambda y: 1 / (1 + np.exp(-y)),
    "binary:hinge": lambda y: y > 1.5,
    "reg:squarederror": lambda y: y,
    "reg:squaredlogerror": lambda y: y - y.min(),
    "reg:pseudohubererror": lambda y: y,
    "reg:absoluteerror": lambda y: y,
    "reg:quantileerror": lambda y: y,
    "count:poisson": lambda y: np.round(np.clip(y, 0, None)),
    "reg:gamma": lambda y: y - y.min() + 0.1,
    "reg:tweedie": lambda y: np.clip(y, 0, None),
    "multi:softprob": lambda y: np.clip(np.round(y), 0, 3),
}
EXTRA = {
    "reg:quantileerror": {"quantile_alpha": [0.3, 0.7]},
    "multi:softprob": {"num_class": 4},
} | ({} if NEWER else {"reg:pseudohubererror": {"max_delta_step": 2.0}})
ONLY_NEWER = ("multi:softprob", "reg:absoluteerror", "reg:quantileerror")


@pytest.mark.parametrize("objective", LABELS)
@pytest.mark.parametrize("kind", ["full", "categorical, missing, weighted"])
def test_trees_equal_for_every_objective(objective, kind, generated, train_both, request):
    if objective in ONLY_NEWER and not NEWER:
        pytest.skip("XGBoost 3.4 changed this objective")
    if objective == "reg:gamma" and not NEWER:
        # Exact gains there are 1.993837 (ours) and 1.993769 (3.2's): nearer than the step of float32 between the
        # children's and the node's own gains of about 7,000, from which 3.2 subtracts at another place than 3.4.
        why = "the third tree's second node: two splits nearer to each other than float32 tells gains apart"
        request.applymarker(pytest.mark.xfail(reason=why, strict=True))
    rows = generated[kind]
    if not NEWER and rows.types:
        rows = generated["weighted"]
    rows = with_label(rows, LABELS[objective](rows.label))
    # The base score is given: XGBoost estimates some in float32, one row after the other.
    params = {"objective": objective, "eta": 0.1, "base_score": 0.5, **EXTRA.get(objective, {})}
    train_both(rows, params, 20).assert_equal()


GROWTH = {
    "depth 6": {"max_depth": 6},
    "depth 10": {"max_depth": 10},
    "a stump": {"max_depth": 1},
    "depthwise, 20 leaves": {"max_leaves": 20},
    "lossguide, 40 leaves": {"grow_policy": "lossguide", "max_leaves": 40, "max_depth": 0},
    "lossguide, depth 5": {"grow_policy": "lossguide", "max_leaves": 40, "max_depth": 5, "gamma": 0.5},
}
LIMITS = {
    "none": {},
    "alpha": {"alpha": 1.0},
    "lambda 10, gamma 2": {"lambda": 10.0, "gamma": 2.0},
    "child weight 20": {"min_child_weight": 20},
    "child weight 0": {"min_child_weight": 0},
    "monotone": {"monotone_constraints": (1, -1, 0, -1, 1, 0, 0, 0, 0, 0)},
    "interaction": {
        "interaction_constraints": [["f0", "f1"], ["f1", "f2", "f3"], ["f4", "f5", "f6", "f7", "f8", "f9"]]
    },
    "one-hot up to 20": {"max_cat_to_onehot": 20},
    "3 categories a side": {"max_cat_threshold": 3},
}
NEWER_LIMITS = {
    "step 0.7": {"max_delta_step": 0.7},
    "lambda 0, child weight 0": {"lambda": 0.0, "min_child_weight": 0.0, "eta": 0.3},
    "monotone, alpha, step 0.7": {
        "monotone_constraints": (1, -1, 0, -1, 1, 0, 0, 0, 0, 0),
        "alpha": 0.3,
        "max_delta_step": 0.7,
    },
}


@pytest.mark.parametrize("growth", GROWTH)
@pytest.mark.parametrize("kind", ["full", "missing", "weighted", "categorical", "categorical, missing, weighted"])
def test_trees_equal_however_they_grow(growth, kind, generated, train_both):
    rows = generated[kind]
    if not NEWER and rows.types:
        pytest.skip("XGBoost 3.4 sorts categories without min_child_weight")
    train_both(binary(rows), BINARY | GROWTH[growth], 10).assert_equal()


@pytest.mark.parametrize("limit", LIMITS | NEWER_LIMITS)
def test_trees_equal_under_every_limit(limit, generated, train_both):
    if not NEWER and (limit in NEWER_LIMITS or limit == "monotone"):
        pytest.skip("XGBoost 3.4 computes bounded gains differently")
    kind = "categorical, missing, weighted" if NEWER else "weighted"
    train_both(binary(generated[kind]), BINARY | (LIMITS | NEWER_LIMITS)[limit], 10).assert_equal()


def test_trees_equal_with_parallel_trees(generated, train_both):
    train_both(binary(generated["missing"]), BINARY | {"num_parallel_tree": 3}, 5).assert_equal()


@pytest.mark.parametrize("most", [{}, {"max_bin": 256}])
def test_trees_equal_where_most_values_of_many_columns_are_missing(most, generated, train_both):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(4000, 70)).astype(np.float32)
    X[rng.random(X.shape) < 0.6] = np.nan
    rows = type(generated["full"])(X, (np.nan_to_num(X[:, :3]).sum(axis=1) > 0).astype(np.float32))
    train_both(rows, BINARY | most, 10).assert_equal()


def test_100_rounds_equal_on_heart_disease(heart_disease, train_both):
    train_both(heart_disease, BINARY).assert_equal()


def test_100_rounds_equal_on_credit_default(credit_default, train_both):
    train_both(credit_default.head(10_000), BINARY).assert_equal()


def test_100_rounds_equal_on_beijing_air(beijing_air, train_both):
    train_both(beijing_air.head(20_000), SQUARED | {"max_bin": 255}).assert_equal()


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{}, {"grow_policy": "lossguide", "max_leaves": 63, "max_depth": 0}])
def test_100_rounds_equal_on_all_of_credit_default(limits, credit_default, train_both):
    train_both(credit_default, BINARY | limits).assert_equal()


@pytest.mark.slow
def test_100_rounds_equal_on_all_of_beijing_air(beijing_air, train_both):
    train_both(beijing_air, SQUARED | {"max_bin": 255}).assert_equal()
