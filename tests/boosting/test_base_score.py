"""The base score: stock XGBoost's, from sums that do not depend on the partition."""

import json

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_pipelines.boosting.base_score import estimate_base_score, margins_of
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.dataset import Dataset
from lepton_pipelines.boosting.objectives import objective_of
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import FinishedSum, LocalSums

SMOOTH = tuple(map(int, xgboost.__version__.split(".")[:2])) >= (3, 4)
ROWS = 2000
RANDOM = np.random.default_rng(0)
BINARY = (RANDOM.random(ROWS) < 0.3).astype(np.float32)
POSITIVE = (RANDOM.gamma(2, 3, ROWS) + 0.1).astype(np.float32)
CLASSES = np.append(RANDOM.integers(0, 4, ROWS - 4), range(4)).astype(np.float32)
WEIGHT = RANDOM.uniform(0.1, 3, ROWS).astype(np.float32)
LEVELS = [0.0, 0.1, 0.3, 0.5, 0.9, 1.0]

CASES = [
    ({"objective": "reg:squarederror"}, POSITIVE),
    ({"objective": "reg:squarederror", "scale_pos_weight": 3}, BINARY),
    ({"objective": "reg:squaredlogerror"}, POSITIVE),
    ({"objective": "reg:pseudohubererror", "huber_slope": 2}, POSITIVE),
    ({"objective": "reg:logistic"}, BINARY / 2),
    ({"objective": "binary:logistic"}, BINARY),
    ({"objective": "binary:logistic", "scale_pos_weight": 3}, BINARY),
    ({"objective": "binary:logistic", "base_score": 0.3}, BINARY),
    ({"objective": "binary:logitraw"}, BINARY),
    ({"objective": "binary:logitraw", "scale_pos_weight": 3}, BINARY),
    ({"objective": "binary:logitraw", "base_score": 0.3}, BINARY),
    ({"objective": "binary:hinge"}, BINARY),
    ({"objective": "count:poisson"}, np.round(POSITIVE)),
    ({"objective": "count:poisson", "base_score": 0.3}, POSITIVE),
    ({"objective": "reg:gamma"}, POSITIVE),
    ({"objective": "reg:gamma", "scale_pos_weight": 3}, np.round(POSITIVE) + 1),
    ({"objective": "reg:tweedie"}, np.round(POSITIVE)),
    ({"objective": "multi:softprob", "num_class": 5}, CLASSES),
    ({"objective": "multi:softmax", "num_class": 5, "base_score": 0.3}, CLASSES),
    ({"objective": "reg:absoluteerror"}, POSITIVE - 5),
    ({"objective": "reg:quantileerror", "quantile_alpha": LEVELS}, POSITIVE - 5),
    ({"objective": "reg:quantileerror", "quantile_alpha": LEVELS, "base_score": 0.3}, POSITIVE),
]


class Parts:
    """Rows in several shards, whose vectors are added up."""

    def __init__(self, shards):
        self.shards = shards

    def start(self, step):
        return FinishedSum(self.add_up(step))

    def add_up(self, step):
        return np.sum([step.run(shard) for shard in self.shards], axis=0)


class SeveralParties(LocalSums):
    """Sums that say they cross organisations."""

    parties = 3


def shard(label, weight=None):
    return Shard({"train": Dataset(np.zeros((len(label), 1), np.float32), label, weight=weight)})


def ours(params, shards, sums=None):
    parameters = BoosterParameters.read(params)
    objective = objective_of(parameters)
    rows = Collective(Parts(shards), sums or LocalSums(), "test")
    score = estimate_base_score(rows, parameters, objective, "train")
    return np.array(score), margins_of(score, parameters, objective.outputs)


def theirs(params, label, weight=None):
    data = xgboost.DMatrix(np.zeros((len(label), 1), np.float32), label, weight=weight)
    booster = xgboost.train({**params, "eta": 0, "nthread": 1}, data, 1)  # its threads change the last digit
    stored = json.loads(booster.save_raw("json"))["learner"]["learner_model_param"]["base_score"]
    return np.array(json.loads(stored)), np.atleast_1d(booster.predict(data, output_margin=True)[0])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("params", "label"), CASES, ids=[str(params) for params, _ in CASES])
def test_score_and_margin_are_xgboosts(params, label, weighted):
    if params["objective"] == "reg:absoluteerror" and not SMOOTH:
        pytest.skip("XGBoost 3.2 takes the median; 3.4's one step from the mean needs only sums")
    weight = WEIGHT if weighted else None
    # XGBoost adds up the weights of a class in float32, one row after the other: so many rows, so many roundings.
    close = 2e-6 if weighted and params["objective"].startswith("multi:") else 1e-7
    for mine, stock in zip(ours(params, [shard(label, weight)]), theirs(params, label, weight), strict=True):
        assert mine == pytest.approx(stock, rel=close, abs=1e-7)


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, 400), max_size=4), seed=st.integers(0, 100))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("params", "label"), CASES, ids=[str(params) for params, _ in CASES])
def test_the_score_does_not_depend_on_the_partition(params, label, weighted, cuts, seed):
    weight = WEIGHT if weighted else None
    order = np.random.default_rng(seed).permutation(400)
    parts = [shard(label[p], weight[p] if weighted else None) for p in np.split(order, sorted(cuts))]
    whole = shard(label[:400], weight[:400] if weighted else None)
    assert (ours(params, parts)[0] == ours(params, [whole])[0]).all()


def test_over_several_parties_a_quantile_is_no_single_rows_label():
    label = RANDOM.normal(size=5000).astype(np.float32) * 10
    params = {"objective": "reg:quantileerror", "quantile_alpha": [0.001, 0.25, 0.5, 0.99]}
    score, _ = ours(params, [shard(label)], SeveralParties())
    assert not np.isin(score.astype(np.float32), label).any()
    for level, value in zip(params["quantile_alpha"], score, strict=True):
        # the cell that the quantile lies in has at least 20 rows, and its middle is in it
        assert abs(np.searchsorted(np.sort(label), value) - level * 5000) < 5000 * 0.03


def test_over_several_parties_a_frequent_label_is_the_quantile_itself():
    label = np.zeros(200, np.float32)
    label[:20] = RANDOM.normal(size=20)
    score, _ = ours({"objective": "reg:quantileerror", "quantile_alpha": 0.5}, [shard(label)], SeveralParties())
    assert score == [0.0]


def test_over_several_parties_few_rows_give_their_mean():
    label = np.arange(10, dtype=np.float32)
    score, _ = ours({"objective": "reg:quantileerror", "quantile_alpha": 0.9}, [shard(label)], SeveralParties())
    assert score == [4.5]


def test_a_custom_objective_starts_where_xgboosts_does():
    parameters = BoosterParameters.read({"objective": "binary:logistic"})
    objective = objective_of(parameters, lambda margin, data: (margin, margin))
    rows = Collective(Parts([shard(BINARY)]), LocalSums(), "test")
    score = estimate_base_score(rows, parameters, objective, "train")
    assert score == (0.5,)
    assert margins_of(score, parameters, 1).tolist() == [0.0]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"objective": "binary:logistic", "base_score": 1.5}, "a probability between 0 and 1"),
        ({"objective": "count:poisson", "base_score": 0}, "a mean above 0"),
        ({"objective": "multi:softprob", "num_class": 3, "base_score": [0.1, 0.2]}, "2 values for 3 outputs"),
    ],
)
def test_a_base_score_that_does_not_fit_is_refused(params, message):
    with pytest.raises(UserError, match=message):
        ours(params, [shard(BINARY)])


def test_counts_that_are_all_zero_have_no_logarithm():
    with pytest.raises(UserError, match="mean label is 0"):
        ours({"objective": "count:poisson"}, [shard(np.zeros(5, np.float32))])
