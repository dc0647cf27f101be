"""Models on offer: only what the ledger knows, only by its digest, and registered elsewhere with its origin."""

import json

import numpy as np
import pytest
import xgboost

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.errors import DocumentRefused, EntryRefused
from lepton_pipelines.ledger.predicate import digest_of
from lepton_pipelines.market.errors import MarketRefused
from lepton_pipelines.market.models import (
    Card,
    CardColumn,
    model_file,
    model_offer,
    model_offers,
    offer_model,
    withdraw_model,
)
from lepton_pipelines.organisation.model_market import pull
from lepton_pipelines.registry.tracking import open_tracking

DIGEST = "ab" * 32
MEMBERS = ["harbour", "north", "valley"]


@pytest.fixture(scope="module")
def model():
    """A stock model of two columns."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(200, 2))
    data = xgboost.DMatrix(rows, (rows[:, 0] > 0).astype(float), feature_names=["a", "b"], feature_types=["float"] * 2)
    return bytes(xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 3).save_raw("ubj"))


@pytest.fixture
def card():
    columns = [CardColumn(name=name, kind="number", missing=True) for name in "ab"]
    return Card(
        title="Is it malignant?", licence="CC-BY-4.0", objective="binary:logistic", label="malignant",
        columns=columns, scores={"auc": 0.99}, run="r-1", members=MEMBERS,
    )  # fmt: skip


@pytest.fixture
def published(market, model):
    """North's model of a run of three, in the ledger."""
    places = {name: market.of(name) for name in MEMBERS}
    for place in places.values():
        place.history()
    north, digest = places["north"], digest_of(model)
    north.record(
        entries.RunOpened, run="r-1", pipeline="p", members=MEMBERS, manifest=DIGEST, spec=DIGEST, code_version="1"
    )
    for place in places.values():
        place.record(entries.RunJoined, run="r-1", manifest=DIGEST, dataset=f"hmac-sha256:{DIGEST}")
    north.record(entries.RunFinished, run="r-1", manifest=DIGEST, trees=3, model=digest)
    north.record(entries.ModelPublished, model="m", version=1, run="r-1", digest=digest)
    return places


def test_what_is_offered_is_found_by_everybody_and_withdrawn_by_its_owner(published, model, card):
    assert offer_model(published["north"], "m", 1, model, card) == "north/m"
    (found,) = model_offers(published["valley"], "malignant")
    assert (found.id, found.version, found.card) == ("north/m", 1, card)
    assert model_file(published["valley"], found) == model
    assert model_offers(published["valley"], "retail") == []
    with pytest.raises(EntryRefused, match="valley cannot speak for north/m"):
        withdraw_model(published["valley"], "north/m", None, "mine now")
    withdraw_model(published["north"], "north/m", None, "superseded")
    with pytest.raises(MarketRefused, match="north/m is not on offer"):
        model_offer(published["valley"], "north/m")


def test_only_the_file_that_was_published_is_offered_and_only_by_who_published_it(published, model, card):
    with pytest.raises(MarketRefused, match="not the one that was published"):
        offer_model(published["north"], "m", 1, model + b" ", card)
    with pytest.raises(MarketRefused, match="valley has published no m v1"):
        offer_model(published["valley"], "m", 1, model, card)
    with pytest.raises(EntryRefused, match="was not published with this digest"):
        published["north"].record(entries.ModelOffered, offer="north/m", version=1, digest=DIGEST, card=DIGEST)


def test_a_file_that_was_changed_since_is_not_pulled(published, model, card, tmp_path):
    offer_model(published["north"], "m", 1, model, card)
    found = model_offer(published["valley"], "north/m")
    file = tmp_path / "var" / "ledger" / "_log" / "documents" / found.digest
    file.write_bytes(model[:-1] + b"x")
    with pytest.raises(DocumentRefused, match="was changed"):
        model_file(published["valley"], found)


@pytest.mark.slow
def test_a_pulled_model_is_in_the_pullers_own_registry_with_its_origin_and_predicts_the_same(
    published, model, card, tmp_path
):
    import mlflow

    offer_model(published["north"], "m", 1, model, card)
    found = model_offer(published["valley"], "north/m")
    tracking = open_tracking(folder=tmp_path / "valleys-own")
    for _ in range(2):
        version, lineage = pull(published["valley"], tmp_path / "var" / "ledger" / "valley", tracking, found)
    assert (version.registered_model, version.version, version.digest) == ("north.m", "1", digest_of(model))
    assert any("north published as m v1" in line for line in lineage.proved)
    stored = tracking.client().get_run(version.mlflow_run_id)
    assert stored.data.tags["lepton.origin"] == "north/m/1"
    with tracking.as_current():
        served = mlflow.xgboost.load_model("models:/north.m/1")
    rows = np.random.default_rng(6).normal(size=(20, 2))
    mine = xgboost.DMatrix(rows, feature_names=["a", "b"], feature_types=["float"] * 2)
    stock = xgboost.Booster(model_file=bytearray(model))
    np.testing.assert_array_equal(getattr(served, "get_booster", lambda: served)().predict(mine), stock.predict(mine))


def test_a_card_with_control_characters_is_refused(card):
    told = json.loads(card.model_dump_json())
    with pytest.raises(ValueError, match="title"):
        Card.model_validate({**told, "title": "\x1b[2J"})
