"""What a training asks of the rows, shard by shard.

Each step is a small picklable object; `run(shard)` does the work where the rows are and returns an int64 vector
that adds up over shards and then, through `Sums`, over parties. A training runs, in this order:

- the steps of `edges` as often as the search for bin edges needs, then `BinRows` once;
- the base score's steps;
- `StartTraining` once, which returns what the first gradients need (see `prepare_round`);
- for every tree `StartTree` (root histogram; `GoOnWithTree` if that is known), `GrowNodes` once a level (rows follow
  the splits, the smaller children are counted), `FinishTree` (leaves are added to the margins);
- after every round `FinishRound`: metric vectors, what the next gradients need and, counted ahead, the next tree's
  root, in one vector.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.growing_tree import Splits
from lepton_pipelines.boosting.metrics import metrics_of
from lepton_pipelines.boosting.nodes import RowNodes, number_rows
from lepton_pipelines.boosting.objectives import objective_of
from lepton_pipelines.boosting.quantisation import EXPONENTS, count_exponents, read_exponents
from lepton_pipelines.boosting.rows import NOTHING
from lepton_pipelines.boosting.sampling import draw_rows
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.tree import Tree
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array

Int32Array = NDArray[np.int32]


@dataclass(frozen=True)
class BinRows:
    """Turn sets into codes; the first is trained on."""

    binning: Binning
    schema: FeatureSchema
    train: str
    evaluation: tuple[str, ...] = ()

    def run(self, shard: Shard) -> Int64Array:
        """Bin; nothing to add up. Raises UserError for values that the edges were not agreed for."""
        for name in dict.fromkeys((self.train, *self.evaluation)):
            shard.encode(name, self.binning, self.schema, trained_on=name == self.train)
        return NOTHING


def prepare_round(shard: Shard) -> Int64Array:
    """Return what the next round's gradients need from everybody.

    Mostly that is only the power of two that bounds them: they are computed here and their exponents returned. An
    objective that needs a statistic first gets it summed, and `ComputeGradients` follows.
    """
    state = shard.rounds
    if state.objective.needs_statistic:
        return state.objective.statistic(shard.label(state.name), shard.weight(state.name), shard.margins[state.name])
    return _exponents(shard, state.objective.constants)


def _exponents(shard: Shard, constants: NDArray[np.float64]) -> Int64Array:
    gradient, hessian = map(float, shard.compute_gradients(constants))
    if not (math.isfinite(gradient) and math.isfinite(hessian)):
        raise UserError(
            f"{shard.rounds.objective.name}: gradients became infinite or undefined. Lower learning_rate, set "
            "max_delta_step, or look for labels and weights that are too large."
        )
    return count_exponents(gradient, hessian)


@dataclass(frozen=True)
class StartTraining:
    """Set the margins to where boosting starts and make room for gradients.

    base: float32, one an output, the margin that rows without one of their own begin with.
    trees: of the model that is continued; empty for a new one.
    """

    parameters: BoosterParameters
    binning: Binning
    train: str
    evaluation: tuple[str, ...]
    base: NDArray[np.float32]
    trees: Sequence[Tree] = ()

    def run(self, shard: Shard) -> Int64Array:
        """Start; returns the vector of `prepare_round`."""
        objective = objective_of(self.parameters, shard.custom_objective)
        for name in dict.fromkeys((self.train, *self.evaluation)):
            shard.start_margins(name, self.base, self.binning, self.trees)
        shard.start_rounds(self.train, objective, self.binning)
        return prepare_round(shard)


@dataclass(frozen=True)
class ComputeGradients:
    """Compute the round's gradients after its statistic was summed.

    total: int64, the objective's statistic over everybody. ahead: the tree that follows, to count its root as well.
    """

    total: Int64Array
    ahead: "StartTree | None" = None

    def run(self, shard: Shard) -> Int64Array:
        """Compute; returns the exponents of the largest gradient and hessian, and the root's histogram if asked for."""
        constants = shard.rounds.objective.constants_after(self.total)
        exponents = _exponents(shard, constants)
        return exponents if self.ahead is None else np.concatenate([exponents, self.ahead.run(shard)])


@dataclass(frozen=True)
class StartTree:
    """Begin a tree: choose its rows and count the root.

    class_index: the output that it is grown for. scales: the integers that stand for a gradient and a hessian of
    1.0. subsample, seed, tree_number: which rows are drawn.
    """

    class_index: int
    scales: tuple[float, float]
    subsample: float
    seed: int
    tree_number: int

    def run(self, shard: Shard) -> Int64Array:
        """Begin; returns the root's histogram, int64, 2 * cells."""
        self.choose_rows(shard)
        state = shard.rounds
        state.nodes = RowNodes(state.binning, state.lookup, state.chosen, state.scratch, shard.pool)
        return state.nodes.count_root(state.integers(self.class_index))

    def choose_rows(self, shard: Shard) -> None:
        """Turn gradients into integers, and draw the rows that the tree is grown from."""
        shard.quantise(self.scales)
        state = shard.rounds
        count = shard.sets[state.name].n_rows
        if self.subsample < 1.0:
            row_id = shard.sets[state.name].row_id
            if row_id is None:
                row_id = np.arange(count, dtype=np.uint64)
            others = np.empty(count + 1, np.int32)
            state.drawn = draw_rows(
                row_id,
                seed=self.seed,
                tree=self.tree_number,
                fraction=self.subsample,
                drawn=state.rows,
                others=others,
            )
            state.others = others[: count - state.drawn]
        else:
            state.drawn, state.others = count, None
            number_rows(state.rows[:count])


@dataclass(frozen=True)
class GoOnWithTree:
    """Begin a tree whose root was counted ahead, if the rows know nothing of that: they were rebuilt since."""

    start: StartTree

    def run(self, shard: Shard) -> Int64Array:
        """Begin it where it was not; nothing to add up."""
        if shard.rounds.nodes is None:
            self.start.run(shard)
        return NOTHING


@dataclass(frozen=True)
class GrowNodes:
    """Let rows follow splits and count the histogram of one child of each.

    class_index: as in `StartTree`. count: int32, for each split the child to count.
    """

    class_index: int
    splits: Splits
    count: Int32Array

    def run(self, shard: Shard) -> Int64Array:
        """Split and count; returns int64, nodes * 2 * cells."""
        state = shard.rounds
        return state.growing.split(self.splits, self.count, state.integers(self.class_index)).ravel()


@dataclass(frozen=True)
class FinishTree:
    """Add a finished tree to the margins of all sets.

    last: the splits that the rows of the set trained on have not followed. places: int32, by node of the tree, the
    number under which its rows were divided.
    """

    tree: Tree
    last: Splits
    places: Int32Array
    evaluation: tuple[str, ...]

    def run(self, shard: Shard) -> Int64Array:
        """Add; nothing to add up."""
        state = shard.rounds
        margin = shard.margins[state.name][self.tree.class_index]
        state.growing.add_leaves(self.tree, self.last, self.places, margin)
        add_to_others(shard, self.tree, self.evaluation)
        return NOTHING


def add_to_others(shard: Shard, tree: Tree, evaluation: Sequence[str]) -> None:
    """Add a finished tree to the margins of rows that it was not grown from, and forget where its own rows were."""
    state = shard.rounds
    if state.others is not None and len(state.others):
        shard.add_tree(state.name, tree, state.binning, rows=state.others)
    for name in evaluation:
        if name != state.name:
            shard.add_tree(name, tree, state.binning)
    state.nodes = state.others = None


@dataclass(frozen=True)
class FinishRound:
    """Score the sets after a round, and prepare the next.

    evaluation: the sets, each scored by all metrics that the parameters ask for. prepare: whether another round
    follows. ahead: its first tree, to count the root as well, under scales that may turn out to be others.
    """

    parameters: BoosterParameters
    evaluation: tuple[str, ...]
    weight_exponent: int | None
    prepare: bool
    ahead: StartTree | None = None

    def run(self, shard: Shard) -> Int64Array:
        """Score; returns the metrics' vectors, set by set, that of `prepare_round`, then the root's histogram."""
        objective = shard.rounds.objective
        vectors = []
        metrics = (
            metrics_of(self.parameters, objective, weight_exponent=self.weight_exponent) if self.evaluation else ()
        )
        for name in self.evaluation:
            prediction = objective.predictions(shard.margins[name])
            label, weight = shard.label(name), shard.weight(name)
            vectors += [metric.measure(label, weight, prediction) for metric in metrics]
            if shard.custom_metric is not None:
                seen = shard.margins[name] if objective.custom is not None else prediction
                vectors.append(shard.custom_metric.measure_custom(shard.given(name), seen))
        if self.prepare:
            vectors.append(prepare_round(shard))
        if self.ahead is not None:
            vectors.append(self.ahead.run(shard))
        return np.concatenate(vectors) if vectors else NOTHING


@dataclass(frozen=True)
class CountRows:
    """Count rows and look at weights; refuse labels that cannot be trained on."""

    parameters: BoosterParameters
    sets: tuple[str, ...]

    def run(self, shard: Shard) -> Int64Array:
        """Count.

        Returns int64: rows, one a set; then the exponent of the largest weight of all, counted, if there are any.
        Raises UserError for labels outside the objective's domain.
        """
        objective = objective_of(self.parameters, shard.custom_objective)
        for name in self.sets:
            objective.check_labels(shard.label(name), where=name)
        largest = max((float(shard.weight(name).max(initial=0)) for name in self.sets), default=0.0)
        weighted = any(len(shard.weight(name)) for name in self.sets)
        exponents = count_exponents(max(largest, 1.0) if weighted else 0.0, 0.0)[:EXPONENTS]
        return np.concatenate([[shard.sets[name].n_rows for name in self.sets], exponents])


def read_counts(total: Int64Array, sets: int) -> tuple[list[int], int | None]:
    """Return the rows of each set, and the exponent that is above all weights, from the total of `CountRows`.

    None if no party has weights: rows without one, where others have them, count 1.
    """
    exponents = total[sets:]
    return total[:sets].tolist(), read_exponents(np.concatenate([exponents, exponents]))[0] if exponents.any() else None
