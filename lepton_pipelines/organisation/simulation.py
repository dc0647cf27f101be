"""`lp.simulate`: several organisations in one process, one for each part of the rows, with secure sums between them.

What a federation would do, to the last mask, without its network: for trying out, for teaching, for tests. The model
is byte for byte the one that `lp.train` grows from all parts' rows together on the same edges and base score. (Where
it is not given, that of `reg:quantileerror` is read from cells of at least 20 rows once there are several parts; one
part alone gives its exact quantile.)
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.api import boost_dataset, model_bytes, printing, schema_of
from lepton_pipelines.boosting.dataset import Dataset
from lepton_pipelines.boosting.metrics import CustomMetricFunction
from lepton_pipelines.boosting.model_file import booster_of
from lepton_pipelines.boosting.objectives import CustomFunction
from lepton_pipelines.boosting.pool import available_threads, threads_of
from lepton_pipelines.boosting.progress import LearningRateSchedule
from lepton_pipelines.boosting.training import Boosted
from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import LocalSums, SumAborted, Sums

if TYPE_CHECKING:
    import xgboost

Evaluation = Sequence[tuple[Dataset | Sequence[Dataset], str]]


def simulate(
    params: Mapping[str, Any] | BoosterParameters,
    parts: Sequence[Dataset],
    num_boost_round: int = 10,
    *,
    edges: Sequence[NDArray[np.float32]] | None = None,
    evals: Evaluation = (),
    obj: CustomFunction | None = None,
    custom_metric: CustomMetricFunction | None = None,
    maximize: bool | None = None,
    early_stopping_rounds: int | None = None,
    evals_result: dict[str, dict[str, list[float]]] | None = None,
    verbose_eval: bool | int | None = True,
    xgb_model: "str | bytes | bytearray | xgboost.Booster | None" = None,
    callbacks: Sequence[object] | None = None,
) -> "xgboost.Booster":
    """Train as a federation of one organisation a part would.

    parts: each organisation's rows. evals: each set as one Dataset an organisation, or as a single Dataset, which
    the first organisation then holds. Everything else as in `lepton_pipelines.train`; callbacks are told by the
    first organisation.
    Returns the model, the same for every organisation.
    Raises UserError for parameters or rows that cannot be trained with.
    """
    if not parts:
        raise UserError("parts: there are none. Give the rows of at least one organisation.")
    parameters = BoosterParameters.read(params)
    schema = schema_of(parts, parties=len(parts))
    continued = model_bytes(xgb_model)
    members = [f"part {place}" for place in range(len(parts))]
    federation = InProcessFederation(members, allow_two_parties=True) if len(parts) > 1 else None
    threads = max(1, (threads_of(parameters.nthread) or available_threads()) // len(parts))
    told = [*(callbacks or ()), *printing(verbose_eval, bool(evals) and parameters.verbosity > 0)]

    def train_part(place: int, sums: Sums) -> Boosted:
        return boost_dataset(
            parameters,
            parts[place],
            num_boost_round,
            sums=sums,
            edges=edges,
            evals=[(_part_of(data, parts, place), name) for data, name in evals],
            obj=obj,
            custom_metric=custom_metric,
            maximize=maximize,
            early_stopping_rounds=early_stopping_rounds,
            xgb_model=continued,
            callbacks=told if place == 0 else _schedules(told),
            schema=schema,
            threads=threads,
        )

    boosted = train_part(0, LocalSums()) if federation is None else _together(train_part, federation)
    if evals_result is not None:
        evals_result.clear()
        evals_result.update(boosted.history)
    return booster_of(boosted.model, nthread=threads_of(parameters.nthread))


def _together(train_part: Callable[[int, Sums], Boosted], federation: InProcessFederation) -> Boosted:
    """Train all parts at once, a thread each; raises what the first part to fail raised."""

    def member(place: int) -> Boosted:
        with federation.sums(f"part {place}") as sums:
            return train_part(place, sums)

    count = len(federation.members)
    try:
        with ThreadPoolExecutor(count, thread_name_prefix="organisation") as threads:
            runs = [threads.submit(member, place) for place in range(count)]
            errors = [error for run in runs if (error := run.exception()) is not None]
    finally:
        federation.close()
    if errors:
        raise next((error for error in errors if not isinstance(error, SumAborted)), errors[0])
    return runs[0].result()


def _part_of(data: Dataset | Sequence[Dataset], parts: Sequence[Dataset], place: int) -> Dataset:
    if isinstance(data, Dataset):
        return data if place == 0 else data.without_rows()
    if len(data) != len(parts):
        raise UserError(f"evals: {len(data)} sets for {len(parts)} parts. Give one for each, or a single Dataset.")
    return data[place]


def _schedules(callbacks: Sequence[object]) -> list[object]:
    """The callbacks that every organisation must follow: those that set the learning rate."""
    return [callback for callback in callbacks if isinstance(callback, LearningRateSchedule)]
