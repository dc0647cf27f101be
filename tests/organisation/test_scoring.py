"""Fresh rows scored by the contract that the model was trained with, held against pandas and plain XGBoost."""

import numpy as np
import pandas as pd
import pytest
import xgboost
from distributed import Client, LocalCluster

from lepton_pipelines.organisation.outcome import SPEC_FILE, input_column
from lepton_pipelines.organisation.scoring import open_batch, score_files, score_on_cluster
from lepton_pipelines.registry.promotion import promote
from lepton_pipelines.registry.publishing import Publication, publish
from lepton_pipelines.registry.tracking import open_tracking
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation
from lepton_pipelines.spec.pipeline import parse_pipeline

DAYS = 30


def told(**value):
    return [{"property": "lepton", "value": value}]


CONTRACT = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "urn:lepton:test:sales",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "sales",
            "logicalType": "object",
            "properties": [
                {"name": "id", "logicalType": "integer", "primaryKey": True, "required": True, "unique": True},
                {"name": "day", "logicalType": "date", "required": True, "customProperties": told(role="time")},
                {"name": "shop", "logicalType": "string", "customProperties": told(categories=["hill", "shore"])},
                {"name": "price", "logicalType": "number", "customProperties": told(missing=[-9])},
                {"name": "sold", "logicalType": "number", "required": True, "customProperties": told(role="label")},
            ],
        }
    ],
}
DERIVED = [{"name": "sold_before", "lag": "sold", "before": 1, "by": "shop"}]


def sales(days=DAYS, first=0):
    """Rows of two shops; what was sold on the last day is not known yet."""
    rng = np.random.default_rng(first)
    frame = pd.DataFrame(
        {
            "id": np.arange(2 * days) + 2 * first,
            "day": np.repeat(pd.date_range("2026-01-01", periods=first + days)[first:].date, 2),
            "shop": ["hill", "shore"] * days,
            "price": np.where(rng.random(2 * days) < 0.2, -9.0, rng.uniform(1, 9, 2 * days)),
        }
    )
    return frame.assign(sold=np.round(rng.uniform(0, 99, 2 * days), 1))


def by_hand(frame):
    """The model's inputs, as pandas computes them."""
    return pd.DataFrame(
        {
            "shop": frame["shop"].map({"hill": 0.0, "shore": 1.0}),
            "price": frame["price"].where(frame["price"] != -9),
            "sold_before": frame.sort_values("day").groupby("shop")["sold"].shift(1).reindex(frame.index),
        }
    )


def matrix(frame, label=None):
    features = by_hand(frame)
    return xgboost.DMatrix(
        features.to_numpy(np.float32),
        label=label,
        feature_names=list(features.columns),
        feature_types=["c", "q", "q"],
        enable_categorical=True,
    )


@pytest.fixture(scope="module")
def booster():
    frame = sales()
    return xgboost.train({"max_depth": 3, "nthread": 1}, matrix(frame, frame["sold"]), 5)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return open_tracking(folder=tmp_path_factory.mktemp("var"))


@pytest.fixture(scope="module")
def model(tracking, booster):
    """The name of a model that was published with its spec; version 1 is champion."""
    pipeline = parse_pipeline(
        {
            "name": "sales",
            "organisations": ["north", "harbour", "valley"],
            "contract": CONTRACT,
            "training": {"label": "sold", "objective": "reg:squarederror"},
            "split": {"time": "day", "test_from": "2026-01-25"},
            "derived": DERIVED,
        }
    )
    publish(
        tracking,
        Publication(
            run_id="r-1",
            experiment="sales",
            registered_model="sales",
            model=bytes(booster.save_raw("ubj")),
            columns=[input_column(column) for column in pipeline.read_contract().features],
            description="two shops",
            files={SPEC_FILE: pipeline.model_dump_json(by_alias=True)},
        ),
    )
    promote(tracking, "sales", "1", reason="the first", by="a test")
    return "sales"


@pytest.fixture
def harbour(tmp_path):
    """An organisation whose own files call the price by another name, and that trains on some rows only."""
    data = {"url": str(tmp_path / "elsewhere"), "columns": {"price": "preis"}, "filter": {"shop": "hill"}}
    return Organisation.model_validate({"organisation": "harbour", "data": data})


@pytest.fixture
def rows(tmp_path):
    """Thirty days in two files; the last day's sales are not known, and there is a column that nobody asked for."""
    frame = sales(first=100)
    frame.loc[frame["day"] == frame["day"].max(), "sold"] = np.nan
    frame["note"] = "fragile"
    folder = tmp_path / "fresh"
    (folder / "later").mkdir(parents=True)
    as_kept = frame.rename(columns={"price": "preis"})
    as_kept[:31].to_parquet(folder / "a.parquet", index=False)
    as_kept[31:].to_parquet(folder / "later" / "b.parquet", index=False)
    return folder, frame


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def written(folder):
    return pd.concat([pd.read_parquet(folder / "a.parquet"), pd.read_parquet(folder / "later" / "b.parquet")])


def test_rows_are_scored_as_training_read_them_and_lags_look_into_other_files(
    tracking, model, booster, harbour, rows, tmp_path, client
):
    folder, frame = rows
    heard = []
    batch = open_batch(tracking, model, None, harbour, str(folder), str(tmp_path / "out"))
    scored = score_on_cluster(batch, client, lambda *step: heard.append(step))
    found = written(tmp_path / "out")
    np.testing.assert_array_equal(found["prediction"], booster.predict(matrix(frame)))
    assert list(found["note"]) == ["fragile"] * len(frame) and list(found["preis"]) == list(frame["price"])
    assert set(found["model_digest"]) == {f"sha256:{batch.model.digest}"} and set(found["model_version"]) == {"1"}
    assert heard[-1] == (2, 2, len(frame)) and scored.rows == len(frame)


def test_what_is_scored_is_left_alone_until_a_row_that_it_depends_on_changes(
    tracking, model, harbour, rows, tmp_path, client
):
    folder, _ = rows

    def score():
        batch = open_batch(tracking, model, None, harbour, str(folder), str(tmp_path / "out"))
        return [one.kept for one in score_on_cluster(batch, client, lambda *_: None).files]

    assert score() == [False, False]
    stamp = (tmp_path / "out" / "a.parquet").stat().st_mtime_ns
    assert score() == [True, True]
    assert (tmp_path / "out" / "a.parquet").stat().st_mtime_ns == stamp
    (tmp_path / "out" / "a.parquet").unlink()
    assert score() == [False, True]
    corrected = pd.read_parquet(folder / "a.parquet")
    corrected.assign(sold=corrected["sold"] + 1).to_parquet(folder / "a.parquet", index=False)
    assert score() == [False, False]


def test_a_half_written_file_in_the_target_is_written_anew(tracking, model, harbour, rows, tmp_path):
    folder, _ = rows
    batch = open_batch(tracking, model, "1", harbour, str(folder), str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.parquet").write_bytes(b"PAR1 and then the machine died")
    done = score_files(batch, batch.files)
    assert [one.kept for one in done] == [False, False]
    assert "prediction" in written(tmp_path / "out").columns


def test_rows_that_break_the_contract_are_named_and_other_files_stay_scored(tracking, model, harbour, rows, tmp_path):
    folder, _ = rows
    spoilt = pd.read_parquet(folder / "later" / "b.parquet").assign(shop="moon")
    spoilt.to_parquet(folder / "later" / "b.parquet", index=False)
    batch = open_batch(tracking, model, None, harbour, str(folder), str(tmp_path / "out"))
    with pytest.raises(UserError, match=r'harbour: .*"moon"|harbour: .*moon'):
        score_files(batch, batch.files)
    assert (tmp_path / "out" / "a.parquet").exists()
    assert not (tmp_path / "out" / "later" / "b.parquet").exists()


def test_a_missing_column_is_named(tracking, model, harbour, rows, tmp_path):
    folder, _ = rows
    pd.read_parquet(folder / "a.parquet").drop(columns="preis").to_parquet(folder / "a.parquet", index=False)
    batch = open_batch(tracking, model, None, harbour, str(folder), str(tmp_path / "out"))
    with pytest.raises(UserError, match='harbour: column "preis" is missing'):
        score_files(batch, batch.files)


def test_a_file_without_rows_is_scored_without_rows(tracking, model, harbour, rows, tmp_path):
    folder, _ = rows
    pd.read_parquet(folder / "a.parquet").head(0).to_parquet(folder / "a.parquet", index=False)
    (folder / "later" / "b.parquet").unlink()
    batch = open_batch(tracking, model, None, harbour, str(folder), str(tmp_path / "out"))
    assert [one.rows for one in score_files(batch, batch.files)] == [0]
    assert "prediction" in pd.read_parquet(tmp_path / "out" / "a.parquet").columns


def test_a_target_inside_the_source_is_refused(tracking, model, harbour, rows):
    folder, _ = rows
    with pytest.raises(UserError, match="scored rows would be scored again"):
        open_batch(tracking, model, None, harbour, str(folder), str(folder / "scored"))


def test_a_source_of_another_kind_is_refused(tracking, model, harbour, tmp_path):
    (tmp_path / "rows.csv").write_text("id,day\n1,2026-01-01\n")
    with pytest.raises(UserError, match=r"rows.csv is no parquet file"):
        open_batch(tracking, model, None, harbour, str(tmp_path / "rows.csv"), str(tmp_path / "out"))


def test_a_model_that_came_without_its_contract_takes_columns_as_its_signature_names_them(
    tracking, booster, harbour, tmp_path, model
):
    from lepton_pipelines.registry.champion import load_version
    from lepton_pipelines.registry.scoring import registered_columns

    publish(
        tracking,
        Publication(
            run_id="pulled-1",
            experiment="pulled",
            registered_model="pulled",
            model=load_version(tracking, model, "1").model,
            columns=registered_columns(tracking, model, "1"),
            description="from the market",
        ),
    )
    frame = by_hand(sales()).assign(shop=sales()["shop"])
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    with pytest.raises(UserError, match="pulled has no champion to score with"):
        open_batch(tracking, "pulled", None, harbour, str(tmp_path / "rows.parquet"), str(tmp_path / "out"))
    batch = open_batch(tracking, "pulled", "1", harbour, str(tmp_path / "rows.parquet"), str(tmp_path / "out"))
    score_files(batch, batch.files)
    found = pd.read_parquet(tmp_path / "out" / "rows.parquet")
    np.testing.assert_array_equal(found["prediction"], booster.predict(matrix(sales())))
