"""Terms: the same in ODRL's words, and each clause refuses by its name."""

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_pipelines.ledger.documents import decode, encode
from lepton_pipelines.market.errors import MarketRefused, TermsRefused
from lepton_pipelines.market.terms import Price, Terms

NAMES = st.lists(st.sampled_from(["north", "valley", "harbour", "x.y-z"]), min_size=1, max_size=4, unique=True)
TERMS = st.builds(
    Terms,
    members=st.none() | NAMES,
    purposes=st.none() | st.lists(st.text("abc é-", min_size=1, max_size=20), min_size=1, max_size=3),
    algorithms=st.none() | NAMES,
    until=st.none() | st.dates(date(2020, 1, 1), date(2100, 1, 1)),
    runs=st.none() | st.integers(1, 100),
    minimum_members=st.integers(2, 64),
    max_depth=st.none() | st.integers(1, 20),
    max_rounds=st.none() | st.integers(1, 10_000),
    disclosure_limit=st.integers(20, 10_000),
    epsilon=st.none() | st.floats(1e-3, 100),
    price=st.none() | st.builds(Price, amount=st.floats(0.01, 1e6), currency=st.sampled_from(["EUR", "CHF"])),
)


@given(TERMS)
def test_terms_come_back_from_odrl_as_they_were(terms):
    assert Terms.from_odrl(decode(encode(terms.to_odrl("harbour/patients")))) == terms


def test_an_offer_with_a_clause_that_we_do_not_know_allows_nothing():
    offer = Terms().to_odrl("harbour/patients")
    offer["permission"][0]["constraint"].append({"leftOperand": "spatial", "operator": "eq", "rightOperand": "EU"})
    with pytest.raises(MarketRefused, match="nothing is allowed"):
        Terms.from_odrl(offer)


@pytest.mark.parametrize(
    ("clause", "terms", "change"),
    [
        ("members", {"members": ["north"]}, {}),
        ("purposes", {"purposes": ["research"]}, {}),
        ("algorithms", {"algorithms": ["linear"]}, {}),
        ("until", {"until": date(2020, 1, 1)}, {}),
        ("minimum_members", {"minimum_members": 4}, {}),
        ("max_depth", {"max_depth": 3}, {}),
        ("max_depth", {"max_depth": 3}, {"depth": 0}),
        ("max_rounds", {"max_rounds": 59}, {}),
        ("disclosure_limit", {"disclosure_limit": 50}, {}),
        ("epsilon", {"epsilon": 1.0}, {}),
        ("epsilon", {"epsilon": 1.0}, {"epsilon": 1.5}),
    ],
)
def test_a_use_that_a_clause_does_not_allow_is_refused_by_its_name(use, clause, terms, change):
    asked = replace(use, at="2026-11-22T12:00:00Z", **change)
    Terms().check(replace(asked, depth=4), "harbour/patients")
    with pytest.raises(TermsRefused, match=f"harbour/patients: terms.{clause} ") as refused:
        Terms(**terms).check(asked, "harbour/patients")
    assert refused.value.clause == clause
