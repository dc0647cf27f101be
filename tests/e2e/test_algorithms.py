"""The whole pipeline with an algorithm that is not the engine: the linear example, and one that is not ours."""

import contextlib
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from lepton_pipelines.data.preparation import prepare
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.spec.allowing import allow_algorithm
from lepton_pipelines.spec.pipeline import read_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The linear example with its rows, in a folder of the tests' own."""
    folder = tmp_path_factory.mktemp("example") / "linear"
    shutil.copytree(ROOT / "examples" / "linear", folder, ignore=shutil.ignore_patterns("data"))
    runpy.run_path(str(folder / "make_rows.py"))["write"](folder / "data")
    return folder


@pytest.fixture(scope="module")
def lepton(example):
    """Run the command as a user does; environment: variables to add."""

    def run(*arguments, **environment):
        return subprocess.run(
            [SCRIPTS / "lepton", *arguments, "--var", example / "var"],
            cwd=example,
            env=os.environ | QUIET | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope="module")
def first_run(example, lepton):
    """What the example's run printed."""
    ended = lepton("run", "pipeline.yaml")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def models(example, algorithm):
    return sorted((example / "var" / "runs").glob(f"*/organisations/*/model.{algorithm}"))


def test_both_organisations_have_the_model_that_scikit_learn_fits_to_all_rows(example, first_run):
    pipeline = read_pipeline(example / "pipeline.yaml")
    contract, train = pipeline.read_contract(), []
    for organisation in pipeline.read_organisations().values():
        source = open_source(organisation, contract)
        train += [prepare(source, piece, pipeline.split).sets["train"] for piece in source.pieces()]
    features = np.concatenate([rows.X for rows in train]).astype(np.float64)
    label = np.concatenate([rows.label for rows in train]).astype(np.float64)
    reference = LinearRegression(fit_intercept=False).fit(features, label)

    north, south = (path.read_bytes() for path in models(example, "linear"))
    assert north == south
    coefficients = json.loads(north)["coefficients"]
    np.testing.assert_allclose(coefficients, reference.coef_, rtol=1e-6)
    np.testing.assert_allclose(coefficients, [1.0, 1.0], atol=0.02)


def test_it_is_registered_as_champion_and_the_run_is_in_the_ledger(first_run, example):
    assert "linear v1 → champion" in first_run
    assert "RMSE ≤ 0.11 ✓" in first_run
    assert list((example / "var" / "ledger" / "north").iterdir())


def test_the_stock_server_answers_with_the_champion(first_run, example, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | QUIET | {"MLFLOW_TRACKING_URI": f"sqlite:///{example}/var/mlflow/mlflow.db"}
    environment["PATH"] = f"{SCRIPTS}{os.pathsep}{environment['PATH']}"
    settings = ["-m", "models:/linear@champion", "--env-manager", "local", "-p", str(port)]
    log = tmp_path / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [SCRIPTS / "mlflow", "models", "serve", *settings],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}/ping", server, log)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_records": [{"x1": 2.0, "x2": 0.5}, {"x1": 0.0, "x2": -1.0}]}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
            predictions = json.loads(answer.read())["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)
    first, second = json.loads(models(example, "linear")[0].read_bytes())["coefficients"]
    np.testing.assert_allclose(predictions, [2 * first + 0.5 * second, -second], rtol=1e-9)


def test_an_algorithm_that_is_not_ours_runs_the_whole_pipeline_against_the_champion(first_run, example, lepton):
    page = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0]
    folder = example / "installed"
    information = folder / "lepton_averaging-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lepton-averaging\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[lepton.algorithms]\naveraging = lepton_averaging:Averaging\n")
    (folder / "lepton_averaging.py").write_text(code)
    listing = [
        "lepton_averaging.py",
        *(f"lepton_averaging-1.0.dist-info/{file.name}" for file in information.iterdir()),
    ]
    (information / "RECORD").write_text("".join(f"{file},,\n" for file in [*listing, f"{information.name}/RECORD"]))
    text = (example / "pipeline.yaml").read_text()
    training = re.compile(r"  algorithm: linear.*?\n(?=split)", flags=re.DOTALL)
    spec = example / "averaging.yaml"
    spec.write_text(training.sub("  algorithm: averaging\n  label: y\n  digits: 8\n", text))

    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    refused = lepton("run", "averaging.yaml", PYTHONPATH=path)
    assert refused.returncode == 2 and "policy.algorithms allows averaging by no digest" in refused.stderr
    digest = re.search(r"digest: ([0-9a-f]{64})", refused.stderr)[1]
    for name in organisations(example):
        allow_algorithm(example / f"{name}.yaml", "averaging", digest)
    ended = lepton("run", "averaging.yaml", PYTHONPATH=path)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"champion \(v1\)\s+0\.10\d", ended.stdout)
    assert "v2 → challenger" in ended.stdout
    assert len({path.read_bytes() for path in models(example, "averaging")}) == 1


def organisations(example):
    return read_pipeline(example / "pipeline.yaml").read_organisations()


def wait_until_it_answers(address, server, log):
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - our own server on this machine
                return
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=0.5)
                break
    raise AssertionError(log.read_text())
