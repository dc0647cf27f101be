"""Sums of floats carried by integers: exact, whatever the order and the partition."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_pipelines.boosting.exact_sum import BOUND, LIMBS, exact_sum, read_sum
from lepton_pipelines.spec.errors import UserError

floats = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=60)


@settings(deadline=None)  # the first call compiles
@given(floats)
def test_a_sum_is_the_true_sum_rounded_once(values):
    true = sum((Fraction(value) for value in values), Fraction(0))
    assert read_sum(exact_sum(np.array(values, np.float32)), what="values") == float(true)


@settings(deadline=None)
@given(floats, st.integers(0, 60), st.randoms())
def test_parts_add_up_to_the_whole_in_any_order(values, cut, random):
    whole = exact_sum(np.array(values, np.float32))
    random.shuffle(values)
    parts = [np.array(part, np.float32) for part in (values[:cut], values[cut:])]
    assert (sum(exact_sum(part) for part in parts) == whole).all()


def test_a_million_numbers_add_up_as_math_fsum_has_it():
    values = (np.random.default_rng(0).normal(size=1_000_000) * 1e3).astype(np.float32)
    assert read_sum(exact_sum(values), what="values") == math.fsum(values.astype(np.float64))


def test_limbs_of_the_largest_numbers_stay_far_within_their_bound():
    limbs = exact_sum(np.full(1 << 16, np.finfo(np.float32).max, np.float32))
    assert len(limbs) == LIMBS
    assert int(np.abs(limbs).max()) << 15 <= BOUND  # 2^31 such rows fit


@pytest.mark.parametrize("values", [[math.inf], [math.inf, -math.inf], [math.nan, 1.0]])
def test_what_is_not_finite_does_not_cancel(values):
    with pytest.raises(UserError, match="losses: infinite or undefined"):
        read_sum(exact_sum(np.array(values, np.float32)) + exact_sum(np.ones(3, np.float32)), what="losses")
