"""The contract: an ODCS file that the standard's own schema accepts, read into columns."""

import json
from pathlib import Path

import jsonschema
import open_data_contract_standard
import pytest
from ruamel.yaml import YAML

from lepton_pipelines.spec.contract import category_text, parse_contract, read_contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import read_pipeline

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/*.odcs.yaml"))


@pytest.fixture(scope="session")
def standard_schema():
    return json.loads((Path(open_data_contract_standard.__file__).parent / "schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.parent.name)
def test_example_contracts_are_valid_for_the_standard_and_for_us(path, standard_schema):
    jsonschema.validate(YAML(typ="safe", pure=True).load(path), standard_schema)
    read_contract(path)
    pipeline = read_pipeline(path.parent / "pipeline.yaml")
    assert pipeline.read_contract().features


def test_columns_are_what_the_file_says(folder):
    contract = read_contract(folder.path / "contract.odcs.yaml")
    assert contract.feature_names == ["radius", "stage", "smoker"]
    assert contract.feature_types == ["float", "c", "i"]
    assert contract.feature_categories == {"stage": ["I", "II", "III"]}
    assert contract.label is not None
    assert contract.label.categories == ("0", "1")
    assert [c.name for c in contract.keys] == ["patient_id"]
    assert contract.has_unique_key
    assert contract.minimum_rows == 10
    radius = contract.column("radius")
    assert (radius.unit, radius.minimum, radius.maximum, radius.missing) == ("mm", 0, 100, ("-9",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "logicalType: number",
            "logicaltype: number",
            "contract.odcs.yaml:14  schema[0].properties[1].logicaltype is not a field of the standard. "
            "Did you mean logicalType?",
        ),
        (
            "logicalType: boolean",
            "logicalType: bool",
            "of smoker is bool, which cannot be trained on. Did you mean boolean?",
        ),
        ("unit: mm", "units: mm", "units is not one of ours. Did you mean unit?"),
        ("categories: [I, II, III], ", "", "stage is text, which a model cannot take. Give it lepton.categories"),
        ("[I, II, III]", "[I, II, I]", "stage lists the category 'I' twice"),
        ("minimum: 0, maximum: 100", "minimum: 9, maximum: 1", "radius has the minimum 9 above its maximum 1"),
        ("name: smoker", "name: radius", "names the column radius twice"),
        ("role: label", "role: lable", "malignant.role Input should be"),
        ("kind: DataContract", "kind: DataContrat", "kind is DataContrat, not DataContract"),
        ("apiVersion: v3.1.0", "apiVersion: v2.2.0", "versions v3.0.0 and later are read"),
        ("id: patients\n", "", "id is missing. Add it"),
        ("status: active", "statos: active", "statos is not a field of the standard. Did you mean status?"),
        ("minimum_rows: 10", "minimum_rows: none", "minimum_rows"),
    ],
)
def test_a_mistake_is_one_message_that_says_where(folder, old, new, message):
    path = folder.change("contract.odcs.yaml", (old, new))
    with pytest.raises(UserError) as refused:
        read_contract(path)
    assert message in str(refused.value)
    assert "contract.odcs.yaml:" in str(refused.value)


def test_agreement_covers_units_and_the_order_of_categories_but_not_words(folder):
    path = folder.path / "contract.odcs.yaml"
    digests = [read_contract(path).agreement()]
    folder.change("contract.odcs.yaml", ("id: patients\n", "id: patients\ndescription: {purpose: other words}\n"))
    assert read_contract(path).agreement() == digests[0]
    for old, new in (("unit: mm", "unit: cm"), ("[I, II, III]", "[II, I, III]"), ("missing: [-9]", "missing: [-8]")):
        folder.change("contract.odcs.yaml", (old, new))
        digests.append(read_contract(path).agreement())
    assert len(set(digests)) == 4


@pytest.mark.parametrize(("value", "text"), [(3, "3"), (3.0, "3"), ("3", "3"), (True, "true"), (2.5, "2.5")])
def test_a_category_has_one_spelling(value, text):
    assert category_text(value) == text


def test_a_weight_needs_a_maximum():
    weight = {
        "name": "w",
        "logicalType": "number",
        "customProperties": [{"property": "lepton", "value": {"role": "weight"}}],
    }
    told = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "weighted", "version": "1.0.0", "status": "active"}
    told["schema"] = [{"name": "rows", "properties": [{"name": "x", "logicalType": "number"}, weight]}]
    with pytest.raises(UserError, match="has the weight w without a maximum: one row could outweigh all others"):
        parse_contract(told)
    weight["logicalTypeOptions"] = {"maximum": 10}
    assert parse_contract(told).weight.maximum == 10
