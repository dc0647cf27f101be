import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lepton_pipelines.evaluation.drift import (
    ColumnBins,
    DriftCounts,
    affordable_bins,
    chance_limit,
    coarse_edges,
    compare_column,
    decay,
    label_bins,
    population_stability_index,
    score_bins,
)
from lepton_pipelines.evaluation.result import DriftReport

EDGES = tuple(np.linspace(-2, 2, 19).tolist())
NUMBER, SITE = ColumnBins("size", edges=EDGES), ColumnBins("site", categories=3)
COUNTED = DriftCounts((NUMBER, SITE))


def rows(count, seed=0, shift=0.0, missing=0.05, shares=(0.5, 0.3, 0.2)):
    rng = np.random.default_rng(seed)
    number = np.where(rng.random(count) < missing, np.nan, rng.normal(shift, 1, count))
    return np.column_stack([number, rng.choice(3, count, p=shares)])


def compared(before, now):
    return COUNTED.compare(COUNTED.count(before), COUNTED.count(now))


def test_the_statistic_is_scipys_on_the_bins():
    before, now = rows(3000), rows(2000, 1, shift=0.3)
    binned = [np.digitize(one[~np.isnan(one[:, 0]), 0], EDGES) for one in (before, now)]
    expected = stats.ks_2samp(*binned, method="asymp").statistic
    assert compared(before, now)[0].ks == pytest.approx(expected, abs=1e-12)


def test_the_index_is_the_divergence_both_ways():
    before, now = np.array([500, 300, 150, 50]), np.array([400, 350, 150, 100])
    p, q = (before + 0.5) / (before.sum() + 2), (now + 0.5) / (now.sum() + 2)
    expected = stats.entropy(p, q) + stats.entropy(q, p)
    assert population_stability_index(before, now) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(200, 300), (5000, 5000), (40, 10_000)])
def test_the_limit_is_where_scipy_finds_chance_one_in_a_hundred(n, m):
    limit = chance_limit(n, m)
    assert stats.kstwobign.sf(limit * np.sqrt(n * m / (n + m))) == pytest.approx(0.01, rel=1e-3)


def test_categories_are_compared_by_total_variation():
    before, now = rows(4000), rows(4000, 1, shares=(0.2, 0.3, 0.5))
    shares = [np.bincount(one[:, 1].astype(int), minlength=3) / 4000 for one in (before, now)]
    line = compared(before, now)[1]
    assert line.ks == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    assert line.drifted


def test_rows_of_one_population_have_not_moved():
    assert not any(line.drifted for seed in range(20) for line in compared(rows(500), rows(300, seed + 1)))


def test_a_shift_is_seen_and_a_small_sample_of_it_is_not_believed():
    assert compared(rows(5000), rows(2000, 1, shift=1))[0].drifted
    line = compared(rows(5000), rows(6, 1, shift=0.5))[0]
    assert line.psi > line.psi_limit
    assert not line.drifted


def test_values_that_go_missing_are_drift():
    line = compared(rows(3000, missing=0.0), rows(3000, 1, missing=0.4))[0]
    assert (line.missing_before, line.drifted) == (0.0, True)
    assert line.missing_now == pytest.approx(0.4, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_vectors_of_parts_add_up_to_the_vector_of_the_whole(count, cut):
    some = rows(count)
    whole = COUNTED.count(some)
    assert np.array_equal(COUNTED.count(some[:cut]) + COUNTED.count(some[cut:]), whole)
    assert whole.shape == (COUNTED.length,)
    assert whole.max(initial=0) <= COUNTED.bound(count)
    assert whole.sum() == 2 * count


def test_no_fresh_rows_are_no_drift():
    assert [line.drifted for line in compared(rows(100), rows(0))] == [False, False]


def test_a_code_beyond_the_contract_is_refused():
    with pytest.raises(ValueError, match="1 rows have a code in 'site' that is none of its 3"):
        COUNTED.count([[0.0, 3.0]])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=60), st.integers(1, 20), st.integers(1, 50))
def test_coarse_bins_hold_enough_rows_and_are_not_too_many(counts, bins, smallest):
    edges = np.arange(len(counts) - 1, dtype=float)
    chosen = coarse_edges(edges, counts, bins=bins, smallest=smallest)
    ends = np.searchsorted(edges, chosen) + 1
    held = [part.sum() for part in np.split(np.array(counts), ends)]
    assert len(chosen) < max(2, bins)
    assert all(rows >= smallest for rows in held) or len(chosen) == 0


def test_few_fresh_rows_are_counted_in_few_bins():
    assert [affordable_bins(count, 20) for count in (10, 100, 100_000)] == [2, 5, 20]


def test_labels_and_predictions_are_columns_like_others():
    counted = DriftCounts((label_bins("malignant", classes=2), score_bins()))
    before = counted.count(np.column_stack([np.arange(1000) % 2, np.linspace(0, 1, 1000)]))
    now = counted.count(np.column_stack([np.ones(1000), np.linspace(0.8, 1, 1000)]))
    assert [line.drifted for line in counted.compare(before, now)] == [True, True]


def test_decay_is_counted_in_the_metrics_own_direction():
    assert decay({"auc": 0.9, "logloss": 0.2, "r2": 1.0}, {"auc": 0.8, "logloss": 0.3}) == pytest.approx(
        {"auc": 0.1, "logloss": 0.1}
    )


def test_a_report_says_why_to_train_again():
    moved = compare_column(SITE, np.array([500, 300, 200, 0]), np.array([100, 300, 600, 0]))
    report = DriftReport(
        rows_before=1000, rows_now=1000, columns=[moved], decay={"auc": 0.05}, decay_limits={"auc": 0.02}
    )
    assert [reason.split(" (")[0] for reason in report.reasons] == [
        "site moved",
        "auc is worse by 0.050, limit 0.020",
    ]
    assert DriftReport(rows_before=1, rows_now=1, columns=[]).reasons == []
