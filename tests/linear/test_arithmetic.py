"""Functions written out so that their bits depend on nothing are right, and do not depend on a value's place."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from lepton_pipelines.linear.exact_math import exp_of_negative, log1p_of_share
from lepton_pipelines.linear.losses import Logistic
from lepton_pipelines.linear.newton import NotPositiveDefinite, solve


@given(x=st.floats(-700, 0))
def test_exp_is_the_librarys_to_two_units_in_the_last_place(x):
    assert float(exp_of_negative(np.array([x]))[0]) == pytest.approx(math.exp(x), rel=2 * np.finfo(float).eps)


@given(x=st.floats(0, 1))
def test_log1p_is_the_librarys_to_two_units_in_the_last_place(x):
    assert float(log1p_of_share(np.array([x]))[0]) == pytest.approx(math.log1p(x), rel=2 * np.finfo(float).eps)


@given(values=st.lists(st.floats(-800, 800), min_size=1, max_size=40), place=st.integers(0, 39))
def test_a_rows_loss_does_not_depend_on_where_it_stands(values, place):
    margins = np.array(values)
    place %= len(margins)
    labels = (margins > 3).astype(float)
    among = Logistic().of(margins, labels)
    alone = Logistic().of(margins[place : place + 1].copy(), labels[place : place + 1].copy())
    for one, other in zip(vars(among).values(), vars(alone).values(), strict=True):
        assert one[place] == other[0]


@given(margin=st.floats(-40, 40), label=st.sampled_from([0.0, 1.0]))
def test_the_logistic_derivatives_are_those_of_the_loss(margin, label):
    row = Logistic().of(np.array([margin]), np.array([label]))
    share = expit(margin)
    assert row.loss[0] == pytest.approx(np.logaddexp(0, margin) - label * margin, rel=1e-12, abs=1e-14)
    assert row.slope[0] == pytest.approx(share - label, rel=1e-12, abs=1e-15)
    assert row.curvature[0] == pytest.approx(share * expit(-margin), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_systems_are_solved_as_lapack_solves_them(size):
    random = np.random.default_rng(size)
    root = random.normal(size=(size + 5, size))
    matrix, right = root.T @ root, random.normal(size=size)
    np.testing.assert_allclose(solve(matrix, right), np.linalg.solve(matrix, right), rtol=1e-8)


def test_a_row_that_depends_on_others_is_named():
    root = np.random.default_rng(0).normal(size=(9, 4))
    root[:, 2] = root[:, 0] + root[:, 1]
    with pytest.raises(NotPositiveDefinite) as error:
        solve(root.T @ root, np.ones(4))
    assert error.value.row == 2
