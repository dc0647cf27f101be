"""Drafted contracts: valid for the standard and for us, kept by the rows they were drafted from."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import open_data_contract_standard
import pandas as pd
import pytest
from ruamel.yaml import YAML

from lepton_pipelines.data.profile import draft_contract, profile, read_sample
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.data.validation import check
from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Data


@pytest.fixture
def table(patients):
    frame = patients(400)
    draw = np.random.default_rng(3)
    return frame.assign(
        email=[f"p{i}@example.org" for i in range(400)],
        constant=1.0,
        empty=np.nan,
        outcome_code=frame["malignant"] * 2.0 + draw.random(400),
        admitted=pd.date_range("2016-01-01", periods=400, freq="h"),
        remark=[f"remark {i % 300}" for i in range(400)],
    )


def _drafted(text):
    return YAML(typ="safe", pure=True).load(text)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_draft_is_valid_and_kept_by_its_rows(tmp_path, organisation, table, suffix):
    path = tmp_path / f"patients.{suffix}"
    table.to_parquet(path, index=False) if suffix == "parquet" else table.to_csv(path, index=False)
    text = draft_contract(profile(read_sample(Data(url=str(path))), label="malignant"), name="patients")
    standard = Path(open_data_contract_standard.__file__).parent / "schema.json"
    document = _drafted(text)
    document["status"] = "active"
    jsonschema.validate(document, json.loads(standard.read_text(encoding="utf-8")))
    contract = parse_contract(document)
    assert contract.feature_names == ["radius", "visits", "stage", "smoker", "outcome_code"]
    assert contract.label is not None
    assert contract.label.categories == ("0", "1")
    assert [c.name for c in contract.keys] == ["patient_id"]
    source = open_source(organisation(path), contract)
    found = sum(check(source.read(piece), contract) for piece in source.pieces())
    assert found.problems(contract, organisation="harbour", on_violation="refuse") == []


def test_what_is_suspicious_is_noted(table):
    notes = {c.name: " ".join(c.notes) for c in profile(table, label="malignant").columns}
    assert "taken for the key" in notes["patient_id"]
    assert "personal by its name" in notes["email"]
    assert notes["constant"] == "is constant"
    assert notes["empty"] == "is missing throughout"
    assert "tells the label by itself (AUC 1.000)" in notes["outcome_code"]
    assert "is a time" in notes["admitted"]
    assert "text with 300 values" in notes["remark"]
    assert notes["radius"] == ""


def test_a_leak_of_a_number_is_noted(table):
    told = profile(table.assign(copy=table["outcome_code"] * 3 + 1), label="outcome_code")
    assert "correlation 1.000" in next(c for c in told.columns if c.name == "copy").notes[0]


def test_bounds_are_no_rows_values(table):
    radius = next(c for c in profile(table).columns if c.name == "radius")
    assert radius.low is not None
    assert radius.high is not None
    assert radius.low <= table["radius"].min()
    assert radius.high >= table["radius"].max()
    assert not {radius.low, radius.high} & set(table["radius"])


def test_an_unknown_label_suggests_the_nearest(table):
    with pytest.raises(UserError, match=r'there is no column "malignent". Did you mean malignant\?'):
        profile(table, label="malignent")


def test_a_csv_without_a_header_cannot_be_profiled(tmp_path, table):
    table.to_csv(tmp_path / "p.csv", index=False, header=False)
    with pytest.raises(UserError, match="has no header"):
        read_sample(Data(url=str(tmp_path / "p.csv"), csv={"header": False}))
