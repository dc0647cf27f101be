"""An organisation's part shows its rows to the guard at home before any of them goes into a sum."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lepton_pipelines.federation.home_rules import RowGuard, RunHistory
from lepton_pipelines.federation.manifest import Manifest, Member
from lepton_pipelines.identity.signing import SigningKey
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import read_pipeline
from lepton_pipelines.sums import LocalSums

ROOT = Path(__file__).parents[2]
NAMES = ("harbour", "north", "valley")
KEYS = {name: SigningKey.generate().public.hex() for name in (*NAMES, "hub")}


class NoSums(LocalSums):
    """Sums that nothing may reach."""

    def start(self, *arguments, **settings):
        raise AssertionError("rows were added up before the guard had seen them")


@pytest.fixture
def hospital(tmp_path):
    """Reads north's rows for a run, as they lie then; what the guard knows stays between runs."""
    source = ROOT / "examples" / "healthcare"
    folder = tmp_path / "healthcare"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("var", "data", "__pycache__"))
    runpy.run_path(str(source / "make_hospitals.py"))["write"](folder / "data")
    pipeline, rows = read_pipeline(folder / "pipeline.yaml"), folder / "data" / "north" / "patients.parquet"
    patients = pd.read_parquet(rows)

    def ingest(run, change=lambda frame: frame):
        change(patients.copy()).to_parquet(rows, index=False)
        members = tuple(Member(name=name, key=KEYS[name], product=f"{name}/patients") for name in NAMES)
        told = Manifest(run=run, hub=KEYS["hub"], members=members, spec="00" * 32, contract="11" * 32, code="test")
        history = RunHistory(tmp_path / "home")
        history.signed(told, "north")
        history.close()
        guard = RowGuard.of(tmp_path / "home", told, "north")
        own = read_organisation(folder / "north.yaml")
        part = OrganisationRun(pipeline, own, NoSums(), RunFolder(tmp_path / "var", run), guard=guard)
        try:
            return part.ingest()
        finally:
            part.close()

    return ingest


def test_a_retrain_on_rows_that_differ_by_a_few_is_refused_at_ingest(hospital):
    hospital("r-1")
    hospital("r-2")  # the same rows
    with pytest.raises(UserError, match="north refuses run r-3: data product north/patients differs by 3 rows"):
        hospital("r-3", lambda frame: frame.iloc[3:])
    with pytest.raises(UserError, match="differs by 2 rows"):  # the same people, two of them measured again
        hospital("r-4", lambda frame: frame.assign(mean_area=np.where(frame.index < 2, 500.0, frame.mean_area)))
    hospital("r-5", lambda frame: frame.iloc[25:])
