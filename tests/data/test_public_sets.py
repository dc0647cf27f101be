"""Public data sets: what is fetched is what it should be, and keeps its contract."""

import io
import shutil
import zipfile

import pytest

from lepton_pipelines.data import public_sets
from lepton_pipelines.data.public_sets import PUBLIC_SETS, fetch_public_set, find_public_set
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.data.validation import check
from lepton_pipelines.spec.contract import read_contract
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import read_pipeline

ORGANISATIONS = {"heart-disease": 4, "credit-default": 3, "beijing-air": 12}
ROWS = {"heart-disease": 920, "credit-default": 30_000, "beijing-air": 420_768}
EXAMPLES = {"heart-disease": "heart-disease", "credit-default": "finance", "beijing-air": "air-quality"}


@pytest.fixture
def mirror(shared_data, monkeypatch):
    monkeypatch.setenv("LEPTON_DATA_MIRROR", str(shared_data))
    return shared_data


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_every_row_of_a_set_keeps_its_contract(name, mirror, tmp_path, organisation):
    written = fetch_public_set(name, tmp_path)
    assert len(written) == ORGANISATIONS[name]
    contract = read_contract(tmp_path / "contract.odcs.yaml")
    rows = 0
    for who, path in written.items():
        source = open_source(organisation(path.parent, name=who), contract)
        found = sum(check(source.read(piece), contract) for piece in source.pieces())
        assert found.problems(contract, organisation=who, on_violation="refuse") == []
        rows += found.rows
    assert rows == ROWS[name]


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_a_sets_contract_is_its_examples(name, request):
    path = request.config.rootpath / "examples" / EXAMPLES[name] / "contract.odcs.yaml"
    assert path.read_text(encoding="utf-8") == find_public_set(name).contract()
    pipeline = read_pipeline(path.parent / "pipeline.yaml")
    assert pipeline.read_contract().label is not None
    assert sorted(pipeline.read_organisations()) == pipeline.members


def test_changed_values_are_refused(mirror, tmp_path, monkeypatch):
    copy = tmp_path / "mirror"
    shutil.copytree(mirror / "heart-disease", copy / "heart-disease")
    file = copy / "heart-disease" / "processed.cleveland.data"
    file.chmod(0o644)
    file.write_text(file.read_text().replace("63.0,1.0,1.0,145.0", "63.0,1.0,1.0,146.0", 1))
    monkeypatch.setenv("LEPTON_DATA_MIRROR", str(copy))
    with pytest.raises(UserError, match="heart-disease: the values fetched are not those"):
        fetch_public_set("heart-disease", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_spelling_of_the_same_values_passes(mirror, tmp_path, monkeypatch):
    """UCI writes missing as ? where this copy writes NaN."""
    copy = tmp_path / "mirror"
    shutil.copytree(mirror / "heart-disease", copy / "heart-disease")
    file = copy / "heart-disease" / "processed.va.data"
    file.chmod(0o644)
    file.write_text(file.read_text().replace("NaN", "?"))
    monkeypatch.setenv("LEPTON_DATA_MIRROR", str(copy))
    assert len(fetch_public_set("heart-disease", tmp_path / "out")) == 4


def test_the_origins_archive_of_archives_is_read(mirror):
    """Beijing's origin is a zip in a zip; here it is packed from the mirror's files."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as packed:
        for file in sorted((mirror / "beijing-air").glob("*.csv.gz")):
            packed.writestr(f"PRSA_Data_20130301-20170228/{file.name[:-3]}", _unpacked(file))
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as packed:
        packed.writestr("data.csv", "unrelated")
        packed.writestr("PRSA2017_Data_20130301-20170228.zip", inner.getvalue())
    asked = []

    def fetch(_local, url):
        asked.append(url)
        return outer.getvalue()

    tables = PUBLIC_SETS["beijing-air"].read(fetch)
    assert public_sets.tables_digest(tables) == PUBLIC_SETS["beijing-air"].digest
    assert len(asked) == 1


def _unpacked(file):
    import gzip

    return gzip.decompress(file.read_bytes())


def test_the_origins_header_of_credit_default_is_read(mirror):
    lines = (mirror / "credit-default" / "UCI_Credit_Card.csv").read_text().splitlines()
    lines[0] = ",".join(["ID", *(f"X{i}" for i in range(1, 24)), "Y"])
    tables = PUBLIC_SETS["credit-default"].read(lambda *_: "\n".join(lines).encode())
    assert public_sets.tables_digest(tables) == PUBLIC_SETS["credit-default"].digest


def test_a_mirror_without_the_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LEPTON_DATA_MIRROR", str(tmp_path))
    with pytest.raises(UserError, match="LEPTON_DATA_MIRROR must hold the files of https://"):
        fetch_public_set("heart-disease", tmp_path / "out")


def test_an_unknown_set_suggests_the_nearest():
    with pytest.raises(UserError, match=r"there is no public data set heart-diseases. Did you mean heart-disease\?"):
        find_public_set("heart-diseases")


def test_the_air_examples_columns_are_the_hours_before(mirror, tmp_path, request):
    """Every hour is there once and in order, so that lags are pandas' shifts."""
    import pandas as pd

    from lepton_pipelines.data.derived import derive_frame

    pipeline = read_pipeline(request.config.rootpath / "examples" / "air-quality" / "pipeline.yaml")
    raw = pd.read_parquet(fetch_public_set("beijing-air", tmp_path)["dongsi"])
    made = derive_frame(raw, pipeline.read_contract())
    for lag in (1, 2, 3, 6, 12, 24):
        pd.testing.assert_series_equal(made[f"pm25_lag_{lag}"], raw["pm25"].shift(lag), check_names=False)
    mean = raw["pm25"].shift(1).rolling(24, min_periods=12).mean()
    pd.testing.assert_series_equal(made["pm25_mean_24"], mean, check_names=False, rtol=1e-9)
    assert made["wind_lag_1"].fillna("").tolist() == raw["wind"].shift(1).fillna("").tolist()
    assert made["co_lag_1"].equals(raw["co"].shift(1).rename("co_lag_1"))
    assert made["hour"].tolist() == raw["time"].dt.hour.tolist()
