"""Which products go together, and what is in the way, column by column."""

import pytest

from lepton_pipelines.market.compatibility import obstacles
from lepton_pipelines.spec.contract import read_contract


@pytest.fixture
def contract(market):
    market.write()
    return read_contract(market.folder / "contract.odcs.yaml")


def changed(contract, name, **update):
    columns = [
        column.model_copy(update=update) if column.name == name else column
        for column in contract.columns
        if update or column.name != name
    ]
    return contract.model_copy(update={"columns": tuple(columns)})


def test_products_of_one_contract_go_together(contract):
    assert obstacles({"a/x": contract, "b/x": contract, "c/x": contract}) == []


@pytest.mark.parametrize(
    ("update", "problem"),
    [
        ({}, "b/x has no such column"),
        ({"unit": "mm"}, "unit none and mm"),
        ({"integer": True}, "type number and whole number"),
        ({"role": "group"}, "role feature and group"),
        ({"kind": "category", "categories": ("s", "l")}, "type number and category"),
    ],
)
def test_each_difference_is_named_with_its_column(contract, update, problem):
    (found,) = obstacles({"a/x": contract, "b/x": changed(contract, "mean_radius", **update)})
    assert found.products == ("a/x", "b/x") and found.column == "mean_radius" and problem in found.problem


def test_categories_must_be_the_same_in_the_same_order(contract):
    mine = changed(contract, "mean_radius", kind="category", categories=("s", "m", "l"))
    other = changed(contract, "mean_radius", kind="category", categories=("m", "s", "l"))
    more = changed(contract, "mean_radius", kind="category", categories=("s", "m", "l", "xl"))
    assert obstacles({"a/x": mine, "b/x": other})[0].problem == "categories stand in another order"
    assert obstacles({"a/x": mine, "b/x": more})[0].problem == "categories differ by xl"
