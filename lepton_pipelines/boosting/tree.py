"""One decision tree, as XGBoost numbers its nodes.

The grower writes trees, the model file reads and writes them, the kernels route binned rows through them. Arrays
run over nodes; node 0 is the root, a node's children are numbered when it is split, the left one first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int32Array = NDArray[np.int32]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

ROOT = 0
NONE = -1


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree whose arrays all have one entry a node.

    left, right, parent: int32 node numbers, -1 where there is none; a node without children is a leaf.
    feature: int32, the column that a node asks about; 0 in leaves, as XGBoost writes it.
    threshold: float32, `x < threshold` goes left; a leaf's value (learning rate applied) in leaves; not a
        number in categorical nodes.
    default_left: bool, where a missing value goes.
    bin: int32, for nodes grown on agreed edges: codes up to and including this bin go left (-1: none does);
        -1 throughout for trees read from a file whose thresholds may be anything. Unused in categorical nodes.
    gain: float32, what the split brought (XGBoost's `loss_changes`), 0 in leaves.
    hessian: float32, the sum of hessians in the node (XGBoost's `sum_hessian`).
    base_weight: float32, the node's weight had it been a leaf (XGBoost's `base_weights`).
    categories: for each categorical node the int32 category codes that go right, ascending.
    class_index: which output of a row the tree adds to (XGBoost's `tree_info`).
    """

    left: Int32Array
    right: Int32Array
    parent: Int32Array
    feature: Int32Array
    threshold: Float32Array
    default_left: BoolArray
    bin: Int32Array
    gain: Float32Array
    hessian: Float32Array
    base_weight: Float32Array
    categories: Mapping[int, Int32Array] = field(default_factory=dict)
    class_index: int = 0

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.left)

    @property
    def is_leaf(self) -> BoolArray:
        """Bool, one a node: it has no children."""
        return np.equal(self.left, NONE)

    @property
    def leaves(self) -> int:
        """The number of leaves."""
        return int(np.count_nonzero(self.is_leaf))

    @property
    def depth(self) -> int:
        """The number of questions on the longest way from the root to a leaf; 0 if the root is a leaf."""
        nodes, depth = np.zeros(1, np.int64), 0
        while (inner := nodes[self.left[nodes] != NONE]).size:
            nodes, depth = np.concatenate([self.left[inner], self.right[inner]]), depth + 1
        return depth
