"""Sketches of rows add up in any order, have one size, and tell how many rows two data sets differ by."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_pipelines.federation.row_sketch import CELLS, RowSketch

SECRET = bytes(range(32))


def sketch(digests):
    return RowSketch.of(np.array(digests, np.uint64), SECRET)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.integers(0, 60), st.randoms(use_true_random=False))
def test_a_sketch_does_not_depend_on_how_rows_are_spread_or_ordered(digests, cut, random):
    whole = sketch(digests)
    random.shuffle(digests)
    together = sketch(digests[:cut]) + sketch(digests[cut:])
    assert together.to_bytes() == whole.to_bytes()


@pytest.mark.parametrize("came", [0, 1, 3, 19])
@pytest.mark.parametrize("went", [0, 1, 7, 19])
def test_a_difference_of_a_few_rows_among_many_is_counted(came, went):
    draw = np.random.default_rng(3)
    rows = draw.integers(0, 2**63, 200_000).astype(np.uint64)
    new = draw.integers(0, 2**63, came).astype(np.uint64)
    before, now = RowSketch.of(rows, SECRET), RowSketch.of(np.concatenate([rows[went:], new]), SECRET)
    assert now.changed_since(before) == before.changed_since(now) == max(came, went)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 40))
def test_never_more_rows_are_found_to_have_changed_than_did_and_none_only_if_none_did(seed, came, went):
    draw = np.random.default_rng(seed)
    rows, new = (draw.integers(0, 2**63, n).astype(np.uint64) for n in (100, came))
    found = RowSketch.of(np.concatenate([rows[went:], new]), SECRET).changed_since(RowSketch.of(rows, SECRET))
    assert found <= max(came, went)
    assert (found == 0) == (came == went == 0)


def test_rows_that_swap_a_value_are_two_changed_rows():
    """Digests are nearly linear in a row's words; sums of them alone would miss a swap."""
    before, swapped = sketch([10 << 32, 20 << 32]), sketch([11 << 32, 19 << 32])
    assert swapped.changed_since(before) == 2


def test_a_row_twice_is_another_multiset_than_once():
    assert sketch([5, 5]).changed_since(sketch([5])) == 1


def test_another_secret_puts_rows_elsewhere():
    rows = np.arange(1000, dtype=np.uint64)
    assert RowSketch.of(rows, SECRET).changed_since(RowSketch.of(rows, bytes(32))) > 900


def test_what_is_sent_has_one_size_however_many_rows_there_are():
    few, many = (
        RowSketch.of(np.arange(10, dtype=np.uint64), SECRET),
        RowSketch.of(np.arange(10**6, dtype=np.uint64), SECRET),
    )
    assert few.counts.nbytes + few.sums.nbytes == many.counts.nbytes + many.sums.nbytes == 16 * CELLS
    again = RowSketch.from_bytes(many.to_bytes())
    assert again.changed_since(many) == 0
    assert again.counts.sum() == 10**6
