"""The market as its members see it: a view of the ledger, enforced by the owner's own copy."""

import dataclasses
from datetime import date

import pytest

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.errors import DocumentRefused, EntryRefused
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.market import dealing
from lepton_pipelines.market.catalogue import offer, search, serves, usage
from lepton_pipelines.market.errors import MarketRefused, TermsRefused
from lepton_pipelines.market.guard import allowed, check_grant
from lepton_pipelines.organisation.market_place import LocalMarket
from lepton_pipelines.spec.contract import Column, read_contract
from lepton_pipelines.spec.errors import UserError

PRODUCT = "harbour/patients"
PURPOSE = "breast cancer screening"


def may(market, use, product=PRODUCT):
    """Ask the owner's own copy of the ledger."""
    place = market.of(product.split("/")[0])
    return allowed(place.history(), place.get, product, use)


def test_what_is_published_is_found_by_everybody_with_its_contract_and_terms(market):
    market.publish(terms="{runs: 2, max_depth: 6}")
    for name in ("north", "harbour"):
        (found,) = search(
            market.of(name), "aspirates", domain="healthcare", columns=("mean_radius",), label="malignant",
            objective="binary:logistic",
        )  # fmt: skip
        assert (found.id, found.entry.terms.rows, found.terms.runs) == (PRODUCT, 187, 2)
        assert found.contract.label.name == "malignant"
    for missed in ({"text": "aspirates retail"}, {"domain": "finance"}, {"columns": ("price",)}, {"label": "x"}):
        assert search(market.of("north"), **missed) == []


@pytest.mark.parametrize(
    ("label", "objectives"),
    [
        ({"kind": "boolean"}, "binary multi"),
        ({"kind": "category", "categories": ["no", "yes"]}, "binary multi"),
        ({"kind": "category", "categories": ["a", "b", "c"]}, "multi"),
        ({"integer": True, "minimum": 0, "maximum": 1}, "binary multi reg"),
        ({"minimum": 0.5}, "reg"),
    ],
)
def test_a_label_is_found_by_what_it_can_be_trained_for(label, objectives):
    column = Column(name="y", role="label", **label)
    names = {"binary": "binary:logistic", "multi": "multi:softprob", "reg": "reg:squarederror"}
    assert {name for name, objective in names.items() if serves(column, objective)} == set(objectives.split())


def test_who_has_rows_that_fit_my_contract(market, tmp_path):
    market.publish()
    mine = read_contract(tmp_path / "contract.odcs.yaml")
    assert [one.id for one in search(market.of("north"), fits=mine)] == [PRODUCT]
    columns = [column for column in mine.columns if column.name != "mean_radius"]
    fewer = mine.model_copy(update={"columns": tuple(columns)})
    assert search(market.of("north"), fits=fewer) == []


def test_publishing_the_same_again_changes_nothing_and_new_terms_are_a_new_version(market):
    assert dealing.publish(market.of("harbour"), market.write()) == (PRODUCT, 1, True)
    assert dealing.publish(market.of("harbour"), market.write()) == (PRODUCT, 1, False)
    assert dealing.publish(market.of("harbour"), market.write(terms="{runs: 3}")) == (PRODUCT, 2, True)


def test_fewer_rows_than_the_disclosure_limit_are_not_told(market):
    spec = market.write()
    spec.write_text(spec.read_text().replace("rows: 187", "rows: 19"))
    dealing.publish(market.of("harbour"), spec)
    assert offer(market.of("north"), PRODUCT).entry.terms.rows is None


def test_nobody_publishes_under_anothers_name(market):
    with pytest.raises(MarketRefused, match="the product is harbour's, but you speak for north"):
        dealing.publish(market.of("north"), market.write("harbour"))
    market.publish()
    terms = offer(market.of("north"), PRODUCT).entry.terms
    with pytest.raises(EntryRefused, match="north cannot speak for harbour/patients"):
        market.of("north").record(
            entries.ProductChanged, product=PRODUCT, version=2, contract=terms.contract, terms=terms.terms
        )


def test_two_organisations_may_use_one_name(market):
    assert {market.publish("harbour"), market.publish("north")} == {PRODUCT, "north/patients"}


def test_a_grant_lets_the_one_who_asked_train_and_nobody_else(market, use):
    market.publish()
    with pytest.raises(TermsRefused, match="north has no grant") as refused:
        may(market, use)
    assert refused.value.clause == "grant"
    number = market.granted()
    assert may(market, use) == number
    with pytest.raises(TermsRefused, match="valley has no grant"):
        may(market, dataclasses.replace(use, publisher="valley"))
    assert may(market, dataclasses.replace(use, publisher="harbour")) is None


def test_a_grant_for_one_product_opens_no_other_of_the_same_owner(market, use):
    market.publish()
    other = market.publish(name="visits")
    number = market.granted()
    assert may(market, use) == number
    with pytest.raises(TermsRefused, match="north has no grant") as refused:
        may(market, use, other)
    assert refused.value.clause == "grant"


def test_a_request_that_waits_or_was_refused_allows_nothing_and_says_why(market, use):
    market.publish()
    number = dealing.request(market.of("north"), dealing.Request(PRODUCT, PURPOSE))
    with pytest.raises(TermsRefused, match="has not answered yet"):
        may(market, use)
    dealing.refuse(market.of("harbour"), PRODUCT, number, "not this year")
    with pytest.raises(TermsRefused, match=r"it was refused \(not this year\)"):
        may(market, use)


@pytest.mark.parametrize(
    ("clause", "change"),
    [
        ("purpose", {"purpose": "advertising"}),
        ("until", {"at": "2027-02-01T00:00:00Z"}),
    ],
)
def test_a_grant_is_for_what_was_granted(market, use, clause, change):
    market.publish()
    market.granted(until=date(2027, 1, 31))
    assert may(market, use)
    with pytest.raises(TermsRefused) as refused:
        may(market, dataclasses.replace(use, **change))
    assert refused.value.clause == clause


@pytest.mark.parametrize("clause", ["members", "algorithm"])
def test_a_grant_is_for_the_members_and_the_algorithm_that_were_asked_for(market, use, clause):
    market.publish()
    asked = dealing.Request(PRODUCT, PURPOSE, algorithm="linear" if clause == "algorithm" else None,
                            members=("harbour", "north", "plain") if clause == "members" else ())  # fmt: skip
    number = dealing.request(market.of("north"), asked)
    dealing.give(market.of("harbour"), PRODUCT, number)
    with pytest.raises(TermsRefused) as refused:
        may(market, use)
    assert refused.value.clause == clause


def test_a_product_whose_contract_or_terms_changed_after_the_grant_needs_a_new_one(market, use, tmp_path):
    market.publish()
    market.granted()
    market.publish(terms="{max_depth: 8}")
    with pytest.raises(TermsRefused, match="the terms changed") as refused:
        may(market, use)
    assert refused.value.clause == "terms"
    contract = tmp_path / "contract.odcs.yaml"
    contract.write_text(contract.read_text().replace("maximum: 100}", "maximum: 200}", 1))
    market.publish()
    with pytest.raises(TermsRefused, match="the contract changed") as refused:
        may(market, use)
    assert refused.value.clause == "contract"


def test_a_grant_that_is_revoked_or_a_product_that_is_withdrawn_stops_a_run_at_its_next_tree(market, use):
    market.publish()
    number = market.granted()
    place = market.of("harbour")
    check_grant(place.history(), place.get, PRODUCT, number, use)
    dealing.revoke(place, PRODUCT, number, "the study has ended")
    with pytest.raises(TermsRefused, match=r"it was revoked \(the study has ended\)"):
        check_grant(place.history(), place.get, PRODUCT, number, use)
    dealing.withdraw(place, PRODUCT, "no longer kept")
    with pytest.raises(TermsRefused, match="withdrawn"):
        may(market, use)
    with pytest.raises(MarketRefused, match="was withdrawn by harbour"):
        offer(market.of("north"), PRODUCT)


def test_an_answer_of_somebody_else_is_refused(market):
    market.publish()
    number = dealing.request(market.of("north"), dealing.Request(PRODUCT, PURPOSE))
    with pytest.raises(EntryRefused, match="north cannot speak for harbour/patients"):
        dealing.give(market.of("north"), PRODUCT, number)


def test_a_grant_is_no_wider_than_the_terms(market):
    market.publish(terms="{runs: 2, until: 2027-06-30}")
    number = dealing.request(market.of("north"), dealing.Request(PRODUCT, PURPOSE))
    given = dealing.give(market.of("harbour"), PRODUCT, number, runs=9, until=date(2030, 1, 1))
    assert (given.runs, given.until) == (2, "2027-06-30T23:59:59Z")
    (told,) = usage(market.of("valley"))
    assert (told["state"], told["asked_by"], told["runs"]) == ("given", "north", [])


def test_a_document_that_was_changed_is_not_used(market, use):
    market.publish()
    market.granted()
    place = market.of("harbour")
    terms = place.history().grants.products[PRODUCT].terms.terms
    file = place.var / "ledger" / "_log" / "documents" / terms
    file.write_bytes(file.read_bytes().replace(b"harbour", b"Harbour"))
    with pytest.raises(TermsRefused, match="nothing is allowed"):
        may(market, use)
    assert search(market.of("north")) == []
    with pytest.raises(DocumentRefused, match="was changed"):
        offer(market.of("north"), PRODUCT)


@pytest.mark.parametrize("hostile", ["\\e[2J", "\\u0007", "\\x9b31m"])
def test_control_characters_in_a_title_are_refused(market, hostile):
    spec = market.write()
    spec.write_text(
        spec.read_text().replace("title: Needle", f'title: "{hostile}').replace("of harbour", 'of harbour"')
    )
    with pytest.raises(UserError, match="title"):
        dealing.publish(market.of("harbour"), spec)


def test_an_oversized_description_is_refused(market):
    spec = market.write(more=f"description: {'x' * 30_000}\n")
    with pytest.raises(UserError, match="description"):
        dealing.publish(market.of("harbour"), spec)


def test_everything_that_was_done_stands_in_a_ledger_that_verifies(market):
    market.publish()
    market.granted()
    verified = verify_ledger(market.folder / "var" / "ledger" / "north")
    assert any("1 data product" in line for line in verified.proved)
    assert isinstance(market.of("north"), LocalMarket)
