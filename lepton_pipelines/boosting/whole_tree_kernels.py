"""The compiled part of `whole_tree`: one thread leads, the others help where there is work to share.

All threads enter `grow`. The first one leads: it alone decides which nodes are split. What takes time it opens as a
phase, whose units all threads draw from one counter; when none is left it closes the phase and waits for those that
have not finished their last unit. Helpers wait for the next phase by looking again and again, which takes a
microsecond where waking a thread takes fifty, and give their processor away to whoever needs it. A helper that comes
late, or never, is not waited for.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.compiled import kernel, part
from lepton_pipelines.boosting.gain import EPSILON
from lepton_pipelines.boosting.growing_tree import Nodes, plant, split_node
from lepton_pipelines.boosting.intrinsics import at, fetch_add, fetch_sub, give_way, prefetch, put, see, show
from lepton_pipelines.boosting.partition import bring_back, count_all, count_present, divide, merge_missing
from lepton_pipelines.boosting.split import room_to_search, search_column
from lepton_pipelines.boosting.whole_tree_lists import let_go, pop, push_searched, take
from lepton_pipelines.boosting.whole_tree_state import (
    ADDS_LEAVES,
    BEGINS,
    CHOOSES,
    CHOSEN,
    CLAIMED,
    COUNTS,
    DONE,
    ENTERED,
    FREE,
    GROWING,
    HELPING,
    LAST,
    LEAVES,
    NEEDS_NODES,
    NEEDS_SLOTS,
    NEXT,
    NODES,
    PHASE,
    PIECE,
    PIECES,
    SEARCHED_FROM,
    SEARCHED_TO,
    SEARCHES,
    SHARES,
    STATUS,
    STEP,
    WAITING,
    Growing,
    Int64Array,
    Limits,
)

ByteArray = NDArray[np.uint8]

_AHEAD = 24  # rows to prefetch ahead
_SOON = 256  # looks at what another thread will write before the processor is given away
_COUNT, _FINISH, _ADD_LEAVES, _OVER = 1, 2, 3, 7  # the lowest three bits of the phase while it is open


@kernel
def grow(g: Growing) -> None:
    """Grow the tree as far as there is room for it; STATUS says whether it is done."""
    control = g.control
    leads = fetch_add(control, np.int64(ENTERED)) == 0
    phase = np.int64(0)
    while True:
        if leads:
            phase = (((phase >> 3) + 1) << 3) | _next(g)
            show(control, np.int64(NEXT), np.int64(0))
            show(control, np.int64(PHASE), phase)
        else:
            phase = _await_phase(control, phase)
        kind = phase & 7
        if kind == _OVER:
            return
        # The only place where these are called: compiled into several they would take several times as long.
        if kind == _COUNT:
            _count(g)
        elif kind == _FINISH:
            _finish(g)
        elif kind == _ADD_LEAVES:
            _add_leaves(g)
        if leads:
            _close_phase(control, phase)
        else:
            fetch_sub(control, np.int64(HELPING))


@part
def _close_phase(control: Int64Array, phase: np.int64) -> None:
    """Let nobody begin with the phase any more, and wait for those who have begun."""
    show(control, np.int64(PHASE), phase & ~7)
    looks = 0
    while see(control, np.int64(HELPING)) > 0:
        looks += 1
        if looks > _SOON:
            give_way()


@part
def _await_phase(control: Int64Array, last: np.int64) -> np.int64:
    """Wait until another phase than the last one is open, and say that one helps with it."""
    looks = 0
    while True:
        phase = see(control, np.int64(PHASE))
        if phase & 7 == _OVER:
            return np.int64(phase)
        if phase & 7 == 0 or phase == last:
            looks += 1
            if looks > _SOON:
                give_way()
            continue
        fetch_add(control, np.int64(HELPING))
        if see(control, np.int64(PHASE)) == phase:
            return np.int64(phase)
        fetch_sub(control, np.int64(HELPING))  # it was closed meanwhile


@part
def _next(g: Growing) -> np.int64:
    """What the leader does between phases. Returns the kind of the phase that follows."""
    state, nodes, lists, limits, features = g.state, g.nodes, g.lists, g.limits, len(g.columns)
    if state[STEP] == COUNTS:
        state[STEP] = SEARCHES
        if state[NODES] == 0:
            _plant(g)
        else:
            _place_rows(nodes, lists, g.pieces, state[CHOSEN])
        return np.int64(_FINISH)
    if state[STEP] == ADDS_LEAVES:
        state[STATUS] = DONE
        return np.int64(_OVER)
    if state[STEP] == SEARCHES:
        for place in range(state[SEARCHED_FROM], state[SEARCHED_TO]):
            k = place - state[SEARCHED_FROM]
            _best_of(nodes[place], g.found[k * features : (k + 1) * features])
        if limits.by_loss:
            push_searched(nodes, lists, state)
    status = GROWING if state[STEP] == BEGINS else _split(g)
    if status != GROWING:
        state[STATUS], state[STEP] = status, CHOOSES
        return np.int64(_OVER)
    if state[STEP] == BEGINS:
        nodes[0].start, nodes[0].end, nodes[0].slot = 0, len(g.rows), take(state)
        lists[0].chosen, state[CHOSEN] = 0, 1
    many = state[CHOSEN]
    if many == 0:
        _list_leaves(nodes, lists, state)
    _cut(nodes, lists, g.pieces, state, g.control, limits.threads)
    state[STEP] = COUNTS if many > 0 else ADDS_LEAVES
    return np.int64(_COUNT if many > 0 else _ADD_LEAVES)


@part
def _split(g: Growing) -> int:
    """Split nodes until there are some whose rows are to be divided, which are then `chosen`, or none at all.

    Nothing is changed before there is room for it. Returns GROWING, or what there is not enough of.
    """
    state, nodes, lists, limits = g.state, g.nodes, g.lists, g.limits
    while True:
        many = _choose(nodes, lists, state, limits)
        if many == 0:
            return GROWING
        # All nodes of a level lie equally deep: the rows of all of them are divided, or of none.
        full = state[LEAVES] + many == limits.max_leaves
        divides = not full and nodes[lists[0].chosen].depth + 1 != limits.max_depth
        if state[NODES] + 2 * many > len(nodes):
            return NEEDS_NODES
        if divides and many > state[FREE]:
            return NEEDS_SLOTS
        for k in range(many):
            place = lists[k].chosen
            node = nodes[place]
            split_node(
                *(nodes, place, np.int64(node.best_feature), np.int64(node.best_bin), np.int64(node.best_default)),
                *(node.best_gain, node.best_left_g, node.best_left_h, state[NODES] + 2 * k),
                *(g.columns, g.edges, limits.rate, g.rule),
            )
        _note_split(nodes, lists, state, limits, divides)
        if divides:
            return GROWING


@part
def _plant(g: Growing) -> None:
    """Write the root from what was counted."""
    cells, claimed = g.histograms.shape[1] - 2, g.control[CLAIMED]
    root_g = root_h = np.int64(0)
    for n in range(claimed):
        histogram = g.histograms[g.nodes[0].slot if n == 0 else n - 1]
        # A row without the first column's value is in its missing cell: any column's cells hold the whole node.
        begin, end = (cells // 2, cells // 2 + 1) if len(g.present) > 0 else (0, np.int64(g.offsets[1]))
        for cell in range(begin, end):
            root_g += histogram[2 * cell]
            root_h += histogram[2 * cell + 1]
    plant(g.nodes, root_g, root_h, g.limits.rate, g.rule)
    g.state[NODES], g.state[LEAVES], g.state[SEARCHED_FROM], g.state[SEARCHED_TO] = 1, 1, 0, 1


@part
def _worth_it(node: Any, limits: Limits) -> bool:
    """Tell whether a node is to be split: its best split gains enough, and both sides hold some hessian."""
    gain, left_h = node.best_gain, node.best_left_h
    return bool(gain > EPSILON and gain >= limits.enough and left_h != 0 and left_h != node.h)


@part
def _choose(nodes: Nodes, lists: NDArray[Any], state: Int64Array, limits: Limits) -> np.int64:
    """Write which nodes are to be split next into `chosen`. Returns how many."""
    room = limits.max_leaves - state[LEAVES] if limits.max_leaves > 0 else np.int64(1) << 40
    many = np.int64(0)
    if limits.by_loss:
        if state[WAITING] > 0 and room > 0 and _worth_it(nodes[lists[0].heap], limits):
            lists[0].chosen = lists[0].heap
            many = np.int64(1)
    else:
        for place in range(state[SEARCHED_FROM], state[SEARCHED_TO]):
            if many < room and _worth_it(nodes[place], limits):
                lists[many].chosen = place
                many += 1
    state[CHOSEN] = many
    return many


@part
def _note_split(nodes: Nodes, lists: NDArray[Any], state: Int64Array, limits: Limits, divides: bool) -> None:
    """Note that the chosen nodes are split, and give their children slots if their rows are divided."""
    many, first = state[CHOSEN], state[NODES]
    if limits.by_loss:
        pop(nodes, lists, state)
    else:
        for place in range(state[SEARCHED_FROM], state[SEARCHED_TO]):
            if nodes[place].left < 0:
                let_go(nodes[place], state)
    for k in range(many):
        node, left, right = nodes[lists[k].chosen], nodes[first + 2 * k], nodes[first + 2 * k + 1]
        if divides:
            # The parent's slot becomes the sibling's of the child that is counted, the one with less hessian.
            new, old, node.slot = take(state), node.slot, -1
            left.slot, right.slot = (old, new) if left.h > right.h else (new, old)
        else:
            lists[state[LAST]].last = lists[k].chosen
            state[LAST] += 1
            left.start = right.start = left.slot = right.slot = -1
            let_go(node, state)
    state[LEAVES] += many
    state[NODES] += 2 * many
    state[SEARCHED_FROM], state[SEARCHED_TO] = first, (state[NODES] if divides else first)


@part
def _cut(
    nodes: Nodes, lists: NDArray[Any], pieces: NDArray[Any], state: Int64Array, control: Int64Array, threads: int
) -> None:
    """Cut the chosen nodes' rows into pieces of a size that keeps all threads busy."""
    many, total = state[CHOSEN], np.int64(0)
    for k in range(many):
        node = nodes[lists[k].chosen]
        total += node.end - node.start
    size = max(np.int64(PIECE), -(-total // (threads * SHARES))) if threads > 1 else max(total, np.int64(1))
    place = extra = np.int64(0)
    for k in range(many):
        node, one = nodes[lists[k].chosen], lists[k]
        lo = node.start
        one.first_piece, one.extra = place, extra
        one.pieces = max(-(-(node.end - lo) // size), np.int64(1))
        control[CLAIMED + k] = 0
        extra += min(one.pieces, np.int64(threads)) - 1
        for _ in range(one.pieces):
            piece = pieces[place]
            piece.of, piece.lo, piece.hi, piece.lefts = k, lo, min(lo + size, node.end), 0
            lo += size
            place += 1
    state[PIECES] = place


@part
def _count(g: Growing) -> None:
    """Divide pieces of rows and count the smaller side of each, or all of the root."""
    nodes, lists, features, cells = g.nodes, g.lists, len(g.columns), g.histograms.shape[1] - 2
    table = np.empty(g.limits.widest + 1, np.uint8)
    current, slot, side = np.int64(-1), np.int64(0), np.int64(0)
    while True:
        place = fetch_add(g.control, np.int64(NEXT))
        if place >= g.state[PIECES]:
            return
        piece = g.pieces[place]
        k, lo, hi = piece.of, piece.lo, piece.hi
        node = nodes[lists[k].chosen]
        root = g.state[NODES] == 0
        if k != current:
            # The first thread counts into the node's own slot, others into one of their own.
            current, extra, slot = k, fetch_add(g.control, CLAIMED + k) - 1, node.slot
            if not root:
                left, right = nodes[node.left], nodes[node.left + 1]
                side = np.int64(left.h > right.h)
                slot = right.slot if side else left.slot
                _tabulate(g, node, table)
            slot = lists[k].extra + extra if extra >= 0 else slot
            for cell in range(cells + 2):
                g.histograms[slot, cell] = 0
        histogram, total = g.histograms[slot][:cells], g.histograms[slot][cells:]
        if not root:
            column = np.int64(node.feature)
            piece.lefts = divide(
                g.codes,
                features,
                g.present,
                g.copies,
                g.columns[column].copy,
                g.offsets,
                g.pairs,
                g.rows,
                g.scratch,
                lo,
                hi,
                column,
                table,
                lists[k].pieces == 1,
                side,
                histogram,
                total,
            )
        elif len(g.present) > 0:
            count_present(
                g.codes, features, g.present, g.offsets, g.pairs, g.rows, lo, np.int64(1), hi - lo, histogram, total
            )
        else:
            count_all(g.codes, features, g.offsets, g.pairs, g.rows, lo, np.int64(1), hi - lo, histogram)


@part
def _tabulate(g: Growing, node: Any, table: ByteArray) -> None:
    """Write 1 where a code goes left."""
    for code in range(len(table)):
        table[code] = code <= node.bin
    table[g.columns[node.feature].bins] = node.default_left


@part
def _place_rows(nodes: Nodes, lists: NDArray[Any], pieces: NDArray[Any], many: np.int64) -> None:
    """Find where each piece's two sides go, behind those of its node's pieces before it."""
    for k in range(many):
        node = nodes[lists[k].chosen]
        left, right = nodes[node.left], nodes[node.left + 1]
        place, first = node.start, lists[k].first_piece
        for p in range(first, first + lists[k].pieces):
            pieces[p].left_at = place
            place += pieces[p].lefts
        left.start, left.end, right.start, right.end = node.start, place, place, node.end
        for p in range(first, first + lists[k].pieces):
            pieces[p].right_at = place
            place += pieces[p].hi - pieces[p].lo - pieces[p].lefts


@part
def _finish(g: Growing) -> None:
    """Bring divided rows to their places, complete the histograms of both children and search them."""
    nodes, lists, features, root = g.nodes, g.lists, len(g.columns), g.state[NODES] == 1
    cells, many = g.histograms.shape[1] - 2, g.state[PIECES]
    room = room_to_search(np.int64(g.limits.widest))
    while True:
        unit = fetch_add(g.control, np.int64(NEXT))
        if unit < many:
            piece = g.pieces[unit]
            if lists[piece.of].pieces > 1 and not root:
                bring_back(g.rows, g.scratch, piece.lo, piece.hi, piece.lefts, piece.left_at, piece.right_at)
            continue
        k, f = (unit - many) // features, (unit - many) % features
        if k >= g.state[CHOSEN]:
            return
        first = np.int64(0) if root else np.int64(nodes[lists[k].chosen].left)
        side = np.int64(0) if root else np.int64(nodes[first].h > nodes[first + 1].h)
        column = g.columns[f]
        begin, end = 2 * column.begin, 2 * column.end
        whole = g.histograms[nodes[first + side].slot]
        counted = whole[begin:end]
        sum_g, sum_h = whole[cells], whole[cells + 1]
        for slot in range(lists[k].extra, lists[k].extra + g.control[CLAIMED + k] - 1):
            more = g.histograms[slot][begin:end]
            for cell in range(end - begin):
                counted[cell] += more[cell]
            sum_g += g.histograms[slot, cells]
            sum_h += g.histograms[slot, cells + 1]
        if len(g.present) > 0 and (end - begin) // 2 > column.bins:
            merge_missing(counted, sum_g, sum_h)
        if not root:
            other = g.histograms[nodes[first + 1 - side].slot][begin:end]
            for cell in range(end - begin):
                other[cell] -= counted[cell]
        for child in range(1 if root else 2):
            node, found = nodes[first + child], g.found[(2 * k + child) * features + f]
            found.gain = 0.0
            if not column.allowed:
                continue
            found.gain, found.bin, found.default_left, found.left_g, found.left_h = search_column(
                *(g.histograms[node.slot][begin:end], column.bins, node.g, node.h, node.worth, node.lower, node.upper),
                *(np.int64(column.monotone), g.rule, room),
            )


@part
def _best_of(node: Any, found: NDArray[Any]) -> None:
    """Choose a node's best column: the first of equals, a later one must be strictly better."""
    best = 0
    for f in range(1, len(found)):
        best = f if found[f].gain > found[best].gain else best
    one = found[best]
    node.best_gain, node.best_feature, node.best_bin, node.best_default = one.gain, best, one.bin, one.default_left
    node.best_left_g, node.best_left_h = one.left_g, one.left_h


@part
def _list_leaves(nodes: Nodes, lists: NDArray[Any], state: Int64Array) -> None:
    """Choose the nodes whose rows are in order: all leaves but those of the last splits, which lie in their parents."""
    many = state[LAST]
    for k in range(many):
        lists[k].chosen = lists[k].last
    for place in range(state[NODES]):
        if nodes[place].left < 0 and nodes[place].start >= 0:
            lists[many].chosen = place
            many += 1
    state[CHOSEN] = many


@part
def _add_leaves(g: Growing) -> None:
    """Add leaf values to the margins of pieces of rows."""
    rows, margin, nodes = g.rows, g.margin, g.nodes
    table = np.empty(g.limits.widest + 1, np.uint8)
    while True:
        place = fetch_add(g.control, np.int64(NEXT))
        if place >= g.state[PIECES]:
            return
        lo, hi = g.pieces[place].lo, g.pieces[place].hi
        node = nodes[g.lists[g.pieces[place].of].chosen]
        if node.left < 0:
            value = node.threshold
            for r in range(lo, hi):
                if r + _AHEAD < hi:
                    prefetch(margin, np.int64(at(rows, r + _AHEAD)))
                row = np.int64(at(rows, r))
                put(margin, row, at(margin, row) + value)
            continue
        _tabulate(g, node, table)
        left, right = nodes[node.left].threshold, nodes[node.left + 1].threshold
        copy = g.columns[node.feature].copy
        source, width, first = g.codes, np.int64(len(g.columns)), np.int64(node.feature)
        if copy >= 0:
            source, width, first = g.copies[copy], np.int64(1), np.int64(0)
        for r in range(lo, hi):
            if r + _AHEAD < hi:
                ahead = np.int64(at(rows, r + _AHEAD))
                prefetch(source, ahead * width + first)
                prefetch(margin, ahead)
            row = np.int64(at(rows, r))
            value = left if at(table, np.int64(at(source, row * width + first))) else right
            put(margin, row, at(margin, row) + value)
