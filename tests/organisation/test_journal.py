"""An organisation lets no more runs begin in a week than its policy says."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from lepton_pipelines.organisation.journal import Journal
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation


@pytest.fixture
def harbour():
    return Organisation.model_validate({"organisation": "harbour", "data": "d/", "policy": {"runs_per_week": 2}})


@pytest.fixture
def journal(tmp_path):
    return Journal.of(tmp_path, "harbour")


def test_a_third_run_within_a_week_is_refused_and_told_when_it_may_begin(journal, harbour):
    journal.note("a", "p")
    journal.note("b", "p")
    with pytest.raises(UserError, match=r"harbour: policy.runs_per_week is 2.* The next may begin at 20\d\d-"):
        journal.check(harbour, "c")


def test_a_run_that_goes_on_does_not_count_again(journal, harbour):
    for _ in range(3):
        journal.note("a", "p")
    journal.note("b", "p")
    journal.check(harbour, "b")
    assert len(journal.path.read_text().splitlines()) == 2


def test_runs_of_the_week_before_do_not_count(journal, harbour):
    journal.path.parent.mkdir(parents=True)
    old = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    journal.path.write_text(json.dumps({"run": "old", "pipeline": "p", "began": old}) + "\n")
    journal.note("a", "p")
    journal.check(harbour, "c")
