"""Which features matter: by gain, from the model alone, and by SHAP values of the reader's own rows.

SHAP values describe single rows. They are computed where the rows lie and only their mean leaves this module;
even that is for the organisation whose rows they are, not for the others.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lepton_pipelines.evaluation.result import Importance

MOST_ROWS = 2000
"""SHAP values cost rows × trees × depth²; a mean over more rows than this hardly moves."""


def gain_importance(booster: Any) -> list[Importance]:
    """Give each feature's share of the total gain, largest first; features that no tree uses are left out.

    booster: an `xgboost.Booster`. A model whose gains were stripped gives all features that it uses no gain:
    then an empty list.
    """
    gains: Mapping[str, float] = booster.get_score(importance_type="total_gain")
    whole = sum(gains.values())
    if not whole > 0:
        return []
    shares = [Importance(feature=name, value=gain / whole) for name, gain in gains.items() if gain > 0]
    return sorted(shares, key=lambda one: (-one.value, one.feature))


def shap_importance(booster: Any, rows: ArrayLike, *, feature_types: list[str] | None = None) -> list[Importance]:
    """Give each feature's mean absolute SHAP value on the reader's own rows, in log-odds or the label's unit.

    rows: float32, (rows, features), in the model's order, NaN for missing; the first 2000 are used. Several
    classes' values are added up. Features that never matter are left out. Largest first.
    """
    import xgboost

    some = np.asarray(rows, dtype=np.float32)[:MOST_ROWS]
    if len(some) == 0:
        return []
    matrix = xgboost.DMatrix(
        some,
        feature_names=booster.feature_names,
        feature_types=feature_types or booster.feature_types,
        enable_categorical=True,
    )
    values = np.abs(booster.predict(matrix, pred_contribs=True)).mean(axis=0)[..., :-1]
    values = values.sum(axis=0) if values.ndim == 2 else values
    names = booster.feature_names or [f"f{place}" for place in range(some.shape[1])]
    found = [Importance(feature=n, value=float(v)) for n, v in zip(names, values.tolist(), strict=True) if v > 0]
    return sorted(found, key=lambda one: (-one.value, one.feature))
