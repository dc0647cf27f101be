"""How far a training has come: what it reports, what it keeps to go on from, and when it stops."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.sums import Traffic

Scores = dict[str, dict[str, float]]
History = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class RoundReport:
    """One finished round.

    round: from 0 on; of rounds. scores: by set and metric, over all parties. own_scores: the same of this party's
    rows alone. seconds: since training began. traffic: this party's sums so far.
    """

    round: int
    rounds: int
    scores: Scores
    own_scores: Scores
    seconds: float
    traffic: Traffic


@runtime_checkable
class Callback(Protocol):
    """Told after each round; may raise to stop the training."""

    def on_round(self, report: RoundReport) -> None:
        """Take note of a finished round."""
        ...


@runtime_checkable
class LearningRateSchedule(Protocol):
    """A callback that sets the learning rate of each round."""

    def learning_rate(self, round: int) -> float:
        """Return the rate of a round, counted from 0."""
        ...


@dataclass(frozen=True)
class Progress:
    """A training so far: enough to go on as if it had never stopped.

    model: an XGBoost model file (UBJSON). binning: the agreed edges. history, own_history: scores so far, by set and
    metric, of all parties' rows and of this party's alone.
    """

    model: bytes
    binning: Binning
    history: History = field(default_factory=dict)
    own_history: History = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Encode for a checkpoint."""
        file = io.BytesIO()
        np.savez(
            file,
            allow_pickle=False,
            model=np.frombuffer(self.model, np.uint8),
            history=np.frombuffer(json.dumps([self.history, self.own_history]).encode(), np.uint8),
            **binning_arrays(self.binning),
        )
        return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> "Progress":
        """Decode a checkpoint; what it holds was written by `to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            history, own_history = json.loads(file["history"].tobytes())
            return Progress(file["model"].tobytes(), binning_of(file), history, own_history)


def binning_arrays(binning: Binning) -> dict[str, NDArray[Any]]:
    """Return a binning as named arrays, for NumPy's files."""
    edges = {f"edges{f}": edges for f, edges in enumerate(binning.edges)}
    return {"categorical": binning.categorical, "missing": binning.missing, **edges}


def binning_of(arrays: Mapping[str, NDArray[Any]]) -> Binning:
    """Return the binning that `binning_arrays` made arrays of."""
    categorical = arrays["categorical"]
    return Binning([arrays[f"edges{f}"] for f in range(len(categorical))], categorical, arrays["missing"])


class EarlyStopping:
    """Stops when the last metric of the last set has not become better for some rounds.

    best_iteration, best_score: the first best round so far, from 0 on; None before any.
    """

    def __init__(self, patience: int, *, maximise: bool) -> None:
        self._patience, self._maximise = patience, maximise
        self._rounds = 0
        self.best_iteration: int | None = None
        self.best_score: float | None = None

    def note(self, score: float) -> None:
        """Take the next round's score."""
        best = self.best_score
        if best is None or (score > best if self._maximise else score < best):
            self.best_iteration, self.best_score = self._rounds, score
        self._rounds += 1

    @property
    def done(self) -> bool:
        """Tell whether the training should stop."""
        return self.best_iteration is not None and self._rounds - 1 - self.best_iteration >= self._patience


def record(history: History, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Add a round's scores to a history."""
    for name, values in scores.items():
        for metric, value in values.items():
            history.setdefault(name, {}).setdefault(metric, []).append(value)


def last_scores(history: History, evaluation: Sequence[str]) -> list[float]:
    """Return every round's score that decides early stopping: the last metric of the last set."""
    return list(history[evaluation[-1]].values())[-1] if history else []
