"""What a linear model cannot be trained with ends alike at every party, with what to do."""

import numpy as np
import pytest
from pydantic import ValidationError

from lepton_pipelines.linear.model_file import LinearModel
from lepton_pipelines.linear.parameters import LinearParameters
from lepton_pipelines.linear.rows import Shard, Table
from lepton_pipelines.spec.errors import UserError


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 3))
    return features, (features[:, 0] + random.normal(size=60) > 0).astype(float)


def parties(features, label, weight=None):
    cut = slice(0, 20), slice(20, 40), slice(40, 60)
    return {
        name: [Shard({"train": Table(features[part], label[part], None if weight is None else weight[part])})]
        for name, part in zip(("east", "north", "west"), cut, strict=True)
    }


def errors(results):
    """The messages of all parties, which must all have ended with a UserError."""
    assert all(isinstance(result, UserError) for result in results.values()), results
    return {name: str(result) for name, result in results.items()}


def test_missing_values_are_refused_with_counts_of_all_and_of_ones_own(rows, train_together):
    rows[0][5, 1] = rows[0][50, 1] = rows[0][51, 1] = np.nan
    told = errors(train_together(parties(*rows)))
    assert "column f1 is missing in 3 of 60 rows over all organisations, 2 of them here" in told["west"]
    assert "0 of them here" in told["north"]
    assert all("say missing: mean" in message for message in told.values())


def test_infinite_values_are_refused(rows, train_together):
    rows[0][5, 2] = np.inf
    told = errors(train_together(parties(*rows)))
    assert "column f2 holds values that are infinite or beyond 2^128 (1 of 60 rows" in told["north"]


def test_a_column_that_nobody_has_is_refused_even_if_means_are_filled_in(rows, train_together):
    rows[0][:, 0] = np.nan
    told = errors(train_together(parties(*rows), missing="mean"))
    assert "column f0 is missing in all 60 rows" in told["east"]


def test_labels_that_are_no_numbers_are_refused(rows, train_together):
    rows[1][59] = np.nan
    told = errors(train_together(parties(*rows)))
    assert "the label is missing or infinite in 1 of 60 rows over all organisations, 1 of them here" in told["west"]


def test_labels_that_are_not_0_or_1_are_refused_for_logistic(rows, train_together):
    rows[1][:3] = 2
    told = errors(train_together(parties(*rows), objective="binary:logistic"))
    assert "the label is neither 0 nor 1 in 3 of 60 rows" in told["north"]
    assert "reg:squarederror" in told["north"]


def test_one_class_is_refused_for_logistic_over_all_parties_only(rows, train_together):
    features, label = rows
    label[:20] = 1  # at one party alone there may be one class
    assert not isinstance(
        train_together(parties(features, label), objective="binary:logistic", rounds=3)["east"], Exception
    )
    told = errors(train_together(parties(features, np.ones(60)), objective="binary:logistic"))
    assert "the label is 1 in all 60 rows over all organisations" in told["east"]


def test_weights_below_0_are_refused(rows, train_together):
    weight = np.ones(60)
    weight[3] = -1
    assert "the weight is negative or not finite in 1 of 60" in errors(train_together(parties(*rows, weight)))["east"]


def test_no_rows_at_all_are_refused(train_together):
    told = errors(train_together(parties(np.zeros((0, 2)), np.zeros(0))))
    assert "no organisation has rows in set train" in told["north"]


def test_a_learning_rate_that_diverges_is_refused_with_one_that_does_not(rows, train_alone):
    shard = [Shard({"train": Table(*rows)})]
    with pytest.raises(
        UserError, match=r"training.learning_rate 5 is too large.*Take one below (\S+), or auto"
    ) as error:
        train_alone(shard, learning_rate=5.0)
    advised = float(str(error.value).split("one below ")[1].split(",")[0])
    assert train_alone(shard, learning_rate=advised).notes == ()


def test_dependent_columns_are_named_by_the_closed_form(rows, train_alone):
    features = np.column_stack([rows[0], rows[0][:, 0] - 2 * rows[0][:, 2]])
    shard = [Shard({"train": Table(features, rows[1])})]
    with pytest.raises(UserError, match=r"column f3 is a combination of the columns before it.*training.lambda"):
        train_alone(shard, solver="closed_form")
    assert train_alone(shard, solver="closed_form", **{"lambda": 1e-3}).notes == ()


@pytest.mark.parametrize("solver", ["newton", "gradient_descent"])
def test_classes_that_are_told_apart_perfectly_are_noted(rows, train_alone, solver):
    shard = [Shard({"train": Table(rows[0], (rows[0][:, 0] > 0).astype(float))})]
    assert (
        "tell the two classes apart perfectly"
        in train_alone(shard, objective="binary:logistic", solver=solver).notes[0]
    )
    settings = {"objective": "binary:logistic", "solver": solver, "lambda": 0.01}
    assert train_alone(shard, **settings).notes == ()


def test_categories_are_refused_by_name(rows, train_alone):
    class Columns:
        names = ("age", "colour", "size")
        types = ("float", "c", "int")

    with pytest.raises(UserError, match="these columns are categories: colour"):
        train_alone([Shard({"train": Table(*rows)})], features=Columns())


def test_a_warm_start_from_another_kind_of_model_is_refused(rows, train_alone):
    shard = [Shard({"train": Table(*rows)})]
    squared = train_alone(shard).model
    with pytest.raises(UserError, match="the model to go on from is a reg:squarederror"):
        train_alone(shard, objective="binary:logistic", warm_start=squared)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "closed_form", "objective": "binary:logistic"}, "Take solver: newton"),
        ({"solver": "newton"}, "Take solver: closed_form"),
        ({"solver": "closed_form", "learning_rate": 0.1}, "has a learning_rate, which is gradient_descent's"),
        ({"momentum": 0.5}, "has momentum, which needs a learning_rate"),
        ({"learning_rate": 0.0}, "must be above 0"),
        ({"lambda": -1.0}, "greater than or equal to 0"),
        ({"objective": "multi:softprob"}, "reg:squarederror"),
        ({"max_depth": 3}, "Extra inputs"),
    ],
)
def test_parameters_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        LinearParameters.model_validate(settings)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"format": "lepton-linear/2"}', b"\xff\xfe"])
def test_a_file_that_is_no_model_is_refused(data):
    with pytest.raises(UserError, match="not a linear model file"):
        LinearModel.from_bytes(data)


def test_rows_with_gaps_are_refused_by_a_model_that_fills_nothing_in(rows, model_of):
    model = model_of(*rows)
    rows[0][4, 1] = np.nan
    with pytest.raises(UserError, match="column f1 is missing in 1 of 60 rows"):
        model.predict(rows[0])
