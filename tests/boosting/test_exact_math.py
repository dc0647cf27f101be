"""The transcendental functions: right to the last place, the same in every lane, nothing contracted."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy import special

from lepton_pipelines.boosting import exact_math

RANDOM = np.random.default_rng(0)


def around(low, high, size=100_000):
    return RANDOM.uniform(low, high, size).astype(np.float32)


FUNCTIONS = {
    "exp": (exact_math.exp, np.exp, [around(-87, 88), around(-1e-3, 1e-3)]),
    "log": (exact_math.log, np.log, [np.exp(around(-80, 80)), around(0.5, 2)]),
    "log1p": (exact_math.log1p, np.log1p, [around(-0.999, 5), around(-1e-6, 1e-6), np.exp(around(-20, 80))]),
    "tanh": (exact_math.tanh, np.tanh, [around(-20, 20), around(-0.02, 0.02), around(-1e-6, 1e-6)]),
}


def over_rows(function):
    """The function in a loop that becomes vector code."""

    @njit(error_model="numpy")
    def loop(values, out):
        for i in range(len(values)):
            out[i] = function(values[i])

    def run(values):
        out = np.empty_like(values)
        loop(values, out)
        return out

    run.loop = loop
    return run


@pytest.fixture(scope="module", params=sorted(FUNCTIONS))
def function(request):
    compiled, reference, samples = FUNCTIONS[request.param]
    return over_rows(compiled), reference, np.concatenate(samples)


def test_results_are_within_one_unit_in_the_last_place_of_the_true_value(function):
    ours, reference, values = function
    true = reference(values.astype(np.float64))
    units = np.abs(ours(values).astype(np.float64) - true) / np.spacing(np.abs(true).astype(np.float32))
    assert units.max() < 0.5001  # rounded correctly but for a value in a million, then its neighbour


def test_a_result_does_not_depend_on_where_its_row_stands(function):
    ours, _, values = function
    values = values[:4096]
    whole = ours(values).view(np.int32)
    for start in range(17):
        for length in (1, 2, 3, 5, 8, 13, 31, 64, 997):
            assert (ours(values[start : start + length].copy()).view(np.int32) == whole[start : start + length]).all()
    order = RANDOM.permutation(len(values))
    assert (ours(values[order]).view(np.int32) == whole[order]).all()


def test_no_multiply_add_is_fused(function):
    ours, _, values = function
    ours(values[:8])
    for signature in ours.loop.signatures:
        assembly = ours.loop.inspect_asm(signature)
        assert not [line for line in assembly.splitlines() if "vfmadd" in line or "vfmsub" in line or "fmla" in line]


def test_sigmoid_is_computed_in_float32_steps_as_xgboost_does():
    import xgboost

    values = around(-12, 12, 2000)
    data = xgboost.DMatrix(np.zeros((len(values), 1), np.float32), np.zeros(len(values)), base_margin=values)
    booster = xgboost.train({"objective": "binary:logistic", "eta": 0}, data, 1)
    assert (over_rows(exact_math.sigmoid)(values) == booster.predict(data)).mean() > 0.999


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("exp", -math.inf, 0.0),
        ("exp", 200.0, math.inf),
        ("log", 0.0, -math.inf),
        ("log", math.inf, math.inf),
        ("log1p", -1.0, -math.inf),
        ("tanh", 100.0, 1.0),
        ("tanh", -100.0, -1.0),
    ],
)
def test_ends_of_the_range(name, value, expected):
    assert FUNCTIONS[name][0](np.float32(value)) == expected


@pytest.mark.parametrize(("name", "value"), [("log", -1.0), ("log1p", -2.0)])
def test_logarithms_of_negative_numbers_are_undefined(name, value):
    assert math.isnan(FUNCTIONS[name][0](np.float32(value)))


@settings(deadline=None)  # the first call compiles
@given(st.floats(1e-3, 1e6))
def test_log_gamma_agrees_with_scipy(x):
    assert exact_math.log_gamma(x) == pytest.approx(special.gammaln(x), rel=1e-11, abs=1e-11)


@settings(deadline=None)  # the first call compiles
@given(st.floats(0.0, 2.0**100, width=32), st.floats(0.0, 2.0**100, width=32))
def test_hypotenuse_agrees_with_numpy(x, y):
    assert exact_math.hypotenuse(np.float32(x), np.float32(y)) == np.float32(np.hypot(np.float64(x), np.float64(y)))
