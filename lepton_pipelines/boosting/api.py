"""`lp.train`: XGBoost's own way of starting a training, over one party's rows and everybody else's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.dataset import Dataset
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.metrics import CustomMetric, CustomMetricFunction
from lepton_pipelines.boosting.model_file import booster_of, read_model, write_model
from lepton_pipelines.boosting.objectives import CustomFunction
from lepton_pipelines.boosting.pool import threads_of
from lepton_pipelines.boosting.progress import RoundReport
from lepton_pipelines.boosting.rows import LocalRows
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.training import Boosted, OwnFunctions, boost
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import LocalSums, Sums

if TYPE_CHECKING:
    import xgboost


def train(
    params: Mapping[str, Any] | BoosterParameters,
    dtrain: Dataset,
    num_boost_round: int = 10,
    *,
    sums: Sums | None = None,
    edges: Sequence[NDArray[np.float32]] | None = None,
    evals: Sequence[tuple[Dataset, str]] = (),
    obj: CustomFunction | None = None,
    custom_metric: CustomMetricFunction | None = None,
    maximize: bool | None = None,
    early_stopping_rounds: int | None = None,
    evals_result: dict[str, dict[str, list[float]]] | None = None,
    verbose_eval: bool | int | None = True,
    xgb_model: "str | bytes | bytearray | xgboost.Booster | None" = None,
    callbacks: Sequence[object] | None = None,
) -> "xgboost.Booster":
    """Train a model; names and defaults as in `xgboost.train`.

    params: XGBoost's parameters. dtrain: this party's rows.
    sums: joins this party's rows to the others'; without it the rows are all there are.
    edges: for each column float32, ascending, the upper ends of its bins (what `QuantileDMatrix.get_quantile_cut`
        gives, without the lower end that it puts first); found over all parties' rows if not given.
    evals: sets to score after each round, with their names. obj: the user's own objective. custom_metric: his own
        metric. maximize: whether more of it is better.
    early_stopping_rounds: stop when the last metric of the last set has not become better for so long.
    evals_result: filled with the scores. verbose_eval: whether, or every how many rounds, to print them.
    xgb_model: a model to continue. callbacks: see `lepton_pipelines.boosting.progress`.
    Returns a real `xgboost.Booster`, with `best_iteration` and `best_score` if it stopped early.
    Raises UserError for parameters or rows that cannot be trained with.
    """
    parameters = BoosterParameters.read(params)
    boosted = boost_dataset(
        parameters,
        dtrain,
        num_boost_round,
        sums=sums if sums is not None else LocalSums(),
        edges=edges,
        evals=evals,
        obj=obj,
        custom_metric=custom_metric,
        maximize=maximize,
        early_stopping_rounds=early_stopping_rounds,
        xgb_model=model_bytes(xgb_model),
        callbacks=[*(callbacks or ()), *printing(verbose_eval, bool(evals) and parameters.verbosity > 0)],
    )
    if evals_result is not None:
        evals_result.clear()
        evals_result.update(boosted.history)
    return booster_of(boosted.model, nthread=threads_of(parameters.nthread))


def boost_dataset(
    parameters: BoosterParameters,
    dtrain: Dataset,
    rounds: int,
    *,
    sums: Sums,
    edges: Sequence[NDArray[np.float32]] | None,
    evals: Sequence[tuple[Dataset, str]],
    obj: CustomFunction | None,
    custom_metric: CustomMetricFunction | None,
    maximize: bool | None,
    early_stopping_rounds: int | None,
    xgb_model: bytes | None,
    callbacks: Sequence[object],
    schema: FeatureSchema | None = None,
    threads: int | None = None,
) -> Boosted:
    """What `train` does, without what it prints.

    schema: the columns, where this party's rows alone do not tell. threads: how many work on this party's rows.
    """
    if not isinstance(dtrain, Dataset):
        raise UserError(f"dtrain is a {type(dtrain).__name__}. Make a lepton_pipelines.Dataset of it.")
    sets = {name: data for data, name in evals}
    if len(sets) < len(evals):
        raise UserError("evals: two sets have the same name. Give each a name of its own.")
    for name, data in sets.items():
        _check_scored(name, data, dtrain)
    own_name = next((name for name, data in sets.items() if data is dtrain), None)
    trained_on = own_name if own_name is not None else next(n for n in ("dtrain", "dtrain_") if n not in sets)
    metric = _NamedMetric(custom_metric) if custom_metric is not None else None
    counted = CustomMetric("custom", metric, bool(maximize)) if metric is not None else None
    shard = Shard(
        {trained_on: dtrain, **sets},
        threads=threads or threads_of(parameters.nthread),
        custom_objective=obj,
        custom_metric=counted,
    )
    try:
        boosted = boost(
            parameters,
            LocalRows(shard),
            sums=sums,
            rounds=rounds,
            features=schema or schema_of([dtrain], parties=sums.parties),
            train=trained_on,
            evaluation=tuple(sets),
            early_stopping_rounds=early_stopping_rounds,
            edges=edges,
            callbacks=callbacks,
            warm_start=xgb_model,
            own=OwnFunctions(obj, counted, maximize),
        )
    finally:
        shard.pool.close()
    if metric is not None:
        for history in (boosted.history, boosted.own_history):
            for scores in history.values():
                scores[metric.name] = scores.pop("custom")
    return boosted


def schema_of(parts: Sequence[Dataset], *, parties: int) -> FeatureSchema:
    """Return the columns of parts that are trained on together.

    Raises UserError if the parts' columns, types or category names differ.
    """
    first = parts[0]
    for place, part in enumerate(parts[1:], 1):
        for what in ("feature_names", "feature_types", "category_names", "n_features"):
            mine, others = getattr(first, what), getattr(part, what)
            if mine != others:
                raise UserError(
                    f"the {what} of part {place} are not those of part 0: {others} and {mine}. "
                    "Give every part the same columns, in the same order, with the same categories."
                )
    counts = [part.schema.categories for part in parts]
    several = len(parts) > 1 or parties > 1
    # Codes without names say little about how many there are: over several parties the sums tell.
    known = () if several and not first.category_names else counts[0]
    return replace(first.schema, categories=known, category_names=first.category_names)


def _check_scored(name: str, data: Dataset, dtrain: Dataset) -> None:
    if data.n_features != dtrain.n_features:
        raise UserError(
            f"evals: {name} has {data.n_features} columns, dtrain {dtrain.n_features}. Give the same columns."
        )
    if data.label is None:
        raise UserError(f"evals: {name} has no labels to score against. Give label to its Dataset.")


class _NamedMetric:
    """The user's metric, and what it calls itself."""

    def __init__(self, function: CustomMetricFunction) -> None:
        self._function = function
        self.name = "custom"

    def __call__(self, prediction: Any, data: Any) -> tuple[str, float]:
        self.name, value = self._function(prediction, data)
        return self.name, value


def model_bytes(model: "str | bytes | bytearray | xgboost.Booster | None") -> bytes | None:
    """Return a model file's bytes, whatever the model is given as."""
    if model is None or isinstance(model, bytes):
        return model
    if isinstance(model, bytearray):
        return bytes(model)
    return write_model(read_model(model))


def printing(verbose_eval: bool | int | None, evaluated: bool) -> list[object]:
    """Return the callback that prints scores as `xgboost.train` does, if they are wanted."""
    every = int(verbose_eval or 0)
    return [_Printing(every)] if evaluated and every > 0 else []


class _Printing:
    """Prints every so many rounds' scores, and the last round's."""

    def __init__(self, every: int) -> None:
        self._every = every

    def on_round(self, report: RoundReport) -> None:
        if report.round % self._every and report.round + 1 != report.rounds:
            return
        scores = "\t".join(
            f"{name}-{metric}:{value:.5f}" for name, values in report.scores.items() for metric, value in values.items()
        )
        print(f"[{report.round}]\t{scores}", flush=True)  # noqa: T201 - what xgboost.train does
