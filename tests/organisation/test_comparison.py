"""Stock XGBoost is made to use our edges, and grows our trees on them."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.rows import LocalRows
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.training import boost
from lepton_pipelines.data.encoding import Encoded
from lepton_pipelines.organisation.comparison import compare_trees, on_edges, train_pooled
from lepton_pipelines.organisation.models import first_rounds, rounds_of
from lepton_pipelines.organisation.rows import EncodedRows, Scorer
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.sums import LocalSums

PARAMETERS = BoosterParameters.read({"objective": "binary:logistic", "max_depth": 4, "max_bin": 32})


@pytest.fixture(scope="module")
def patients():
    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(np.float32)
    X[::7, 3] = np.nan
    return Encoded(X, y.astype(np.float32), None, np.arange(len(X), dtype=np.uint64))


@pytest.fixture(scope="module")
def features(patients):
    count = patients.X.shape[1]
    return FeatureSchema(tuple(f"x{i}" for i in range(count)), ("float",) * count, (0,) * count)


@pytest.fixture(scope="module")
def trained(patients, features):
    rows = LocalRows(Shard({"train": EncodedRows(patients)}, threads=1))
    return boost(PARAMETERS, rows, sums=LocalSums(), rounds=20, features=features, evaluation=("train",))


def test_stock_xgboost_grows_the_same_trees_on_our_edges(patients, features, trained):
    pooled = train_pooled(PARAMETERS, patients, trained.binning, 20, features, threads=1)
    found = compare_trees(trained.model, pooled, patients.X, "XGBoost")
    assert found.equal
    assert found.trees == 20
    assert found.largest_margin_difference < 1e-5


def test_a_tree_that_differs_is_counted(patients, features, trained):
    deeper = BoosterParameters.read({**PARAMETERS.model_dump(exclude_unset=True), "max_depth": 3})
    pooled = train_pooled(deeper, patients, trained.binning, 20, features, threads=1)
    found = compare_trees(trained.model, pooled, patients.X, "XGBoost")
    assert not found.equal
    assert found.trees_equal < 20


def test_mapping_to_edges_moves_no_value_over_an_edge(patients, trained):
    mapped = on_edges(patients.X, trained.binning)
    for column, edges in enumerate(trained.binning.edges):
        held = ~np.isnan(patients.X[:, column])
        inner = np.asarray(edges)[:-1]
        before = np.searchsorted(inner, patients.X[held, column], side="right")
        np.testing.assert_array_equal(np.searchsorted(inner, mapped[held, column], side="right"), before)
        assert np.isnan(mapped[~held, column]).all()


def test_a_model_of_the_first_rounds_predicts_as_xgboost_does_with_a_range(patients, trained):
    import xgboost

    shorter = first_rounds(trained.model, 7)
    assert rounds_of(shorter) == 7
    booster = xgboost.Booster(model_file=bytearray(trained.model))
    names, types = booster.feature_names, booster.feature_types
    rows = xgboost.DMatrix(patients.X, feature_names=names, feature_types=types)
    expected = booster.predict(rows, iteration_range=(0, 7))
    np.testing.assert_array_equal(Scorer(shorter, "binary:logistic").predict(patients.X), expected)
