"""The rows and parameters that the engine is measured on; generated ones are the same on every machine."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost

Case = tuple[np.ndarray, np.ndarray, dict[str, object]]
BINARY = {"objective": "binary:logistic", "base_score": 0.5}
DEFAULTS = {"max_depth": 6, "eta": 0.1, "max_bin": 256}


def data_folder() -> Path:
    """The folder with the public data sets: LEPTON_DATA_MIRROR, or ../shared/data beside the checkout."""
    return Path(os.environ.get("LEPTON_DATA_MIRROR") or Path(__file__).parents[2] / "shared" / "data")


def generated(rows: int, columns: int = 28, **params: object) -> Case:
    rng = np.random.default_rng(7)
    X = rng.standard_normal((rows, columns), np.float32)
    score = X @ rng.standard_normal(columns, np.float32) + 2 * X[:, 0] * X[:, 1] + rng.standard_normal(rows, np.float32)
    return X, (score > 0).astype(np.float32), BINARY | params


def half_missing() -> Case:
    X, y, params = generated(1_000_000, max_bin=255)
    X[np.random.default_rng(1).random(X.shape, np.float32) < 0.5] = np.nan
    return X, y, params


def ten_classes() -> Case:
    rng = np.random.default_rng(7)
    X = rng.standard_normal((100_000, 54), np.float32)
    y = np.argmax(X[:, :10] + 0.5 * rng.standard_normal((100_000, 10), np.float32), axis=1).astype(np.float32)
    return X, y, {"objective": "multi:softprob", "num_class": 10, "base_score": 0.5}


def beijing_air() -> Case:
    """Hourly air quality at twelve stations; the label is PM2.5, blanks are missing."""
    files = sorted((data_folder() / "beijing-air").glob("*.csv.gz"))
    if not files:
        raise FileNotFoundError(f"no public data set in {data_folder()}/beijing-air: set LEPTON_DATA_MIRROR")
    frame = pd.concat([pd.read_csv(f, na_values=["NA", " "], low_memory=False) for f in files]).dropna(subset=["PM2.5"])
    y = frame.pop("PM2.5").to_numpy(np.float32)
    X = frame.drop(columns=["No", "wd", "station"]).to_numpy(np.float32)
    return X, y, {"objective": "reg:squarederror", "base_score": 0.0, "max_bin": 255}


def credit_default() -> Case:
    """Taiwanese credit cards; the label is whether the next payment was missed."""
    frame = pd.read_csv(data_folder() / "credit-default" / "UCI_Credit_Card.csv").drop(columns="ID")
    y = frame.pop("default.payment.next.month").to_numpy(np.float32)
    return frame.to_numpy(np.float32), y, dict(BINARY)


CASES: dict[str, Callable[[], Case]] = {
    "1M x 28": lambda: generated(1_000_000),
    "beijing-air": beijing_air,
    "credit-default": credit_default,
    "30k x 23": lambda: generated(30_000, 23),
    "200k x 500": lambda: generated(200_000, 500),
    "10 classes, 100k x 54": ten_classes,
    "half missing, 1M x 28": half_missing,
    "depth 10, 1M x 28": lambda: generated(1_000_000, max_depth=10),
    "lossguide 255, 1M x 28": lambda: generated(1_000_000, grow_policy="lossguide", max_leaves=255, max_depth=0),
}
BARS = {
    "1M x 28": 0.90,
    "beijing-air": 1.0,
    "credit-default": 1.0,
    "30k x 23": 1.0,
    "200k x 500": 1.0,
    "10 classes, 100k x 54": 1.0,
    "half missing, 1M x 28": 0.7,
    "depth 10, 1M x 28": 1.1,
    "lossguide 255, 1M x 28": 1.1,
}


def edges_of(matrix: xgboost.QuantileDMatrix) -> list[np.ndarray]:
    """XGBoost's own edges, without the lower end that it puts first."""
    pointer, values = matrix.get_quantile_cut()
    return [values[a + 1 : b].astype(np.float32) for a, b in pairwise(pointer.astype(np.int64))]
