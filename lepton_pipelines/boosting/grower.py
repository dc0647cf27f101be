"""How a tree grows: which nodes are split, from integer totals alone.

A grower is a conversation. It asks for the histograms of some nodes (`Growth`), whoever drives it answers with
their totals over all parties, and it goes on until the tree is done. It sees no rows, so every party's grower
says the same.
"""

import heapq
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.categorical import categories_right, search_categorical
from lepton_pipelines.boosting.constraints import InteractionConstraints
from lepton_pipelines.boosting.gain import EPSILON
from lepton_pipelines.boosting.growing_tree import GrowingTree, Splits
from lepton_pipelines.boosting.histogram import Histograms
from lepton_pipelines.boosting.pool import Pool
from lepton_pipelines.boosting.split import Best, Counted, NodeBatch, best_of, search_numeric
from lepton_pipelines.boosting.tree import ROOT, Tree
from lepton_pipelines.boosting.tree_rules import TreeRules

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class Growth:
    """What a grower asks for.

    splits: to be followed by the rows before anything is counted. Their nodes are numbered in the order in which
        they were asked for, which is the tree's own unless some were asked for before they were sure to be split.
    count: int32, the nodes whose histograms are wanted: for each split one of its children, or the root.
    """

    splits: Splits
    count: Int32Array


@dataclass(frozen=True)
class GrownTree:
    """A finished tree, and where its rows are.

    last: the last splits: their children are leaves, so no rows were rearranged for them. places: int32, by node,
    the number that `Growth.splits` gave it; -1 for the children of the last splits.
    """

    tree: Tree
    last: Splits
    places: Int32Array


@dataclass(frozen=True)
class Found:
    """The best split of each of some nodes, one entry a node (see `Candidates`).

    two_sided: bool, both children hold some hessian; a split that is best but one-sided is not made.
    """

    nodes: Int64Array
    gain: NDArray[np.float32]
    feature: Int64Array
    bin: Int32Array
    default_left: NDArray[np.uint8]
    left: Int64Array
    two_sided: NDArray[np.bool_]
    categories: Mapping[int, Int32Array] = field(default_factory=dict)

    def take(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> "Found":
        """Return some of them."""
        nodes = self.nodes[places]
        chosen = {int(node) for node in nodes} & self.categories.keys() if self.categories else set()
        return Found(
            nodes,
            self.gain[places],
            self.feature[places],
            self.bin[places],
            self.default_left[places],
            self.left[places],
            self.two_sided[places],
            {node: self.categories[node] for node in chosen},
        )


_LIKELY = 8  # splits whose sums are asked for at once when the tree grows by loss


@dataclass(frozen=True)
class _Ready:
    """What was counted of a node's children before it was split: `Counted`, and the left child's place."""

    counted: Counted
    left: int


def closed(growth: Generator[Growth, Int64Array | None, GrownTree]) -> GrownTree:
    """Close a tree that waits for totals below its root: what is split already stays, its children are leaves."""
    try:
        growth.send(None)
    except StopIteration as end:
        grown: GrownTree = end.value
        return grown
    raise RuntimeError("a tree that was closed asks for more")


class Grower:
    """Grows one tree after the other under the same rules."""

    def __init__(self, rules: TreeRules, pool: Pool, histograms: Histograms) -> None:
        """histograms: room that may be used until the next tree is grown."""
        self.rules = rules
        self._pool, self._histograms = pool, histograms
        self._interactions = InteractionConstraints(rules.interactions, rules.binning.features)

    def grow(
        self, *, scales: tuple[float, float], tree_number: int, class_index: int = 0
    ) -> Generator[Growth, Int64Array | None, GrownTree]:
        """Grow a tree.

        scales: the integers that stand for a gradient and a hessian of 1.0. tree_number: of the training, for
        sampling. Yields what it needs; is sent the totals, int64, (nodes asked for, 2 * cells), or None below the root
        to be closed where it stands (`closed`). Returns the tree.
        """
        self._inverse = 1.0 / scales[0], 1.0 / scales[1]
        self._tree_number = tree_number
        self._interactions.start()
        self._asked = 1
        histograms = yield Growth(Splits.none(), np.array([ROOT], np.int32))
        if histograms is None:
            raise ValueError("a tree is closed below its root")
        # A row without the first column's value is in its missing cell: any column's cells hold the whole node.
        first = histograms[0, : 2 * int(self.rules.binning.widths[0])].reshape(-1, 2)
        tree = GrowingTree(self.rules, first.sum(axis=0), self._inverse)
        self._histograms.clear()
        self._slot = {ROOT: int(self._histograms.take(1)[0])}
        self._histograms.values[self._slot[ROOT]] = histograms[0]
        found = self._search(tree, np.array([ROOT]), Counted.nothing())
        self._place = {ROOT: ROOT}
        if self.rules.limits.lossguide:
            last = yield from self._by_loss(tree, found)
        else:
            last = yield from self._by_depth(tree, found)
        grown = tree.finish(class_index)
        places = np.full(len(grown), -1, np.int32)
        places[list(self._place)] = list(self._place.values())
        return GrownTree(grown, last, places)

    def _by_depth(self, tree: GrowingTree, found: Found) -> Generator[Growth, Int64Array | None, Splits]:
        limits = self.rules.limits
        leaves, depth = 1, 0
        last = Splits.none()
        while True:
            places = np.flatnonzero(self._worth_it(found))
            if limits.max_leaves:
                places = places[: max(limits.max_leaves - leaves, 0)]
            if not places.size:
                return last
            chosen = found.take(places)
            leaves, depth = leaves + len(places), depth + 1
            splits = self._expand(tree, chosen)
            if depth == limits.max_depth or leaves == limits.max_leaves:
                return splits
            right_is_smaller = tree.nodes["h"][splits.left] > tree.nodes["h"][splits.left + 1]
            answer = yield Growth(splits, splits.left + right_is_smaller)
            if answer is None:
                return splits
            counted = Counted(answer, right_is_smaller.view(np.uint8))
            found = self._children(tree, chosen, splits, counted, splits.left)

    def _by_loss(self, tree: GrowingTree, found: Found) -> Generator[Growth, Int64Array | None, Splits]:
        limits = self.rules.limits
        queue: list[tuple[float, int, Found]] = []
        ready: dict[int, _Ready] = {}
        last: list[Splits] = []
        leaves = 1
        while True:
            for k in np.flatnonzero(found.gain > EPSILON):
                heapq.heappush(queue, (-float(found.gain[k]), int(found.nodes[k]), found.take(np.array([k]))))
            chosen = heapq.heappop(queue)[2] if queue else None
            if chosen is None or not self._worth_it(chosen)[0] or leaves == limits.max_leaves:
                return Splits.joined(last)
            leaves += 1
            node = int(chosen.nodes[0])
            splits = self._expand(tree, chosen)
            if node not in ready and leaves != limits.max_leaves and tree.depth(node) + 1 != limits.max_depth:
                open_nodes = [found for *_, found in heapq.nsmallest(_LIKELY - 1, queue)]
                room = limits.max_leaves - leaves if limits.max_leaves else _LIKELY
                likely = self._likely(tree, open_nodes, ready)[: room - 1]
                if not (yield from self._count(tree, [chosen, *likely], ready)):
                    return Splits.joined([*last, splits])
            if (known := ready.pop(node, None)) is None:
                last.append(splits)
                found = found.take(np.zeros(0, np.int64))
            else:
                found = self._children(tree, chosen, splits, known.counted, np.array([known.left]))

    def _likely(self, tree: GrowingTree, found: Sequence[Found], ready: Mapping[int, _Ready]) -> list[Found]:
        """Return the open nodes that, as things stand, will be split and are not counted yet."""
        return [
            one
            for one in found
            if int(one.nodes[0]) not in ready
            and self._worth_it(one)[0]
            and tree.depth(int(one.nodes[0])) + 1 != self.rules.limits.max_depth
        ]

    def _count(
        self, tree: GrowingTree, wanted: Sequence[Found], ready: dict[int, _Ready]
    ) -> Generator[Growth, Int64Array | None, bool]:
        """Ask for the histograms of nodes' smaller children; the nodes need not be split in the end.

        Over a slow line a tree of 255 leaves would otherwise take 254 sums. Returns False if the tree is closed.
        """
        nodes = np.concatenate([one.nodes for one in wanted])
        left_totals = np.concatenate([one.left for one in wanted])
        left = (self._asked + 2 * np.arange(len(wanted))).astype(np.int32)
        self._asked += 2 * len(wanted)
        places = np.array([self._place[int(node)] for node in nodes], np.int32)
        splits = Splits(
            places,
            np.concatenate([one.feature for one in wanted]).astype(np.int32),
            left,
            np.concatenate([one.bin for one in wanted]),
            np.concatenate([one.default_left for one in wanted]),
            {self._place[node]: right for one in wanted for node, right in one.categories.items()},
        )
        right_is_smaller = left_totals[:, 1] > tree.nodes["h"][nodes] - left_totals[:, 1]
        answer = yield Growth(splits, left + right_is_smaller)
        if answer is None:
            return False
        for k, node in enumerate(nodes.tolist()):
            counted = Counted(answer[k : k + 1], right_is_smaller[k : k + 1].view(np.uint8))
            ready[node] = _Ready(counted, int(left[k]))
        return True

    def _worth_it(self, found: Found) -> NDArray[np.bool_]:
        enough = np.float32(self.rules.regularisation.min_split_loss)
        return np.logical_and(found.gain > EPSILON, found.gain >= enough) & found.two_sided

    def _expand(self, tree: GrowingTree, chosen: Found) -> Splits:
        """Make the chosen nodes inner nodes and give each two leaves."""
        splits = tree.split(chosen)
        if self._interactions:
            for node, feature, child in zip(splits.node, splits.feature, splits.left, strict=True):
                self._interactions.split(int(node), int(feature), int(child))
        return splits

    def _children(
        self, tree: GrowingTree, chosen: Found, splits: Splits, counted: Counted, places: NDArray[np.integer[Any]]
    ) -> Found:
        """Search the children of nodes that were just split. places: of the left ones, as rows know them."""
        children = np.stack([splits.left, splits.left + 1], axis=1).astype(np.int64)
        self._place.update(
            zip(children.ravel().tolist(), np.stack([places, places + 1], axis=1).ravel().tolist(), strict=True)
        )
        # The parent's slot becomes the sibling's of the child that was counted.
        each = np.arange(len(splits))
        slots = np.empty((len(splits), 2), np.int64)
        slots[each, 1 - counted.right] = [self._slot.pop(int(node)) for node in chosen.nodes]
        slots[each, counted.right] = self._histograms.take(len(splits))
        self._slot.update(zip(children.ravel().tolist(), slots.ravel().tolist(), strict=True))
        return self._search(tree, children.ravel(), counted)

    def _search(self, tree: GrowingTree, nodes: Int64Array, counted: Counted) -> Found:
        """Complete the histograms of nodes and find their best splits."""
        rules, known = self.rules, tree.nodes[nodes]
        batch = NodeBatch(
            self._histograms.values,
            np.array([self._slot[node] for node in nodes.tolist()], np.int64),
            np.column_stack([known["g"], known["h"]]),
            known["worth"].copy(),
            known["lower"].copy(),
            known["upper"].copy(),
            self._allowed(tree, nodes),
        )
        candidates = search_numeric(
            batch, counted, rules.binning, rules.regularisation, rules.monotone, self._inverse, self._pool
        )
        if rules.binning.categorical.any():
            search_categorical(
                candidates,
                batch,
                rules.binning,
                rules.regularisation,
                rules.categorical,
                rules.monotone,
                self._inverse,
                self._pool,
            )
        best = best_of(candidates, batch.totals)
        return Found(
            nodes,
            best.gain,
            best.feature,
            best.bin,
            best.default_left,
            best.left,
            best.two_sided,
            self._right_categories(batch, nodes, best),
        )

    def _right_categories(self, batch: NodeBatch, nodes: Int64Array, best: Best) -> dict[int, Int32Array]:
        rules = self.rules
        wanted = np.flatnonzero(rules.binning.categorical[best.feature] & (best.gain > EPSILON))
        return {
            int(nodes[k]): categories_right(
                batch.histograms[batch.slots[k]],
                rules.binning,
                int(best.feature[k]),
                int(best.bin[k]),
                rules.regularisation,
                rules.categorical,
                self._inverse,
            )
            for k in wanted
        }

    def _allowed(self, tree: GrowingTree, nodes: Int64Array) -> NDArray[np.uint8]:
        allowed = np.ones((len(nodes), self.rules.binning.features), np.uint8)
        sampler = self.rules.columns
        if sampler is not None and sampler.draws:
            for row, node in zip(allowed, nodes, strict=True):
                row &= sampler.columns(self._tree_number, tree.depth(int(node)), int(node)).view(np.uint8)
        if self._interactions:
            for row, node in zip(allowed, nodes, strict=True):
                row &= self._interactions.allowed(int(node)).view(np.uint8)
        return allowed
