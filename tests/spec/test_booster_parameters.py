"""XGBoost's parameters: its names and defaults are taken, everything else is refused with what to do."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import xgboost

from lepton_pipelines.spec.booster_parameters import (
    ALIASES,
    OBJECTIVES,
    REFUSED,
    REFUSED_OBJECTIVES,
    BoosterParameters,
)
from lepton_pipelines.spec.errors import UserError

NEEDED = {
    "multi:softmax": {"num_class": 3},
    "multi:softprob": {"num_class": 3},
    "reg:quantileerror": {"quantile_alpha": 0.5},
}


@pytest.fixture(scope="module")
def xgboost_settings():
    """What stock XGBoost says its parameters are when none are given."""
    booster = xgboost.train({}, xgboost.DMatrix([[0.0], [1.0]], [0.0, 1.0]), 1)
    learner = json.loads(booster.save_config())["learner"]
    booster = learner["gradient_booster"]
    return {
        **learner["learner_train_param"],
        **booster["gbtree_model_param"],
        **booster["gbtree_train_param"],
        **booster["tree_train_param"],
        **learner["generic_param"],
    }


@pytest.mark.parametrize(
    "name",
    [
        "objective", "booster", "learning_rate", "gamma", "max_depth", "max_leaves", "min_child_weight", "subsample",
        "sampling_method", "colsample_bytree", "colsample_bylevel", "colsample_bynode", "reg_lambda", "reg_alpha",
        "grow_policy", "max_bin", "num_parallel_tree", "max_cat_to_onehot", "max_cat_threshold", "seed", "device",
        "multi_strategy",
    ],
)  # fmt: skip
def test_a_default_is_xgboosts(name, xgboost_settings):
    ours, theirs = getattr(BoosterParameters(), name), xgboost_settings[name]
    if isinstance(ours, (int, float)):
        assert float(theirs) == pytest.approx(ours, rel=1e-6)
    else:
        assert theirs == ours


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_alias_sets_the_parameter_that_it_means(alias, name):
    assert getattr(BoosterParameters.read({alias: 1}), name) == 1


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_one_of_xgboosts(objective):
    BoosterParameters.read({"objective": objective, **NEEDED.get(objective, {})})
    labels = [1.0, 2.0] if objective == "reg:gamma" else [0.0, 1.0]
    xgboost.train({"objective": objective, **NEEDED.get(objective, {})}, xgboost.DMatrix([[0.0], [1.0]], labels), 1)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("max_deph", "max_depth"), ("lamda", "lambda"), ("learning_rat", "learning_rate"), ("sub_sample", "subsample")],
)
def test_a_misspelt_parameter_is_refused_with_the_nearest(misspelt, meant):
    with pytest.raises(UserError, match=rf"{misspelt} is not a parameter\. Did you mean {meant}\?"):
        BoosterParameters.read({misspelt: 1})


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_parameter_that_only_xgboost_has_is_refused_by_name(name):
    with pytest.raises(UserError, match=name):
        BoosterParameters.read({name: "something"})


@pytest.mark.parametrize("objective", sorted(REFUSED_OBJECTIVES))
def test_an_objective_that_only_xgboost_has_is_refused_by_name(objective):
    with pytest.raises(UserError, match=f"objective is {objective}, which"):
        BoosterParameters.read({"objective": objective})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"booster": "dart"}, r"booster is dart: .* Write gbtree"),
        ({"booster": "gblinear"}, r"booster is gblinear: .*lepton_pipelines\.linear"),
        ({"tree_method": "exact"}, r"tree_method is exact: .* Write hist"),
        ({"tree_method": "approx"}, r"tree_method is approx: .* Write hist"),
        ({"device": "cuda:0"}, r"device is cuda:0: .* Write cpu"),
        ({"multi_strategy": "multi_output_tree"}, r"multi_strategy is multi_output_tree: .* Write one_output_per_tree"),
        ({"sampling_method": "gradient_based"}, r"sampling_method is gradient_based: .* Write uniform"),
        ({"objective": "binary:logitic"}, r"binary:logitic\. Did you mean binary:logistic\?"),
        ({"objective": "multi:softprob"}, "lacks num_class"),
        ({"objective": "binary:logistic", "num_class": 3}, "has num_class 3"),
        ({"objective": "reg:quantileerror"}, "lacks quantile_alpha"),
        ({"eta": 0.1, "learning_rate": 0.2}, "learning_rate twice"),
        ({"eta": -1}, r"eta: .* \(it is -1\)"),
        ({"subsample": 0}, "subsample: "),
        ({"max_bin": 512}, "max_bin: .*256"),
        ({"max_depth": 2.5}, "max_depth: "),
        ({"huber_slope": 0}, "huber_slope is 0"),
        ({"monotone_constraints": [2]}, "monotone_constraints: "),
        ({"interaction_constraints": "[[0,"}, "interaction_constraints cannot be read"),
        ({"validate_parameters": False}, "validate_parameters: "),
    ],
)
def test_a_value_that_cannot_be_had_is_refused_with_what_to_do(params, message):
    with pytest.raises(UserError, match=message):
        BoosterParameters.read(params)


def test_all_problems_are_told_at_once():
    with pytest.raises(UserError) as told:
        BoosterParameters.read({"eta": -1, "max_deph": 3, "subsample": 2})
    assert len(told.value.problems) == 3


def test_constraints_are_taken_in_all_of_xgboosts_spellings():
    for spelling in ("(1,-1)", (1, -1), [1, -1]):
        assert BoosterParameters.read({"monotone_constraints": spelling}).monotone_constraints == (1, -1)
    assert BoosterParameters.read({"monotone_constraints": {"age": 1}}).monotone_constraints == {"age": 1}
    for spelling in ("[[0, 1], [2]]", [[0, 1], [2]]):
        assert BoosterParameters.read({"interaction_constraints": spelling}).interaction_constraints == ((0, 1), (2,))


def test_reading_parameters_needs_neither_numpy_nor_xgboost():
    code = (
        "import sys; from lepton_pipelines.spec.booster_parameters import BoosterParameters; "
        "BoosterParameters.read({'eta': 0.1}); sys.exit(any(m in sys.modules for m in ('numpy', 'xgboost', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_on_parameters_names_every_one():
    page = (Path(__file__).parents[2] / "docs" / "parameters.md").read_text()
    named = set(re.findall(r"`([^`]+)`", page))
    assert {*BoosterParameters.model_fields, *ALIASES, *REFUSED, *OBJECTIVES, *REFUSED_OBJECTIVES} <= named
