"""What an algorithm is: how one that is not ours is found by name, trained through the same sums, and logged.

An algorithm is an object that a distribution names in its entry points, group `lepton.algorithms`; the
administrator of an organisation installs it, nothing is ever run because a message said so. It gets an
organisation's rows as steps get them (an integer vector from every shard, added up) and `Sums`, and so knows
neither Dask nor the network. `docs/algorithms.md` shows how to write one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .errors import UserError
from .fields import SpecModel, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lepton_pipelines.sums import Int64Array, PendingSum, Sums, Traffic

    FloatArray = NDArray[np.floating[Any]]

GROUP = "lepton.algorithms"


class RowSet(Protocol):
    """A set of rows as an algorithm gets it: numbers, in the contract's order of columns."""

    @property
    def n_rows(self) -> int:
        """How many rows."""
        ...

    @property
    def n_features(self) -> int:
        """How many columns."""
        ...

    @property
    def label(self) -> "FloatArray | None":
        """Floating point, (rows,)."""
        ...

    @property
    def weight(self) -> "FloatArray | None":
        """Floating point, (rows,), not negative; None means 1 throughout."""
        ...

    @property
    def base_margin(self) -> "FloatArray | None":
        """Floating point, (rows, outputs): where a booster starts; None means from its base score."""
        ...

    @property
    def row_id(self) -> "NDArray[np.uint64] | None":
        """(rows,): a row's own number, which does not depend on where it lies; None means unknown."""
        ...

    def block(self, start: int, stop: int) -> "FloatArray":
        """Floating point, (stop - start, features), NaN where a value is missing; category codes as numbers."""
        ...


class Step(Protocol):
    """Work that is sent to every shard of a party's rows, once each and in order; must be picklable."""

    def run(self, shard: Any) -> "Int64Array":
        """Work on what `Algorithm.hold` made. Returns int64, of a length that does not depend on the shard."""
        ...


class Rows(Protocol):
    """One party's rows, wherever they lie: steps are sent there, their vectors come back added up."""

    def start(self, step: Step) -> "PendingSum":
        """Begin a step on every shard; the result is the sum of the shards' vectors."""
        ...

    def add_up(self, step: Step) -> "Int64Array":
        """`start(step).result()`."""
        ...


class Features(Protocol):
    """The columns, agreed by all parties."""

    @property
    def names(self) -> Sequence[str]:
        """Their names, in order."""
        ...

    @property
    def types(self) -> Sequence[str]:
        """XGBoost's letters: c a category, i a boolean, int and float (or q) numbers. Empty: numbers throughout."""
        ...

    @property
    def categories(self) -> Sequence[int]:
        """For a categorical column how many codes it has (0 … n-1), else 0; empty if there is no such column."""
        ...


@dataclass(frozen=True)
class Round:
    """How a training stands after a round.

    round: from 1. rounds: the most there will be. scores: {row set: {metric: score}} over all parties, own_scores
    the same over this party's rows alone. seconds: since the training began. traffic: of this party's sums.
    """

    round: int
    rounds: int
    scores: Mapping[str, Mapping[str, float]]
    own_scores: Mapping[str, Mapping[str, float]]
    seconds: float
    traffic: "Traffic"


@dataclass(frozen=True)
class Trained:
    """What a training gives back; the same at every party but for `own_history`.

    model: the model file. rounds: how many were run. history: {row set: {metric: [score a round]}} over all parties,
    own_history over this party's rows. notes: what a user should know, a sentence each, such as that the training
    ended before it converged.
    """

    model: bytes
    rounds: int
    history: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    own_history: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@runtime_checkable
class Algorithm(Protocol):
    """Trains one model on the rows of several parties."""

    @property
    def name(self) -> str:
        """What a spec calls it; equal to the entry point's name."""
        ...

    @property
    def kind(self) -> str:
        """What its model files are, such as `xgboost` or `linear`; a tag in the registry."""
        ...

    @property
    def parameters(self) -> type[SpecModel]:
        """The model of what a spec may say under `training`, `label` and `rounds` and `algorithm` aside."""
        ...

    def hold(self, sets: Mapping[str, RowSet]) -> Any:
        """Make the shard that steps run on from the named sets of rows that lie in one place."""
        ...

    def train(
        self,
        parameters: Any,
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
        """Train; every party calls this with the same arguments and its own rows.

        parameters: an instance of `parameters`. train, evaluation: names of sets. on_round: told after every round,
        may raise to stop. warm_start: a model file of this algorithm to go on from. Raises UserError for what the
        algorithm cannot take, at every party alike.
        """
        ...

    def columns(self, model: bytes) -> Sequence[str]:
        """Return the names of the columns that a model file takes, in order."""
        ...

    def predict(self, model: bytes, features: "FloatArray") -> "NDArray[np.float64]":
        """Predictions of a model file: (rows,) values or probabilities of class 1, or (rows, classes)."""
        ...

    def log_model(self, model: bytes, **arguments: Any) -> Any:
        """Log a model file in the active MLflow run so that a stock model server answers with it, and no code of ours.

        arguments: `name`, `signature`, `input_example`, `metadata` and the like, as every `log_model` of MLflow takes.
        Returns MLflow's ModelInfo.
        """
        ...


_MEMBERS = ("name", "kind", "parameters", "hold", "train", "columns", "predict", "log_model")


def algorithm_names() -> list[str]:
    """Return the names of the algorithms that are installed here, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find_algorithm(name: str) -> Algorithm:
    """Return the installed algorithm of this name.

    Raises UserError if none or several distributions bring it, or if what they bring cannot be imported or is no
    algorithm.
    """
    return _load(algorithm_point(name))


def algorithm_point(name: str) -> EntryPoint:
    """Return the entry point of an installed algorithm, not imported. Raises UserError if none or several bring it."""
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        known = algorithm_names()
        raise UserError(
            f"algorithm {name} is not installed here.{did_you_mean(name, known)} Installed are: {', '.join(known)}. "
            f"Install the distribution that brings it (entry point group {GROUP})."
        )
    brought = {(_distribution(point), point.value): point for point in points}
    if len(brought) > 1:
        told = ", ".join(sorted(f"{distribution} ({value})" for distribution, value in brought))
        raise UserError(f"algorithm {name} is brought by {len(brought)} distributions: {told}. Uninstall all but one.")
    return next(iter(brought.values()))


@lru_cache
def _load(point: EntryPoint) -> Algorithm:
    try:
        algorithm = point.load()
    except Exception as error:
        raise UserError(
            f"algorithm {point.name} of {_distribution(point)} cannot be imported from {point.value}: "
            f"{type(error).__name__}: {error}. Install it anew, or without it take another algorithm."
        ) from error
    if isinstance(algorithm, type):
        algorithm = algorithm()
    missing = [member for member in _MEMBERS if not hasattr(algorithm, member)]
    if missing:
        raise UserError(
            f"algorithm {point.name} of {_distribution(point)}: {point.value} has no {', '.join(missing)}. "
            "It must be as lepton_pipelines.spec.algorithm.Algorithm says; see docs/algorithms.md."
        )
    if algorithm.name != point.name:
        raise UserError(
            f"algorithm {point.name} of {_distribution(point)}: {point.value} calls itself {algorithm.name}. "
            "Give both the same name."
        )
    found: Algorithm = algorithm
    return found


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"
