"""A training stops, goes on and continues as XGBoost's does, and an interruption leaves no trace."""

import numpy as np
import pytest
import xgboost

import lepton_pipelines as lp
from lepton_pipelines.boosting import lookup
from lepton_pipelines.boosting.progress import Progress
from lepton_pipelines.boosting.rows import LocalRows
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.training import boost
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import LocalSums

PARAMS = {"objective": "binary:logistic", "max_depth": 3, "subsample": 0.7, "seed": 4}


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(900, 6)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    label = (np.nan_to_num(X[:, 0]) + rng.normal(size=900) > 0).astype(np.float32)
    return {"train": lp.Dataset(X[:600], label[:600]), "valid": lp.Dataset(X[600:], label[600:])}


def run(sets, rounds, **more):
    rows = LocalRows(Shard(sets, threads=1))
    parameters = BoosterParameters.read(PARAMS)
    schema = sets["train"].schema
    return boost(parameters, rows, sums=LocalSums(), rounds=rounds, features=schema, evaluation=("valid",), **more)


def test_a_resumed_training_ends_in_the_same_bytes(sets):
    kept = []
    whole = run(sets, 8, early_stopping_rounds=20, checkpoint=lambda progress: kept.append(progress.to_bytes()))
    resumed = run(sets, 8, early_stopping_rounds=20, resume=Progress.from_bytes(kept[2]))
    assert resumed.model == whole.model
    assert resumed.history == whole.history
    assert resumed.best_iteration == whole.best_iteration


def test_early_stopping_names_the_first_best_round(sets):
    stopped = run(sets, 200, early_stopping_rounds=5)
    scores = stopped.history["valid"]["logloss"]
    assert stopped.best_iteration == int(np.argmin(scores))
    assert stopped.rounds == stopped.best_iteration + 1 + 5
    booster = xgboost.Booster()
    booster.load_model(bytearray(stopped.model))
    assert booster.best_iteration == stopped.best_iteration


def test_a_model_of_stock_xgboost_is_continued_from_its_margins(sets):
    train = sets["train"]
    matrix = xgboost.DMatrix(train.block(0, train.n_rows), train.label)
    before = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, matrix, 4)
    result = {}
    params = {"objective": "binary:logistic", "max_depth": 3}
    after = lp.train(
        params, train, 2, evals=[(train, "train")], evals_result=result, xgb_model=before, verbose_eval=False
    )
    assert after.num_boosted_rounds() == 6
    first = xgboost.Booster()
    first.load_model(before.save_raw("ubj"))
    assert np.allclose(after.predict(matrix, iteration_range=(0, 4)), before.predict(matrix), atol=1e-7)
    stated = after.eval_set([(matrix, "train")]).split(":")[-1]
    assert result["train"]["logloss"][-1] == pytest.approx(float(stated), abs=1e-6)


class Halving:
    def learning_rate(self, round: int) -> float:
        return 0.5**round


def test_a_schedule_sets_each_rounds_learning_rate(sets):
    train = sets["train"]
    X = train.block(0, train.n_rows)
    params = {"objective": "reg:squarederror", "max_depth": 2, "base_score": 0.5, "max_bin": 255}
    matrix = xgboost.QuantileDMatrix(X, train.label, max_bin=255)
    pointer, values = matrix.get_quantile_cut()
    places = pointer.astype(np.int64)
    edges = [values[places[f] + 1 : places[f + 1]] for f in range(X.shape[1])]
    ours = lp.train(params, train, 4, edges=edges, callbacks=[Halving()])
    theirs = None  # round by round: XGBoost 3.4's own scheduler is late by one
    for round_ in range(4):
        theirs = xgboost.train(params | {"eta": 0.5**round_}, matrix, 1, xgb_model=theirs)
    data = xgboost.DMatrix(X)
    assert np.allclose(ours.predict(data), theirs.predict(data), atol=1e-6)


def test_a_callback_of_xgboosts_is_refused_by_name(sets):
    with pytest.raises(UserError, match="EvaluationMonitor has neither"):
        lp.train(PARAMS, sets["train"], 1, callbacks=[xgboost.callback.EvaluationMonitor()])


class Sums:
    """Notes how many sums there were when each round ended."""

    def __init__(self):
        self.so_far = []

    def on_round(self, report):
        self.so_far.append(report.traffic.sums)


WHOLE = {
    "by depth": {"max_depth": 5},
    "deeper than there is room for at first": {"max_depth": 0, "max_leaves": 0, "min_child_weight": 0},
    "by depth, few leaves": {"max_depth": 7, "max_leaves": 21},
    "by loss": {"grow_policy": "lossguide", "max_leaves": 200, "max_depth": 0},
    "by loss, without a limit": {"grow_policy": "lossguide", "max_leaves": 0, "max_depth": 9, "gamma": 0.1},
    "monotone, fewer columns and rows": {
        "monotone_constraints": (1, -1),
        "colsample_bytree": 0.5,
        "subsample": 0.6,
        "seed": 2,
    },
}


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("growth", WHOLE)
def test_a_tree_grown_whole_is_the_one_grown_from_sums(growth, missing):
    rng = np.random.default_rng(6)
    X = rng.normal(size=(8000, 6)).astype(np.float32)
    label = (X[:, 0] * X[:, 1] + X[:, 2] + rng.normal(size=8000)).astype(np.float32)
    X[rng.random(X.shape) < missing] = np.nan
    edges = [np.append(np.linspace(-2, 2, 60), 9).astype(np.float32)] * 6
    for threads in (1, 2, 5):
        params = WHOLE[growth] | {"nthread": threads}
        row_id = np.arange(8000)
        whole = lp.train(params, lp.Dataset(X, label, row_id=row_id), 4, edges=edges, verbose_eval=False)
        parts = [lp.Dataset(X[part], label[part], row_id=row_id[part]) for part in (slice(3000), slice(3000, None))]
        together = lp.simulate(params, parts, 4, edges=edges, verbose_eval=False)
        assert bytes(together.save_raw("ubj")) == bytes(whole.save_raw("ubj"))


@pytest.mark.parametrize("columns", [40, 160, 170, 200])
def test_missing_values_that_are_skipped_and_those_that_are_counted_make_the_same_model(columns, monkeypatch):
    rng = np.random.default_rng(columns)
    X = rng.normal(size=(2000, columns)).astype(np.float32)
    X[rng.random(X.shape) < 0.4] = np.nan
    label = np.nan_to_num(X[:, 0] + X[:, -1]) + rng.normal(size=2000)
    data = lp.Dataset(X, label.astype(np.float32), row_id=np.arange(2000))
    edges = [np.append(np.linspace(-2, 2, 12), 9).astype(np.float32)] * columns
    params, made, kept = {"max_depth": 4, "nthread": 2}, [], []
    found = lookup.Lookup.of
    monkeypatch.setattr(lookup.Lookup, "of", lambda *asked: kept.append(found(*asked)) or kept[-1])
    for share in (lookup._SPARSE, 2.0):
        monkeypatch.setattr(lookup, "_SPARSE", share)
        booster = lp.train(params, data, 5, edges=edges, verbose_eval=False)
        parts = [lp.Dataset(X[at], label[at], row_id=np.arange(2000)[at]) for at in (slice(700), slice(700, None))]
        together = lp.simulate(params, parts, 5, edges=edges, verbose_eval=False)
        made += [bytes(booster.save_raw("ubj")), bytes(together.save_raw("ubj"))]
    assert len(set(made)) == 1
    sizes = [(one.present.nbytes + one.copies.nbytes) / one.codes.rows for one in kept]
    assert 0 < max(sizes) <= 20 and len(kept[0].present) and not len(kept[-1].present)  # bytes a row


def test_growing_by_loss_takes_far_fewer_sums_than_splits_and_gives_the_same_model():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(3000, 6)).astype(np.float32)
    label = (X[:, 0] * X[:, 1] + X[:, 2] + rng.normal(size=3000)).astype(np.float32)
    edges = [np.append(np.linspace(-2, 2, 60), 9).astype(np.float32)] * 6
    params = {"grow_policy": "lossguide", "max_leaves": 64, "max_depth": 0, "nthread": 2}
    whole = lp.train(params, lp.Dataset(X, label), 3, edges=edges)
    sums = Sums()
    parts = [lp.Dataset(X[part], label[part]) for part in (slice(0, 1000), slice(1000, None))]
    together = lp.simulate(params, parts, 3, edges=edges, callbacks=[sums], verbose_eval=False)
    assert bytes(together.save_raw("ubj")) == bytes(whole.save_raw("ubj"))
    assert np.diff(sums.so_far).max() < 63 / 2


@pytest.mark.parametrize(
    "params",
    [
        {"objective": "binary:logistic", "eval_metric": ["logloss", "auc"]},  # its largest gradient hardly changes
        {"objective": "reg:squarederror", "learning_rate": 0.9, "min_child_weight": 0},  # becomes smaller by the round
        {"objective": "reg:squarederror", "learning_rate": 2.7},  # becomes larger: what was counted ahead had no room
        {"objective": "reg:absoluteerror", "subsample": 0.7, "seed": 3},  # needs a sum before its gradients
        {"objective": "multi:softprob", "num_class": 3, "learning_rate": 1.0},
    ],
)
def test_a_root_that_was_counted_ahead_is_that_of_the_scales_or_counted_again(params):
    rng = np.random.default_rng(9)
    X = rng.normal(size=(2000, 6)).astype(np.float32)
    score = X[:, 0] * X[:, 1] + X[:, 2]
    label = np.digitize(score, [-0.5, 0.5]) if "num_class" in params else score > 0 if "auc" in str(params) else score
    edges = [np.append(np.linspace(-2, 2, 60), 9).astype(np.float32)] * 6
    params = params | {"max_depth": 4, "nthread": 2}
    classes, rounds = params.get("num_class", 1), 10
    row_id = np.arange(2000)

    def data(part):
        return lp.Dataset(X[part], label[part].astype(np.float32), row_id=row_id[part])

    sums, whole = Sums(), {}
    every = data(slice(None))
    alone = lp.train(
        params, every, rounds, edges=edges, evals=[(every, "rows")], evals_result=whole, verbose_eval=False
    )
    parts, scores = [data(slice(0, 700)), data(slice(700, None))], {}
    together = lp.simulate(
        params, parts, rounds, edges=edges, evals=[(parts, "rows")], evals_result=scores, callbacks=[sums],
        verbose_eval=False,
    )  # fmt: skip
    assert bytes(together.save_raw("ubj")) == bytes(alone.save_raw("ubj"))
    assert scores == whole
    a_round = np.diff(sums.so_far[:-1])
    least = 4 * classes + (params["objective"] == "reg:absoluteerror")
    assert a_round.min() == least
    if params.get("learning_rate", 0) in (0.9, 2.7):
        assert least + 1 in a_round  # the guess was wrong and cost one sum
