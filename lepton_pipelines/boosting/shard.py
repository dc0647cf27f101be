"""The rows of one place (a process, a Dask worker) during a training.

A shard holds named sets of rows, their codes once the edges are agreed, and the state that a training leaves
behind: margins, the round's gradients, and which row lies in which node of the tree under construction. Steps
(`steps.py`) read and change it; nothing but their integer vectors ever leaves it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning, Codes, encode
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.lookup import Lookup
from lepton_pipelines.boosting.metrics import CustomMetric
from lepton_pipelines.boosting.nodes import RowNodes
from lepton_pipelines.boosting.objectives import CustomFunction, Objective
from lepton_pipelines.boosting.pool import Pool, spans
from lepton_pipelines.boosting.quantisation import BITS, largest_pair, quantise
from lepton_pipelines.boosting.routing import ALL_ROWS, add_by_codes, add_by_values, on_edges
from lepton_pipelines.boosting.row_set import RowSet
from lepton_pipelines.boosting.tree import Tree

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int32Array = NDArray[np.int32]

_NO_WEIGHT = np.zeros(0, np.float32)
_SMALL = 1 << 16  # gradients up to which one thread computes alone
_BLOCK = 65_536  # raw rows that are routed at a time


class Shard:
    """Named sets of rows and what a training knows about them.

    sets: the rows as given, by name ("train", "valid", "test").
    codes: the same rows as codes, from `encode` on.
    margins: float32, (outputs, rows), by set name: the model's raw scores so far, kept up to date tree by tree.
    pool: the threads that work on this shard.
    custom_objective, custom_metric: the user's own functions, if there are any; they stay in this process.
    """

    def __init__(
        self,
        sets: Mapping[str, RowSet],
        *,
        threads: int | None = None,
        custom_objective: CustomFunction | None = None,
        custom_metric: CustomMetric | None = None,
    ) -> None:
        self.sets = dict(sets)
        self.pool = Pool(threads)
        self.custom_objective = custom_objective
        self.custom_metric = custom_metric
        self.codes: dict[str, Codes] = {}
        self._binned: dict[str, bytes] = {}  # by which edges a set is in codes
        self.margins: dict[str, Float32Array] = {}
        self._rounds: _Rounds | None = None

    def encode(self, name: str, binning: Binning, schema: FeatureSchema, *, trained_on: bool) -> None:
        """Turn a set into codes, unless it is already. Raises UserError for values that the binning has no code for."""
        if self._binned.get(name) == binning.digest and (self.codes[name].complete or not trained_on):
            return
        self.codes[name] = encode(self.sets[name], binning, schema, self.pool, name=name, trained_on=trained_on)
        self._binned[name] = binning.digest

    def label(self, name: str) -> Float32Array:
        """float32, (rows,), a set's labels."""
        label = self.sets[name].label
        return np.zeros(self.sets[name].n_rows, np.float32) if label is None else label

    def weight(self, name: str) -> Float32Array:
        """float32, (rows,), a set's weights; empty for ones."""
        weight = self.sets[name].weight
        return _NO_WEIGHT if weight is None else weight

    def given(self, name: str) -> Any:
        """A set as the user gave it, for functions of his own."""
        return self.sets[name]

    def start_margins(self, name: str, base: Float32Array, binning: Binning, trees: Sequence[Tree]) -> None:
        """Set a set's margins to where boosting starts: its own base margin or the model's, and the trees so far.

        base: float32, (outputs,).
        """
        rows, given = self.sets[name], self.sets[name].base_margin
        margins = np.empty((len(base), rows.n_rows), np.float32)
        margins[:] = base[:, None] if given is None else given.reshape(rows.n_rows, len(base)).T
        self.margins[name] = margins
        known = [on_edges(tree, binning) for tree in trees]
        if all(tree is not None for tree in known):
            for tree in known:
                if tree is not None:
                    self.add_tree(name, tree, binning)
            return

        def work(start: int) -> None:
            stop = min(start + _BLOCK, rows.n_rows)
            block = np.ascontiguousarray(margins[:, start:stop])
            add_by_values(trees, rows.block(start, stop), block)
            margins[:, start:stop] = block

        self.pool.run([(work, (start,)) for start in range(0, rows.n_rows, _BLOCK)])

    def add_tree(self, name: str, tree: Tree, binning: Binning, *, rows: Int32Array = ALL_ROWS) -> None:
        """Add a tree's leaf values to a set's margins, row by row.

        rows: int32, the rows to add to; empty means all of them.
        """
        add_by_codes(tree, binning, self.codes[name], self.margins[name][tree.class_index], self.pool, rows)

    def start_rounds(self, name: str, objective: Objective, binning: Binning) -> None:
        """Make room for gradients and for the trees' rows of the set that is trained on."""
        rows = self.sets[name].n_rows
        self._rounds = _Rounds(
            name,
            objective,
            binning,
            Lookup.of(self.codes[name], binning, self.pool),
            pairs=np.empty((objective.outputs, rows, 2), np.float32),
            rows=np.empty(rows + 1, np.int32),
            scratch=np.empty(rows + 1, np.int32),
        )

    @property
    def rounds(self) -> "_Rounds":
        """The state of the training under way. Raises RuntimeError before `start_rounds`."""
        if self._rounds is None:
            raise RuntimeError("the shard was not told that a training starts")
        return self._rounds

    def compute_gradients(self, constants: Float64Array) -> Float32Array:
        """Compute this round's gradients; returns the largest absolute gradient and hessian, float32, (2,)."""
        state = self.rounds
        objective, pairs, margin = state.objective, state.pairs, self.margins[state.name]
        rows = margin.shape[1]
        state.constants, state.scales = constants, None
        label, weight = self.label(state.name), self.weight(state.name)
        places = spans(rows, self.pool.threads if rows * objective.outputs > _SMALL else 1)
        largest = np.zeros((max(len(places), 1), objective.outputs, 2), np.float32)
        if objective.custom is not None:
            objective.custom_gradients(self.given(state.name), margin, pairs)

        def work(place: int, lo: int, hi: int) -> None:
            if objective.custom is None:
                objective.gradients(label, weight, margin, constants, lo, hi, pairs)
            for output, out in zip(pairs, largest[place], strict=True):
                largest_pair(output.ravel(), lo, hi, out)

        self.pool.run([(work, (place, lo, hi)) for place, (lo, hi) in enumerate(places)])
        # NaN is kept, as in the kernel.
        state.largest = largest.max(axis=(0, 1), initial=0)
        return state.largest

    def quantise(self, scales: tuple[float, float]) -> None:
        """Turn the round's gradients into integers, in place; does nothing the second time.

        Under other scales than before they are computed again: the first ones were guessed.
        """
        state = self.rounds
        if state.scales == scales:
            return
        if state.scales is not None:
            self.compute_gradients(state.constants)
        state.scales = scales
        limits = np.ldexp(1.0, BITS) / np.array(scales)
        # Of a party that came back after the scale was agreed, or of a guess that is taken back: else they would wrap.
        if (state.largest > limits).any():
            np.clip(state.pairs, -limits.astype(np.float32), limits.astype(np.float32), out=state.pairs)
        rows = state.pairs.shape[1]
        places = spans(rows, self.pool.threads if rows * len(state.pairs) > _SMALL else 1)
        self.pool.run([(quantise, (output.ravel(), lo, hi, *scales)) for output in state.pairs for lo, hi in places])


@dataclass
class _Rounds:
    """What a training keeps from round to round.

    lookup: codes of the rows, and what is kept beside them.
    pairs: float32, (outputs, rows, 2), gradient and hessian; the bits of int32 once quantised.
    rows, scratch: int32, room for row numbers. drawn: how many of `rows` the tree is grown from.
    largest: float32, (2,), absolute gradient and hessian of the round. constants: float64, which they were computed
    with. scales: the integers that stand for 1.0, once `pairs` is quantised.
    nodes: where the rows of the tree under construction are. others: int32, rows that it was not grown from.
    """

    name: str
    objective: Objective
    binning: Binning
    lookup: Lookup
    pairs: Float32Array
    rows: Int32Array
    scratch: Int32Array
    drawn: int = 0
    largest: Float32Array = field(default_factory=lambda: np.zeros(2, np.float32))
    constants: Float64Array = field(default_factory=lambda: np.zeros(0))
    scales: tuple[float, float] | None = None
    nodes: RowNodes | None = None
    others: Int32Array | None = None

    @property
    def growing(self) -> RowNodes:
        """Where the rows of the tree under construction are. Raises RuntimeError if there is none."""
        if self.nodes is None:
            raise RuntimeError("no tree was started")
        return self.nodes

    @property
    def chosen(self) -> Int32Array:
        """int32: the numbers of the rows that the tree is grown from."""
        return self.rows[: self.drawn]

    def integers(self, output: int) -> Int32Array:
        """int32, (rows, 2): quantised gradient and hessian for one output."""
        integers: Int32Array = self.pairs[output].view(np.int32)
        return integers
