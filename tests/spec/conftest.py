"""Spec files as a user writes them."""

from pathlib import Path

import pytest

PIPELINE = """\
name: breast-cancer
organisations: [north, harbour, valley]   # in-process: {north: north.yaml, harbour: harbour.yaml, valley: valley.yaml}
federation: in-process                    # or {hub: hub.example.org:7443}
contract: contract.odcs.yaml
training:
  label: malignant
  objective: binary:logistic              # XGBoost's names and defaults for everything below
  rounds: 60
  early_stopping_rounds: 10
  max_depth: 4
split: {key: patient_id, train: 0.7, valid: 0.15, test: 0.15}
gates: {auc: {min: 0.95}, worst_organisation: {auc: {min: 0.90}}, calibration_error: {max: 0.05}}
registry: {model: breast-cancer, publisher: north, promote: automatically}     # or: ask
schedule: {cron: "0 3 * * 1", timezone: Europe/Berlin}
"""

HARBOUR = """\
organisation: harbour
data: s3://harbour/patients/
compute: {workers: 2}                     # or {scheduler: tls://dask.harbour:8786}
policy: {members: [north, valley], runs_per_week: 2, max_depth: 8}
"""

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: patients
version: 1.0.0
status: active
schema:
  - name: patients
    customProperties: [{property: lepton, value: {minimum_rows: 10}}]
    properties:
      - name: patient_id
        logicalType: integer
        primaryKey: true
      - name: radius
        logicalType: number
        logicalTypeOptions: {minimum: 0, maximum: 100}
        customProperties: [{property: lepton, value: {unit: mm, missing: [-9]}}]
      - name: stage
        logicalType: string
        customProperties: [{property: lepton, value: {categories: [I, II, III], group: true}}]
      - name: smoker
        logicalType: boolean
      - name: malignant
        logicalType: integer
        required: true
        customProperties: [{property: lepton, value: {role: label, categories: [0, 1]}}]
"""


class Folder:
    """A folder with the three files, each of which can be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("pipeline.yaml", PIPELINE)
        self.write("harbour.yaml", HARBOUR)
        self.write("contract.odcs.yaml", CONTRACT)

    def write(self, name: str, text: str) -> Path:
        (self.path / name).write_text(text, encoding="utf-8")
        return self.path / name

    def change(self, name: str, *changes: tuple[str, str]) -> Path:
        text = (self.path / name).read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text, f"{old!r} is not in {name}"
            text = text.replace(old, new)
        return self.write(name, text)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
