import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from lepton_pipelines.evaluation.regression_scores import (
    MAGNITUDE_LENGTH,
    RegressionScores,
    count_magnitudes,
    read_magnitudes,
)
from lepton_pipelines.evaluation.score_histogram import score_histogram


def histogram_of(label, prediction, **settings):
    return RegressionScores(read_magnitudes(count_magnitudes(label, prediction)), **settings)


def figures(label, prediction, weight=None, **settings):
    histogram = histogram_of(label, prediction, **settings)
    return histogram.read(histogram.count(label, prediction, weight))


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (1e-6, 0), (1e9, 0), (3, 2000), (80, 100)])
def test_scores_are_sklearns_at_any_scale(scale, shift):
    rng = np.random.default_rng(0)
    label = (rng.normal(0, scale, 5000) + shift).astype(np.float32)
    prediction = (label + rng.normal(0, scale / 3, 5000)).astype(np.float32)
    found = figures(label, prediction).scores
    y, p = label.astype(np.float64), prediction.astype(np.float64)
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, p), rel=1e-6)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, p), rel=1e-6)
    assert found["r2"] == pytest.approx(metrics.r2_score(y, p), rel=1e-4)
    assert found["mean_error"] == pytest.approx((p - y).mean(), abs=1e-6 * scale)


def test_an_outlier_does_not_drown_the_rest():
    label = np.append(np.random.default_rng(0).normal(0, 1, 1000), 1e5)
    prediction = np.append(label[:-1] + 0.01, 1e5)
    assert figures(label, prediction).scores["rmse"] == pytest.approx(
        metrics.root_mean_squared_error(label, prediction), rel=1e-4
    )


def test_weights_count_as_sklearn_counts_them():
    rng = np.random.default_rng(0)
    label, weight = rng.gamma(2, 50, 3000), rng.uniform(0, 5, 3000)
    prediction = label + rng.normal(0, 20, 3000)
    found = figures(label, prediction, weight, largest_weight=5.0).scores
    assert found["rmse"] == pytest.approx(
        metrics.root_mean_squared_error(label, prediction, sample_weight=weight), rel=1e-5
    )
    assert found["r2"] == pytest.approx(metrics.r2_score(label, prediction, sample_weight=weight), rel=1e-5)


def test_histograms_hold_every_row():
    rng = np.random.default_rng(0)
    label = rng.gamma(2, 50, 3000)
    prediction = label + rng.normal(0, 20, 3000)
    found = figures(label, prediction)
    assert sum(found.error_counts) == sum(map(sum, found.joint)) == 3000
    expected, _, _ = np.histogram2d(label, prediction, bins=[found.value_edges] * 2)
    assert np.abs(np.array(found.joint)[:-1, :-1][1:, 1:] - expected[:-1, :-1][1:, 1:]).max() == 0


pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float32, n, elements=st.floats(-(2.0**60), 2.0**60, width=32)),
        hnp.arrays(np.float32, n, elements=st.floats(-(2.0**60), 2.0**60, width=32)),
        st.integers(0, n),
    )
)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_vectors_of_parts_add_up_to_the_vector_of_the_whole(rows):
    label, prediction, cut = rows
    parts = (slice(None, cut), slice(cut, None))
    magnitudes = sum(count_magnitudes(label[s], prediction[s]) for s in parts)
    assert np.array_equal(magnitudes, count_magnitudes(label, prediction))
    assert magnitudes.shape == (MAGNITUDE_LENGTH,)
    histogram = RegressionScores(read_magnitudes(magnitudes))
    whole = histogram.count(label, prediction)
    assert np.array_equal(sum(histogram.count(label[s], prediction[s]) for s in parts), whole)
    assert np.abs(whole).max() <= histogram.bound(len(label)) < 2**63
    error = metrics.mean_absolute_error(label.astype(np.float64), prediction.astype(np.float64))
    assert histogram.read(whole).scores["mae"] == pytest.approx(error, rel=1e-6, abs=1e-18)


def test_labels_that_are_all_equal_have_no_r2():
    assert "r2" not in figures([5.0, 5.0, 5.0], [4.0, 5.0, 6.0]).scores


def test_rows_that_changed_between_the_sums_are_refused():
    histogram = histogram_of([1.0, 2.0], [1.5, 2.5])
    with pytest.raises(ValueError, match="rows have changed"):
        histogram.count([100.0], [1.0])


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="1 of 2 labels are not finite"):
        count_magnitudes([np.nan, 1], [1, 1])
    with pytest.raises(ValueError, match="no rows"):
        read_magnitudes(count_magnitudes([], []))


def test_a_regression_is_counted_after_its_magnitudes():
    with pytest.raises(ValueError, match="total of count_magnitudes"):
        score_histogram("reg:squarederror")
    built = score_histogram("count:poisson", magnitudes=count_magnitudes([1.0], [2.0]))
    assert isinstance(built, RegressionScores)
