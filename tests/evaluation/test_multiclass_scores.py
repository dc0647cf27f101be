import numpy as np
import pytest
from sklearn import metrics

from lepton_pipelines.evaluation.multiclass_scores import MulticlassScores
from lepton_pipelines.evaluation.score_histogram import score_histogram, task_of
from lepton_pipelines.spec.errors import UserError

CLASSES = ("calm", "busy", "jammed")


@pytest.fixture
def rows():
    rng = np.random.default_rng(3)
    margin = rng.normal(0, 1.5, (4000, 3))
    label = (margin + rng.gumbel(0, 1, margin.shape)).argmax(axis=1).astype(np.float32)
    score = np.exp(margin) / np.exp(margin).sum(axis=1, keepdims=True)
    return label, score.astype(np.float32)


def test_scores_are_sklearns(rows):
    label, score = rows
    histogram = MulticlassScores(CLASSES)
    found = histogram.read(histogram.count(label, score))
    exact = score.astype(np.float64)
    assert found.scores["mlogloss"] == pytest.approx(
        metrics.log_loss(label, exact / exact.sum(axis=1, keepdims=True)), abs=1e-6
    )
    assert found.scores["merror"] == pytest.approx(1 - metrics.accuracy_score(label, score.argmax(axis=1)))
    assert np.array_equal(found.confusion.counts, metrics.confusion_matrix(label, score.argmax(axis=1)))
    for code, name in enumerate(CLASSES):
        expected = metrics.roc_auc_score(label == code, score[:, code])
        assert found.class_auc[name] == pytest.approx(expected, abs=5e-3)


def test_weights_count_as_sklearn_counts_them(rows):
    label, score = rows
    weight = np.random.default_rng(0).uniform(0, 2, len(label))
    histogram = MulticlassScores(CLASSES, largest_weight=2.0)
    found = histogram.read(histogram.count(label, score, weight)).scores
    assert found["accuracy"] == pytest.approx(
        metrics.accuracy_score(label, score.argmax(axis=1), sample_weight=weight), abs=1e-4
    )


@pytest.mark.parametrize("cut", [0, 1, 1777, 4000])
def test_vectors_of_parts_add_up_to_the_vector_of_the_whole(rows, cut):
    label, score = rows
    histogram = MulticlassScores(CLASSES)
    whole = histogram.count(label, score)
    assert np.array_equal(histogram.count(label[:cut], score[:cut]) + histogram.count(label[cut:], score[cut:]), whole)
    assert whole.shape == (histogram.length,)
    assert whole.max() <= histogram.bound(len(label))


def test_a_class_without_rows_has_no_auc(rows):
    label, score = rows
    histogram = MulticlassScores(CLASSES)
    found = histogram.read(histogram.count(label[label < 2], score[label < 2]))
    assert set(found.class_auc) == {"calm", "busy"}
    assert "auc" not in found.scores


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="1 of 1 labels are no class code from 0 to 2"):
        MulticlassScores(CLASSES).count([3], [[0.2, 0.3, 0.5]])


def test_an_objective_without_evaluation_is_named():
    with pytest.raises(UserError, match="no evaluation for rank:ndcg"):
        task_of("rank:ndcg")
    assert isinstance(score_histogram("multi:softprob", classes=CLASSES), MulticlassScores)
