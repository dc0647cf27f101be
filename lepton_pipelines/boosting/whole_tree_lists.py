"""Free slots for histograms, and the heap of nodes that wait to be split, of a tree that is grown whole."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import part
from lepton_pipelines.boosting.gain import EPSILON
from lepton_pipelines.boosting.growing_tree import Nodes
from lepton_pipelines.boosting.whole_tree_state import (
    FREE,
    FREE_SLOTS,
    SEARCHED_FROM,
    SEARCHED_TO,
    WAITING,
    Int64Array,
)


@part
def take(state: Int64Array) -> np.int64:
    """Take a free slot."""
    state[FREE] -= 1
    return np.int64(state[FREE_SLOTS + state[FREE]])


@part
def let_go(node: Any, state: Int64Array) -> None:
    """Give back the slot of a node's histogram."""
    if node.slot >= 0:
        state[FREE_SLOTS + state[FREE]] = node.slot
        state[FREE] += 1
        node.slot = -1


@part
def _before(nodes: Nodes, a: np.int64, b: np.int64) -> bool:
    gain_a, gain_b = nodes[a].best_gain, nodes[b].best_gain
    return bool(gain_a > gain_b or (gain_a == gain_b and a < b))


@part
def push_searched(nodes: Nodes, lists: NDArray[Any], state: Int64Array) -> None:
    """Put the nodes that were just searched and gain something on the heap."""
    for node in range(state[SEARCHED_FROM], state[SEARCHED_TO]):
        if not nodes[node].best_gain > EPSILON:
            let_go(nodes[node], state)
            continue
        place = state[WAITING]
        state[WAITING] += 1
        while place > 0 and _before(nodes, np.int64(node), lists[(place - 1) >> 1].heap):
            lists[place].heap = lists[(place - 1) >> 1].heap
            place = (place - 1) >> 1
        lists[place].heap = node


@part
def pop(nodes: Nodes, lists: NDArray[Any], state: Int64Array) -> None:
    """Take the top from the heap."""
    state[WAITING] -= 1
    many, node = state[WAITING], lists[state[WAITING]].heap
    place = np.int64(0)
    while 2 * place + 1 < many:
        child = 2 * place + 1
        if child + 1 < many and _before(nodes, lists[child + 1].heap, lists[child].heap):
            child += 1
        if not _before(nodes, lists[child].heap, node):
            break
        lists[place].heap = lists[child].heap
        place = child
    lists[place].heap = node
