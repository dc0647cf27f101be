import numpy as np
import pytest
from sklearn import metrics

from lepton_pipelines.evaluation.fairness import GroupRows

GROUPS = ("young", "middle", "old")


@pytest.fixture
def rows(scored_rows):
    label, score = scored_rows(3000)
    group = np.random.default_rng(1).choice([0, 1, 2, np.nan], len(label), p=[0.5, 0.3, 0.15, 0.05])
    return label, score, group


def test_gaps_are_the_differences_of_sklearns_rates(rows):
    label, score, group = rows
    counted = GroupRows("age", GROUPS)
    found = counted.read(counted.count(label, score, group))
    parts = [group == 0, group == 1, group == 2, np.isnan(group)]
    selected = [(score[part] >= 0.5).mean() for part in parts]
    caught = [metrics.recall_score(label[part], score[part] >= 0.5) for part in parts]
    aucs = [metrics.roc_auc_score(label[part], score[part]) for part in parts]
    off = [abs(score[part].astype(np.float64).mean() - label[part].mean()) for part in parts]
    assert found.gaps["demographic_parity_gap"] == pytest.approx(max(selected) - min(selected), abs=1e-12)
    assert found.gaps["equal_opportunity_gap"] == pytest.approx(max(caught) - min(caught), abs=1e-12)
    assert found.gaps["auc_gap"] == pytest.approx(max(aucs) - min(aucs), abs=5e-3)
    assert found.gaps["calibration_gap"] == pytest.approx(max(off), abs=1e-6)


def test_vectors_of_parts_add_up_to_the_vector_of_the_whole(rows):
    label, score, group = rows
    counted = GroupRows("age", GROUPS)
    whole = counted.count(label, score, group)
    halves = [counted.count(label[s], score[s], group[s]) for s in (slice(None, 1234), slice(1234, None))]
    assert np.array_equal(halves[0] + halves[1], whole)
    assert whole.shape == (counted.length,)
    assert whole.max() <= counted.bound(len(label))


def test_a_small_group_is_neither_shown_nor_compared(rows):
    label, score, _ = rows
    group = np.where(np.arange(len(label)) < 19, 2, np.arange(len(label)) % 2)
    counted = GroupRows("age", GROUPS)
    found = counted.read(counted.count(label, score, group))
    small = found.groups[2]
    assert (small.group, small.rows, small.selection_rate) == ("old", None, None)
    assert found.gaps["demographic_parity_gap"] < 0.1


def test_one_group_alone_has_no_gap(rows):
    label, score, _ = rows
    counted = GroupRows("age", GROUPS)
    assert counted.read(counted.count(label, score, np.zeros(len(label)))).gaps == {}


def test_a_group_beyond_the_contract_is_refused(rows):
    label, score, _ = rows
    with pytest.raises(ValueError, match="'age' does not list"):
        GroupRows("age", GROUPS).count(label, score, np.full(len(label), 3))
