"""A tree under construction: arrays that grow by two nodes a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.gain import clamp, gain_of, leaf_weight
from lepton_pipelines.boosting.tree import NONE, ROOT, Tree

if TYPE_CHECKING:
    from lepton_pipelines.boosting.grower import Found, TreeRules

ByteArray = NDArray[np.uint8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]

_LARGEST = np.finfo(np.float32).max
_NODES = 128  # room to begin with


@dataclass(frozen=True)
class Splits:
    """Questions that nodes ask, one entry a node.

    node, feature: int32. left: int32, the left child; the right one is the next. bin: int32, codes up to here go
    left (numeric columns). default_left: uint8. categories: by node, the codes that go right (categorical columns).
    """

    node: Int32Array
    feature: Int32Array
    left: Int32Array
    bin: Int32Array
    default_left: ByteArray
    categories: Mapping[int, Int32Array] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of splits."""
        return len(self.node)

    @staticmethod
    def none() -> "Splits":
        """Return no splits."""
        nothing = np.zeros(0, np.int32)
        return Splits(nothing, nothing, nothing, nothing, np.zeros(0, np.uint8))

    @staticmethod
    def joined(parts: Sequence["Splits"]) -> "Splits":
        """Return the splits of several."""
        if not parts:
            return Splits.none()
        return Splits(
            np.concatenate([part.node for part in parts]),
            np.concatenate([part.feature for part in parts]),
            np.concatenate([part.left for part in parts]),
            np.concatenate([part.bin for part in parts]),
            np.concatenate([part.default_left for part in parts]),
            {node: right for part in parts for node, right in part.categories.items()},
        )

    @property
    def digest(self) -> bytes:
        """What parties compare before they sum what these splits lead to."""
        parts = [self.node, self.feature, self.bin, self.default_left, *self.categories.values()]
        return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)

    def tables(self, binning: Binning) -> ByteArray:
        """Return uint8, (splits, codes): 1 where a code goes left.

        A missing value's code is the one after the column's last bin; the one after that is a category that
        training never saw, which goes left as in XGBoost.
        """
        codes = np.arange(int(binning.bins.max(initial=0)) + 2)
        tables = (codes <= self.bin[:, None]).astype(np.uint8)
        if self.categories:
            for k, node in enumerate(self.node):
                if (right := self.categories.get(int(node))) is not None:
                    tables[k] = 1
                    tables[k, right] = 0
        tables[np.arange(len(self)), binning.bins[self.feature]] = self.default_left
        return tables


class GrowingTree:
    """Nodes in the order in which XGBoost numbers them.

    totals: int64, (nodes, 2), quantised gradient and hessian. root_gain: float32, what a node is worth unsplit.
    lower, upper: float32, between which its children's weights must lie.
    """

    def __init__(self, rules: "TreeRules", total: Int64Array, inverse: tuple[float, float]) -> None:
        """total: int64, (2,), the root's. inverse: what one quantised unit of gradient and of hessian is worth."""
        self._rules = rules
        self._inverse = inverse
        self._nodes = 1
        self._room(_NODES)
        self.totals[ROOT] = total
        self.lower[ROOT], self.upper[ROOT] = -_LARGEST, _LARGEST
        rule = rules.regularisation
        rate = np.float32(rules.learning_rate)
        _weigh_root(
            *(rate, *inverse, rule.reg_lambda, rule.reg_alpha, rule.max_delta_step),
            self.totals,
            self.root_gain,
            self.lower,
            self.upper,
            self._threshold,
            self._base_weight,
        )
        self._categories: dict[int, Int32Array] = {}

    def depth(self, node: int) -> int:
        """How many questions lie above a node."""
        return int(self._depth[node])

    def split(self, chosen: "Found") -> Splits:
        """Split leaves; their children are numbered in the same order."""
        rules, count = self._rules, len(chosen.nodes)
        first = self._nodes
        self._nodes += 2 * count
        self._room(self._nodes)
        binning, rule = rules.binning, rules.regularisation
        _split(
            *(chosen.nodes, chosen.feature, chosen.bin, chosen.default_left, chosen.gain, chosen.left, first),
            *(*binning.flat_edges, binning.categorical, rules.monotone, np.float32(rules.learning_rate)),
            *(*self._inverse, rule.reg_lambda, rule.reg_alpha, rule.max_delta_step),
            *(getattr(self, name) for name, *_ in _ARRAYS),
        )
        self._categories.update(chosen.categories)
        return Splits(
            chosen.nodes.astype(np.int32),
            chosen.feature.astype(np.int32),
            np.arange(first, self._nodes, 2, dtype=np.int32),
            chosen.bin,
            chosen.default_left,
            chosen.categories,
        )

    def finish(self, class_index: int) -> Tree:
        """Return the tree."""
        n = self._nodes
        bins = self._bin[:n].copy()
        bins[list(self._categories)] = NONE
        return Tree(
            left=self._left[:n].copy(),
            right=self._right[:n].copy(),
            parent=self._parent[:n].copy(),
            feature=self._feature[:n].copy(),
            threshold=self._threshold[:n].copy(),
            default_left=self._default_left[:n].astype(bool),
            bin=bins,
            gain=self._gain[:n].copy(),
            hessian=(self.totals[:n, 1] * self._inverse[1]).astype(np.float32),
            base_weight=self._base_weight[:n].copy(),
            categories=dict(self._categories),
            class_index=class_index,
        )

    def _room(self, nodes: int) -> None:
        have = len(self.totals) if hasattr(self, "totals") else 0
        if nodes <= have:
            return
        size = max(nodes, 2 * have)
        for name, kind, fill in _ARRAYS:
            grown = np.full((size, 2) if name == "totals" else size, fill, kind)
            if have:
                grown[:have] = getattr(self, name)
            setattr(self, name, grown)

    totals: Int64Array
    root_gain: Float32Array
    lower: Float32Array
    upper: Float32Array
    _left: Int32Array
    _right: Int32Array
    _parent: Int32Array
    _feature: Int32Array
    _bin: Int32Array
    _depth: Int32Array
    _threshold: Float32Array
    _default_left: ByteArray
    _gain: Float32Array
    _base_weight: Float32Array


_ARRAYS = (
    ("totals", np.int64, 0),
    ("root_gain", np.float32, 0),
    ("lower", np.float32, 0),
    ("upper", np.float32, 0),
    ("_left", np.int32, NONE),
    ("_right", np.int32, NONE),
    ("_parent", np.int32, NONE),
    ("_feature", np.int32, 0),
    ("_bin", np.int32, NONE),
    ("_depth", np.int32, 0),
    ("_threshold", np.float32, 0),
    ("_default_left", np.uint8, 0),
    ("_gain", np.float32, 0),
    ("_base_weight", np.float32, 0),
)


@kernel
def _weigh_root(
    rate: np.float32,
    unit_g: float,
    unit_h: float,
    reg_lambda: float,
    alpha: float,
    max_delta_step: float,
    totals: Int64Array,
    root_gain: Float32Array,
    lower: Float32Array,
    upper: Float32Array,
    threshold: Float32Array,
    base_weight: Float32Array,
) -> None:
    g, h = np.float64(totals[0, 0]) * unit_g, np.float64(totals[0, 1]) * unit_h
    weight = clamp(leaf_weight(g, h, reg_lambda, alpha, max_delta_step), lower[0], upper[0])
    root_gain[0] = gain_of(g, h, weight, reg_lambda, alpha)
    base_weight[0] = weight
    threshold[0] = weight * rate


@kernel
def _split(
    nodes: Int64Array,
    features: Int64Array,
    bins: Int32Array,
    defaults: ByteArray,
    gains: Float32Array,
    lefts: Int64Array,
    first: int,
    edges: Float32Array,
    edge_starts: Int64Array,
    categorical: NDArray[np.bool_],
    monotone: NDArray[np.int8],
    rate: np.float32,
    unit_g: float,
    unit_h: float,
    reg_lambda: float,
    alpha: float,
    max_delta_step: float,
    totals: Int64Array,
    root_gain: Float32Array,
    lower: Float32Array,
    upper: Float32Array,
    left: Int32Array,
    right: Int32Array,
    parent: Int32Array,
    feature: Int32Array,
    bin_: Int32Array,
    depth: Int32Array,
    threshold: Float32Array,
    default_left: ByteArray,
    gain: Float32Array,
    base_weight: Float32Array,
) -> None:
    """Write nodes' questions and their children; the last fourteen are the tree's arrays, in `_ARRAYS`' order."""
    weights = np.empty(2, np.float32)
    for k in range(len(nodes)):
        node, f, cut = nodes[k], features[k], np.int64(bins[k])
        child = first + 2 * k
        totals[child, 0], totals[child, 1] = lefts[k, 0], lefts[k, 1]
        totals[child + 1, 0] = totals[node, 0] - lefts[k, 0]
        totals[child + 1, 1] = totals[node, 1] - lefts[k, 1]
        low, high = lower[node], upper[node]
        g, h = np.float64(totals[node, 0]) * unit_g, np.float64(totals[node, 1]) * unit_h
        base_weight[node] = clamp(leaf_weight(g, h, reg_lambda, alpha, max_delta_step), low, high)
        # A child's weight and worth are limited by its parent's bounds; its own limit its children's.
        for side in range(2):
            c = child + side
            g, h = np.float64(totals[c, 0]) * unit_g, np.float64(totals[c, 1]) * unit_h
            weights[side] = clamp(leaf_weight(g, h, reg_lambda, alpha, max_delta_step), low, high)
            root_gain[c] = gain_of(g, h, weights[side], reg_lambda, alpha)
            base_weight[c] = weights[side] * rate
            threshold[c] = base_weight[c]
            left[c] = right[c] = bin_[c] = NONE
            parent[c], depth[c] = node, depth[node] + 1
            feature[c] = default_left[c] = 0
            gain[c] = 0.0
            lower[c], upper[c] = low, high
        # So that the tree stays monotone, the children's children keep to their side of the middle.
        middle = (weights[0] + weights[1]) / np.float32(2.0)
        if monotone[f] > 0:
            upper[child] = lower[child + 1] = middle
        elif monotone[f] < 0:
            lower[child] = upper[child + 1] = middle
        left[node], right[node] = child, child + 1
        feature[node], bin_[node], default_left[node], gain[node] = f, cut, defaults[k], gains[k]
        if categorical[f]:
            threshold[node] = np.nan
        else:
            threshold[node] = edges[edge_starts[f] + cut] if cut >= 0 else np.float32(-np.inf)
