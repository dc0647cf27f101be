"""Model files: stock XGBoost loads what is written, what stock XGBoost wrote is read."""

import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
import xgboost

from lepton_pipelines.boosting.model_file import FORMAT, Model, booster_of, model_of, read_model, write_model
from lepton_pipelines.boosting.tree import NONE, Tree
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError

ROWS = 400
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "number": np.where(np.arange(ROWS) % 7 == 0, np.nan, RANDOM.normal(size=ROWS)),
        "text": pd.Categorical(RANDOM.choice(list("uvwxyz"), ROWS)),
        "code": pd.Categorical(RANDOM.choice([1, 3, 7, 9], ROWS)),
    }
)
BINARY = RANDOM.integers(0, 2, ROWS)
CLASSES = RANDOM.integers(0, 3, ROWS)
CASES = [
    ({"objective": "binary:logistic", "max_cat_to_onehot": 5, "scale_pos_weight": 2}, BINARY),
    ({"objective": "reg:squarederror", "max_cat_to_onehot": 1}, BINARY),
    ({"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 2}, CLASSES),
    ({"objective": "multi:softmax", "num_class": 3}, CLASSES),
    ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5]}, BINARY),
    ({"objective": "reg:tweedie", "tweedie_variance_power": 1.3}, CLASSES),
    ({"objective": "count:poisson"}, CLASSES),
    ({"objective": "reg:pseudohubererror", "huber_slope": 2}, CLASSES),
    ({"objective": "reg:absoluteerror"}, CLASSES),
    ({"objective": "reg:gamma"}, CLASSES + 1),
]


def rows(label=None):
    return xgboost.DMatrix(FRAME, label, enable_categorical=True)


@pytest.fixture(params=CASES, ids=lambda case: case[0]["objective"])
def trained(request):
    """A stock Booster, its parameters and its rows."""
    params, label = request.param
    data = rows(label)
    booster = xgboost.train({"max_depth": 4, **params}, data, 6)
    booster.set_attr(best_iteration="4", note="kept")
    return booster, params, data


def as_json(booster):
    document = json.loads(booster.save_raw("json"))
    return document["learner"]


def test_a_stock_model_read_and_written_again_is_the_same_model(trained):
    booster, _, _ = trained
    assert as_json(booster_of(write_model(read_model(booster)))) == as_json(booster)


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_both_forms_of_a_stock_file_are_read(trained, form, tmp_path):
    booster, _, _ = trained
    booster.save_model(tmp_path / f"model.{form}")
    assert write_model(read_model(tmp_path / f"model.{form}")) == write_model(read_model(booster))


def test_a_written_model_predicts_explains_and_ranks_as_the_stock_one(trained):
    booster, _, data = trained
    again = booster_of(write_model(read_model(booster)))
    assert (again.predict(data) == booster.predict(data)).all()
    assert (again.predict(data, pred_contribs=True) == booster.predict(data, pred_contribs=True)).all()
    for kind in ("gain", "cover", "weight", "total_gain"):
        assert again.get_score(importance_type=kind) == booster.get_score(importance_type=kind)
    assert again.best_iteration == 4
    assert again.feature_names == booster.feature_names


def test_parameters_give_the_objective_that_xgboost_would_store(trained):
    booster, params, _ = trained
    stock = read_model(booster)
    parameters = BoosterParameters.read(params)
    ours = model_of(
        parameters,
        stock.trees,
        stock.base_score,
        n_features=stock.n_features,
        feature_names=stock.feature_names,
        feature_types=stock.feature_types,
        category_names=stock.category_names,
        attributes=stock.attributes,
    )
    assert as_json(booster_of(write_model(ours))) == as_json(booster)


def test_stock_xgboost_trains_on_from_a_written_model(trained):
    booster, params, data = trained
    again = booster_of(write_model(read_model(booster)))
    longer = xgboost.train({"max_depth": 4, **params}, data, 2, xgb_model=again)
    stock = xgboost.train({"max_depth": 4, **params}, data, 2, xgb_model=booster)
    assert (longer.predict(data) == stock.predict(data)).all()


def test_the_bytes_do_not_depend_on_what_is_installed(trained):
    booster, _, _ = trained
    model = read_model(booster)
    assert write_model(model) == write_model(read_model(write_model(model)))
    assert json.loads(booster_of(write_model(model)).save_raw("json"))["version"] != list(FORMAT) or (
        xgboost.__version__ == "3.2.0"
    )


def test_pruned_nodes_are_left_out():
    data = xgboost.DMatrix(FRAME[["number"]], BINARY)
    booster = xgboost.train({"tree_method": "exact", "gamma": 1, "max_depth": 5}, data, 3)
    stored = as_json(booster)["gradient_booster"]["model"]["trees"]
    assert any(int(tree["tree_param"]["num_deleted"]) for tree in stored)
    model = read_model(booster)
    assert [len(tree) for tree in model.trees] == [
        int(tree["tree_param"]["num_nodes"]) - int(tree["tree_param"]["num_deleted"]) for tree in stored
    ]
    assert (booster_of(write_model(model)).predict(data) == booster.predict(data)).all()


def stump():
    """One question, written by hand: column 0 below 0.5."""
    return Tree(
        left=np.array([1, NONE, NONE], np.int32),
        right=np.array([2, NONE, NONE], np.int32),
        parent=np.array([NONE, 0, 0], np.int32),
        feature=np.array([0, 0, 0], np.int32),
        threshold=np.array([0.5, -1.25, 2.5], np.float32),
        default_left=np.array([True, False, False]),
        bin=np.full(3, NONE, np.int32),
        gain=np.array([3, 0, 0], np.float32),
        hessian=np.array([5, 2, 3], np.float32),
        base_weight=np.array([0, -1.25, 2.5], np.float32),
    )


def test_a_tree_written_by_hand_is_routed_as_its_fields_say():
    model = Model([stump()], (0.25,), "reg:squarederror", 1, [0, 1], {"scale_pos_weight": "1"})
    data = xgboost.DMatrix(np.array([[0.49], [0.5], [np.nan]], np.float32))
    assert booster_of(write_model(model)).predict(data).tolist() == [-1.0, 2.75, -1.0]


def test_letters_beyond_ascii_are_found_again():
    frame = pd.DataFrame({"c": pd.Categorical(RANDOM.choice(["é", "a", "ü", "z"], ROWS))})
    data = xgboost.DMatrix(frame, BINARY, enable_categorical=True)
    booster = xgboost.train({"max_cat_to_onehot": 1}, data, 3)
    again = booster_of(write_model(read_model(booster)))
    assert as_json(again) == as_json(booster)


def test_thousands_of_trees_are_written_in_a_moment():
    model = Model([stump()] * 5000, (0.25,), "reg:squarederror", 1, range(5001), {"scale_pos_weight": "1"})
    assert booster_of(write_model(model)).num_boosted_rounds() == 5000


def other(change):
    """A stock model with something changed in its JSON."""
    document = json.loads(xgboost.train({}, rows(BINARY), 1).save_raw("json"))
    change(document)
    return json.dumps(document).encode()


def stock(booster, **params):
    data = xgboost.DMatrix(FRAME[["number"]], BINARY)
    return xgboost.train({"booster": booster, "verbosity": 0, **params}, data, 3)


def set_in(*path, value):
    def change(document):
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: other(set_in("version", value=[2, 1, 4])), "written by XGBoost 2.1.4; 3.2 is the oldest"),
        (lambda: other(lambda d: d.pop("learner")), "lacks something .*learner"),
        (
            lambda: other(set_in("learner", "gradient_booster", "model", "trees", 0, "left_children", 0, value=9999)),
            "outside its tree",
        ),
        (lambda: other(lambda d: d)[:-20], "not whole JSON"),
        (lambda: b"binf\x00\x00", "neither JSON nor UBJSON"),
        (
            lambda: xgboost.train({"booster": "dart", "rate_drop": 1, "verbosity": 0}, rows(BINARY), 3),
            "booster is dart",
        ),
        (
            lambda: xgboost.train(
                {"booster": "gblinear", "verbosity": 0}, xgboost.DMatrix(FRAME[["number"]], BINARY), 1
            ),
            "is gblinear",
        ),
        (lambda: "no/such/file.ubj", "no model file"),
    ],
)
def test_a_model_that_training_cannot_go_on_from_is_refused(model, message):
    with pytest.raises(UserError, match=message):
        read_model(model())


def test_leaves_that_are_vectors_are_refused():
    data = xgboost.DMatrix(FRAME[["number"]], np.stack([BINARY, CLASSES], 1))
    booster = xgboost.train({"multi_strategy": "multi_output_tree"}, data, 1)
    with pytest.raises(UserError, match="leaves are vectors"):
        read_model(booster)


OTHER_RELEASE = os.environ.get("LEPTON_OTHER_PYTHON")


@pytest.mark.skipif(not OTHER_RELEASE, reason="LEPTON_OTHER_PYTHON names no interpreter with another XGBoost release")
def test_another_release_predicts_the_same(trained, tmp_path):
    booster, _, data = trained
    (tmp_path / "model.ubj").write_bytes(write_model(read_model(booster)))
    FRAME.to_feather(tmp_path / "rows.feather")  # parquet would give whole numbers back that are no categories
    code = (
        "import sys, numpy, pandas, xgboost; b = xgboost.Booster(); b.load_model('model.ubj'); "
        "x = xgboost.DMatrix(pandas.read_feather('rows.feather'), enable_categorical=True); "
        "numpy.save('margin.npy', b.predict(x, output_margin=True)); print(xgboost.__version__)"
    )
    done = subprocess.run([OTHER_RELEASE, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True, env={})
    assert done.stdout.strip() != xgboost.__version__
    assert (np.load(tmp_path / "margin.npy") == booster.predict(data, output_margin=True)).all()
