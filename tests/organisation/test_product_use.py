"""The terms of a product are kept where its rows are: at the start of a run in one process, and at each tree."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lepton_pipelines.ledger.statement import read_entry
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.market import dealing
from lepton_pipelines.market.errors import TermsRefused
from lepton_pipelines.organisation.market_place import LocalMarket
from lepton_pipelines.organisation.product_use import ProductUse
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import read_pipeline

ROOT = Path(__file__).parents[2]
PRODUCT, PURPOSE = "harbour/patients", "breast cancer screening"


@pytest.fixture
def example(tmp_path):
    """The healthcare pipeline with a purpose, and a market in which harbour offers its rows."""
    for file in (ROOT / "examples/healthcare").glob("*.yaml"):
        shutil.copy(file, tmp_path)
    spec = tmp_path / "pipeline.yaml"
    spec.write_text(spec.read_text() + f"purpose: {PURPOSE}\n")
    (tmp_path / "product.yaml").write_text(
        "product: patients\norganisation: harbour\ntitle: Needle aspirates\ncontract: contract.odcs.yaml\n"
    )
    var = tmp_path / "var"
    dealing.publish(LocalMarket(var, "harbour"), tmp_path / "product.yaml")
    own = Organisation(organisation="harbour", data="x", product="patients")
    return SimpleNamespace(var=var, use=lambda run="r-1": ProductUse(read_pipeline(spec), own, var, run))


def told(var, kind):
    view = verify_ledger(var / "ledger" / "harbour").view
    return [entry.predicate for entry in map(read_entry, view.entries()) if entry.kind == kind]


def test_a_run_without_a_grant_is_refused_and_the_ledger_says_by_which_clause(example):
    with pytest.raises(TermsRefused, match="lepton market request harbour/patients"):
        example.use().begin()
    (noted,) = told(example.var, "policy-refused")
    assert (noted.run, noted.clause, noted.author.organisation) == ("r-1", "grant", "harbour")


def test_a_check_without_a_run_leaves_nothing_in_the_ledger(example):
    with pytest.raises(TermsRefused):
        example.use("").begin()
    assert told(example.var, "policy-refused") == []


def test_a_grant_that_is_revoked_in_mid_run_stops_it_at_the_next_tree(example):
    number = dealing.request(LocalMarket(example.var, "north"), dealing.Request(PRODUCT, PURPOSE))
    dealing.give(LocalMarket(example.var, "harbour"), PRODUCT, number)
    use = example.use()
    use.begin()
    for _ in range(3):
        use.check()
    dealing.revoke(LocalMarket(example.var, "harbour"), PRODUCT, number, "the study has ended")
    with pytest.raises(TermsRefused, match=r"revoked \(the study has ended\)"):
        use.check()


def test_a_product_that_was_never_published_allows_nothing(example, tmp_path):
    own = Organisation(organisation="valley", data="x", product="patients")
    with pytest.raises(TermsRefused, match="valley/patients is not published") as refused:
        ProductUse(read_pipeline(tmp_path / "pipeline.yaml"), own, tmp_path / "elsewhere", "").begin()
    assert refused.value.clause == "product"
