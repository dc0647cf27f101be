"""A linear model as scikit-learn's own, logged so that stock MLflow serves it with no code of ours and no pickle.

Standardisation is folded into the coefficients, so a squared-error model is a plain `LinearRegression`, a logistic
one a `LogisticRegression`, behind a `SimpleImputer` if missing values are filled in. The file is in the skops
format, which holds data only and is checked against a list of types when it is read.
"""

from importlib.metadata import version
from typing import Any

import numpy as np

from lepton_pipelines.linear.model_file import LinearModel
from lepton_pipelines.linear.parameters import LOGISTIC

# A SimpleImputer keeps the dtype that it was fitted on; skops trusts no type that it was not told of.
_TRUSTED_WITH_IMPUTER = ["numpy.dtype"]


def estimator(model: LinearModel) -> Any:
    """Return the fitted scikit-learn estimator that predicts as the model does.

    A `LinearRegression` or `LogisticRegression`, or a `Pipeline` of `SimpleImputer` (steps impute and model) and one.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import Pipeline

    if model.objective == LOGISTIC:
        fitted: Any = LogisticRegression()
        fitted.classes_ = np.array([0, 1])
        fitted.coef_ = model.coefficients[None, :].copy()
        fitted.intercept_ = np.array([model.intercept])
        fitted.n_iter_ = np.array([0], dtype=np.int32)
    else:
        fitted = LinearRegression()
        fitted.coef_ = model.coefficients.copy()
        fitted.intercept_ = np.float64(model.intercept)
    fitted.n_features_in_ = len(model.features)
    if model.fill is None:
        fitted.feature_names_in_ = np.array(model.features, dtype=object)
        return fitted
    import pandas as pd

    # Of one row the mean is the row itself.
    imputer = SimpleImputer().fit(pd.DataFrame([model.fill], columns=list(model.features)))
    return Pipeline([("impute", imputer), ("model", fitted)])


def log_model(model: LinearModel, **settings: Any) -> Any:
    """Log the model in the active MLflow run with the sklearn flavour.

    The server answers values, or for a logistic model the probabilities of classes 0 and 1.
    settings: as `mlflow.sklearn.log_model` takes them (`name`, `signature`, `input_example`, `metadata`, …).
    """
    import mlflow.sklearn

    trusted = {} if model.fill is None else {"skops_trusted_types": _TRUSTED_WITH_IMPUTER}
    return mlflow.sklearn.log_model(
        estimator(model),
        **{"pip_requirements": requirements(), **settings},
        **trusted,
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        pyfunc_predict_fn="predict_proba" if model.objective == LOGISTIC else "predict",
    )


def requirements() -> list[str]:
    """Name what a model server needs, with the versions that are installed here."""
    return [f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "skops", "pandas", "numpy")]
