"""Stock XGBoost on the pooled rows, with the same edges, beside ours; and the rows to do it with."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost

import lepton_pipelines as lp

ROUNDS = 100


@dataclass(frozen=True)
class Rows:
    X: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None = None
    types: tuple[str, ...] = ()

    def head(self, rows: int, seed: int = 0) -> "Rows":
        """So many rows, drawn without regard to their order."""
        if rows >= len(self.X):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.X), rows, replace=False))
        return Rows(self.X[chosen], self.label[chosen], None, self.types)


@dataclass(frozen=True)
class Pair:
    ours: xgboost.Booster
    theirs: xgboost.Booster
    data: xgboost.DMatrix

    def assert_equal(self) -> None:
        """All splits of all rounds are equal, margins within 1e-6 of their span."""
        mine, others = trees(self.ours), trees(self.theirs)
        assert len(mine) == len(others)
        for number, (a, b) in enumerate(zip(mine, others, strict=True)):
            assert splits(a) == splits(b), f"tree {number} differs"
        a, b = (booster.predict(self.data, output_margin=True) for booster in (self.ours, self.theirs))
        assert np.abs(a - b).max() <= 1e-6 * max(float(np.ptp(b)), 1e-3)


def trees(booster: xgboost.Booster) -> list[dict]:
    return json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"]


def splits(tree: dict) -> list[tuple]:
    """What each node asks, without leaf values."""
    categories = {
        node: tuple(tree["categories"][first : first + size])
        for node, first, size in zip(
            tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
        )
    }
    return [
        (
            left,
            tree["right_children"][node],
            tree["split_indices"][node],
            tree["default_left"][node],
            categories.get(node, tree["split_conditions"][node]),
        )
        if left >= 0
        else None
        for node, left in enumerate(tree["left_children"])
    ]


def edges_of(matrix: xgboost.QuantileDMatrix) -> list[np.ndarray]:
    """XGBoost's own edges, without the lower end that it puts first."""
    pointer, values = matrix.get_quantile_cut()
    places = pointer.astype(np.int64)
    return [values[a + 1 : b].astype(np.float32) for a, b in pairwise(places)]


@pytest.fixture(scope="session")
def train_both():
    """A function that trains both on the same rows, edges and parameters."""

    def both(rows: Rows, params: dict, rounds: int = ROUNDS) -> Pair:
        names = [f"f{f}" for f in range(rows.X.shape[1])]
        types = list(rows.types) or None
        common = {"feature_names": names, "feature_types": types, "enable_categorical": types is not None}
        max_bin = params.get("max_bin", 255 if np.isnan(rows.X).any() else 256)
        params = {"nthread": 2, "max_bin": max_bin, **params}
        matrix = xgboost.QuantileDMatrix(rows.X, rows.label, weight=rows.weight, max_bin=max_bin, **common)
        theirs = xgboost.train(params, matrix, rounds)
        data = lp.Dataset(rows.X, rows.label, weight=rows.weight, feature_names=names, feature_types=types)
        ours = lp.train(params, data, rounds, edges=edges_of(matrix))
        return Pair(ours, theirs, xgboost.DMatrix(rows.X, **common))

    return both


@pytest.fixture(scope="session")
def generated() -> dict[str, Rows]:
    """Rows with every kind of column: normal, rounded, heavy-tailed, categories, constant, mostly missing."""
    rng = np.random.default_rng(20)
    n = 4000
    X = rng.normal(size=(n, 10)).astype(np.float32)
    X[:, 2] = rng.integers(0, 12, n)
    X[:, 3] = np.round(X[:, 3])
    X[:, 4] = np.exp(3 * X[:, 4])
    X[:, 5] = rng.integers(0, 3, n)
    X[:, 6] = 1
    X[rng.random(n) < 0.9, 7] = np.nan
    score = X[:, 0] + X[:, 1] ** 2 + (X[:, 2] % 3) + np.nan_to_num(X[:, 7]) + 0.5 * rng.normal(size=n)
    holes = X.copy()
    holes[rng.random(X.shape) < 0.2] = np.nan
    full = X.copy()
    full[:, 7] = np.nan_to_num(full[:, 7])
    weight = rng.random(n).astype(np.float32) + np.float32(0.1)
    types = ("q", "q", "c", "q", "q", "c", "q", "q", "q", "q")
    label = score.astype(np.float32)
    return {
        "full": Rows(full, label),
        "missing": Rows(holes, label),
        "weighted": Rows(holes, label, weight),
        "categorical": Rows(full, label, None, types),
        "categorical, missing, weighted": Rows(holes, label, weight, types),
    }


@pytest.fixture(scope="session")
def credit_default(shared_data: Path) -> Rows:
    frame = pd.read_csv(shared_data / "credit-default" / "UCI_Credit_Card.csv").drop(columns="ID")
    label = frame.pop("default.payment.next.month")
    return Rows(frame.to_numpy(np.float32), label.to_numpy(np.float32))


@pytest.fixture(scope="session")
def beijing_air(shared_data: Path) -> Rows:
    """Numbers with missing values and the wind's direction as categories; the label is PM2.5."""
    files = sorted((shared_data / "beijing-air").glob("*.csv.gz"))
    frame = pd.concat([pd.read_csv(f, na_values=["NA", " "], low_memory=False) for f in files]).dropna(subset=["PM2.5"])
    label = frame.pop("PM2.5").to_numpy(np.float32)
    frame = frame.drop(columns=["No", "station"])
    wind = frame["wd"].astype("category").cat.codes.to_numpy(np.float32)
    frame["wd"] = np.where(wind < 0, np.nan, wind)
    types = tuple("c" if name == "wd" else "q" for name in frame)
    return Rows(frame.to_numpy(np.float32), label, None, types)


@pytest.fixture(scope="session")
def heart_disease(shared_data: Path) -> Rows:
    files = sorted((shared_data / "heart-disease").glob("processed.*"))
    frame = pd.concat([pd.read_csv(f, header=None, na_values=["?", "NaN"]) for f in files])
    return Rows(frame.iloc[:, :13].to_numpy(np.float32), (frame.iloc[:, 13] > 0).to_numpy(np.float32))
