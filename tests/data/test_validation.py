"""Checking rows against the contract: what is found, how it is told, and that it adds up over pieces."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_pipelines.data import violations
from lepton_pipelines.data.validation import check, read, schema
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError


def _problems(found, contract, on_violation="refuse"):
    return found.problems(contract, organisation="valley", on_violation=on_violation)


def _ours(document, place, **values):
    column = document["schema"][0]["properties"][place]
    custom = column.setdefault("customProperties", [{"property": "lepton", "value": {}}])
    custom[0]["value"] = {**custom[0]["value"], **values}


def _change(frame, column, rows, value):
    changed = frame.astype({column: object})
    changed.loc[rows, column] = value
    return changed


def test_rows_that_keep_the_contract_have_no_violations(contract, patients):
    found = check(patients(), contract)
    assert (found.rows, found.rejected, found.found) == (40, 0, ())
    assert _problems(found, contract) == []


BROKEN = [
    (
        "malignant",
        2,
        "valley: 3 rows have label 2, the contract allows 0 and 1 (rows with patient_id 4001, 4002, 4003).",
    ),
    (
        "malignant",
        None,
        "valley: 3 rows have no label, which the contract requires (rows with patient_id 4001, 4002, 4003).",
    ),
    ("malignant", np.nan, "valley: 3 rows have no label, which the contract requires"),
    ("malignant", np.inf, "valley: 3 rows have label inf, the contract allows 0 and 1"),
    ("radius", -1.5, 'valley: 3 rows have "radius" -1.5, the contract allows 0 to 100'),
    ("radius", np.inf, 'valley: 3 rows have an infinite value in "radius"'),
    ("radius", "wide", "valley: 3 rows have 'wide' in \"radius\", the contract wants a number"),
    ("visits", 2.5, 'valley: 3 rows have 2.5 in "visits", the contract wants a whole number'),
    ("stage", "IV", "valley: 3 rows have \"stage\" 'IV', the contract allows I, II and III"),
    ("smoker", "perhaps", "valley: 3 rows have 'perhaps' in \"smoker\", the contract wants true or false"),
    ("patient_id", 4009, "valley: 4 rows have a patient_id that another row has, too"),
    ("patient_id", None, 'valley: 3 rows have no "patient_id", which the contract requires'),
]


@pytest.mark.parametrize(("column", "value", "message"), BROKEN)
def test_a_broken_rule_is_told_with_count_value_and_keys(contract, patients, column, value, message):
    found = check(_change(patients(), column, [0, 1, 2], value), contract)
    told = _problems(found, contract)
    assert len(told) == 1
    assert told[0].startswith(message)
    assert told[0].endswith("or set on_violation: quarantine.")
    assert found.rejected == (4 if value == 4009 else 3)


def test_at_most_five_keys_are_named(contract, patients):
    told = _problems(check(_change(patients(), "radius", range(9), -1), contract), contract)
    assert told[0].count("40") == 5
    assert "4005, …)" in told[0]


def test_all_broken_rules_are_told_at_once(contract, patients):
    frame = _change(_change(patients(), "radius", [0], -1), "stage", [1], "IV")
    assert len(_problems(check(frame, contract), contract)) == 2


def test_values_of_personal_columns_are_never_told(document, patients):
    _ours(document, 3, personal=True)
    contract = parse_contract(document)
    told = _problems(check(_change(patients(), "stage", [0], "HIV"), contract), contract)
    assert "HIV" not in told[0]
    assert '1 row has "stage", the contract allows' in told[0]


def test_personal_keys_are_replaced_by_row_numbers(document, patients):
    _ours(document, 0, personal=True)
    contract = parse_contract(document)
    told = _problems(check(_change(patients(), "radius", [3], -1), contract), contract)
    assert "(row with number 4)" in told[0]
    assert "4004" not in told[0]


def test_markers_and_spellings_of_missing_are_missing(contract, patients):
    frame = patients(6).astype({"radius": object})
    frame["radius"] = [-9, "?", "-9.0", "NaN", "", None]
    checked = read(frame, contract)
    assert checked.values["radius"].missing.all()
    assert checked.violations.found == ()


def test_too_many_missing_values_are_refused(document, patients):
    _ours(document, 1, allowed_missing=0.2)
    contract = parse_contract(document)
    found = check(_change(patients(), "radius", range(10), None), contract)
    assert 'column "radius" is missing in' in _problems(found, contract)[0]
    assert "the contract allows 20.0%" in _problems(found, contract)[0]


def test_a_column_that_is_missing_throughout_is_warned_of(contract, patients):
    found = check(patients().assign(radius=np.nan), contract)
    assert _problems(found, contract) == []
    assert 'column "radius" is missing throughout' in found.warnings(contract, organisation="valley")[0]


def test_one_class_is_refused(contract, patients):
    told = _problems(check(patients().assign(malignant=1), contract), contract)
    assert told[0].startswith("valley: every row has the label malignant = 1.")


def test_too_few_rows_are_refused(document, patients):
    document["schema"][0]["customProperties"][0]["value"]["minimum_rows"] = 50
    contract = parse_contract(document)
    assert "valley: has 40 rows, the contract wants at least 50." in _problems(check(patients(), contract), contract)[0]


def test_quarantine_lets_broken_rows_pass_but_not_what_is_left(document, patients):
    document["schema"][0]["customProperties"][0]["value"]["minimum_rows"] = 39
    contract = parse_contract(document)
    one = check(_change(patients(), "radius", [0], -1), contract)
    two = check(_change(patients(), "radius", [0, 1], -1), contract)
    assert _problems(one, contract, "quarantine") == []
    assert "has 38 rows after 2 were set aside" in _problems(two, contract, "quarantine")[0]
    assert "1 of 40 rows break the contract" in one.warnings(contract, organisation="valley")[0]


def test_whole_numbers_beyond_float32_are_warned_of(contract, patients):
    frame = patients().assign(visits=2**24 + 1)
    told = check(frame, contract).warnings(contract, organisation="valley")
    assert '40 values of column "visits" are whole numbers beyond 16,777,216' in told[0]


def test_times_out_of_range_and_without_zone_are_found(document, patients):
    document["schema"][0]["properties"].append(
        {
            "name": "admitted",
            "logicalType": "timestamp",
            "logicalTypeOptions": {"minimum": "2015-01-01T00:00:00Z", "maximum": "2020-01-01T00:00:00Z"},
            "customProperties": [{"property": "lepton", "value": {"role": "time"}}],
        }
    )
    contract = parse_contract(document)
    frame = patients(4)
    for times, rule, count in (
        (["2016-01-01", "2014-01-01", "2030-01-01", None], "time", 2),
        (["2016-01-01T00:00Z", "2016-01-01T02:00+02:00", "2016-01-01T00:00", None], "type", 1),
        (["2016-01-01", "yesterday", "2016-01-01", None], "type", 1),
    ):
        found = check(frame.assign(admitted=times), contract).found
        assert [(v.column, v.rule, v.count) for v in found] == [("admitted", rule, count)]
    zoned = read(frame.assign(admitted=["2016-01-01T00:00Z", "2016-01-01T02:00+02:00", None, None]), contract)
    assert zoned.values["admitted"].values[0] == zoned.values["admitted"].values[1]


def test_text_is_refused_as_a_feature_by_name(document):
    del document["schema"][0]["properties"][3]["customProperties"][0]["value"]["categories"]
    with pytest.raises(UserError, match="stage is text, which a model cannot take"):
        parse_contract(document)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # they are made anew, and not changed
@given(cuts=st.lists(st.integers(0, 40), max_size=6))
def test_what_is_found_does_not_depend_on_the_pieces(contract, patients, cuts):
    frame = _change(_change(_change(patients(), "radius", [3, 17], -1), "stage", [5], "IV"), "malignant", [39], 7)
    frame.loc[20, "patient_id"] = 4030
    ends = [0, *sorted(cuts), 40]
    pieces = [check(frame.iloc[a:b].reset_index(drop=True), contract) for a, b in pairwise(ends)]
    whole, summed = check(frame, contract), sum(pieces)
    assert summed.rows == whole.rows
    assert summed.label_range == whole.label_range
    assert dict(summed.missing) == dict(whole.missing)
    assert summed.keys.duplicates == whole.keys.duplicates == 2
    rules = {(v.column, v.rule): v.count for v in whole.found if v.rule != "duplicate"}
    assert {(v.column, v.rule): v.count for v in summed.found if v.rule != "duplicate"} == rules


def test_duplicate_keys_are_found_across_pieces(contract, patients):
    found = check(patients(), contract) + check(patients(10), contract)
    assert "valley: 20 rows have a patient_id that another row has, too" in _problems(found, contract)[0]


def test_a_sample_of_keys_stays_small_and_finds_copies(contract, patients, monkeypatch):
    monkeypatch.setattr(violations, "_KEYS_HELD", 1000)
    found = sum(check(patients(2000, first=4001 + 2000 * i), contract) for i in range(4))
    assert len(found.keys.hashes) <= 1000
    assert found.keys.duplicates == 0
    copies = found + check(patients(2000), contract)
    assert "at least" in _problems(copies, contract)[0]


def test_the_contract_is_a_pandera_schema(contract, patients):
    values = {name: v.values for name, v in read(patients(), contract).values.items()}
    assert len(schema(contract).validate(pd.DataFrame(values))) == 40
