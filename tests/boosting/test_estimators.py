"""The estimators: scikit-learn's own checks, and XGBoost's estimators as measure."""

import threading

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.datasets import make_classification, make_regression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from lepton_pipelines.boosting.estimators import FederatedXGBClassifier, FederatedXGBRegressor
from lepton_pipelines.federation.in_process import InProcessFederation


@parametrize_with_checks(
    [FederatedXGBRegressor(n_estimators=3, n_jobs=1), FederatedXGBClassifier(n_estimators=3, n_jobs=1)]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")  # a check that needs an array library
def test_the_estimator_keeps_scikit_learns_rules(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def numbers():
    X, y = make_regression(400, 5, noise=5, random_state=0)
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def three_classes():
    X, y = make_classification(400, 6, n_informative=4, n_classes=3, random_state=0)
    return X.astype(np.float32), y


def test_a_regressor_predicts_as_xgboosts_own(numbers):
    X, y = numbers
    settings = {"n_estimators": 20, "max_depth": 3, "reg_lambda": 2, "n_jobs": 1}
    ours, stock = FederatedXGBRegressor(**settings).fit(X, y), xgboost.XGBRegressor(**settings).fit(X, y)
    # 400 rows in 256 bins: the edges are not the same, so neither are the trees
    assert np.corrcoef(ours.predict(X), stock.predict(X))[0, 1] > 0.99
    assert ours.feature_importances_ == pytest.approx(stock.feature_importances_, abs=0.1)
    assert ours.apply(X).shape == (400, 20)


@pytest.mark.parametrize("names", [[0, 1, 2], ["ant", "bee", "cat"]])
def test_a_classifier_names_its_classes_as_they_came(three_classes, names):
    X, y = three_classes
    labels = np.array(names)[y]
    model = FederatedXGBClassifier(n_estimators=10, n_jobs=1).fit(X, labels)
    stock = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(X, y)
    assert model.classes_.tolist() == names
    assert (model.predict(X) == np.array(names)[stock.predict(X)]).mean() > 0.99
    assert model.predict_proba(X).sum(axis=1) == pytest.approx(np.ones(400), rel=1e-5)


@pytest.mark.parametrize("objective", ["binary:logistic", "binary:logitraw", "multi:softmax", "multi:softprob"])
def test_probabilities_and_classes_agree_under_every_objective(three_classes, objective):
    X, y = three_classes
    model = FederatedXGBClassifier(n_estimators=5, n_jobs=1, objective=objective).fit(X, y > 0)
    shares = model.predict_proba(X)
    assert shares.shape == (400, 2)
    assert shares.min() >= 0
    assert (model.predict(X) == (shares[:, 1] > 0.5)).all()


def test_training_stops_early_and_predicts_with_the_best_round(numbers):
    X, y = numbers
    model = FederatedXGBRegressor(n_estimators=200, learning_rate=1.0, early_stopping_rounds=3, n_jobs=1)
    model.fit(X[:200], y[:200], eval_set=[(X[200:], y[200:])])
    scores = model.evals_result_["validation_0"]["rmse"]
    assert len(scores) < 200
    assert model.best_iteration == int(np.argmin(scores))
    assert np.sqrt(np.mean((model.predict(X[200:]) - y[200:]) ** 2)) == pytest.approx(min(scores), rel=1e-5)


def test_category_columns_are_found_again_by_name(numbers):
    X, y = numbers
    frame = pd.DataFrame({"x": X[:, 0], "c": pd.Categorical(np.where(X[:, 1] > 0, "up", "down"))})
    model = FederatedXGBRegressor(n_estimators=10, n_jobs=1).fit(frame, y)
    turned = frame.assign(c=frame["c"].cat.reorder_categories(["up", "down"]))
    assert (model.predict(turned) == model.predict(frame)).all()
    assert model.feature_names_in_.tolist() == ["x", "c"]


def test_functions_of_ones_own_have_scikit_learns_form(numbers):
    X, y = numbers

    def squared(y_true, y_pred):
        return y_pred - y_true, np.ones_like(y_pred)

    def largest(y_true, y_pred):
        return float(np.abs(y_true - y_pred).max())

    model = FederatedXGBRegressor(n_estimators=5, n_jobs=1, objective=squared, eval_metric=largest, base_score=0.5)
    model.fit(X, y, eval_set=[(X, y)])
    stock = FederatedXGBRegressor(n_estimators=5, n_jobs=1, base_score=0.5).fit(X, y)
    assert model.predict(X) == pytest.approx(stock.predict(X), rel=1e-6)
    assert model.evals_result_["validation_0"]["largest"][-1] == pytest.approx(np.abs(model.predict(X) - y).max())


def test_it_works_inside_scikit_learns_tools(three_classes):
    X, y = three_classes
    search = GridSearchCV(
        make_pipeline(StandardScaler(), FederatedXGBClassifier(n_estimators=3, n_jobs=1)),
        {"federatedxgbclassifier__max_depth": [1, 3]},
        cv=2,
    )
    assert search.fit(X, y).best_score_ > 0.5


def test_training_goes_on_from_another_estimator(numbers):
    X, y = numbers
    first = FederatedXGBRegressor(n_estimators=4, n_jobs=1).fit(X, y)
    longer = FederatedXGBRegressor(n_estimators=3, n_jobs=1).fit(X, y, xgb_model=first)
    assert longer.get_booster().num_boosted_rounds() == 7


@pytest.mark.parametrize("classes", [None, [0, 1, 2]])
def test_organisations_train_one_classifier_though_none_has_all_classes(three_classes, classes):
    X, y = three_classes
    parts = {"north": y == 0, "harbour": y == 1, "valley": y == 2}
    federation = InProcessFederation(list(parts))
    models = {}

    def train(name):
        mine = parts[name]
        models[name] = FederatedXGBClassifier(n_estimators=5, n_jobs=1).fit(
            X[mine], y[mine], sums=federation.sums(name), classes=classes
        )

    threads = [threading.Thread(target=train, args=(name,)) for name in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    raw = {bytes(model.get_booster().save_raw("ubj")) for model in models.values()}
    assert len(raw) == 1
    assert (models["north"].predict(X) == y).mean() > 0.8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda X, y: FederatedXGBRegressor(max_depth=-1).fit(X, y), "max_depth: "),
        (lambda X, y: FederatedXGBRegressor(objective="rank:ndcg").fit(X, y), "objective is rank:ndcg"),
        (lambda X, y: FederatedXGBRegressor().fit(X, y, sample_weight=-np.ones(400)), "negative weight"),
        (lambda X, y: FederatedXGBClassifier().fit(X, y > 1e9), "y has one class only"),
        (lambda X, y: FederatedXGBClassifier().fit(X, y > 0, classes=[False]), "none of the classes"),
        (lambda X, y: FederatedXGBRegressor().fit(X, y, eval_set=[(X, y)], sample_weight_eval_set=[]), "0 entries"),
    ],
)
def test_a_mistake_is_a_value_error_that_says_what_to_do(numbers, make, message):
    with pytest.raises(ValueError, match=message):
        make(*numbers)
