"""Splits: a row's set depends on its key or time alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_pipelines.data.keys import hash_integers, start
from lepton_pipelines.data.splits import assign, by_hash, row_ids
from lepton_pipelines.data.validation import read
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import KeySplit, TimeSplit

KNOWN = "2001002010022102021020000210011000010100"


def _sets(frame, split, contract):
    return assign(read(frame, contract).values, split, contract)


def test_known_keys_fall_into_known_sets(contract, patients):
    """The same held-out rows for champion and challenger, on every machine and in every version."""
    split = KeySplit(key="patient_id", train=0.7, valid=0.15, test=0.15)
    assert "".join(map(str, _sets(patients(), split, contract))) == KNOWN


@pytest.mark.parametrize("shares", [(0.7, 0.15, 0.15), (0.5, 0.0, 0.5), (0.98, 0.01, 0.01)])
def test_shares_are_as_asked(shares):
    split = KeySplit(key="k", train=shares[0], valid=shares[1], test=shares[2])
    counts = np.bincount(by_hash(hash_integers(np.arange(300_000), start("split")), split), minlength=3)
    assert counts / 300_000 == pytest.approx(shares, abs=0.003)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # they are made anew, and not changed
@given(seed=st.integers(0, 1000))
def test_a_rows_set_and_number_do_not_depend_on_its_place(contract, patients, split, seed):
    frame = patients()
    order = np.random.default_rng(seed).permutation(40)
    values, moved = read(frame, contract).values, read(frame.iloc[order].reset_index(drop=True), contract).values
    assert assign(moved, split, contract).tolist() == assign(values, split, contract)[order].tolist()
    assert row_ids(moved, contract).tolist() == row_ids(values, contract)[order].tolist()


def test_another_salt_deals_anew(contract, patients):
    frame = patients(400)
    one = KeySplit(key="patient_id", train=0.5, valid=0.0, test=0.5)
    other = KeySplit(key="patient_id", train=0.5, valid=0.0, test=0.5, salt="2")
    assert 0.3 < (_sets(frame, one, contract) == _sets(frame, other, contract)).mean() < 0.7


def test_rows_of_a_group_stay_together(document, patients):
    document["schema"][0]["properties"][5]["customProperties"][0]["value"] = {"role": "key"}
    document["schema"][0]["properties"][0].pop("primaryKey")
    contract = parse_contract(document)
    frame = patients(400).assign(city=[f"city {i % 37}" for i in range(400)])
    sets = _sets(frame, KeySplit(key="city", train=0.6, valid=0.2, test=0.2), contract)
    assert (pd.Series(sets).groupby(frame["city"]).nunique() == 1).all()
    assert len(np.unique(sets)) == 3
    # No key names a row here, so rows are numbered by all that they hold.
    assert len(np.unique(row_ids(read(frame, contract).values, contract))) == 400


def test_a_split_by_time_trains_on_what_came_before(document, patients):
    document["schema"][0]["properties"].append(
        {
            "name": "admitted",
            "logicalType": "timestamp",
            "customProperties": [{"property": "lepton", "value": {"role": "time"}}],
        }
    )
    contract = parse_contract(document)
    times = pd.date_range("2016-01-01", periods=40, freq="D")
    split = TimeSplit(time="admitted", valid_from="2016-01-21", test_from="2016-01-31T00:00")
    sets = _sets(patients().assign(admitted=times), split, contract)
    assert sets.tolist() == [0] * 20 + [1] * 10 + [2] * 10
    zoned = _sets(patients().assign(admitted=times.tz_localize("UTC").tz_convert("Asia/Tokyo")), split, contract)
    assert zoned.tolist() == sets.tolist()
    with pytest.raises(UserError, match="1 rows have no admitted, by which rows are split"):
        _sets(patients(2).assign(admitted=[times[0], None]), split, contract)
