"""The engine as an algorithm that a spec can name: `algorithm: xgboost`, which is also what it means without one.

Light: the engine and XGBoost come with the first training or prediction. A pipeline calls the engine itself, which
can do more than every algorithm must (stop early, keep checkpoints, share edges); this is what is common to all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lepton_pipelines.spec.algorithm import Features, Round, Rows, RowSet, Trained
from lepton_pipelines.spec.booster_parameters import BoosterParameters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lepton_pipelines.boosting.progress import RoundReport
    from lepton_pipelines.sums import Sums


class XGBoost:
    """Gradient boosted trees, as XGBoost grows them."""

    name = "xgboost"
    kind = "xgboost"
    parameters = BoosterParameters

    def hold(self, sets: Mapping[str, RowSet]) -> Any:
        """Make a shard of named sets of rows."""
        from lepton_pipelines.boosting.shard import Shard

        return Shard(sets)

    def train(
        self,
        parameters: BoosterParameters,
        rows: Rows,
        *,
        sums: "Sums",
        rounds: int,
        features: Features,
        train: str = "train",
        evaluation: Sequence[str] = (),
        on_round: Callable[[Round], None] | None = None,
        warm_start: bytes | None = None,
    ) -> Trained:
        """Train; see `boosting.training.boost`. The model is an XGBoost model file (UBJSON)."""
        from lepton_pipelines.boosting.features import FeatureSchema
        from lepton_pipelines.boosting.training import boost

        boosted = boost(
            parameters,
            rows,
            sums=sums,
            rounds=rounds,
            features=FeatureSchema(features.names, features.types, features.categories),
            train=train,
            evaluation=evaluation,
            callbacks=[] if on_round is None else [_Telling(on_round)],
            warm_start=warm_start,
        )
        return Trained(boosted.model, boosted.rounds, boosted.history, boosted.own_history)

    def columns(self, model: bytes) -> Sequence[str]:
        """Return the names of the columns that a model file takes, in order."""
        from lepton_pipelines.boosting.model_file import read_model

        return list(read_model(model).feature_names)

    def predict(self, model: bytes, features: "NDArray[np.floating[Any]]") -> "NDArray[np.float64]":
        """Predict with stock XGBoost: float64, (rows,) or (rows, classes)."""
        import numpy as np
        import xgboost

        from lepton_pipelines.boosting.model_file import booster_of

        booster = booster_of(model)
        rows = xgboost.DMatrix(features, feature_names=booster.feature_names, feature_types=booster.feature_types)
        return np.asarray(booster.predict(rows), np.float64)

    def log_model(self, model: bytes, **settings: Any) -> Any:
        """Log the model as XGBoost's own; settings as `mlflow.xgboost.log_model` takes them."""
        from importlib.metadata import version

        import mlflow.xgboost

        from lepton_pipelines.boosting.model_file import booster_of

        needs = [f"{name}=={version(name)}" for name in ("mlflow", "xgboost-cpu", "pandas", "numpy")]
        return mlflow.xgboost.log_model(booster_of(model), **{"pip_requirements": needs, **settings})


@dataclass(frozen=True)
class _Telling:
    """Tells the engine's rounds as those of any algorithm, which are counted from 1."""

    on: Callable[[Round], None]

    def on_round(self, report: "RoundReport") -> None:
        self.on(
            Round(report.round + 1, report.rounds, report.scores, report.own_scores, report.seconds, report.traffic)
        )
