"""The union of what members offer: exactly it and its holders, at every member alike."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.organisation.category_union import LONGEST, find_union, read_table, write_table
from lepton_pipelines.organisation.found_categories import agree_on_categories
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError

MEMBERS = ("harbour", "north", "valley")
STANDARD = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "wards", "version": "1.0.0", "status": "active"}


def column(name, kind="string", **ours):
    return {"name": name, "logicalType": kind, "customProperties": [{"property": "lepton", "value": ours}]}


def contract(*columns):
    label = column("y", "integer", role="label", categories=[0, 1])
    return parse_contract({**STANDARD, "schema": [{"name": "wards", "properties": [*columns, label]}]})


WARDS = contract(column("ward", categories="found"), column("age_group", categories="found", group=True))


def at_all(work):
    """Do a member's work at all members; returns what each made of it, errors included."""
    federation = InProcessFederation(MEMBERS)

    def member(name):
        with federation.sums(name) as sums:
            try:
                return work(sums, MEMBERS.index(name))
            except UserError as error:
                return error

    try:
        with ThreadPoolExecutor(len(MEMBERS)) as threads:
            return list(threads.map(member, MEMBERS))
    finally:
        federation.close()


def same(found):
    assert all(one == found[0] for one in found)
    return found[0]


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
entries = st.sets(st.tuples(st.integers(0, 3), texts), max_size=25)


@settings(max_examples=60, deadline=None)
@given(offered=st.tuples(entries, entries, entries))
def test_every_member_finds_what_any_offers_and_how_many_do(offered):
    found = same(at_all(lambda sums, place: find_union(sums, offered[place])))
    assert found == Counter(entry for one in offered for entry in one)


def test_thousands_of_categories_are_found():
    offered = [{(0, f"street {i}") for i in range(1000 * place, 1000 * place + 1500)} for place in range(3)]
    found = same(at_all(lambda sums, place: find_union(sums, offered[place])))
    assert found == Counter(entry for one in offered for entry in one)


@settings(max_examples=60, deadline=None)
@given(st.tuples(entries, entries, entries), st.permutations(range(3)), st.integers(1, 40))
def test_the_total_is_what_one_hand_would_write_that_knows_union_and_holders_alone(offered, order, room):
    total = sum(write_table(offered[place], room, 0) for place in order)
    holders = Counter(entry for one in offered for entry in one)
    known = sum((times * write_table([entry], room, 0) for entry, times in holders.items()), 0 * total)
    np.testing.assert_array_equal(total, known)


def test_a_table_that_is_too_small_is_never_read_as_another_union():
    offered = [(0, f"ward {i}") for i in range(400)]
    assert read_table(write_table(offered, 1, 0), 0, most=3) is None


def test_members_that_write_something_else_are_refused_by_all():
    class Odd:
        def __init__(self, sums):
            self._sums, self.parties = sums, sums.parties

        def sum(self, name, vector, **told):
            return self._sums.sum(name, vector + 1 if "table" in name else vector, **told)

    found = at_all(lambda sums, place: find_union(Odd(sums) if place == 1 else sums, [(0, "a")]))
    assert all(isinstance(one, UserError) and "list the categories in the contract" in str(one) for one in found)


wards = st.dictionaries(st.sampled_from(["7", "10", "b", "a", "ä", "-3", "007", "x" * LONGEST]), st.integers(1, 60))


@settings(max_examples=40, deadline=None)
@given(st.tuples(wards, wards, wards))
def test_a_category_is_found_if_it_stands_in_twenty_rows_of_one_organisation_whoever_it_is(counts):
    wanted = {text for one in counts for text, rows in one.items() if rows >= 20}

    def agree(order):
        return at_all(
            lambda sums, place: agree_on_categories(
                sums, WARDS, {"ward": counts[order[place]], "age_group": {"old": 20}}, organisation=MEMBERS[place]
            )
        )

    found = agree((0, 1, 2))
    assert [str(one) for one in found] == [str(one) for one in agree((2, 0, 1))]
    if wanted:
        assert found[0] == found[1] == found[2]
        assert set(found[0]["ward"]) == wanted
        numbers = [text for text in found[0]["ward"] if text in {"7", "10", "-3"}]
        assert numbers == sorted(numbers, key=int)
        assert found[0]["age_group"] == ["old"]
    else:
        assert all("ward: no organisation has 20 rows of one category" in str(one) for one in found)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({f"street {i}": 20 for i in range(4097)}, "north: 4097 categories of ward, age_group have 20 rows, 4096 are"),
        ({"x" * (LONGEST + 1): 20}, "north: ward has a category of more than 120 bytes"),
        ({"\ud800": 20}, "north: ward has a category .* that is no Unicode text"),
    ],
)
def test_what_cannot_be_found_is_refused_before_it_is_offered(counts, message):
    with pytest.raises(UserError, match=message) as refused:
        agree_on_categories(None, WARDS, {"ward": counts, "age_group": {}}, organisation="north")
    assert "List" in str(refused.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (column("ward", categories="found", personal=True), "is personal and says categories: found"),
        (column("ward", categories="found", role="key"), "only features, groups and ingredients"),
        (column("ward", "boolean", categories="found"), "which a boolean cannot be"),
        (column("ward", "date", categories="found"), "which a date cannot be"),
        (column("ward", categories="found", other_categories="refuse"), "so other_categories is missing"),
        (column("ward", categories="find"), "ward.categories"),
        (column("ward", "number", other_categories="missing"), "which only categories may be"),
        (column("y2", role="label", categories=["a"], other_categories="missing"), "and not a label"),
        ({**column("ward", categories="found"), "primaryKey": True}, "no part of a key"),
    ],
)
def test_columns_whose_values_others_may_not_learn_this_way_are_refused_by_name(bad, message):
    with pytest.raises(UserError, match=message):
        contract(bad, column("age", "integer"))


def test_a_contract_with_what_was_found_is_the_one_that_lists_it():
    found = {"ward": ["1", "b"], "age_group": ["old"]}
    listed = contract(
        column("ward", categories=["1", "b"], other_categories="missing"),
        column("age_group", categories=["old"], other_categories="missing", group=True),
    )
    assert WARDS.with_categories(found).agreement() == listed.agreement() != WARDS.agreement()
