"""MLflow, Prefect or the disk fails while a run trains: nothing is lost, and it is delivered later."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from lepton_pipelines.registry.promotion import holder
from lepton_pipelines.registry.tracking import open_tracking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LEPTON = Path(sys.executable).with_name("lepton")
PATIENCE = 300.0


@pytest.fixture
def mlflow_server(tmp_path, environment):
    """Starts and kills an MLflow server at one address, with one store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, started = f"http://127.0.0.1:{port}", []
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def start():
        with (tmp_path / "mlflow.txt").open("a") as log:
            process = subprocess.Popen(
                command, env={**environment, "PATH": programs}, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        wait_until(lambda: healthy(address))
        return process

    yield address, start
    for process in started:
        kill(process)


def healthy(address):
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:  # noqa: S310 - our own
            return answer.status == 200
    except OSError:
        return False


def kill(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_run_whose_registry_died_is_delivered_later(example, lepton, environment, mlflow_server):
    address, start = mlflow_server
    example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    example.replace("pipeline.yaml", "rounds: 60", "rounds: 8")
    example.replace("pipeline.yaml", "gates: {auc: {min: 0.95}", "gates: {auc: {min: 0.5}")
    example.replace("pipeline.yaml", "worst_organisation: {auc: {min: 0.90}}", "size_mb: {max: 50}")
    example.replace("pipeline.yaml", "calibration_error: {max: 0.05}", "latency_ms: {max: 10000}")
    server = start()
    settings = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    run = subprocess.Popen(
        [LEPTON, "run", str(example.spec), "--var", str(example.var)],
        env={**environment, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(example.var.glob("runs/*/organisations/*/round-*.npz")))
    kill(server)
    _, said = run.communicate(timeout=PATIENCE * 2)
    assert run.returncode == 2, said
    run_id = re.search(r"lepton publish (\S+)", said)[1].rstrip(".")
    start()
    ended = lepton("publish", run_id, "--var", example.var, **settings)
    assert ended.code == 0, ended.err
    assert "breast-cancer v1 → champion" in ended.out
    assert holder(open_tracking(address, folder=example.var), "breast-cancer", "champion").run_id == run_id


def test_a_run_that_is_not_trained_is_not_published(example, lepton):
    folder = example.var / "runs" / "20260101-000000-abcd"
    folder.mkdir(parents=True)
    (folder / "pipeline.json").write_text("{}")
    ended = lepton("publish", folder.name, "--var", example.var)
    assert ended.code == 2
    assert f"lepton run --resume {folder.name}" in ended.err


@pytest.fixture
def own_prefect(tmp_path, environment, prefect_database):
    """Starts and kills a Prefect server at one address, with one database."""
    (tmp_path / "prefect").mkdir()
    shutil.copy(prefect_database, tmp_path / "prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, started = f"http://127.0.0.1:{port}/api", []
    command = [Path(sys.executable).with_name("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    settings = {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

    def start():
        with (tmp_path / "prefect.txt").open("a") as log:
            process = subprocess.Popen(
                command, env={**environment, **settings}, stdout=log, stderr=log, start_new_session=True
            )
        started.append(process)
        wait_until(lambda: healthy(address))
        return process

    yield address, start
    for process in started:
        kill(process)


def test_training_goes_on_while_prefect_is_away_and_all_is_delivered_when_it_is_back(example, environment, own_prefect):
    address, start = own_prefect
    example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    example.replace("pipeline.yaml", "rounds: 60", "rounds: 600")
    example.replace("pipeline.yaml", "  early_stopping_rounds: 10\n", "")
    example.replace("pipeline.yaml", "gates: {auc: {min: 0.95}", "gates: {auc: {min: 0.5}")
    example.replace("pipeline.yaml", "calibration_error: {max: 0.05}", "latency_ms: {max: 10000}")
    server = start()
    run = subprocess.Popen(
        [LEPTON, "run", str(example.spec), "--var", str(example.var)],
        env={**environment, "PREFECT_API_URL": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def rounds():
        kept = example.var.glob("runs/*/organisations/north/round-*.npz")
        return max((int(path.stem.removeprefix("round-")) for path in kept), default=0)

    wait_until(lambda: rounds() >= 5)
    kill(server)
    reached = rounds()
    wait_until(lambda: rounds() >= reached + 50)
    start()
    out, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, said
    assert "breast-cancer v1 → champion" in out
    assert holder(open_tracking(folder=example.var), "breast-cancer", "champion") is not None


def test_a_run_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(example, lepton, environment):
    example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    example.replace("pipeline.yaml", "rounds: 60", "rounds: 200")
    example.replace("pipeline.yaml", "  early_stopping_rounds: 10\n", "")
    example.replace("pipeline.yaml", "gates: {auc: {min: 0.95}", "gates: {auc: {min: 0.5}")
    example.replace("pipeline.yaml", "calibration_error: {max: 0.05}", "latency_ms: {max: 10000}")
    run = subprocess.Popen(
        [LEPTON, "run", str(example.spec), "--var", str(example.var)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(example.var.glob("runs/*/organisations/*/round-*5.npz")))
    # The kernel takes no byte more in any file of this process: what a full disk does, without filling one.
    psutil.Process(run.pid).rlimit(psutil.RLIMIT_FSIZE, (1, 1))
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 2, said
    assert re.search(r"round-\d+\.npz\s+cannot\s+be\s+written\s+\(File\s+too\s+large\)", said), said
    assert "Go on at its last tree with: lepton run --resume" in said
    assert "Traceback" not in said
    (folder,) = (example.var / "runs").iterdir()
    ended = lepton("run", "--resume", folder.name, "--var", example.var)
    assert ended.code == 0, ended.err
    part = json.loads((folder / "organisations" / "north" / "part.json").read_text())
    assert part["trained"]["resumed_at"] >= 4
    assert "breast-cancer v1 → champion" in ended.out
