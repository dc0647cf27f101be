import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from lepton_pipelines.evaluation.binary_scores import CELLS, BinaryScores, log_odds_cells


def figures(label, score, weight=None, **settings):
    histogram = BinaryScores(**settings)
    return histogram.read(histogram.count(label, score, weight))


@pytest.mark.parametrize("rows", [50, 4000, 100_000])
def test_auc_is_sklearns_within_the_stated_resolution(scored_rows, rows):
    label, score = scored_rows(rows)
    found = figures(label, score)
    assert abs(found.scores["auc"] - metrics.roc_auc_score(label, score)) <= found.auc_resolution + 1e-12
    assert found.auc_resolution < 2e-3


def test_auc_of_scores_that_are_cells_apart_is_exact(scored_rows):
    label, score = scored_rows(300)
    _, first = np.unique(log_odds_cells(score.astype(np.float64)), return_index=True)
    found = figures(label[first], score[first])
    assert found.auc_resolution == 0
    assert found.scores["auc"] == pytest.approx(metrics.roc_auc_score(label[first], score[first]), abs=1e-12)


def test_aucpr_is_xgboosts_on_the_binned_scores(scored_rows):
    label, score = scored_rows(5000)
    binned = log_odds_cells(score.astype(np.float64)).astype(np.float32)
    matrix = xgboost.DMatrix(np.zeros((len(label), 1)), label=label, base_margin=binned)
    booster = xgboost.train({"objective": "reg:squarederror", "eval_metric": "aucpr"}, matrix, num_boost_round=0)
    expected = float(booster.eval(matrix).partition("aucpr:")[2])
    assert figures(label, score).scores["aucpr"] == pytest.approx(expected, abs=2e-5)  # it prints few digits
    assert figures(label, score).scores["aucpr"] == pytest.approx(
        metrics.average_precision_score(label, score), abs=2e-3
    )


def test_log_loss_and_brier_score_are_sklearns(scored_rows):
    label, score = scored_rows(20_000)
    found = figures(label, score).scores
    assert found["logloss"] == pytest.approx(metrics.log_loss(label, score.astype(np.float64)), abs=1e-7)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(label, score), abs=1e-7)


def test_a_probability_of_zero_or_one_that_is_wrong_costs_what_xgboost_counts():
    found = figures([1, 0, 1, 0], np.array([0, 1, 1, 0], dtype=np.float32)).scores
    assert found["logloss"] == pytest.approx(-np.log(1e-16) / 2, rel=1e-6)


def test_weights_count_as_sklearn_counts_them(scored_rows):
    label, score = scored_rows(3000)
    weight = np.random.default_rng(1).uniform(0, 3, len(label))
    found = figures(label, score, weight, largest_weight=3.0)
    expected = metrics.roc_auc_score(label, score, sample_weight=weight)
    assert abs(found.scores["auc"] - expected) <= found.auc_resolution + 1e-5
    assert found.scores["logloss"] == pytest.approx(
        metrics.log_loss(label, score.astype(np.float64), sample_weight=weight), abs=1e-4
    )


def test_confusion_is_sklearns_at_a_threshold(scored_rows):
    label, score = scored_rows(2000)
    for threshold in (0.5, 0.2, 0.9):
        found = figures(label, score, threshold=threshold).confusion
        assert found.threshold == pytest.approx(threshold, abs=2e-3)
        expected = metrics.confusion_matrix(label, score >= found.threshold)
        assert np.abs(np.array(found.counts) - expected).max() <= 1  # a score on the edge itself may round over it


def test_precision_and_recall_are_sklearns_at_one_half(scored_rows):
    label, score = scored_rows(2000)
    found = figures(label, score).scores
    assert found["precision"] == pytest.approx(metrics.precision_score(label, score >= 0.5))
    assert found["recall"] == pytest.approx(metrics.recall_score(label, score >= 0.5))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(label, score >= 0.5))


def test_calibration_table_is_what_the_rows_say(scored_rows):
    label, score = scored_rows(5000)
    gap = 0.0
    for one in figures(label, score).calibration:
        inside = (score >= one.low) & ((score < one.high) | (one.high == 1))
        assert one.rows == inside.sum()
        assert one.predicted == pytest.approx(score[inside].mean(), abs=1e-6)
        assert one.observed == pytest.approx(label[inside].mean(), abs=1e-12)
        gap += inside.mean() * abs(score[inside].mean() - label[inside].mean())
    assert figures(label, score).scores["calibration_error"] == pytest.approx(gap, abs=1e-6)


def test_the_roc_curve_encloses_the_auc(scored_rows):
    label, score = scored_rows(5000)
    found = figures(label, score)
    assert metrics.auc(found.roc.x, found.roc.y) == pytest.approx(found.scores["auc"], abs=2e-3)
    assert (found.roc.x[0], found.roc.y[0], found.roc.x[-1], found.roc.y[-1]) == (0, 0, 1, 1)


rows_of_scores = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0])),
        hnp.arrays(np.float32, n, elements=st.floats(0, 1, width=32)),
        st.integers(0, n),
    )
)


@settings(max_examples=60, deadline=None)
@given(rows_of_scores)
def test_vectors_of_parts_add_up_to_the_vector_of_the_whole(rows):
    label, score, cut = rows
    histogram = BinaryScores()
    parts = [histogram.count(label[s], score[s]) for s in (slice(None, cut), slice(cut, None))]
    whole = histogram.count(label, score)
    assert np.array_equal(parts[0] + parts[1], whole)
    assert whole.shape == (histogram.length,)
    assert whole.dtype == np.int64
    assert np.abs(whole).max() <= histogram.bound(len(label))


@settings(max_examples=60, deadline=None)
@given(rows_of_scores)
def test_any_rows_can_be_read(rows):
    label, score, _ = rows
    found = figures(label, score)
    assert found.rows == len(label)
    assert ("auc" in found.scores) == (0 < label.sum() < len(label))
    if "auc" in found.scores:
        assert abs(found.scores["auc"] - metrics.roc_auc_score(label, score)) <= found.auc_resolution + 1e-9


def test_cells_are_ordered_as_scores_are():
    scores = np.concatenate([[0.0], np.sort(np.random.default_rng(2).uniform(0, 1, 1000)), [1.0]])
    cells = log_odds_cells(scores)
    assert (np.diff(cells) >= 0).all()
    assert (cells[0], cells[-1]) == (0, CELLS - 1)
    assert log_odds_cells(np.array([0.5]))[0] == CELLS // 2


def test_rows_of_one_label_have_no_auc_and_no_curve():
    found = figures([1, 1, 1], [0.2, 0.4, 0.9])
    assert "auc" not in found.scores
    assert found.roc.x == []
    assert found.scores["logloss"] > 0


def test_no_rows_have_no_scores():
    found = figures([], [])
    assert found.rows == 0
    assert found.scores == {}


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([0, 2], [0.5, 0.5], "1 of 2 labels are neither 0 nor 1"),
        ([0, np.nan], [0.5, 0.5], "1 of 2 labels are neither 0 nor 1"),
        ([0, 1], [0.5, 1.5], "1 of 2 predictions are no probabilities"),
        ([0, 1], [np.nan, np.nan], "2 of 2 predictions are no probabilities"),
        ([0, 1], [0.5], "2 labels and 1 predictions"),
    ],
)
def test_what_cannot_be_counted_is_refused(label, score, message):
    with pytest.raises(ValueError, match=message):
        BinaryScores().count(label, score)


def test_weights_that_the_contract_does_not_have_are_refused():
    with pytest.raises(ValueError, match="declares no weight column"):
        BinaryScores().count([0, 1], [0.5, 0.5], [1, 1])
    with pytest.raises(ValueError, match="1 of 2 weights are not between 0 and 2"):
        BinaryScores(largest_weight=2).count([0, 1], [0.5, 0.5], [1, 3])
