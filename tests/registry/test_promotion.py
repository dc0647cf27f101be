import json

import pytest

from lepton_pipelines.registry.champion import load_champion, load_version
from lepton_pipelines.registry.gates import GateResult
from lepton_pipelines.registry.promotion import CHAMPION, holder, promote, refuse, rollback, settle
from lepton_pipelines.registry.publishing import CHALLENGER, PUBLISHED_TAG, RUN_ID_TAG, publish
from lepton_pipelines.spec.errors import UserError

GOOD = GateResult("AUC ≥ 0.95", "score", 0.99, 0.95, True, "AUC is 0.99.")
BAD = GateResult("AUC better", "champion", 0.0, 0.001, False, "AUC +0.000, not better by the required 0.001.")


@pytest.fixture
def versions(tracking, model_name):
    """A maker of versions as publishing leaves them, without their files, which promotion does not read."""

    def make(count):
        client = tracking.client()
        client.create_registered_model(model_name)
        for place in range(count):
            tags = {RUN_ID_TAG: f"r-{place}", PUBLISHED_TAG: "true"}
            version = client.create_model_version(model_name, source="file:///gone", tags=tags)
            client.set_registered_model_alias(model_name, CHALLENGER, version.version)

    return make


@pytest.fixture
def aliases(tracking, model_name):
    return lambda: {
        alias: found.number for alias in (CHAMPION, CHALLENGER) if (found := holder(tracking, model_name, alias))
    }


def test_the_first_model_that_passes_is_champion(tracking, versions, model_name, aliases):
    versions(1)
    decision = settle(tracking, model_name, "1", [GOOD])
    assert decision.sentence == "v1 → champion: all 1 gates passed"
    assert aliases() == {CHAMPION: "1"}
    tags = tracking.client().get_model_version(model_name, "1").tags
    assert (tags["lepton.outcome"], tags["lepton.decided_by"]) == ("champion", "gates")
    assert json.loads(tags["lepton.gates"])[0]["figure"] == 0.99


def test_a_model_that_is_not_better_stays_challenger(tracking, versions, model_name, aliases):
    versions(2)
    settle(tracking, model_name, "1", [GOOD])
    decision = settle(tracking, model_name, "2", [GOOD, BAD])
    assert decision.sentence == ("v2 → challenger: AUC +0.000, not better by the required 0.001, champion stays v1")
    assert aliases() == {CHAMPION: "1", CHALLENGER: "2"}


def test_a_first_model_that_fails_is_not_champion(tracking, versions, model_name, aliases):
    versions(1)
    assert settle(tracking, model_name, "1", [BAD]).sentence.endswith("there is no champion yet")
    assert aliases() == {CHALLENGER: "1"}


def test_a_person_is_asked_where_the_spec_says_so(tracking, versions, model_name, aliases):
    versions(1)
    decision = settle(tracking, model_name, "1", [GOOD], promote="ask")
    assert "waits for a person's decision" in decision.sentence
    assert aliases() == {CHALLENGER: "1"}
    assert promote(tracking, model_name, "1", reason="looks right", by="Ada").outcome == "champion"
    assert aliases() == {CHAMPION: "1"}
    tags = tracking.client().get_model_version(model_name, "1").tags
    assert (tags["lepton.decided_by"], tags["lepton.reason"]) == ("Ada", "looks right")


def test_a_refusal_is_on_record_and_is_not_overruled_by_the_gates(tracking, versions, model_name, aliases):
    versions(1)
    refuse(tracking, model_name, "1", reason="the data window is wrong", by="Ada")
    assert aliases() == {}
    decision = settle(tracking, model_name, "1", [GOOD])
    assert (decision.outcome, decision.reason) == ("refused", "the data window is wrong")


def test_settling_twice_changes_nothing(tracking, versions, model_name, aliases):
    versions(1)
    assert settle(tracking, model_name, "1", [GOOD]) == settle(tracking, model_name, "1", [GOOD])
    assert aliases() == {CHAMPION: "1"}


def test_a_rollback_goes_back_and_further_back(tracking, versions, model_name, aliases):
    versions(3)
    for number in "123":
        settle(tracking, model_name, number, [GOOD])
    assert rollback(tracking, model_name, reason="complaints", by="Ada").champion == "2"
    assert rollback(tracking, model_name, reason="more complaints", by="Ada").champion == "1"
    assert aliases() == {CHAMPION: "1"}
    assert tracking.client().get_model_version(model_name, "3").tags["lepton.outcome"] == "rolled back"
    with pytest.raises(UserError, match="v1 replaced no version that still exists"):
        rollback(tracking, model_name, reason="again", by="Ada")


def test_a_rollback_steps_over_deleted_versions(tracking, versions, model_name, aliases):
    versions(3)
    for number in "123":
        settle(tracking, model_name, number, [GOOD])
    tracking.client().delete_model_version(model_name, "2")
    assert rollback(tracking, model_name, reason="complaints", by="Ada").champion == "1"


def test_a_version_that_was_rolled_back_can_be_promoted_again(tracking, versions, model_name, aliases):
    versions(2)
    for number in "12":
        settle(tracking, model_name, number, [GOOD])
    rollback(tracking, model_name, reason="complaints", by="Ada")
    promote(tracking, model_name, "2", reason="it was not the model", by="Ada")
    assert aliases() == {CHAMPION: "2"}
    assert rollback(tracking, model_name, reason="it was", by="Ada").champion == "1"


def test_an_alias_of_a_deleted_version_is_nobodys(tracking, versions, model_name, aliases):
    versions(2)
    settle(tracking, model_name, "1", [GOOD])
    tracking.client().delete_model_version(model_name, "1")
    assert holder(tracking, model_name, CHAMPION) is None
    assert load_champion(tracking, model_name) is None
    assert settle(tracking, model_name, "2", [GOOD]).champion == "2"
    assert aliases() == {CHAMPION: "2"}


def test_a_version_that_does_not_exist_is_named_with_those_that_do(tracking, versions, model_name):
    versions(2)
    with pytest.raises(UserError, match=r"no version 7 of .* It has v2, v1\."):
        promote(tracking, model_name, "7", reason="", by="Ada")
    with pytest.raises(UserError, match="no version 1 of 'nobody'"):
        promote(tracking, "nobody", "1", reason="", by="Ada")


def test_the_champion_is_rolled_back_and_not_refused(tracking, versions, model_name):
    versions(1)
    settle(tracking, model_name, "1", [GOOD])
    with pytest.raises(UserError, match="lepton rollback"):
        refuse(tracking, model_name, "1", reason="", by="Ada")


def test_the_champions_bytes_are_those_that_were_published(tracking, publication, model_name):
    told = publication()
    published = publish(tracking, told)
    assert load_champion(tracking, model_name) is None
    settle(tracking, model_name, published.version, [])
    found = load_champion(tracking, model_name)
    assert (found.model, found.digest, found.version) == (told.model, published.digest, "1")


def test_a_file_that_was_changed_after_publishing_is_not_used(tracking, publication, model_name):
    publish(tracking, publication())
    tracking.client().set_model_version_tag(model_name, "1", "lepton.model_digest", "00" * 32)
    with pytest.raises(UserError, match="not the file that was published"):
        load_version(tracking, model_name, "1")


def test_a_file_that_is_gone_is_named(tracking, versions, model_name):
    versions(1)
    with pytest.raises(UserError, match="registered but its file cannot be read"):
        load_version(tracking, model_name, "1")
