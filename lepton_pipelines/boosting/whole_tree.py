"""A tree that is grown in one go, where one shard holds all rows that it is grown from.

The conversation between grower and rows (`grower.py`) is made for sums that travel. Where nothing travels it costs more
than the work on little data: Python between small steps, and a thread woken for each. So one party alone grows its
trees by one call of every thread; both ways share the kernels that decide, and give the same bytes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting import whole_tree_state as at
from lepton_pipelines.boosting.growing_tree import NODE, columns_of, finished, with_room
from lepton_pipelines.boosting.intrinsics import aligned_empty
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.tree import Tree
from lepton_pipelines.boosting.tree_rules import TreeRules
from lepton_pipelines.boosting.whole_tree_kernels import grow

Int64Array = NDArray[np.int64]

_NODES = 127  # room to begin with
_SLOTS = 4
_SMALL = 1 << 15  # values up to which one thread grows a tree alone


def grows_whole(rules: TreeRules) -> bool:
    """Tell whether trees under these rules can be grown in one go: numeric columns, which all nodes may ask about."""
    columns = rules.columns
    by_tree_only = columns is None or min(columns.by_level, columns.by_node) == 1.0
    return by_tree_only and not rules.interactions and not rules.binning.categorical.any()


class WholeTrees:
    """Grows the trees of one training from the rows of one shard, which has started its rounds."""

    def __init__(self, shard: Shard, rules: TreeRules) -> None:
        """rules: but for the learning rate, those of all its trees."""
        self._shard, self._rounds = shard, shard.rounds
        self._threads = 1 if len(self._rounds.lookup.codes.values) <= _SMALL else shard.pool.threads
        self._columns, self._edges = columns_of(rules), rules.binning.flat_edges[0]
        self._shared = self._threads * at.SHARES  # histograms for threads that are not the first in a node
        self._width = 2 * rules.binning.cells + 2
        self._histograms = aligned_empty((self._shared + _SLOTS, self._width))
        self._nodes = np.zeros(_NODES, NODE)
        self._make_room()

    def grow(self, rules: TreeRules, scales: tuple[float, float], tree_number: int, class_index: int) -> Tree:
        """Grow a tree from the rows that were chosen for it, and add it to their margins.

        scales: the integers that stand for a gradient and a hessian of 1.0. tree_number: of the training, for sampling.
        """
        rounds, lookup, pool = self._rounds, self._rounds.lookup, self._shard.pool
        weighing, limits = rules.regularisation.weighing((1.0 / scales[0], 1.0 / scales[1])), self._limits(rules)
        self._columns["copy"] = lookup.place
        if rules.columns is not None and rules.columns.draws:
            self._columns["allowed"] = rules.columns.columns(tree_number, 0, 0)
        margin = self._shard.margins[rounds.name][class_index]
        state = self._start()
        while state[at.STATUS] != at.DONE:
            growing = at.Growing(
                codes=lookup.codes.values,
                present=lookup.present,
                copies=lookup.copies,
                offsets=rules.binning.offsets,
                pairs=rounds.integers(class_index).ravel(),
                margin=margin,
                rows=rounds.chosen,
                scratch=rounds.scratch,
                columns=self._columns,
                edges=self._edges,
                rule=weighing,
                limits=limits,
                nodes=self._nodes,
                lists=self._lists,
                pieces=self._pieces,
                found=self._found,
                histograms=self._histograms,
                state=state,
                control=np.zeros(at.CLAIMED + len(self._nodes), np.int64),
            )
            pool.run([(grow, (growing,))] * self._threads)
            if state[at.STATUS] == at.NEEDS_NODES:
                self._nodes = with_room(self._nodes, int(state[at.NODES] + 2 * state[at.CHOSEN]))
                self._make_room()
            elif state[at.STATUS] == at.NEEDS_SLOTS:
                state = self._with_more_slots(state)
        tree = finished(self._nodes, int(state[at.NODES]), weighing.unit_h, class_index, {})
        inner = self._nodes[: len(tree)][~tree.is_leaf]
        lookup.ask(inner["feature"], inner["end"] - inner["start"], pool)
        return tree

    def _limits(self, rules: TreeRules) -> at.Limits:
        limits, enough = rules.limits, np.float32(rules.regularisation.min_split_loss)
        rate = np.float32(rules.learning_rate)
        widest = int(rules.binning.bins.max(initial=0)) + 1
        return at.Limits(limits.max_depth, limits.max_leaves, limits.lossguide, enough, rate, self._threads, widest)

    def _start(self) -> Int64Array:
        free = np.arange(len(self._histograms) - 1, self._shared - 1, -1)
        state = np.concatenate([np.zeros(at.FREE_SLOTS, np.int64), free])
        state[at.FREE] = len(free)
        return state

    def _with_more_slots(self, state: Int64Array) -> Int64Array:
        """Make room for twice as many histograms, at least as many as are wanted now."""
        have = len(self._histograms)
        more = max(have - self._shared, int(state[at.CHOSEN] - state[at.FREE]))
        histograms = aligned_empty((have + more, self._width))
        histograms[:have] = self._histograms
        self._histograms = histograms
        begin = at.FREE_SLOTS + int(state[at.FREE])
        state = np.concatenate([state[:begin], np.arange(have + more - 1, have - 1, -1), state[begin:]])
        state[at.FREE] += more
        return state

    def _make_room(self) -> None:
        """Make room for the work on so many nodes as there is room for."""
        nodes = len(self._nodes)
        lists = np.zeros(nodes, at.LISTS)
        if len(self._lists):
            lists[: len(self._lists)] = self._lists
        self._lists = lists
        self._pieces = np.zeros(nodes + self._shared, at.PIECES_OF_ROWS)
        self._found = np.zeros(nodes * len(self._columns), at.FOUND)

    _lists: NDArray[Any] = np.zeros(0, at.LISTS)
