"""scikit-learn estimators over `lp.train`: alone on one party's rows, or with everybody else's through `sums`.

Parameters are XGBoost's, as in its own estimators; None means XGBoost's default. What comes out is a stock Booster
(`get_booster`), and it predicts.
"""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from lepton_pipelines.boosting.api import train
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.dataset import Dataset
from lepton_pipelines.boosting.rows import LocalRows
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array, Sums

if TYPE_CHECKING:
    import xgboost

_NOT_PARAMETERS = ("n_estimators", "early_stopping_rounds", "callbacks", "importance_type", "feature_types")
_MOST_COUNTED = 1024  # classes that are found through sums; more must be given


class EstimatorError(UserError, ValueError):
    """A user's mistake, as scikit-learn's callers expect it: a ValueError."""


class _FederatedXGB(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor share."""

    _objective = "reg:squarederror"

    def __init__(
        self,
        *,
        n_estimators: int = 100,
        objective: str | Callable[..., Any] | None = None,
        learning_rate: float | None = None,
        max_depth: int | None = None,
        max_leaves: int | None = None,
        max_bin: int | None = None,
        grow_policy: str | None = None,
        gamma: float | None = None,
        min_child_weight: float | None = None,
        max_delta_step: float | None = None,
        subsample: float | None = None,
        colsample_bytree: float | None = None,
        colsample_bylevel: float | None = None,
        colsample_bynode: float | None = None,
        reg_alpha: float | None = None,
        reg_lambda: float | None = None,
        scale_pos_weight: float | None = None,
        base_score: float | Sequence[float] | None = None,
        num_parallel_tree: int | None = None,
        monotone_constraints: Any = None,
        interaction_constraints: Any = None,
        max_cat_to_onehot: int | None = None,
        max_cat_threshold: int | None = None,
        huber_slope: float | None = None,
        quantile_alpha: float | Sequence[float] | None = None,
        tweedie_variance_power: float | None = None,
        eval_metric: str | Sequence[str] | Callable[..., float] | None = None,
        early_stopping_rounds: int | None = None,
        callbacks: Sequence[object] | None = None,
        feature_types: Sequence[str] | None = None,
        importance_type: str | None = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbosity: int | None = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.objective = objective
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.max_leaves = max_leaves
        self.max_bin = max_bin
        self.grow_policy = grow_policy
        self.gamma = gamma
        self.min_child_weight = min_child_weight
        self.max_delta_step = max_delta_step
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.colsample_bylevel = colsample_bylevel
        self.colsample_bynode = colsample_bynode
        self.reg_alpha = reg_alpha
        self.reg_lambda = reg_lambda
        self.scale_pos_weight = scale_pos_weight
        self.base_score = base_score
        self.num_parallel_tree = num_parallel_tree
        self.monotone_constraints = monotone_constraints
        self.interaction_constraints = interaction_constraints
        self.max_cat_to_onehot = max_cat_to_onehot
        self.max_cat_threshold = max_cat_threshold
        self.huber_slope = huber_slope
        self.quantile_alpha = quantile_alpha
        self.tweedie_variance_power = tweedie_variance_power
        self.eval_metric = eval_metric
        self.early_stopping_rounds = early_stopping_rounds
        self.callbacks = callbacks
        self.feature_types = feature_types
        self.importance_type = importance_type
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbosity = verbosity

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that missing values and sparse rows are taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags

    def get_booster(self) -> "xgboost.Booster":
        """Return the stock Booster. Raises scikit-learn's NotFittedError before `fit`."""
        check_is_fitted(self, "booster_")
        booster: xgboost.Booster = self.booster_
        return booster

    @property
    def feature_importances_(self) -> NDArray[np.float32]:
        """float32, (columns,), adding up to 1, by `importance_type` (XGBoost's; gain by default)."""
        booster = self.get_booster()
        scores = booster.get_score(importance_type=self.importance_type or "gain")
        names = booster.feature_names or [f"f{column}" for column in range(self.n_features_in_)]
        values = np.array([scores.get(name, 0.0) for name in names], np.float32)
        total = values.sum()
        shares: NDArray[np.float32] = values / total if total else values
        return shares

    @property
    def best_iteration(self) -> int:
        """The best round, if training stopped early. Raises AttributeError if it could not."""
        best: int = self.get_booster().best_iteration
        return best

    @property
    def best_score(self) -> float:
        """The score of the best round, if training stopped early. Raises AttributeError if it could not."""
        best: float = self.get_booster().best_score
        return best

    def apply(self, X: Any) -> NDArray[np.float32]:
        """float32, (rows, trees): the leaf of each tree that a row falls into."""
        leaves: NDArray[np.float32] = self._ask(X, pred_leaf=True)
        return leaves

    def _fit(
        self,
        X: Any,
        label: Any,
        eval_set: Sequence[tuple[Any, Any]],
        *,
        params: dict[str, Any],
        sums: Sums | None,
        sample_weight: Any,
        base_margin: Any,
        sample_weight_eval_set: Sequence[Any] | None,
        base_margin_eval_set: Sequence[Any] | None,
        row_id: Any,
        xgb_model: Any,
        verbose: bool | int,
    ) -> None:
        """Train on checked rows; label and eval_set as the objective wants them."""
        weights = _one_each(sample_weight_eval_set, len(eval_set), "sample_weight_eval_set")
        margins = _one_each(base_margin_eval_set, len(eval_set), "base_margin_eval_set")
        objective, metric = self.objective, self.eval_metric
        self.evals_result_: dict[str, dict[str, list[float]]] = {}
        try:
            data = Dataset(
                X,
                label,
                weight=sample_weight,
                base_margin=base_margin,
                row_id=row_id,
                feature_types=self.feature_types,
            )
            _refuse_weightless(data, sums)
            evals = [
                (Dataset(rows, y, weight=w, base_margin=m, feature_types=self.feature_types), f"validation_{place}")
                for place, ((rows, y), w, m) in enumerate(zip(eval_set, weights, margins, strict=True))
            ]
            self.booster_ = train(
                params,
                data,
                self.n_estimators,
                sums=sums,
                evals=evals,
                obj=_objective_of(objective) if callable(objective) else None,
                custom_metric=_metric_of(metric) if callable(metric) else None,
                early_stopping_rounds=self.early_stopping_rounds,
                evals_result=self.evals_result_,
                verbose_eval=verbose,
                xgb_model=xgb_model.get_booster() if hasattr(xgb_model, "get_booster") else xgb_model,
                callbacks=self.callbacks,
            )
        except UserError as error:
            raise EstimatorError(error.problems) from error

    def _params(self) -> dict[str, Any]:
        """The parameters that were set, as `lp.train` takes them."""
        params = {name: value for name, value in self.get_params().items() if name not in _NOT_PARAMETERS}
        params = {name: value for name, value in params.items() if value is not None and not callable(value)}
        params.setdefault("objective", self._objective)
        state = params.get("random_state")
        if state is not None and not isinstance(state, (int, np.integer)):
            draw = state.integers if hasattr(state, "integers") else state.randint
            params["random_state"] = int(draw(np.iinfo(np.int32).max))
        return params

    def _checked(self, X: Any, **settings: Any) -> Any:
        """Let scikit-learn look at rows; frames stay frames, because their columns may be categories."""
        if _is_frame(X):
            validate_data(self, X, skip_check_array=True, **{k: v for k, v in settings.items() if k == "reset"})
            return X
        return validate_data(self, X, accept_sparse="csr", ensure_all_finite="allow-nan", **settings)

    def _ask(self, X: Any, **question: Any) -> Any:
        import xgboost

        booster = self.get_booster()
        rows = self._checked(X, reset=False)
        matrix = xgboost.DMatrix(rows, feature_types=self.feature_types, nthread=self.n_jobs, enable_categorical=True)
        if booster.feature_names is None:
            matrix.feature_names = None
        best = booster.attributes().get("best_iteration")
        until = int(best) + 1 if best is not None else 0
        return booster.predict(matrix, iteration_range=(0, until), **question)


class FederatedXGBRegressor(RegressorMixin, _FederatedXGB):  # type: ignore[misc]
    """Gradient boosted trees for numbers: XGBoost's model, trained over all parties' rows.

    Parameters are XGBoost's. `objective` may also be a function (y_true, y_pred) to (gradient, hessian), and
    `eval_metric` one of scikit-learn's; they see this party's rows only.
    """

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sums: Sums | None = None,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
        row_id: Any = None,
        xgb_model: Any = None,
        verbose: bool | int = False,
    ) -> Self:
        """Train; the arguments are those of XGBoost's own estimators and `lp.Dataset`.

        sums: joins this party's rows to the others'; without it they are all there are.
        Raises EstimatorError, a ValueError, for rows or parameters that cannot be trained with.
        """
        rows, label = _rows_and_label(self, X, y)
        self._fit(
            rows,
            label,
            eval_set or [],
            params=self._params(),
            sums=sums,
            sample_weight=sample_weight,
            base_margin=base_margin,
            sample_weight_eval_set=sample_weight_eval_set,
            base_margin_eval_set=base_margin_eval_set,
            row_id=row_id,
            xgb_model=xgb_model,
            verbose=verbose,
        )
        return self

    def predict(self, X: Any, *, output_margin: bool = False) -> NDArray[np.float32]:
        """float32, (rows,), or (rows, quantiles): the prediction, or with output_margin what it is made of."""
        predictions: NDArray[np.float32] = self._ask(X, output_margin=output_margin)
        return predictions


class FederatedXGBClassifier(ClassifierMixin, _FederatedXGB):  # type: ignore[misc]
    """Gradient boosted trees for classes: XGBoost's model, trained over all parties' rows.

    Labels may be text or numbers. Over several parties all must know the same classes: give them to `fit`, or
    number them from 0. The other parameters are those of `FederatedXGBRegressor`.
    """

    _objective = "binary:logistic"

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sums: Sums | None = None,
        classes: Sequence[Any] | None = None,
        sample_weight: Any = None,
        base_margin: Any = None,
        eval_set: Sequence[tuple[Any, Any]] | None = None,
        sample_weight_eval_set: Sequence[Any] | None = None,
        base_margin_eval_set: Sequence[Any] | None = None,
        row_id: Any = None,
        xgb_model: Any = None,
        verbose: bool | int = False,
    ) -> Self:
        """Train; the arguments are those of XGBoost's own estimators and `lp.Dataset`.

        sums: joins this party's rows to the others'; without it they are all there are.
        classes: all labels that any party may have, if this party's rows alone do not tell.
        Raises EstimatorError, a ValueError, for rows or parameters that cannot be trained with.
        """
        rows, label = _rows_and_label(self, X, y)
        check_classification_targets(label)
        try:
            self.classes_ = _classes(label, classes, sums)
            codes = _codes(label, self.classes_, "y")
            evaluated = [(r, _codes(_flat(e), self.classes_, "eval_set")) for r, e in eval_set or []]
        except UserError as error:
            raise EstimatorError(error.problems) from error
        self.n_classes_ = len(self.classes_)
        self._fit(
            rows,
            codes,
            evaluated,
            params=self._class_params(),
            sums=sums,
            sample_weight=sample_weight,
            base_margin=base_margin,
            sample_weight_eval_set=sample_weight_eval_set,
            base_margin_eval_set=base_margin_eval_set,
            row_id=row_id,
            xgb_model=xgb_model,
            verbose=verbose,
        )
        return self

    def _class_params(self) -> dict[str, Any]:
        params = self._params()
        if self.n_classes_ > 2:
            if not str(params["objective"]).startswith("multi:"):
                params["objective"] = "multi:softprob"
            params["num_class"] = self.n_classes_
        elif str(params["objective"]).startswith("multi:"):
            params["num_class"] = max(self.n_classes_, 2)
        return params

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """float32, (rows, classes): probabilities, in the order of `classes_`."""
        margin = self._ask(X, output_margin=True)
        if margin.ndim == 2:
            wide = np.exp(margin - margin.max(axis=1, keepdims=True))
            shares: NDArray[np.float32] = wide / wide.sum(axis=1, keepdims=True)
            return shares
        positive = self._ask(X) if self._has_probabilities() else 1 / (1 + np.exp(-margin))
        return np.stack([1 - positive, positive], axis=1)[:, : self.n_classes_]

    def _has_probabilities(self) -> bool:
        return self.objective in (None, "binary:logistic", "reg:logistic", "binary:hinge")

    def predict(self, X: Any) -> NDArray[Any]:
        """(rows,), of the labels' own type: the likeliest class."""
        check_is_fitted(self, "booster_")
        likeliest: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return likeliest


def _is_frame(X: Any) -> bool:
    return type(X).__module__.split(".")[0] in ("pandas", "polars", "pyarrow") and hasattr(X, "shape")


def _flat(y: Any) -> NDArray[Any]:
    array = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _rows_and_label(estimator: _FederatedXGB, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
    if y is None:
        raise EstimatorError("requires y to be passed, but the target y is None")
    if _is_frame(X):
        return estimator._checked(X), _flat(y)
    numeric = not isinstance(estimator, ClassifierMixin)
    rows, label = estimator._checked(X, y=y, y_numeric=numeric)
    return rows, label


@np.vectorize
def _is_whole(value: Any) -> bool:
    return bool(isinstance(value, (int, float, np.number, np.bool_)) and float(value).is_integer() and value >= 0)


class _CountClasses:
    """Which class numbers occur: int64, one a number."""

    def run(self, label: NDArray[Any]) -> Int64Array:
        return np.minimum(np.bincount(label.astype(np.int64), minlength=_MOST_COUNTED), 1)


def _classes(label: NDArray[Any], given: Sequence[Any] | None, sums: Sums | None) -> NDArray[Any]:
    """The classes, ascending: given, or what occurs; over several parties the numbers up to the largest."""
    if given is not None:
        return np.unique(np.asarray(given))
    if sums is None or sums.parties == 1:
        found = np.unique(label)
        if len(found) < 2:
            raise UserError(f"y has one class only, {found[0]!r}: there is nothing to tell apart.")
        return found
    wrong = np.count_nonzero(~_is_whole(label)) if len(label) else 0
    if wrong or (len(label) and label.max() >= _MOST_COUNTED):
        raise UserError(
            f"y: over several parties classes are whole numbers from 0 to {_MOST_COUNTED - 1}; {wrong} of {len(label)} "
            "labels are not. Number them, or give all classes to fit."
        )
    counts = Collective(LocalRows(label), sums, "estimator").sum(_CountClasses(), "classes", bound=1 << 20)
    return np.arange(max(int(np.flatnonzero(counts)[-1]) + 1, 2))


def _codes(label: NDArray[Any], classes: NDArray[Any], what: str) -> NDArray[np.float32]:
    known = np.isin(label, classes)
    if not known.all():
        raise UserError(
            f"{what}: {int(np.count_nonzero(~known))} of {len(label)} labels are none of the classes "
            f"(for example {label[np.argmin(known)]!r}). Give all classes to fit."
        )
    return np.searchsorted(classes, label).astype(np.float32)


def _refuse_weightless(data: Dataset, sums: Sums | None) -> None:
    if data.weight is not None and sums is None and not data.weight.any():
        raise UserError("sample_weight: all weights are zero, so there is nothing to train on. Give other weights.")


def _one_each(values: Sequence[Any] | None, sets: int, what: str) -> Sequence[Any]:
    if values is None:
        return [None] * sets
    if len(values) != sets:
        raise EstimatorError(f"{what} has {len(values)} entries, eval_set {sets}. Give one for each.")
    return values


def _objective_of(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """scikit-learn's form, (y_true, y_pred), as `lp.train` takes it."""
    weighs = "sample_weight" in signature(function).parameters

    def objective(margin: Any, data: Dataset) -> Any:
        if data.weight is None:
            return function(data.get_label(), margin)
        if not weighs:
            raise UserError(
                "objective: the function takes no sample_weight, but the rows have weights. Let it take them."
            )
        return function(data.get_label(), margin, sample_weight=data.weight)

    return objective


def _metric_of(function: Callable[..., float]) -> Callable[[Any, Any], tuple[str, float]]:
    def metric(prediction: Any, data: Dataset) -> tuple[str, float]:
        weight = {} if data.weight is None else {"sample_weight": data.weight}
        return str(getattr(function, "__name__", "custom")), float(function(data.get_label(), prediction, **weight))

    return metric
