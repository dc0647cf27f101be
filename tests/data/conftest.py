"""Rows and contracts to read them by."""

import numpy as np
import pandas as pd
import pytest

from lepton_pipelines.spec.contract import parse_contract
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import KeySplit


def _document(*, minimum_rows: int = 1) -> dict:
    def ours(**value):
        return [{"property": "lepton", "value": value}]

    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "patients",
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {
                "name": "patients",
                "customProperties": ours(minimum_rows=minimum_rows),
                "properties": [
                    {"name": "patient_id", "logicalType": "integer", "primaryKey": True},
                    {
                        "name": "radius",
                        "logicalType": "number",
                        "logicalTypeOptions": {"minimum": 0, "maximum": 100},
                        "customProperties": ours(unit="mm", missing=[-9, "?"]),
                    },
                    {"name": "visits", "logicalType": "integer"},
                    {
                        "name": "stage",
                        "logicalType": "string",
                        "customProperties": ours(categories=["I", "II", "III"], group=True),
                    },
                    {"name": "smoker", "logicalType": "boolean"},
                    {"name": "city", "logicalType": "string", "customProperties": ours(role="unused", personal=True)},
                    {
                        "name": "malignant",
                        "logicalType": "integer",
                        "required": True,
                        "customProperties": ours(role="label", categories=[0, 1]),
                    },
                ],
            }
        ],
    }


@pytest.fixture
def document():
    """The contract's document, to be changed at will."""
    return _document()


@pytest.fixture
def contract(document):
    return parse_contract(document)


def _patients(n: int = 40, *, first: int = 4001) -> pd.DataFrame:
    draw = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "patient_id": np.arange(first, first + n, dtype=np.int64),
            "radius": np.where(draw.random(n) < 0.1, np.nan, draw.uniform(0, 100, n)),
            "visits": draw.integers(0, 9, n),
            "stage": draw.choice(["I", "II", "III"], n),
            "smoker": draw.random(n) < 0.5,
            "city": "Lyon",
            "malignant": np.arange(n) % 2,
        }
    )


@pytest.fixture
def patients():
    """Makes rows that keep the contract."""
    return _patients


@pytest.fixture
def organisation():
    """Makes the file of an organisation whose data lie at a URL."""

    def make(url: object, name: str = "harbour", **options: object) -> Organisation:
        return Organisation.model_validate({"organisation": name, "data": {"url": str(url), **options}})

    return make


@pytest.fixture
def split():
    return KeySplit(key="patient_id", train=0.6, valid=0.2, test=0.2)
