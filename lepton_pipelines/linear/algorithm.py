"""Linear and logistic regression as an algorithm that a spec can name: `algorithm: linear`.

Light: NumPy and the rest come with the first training or prediction.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lepton_pipelines.linear.parameters import LinearParameters
from lepton_pipelines.spec.algorithm import Features, Round, Rows, RowSet, Trained

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lepton_pipelines.sums import Sums


class Linear:
    """Federated gradient descent, or the closed form, for linear and logistic models."""

    name = "linear"
    kind = "linear"
    parameters = LinearParameters

    def hold(self, sets: Mapping[str, RowSet]) -> Any:
        """Make a shard of named sets of rows."""
        from lepton_pipelines.linear.rows import Shard

        return Shard(sets)

    def train(
        self,
        parameters: LinearParameters,
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
        """Train; see `linear.training.fit`."""
        from lepton_pipelines.linear.training import fit

        return fit(
            parameters,
            rows,
            sums=sums,
            rounds=rounds,
            features=features,
            train=train,
            evaluation=evaluation,
            on_round=on_round,
            warm_start=warm_start,
        )

    def columns(self, model: bytes) -> Sequence[str]:
        """Return the names of the columns that a model file takes, in order."""
        from lepton_pipelines.linear.model_file import LinearModel

        return LinearModel.from_bytes(model).features

    def predict(self, model: bytes, features: "NDArray[np.floating[Any]]") -> "NDArray[np.float64]":
        """Predict values, or probabilities of class 1: float64, (rows,)."""
        from lepton_pipelines.linear.model_file import LinearModel

        return LinearModel.from_bytes(model).predict(features)

    def log_model(self, model: bytes, **settings: Any) -> Any:
        """Log the model as scikit-learn's own, without pickle; see `linear.sklearn_model.log_model`."""
        from lepton_pipelines.linear.model_file import LinearModel
        from lepton_pipelines.linear.sklearn_model import log_model

        return log_model(LinearModel.from_bytes(model), **settings)
