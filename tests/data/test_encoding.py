"""Encoding: what goes into a model is what the contract says, and XGBoost takes it as it is."""

import numpy as np
import pandas as pd
import pytest
import xgboost

from lepton_pipelines.data.encoding import Encoded, encode
from lepton_pipelines.spec.contract import parse_contract


def test_rows_are_float32_in_the_contracts_order(contract, patients):
    frame = patients()
    encoded = encode(frame, contract)
    assert encoded.X.dtype == np.float32
    assert encoded.X.flags.c_contiguous
    np.testing.assert_array_equal(encoded.X[:, 0], frame["radius"].to_numpy(np.float32))
    np.testing.assert_array_equal(encoded.X[:, 1], frame["visits"].to_numpy(np.float32))
    codes = frame["stage"].map({"I": 0, "II": 1, "III": 2}).to_numpy()
    np.testing.assert_array_equal(encoded.X[:, 2], codes)
    np.testing.assert_array_equal(encoded.groups["stage"], codes)
    np.testing.assert_array_equal(encoded.X[:, 3], frame["smoker"].to_numpy(np.float32))
    np.testing.assert_array_equal(encoded.label, frame["malignant"].to_numpy(np.float32))
    assert encoded.weight is None


def test_codes_follow_the_contracts_order_not_the_datas(document, patients):
    document["schema"][0]["properties"][3]["customProperties"][0]["value"]["categories"] = ["III", "I", "II"]
    encoded = encode(patients(), parse_contract(document))
    np.testing.assert_array_equal(encoded.X[:, 2], patients()["stage"].map({"III": 0, "I": 1, "II": 2}))


@pytest.mark.parametrize(
    "values",
    [
        ["1", "0", None, "true"],
        [True, False, None, True],
        [1, 0, None, 1],
        [1.0, 0.0, np.nan, 1.0],
        ["Yes", "no", "", "T"],
    ],
    ids=["text", "objects", "whole", "floats", "words"],
)
def test_booleans_have_many_spellings(contract, patients, values):
    encoded = encode(patients(4).assign(smoker=pd.Series(values, dtype=object)), contract)
    np.testing.assert_array_equal(encoded.X[:, 3], [1, 0, np.nan, 1])


@pytest.mark.parametrize(
    "values",
    [["0", "1"], [0, 1], [0.0, 1.0], ["0.0", "1.0"], [False, True]],
    ids=["text", "int", "float", "floats", "bool"],
)
def test_a_category_of_numbers_has_one_code_however_it_is_stored(document, patients, values):
    if isinstance(values[0], bool):
        document["schema"][0]["properties"][6]["customProperties"][0]["value"]["categories"] = [False, True]
    encoded = encode(patients(2).assign(malignant=values), parse_contract(document))
    np.testing.assert_array_equal(encoded.label, [0, 1])


def test_nullable_and_dictionary_columns_are_read(contract, patients):
    frame = patients().astype({"radius": "Float64", "visits": "Int32", "stage": "category", "smoker": "boolean"})
    np.testing.assert_array_equal(encode(frame, contract).X, encode(patients(), contract).X)


def test_weights_are_carried(document, patients):
    document["schema"][0]["properties"].append(
        {
            "name": "weight",
            "logicalType": "number",
            "logicalTypeOptions": {"maximum": 10},
            "customProperties": [{"property": "lepton", "value": {"role": "weight"}}],
        }
    )
    encoded = encode(patients(3).assign(weight=[1, 2, 0.5]), parse_contract(document))
    assert encoded.weight is not None
    assert encoded.weight.tolist() == [1, 2, 0.5]


def test_parts_are_joined_in_their_order(contract, patients):
    whole = encode(patients(), contract)
    parts = Encoded.joined([whole.rows(np.arange(0, 15)), whole.rows(np.arange(15, 40))])
    assert parts.X.tobytes() == whole.X.tobytes()
    assert parts.row_id.tolist() == whole.row_id.tolist()
    assert parts.groups["stage"].tolist() == whole.groups["stage"].tolist()
    with pytest.raises(ValueError, match="no rows"):
        Encoded.joined([])


def test_xgboost_takes_names_types_and_codes(contract, patients):
    encoded = encode(patients(200), contract)
    matrix = xgboost.DMatrix(
        encoded.X,
        encoded.label,
        feature_names=contract.feature_names,
        feature_types=contract.feature_types,
        enable_categorical=True,
    )
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, matrix, 3)
    assert booster.feature_types == ["float", "int", "c", "i"]
