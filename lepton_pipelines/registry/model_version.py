"""The steps of publishing, each of which finds what an interrupted attempt has left and goes on from there."""

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_pipelines.registry import raw_rows
from lepton_pipelines.registry.other_models import check_loaded, files_of, log_other_model
from lepton_pipelines.registry.publishing import (
    ALGORITHM_TAG,
    CHALLENGER,
    MODEL_DIGEST_TAG,
    PUBLISHED_TAG,
    RUN_ID_TAG,
    Publication,
    Published,
    RowsUsed,
)
from lepton_pipelines.registry.signature import InputColumn, input_example, signature_of
from lepton_pipelines.registry.tracking import Tracking, quiet_logging
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import xgboost
    from mlflow import MlflowClient
    from mlflow.entities import Metric

PARAMETERS_A_CALL = 100  # MLflow's limits
METRICS_A_CALL = 1000
LONGEST_PARAMETER = 6000
LONGEST_DIGEST = 36


def publish_version(tracking: Tracking, publication: Publication) -> Published:
    """Do what `publishing.publish` promises."""
    client = tracking.client()
    digest = hashlib.sha256(publication.model).hexdigest()
    try:
        finished = find_published(client, tracking, publication.registered_model, publication.run_id)
        if finished is not None:
            if finished.digest != digest:
                raise UserError(
                    f"Run {publication.run_id} was published before as {finished.registered_model} version "
                    f"{finished.version} with another model ({finished.digest[:12]}…, now {digest[:12]}…). "
                    f"Publish under a new run id."
                )
            return finished
        run_id = _run(client, tracking, publication)
        with _closing(client, run_id):
            _log_figures(client, run_id, publication)
            log_files(client, run_id, publication.files if _is_xgboost(publication) else files_of(publication))
            with tracking.as_current():
                number = _version(client, run_id, publication, digest)
                _load_back(f"models:/{publication.registered_model}/{number}", publication)
        client.set_model_version_tag(publication.registered_model, number, PUBLISHED_TAG, "true")
        client.set_registered_model_alias(publication.registered_model, CHALLENGER, number)
    except store_failures() as problem:
        told = str(problem).strip().partition("\n")[0].rstrip(".")
        raise UserError(
            f"MLflow at {tracking.shown} did not publish run {publication.run_id}: {told}. "
            f"What was trained is kept; publish it with: lepton publish {publication.run_id}"
        ) from problem
    return _published(client, tracking, publication.registered_model, number)


def store_failures() -> tuple[type[Exception], ...]:
    """Name what MLflow's client raises when its server or database fails or refuses."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError


def find_published(client: "MlflowClient", tracking: Tracking, model: str, run_id: str) -> Published | None:
    """Return the version that a run was published as, or None."""
    for found in _versions(client, model, run_id):
        if found.tags.get(PUBLISHED_TAG) == "true":
            return _published(client, tracking, model, found.version)
    return None


def _versions(client: "MlflowClient", model: str, run_id: str) -> list[Any]:
    quoted = model.replace("'", "")
    found = client.search_model_versions(f"name = '{quoted}' and tag.`{RUN_ID_TAG}` = '{run_id}'")
    return sorted(found, key=lambda one: int(one.version))


def _published(client: "MlflowClient", tracking: Tracking, model: str, number: str) -> Published:
    found = client.get_model_version(model, number)
    run_id = str(found.run_id)
    address = tracking.shown
    if address.startswith("http"):
        run = client.get_run(run_id)
        address = f"{address}/#/experiments/{run.info.experiment_id}/runs/{run_id}"
    return Published(
        registered_model=model,
        version=str(number),
        mlflow_run_id=run_id,
        model_uri=f"models:/{model}/{number}",
        digest=found.tags[MODEL_DIGEST_TAG],
        address=address,
    )


def _run(client: "MlflowClient", tracking: Tracking, publication: Publication) -> str:
    """Find or create the experiment and the run; a run that an attempt left open is gone on with."""
    experiment = client.get_experiment_by_name(publication.experiment)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"The MLflow experiment {publication.experiment!r} was deleted. Restore it with: mlflow experiments "
            f"restore --experiment-id {experiment.experiment_id}; or give the pipeline another name."
        )
    experiment_id = (
        experiment.experiment_id
        if experiment is not None
        else client.create_experiment(publication.experiment, artifact_location=tracking.artifacts)
    )
    tags = {**publication.tags, RUN_ID_TAG: publication.run_id, "mlflow.note.content": publication.description}
    before = client.search_runs([experiment_id], f"tags.`{RUN_ID_TAG}` = '{publication.run_id}'", max_results=1)
    if before:
        run_id = str(before[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
        return run_id
    return str(client.create_run(experiment_id, run_name=publication.run_id, tags=tags).info.run_id)


@contextmanager
def _closing(client: "MlflowClient", run_id: str) -> Iterator[None]:
    """Leave the run finished, or failed if publishing ends with an error."""
    try:
        yield
    except BaseException as problem:
        try:
            client.set_terminated(run_id, status="FAILED")
        except store_failures() as another:
            # The store that failed may still fail; what matters is why publishing ended.
            problem.add_note(f"The run could not be marked as failed either: {another}")
        raise
    client.set_terminated(run_id, status="FINISHED")


def _log_figures(client: "MlflowClient", run_id: str, publication: Publication) -> None:
    """Log parameters, metrics a round, final scores and the datasets. Logging them twice changes nothing."""
    from mlflow.entities import Param

    run = client.get_run(run_id)
    parameters = [
        Param(name, str(value)[:LONGEST_PARAMETER])
        for name, value in publication.parameters.items()
        if name not in run.data.params
    ]
    for start in range(0, len(parameters), PARAMETERS_A_CALL):
        client.log_batch(run_id, params=parameters[start : start + PARAMETERS_A_CALL])
    if not run.data.metrics:
        metrics = list(_metrics(publication))
        for start in range(0, len(metrics), METRICS_A_CALL):
            client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_CALL])
    if publication.datasets and not (run.inputs and run.inputs.dataset_inputs):
        client.log_inputs(run_id, datasets=[_dataset_input(one) for one in publication.datasets])


def _metrics(publication: Publication) -> "Iterator[Metric]":
    """Name the curves set/metric for the federation and organisation/set/metric for an organisation."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    curves = {f"{rows}/{metric}": scores for rows, by in publication.history.items() for metric, scores in by.items()}
    for organisation, history in publication.own_history.items():
        for rows, by in history.items():
            curves |= {f"{organisation}/{rows}/{metric}": scores for metric, scores in by.items()}
    for name, scores in curves.items():
        for index, score in enumerate(scores):
            if math.isfinite(score):
                yield Metric(_metric_name(name), float(score), now, index + 1)
    for name, score in publication.scores.items():
        if math.isfinite(score):
            yield Metric(_metric_name(f"final/{name}"), float(score), now, 0)


def _metric_name(name: str) -> str:
    """Keep what MLflow allows in a metric's name: XGBoost's `error@0.7` has a character that it does not."""
    return "".join(one if one.isalnum() or one in "_-./ :" else "_" for one in name)


def _dataset_input(rows: RowsUsed) -> Any:
    """Describe rows as MLflow's lineage does: digest, context and row count, but nothing of what is in them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = {"digest": rows.digest} | ({} if rows.rows is None else {"num_rows": rows.rows})
    dataset = Dataset(
        name=rows.organisation,
        digest=rows.digest.removeprefix("sha256:")[:LONGEST_DIGEST],
        source_type="organisation",
        source=json.dumps({"organisation": rows.organisation, "source": rows.source}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", rows.context)])


def log_files(client: "MlflowClient", run_id: str, files: Mapping[str, str | bytes]) -> None:
    """Write the report, plots and whatever else belongs to the run as its artifacts."""
    if not files:
        return
    with tempfile.TemporaryDirectory(prefix="lepton-") as folder:
        for name, content in files.items():
            path = Path(folder, name)
            if not path.resolve().is_relative_to(Path(folder).resolve()):
                raise ValueError(f"the artifact name {name!r} leads out of the run's artifacts")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        client.log_artifacts(run_id, folder)


def _version(client: "MlflowClient", run_id: str, publication: Publication, digest: str) -> str:
    """Log the model and register a version of it, unless an interrupted attempt had come that far."""
    from mlflow.exceptions import MlflowException

    name = publication.registered_model
    try:
        client.create_registered_model(name, description=f"Trained by the pipeline {publication.experiment}.")
    except MlflowException as problem:
        if problem.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    before = _versions(client, name, publication.run_id)
    if before:
        return str(before[-1].version)
    model_id = _log_model(client, run_id, publication)
    tags = {RUN_ID_TAG: publication.run_id, MODEL_DIGEST_TAG: digest, ALGORITHM_TAG: publication.algorithm}
    made = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        description=publication.description,
        tags={**publication.tags, **tags},
    )
    return str(made.version)


def _log_model(client: "MlflowClient", run_id: str, publication: Publication) -> str:
    """Log a stock XGBoost model with signature, input example and requirements; another as its algorithm does."""
    import mlflow
    import mlflow.xgboost
    from mlflow.models import Model

    if not _is_xgboost(publication):
        with mlflow.start_run(run_id=run_id), quiet_logging():
            return log_other_model(publication)
    booster: Any = booster_of(publication.model)
    # What is stored is the file that was digested, not what this release of XGBoost would write in its place.
    booster.save_model = lambda path: Path(path).write_bytes(publication.model)
    example = input_example(publication.columns)
    categories = categories_of(publication.columns)
    outputs = 1 if (shape := score(booster, example, categories).shape)[1:] == () else shape[1]
    settings = {
        "signature": signature_of(publication.columns, outputs),
        "input_example": example,
        "pip_requirements": requirements(),
        "metadata": publication.metadata,
    }
    with mlflow.start_run(run_id=run_id), quiet_logging():
        if categories:
            logged = Model.log(
                None, raw_rows, name="model", booster=booster, categories=categories, flavor_name="xgboost", **settings
            )
        else:
            logged = mlflow.xgboost.log_model(booster, name="model", **settings)
    return str(logged.model_id)


def _is_xgboost(publication: Publication) -> bool:
    return publication.algorithm == "xgboost"


def requirements() -> list[str]:
    """Name what a model server needs, with the versions that the model was checked with.

    The CPU wheel of XGBoost, which a server without a graphics card wants; both provide the same module.
    """
    return [f"{name}=={version(name)}" for name in ("mlflow", "xgboost-cpu", "pandas", "numpy")]


def booster_of(model: bytes) -> "xgboost.Booster":
    """Load a booster from the bytes of its file."""
    import xgboost

    return xgboost.Booster(model_file=bytearray(model))


def categories_of(columns: Sequence[InputColumn]) -> dict[str, tuple[str, ...]]:
    """Give the categories of those columns that have some, in the order of their codes."""
    return {column.name: column.categories for column in columns if column.kind == "category"}


def score(booster: "xgboost.Booster", rows: Any, categories: Mapping[str, Sequence[str]]) -> "np.ndarray[Any, Any]":
    """Score raw rows with a booster as the published model does, without MLflow: float32."""
    from lepton_pipelines.registry.raw_rows_loader import RawRows

    scores: np.ndarray[Any, Any] = RawRows(booster, dict(categories)).predict(rows)
    return scores


def _load_back(model_uri: str, publication: Publication) -> None:
    """Load a version from the store as a model server would, and compare its scores of the input example.

    Raises UserError if it cannot be loaded or scores otherwise than the bytes that were published.
    """
    import mlflow.pyfunc
    import numpy as np
    from mlflow.exceptions import MlflowException

    try:
        with quiet_logging():
            loaded = mlflow.pyfunc.load_model(model_uri)
            if not _is_xgboost(publication):
                check_loaded(publication, model_uri, loaded)
                return
            example = input_example(publication.columns)
            found = np.asarray(loaded.predict(example))
    except (MlflowException, OSError) as problem:
        raise UserError(
            f"{model_uri} was registered but cannot be loaded back: {problem}. Check that this machine may read "
            f"MLflow's artifacts (a server started with --artifacts-destination hands them out itself)."
        ) from problem
    expected = score(booster_of(publication.model), example, categories_of(publication.columns))
    if not np.array_equal(found, expected):
        raise UserError(
            f"{model_uri} scores its input example as {found.tolist()}, the trained model as {expected.tolist()}. "
            f"It is not published; check which XGBoost release the MLflow environment has."
        )
