"""What is logged is scikit-learn's own model, and stock MLflow reads and serves it without our code or pickle."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io

from lepton_pipelines.linear.algorithm import Linear
from lepton_pipelines.linear.model_file import LinearModel
from lepton_pipelines.linear.sklearn_model import estimator

pytestmark = [
    # MLflow warns of its own classes when it is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
    # MLflow's SQL store sets a loading strategy that SQLAlchemy 2.1 will give up.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    # MLflow compares a frame's columns with a range, which pandas 4 will take otherwise.
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

NAMES = ("age", "dose", "smoker")
MODELS = {
    "squared": LinearModel("reg:squarederror", NAMES, np.array([0.25, -3.0, 1e-7]), 12.5),
    "logistic": LinearModel("binary:logistic", NAMES, np.array([0.02, -1.5, 0.3]), -0.5),
    "squared, filled in": LinearModel(
        "reg:squarederror", NAMES, np.array([0.25, -3.0, 0.1]), 12.5, np.array([50.0, 0.5, 0.2])
    ),
    "logistic, filled in": LinearModel(
        "binary:logistic", NAMES, np.array([0.02, -1.5, 0.3]), -0.5, np.array([50.0, 0.5, 0.2])
    ),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


@pytest.fixture
def frame(model):
    return rows_for(model)


def rows_for(model):
    rows = pd.DataFrame({"age": [63.0, 41.0, 27.0], "dose": [0.5, 1.25, 0.0], "smoker": [1.0, 0.0, 1.0]})
    if model.fill is not None:
        rows.loc[1, ["age", "smoker"]] = np.nan
    return rows


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """All models, logged to a store of their own: {name: the folder of the logged model}."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    folder = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    try:
        experiment = mlflow.create_experiment("linear", artifact_location=(folder / "artifacts").as_uri())
        signature = ModelSignature(inputs=Schema([ColSpec("double", name) for name in NAMES]))
        found = {}
        for name, model in MODELS.items():
            with mlflow.start_run(experiment_id=experiment):
                info = Linear().log_model(
                    model.to_bytes(), name="model", signature=signature, input_example=rows_for(model)[:1]
                )
            found[name] = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(folder / name)))
        return found
    finally:
        mlflow.set_tracking_uri(before)


def answers(model, predictions):
    """A server answers probabilities of both classes."""
    return np.asarray(predictions)[:, 1] if model.objective == "binary:logistic" else np.asarray(predictions)


def test_the_model_file_reads_back_to_the_same_bits(model):
    again = LinearModel.from_bytes(model.to_bytes())
    assert again.to_bytes() == model.to_bytes()
    np.testing.assert_array_equal(again.coefficients, model.coefficients)


def test_scikit_learns_estimator_predicts_as_the_model_does(model, frame):
    fitted = estimator(model)
    found = fitted.predict_proba(frame) if model.objective == "binary:logistic" else fitted.predict(frame)
    np.testing.assert_allclose(answers(model, found), model.predict(frame.to_numpy()), rtol=1e-12)


def test_the_skops_file_holds_no_type_that_skops_does_not_trust_but_a_dtype(model, frame):
    fitted = estimator(model)
    data = skops.io.dumps(fitted)
    assert set(skops.io.get_untrusted_types(data=data)) == ({"numpy.dtype"} if model.fill is not None else set())
    again = skops.io.loads(data, trusted=["numpy.dtype"])
    np.testing.assert_array_equal(again.predict(frame), fitted.predict(frame))


@pytest.mark.slow
def test_mlflow_loads_it_where_our_code_cannot_be_imported_and_reads_no_pickle(store, tmp_path):
    for name, folder in store.items():
        assert "model.skops" in {path.name for path in folder.rglob("*")}
        rows_for(MODELS[name]).to_parquet(tmp_path / f"{name}.parquet")
    folders = {name: str(folder) for name, folder in store.items()}
    code = f"""
import json, sys
sys.modules["lepton_pipelines"] = None  # an import of it fails
import pickle, mlflow.pyfunc, numpy, pandas
def refuse(*arguments, **settings):
    raise RuntimeError("a pickle was read")
pickle.load = pickle.loads = pickle.Unpickler = refuse
found = {{
    name: numpy.asarray(mlflow.pyfunc.load_model(folder).predict(pandas.read_parquet(name + ".parquet"))).tolist()
    for name, folder in {folders!r}.items()
}}
print(json.dumps(found))
"""
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    for name, found in json.loads(done.stdout.splitlines()[-1]).items():
        model = MODELS[name]
        np.testing.assert_allclose(
            answers(model, found), model.predict(rows_for(model).to_numpy()), rtol=1e-12, err_msg=name
        )


@pytest.mark.slow
@pytest.mark.parametrize("model", ["squared", "logistic, filled in"], indirect=True)
def test_the_stock_model_server_answers_raw_rows(model, frame, store, tmp_path, request):
    folder = store[request.node.callspec.params["model"]]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (tmp_path / "server.log").open("w")
    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    settings = ["--env-manager", "local", "-p", str(port)]
    server = subprocess.Popen(
        [str(scripts / "mlflow"), "models", "serve", "-m", str(folder), *settings],
        cwd=tmp_path,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/ping", server, tmp_path / "server.log")
        rows = json.loads(frame.to_json(orient="records"))
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_records": rows}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            found = json.loads(answer.read())["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
        log.close()
    np.testing.assert_allclose(answers(model, found), model.predict(frame.to_numpy()), rtol=1e-12)


def wait_until_it_answers(address, server, log):
    until = time.monotonic() + 240
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - our own server on this machine
                return
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=0.5)
                break
    raise AssertionError(log.read_text())
