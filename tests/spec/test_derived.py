"""What a spec may derive, and the words in which the rest is refused."""

import pytest

from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import parse_pipeline


def _ours(**value):
    return [{"property": "lepton", "value": value}]


def _column(name, kind="number", **ours):
    return {"name": name, "logicalType": kind, **({"customProperties": _ours(**ours)} if ours else {})}


def _document(*columns):
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "sales",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "sales", "properties": list(columns)}],
    }


TABLE = _document(
    _column("shop", "string", role="key"),
    _column("time", "timestamp", role="time"),
    _column("price"),
    _column("cost", role="ingredient"),
    _column("weather", "string", categories=["dry", "wet"]),
    _column("note", "string", role="unused"),
    _column("sold", role="label"),
)


def _pipeline(derived, split=None):
    return {
        "name": "sales",
        "organisations": ["a", "b", "c"],
        "contract": TABLE,
        "training": {"label": "sold"},
        "split": split or {"time": "time", "test_from": "2026-05-01"},
        "derived": derived,
    }


def test_derived_columns_are_features_after_the_tables():
    told = [{"name": "margin", "ratio": ["price", "cost"]}, {"name": "hour", "part": "hour", "of": "time"}]
    contract = parse_pipeline(_pipeline(told)).read_contract()
    assert contract.feature_names == ["price", "weather", "margin", "hour"]
    assert contract.feature_types == ["float", "c", "float", "int"]
    assert contract.read_columns == ["shop", "time", "price", "cost", "weather", "sold"]


def test_organisations_agree_on_derived_columns():
    before, after = ([{"name": "l", "lag": "sold", "before": n, "by": "shop"}] for n in (1, 2))
    assert parse_pipeline(_pipeline(before)).digest() != parse_pipeline(_pipeline(after)).digest()
    spelled = [{"name": "l", "lag": "sold", "before": "60 min"}], [{"name": "l", "lag": "sold", "before": "1 h"}]
    assert len({parse_pipeline(_pipeline(one)).digest() for one in spelled}) == 1


def test_a_spec_with_derived_columns_survives_json():
    told = [{"name": "r", "rolling": "std", "of": "price", "over": "7 days", "gap": "1 day", "by": ["shop"]}]
    pipeline = parse_pipeline(_pipeline(told))
    assert type(pipeline).model_validate_json(pipeline.model_dump_json()) == pipeline


def test_a_column_says_how_a_caller_computes_it():
    told = [{"name": "r", "rolling": "mean", "of": "price", "over": "7 days", "by": "shop", "at_least": 3}]
    (column,) = parse_pipeline(_pipeline(told)).read_contract().derived_columns
    assert column.description == (
        "mean of price over the 7 days before the row of the same shop, missing with fewer than 3 values"
    )


REFUSED = {
    "two ways": (
        {"name": "x", "lag": "sold", "ratio": ["a", "b"]},
        "one of lag, rolling, ratio, difference, log, part",
    ),
    "no way": ({"name": "x"}, "one of lag, rolling, ratio, difference, log, part"),
    "an unknown column": ({"name": "x", "log": "prise"}, "which is no column. Did you mean price?"),
    "a later one": ({"name": "x", "log": "zzz"}, "may use what stands before it"),
    "an unused column": ({"name": "x", "lag": "note", "before": 1}, "Say lepton.role: ingredient at note"),
    "the label itself": ({"name": "x", "log": "sold"}, "would give the answer away"),
    "text": ({"name": "x", "lag": "shop", "before": 1}, "which is a text and not a number or boolean or category"),
    "a mean of categories": ({"name": "x", "rolling": "mean", "of": "weather", "over": 3}, "which is a category"),
    "a name twice": ({"name": "price", "log": "price"}, "a name that another column has"),
    "no series": (
        {"name": "x", "lag": "sold", "before": 1, "by": "shap"},
        "no column of the table. Did you mean shop?",
    ),
    "a series by time": ({"name": "x", "lag": "sold", "before": 1, "by": "time"}, "names no series"),
    "no reach": ({"name": "x", "lag": "sold", "before": "0 h"}, "before of no length"),
    "no span": ({"name": "x", "lag": "sold", "before": "3 hurs"}, "is no span of time"),
    "the row itself": ({"name": "x", "lag": "sold", "before": 0}, "greater than or equal to 1"),
    "mixed units": (
        {"name": "x", "rolling": "sum", "of": "price", "over": 3, "gap": "1 h"},
        "over and gap in rows and",
    ),
    "too many": ({"name": "x", "rolling": "sum", "of": "price", "over": 3, "at_least": 4}, "at_least more values"),
    "part of a number": ({"name": "x", "part": "hour", "of": "price"}, "which is a number and not a time"),
    "a window of a derived one": (
        {"name": "y", "lag": "m", "before": 1},
        "lags and windows look at the contract's own columns only",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_derived_is_refused(case):
    told, why = REFUSED[case]
    with pytest.raises(UserError) as refused:
        parse_pipeline(_pipeline([{"name": "m", "ratio": ["price", "cost"]}, told])).read_contract()
    assert why in str(refused.value)


def test_a_window_over_labels_is_refused_where_the_split_may_hold_them_out():
    told = [{"name": "l", "lag": "sold", "before": 1, "by": "shop"}]
    by_price = _pipeline(told, {"key": "price"})
    with pytest.raises(UserError, match="l looks at the label sold of other rows"):
        parse_pipeline(by_price).read_contract()
    parse_pipeline(_pipeline(told, {"key": "shop"})).read_contract()


def test_a_table_of_ingredients_needs_derived_columns():
    table = _document(_column("cost", role="ingredient"), _column("sold", role="label"))
    only = {**_pipeline([]), "contract": table, "split": {"key": "cost"}}
    with pytest.raises(UserError, match="has no features"):
        parse_pipeline(only).read_contract()
    made = parse_pipeline({**only, "derived": [{"name": "log_cost", "log": "cost"}]}).read_contract()
    assert made.feature_names == ["log_cost"]


def test_only_a_label_may_be_unknown():
    with pytest.raises(UserError, match="says may_be_unknown of price, which is not the label"):
        parse_contract(_document(_column("price", may_be_unknown=True), _column("sold", role="label")))
