"""`lepton data`: as a user types it."""

import pytest
from typer.testing import CliRunner

from lepton_pipelines.cli.data import app
from lepton_pipelines.spec.errors import UserError


@pytest.fixture
def lepton_data():
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def heart(shared_data, monkeypatch, tmp_path, lepton_data):
    monkeypatch.setenv("LEPTON_DATA_MIRROR", str(shared_data))
    result = lepton_data("fetch", "heart-disease", "--to", tmp_path / "heart")
    assert result.exit_code == 0, result.output
    (tmp_path / "cleveland.yaml").write_text("organisation: cleveland\ndata: heart/cleveland/\n")
    return tmp_path


def test_fetch_writes_one_folder_an_organisation_and_the_contract(heart):
    written = {str(p.relative_to(heart / "heart")) for p in (heart / "heart").rglob("*.*")}
    hospitals = {f"{h}/rows.parquet" for h in ("cleveland", "hungary", "switzerland", "long-beach")}
    assert written == hospitals | {"contract.odcs.yaml"}


def test_check_accepts_rows_that_keep_the_contract(heart, lepton_data):
    result = lepton_data("check", heart / "cleveland.yaml", "-c", heart / "heart" / "contract.odcs.yaml")
    assert result.exit_code == 0
    assert "cleveland: 303 of 303 rows keep contract urn:lepton:example:heart-disease 1.0.0." in result.output


def test_check_prints_what_breaks_it(heart, lepton_data):
    contract = heart / "heart" / "contract.odcs.yaml"
    contract.write_text(contract.read_text().replace("maximum: 120", "maximum: 70"))
    result = lepton_data("check", heart / "cleveland.yaml", "-c", contract)
    assert isinstance(result.exception, UserError)
    assert 'have "age"' in str(result.exception)
    assert "range" in result.output


def test_profile_drafts_a_contract(heart, lepton_data):
    result = lepton_data("profile", heart / "heart" / "cleveland", "--label", "disease")
    assert result.exit_code == 0
    assert 'name: "thalach"' in result.stdout
    assert "patient_id has another value in every row" in result.stderr
