"""A training from beginning to end: what is asked of the rows, in which order, and what is made of the totals.

The driver sees no rows. It sends steps to where they are, hands the totals to the tree grower, and keeps the model.
Every party runs the same driver over its own rows; because totals are the same everywhere, so are the models.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.base_score import estimate_base_score, margins_of
from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.categorical import CategoricalRule
from lepton_pipelines.boosting.collective import Collective
from lepton_pipelines.boosting.compiled import announce
from lepton_pipelines.boosting.constraints import interaction_groups, monotone_directions
from lepton_pipelines.boosting.edges import SMALLEST_BIN, EdgeSearch, find_edges, given_edges
from lepton_pipelines.boosting.exact_sum import BOUND as EXACT_SUM_BOUND
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.gain import Regularisation
from lepton_pipelines.boosting.grower import Grower, closed
from lepton_pipelines.boosting.histogram import Histograms
from lepton_pipelines.boosting.metrics import CustomMetric, Metric, metrics_of
from lepton_pipelines.boosting.model_file import model_of, read_model, write_model
from lepton_pipelines.boosting.objectives import CustomFunction, max_delta_step, objective_of
from lepton_pipelines.boosting.pool import Pool, threads_of
from lepton_pipelines.boosting.progress import (
    Callback,
    EarlyStopping,
    History,
    LearningRateSchedule,
    Progress,
    RoundReport,
    Scores,
    last_scores,
    record,
)
from lepton_pipelines.boosting.quantisation import BITS, EXPONENTS, read_exponents, scale_of
from lepton_pipelines.boosting.rows import Rows, Step
from lepton_pipelines.boosting.sampling import ColumnSampler
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.steps import (
    BinRows,
    ComputeGradients,
    CountRows,
    FinishRound,
    FinishTree,
    GoOnWithTree,
    GrowNodes,
    StartTraining,
    StartTree,
    add_to_others,
    read_counts,
)
from lepton_pipelines.boosting.tree import Tree
from lepton_pipelines.boosting.tree_rules import GrowthLimits, TreeRules
from lepton_pipelines.boosting.whole_tree import WholeTrees, grows_whole
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.sums import Int64Array, Sums, Traffic

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Boosted:
    """A finished training.

    model: an XGBoost model file (UBJSON). binning: the edges that were agreed. history: scores over all parties by
    set, metric and round; own_history: the same of this party's rows alone. best_iteration, best_score: of early
    stopping, counted from 0; None without. rounds: of the model, those it was continued from included.
    """

    model: bytes
    binning: Binning
    history: History
    own_history: History
    best_iteration: int | None
    best_score: float | None
    rounds: int
    seconds: float
    traffic: Traffic

    @property
    def edges(self) -> list[Float32Array]:
        """For each column float32, ascending, the upper ends of its bins."""
        return list(self.binning.edges)

    @property
    def progress(self) -> Progress:
        """What a training needs to go on from here."""
        return Progress(self.model, self.binning, self.history, self.own_history)


@dataclass(frozen=True)
class OwnFunctions:
    """The user's own functions; they run in this process only. maximise: whether more of the last metric is better."""

    objective: CustomFunction | None = None
    metric: CustomMetric | None = None
    maximise: bool | None = None


def boost(
    parameters: BoosterParameters,
    rows: Rows,
    *,
    sums: Sums,
    rounds: int,
    features: FeatureSchema,
    train: str = "train",
    evaluation: Sequence[str] = (),
    early_stopping_rounds: int | None = None,
    edges: Sequence[Float32Array] | Binning | None = None,
    callbacks: Sequence[object] = (),
    warm_start: bytes | None = None,
    resume: Progress | None = None,
    checkpoint: Callable[[Progress], None] | None = None,
    checkpoint_every: int = 1,
    smallest_bin: int | None = None,
    own: OwnFunctions | None = None,
    pad_levels: bool = False,
    name: str = "boosting",
) -> Boosted:
    """Train a model on one party's rows and everybody else's.

    rows: this party's rows; their shards hold the sets `train` and `evaluation` name. sums: joins them to the other
    parties'. rounds: how many to add to the model that is continued, or with `resume` how many there are in all.
    edges: for each column float32, ascending, the upper ends of its bins, or a binning that all parties have agreed
    on; found through `sums` if not given. callbacks: see `Callback` and `LearningRateSchedule`. warm_start: any XGBoost
    model file, continued by more trees. resume: goes on with a training that was interrupted, as if it had not been.
    checkpoint: given the progress after every `checkpoint_every` rounds. smallest_bin: rows of the total that a bin
    holds at least; by default 20 where sums cross organisations, else 1. pad_levels: every tree has as many sums, of
    the same lengths, as the largest that its depth allows: who carries them sees nothing of it. name: begins the name
    of every sum; each training of a run has its own.
    Raises UserError for parameters, rows or edges that cannot be trained with; SumAborted if another party stopped.
    """
    _check_callbacks(callbacks)
    training = _Training(
        parameters,
        Collective(rows, sums, name),
        features,
        train,
        tuple(evaluation),
        own or OwnFunctions(),
        pad_levels=pad_levels,
    )
    training.count_rows()
    if resume is not None:
        training.binning = resume.binning
    elif isinstance(edges, Binning):
        training.binning = edges
    elif edges is not None:
        training.binning = given_edges(training.rows, train, features, edges, training.row_count)
    else:
        smallest = smallest_bin or (SMALLEST_BIN if sums.parties > 1 else 1)
        search = EdgeSearch(parameters.max_bin, smallest, training.row_count, training.weight_exponent)
        training.binning = find_edges(training.rows, train, features, search)
    before = resume.model if resume is not None else warm_start
    training.start(before)
    if resume is not None:
        training.history, training.own_history = _copied(resume.history), _copied(resume.own_history)
    return training.run(
        first=training.rounds_before if resume is not None else 0,
        rounds=rounds,
        stopping=training.stopping(early_stopping_rounds),
        callbacks=callbacks,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        traffic=sums.traffic,
    )


class _Training:
    """The state of one training at one party."""

    def __init__(
        self,
        parameters: BoosterParameters,
        rows: Collective,
        features: FeatureSchema,
        train: str,
        evaluation: tuple[str, ...],
        own: OwnFunctions,
        *,
        pad_levels: bool,
    ) -> None:
        self.parameters, self.rows, self.features = parameters, rows, features
        self.pad_levels = pad_levels
        if pad_levels and (parameters.grow_policy == "lossguide" or not parameters.max_depth):
            raise UserError("pad_levels needs grow_policy depthwise and a max_depth: else a tree has no largest size.")
        self.train, self.evaluation, self.own = train, evaluation, own
        self.objective = objective_of(parameters, own.objective)
        self.trees: list[Tree] = []
        self.history: History = {}
        self.own_history: History = {}
        self.rounds_before = 0
        self.binning: Binning
        self._whole_trees: WholeTrees | None = None
        self._statistic: Int64Array | None = None
        self._scales: tuple[float, float] | None = None
        self._root: Int64Array | None = None  # of the next tree, if it was counted ahead
        self._pool = Pool(threads_of(parameters.nthread))
        self._began = time.perf_counter()
        self._digest = hashlib.sha256()

    def count_rows(self) -> None:
        """Find out how many rows there are and whether they are weighted."""
        announce()
        sets = (self.train, *self.evaluation)
        total = self.rows.sum(CountRows(self.parameters, sets), "rows", bound=1 << 40)
        counts, self.weight_exponent = read_counts(total, len(sets))
        self.row_count = counts[0]
        if self.row_count == 0:
            raise UserError(f"{self.train}: there are no rows at any organisation. Check the source and the split.")
        self.metrics: list[Metric | CustomMetric] = []
        if self.evaluation:
            self.metrics += metrics_of(self.parameters, self.objective, weight_exponent=self.weight_exponent)
            self.metrics += [self.own.metric] if self.own.metric is not None else []

    def start(self, before: bytes | None) -> None:
        """Bin the rows, set their margins to where boosting starts and ask for the first gradients."""
        outputs = self.objective.outputs
        self.rows.run(BinRows(self.binning, self.features, self.train, self.evaluation))
        self._histograms = Histograms(self.binning.cells)
        self._digest.update(self.binning.digest)
        if before is not None:
            model = read_model(before)
            self._check_continues(model.outputs, model.n_features)
            self.base_score: Sequence[float] = model.base_score
            self.trees = list(model.trees)
            self.rounds_before = len(model.rounds) - 1
        else:
            self.base_score = estimate_base_score(self.rows, self.parameters, self.objective, self.train)
        base = margins_of(self.base_score, self.parameters, outputs)
        start = StartTraining(self.parameters, self.binning, self.train, self.evaluation, base, tuple(self.trees))
        for tree in self.trees:
            self._note(tree)
        self._take_prepared(self._sum(start, "start"), None)

    def _check_continues(self, outputs: int, features: int) -> None:
        if outputs != self.objective.outputs or features != self.features.count:
            raise UserError(
                f"xgb_model: the model that is continued has {outputs} outputs and {features} columns, this training "
                f"{self.objective.outputs} and {self.features.count}. Continue with the same classes and columns."
            )

    def stopping(self, patience: int | None) -> EarlyStopping | None:
        """Return the rule for early stopping, brought up to date with the rounds before."""
        if patience is None:
            return None
        if not self.metrics:
            raise UserError("early_stopping_rounds: needs a set to evaluate and a metric. Give evals.")
        maximise = self.own.maximise if self.own.maximise is not None else self.metrics[-1].maximise
        rule = EarlyStopping(patience, maximise=maximise)
        for score in last_scores(self.history, self.evaluation):
            rule.note(score)
        return rule

    def run(
        self,
        *,
        first: int,
        rounds: int,
        stopping: EarlyStopping | None,
        callbacks: Sequence[object],
        checkpoint: Callable[[Progress], None] | None,
        checkpoint_every: int,
        traffic: Traffic,
    ) -> Boosted:
        """Boost from round `first` up to `rounds`, unless it stops early."""
        self.rows.let_members_change()
        round_ = first
        while round_ < rounds and not (stopping and stopping.done):
            last = round_ + 1 == rounds
            self._grow_round(round_, _rate(callbacks, round_, self.parameters.learning_rate))
            scores, own_scores = self._score(round_, last=last)
            record(self.history, scores)
            record(self.own_history, own_scores)
            if stopping is not None:
                stopping.note(last_scores(self.history, self.evaluation)[-1])
            if checkpoint is not None and ((round_ + 1) % checkpoint_every == 0 or last):
                checkpoint(Progress(self._model(), self.binning, _copied(self.history), _copied(self.own_history)))
            seconds = time.perf_counter() - self._began
            report = RoundReport(round_, rounds, scores, own_scores, seconds, replace(traffic))
            for callback in callbacks:
                if isinstance(callback, Callback):
                    callback.on_round(report)
            round_ += 1
        return Boosted(
            self._model(stopping),
            self.binning,
            self.history,
            self.own_history,
            stopping.best_iteration if stopping else None,
            stopping.best_score if stopping else None,
            len(self.trees) // self._trees_a_round,
            time.perf_counter() - self._began,
            replace(traffic),
        )

    @property
    def _trees_a_round(self) -> int:
        return self.objective.outputs * self.parameters.num_parallel_tree

    def _grow_round(self, round_: int, learning_rate: float) -> None:
        parameters = self.parameters
        if self._statistic is not None:
            ahead = self._ahead()
            step = ComputeGradients(self._statistic, ahead)
            bound = self.row_count << BITS if ahead else self.row_count
            self._take_scales(self._sum(step, f"round {round_}/gradients", bound=bound), ahead)
        share = np.float32(learning_rate) / np.float32(parameters.num_parallel_tree)
        rules = self._rules(float(share))
        shard = self.rows.only_shard if grows_whole(rules) else None
        grower = Grower(rules, self._pool, self._histograms)
        for output in range(self.objective.outputs):
            for parallel in range(parameters.num_parallel_tree):
                start = self._next_tree(output)
                if shard is not None:
                    tree = self._grow_whole(shard, rules, start)
                else:
                    tree = self._grow_by_sums(grower, start, f"round {round_}/tree {output}.{parallel}")
                self.trees.append(tree)
                self._note(tree)

    def _next_tree(self, output: int) -> StartTree:
        if self._scales is None:
            raise RuntimeError("a tree is begun before its gradients' scales are agreed")
        return StartTree(output, self._scales, self.parameters.subsample, self.parameters.seed, len(self.trees))

    def _ahead(self) -> StartTree | None:
        """Return the next round's first tree if its root is to be counted before its scales are known.

        They are seldom others than those of the round before, and then a round has one sum less; else it is counted
        again. Not where whoever carries the sums is to see nothing of a tree, where other members could make the second
        sum than made the first, where a user's own objective would be asked twice, nor where a sum costs nothing.
        """
        wanted = self._scales is not None and self.own.objective is None and not self.pad_levels
        if not wanted or self.rows.members_may_change or self.rows.only_shard is not None:
            return None
        return self._next_tree(0)

    def _take_prepared(self, total: Int64Array, ahead: StartTree | None) -> None:
        """Keep what the next gradients need of everybody: a statistic, or the scales."""
        if self.objective.needs_statistic:
            self._statistic = total
        else:
            self._take_scales(total, ahead)

    def _take_scales(self, total: Int64Array, ahead: StartTree | None) -> None:
        """Read the scales that all parties agree on, and keep a root that was counted under the same ones."""
        gradient, hessian = read_exponents(total[: 2 * EXPONENTS])
        self._scales = scale_of(gradient), scale_of(hessian)
        self._root = total[2 * EXPONENTS :] if ahead is not None and ahead.scales == self._scales else None

    def _grow_whole(self, shard: Shard, rules: TreeRules, start: StartTree) -> Tree:
        """Grow a tree from the rows of one shard, which are all there are."""
        if self._whole_trees is None:
            self._whole_trees = WholeTrees(shard, rules)
        start.choose_rows(shard)
        tree = self._whole_trees.grow(rules, start.scales, start.tree_number, start.class_index)
        add_to_others(shard, tree, self.evaluation)
        return tree

    def _grow_by_sums(self, grower: Grower, start: StartTree, name: str) -> Tree:
        """Grow a tree level by level, from sums over all shards and parties."""
        number, output, scales = start.tree_number, start.class_index, start.scales
        cells, bound, levels = 2 * self.binning.cells, self.row_count << BITS, self.parameters.max_depth
        growth = grower.grow(scales=scales, tree_number=number, class_index=output)
        next(growth)
        if self._root is None:
            total = self._sum(start, f"{name}/0", bound=bound)
        else:
            total, self._root = self._root, None
            self.rows.run(GoOnWithTree(start))
        level = 0
        while True:
            try:
                request = growth.send(total.reshape(-1, cells))
            except StopIteration as end:
                grown = end.value
                break
            if self.rows.members_change:
                grown = closed(growth)
                break
            level += 1
            step = GrowNodes(output, request.splits, request.count)
            padded = _most_counted(level) * cells if self.pad_levels else 0
            total = self._sum(step, f"{name}/{level}", bound=bound, context=request.splits.digest, padded=padded)
        for unused in range(level + 1, levels if self.pad_levels else 0):
            self.rows.sum_nothing(f"{name}/{unused}", _most_counted(unused) * cells, bound=bound)
        self.rows.run(FinishTree(grown.tree, grown.last, grown.places, self.evaluation))
        tree: Tree = grown.tree
        return tree

    def _score(self, round_: int, *, last: bool) -> tuple[Scores, Scores]:
        """Score all sets after a round; what the next gradients and tree need comes along in the same sum."""
        ahead = None if last or self.objective.needs_statistic else self._ahead()
        step = FinishRound(self.parameters, self.evaluation, self.weight_exponent, prepare=not last, ahead=ahead)
        lengths = [metric.length for metric in self.metrics] * len(self.evaluation)
        if last and not lengths:
            return {}, {}
        bound = max([1 << 40, *(metric.bound for metric in self.metrics)])
        if self.objective.needs_statistic:
            bound = max(bound, EXACT_SUM_BOUND)
        if ahead is not None:
            bound = max(bound, self.row_count << BITS)
        total = self._sum(step, f"round {round_}/scores", bound=bound)
        if not last:
            self._take_prepared(total[sum(lengths) :], ahead)
        own = self.rows.own if self.rows.own is not None else total
        return self._read(total, lengths), self._read(own, lengths)

    def _read(self, vector: Int64Array, lengths: Sequence[int]) -> Scores:
        parts = iter(np.split(vector, np.cumsum(lengths)))
        return {
            name: {metric.name: float(metric.read(next(parts))) for metric in self.metrics} for name in self.evaluation
        }

    def _rules(self, learning_rate: float) -> TreeRules:
        parameters = self.parameters
        columns = ColumnSampler(
            parameters.seed,
            self.features.count,
            parameters.colsample_bytree,
            parameters.colsample_bylevel,
            parameters.colsample_bynode,
        )
        return TreeRules(
            self.binning,
            Regularisation.rounded(
                reg_lambda=parameters.reg_lambda,
                reg_alpha=parameters.reg_alpha,
                min_child_weight=parameters.min_child_weight,
                max_delta_step=max_delta_step(parameters),
                min_split_loss=parameters.gamma,
            ),
            CategoricalRule(parameters.max_cat_to_onehot, parameters.max_cat_threshold),
            GrowthLimits(parameters.max_depth, parameters.max_leaves, parameters.grow_policy == "lossguide"),
            learning_rate,
            monotone_directions(parameters.monotone_constraints, self.features),
            interaction_groups(parameters.interaction_constraints, self.features),
            columns,
        )

    def _model(self, stopping: EarlyStopping | None = None) -> bytes:
        attributes = {}
        if stopping is not None and stopping.best_iteration is not None:
            attributes = {"best_iteration": str(stopping.best_iteration), "best_score": repr(stopping.best_score)}
        return write_model(
            model_of(
                self.parameters,
                self.trees,
                self.base_score,
                n_features=self.features.count,
                feature_names=self.features.names,
                feature_types=self.features.types,
                category_names=self.features.category_names,
                attributes=attributes,
            )
        )

    def _sum(self, step: Step, name: str, *, bound: int = 1 << 62, context: bytes = b"", padded: int = 0) -> Int64Array:
        return self.rows.sum(step, name, bound=bound, context=(self._digest.digest(), context), padded=padded)

    def _note(self, tree: Tree) -> None:
        """Let the digest that all parties compare cover a tree."""
        for values in (tree.left, tree.feature, tree.threshold, tree.default_left):
            self._digest.update(values.tobytes())


def _most_counted(level: int) -> int:
    """How many nodes of a level are counted at most: the root, then the smaller child of every node above."""
    return 1 << max(level - 1, 0)


def _check_callbacks(callbacks: Sequence[object]) -> None:
    for callback in callbacks:
        if not isinstance(callback, Callback | LearningRateSchedule):
            raise UserError(
                f"callbacks: {type(callback).__name__} has neither on_round(report) nor learning_rate(round), and "
                "would be ignored. XGBoost's own callbacks need its own training loop: give early_stopping_rounds, "
                "evals_result or verbose_eval instead, or an object with one of the two."
            )


def _rate(callbacks: Sequence[object], round_: int, rate: float) -> float:
    for callback in callbacks:
        if isinstance(callback, LearningRateSchedule):
            rate = callback.learning_rate(round_)
    return rate


def _copied(history: History) -> History:
    return {name: {metric: list(values) for metric, values in scores.items()} for name, scores in history.items()}
