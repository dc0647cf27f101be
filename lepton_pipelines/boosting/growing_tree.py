"""A tree under construction: arrays that grow by two nodes a split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.compiled import kernel, part
from lepton_pipelines.boosting.gain import Weighing, clamp, gain_of, leaf_weight
from lepton_pipelines.boosting.tree import NONE, Tree
from lepton_pipelines.boosting.tree_rules import TreeRules

if TYPE_CHECKING:
    from lepton_pipelines.boosting.grower import Found

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


Nodes = NDArray[Any]  # of NODE: records make one argument of a kernel, which compiles much faster than twenty arrays
Columns = NDArray[Any]  # of COLUMN

NODE = np.dtype(
    [
        ("g", np.int64),  # quantised sums of gradient and hessian
        ("h", np.int64),
        ("worth", np.float32),  # what the node is worth unsplit
        ("lower", np.float32),  # between these its children's weights must lie
        ("upper", np.float32),
        ("depth", np.int32),  # how many questions lie above it
        *((name, np.int32) for name in ("left", "right", "parent", "feature", "bin")),  # from here on as in `Tree`
        *((name, np.float32) for name in ("threshold", "gain", "base_weight")),
        ("default_left", np.int32),
        # The rest is used by trees that are grown whole (`whole_tree_state`).
        ("start", np.int64),  # its stretch of the rows; -1 where its parent's rows were not divided
        ("end", np.int64),
        ("slot", np.int64),  # of its histogram; -1 for none
        ("best_left_g", np.int64),  # its best split, as in `Best`
        ("best_left_h", np.int64),
        ("best_gain", np.float32),
        ("best_feature", np.int32),
        ("best_bin", np.int32),
        ("best_default", np.int32),
    ],
    align=True,
)
COLUMN = np.dtype(
    [
        ("begin", np.int64),  # its cells in a histogram
        ("end", np.int64),
        ("edges", np.int64),  # where its edges begin among those of all columns
        ("bins", np.int64),  # the missing one not counted
        ("copy", np.int64),  # where its copy is (`Lookup`), -1 for none
        ("categorical", np.int32),
        ("monotone", np.int32),  # -1, 0 or 1
        ("allowed", np.int32),  # 1 if it may be asked about
    ],
    align=True,
)


def columns_of(rules: TreeRules) -> Columns:
    """Return what kernels need to know of each column; without copies and all allowed."""
    binning = rules.binning
    columns = np.zeros(binning.features, COLUMN)
    columns["begin"], columns["end"] = binning.offsets[:-1], binning.offsets[1:]
    columns["edges"], columns["bins"] = binning.flat_edges[1], binning.bins
    columns["categorical"], columns["monotone"] = binning.categorical, rules.monotone
    columns["copy"], columns["allowed"] = -1, 1
    return columns


class GrowingTree:
    """A tree, grown split by split.

    nodes: NODE, with room for more. count: how many there are.
    """

    def __init__(self, rules: TreeRules, total: Int64Array, inverse: tuple[float, float]) -> None:
        """total: int64, (2,), the root's. inverse: what one quantised unit of gradient and of hessian is worth."""
        self._columns, self._edges = columns_of(rules), rules.binning.flat_edges[0]
        self._rate = np.float32(rules.learning_rate)
        self._weighing = rules.regularisation.weighing(inverse)
        self.nodes, self.count = np.zeros(_NODES, NODE), 1
        plant(self.nodes, total[0], total[1], self._rate, self._weighing)
        self._categories: dict[int, Int32Array] = {}

    def depth(self, node: int) -> int:
        """How many questions lie above a node."""
        return int(self.nodes[node]["depth"])

    def split(self, chosen: "Found") -> Splits:
        """Split leaves; their children are numbered in the same order."""
        first = self.count
        self.count += 2 * len(chosen.nodes)
        self.nodes = with_room(self.nodes, self.count)
        _split(
            *(chosen.nodes, chosen.feature, chosen.bin, chosen.default_left, chosen.gain, chosen.left, first),
            *(self._columns, self._edges, self._rate, self._weighing, self.nodes),
        )
        self._categories.update(chosen.categories)
        return Splits(
            chosen.nodes.astype(np.int32),
            chosen.feature.astype(np.int32),
            np.arange(first, self.count, 2, dtype=np.int32),
            chosen.bin,
            chosen.default_left,
            chosen.categories,
        )

    def finish(self, class_index: int) -> Tree:
        """Return the tree."""
        self.nodes["bin"][list(self._categories)] = NONE
        return finished(self.nodes, self.count, self._weighing.unit_h, class_index, self._categories)


def with_room(nodes: Nodes, count: int) -> Nodes:
    """Return the nodes, with more room if there is too little for so many."""
    have = len(nodes)
    if count <= have:
        return nodes
    grown = np.zeros(max(count, 2 * have), NODE)
    grown[:have] = nodes
    return grown


def finished(nodes: Nodes, count: int, unit_h: float, class_index: int, categories: Mapping[int, Int32Array]) -> Tree:
    """Return the tree that the first so many nodes make."""
    nodes = nodes[:count]
    return Tree(
        left=nodes["left"].copy(),
        right=nodes["right"].copy(),
        parent=nodes["parent"].copy(),
        feature=nodes["feature"].copy(),
        threshold=nodes["threshold"].copy(),
        default_left=nodes["default_left"].astype(bool),
        bin=nodes["bin"].copy(),
        gain=nodes["gain"].copy(),
        hessian=(nodes["h"] * unit_h).astype(np.float32),
        base_weight=nodes["base_weight"].copy(),
        categories=dict(categories),
        class_index=class_index,
    )


@kernel
def plant(nodes: Nodes, g: np.int64, h: np.int64, rate: np.float32, rule: Weighing) -> None:
    """Write the root, whose rows' quantised gradients and hessians sum to g and h."""
    root = nodes[0]
    root.lower, root.upper = -_LARGEST, _LARGEST
    gradient, hessian = np.float64(g) * rule.unit_g, np.float64(h) * rule.unit_h
    weight = leaf_weight(gradient, hessian, rule.reg_lambda, rule.reg_alpha, rule.max_delta_step)
    weight = clamp(weight, -_LARGEST, _LARGEST)
    root.g, root.h = g, h
    root.worth = gain_of(gradient, hessian, weight, rule.reg_lambda, rule.reg_alpha)
    root.base_weight = weight
    root.threshold = weight * rate
    root.left = root.right = root.parent = root.bin = NONE
    root.feature = root.depth = root.default_left = 0
    root.gain = 0.0


@part
def split_node(
    nodes: Nodes,
    place: np.int64,
    f: np.int64,
    cut: np.int64,
    default: np.int64,
    gained: np.float32,
    left_g: np.int64,
    left_h: np.int64,
    child: np.int64,
    columns: Columns,
    edges: Float32Array,
    rate: np.float32,
    rule: Weighing,
) -> None:
    """Write a node's question and its two children, the left one's number first.

    left_g, left_h: the left child's sums. edges: float32, all columns' edges one after the other. rate: what a leaf's
    weight is multiplied with.
    """
    node, column = nodes[place], columns[f]
    low, high = node.lower, node.upper
    reg_lambda, alpha, max_delta_step = rule.reg_lambda, rule.reg_alpha, rule.max_delta_step
    g, h = np.float64(node.g) * rule.unit_g, np.float64(node.h) * rule.unit_h
    node.base_weight = clamp(leaf_weight(g, h, reg_lambda, alpha, max_delta_step), low, high)
    # A child's weight and worth are limited by its parent's bounds; its own limit its children's.
    left_weight = right_weight = np.float32(0.0)
    for side in range(2):
        new = nodes[child + side]
        new.g = left_g if side == 0 else node.g - left_g
        new.h = left_h if side == 0 else node.h - left_h
        g, h = np.float64(new.g) * rule.unit_g, np.float64(new.h) * rule.unit_h
        left_weight = right_weight
        right_weight = clamp(leaf_weight(g, h, reg_lambda, alpha, max_delta_step), low, high)
        new.worth = gain_of(g, h, right_weight, reg_lambda, alpha)
        new.threshold = new.base_weight = right_weight * rate
        new.left = new.right = new.bin = NONE
        new.parent, new.depth = place, node.depth + 1
        new.feature = new.default_left = 0
        new.gain = 0.0
        new.lower, new.upper = low, high
    # So that the tree stays monotone, the children's children keep to their side of the middle.
    middle = (left_weight + right_weight) / np.float32(2.0)
    if column.monotone > 0:
        nodes[child].upper = nodes[child + 1].lower = middle
    elif column.monotone < 0:
        nodes[child].lower = nodes[child + 1].upper = middle
    node.left, node.right = child, child + 1
    node.feature, node.bin, node.default_left, node.gain = f, cut, default, gained
    if column.categorical:
        node.threshold = np.nan
    else:
        node.threshold = edges[column.edges + cut] if cut >= 0 else np.float32(-np.inf)


@kernel
def _split(
    chosen: Int64Array,
    features: Int64Array,
    bins: Int32Array,
    defaults: ByteArray,
    gains: Float32Array,
    lefts: Int64Array,
    first: int,
    columns: Columns,
    edges: Float32Array,
    rate: np.float32,
    rule: Weighing,
    nodes: Nodes,
) -> None:
    for k in range(len(chosen)):
        split_node(
            nodes,
            chosen[k],
            features[k],
            np.int64(bins[k]),
            np.int64(defaults[k]),
            gains[k],
            lefts[k, 0],
            lefts[k, 1],
            np.int64(first + 2 * k),
            columns,
            edges,
            rate,
            rule,
        )
