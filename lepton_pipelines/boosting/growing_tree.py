"""A tree under construction: arrays that grow by two nodes a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.compiled import kernel
from lepton_pipelines.boosting.constraints import child_bounds
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
        weight, gain = self._weigh(np.array([ROOT]), self.totals[:1])
        self.root_gain[ROOT] = gain[0]
        self._base_weight[ROOT] = weight[0]
        self._threshold[ROOT] = weight[0] * np.float32(rules.learning_rate)
        self._categories: dict[int, Int32Array] = {}

    def depth(self, node: int) -> int:
        """How many questions lie above a node."""
        return int(self._depth[node])

    def split(self, chosen: "Found") -> Splits:
        """Split leaves; their children are numbered in the same order."""
        rules, count = self._rules, len(chosen.nodes)
        self._room(self._nodes + 2 * count)
        nodes, feature = chosen.nodes, chosen.feature
        left = self._nodes + 2 * np.arange(count)
        right = left + 1
        self._nodes += 2 * count
        totals = self.totals
        totals[left] = chosen.left
        totals[right] = totals[nodes] - chosen.left
        # A child's weight and worth are limited by its parent's bounds; its own limit its children's.
        (w_left, g_left), (w_right, g_right) = (self._weigh(nodes, totals[side]) for side in (left, right))
        self._base_weight[nodes] = self._weigh(nodes, totals[nodes])[0]
        rate = np.float32(rules.learning_rate)
        for side, weight, gain, place in ((left, w_left, g_left, 0), (right, w_right, g_right, 1)):
            self._left[side] = self._right[side] = NONE
            self._parent[side] = nodes
            self._depth[side] = self._depth[nodes] + 1
            self._threshold[side] = self._base_weight[side] = weight * rate
            self.root_gain[side] = gain
            self._bin[side] = NONE
            self._feature[side] = self._gain[side] = self._default_left[side] = 0
            if place == 0:
                lowers, uppers = child_bounds(
                    self.lower[nodes], self.upper[nodes], rules.monotone[feature], w_left, w_right
                )
            self.lower[side], self.upper[side] = lowers[:, place], uppers[:, place]
        self._left[nodes], self._right[nodes] = left, right
        self._feature[nodes], self._bin[nodes] = feature, chosen.bin
        self._default_left[nodes], self._gain[nodes] = chosen.default_left, chosen.gain
        self._threshold[nodes] = [
            np.nan if int(node) in chosen.categories else rules.binning.threshold(int(f), int(b))
            for node, f, b in zip(nodes, feature, chosen.bin, strict=True)
        ]
        self._categories.update(chosen.categories)
        return Splits(
            nodes.astype(np.int32),
            feature.astype(np.int32),
            left.astype(np.int32),
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

    def _weigh(self, bounds_of: Int64Array, totals: Int64Array) -> tuple[Float32Array, Float32Array]:
        weight, gain = np.empty(len(totals), np.float32), np.empty(len(totals), np.float32)
        rule = self._rules.regularisation
        _weigh(
            totals,
            *self._inverse,
            self.lower[bounds_of],
            self.upper[bounds_of],
            bool(self._rules.monotone.any()),
            rule.reg_lambda,
            rule.reg_alpha,
            rule.max_delta_step,
            weight,
            gain,
        )
        return weight, gain

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
def _weigh(
    totals: Int64Array,
    unit_g: float,
    unit_h: float,
    lower: Float32Array,
    upper: Float32Array,
    constrained: bool,
    reg_lambda: float,
    alpha: float,
    max_delta_step: float,
    weight: Float32Array,
    gain: Float32Array,
) -> None:
    for k in range(len(totals)):
        g, h = np.float64(totals[k, 0]) * unit_g, np.float64(totals[k, 1]) * unit_h
        w = leaf_weight(g, h, reg_lambda, alpha, max_delta_step)
        if constrained:
            w = clamp(w, lower[k], upper[k])
        weight[k] = w
        gain[k] = gain_of(g, h, w, reg_lambda, alpha)
