"""`lepton score` and its deployment: rows in S3, scored on Dask worker processes by a trained model, back into S3."""

import json
import os

import numpy as np
import pandas as pd
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FILES = 6


@pytest.fixture
def fresh(bucket, example):
    """The endpoint, the bucket's file system and its name, with harbour's rows in several files."""
    endpoint, name, filesystem = bucket
    rows = pd.read_parquet(example.folder / "data" / "harbour" / "patients.parquet").drop(columns="malignant")
    for place, part in enumerate(np.array_split(np.arange(len(rows)), FILES)):
        with filesystem.open(f"{name}/fresh/ward-{place}/rows.parquet", "wb") as out:
            rows.iloc[part].to_parquet(out, index=False)
    own = example.folder / "harbour.yaml"
    storage = f"{{endpoint: {endpoint}, region: eu-west-1}}"
    text = own.read_text().replace("data: data/harbour/", f"data: {{url: s3://{name}/rows/, storage: {storage}}}")
    assert "workers: 1" in text and str(storage) in text
    (example.folder / "harbour-s3.yaml").write_text(text.replace("workers: 1", "workers: 2"))
    return endpoint, name, filesystem


def read(filesystem, place):
    with filesystem.open(place, "rb") as stored:
        return pd.read_parquet(stored)


def test_rows_in_s3_are_scored_once_and_only_what_is_missing_is_scored_again(
    example, fresh, lepton, prefect_server, prefect_api
):
    from lepton_pipelines.registry.champion import load_champion
    from lepton_pipelines.registry.tracking import open_tracking

    _, name, filesystem = fresh
    example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    settings = {"PREFECT_API_URL": prefect_server}
    settings |= {variable: os.environ[variable] for variable in os.environ if variable.startswith("AWS_")}
    trained = lepton("run", example.spec, "--var", example.var, **settings)
    assert trained.code == 0, trained.err

    def score():
        ended = lepton(
            *("score", "breast-cancer", f"s3://{name}/fresh/", f"s3://{name}/scored"),
            *("--organisation", example.folder / "harbour-s3.yaml", "--var", example.var),
            **settings,
        )
        assert ended.code == 0, ended.err
        return ended.out

    assert f"in {FILES} files" in score()
    model = load_champion(open_tracking(folder=example.var), "breast-cancer")
    places = filesystem.find(f"{name}/scored")
    assert [place.removeprefix(f"{name}/scored/") for place in places] == [
        f"ward-{number}/rows.parquet" for number in range(FILES)
    ]
    scored = pd.concat([read(filesystem, place) for place in places])
    assert set(scored["model_digest"]) == {f"sha256:{model.digest}"}
    rows = pd.concat([read(filesystem, place.replace("/scored/", "/fresh/")) for place in places])
    pd.testing.assert_frame_equal(scored[rows.columns], rows)
    assert scored["prediction"].to_numpy() == pytest.approx(by_xgboost(model.model, rows), abs=1e-6)

    filesystem.rm(places[2])
    assert f"{FILES - 1} of the files, which had been scored before" in score()
    assert len(filesystem.find(f"{name}/scored")) == FILES
    run = prefect_api.wait_for_run("score-batch", lambda one: one.state.is_completed())
    assert run.name == f"breast-cancer at s3://{name}/fresh/"
    artifacts = prefect_api.ask(lambda client: client.read_artifacts())
    table = json.loads(next(one.data for one in artifacts if one.key == "harbour-breast-cancer-scored"))
    assert {line["scored"] for line in table} <= {"now", "before"} and len(table) == FILES


def by_xgboost(model, rows):
    import xgboost

    booster = xgboost.Booster(model_file=bytearray(model))
    features = rows[booster.feature_names].to_numpy(np.float32)
    return booster.predict(xgboost.DMatrix(features, feature_names=booster.feature_names))


def test_scoring_where_nothing_was_trained_is_refused_and_makes_no_store(example, lepton):
    ended = lepton(
        *("score", "breast-cancer", example.folder / "data" / "harbour", example.folder / "scored"),
        *("--organisation", example.folder / "harbour.yaml", "--var", example.var),
    )
    assert ended.code == 2
    assert f"There is no registered model in {example.var / 'mlflow'}" in ended.err
    assert not example.var.exists() and not (example.folder / "scored").exists()
