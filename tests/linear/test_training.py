"""Trained over all parties, a model is scikit-learn's on the pooled rows."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lepton_pipelines.linear.model_file import LinearModel
from lepton_pipelines.linear.rows import Shard, Table

SQUARED = [{"solver": "gradient_descent"}, {"solver": "closed_form"}]
LOGISTIC = [
    {"objective": "binary:logistic", "solver": "gradient_descent"},
    {"objective": "binary:logistic", "solver": "newton"},
]


def assert_same(model, reference, scaler=None, *, tolerance=1e-6):
    """Compare coefficients and intercept with scikit-learn's, relative to the largest coefficient."""
    expected, intercept = np.ravel(reference.coef_), float(np.ravel(reference.intercept_)[0])
    if scaler is not None:
        expected = expected / scaler.scale_
        intercept -= math.fsum(expected * scaler.mean_)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(model.coefficients, expected, rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(model.intercept, intercept, rtol=tolerance, atol=tolerance * scale)


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes(return_X_y=True, scaled=False)


@pytest.fixture(scope="module")
def cancer():
    return load_breast_cancer(return_X_y=True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "closed_form"},
        {"fit_intercept": False},
        {"fit_intercept": False, "standardize": False, "learning_rate": 0.3},
        {"learning_rate": 0.1, "momentum": 0.9},
        {"standardize": False, "learning_rate": 0.1, "momentum": 0.8},
    ],
    ids=str,
)
def test_two_organisations_of_1000_and_2000_rows_recover_the_truth_and_equal_scikit_learn(
    two_organisations, train_together, settings
):
    parties = {name: [Shard({"train": Table(*part)})] for name, part in two_organisations.items()}
    results = train_together(parties, **settings)

    assert results["north"].model == results["south"].model
    assert results["north"].notes == ()
    model = LinearModel.from_bytes(results["north"].model)
    np.testing.assert_allclose(model.coefficients, [1.0, 1.0], atol=2e-3)
    features, label = (np.concatenate(parts) for parts in zip(*two_organisations.values(), strict=True))
    assert_same(model, LinearRegression(fit_intercept=settings.get("fit_intercept", True)).fit(features, label))


@pytest.mark.parametrize("settings", SQUARED, ids=str)
def test_least_squares_equals_linear_regression(diabetes, model_of, settings):
    assert_same(model_of(*diabetes, **settings), LinearRegression().fit(*diabetes))


@pytest.mark.parametrize("settings", SQUARED, ids=str)
def test_lambda_equals_ridge_on_the_columns_as_they_are(diabetes, model_of, settings):
    settings = settings | {"lambda": 5.0 / len(diabetes[1]), "standardize": False}
    assert_same(model_of(*diabetes, **settings), Ridge(5.0, solver="cholesky").fit(*diabetes))


@pytest.mark.parametrize("settings", SQUARED, ids=str)
def test_lambda_equals_ridge_on_standardised_columns(diabetes, model_of, settings):
    features, label = diabetes
    scaler = StandardScaler().fit(features)
    reference = Ridge(5.0).fit(scaler.transform(features), label)
    assert_same(model_of(features, label, **settings, **{"lambda": 5.0 / len(label)}), reference, scaler)


@pytest.mark.parametrize("settings", SQUARED, ids=str)
def test_alpha_equals_lasso_and_has_the_same_zeros(diabetes, model_of, settings):
    features, label = diabetes
    scaler = StandardScaler().fit(features)
    reference = Lasso(3.0, tol=1e-13, max_iter=100_000).fit(scaler.transform(features), label)
    model = model_of(features, label, **settings, alpha=3.0)
    assert_same(model, reference, scaler)
    assert np.count_nonzero(reference.coef_ == 0) > 0
    np.testing.assert_array_equal(model.coefficients == 0, reference.coef_ == 0)


@pytest.mark.parametrize("settings", SQUARED, ids=str)
def test_alpha_and_lambda_equal_the_elastic_net_on_the_columns_as_they_are(diabetes, model_of, settings):
    reference = ElasticNet(1.0, l1_ratio=0.25, tol=1e-13, max_iter=1_000_000).fit(*diabetes)
    settings = settings | {"alpha": 0.25, "lambda": 0.75, "standardize": False}
    assert_same(model_of(*diabetes, **settings), reference)


@pytest.mark.parametrize("settings", LOGISTIC, ids=str)
@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_lambda_equals_logistic_regression(cancer, model_of, settings, strength):
    features, label = cancer
    scaler = StandardScaler().fit(features)
    reference = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12).fit(
        scaler.transform(features), label
    )
    settings = settings | {"lambda": 1.0 / (strength * len(label))}
    assert_same(model_of(features, label, **settings), reference, scaler)


@pytest.mark.parametrize("settings", LOGISTIC, ids=str)
def test_alpha_equals_logistic_regression_with_l1(cancer, model_of, settings):
    features, label = cancer[0][:, :10], cancer[1]
    scaler = StandardScaler().fit(features)
    reference = LogisticRegression(C=0.5, l1_ratio=1.0, solver="saga", tol=1e-10, max_iter=200_000, random_state=0).fit(
        scaler.transform(features), label
    )
    model = model_of(features, label, **settings, alpha=2.0 / len(label))
    assert_same(model, reference, scaler)
    np.testing.assert_array_equal(model.coefficients == 0, reference.coef_[0] == 0)


@pytest.mark.parametrize("settings", [*SQUARED, *LOGISTIC], ids=str)
def test_weights_count_as_in_scikit_learn(cancer, model_of, settings):
    features, label = cancer[0][:, :5], cancer[1].astype(float)
    weight = np.random.default_rng(3).uniform(0, 4, len(label))
    weight[::7] = 0
    if "objective" in settings:
        reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(features, label, weight)
    else:
        reference = LinearRegression().fit(features, label, weight)
    assert_same(model_of(features, label, weight, **settings), reference)


@pytest.mark.parametrize("settings", [*SQUARED, *LOGISTIC], ids=str)
def test_missing_values_filled_by_the_mean_equal_scikit_learns_pipeline(cancer, model_of, settings):
    features, label = cancer[0][:, :8].copy(), cancer[1].astype(float)
    features[np.random.default_rng(5).random(features.shape) < 0.15] = np.nan
    reference = make_pipeline(
        SimpleImputer(),
        StandardScaler(),
        LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12) if "objective" in settings else Ridge(1.0),
    ).fit(features, label)
    model = model_of(features, label, missing="mean", **settings, **{"lambda": 1.0 / len(label)})

    assert_same(model, reference[-1], reference[1])
    np.testing.assert_allclose(model.fill, reference[0].statistics_, rtol=1e-12)
    expected = reference.predict_proba(features)[:, 1] if "objective" in settings else reference.predict(features)
    np.testing.assert_allclose(model.predict(features), expected, atol=1e-6)


def test_four_hospitals_with_their_own_kinds_of_gaps_train_scikit_learns_model(shared_data, train_together):
    parties, frames = {}, []
    for name in ("cleveland", "hungarian", "switzerland", "va"):
        path = shared_data / "heart-disease" / f"processed.{name}.data"
        frame = pd.read_csv(path, header=None, na_values="?").astype(np.float64)
        parties[name] = [
            Shard({"train": Table(frame.iloc[:, :11].to_numpy(), (frame.iloc[:, 13] > 0).to_numpy(dtype=np.float64))})
        ]
        frames.append(frame)
    pooled = pd.concat(frames)
    features, label = pooled.iloc[:, :11].to_numpy(), (pooled.iloc[:, 13] > 0).to_numpy()
    reference = make_pipeline(
        SimpleImputer(), StandardScaler(), LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12)
    ).fit(features, label)

    results = train_together(
        parties, objective="binary:logistic", solver="newton", missing="mean", **{"lambda": 1 / len(label)}
    )

    assert len({result.model for result in results.values()}) == 1
    model = LinearModel.from_bytes(results["va"].model)
    assert_same(model, reference[-1], reference[1])


def test_a_column_far_from_zero_loses_no_digits(model_of):
    random = np.random.default_rng(2)
    features = np.column_stack([random.normal(1.7e9, 1.0, 4000), random.normal(0, 1e-6, 4000)])
    label = (features[:, 0] - 1.7e9) * 3 + features[:, 1] * 2e6 + random.normal(0, 0.1, 4000)
    scaled = (features - [1.7e9, 0]) * [1, 1e6]
    reference = LinearRegression().fit(scaled, label)
    model = model_of(features, label)
    np.testing.assert_allclose(model.coefficients, reference.coef_ * [1, 1e6], rtol=1e-6)


@pytest.mark.parametrize(("settings", "metric"), [(SQUARED[0], "rmse"), (LOGISTIC[0], "logloss")])
def test_scores_of_every_set_and_round_are_scikit_learns(cancer, train_alone, settings, metric):
    features, label = cancer[0][:, :6], cancer[1].astype(float)
    sets = {"train": Table(features[:400], label[:400]), "valid": Table(features[400:], label[400:])}
    seen = []
    trained = train_alone([Shard(sets)], evaluation=["valid"], on_round=seen.append, **settings, **{"lambda": 0.01})

    model = LinearModel.from_bytes(trained.model)
    for name, rows in sets.items():
        predicted = model.predict(rows.features)
        expected = (
            root_mean_squared_error(rows.label, predicted) if metric == "rmse" else log_loss(rows.label, predicted)
        )
        assert trained.history[name][metric][-1] == pytest.approx(expected, rel=1e-6)
        assert trained.own_history[name] == trained.history[name]
    assert [one.round for one in seen] == list(range(1, trained.rounds + 1))
    assert [one.scores["valid"][metric] for one in seen] == trained.history["valid"][metric]


def test_a_party_knows_its_own_scores_beside_the_federations(two_organisations, train_together, train_alone):
    parties = {name: [Shard({"train": Table(*part)})] for name, part in two_organisations.items()}
    results = train_together(parties)
    model = LinearModel.from_bytes(results["north"].model)
    for name, (features, label) in two_organisations.items():
        own = results[name].own_history["train"]["rmse"][-1]
        assert own == pytest.approx(root_mean_squared_error(label, model.predict(features)), rel=1e-6)
    assert results["north"].history == results["south"].history


def test_a_warm_start_at_the_minimum_ends_at_once_with_the_same_model(diabetes, train_alone):
    shard = Shard({"train": Table(*diabetes)})
    first = train_alone([shard])
    again = train_alone([shard], warm_start=first.model)
    assert first.rounds > 20
    assert again.rounds <= 3
    one, other = (LinearModel.from_bytes(trained.model) for trained in (first, again))
    np.testing.assert_allclose(one.coefficients, other.coefficients, rtol=1e-6)


def test_rounds_that_run_out_are_noted(diabetes, train_alone):
    trained = train_alone([Shard({"train": Table(*diabetes)})], rounds=5)
    assert trained.rounds == 5
    assert "Not converged to tolerance 1e-09: all 5 rounds were used up" in trained.notes[0]


@pytest.mark.parametrize("settings", SQUARED, ids=str)
def test_a_column_with_one_value_gets_coefficient_0_and_a_note(diabetes, train_alone, settings):
    features = np.column_stack([diabetes[0][:, :3], np.full(len(diabetes[1]), 0.1)])
    trained = train_alone([Shard({"train": Table(features, diabetes[1])})], **settings)
    model = LinearModel.from_bytes(trained.model)
    assert model.coefficients[3] == 0
    assert trained.notes == ("Column f3 has one value at all organisations: its coefficient is 0.",)
    assert_same(
        LinearModel(model.objective, model.features[:3], model.coefficients[:3], model.intercept),
        LinearRegression().fit(features[:, :3], diabetes[1]),
    )
