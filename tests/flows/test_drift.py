"""Rows that moved, and rows that did not, held against what a model saw, by three organisations in step."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.in_step import all_in_step
from lepton_pipelines.federation.runs import join
from lepton_pipelines.organisation import drift
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import read_pipeline

pytestmark = [pytest.mark.slow]

NAMES = ("north", "south", "west")
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: urn:lepton:test:moving
version: 1.0.0
status: active
schema:
  - name: rows
    logicalType: object
    properties:
      - {name: id, logicalType: integer, primaryKey: true, required: true, unique: true}
      - {name: steady, logicalType: number}
      - {name: moving, logicalType: number, customProperties: [{property: lepton, value: {drift: {psi: PSI}}}]}
      - name: place
        logicalType: string
        customProperties: [{property: lepton, value: {categories: [hill, shore, rare]}}]
      - name: sick
        logicalType: integer
        required: true
        customProperties: [{property: lepton, value: {role: label, categories: [0, 1]}}]
"""
PIPELINE = """
name: moving
organisations: [north, south, west]
contract: contract.yaml
training: {label: sick, objective: "binary:logistic", rounds: 5, max_depth: 3}
split: {key: id, train: 0.6, valid: 0.0, test: 0.4}
"""


def write_rows(folder: Path, *, shift: float = 0.0, flip: float = 0.0, first: int = 0) -> None:
    for place, name in enumerate(NAMES):
        rng = np.random.default_rng(first + place)
        steady, moving = rng.normal(0, 1, (2, 400))
        sick = (steady + moving + rng.normal(0, 0.5, 400) > 0).astype(int)
        sick = np.where(rng.random(400) < flip, 1 - sick, sick)
        places = np.where(rng.random(400) < 0.01, "rare", np.where(steady > 0, "hill", "shore"))
        rows = {"id": np.arange(400) + 1000 * place + 10_000 * first, "steady": steady, "moving": moving + shift}
        (folder / name).mkdir(exist_ok=True)
        pd.DataFrame({**rows, "place": places, "sick": sick}).to_parquet(folder / name / "rows.parquet", index=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A pipeline's folder after training and publishing, with the reference beside the champion."""
    folder = tmp_path_factory.mktemp("moving")
    (folder / "contract.yaml").write_text(CONTRACT.replace("PSI", "0.2"))
    (folder / "pipeline.yaml").write_text(PIPELINE)
    for name in NAMES:
        text = f"organisation: {name}\ndata: {name}/\ncompute: {{workers: 1}}\n"
        (folder / f"{name}.yaml").write_text(text)
    write_rows(folder)
    parts = in_step(folder, "train", train)
    references = [reference for _, _, reference in parts]
    assert references[0] == references[1] == references[2]
    publish(folder, parts[0])
    return folder, references[0]


def in_step(folder, run, work):
    pipeline = read_pipeline(folder / "pipeline.yaml")

    def start(name):
        with join(run, name) as sums:
            own = read_organisation(folder / f"{name}.yaml")
            part = OrganisationRun(pipeline, own, sums, RunFolder(folder / "var", run), share=3)
            try:
                part.ingest()
                part.validate()
                return work(part)
            finally:
                part.close()

    return all_in_step(pipeline, run, start)


def train(part):
    part.bin()
    part.train()
    part.evaluate()
    return part.model, part.report(), drift.remember(part)


def publish(folder, trained_part):
    from lepton_pipelines.organisation.outcome import publish_model, settle_model
    from lepton_pipelines.registry.publishing import attach
    from lepton_pipelines.registry.tracking import open_tracking

    model, report, reference = trained_part
    pipeline = read_pipeline(folder / "pipeline.yaml")
    tracking = open_tracking(folder=(folder / "var").absolute())
    published = publish_model(pipeline, [report], model, tracking, None)
    settle_model(pipeline, published, [], tracking)
    attach(tracking, published, {drift.REFERENCE_FILE: reference.model_dump_json()})


def watch(folder, tmp_path, psi="0.2", **change):
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    (copied / "contract.yaml").write_text(CONTRACT.replace("PSI", psi))
    write_rows(copied, first=7, **change)
    # The store's address stands in the copied database: the original one is read.
    shutil.rmtree(copied / "var" / "mlflow")
    (copied / "var" / "mlflow").symlink_to(folder / "var" / "mlflow")
    reports = in_step(copied, "watch", lambda part: drift.watch(part, worse=0.05))
    assert reports[0] == reports[1] == reports[2]
    return reports[0]


def test_a_reference_holds_no_bin_below_the_disclosure_limit(trained):
    _, reference = trained
    assert reference.rows == 1200
    for column in reference.columns:
        cells = column.counts[:-1]
        assert sum(column.counts) == 1200
        if column.edges:
            assert min(cells) >= drift.SMALLEST_BIN
            assert len(column.edges) == len(cells) - 1
    (place,) = [column for column in reference.columns if column.groups]
    assert len(place.groups) == 3


def test_rows_of_the_same_kind_do_not_count_as_drift(trained, tmp_path):
    report = watch(trained[0], tmp_path)
    assert report.reasons == []
    assert report.rows_now == 1200
    assert abs(report.decay["auc"]) < 0.05


def test_a_column_that_moved_is_named_and_no_other(trained, tmp_path):
    report = watch(trained[0], tmp_path, shift=1.0)
    assert [line.column for line in report.columns if line.drifted] == ["moving"]
    assert report.reasons[0].startswith("moving moved (PSI ")


def test_the_contracts_allowed_drift_is_the_limit(trained, tmp_path):
    report = watch(trained[0], tmp_path, psi="9", shift=1.0)
    assert [line.column for line in report.columns if line.drifted] == []
    (line,) = [line for line in report.columns if line.column == "moving"]
    assert line.psi_limit == 9


def test_labels_that_changed_show_as_decay(trained, tmp_path):
    report = watch(trained[0], tmp_path, flip=0.3)
    assert report.decay["auc"] > report.decay_limits["auc"]
    assert any("auc is worse by" in reason for reason in report.reasons)


def test_without_a_champion_it_says_what_to_do(trained, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(trained[0], copied, ignore=shutil.ignore_patterns("var"))
    with pytest.raises(UserError, match="moving has no champion to watch"):
        in_step(copied, "watch", lambda part: drift.watch(part, worse=0.05))
