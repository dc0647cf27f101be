"""What the threads that grow a whole tree share: `whole_tree` makes it, `whole_tree_kernels` works on it."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.binning import CodeArray
from lepton_pipelines.boosting.gain import Weighing
from lepton_pipelines.boosting.growing_tree import Columns, Nodes

Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]

SHARES = 6  # pieces a thread gets about: so many that none waits long for another
PIECE = 1024  # rows that are worth a thread's own histogram, which must be cleared and added in the end

# Places in `state`: what the leader must know to go on where it stopped to ask for more room. From FREE_SLOTS on the
# slots that are free.
NODES, LEAVES, SEARCHED_FROM, SEARCHED_TO, WAITING, LAST, FREE, CHOSEN, PIECES, STATUS, STEP = range(11)
FREE_SLOTS = 11
GROWING, NEEDS_NODES, NEEDS_SLOTS, DONE = range(4)  # STATUS
BEGINS, COUNTS, SEARCHES, CHOOSES, ADDS_LEAVES = range(5)  # STEP: of the leader

# Places in `control`, by which threads wait for each other, a cache line each: number and kind of the phase, how many
# help, the next unit of work, how many threads have come. From CLAIMED on how many have counted in each chosen node.
PHASE, HELPING, NEXT, ENTERED, CLAIMED = 0, 8, 16, 24, 32

LISTS = np.dtype(
    [
        ("heap", np.int64),  # open nodes, the one that gains most on top
        ("last", np.int64),  # nodes that are split without their rows being divided
        ("chosen", np.int64),  # nodes in hand; and of each of them:
        ("first_piece", np.int64),  # its pieces of rows
        ("pieces", np.int64),
        ("extra", np.int64),  # where the histograms of threads beyond the first are
    ],
    align=True,
)
PIECES_OF_ROWS = np.dtype(
    [
        ("of", np.int64),  # which of the chosen nodes it belongs to
        ("lo", np.int64),  # its stretch of the rows
        ("hi", np.int64),
        ("lefts", np.int64),  # how many go left
        ("left_at", np.int64),  # where both sides go
        ("right_at", np.int64),
    ],
    align=True,
)
FOUND = np.dtype(  # the best split of a column, as in `Candidates`
    [
        ("left_g", np.int64),
        ("left_h", np.int64),
        ("gain", np.float32),
        ("bin", np.int32),
        ("default_left", np.int32),
    ],
    align=True,
)


class Limits(NamedTuple):
    """How far the tree may grow (0: no limit), and how many threads there are.

    by_loss: the node that gains most is split next. enough: least gain of a split. rate: of learning.
    widest: how many codes a column has at most.
    """

    max_depth: int
    max_leaves: int
    by_loss: bool
    enough: np.float32
    rate: np.float32
    threads: int
    widest: int


class Growing(NamedTuple):
    """All that the threads share.

    codes … copies: see `Lookup`. offsets: see `Binning`. pairs: int32, gradient and hessian of each row.
    margin: float32, (rows,), of the tree's output. rows, scratch: int32, see `partition.follow`. columns: COLUMN.
    edges: float32, all columns' edges. nodes: NODE. lists: LISTS, as long. pieces: PIECES_OF_ROWS. found: FOUND, of
    each column in each child of the chosen nodes. histograms: int64, (slots, 2 * cells + 2), the last two the sums over
    all rows that were counted, where missing values are not; the first threads * SHARES slots are for threads that are
    not the first in a node.
    """

    codes: CodeArray
    present: NDArray[np.uint32]
    copies: CodeArray
    offsets: Int32Array
    pairs: Int32Array
    margin: Float32Array
    rows: Int32Array
    scratch: Int32Array
    columns: Columns
    edges: Float32Array
    rule: Weighing
    limits: Limits
    nodes: Nodes
    lists: NDArray[Any]
    pieces: NDArray[Any]
    found: NDArray[Any]
    histograms: Int64Array
    state: Int64Array
    control: Int64Array
