"""The topology of infra/compose.yaml as processes: PostgreSQL behind Prefect and MLflow, rows and artifacts in S3.

Its databases are made by the script and MLflow is started by the script that the containers use.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from lepton_pipelines.registry.champion import load_champion
from lepton_pipelines.registry.tracking import open_tracking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PREFECT_PASSWORD, MLFLOW_PASSWORD, OBJECTS_KEY = "of-prefects-account", "of-mlflows-account", "of-the-objects"
BUCKET = "lepton-platform"


@dataclass(frozen=True)
class Database:
    """The databases that the platform needs."""

    port: int
    password: str

    def ask(self, database: str, question: str) -> list[tuple]:
        address = f"host=127.0.0.1 port={self.port} dbname={database} user=postgres"
        with psycopg.connect(address, password=self.password) as connection:
            return connection.execute(question).fetchall()


@pytest.fixture(scope="module")
def database(postgresql):
    """The databases, made as the container of compose.yaml makes them at its first start."""
    environment = {
        **os.environ,
        "PATH": f"{postgresql.programs}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgresql.port),
        "PGPASSWORD": postgresql.password,
        "PREFECT_DATABASE_PASSWORD": PREFECT_PASSWORD,
        "MLFLOW_DATABASE_PASSWORD": MLFLOW_PASSWORD,
    }
    subprocess.run(["sh", ROOT / "infra" / "create-databases.sh"], env=environment, check=True, capture_output=True)
    return Database(postgresql.port, postgresql.password)


@pytest.fixture(scope="module")
def server_settings(database):
    """What the tests' Prefect server is started with."""
    address = f"postgresql+asyncpg://prefect:{PREFECT_PASSWORD}@127.0.0.1:{database.port}/prefect"
    return {"PREFECT_API_DATABASE_CONNECTION_URL": address}


@pytest.fixture(scope="module")
def objects(s3_server):
    """A bucket for rows and artifacts, and the variables by which it is reached."""
    import s3fs

    filesystem = s3fs.S3FileSystem(
        key="platform",
        secret=OBJECTS_KEY,
        endpoint_url=s3_server,
        client_kwargs={"region_name": "eu-west-1"},
        skip_instance_cache=True,
    )
    filesystem.mkdir(BUCKET)
    yield (
        filesystem,
        {
            "AWS_ACCESS_KEY_ID": "platform",
            "AWS_SECRET_ACCESS_KEY": OBJECTS_KEY,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_CONFIG_FILE": os.devnull,
        },
    )
    filesystem.rm(BUCKET, recursive=True)


@pytest.fixture(scope="module")
def mlflow_address(database, objects, s3_server, environment, tmp_path_factory):
    """MLflow's server on PostgreSQL, with artifacts in S3 that it hands out itself."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        **environment,
        **objects[1],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LEPTON_MLFLOW_STORE": f"postgresql+psycopg://mlflow:{MLFLOW_PASSWORD}@127.0.0.1:{database.port}/mlflow",
        "LEPTON_MLFLOW_ARTIFACTS": f"s3://{BUCKET}/artifacts",
        "LEPTON_MLFLOW_PORT": str(port),
        "LEPTON_MLFLOW_WORKERS": "1",
        "MLFLOW_S3_ENDPOINT_URL": s3_server,
    }
    address = f"http://127.0.0.1:{port}"
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [ROOT / "mlflow" / "start-server.sh"], env=settings, cwd=folder, stdout=log, stderr=log
        )
    until = time.monotonic() + 180
    while not answers(f"{address}/health"):
        assert server.poll() is None and time.monotonic() < until, (folder / "log.txt").read_text()
        time.sleep(0.2)
    yield address
    server.terminate()
    server.wait(30)


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - our own
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def deployed(module_example, module_lepton, objects, s3_server, mlflow_address, prefect_server):
    """The example with its rows in S3, deployed to train every minute, and a worker that has what it needs."""
    filesystem, keys = objects
    for name in ("north", "harbour", "valley"):
        with filesystem.open(f"{BUCKET}/rows/{name}/patients.parquet", "wb") as out:
            out.write((module_example.folder / "data" / name / "patients.parquet").read_bytes())
        storage = f"{{url: s3://{BUCKET}/rows/{name}/, storage: {{endpoint: {s3_server}, region: eu-west-1}}}}"
        module_example.replace(f"{name}.yaml", f"data: data/{name}/", f"data: {storage}")
    shutil.rmtree(module_example.folder / "data")
    module_example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    module_example.replace("pipeline.yaml", "rounds: 60", "rounds: 12")
    module_example.replace("pipeline.yaml", 'cron: "0 3 * * 1"', 'cron: "* * * * *"')
    lines = [line for line in module_example.spec.read_text().splitlines() if not line.startswith("gates:")]
    module_example.spec.write_text("\n".join(lines))
    told = {**keys, "PREFECT_API_URL": prefect_server, "MLFLOW_TRACKING_URI": mlflow_address}
    checked = module_lepton("check", module_example.spec, "--var", module_example.var, **told)
    assert checked.code == 0, checked.err
    ended = module_lepton(*("deploy", module_example.spec, "--var", module_example.var, "--watch", "never"), **told)
    assert ended.code == 0, ended.err
    return module_example, told


@pytest.fixture(scope="module")
def worker_log(deployed, environment, tmp_path_factory, end_worker):
    """What a worker of the pool, as an operator starts it, has to say."""
    path = tmp_path_factory.mktemp("worker") / "log.txt"
    with path.open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("prefect"), "worker", "start", "--pool", "lepton"],
            env={**environment, **deployed[1]},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    yield path
    end_worker(process)


@pytest.fixture(scope="module")
def trained(deployed, worker_log, prefect_api):
    """The first run that the schedule has begun, when it has ended."""
    return prefect_api.wait_for_run(
        # Those that fall due while it is still going are skipped.
        "federated-retrain",
        lambda run: run.auto_scheduled and run.state.is_final() and not run.state.is_cancelled(),
        240,
    )


def test_the_schedule_fires_and_trains_on_rows_in_s3(trained, deployed):
    assert trained.state.is_completed(), trained.state.message
    example, _ = deployed
    results = json.loads(next((example.var / "runs").glob("*/results.json")).read_text())
    assert results["rounds"] == 12


def test_runs_and_models_are_in_postgresql_and_their_files_in_s3(
    trained, deployed, database, objects, mlflow_address, monkeypatch
):
    ((flow_runs,),) = database.ask("prefect", "select count(*) from flow_run where state_type = 'COMPLETED'")
    assert flow_runs >= 4  # the run, and a part for each of three organisations
    ((versions,),) = database.ask("mlflow", "select count(*) from model_versions where name = 'breast-cancer'")
    assert versions >= 1
    filesystem, _ = objects
    assert any(path.endswith("/model.ubj") for path in filesystem.find(f"{BUCKET}/artifacts"))
    # Whoever asks MLflow for the champion needs no key of the bucket.
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    champion = load_champion(open_tracking(mlflow_address, folder=deployed[0].var), "breast-cancer")
    local = {path.read_bytes() for path in deployed[0].var.glob("runs/*/organisations/*/model.ubj")}
    assert champion.model in local


def test_no_secret_is_in_a_log_a_report_or_a_database_s_rows(trained, deployed, worker_log, database):
    kept = [path for path in deployed[0].var.rglob("*") if path.is_file()]
    assert {"report.html", "results.json", "pipeline.json"} <= {path.name for path in kept}
    logged = " ".join(message for (message,) in database.ask("prefect", "select message from log"))
    parameters = " ".join(text for (text,) in database.ask("prefect", "select parameters::text from flow_run"))
    told = [path.read_bytes() for path in [*kept, worker_log]] + [logged.encode(), parameters.encode()]
    for secret in (PREFECT_PASSWORD, MLFLOW_PASSWORD, OBJECTS_KEY):
        assert not any(secret.encode() in text for text in told), secret
