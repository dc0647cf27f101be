import dataclasses
import sqlite3
from pathlib import Path

import mlflow
import numpy as np
import pytest
import xgboost

from lepton_pipelines.registry import model_version
from lepton_pipelines.registry.promotion import settle
from lepton_pipelines.registry.publishing import attach, delivered_later, publish
from lepton_pipelines.registry.signature import InputColumn, input_example, signature_of
from lepton_pipelines.spec.errors import UserError


def test_a_run_carries_parameters_curves_lineage_files_and_tags(tracking, publication):
    published = publish(tracking, publication())
    client = tracking.client()
    run = client.get_run(published.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"max_depth": "3", "rounds": "5"}
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/logloss")] == [1, 2, 3, 4, 5]
    assert "north/train/auc" in run.data.metrics
    assert run.data.metrics["final/auc"] == 0.93
    assert {(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs} == {
        ("north", ("ab" * 32)[:36]),
        ("valley", "cd"),
    }
    assert {one.path for one in client.list_artifacts(run.info.run_id)} >= {"report.html", "plots"}
    assert run.data.tags["lepton.organisations"] == "north, valley"
    assert run.data.tags["lepton.run_id"] == "r-1"


def test_a_version_is_a_stock_xgboost_model_under_the_alias_challenger(tracking, publication, trained, model_name):
    published = publish(tracking, publication())
    booster, _, matrix, _, _ = trained()
    with tracking.as_current():
        loaded = mlflow.xgboost.load_model(f"models:/{model_name}@challenger")
    assert isinstance(loaded, xgboost.Booster)
    assert np.array_equal(loaded.predict(matrix), booster.predict(matrix))
    version = tracking.client().get_model_version(model_name, published.version)
    assert version.description == "Three hospitals, 400 patients."
    assert version.tags["lepton.model_digest"] == published.digest


@pytest.mark.parametrize("categories", [False, True], ids=["numbers", "categories"])
def test_raw_rows_are_scored_as_plain_xgboost_scores_them(tracking, publication, trained, model_name, categories):
    publish(tracking, publication(categories=categories))
    booster, raw, matrix, _, _ = trained(categories=categories)
    with tracking.as_current():
        served = mlflow.pyfunc.load_model(f"models:/{model_name}@challenger")
        native = mlflow.xgboost.load_model(f"models:/{model_name}@challenger")
    assert np.array_equal(served.predict(raw), booster.predict(matrix))
    assert np.array_equal(native.predict(matrix), booster.predict(matrix))


def test_a_model_without_categories_is_mlflows_own_in_full(tracking, publication, model_name):
    publish(tracking, publication())
    with tracking.as_current():
        info = mlflow.models.get_model_info(f"models:/{model_name}@challenger")
    assert info.flavors["python_function"]["loader_module"] == "mlflow.xgboost"


def test_signature_example_and_requirements_are_with_the_model(tracking, publication, model_name):
    publish(tracking, publication(categories=True))
    with tracking.as_current():
        info = mlflow.models.get_model_info(f"models:/{model_name}@challenger")
        needed = mlflow.pyfunc.get_model_dependencies(info.model_uri)
        example = mlflow.models.Model.load(info.model_uri).load_input_example()
    types = {column.name: column.type.name for column in info.signature.inputs}
    assert types == {"size": "double", "age": "long", "visits": "double", "site": "string", "smoker": "boolean"}
    assert example["site"].tolist()[0] == "lung"
    assert example["visits"].isna().tolist() == [False, True]
    names = [line.partition("==")[0] for line in Path(needed).read_text().split()]
    assert {"xgboost-cpu", "mlflow"} <= set(names)
    assert "xgboost" not in names


def test_how_inputs_are_computed_stands_beside_the_signature(tracking, publication, model_name):
    publish(tracking, dataclasses.replace(publication(), computed={"size": "ln(volume)"}))
    with tracking.as_current():
        info = mlflow.models.get_model_info(f"models:/{model_name}@challenger")
    assert info.metadata["lepton_computed_inputs"] == {"size": "ln(volume)"}


def test_publishing_a_run_twice_gives_the_same_version(tracking, publication, model_name):
    first = publish(tracking, publication())
    assert publish(tracking, publication()) == first
    assert len(tracking.client().search_model_versions(f"name = '{model_name}'")) == 1


def test_another_model_under_the_same_run_id_is_refused(tracking, publication):
    publish(tracking, publication())
    with pytest.raises(UserError, match="was published before"):
        publish(tracking, publication(rounds=7))


def test_two_runs_are_two_versions(tracking, publication):
    first, second = publish(tracking, publication()), publish(tracking, publication("r-2", rounds=7))
    assert (first.version, second.version) == ("1", "2")
    assert first.mlflow_run_id != second.mlflow_run_id


@pytest.mark.parametrize("step", ["log_files", "_log_model", "_load_back"])
def test_publishing_goes_on_where_it_was_interrupted(tracking, publication, model_name, monkeypatch, step):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_version, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish(tracking, publication())
    client = tracking.client()
    published = publish(tracking, publication())
    assert published.version == "1"
    runs = client.search_runs([client.get_run(published.mlflow_run_id).info.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert len(client.get_metric_history(published.mlflow_run_id, "train/auc")) == 5


def test_a_version_that_does_not_load_back_gets_no_alias(tracking, publication, model_name, monkeypatch):
    log_model = model_version._log_model

    def spoiled(client, run_id, told):
        return log_model(client, run_id, dataclasses.replace(told, model=publication(rounds=1).model))

    monkeypatch.setattr(model_version, "_log_model", spoiled)
    with pytest.raises(UserError, match="It is not published"):
        publish(tracking, publication())
    assert tracking.client().get_registered_model(model_name).aliases == {}


def test_a_locked_database_is_named_and_publishing_can_be_done_later(tracking, publication):
    locked = sqlite3.connect(tracking.uri.removeprefix("sqlite:///"))
    try:
        locked.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"database is locked.*lepton publish r-1"):
            publish(tracking, publication())
    finally:
        locked.close()
    assert publish(tracking, publication()).version == "1"


def test_a_registry_that_locks_up_between_publishing_and_promotion_loses_nothing(tracking, publication):
    published = publish(tracking, publication())
    locked = sqlite3.connect(tracking.uri.removeprefix("sqlite:///"))
    try:
        locked.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(UserError, match=r"database is locked.*lepton publish r-1"),
            delivered_later(tracking, "r-1"),
        ):
            settle(tracking, published.registered_model, published.version, [])
    finally:
        locked.close()
    assert settle(tracking, published.registered_model, published.version, []).outcome == "champion"


def test_a_deleted_experiment_is_named(tracking, publication):
    told = publication()
    client = tracking.client()
    client.delete_experiment(client.create_experiment(told.experiment))
    with pytest.raises(UserError, match="was deleted"):
        publish(tracking, told)


def test_an_artifact_cannot_lead_out_of_the_run(tracking, publication):
    with pytest.raises(ValueError, match="leads out"):
        publish(tracking, dataclasses.replace(publication(), files={"../../evil": "x"}))


def test_the_input_example_is_made_up_from_the_contract():
    columns = [
        InputColumn("bare"),
        InputColumn("low", minimum=3),
        InputColumn("whole", "integer", missing=False, minimum=1, maximum=4),
        InputColumn("site", "category", categories=("x", "y")),
        InputColumn("flag", "boolean"),
    ]
    example = input_example(columns)
    assert example.iloc[0].tolist() == [1.0, 3.0, 2, "x", 1.0]
    assert example.iloc[1].isna().tolist() == [True, True, False, True, True]
    signature = signature_of(columns, outputs=3)
    assert [column.type.name for column in signature.inputs] == ["double", "double", "long", "string", "double"]
    assert signature.outputs.inputs[0].shape == (-1, 3)


def test_files_can_be_attached_after_the_decision(tracking, publication):
    published = publish(tracking, publication())
    for _ in range(2):
        attach(tracking, published, {"report.html": "<p>champion</p>", "plots/shap.svg": "<svg/>"})
    client = tracking.client()
    assert {one.path for one in client.list_artifacts(published.mlflow_run_id, "plots")} == {
        "plots/roc.svg",
        "plots/shap.svg",
    }
    with tracking.as_current():
        assert mlflow.artifacts.load_text(f"runs:/{published.mlflow_run_id}/report.html") == "<p>champion</p>"
