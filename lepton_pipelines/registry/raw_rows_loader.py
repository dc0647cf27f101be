"""Scores raw rows with an XGBoost model that has categories. Written beside the model; needs no code of Lepton's.

Model servers hand over categories as text, which XGBoost's own data matrix refuses. This turns each text into
the code that the model was trained with (its place in categories.json); a missing value stays missing.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from mlflow.exceptions import MlflowException


class RawRows:
    """An XGBoost booster that takes raw rows."""

    def __init__(self, booster: Any, categories: Mapping[str, Sequence[str]]) -> None:
        self.booster = booster
        self.categories = categories

    def predict(self, rows: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Score a frame of raw rows: float32, (rows,) or (rows, classes)."""
        codes = np.empty(rows.shape, dtype=np.float32)
        for position, name in enumerate(rows.columns):
            known = self.categories.get(name)
            if known is None:
                codes[:, position] = rows[name].to_numpy(dtype=np.float32, na_value=np.nan)
            else:
                codes[:, position] = self._codes(rows[name], known)
        matrix = xgboost.DMatrix(
            codes,
            feature_names=list(rows.columns),
            feature_types=["c" if name in self.categories else "q" for name in rows.columns],
            enable_categorical=True,
        )
        return self.booster.predict(matrix, **(params or {}))

    def _codes(self, values: Any, known: Sequence[str]) -> Any:
        places = {text: place for place, text in enumerate(known)}
        texts = [None if gone else text for text, gone in zip(values.astype("object"), values.isna(), strict=True)]
        unknown = sorted({str(text) for text in texts if text is not None and text not in places})
        if unknown:
            raise MlflowException.invalid_parameter_value(
                f"column {values.name!r} holds {', '.join(map(repr, unknown[:5]))}, the model knows {', '.join(known)}"
            )
        return np.array([np.nan if text is None else places[text] for text in texts], dtype=np.float32)


def _load_pyfunc(path: str) -> RawRows:
    """Load what MLflow calls the model's data: the folder of its files."""
    folder = Path(path)
    booster = xgboost.Booster(model_file=str(folder / "model.ubj"))
    return RawRows(booster, json.loads((folder / "categories.json").read_text()))
