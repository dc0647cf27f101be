"""An organisation's part of a run with an algorithm other than the engine: the same rows, steps and sums.

What every installed algorithm can do (`spec.algorithm.Algorithm`) is less than what the engine can: there are no
edges to agree on, no checkpoints and no early stopping. The rest of a run (checking, splitting, evaluating,
registering) does not know the difference.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lepton_pipelines.organisation import progress
from lepton_pipelines.organisation.rows import EncodedRows, RowsRead
from lepton_pipelines.spec.algorithm import Algorithm, Round, Step, Trained, find_algorithm
from lepton_pipelines.spec.algorithm_code import code_refusals
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Policy
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.spec.training import XGBOOST, AlgorithmTraining
from lepton_pipelines.sums import Int64Array, LocalSums, PendingSum

if TYPE_CHECKING:
    from lepton_pipelines.compute.pinned import PinnedRows
    from lepton_pipelines.data.encoding import Encoded
    from lepton_pipelines.organisation.run import OrganisationRun


def uses_engine(pipeline: Pipeline) -> bool:
    """Tell whether a pipeline trains with the engine."""
    return pipeline.training.algorithm == XGBOOST


def model_file(pipeline: Pipeline) -> str:
    """Return the name of the model's file in a run's folder."""
    return "model.ubj" if uses_engine(pipeline) else f"model.{pipeline.training.algorithm}"


@dataclass(frozen=True)
class Held:
    """What a worker holds for an algorithm: encoded rows by set, and what the algorithm made of them."""

    sets: Mapping[str, EncodedRows]
    shard: Any


@dataclass(frozen=True)
class ToHeld:
    """Changes what a worker has read into what an algorithm's steps run on.

    algorithm: its name. policy: the organisation's, held against what is installed where the worker runs.
    """

    algorithm: str
    policy: Policy

    def __call__(self, read: RowsRead) -> Held:
        """Let the algorithm make its shard; the encoded rows are not copied. Raises UserError for code not allowed."""
        if problems := code_refusals(self.policy, self.algorithm):
            raise UserError([f"a Dask worker on {platform.node()}: {each}." for each in problems])
        sets = {name: EncodedRows(rows) for name, rows in read.sets.items()}
        return Held(sets, find_algorithm(self.algorithm).hold(sets))


@dataclass(frozen=True)
class OnShard:
    """An algorithm's step, run on the algorithm's part of what a worker holds."""

    step: Step

    def run(self, held: Held) -> Int64Array:
        """Run the step."""
        return self.step.run(held.shard)


@dataclass(frozen=True)
class AlgorithmRows:
    """An organisation's rows as an algorithm sees them (`spec.algorithm.Rows`)."""

    rows: "PinnedRows"

    def start(self, step: Step) -> PendingSum:
        """Begin a step on every worker."""
        return self.rows.start(OnShard(step))

    def add_up(self, step: Step) -> Int64Array:
        """Run a step on every worker; return the sum of their vectors."""
        return self.rows.add_up(OnShard(step))


@dataclass(frozen=True)
class OneShard:
    """Rows in this process, for the models that a demo compares with."""

    shard: Any

    def start(self, step: Step) -> PendingSum:
        """Begin a step; it is done at once."""
        return LocalSums().start("step", self.add_up(step), bound=(1 << 63) - 1)

    def add_up(self, step: Step) -> Int64Array:
        """Run a step."""
        return step.run(self.shard)


def train(part: "OrganisationRun", *, champion: bytes | None) -> Trained:
    """Train in step with the other organisations. champion: the model to go on from, if any."""
    algorithm, training = _algorithm(part.pipeline)

    def told(round_: Round) -> None:
        progress.tell(
            part.folder.run_id,
            progress.RoundFinished(
                part.name,
                round_.round,
                round_.rounds,
                {name: dict(scores) for name, scores in round_.scores.items()},
                {name: dict(scores) for name, scores in round_.own_scores.items()}
                if part.organisation.policy.share_scores
                else {},
                round_.traffic.bytes_sent,
                round_.seconds,
            ),
        )

    trained = algorithm.train(
        training.parameters(),
        AlgorithmRows(part.rows),
        sums=part.sums,
        rounds=training.rounds,
        features=part.features,
        evaluation=[name for name in part.evaluation if name != "train"],
        on_round=told,
        warm_start=champion,
    )
    for note in trained.notes:
        progress.tell(part.folder.run_id, progress.Notice(part.name, note))
    return trained


def train_here(part: "OrganisationRun", rows: "Encoded") -> bytes:
    """Train on rows that lie in this process, with nobody else; return the model file. For a demo's comparison."""
    algorithm, training = _algorithm(part.pipeline)
    trained = algorithm.train(
        training.parameters(),
        OneShard(algorithm.hold({"train": EncodedRows(rows)})),
        sums=LocalSums(),
        rounds=training.rounds,
        features=part.features,
    )
    return trained.model


def columns_of(algorithm: str, model: bytes) -> Sequence[str]:
    """Return the columns that a model file takes."""
    return list(find_algorithm(algorithm).columns(model))


def _algorithm(pipeline: Pipeline) -> tuple[Algorithm, AlgorithmTraining]:
    training = pipeline.training
    if not isinstance(training, AlgorithmTraining):
        raise UserError(f"algorithm {training.algorithm} is the engine's. Train it with boosting.training.boost.")
    return find_algorithm(training.algorithm), training
