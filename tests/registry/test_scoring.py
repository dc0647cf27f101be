import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from lepton_pipelines.registry import scoring
from lepton_pipelines.registry.champion import load_version
from lepton_pipelines.registry.publishing import publish
from lepton_pipelines.registry.scoring import list_parquet, output_address, registered_columns, score_batch
from lepton_pipelines.spec.errors import UserError


@pytest.fixture
def model(tracking, publication, model_name):
    """A published model with categories, and its columns."""
    publish(tracking, publication(categories=True))
    return load_version(tracking, model_name, "1"), registered_columns(tracking, model_name, "1")


@pytest.fixture
def patients(trained, tmp_path):
    """Raw rows in two files, one of them in a folder of its own."""
    raw = trained(categories=True)[1]
    folder = tmp_path / "patients"
    (folder / "ward").mkdir(parents=True)
    raw.head(250).to_parquet(folder / "a.parquet")
    raw.tail(150).reset_index(drop=True).to_parquet(folder / "ward" / "b.parquet")
    return folder


def test_scores_are_plain_xgboosts_and_rows_stay_as_they_were(model, patients, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ROWS_A_PIECE", 64)
    booster, _, matrix, _, _ = trained(categories=True)
    done = score_batch(*model, str(patients), str(tmp_path / "out"))
    assert (done.rows, done.version) == (400, "1")
    written, given = (
        pd.concat([pd.read_parquet(one / "a.parquet"), pd.read_parquet(one / "ward" / "b.parquet")], ignore_index=True)
        for one in (tmp_path / "out", patients)
    )
    assert np.array_equal(written["prediction"], booster.predict(matrix))
    pd.testing.assert_frame_equal(written[given.columns], given)
    assert set(written["model_version"]) == {"1"}
    assert set(written["model_digest"]) == {f"sha256:{model[0].digest}"}


def test_memory_of_any_fsspec_store_will_do(model, patients, tmp_path):
    raw = pd.read_parquet(patients / "a.parquet")
    raw.to_parquet("memory://hospital/in/a.parquet")
    done = score_batch(*model, "memory://hospital/in", "memory://hospital/out")
    assert [one.address for one in done.files] == ["memory://hospital/out/a.parquet"]
    assert len(pd.read_parquet("memory://hospital/out/a.parquet")) == 250


def test_columns_are_those_that_were_published(model, publication):
    assert [(c.name, c.kind, c.categories) for c in model[1]] == [
        ("size", "number", ()),
        ("age", "integer", ()),
        ("visits", "number", ()),
        ("site", "category", ("lung", "skin", "bone")),
        ("smoker", "boolean", ()),
    ]


def test_every_missing_or_wrong_column_is_named(model, tmp_path):
    pd.DataFrame({"size": ["big"], "age": [3], "prediction": [1.0]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError) as problem:
        score_batch(*model, str(tmp_path / "a.parquet"), str(tmp_path / "out"))
    told = str(problem.value)
    assert 'column "size" holds large_string, the model takes numbers' in told or 'column "size" holds string' in told
    for name in ("visits", "site", "smoker"):
        assert f'column "{name}" is missing' in told
    assert 'column "prediction" would be written over' in told
    assert not (tmp_path / "out").exists()


def test_a_category_that_the_model_does_not_know_leaves_no_half_file(model, patients, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "ROWS_A_PIECE", 64)
    raw = pd.read_parquet(patients / "a.parquet")
    raw.loc[200, "site"] = "moon"
    raw.to_parquet(patients / "a.parquet")
    with pytest.raises(UserError, match="'site' holds 'moon', the model knows lung, skin, bone"):
        score_batch(*model, str(patients / "a.parquet"), str(tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_without_rows_is_written_without_rows(model, patients, tmp_path):
    pd.read_parquet(patients / "a.parquet").head(0).to_parquet(tmp_path / "none.parquet")
    done = score_batch(*model, str(tmp_path / "none.parquet"), str(tmp_path / "out"))
    assert done.rows == 0
    assert "prediction" in pq.read_schema(tmp_path / "out" / "none.parquet").names


def test_an_address_with_nothing_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no parquet file"):
        list_parquet(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "file", "written"),
    [
        ("/in", "file:///in/a/b.parquet", "s3://out/a/b.parquet"),
        ("s3://in/rows/", "s3://in/rows/b.parquet", "s3://out/b.parquet"),
        ("/in/b.parquet", "file:///in/b.parquet", "s3://out/b.parquet"),
    ],
)
def test_a_file_keeps_its_place_below_the_target(source, file, written):
    assert output_address(source, file, "s3://out") == written
