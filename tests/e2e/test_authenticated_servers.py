"""Prefect and MLflow that ask for a sign-in, over TLS of an own authority: as good as open ones, clear if it fails."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PREFECT_PASSWORD, MLFLOW_PASSWORD = "prefects long enough password", "mlflows long enough password"
TOKEN = "a-token-that-both-doors-want"


@pytest.fixture(scope="module")
def serve(environment, certificate, tmp_path_factory, prefect_database):
    """A maker of servers, each with a folder and a free port of its own; gives their addresses."""
    running = []

    def begin(command, health, **settings):
        folder = tmp_path_factory.mktemp("server")
        shutil.copy(prefect_database, folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        told = {name: value.format(folder=folder, port=port) for name, value in settings.items()}
        with (folder / "log.txt").open("w") as log:
            process = subprocess.Popen(
                [part.format(port=port) for part in command],
                env={**environment, "PATH": programs, **told},
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        running.append(process)
        address = f"https://127.0.0.1:{port}"
        until = time.monotonic() + 180
        while not answers(address + health, certificate[1]):
            assert process.poll() is None and time.monotonic() < until, (folder / "log.txt").read_text()[-3000:]
            time.sleep(0.2)
        return address

    yield begin
    for process in running:
        process.terminate()
    for process in running:
        process.wait(30)


def answers(address, authority):
    try:
        trusted = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(address, timeout=5, context=trusted):  # noqa: S310 - our own
            return True
    except urllib.error.HTTPError as refused:
        return refused.code in (401, 403)
    except OSError:
        return False


@pytest.fixture(scope="module")
def prefect_api_address(serve, certificate):
    """A Prefect server that asks for a user's name and password, over TLS."""
    key, chain = certificate
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--port", "{port}", "--ssl-keyfile", str(key), "--ssl-certfile", str(chain)]
    settings = {"PREFECT_HOME": "{folder}", "PREFECT_SERVER_API_AUTH_STRING": f"operator:{PREFECT_PASSWORD}"}
    return serve(command, "/api/health", **settings, PREFECT_SERVER_ANALYTICS_ENABLED="false") + "/api"


@pytest.fixture(scope="module")
def mlflow_address(serve, certificate):
    """An MLflow server with accounts, over TLS, started by the script in mlflow/."""
    pytest.importorskip("flask_wtf", reason="MLflow's accounts need Flask-WTF, which is not installed")
    key, chain = certificate
    return serve(
        [str(ROOT / "mlflow" / "start-server.sh")],
        "/health",
        LEPTON_MLFLOW_PORT="{port}",
        LEPTON_MLFLOW_WORKERS="1",
        LEPTON_MLFLOW_STORE="sqlite:///{folder}/server.db",
        LEPTON_MLFLOW_ARTIFACTS="{folder}/artifacts",
        LEPTON_MLFLOW_TLS_KEY=str(key),
        LEPTON_MLFLOW_TLS_CERTIFICATE=str(chain),
        LEPTON_MLFLOW_ACCOUNTS="sqlite:///{folder}/accounts.db",
        MLFLOW_AUTH_ADMIN_PASSWORD=MLFLOW_PASSWORD,
        MLFLOW_FLASK_SERVER_SECRET_KEY="of the test",
    )


@pytest.fixture(scope="module")
def at_prefect(prefect_api_address, certificate):
    """What a shell exports for that Prefect server."""
    return {
        "PREFECT_API_URL": prefect_api_address,
        "PREFECT_API_AUTH_STRING": f"operator:{PREFECT_PASSWORD}",
        "PREFECT_API_SSL_CERT_FILE": str(certificate[1]),
    }


@pytest.fixture(scope="module")
def at_mlflow(mlflow_address, certificate):
    """What a shell exports for that MLflow server."""
    return {
        "MLFLOW_TRACKING_URI": mlflow_address,
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": MLFLOW_PASSWORD,
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate[1]),
    }


@pytest.fixture(scope="module")
def by_token(serve, certificate, mlflow_address):
    """What a shell exports for a Prefect server and a way to that MLflow server which want a token."""
    key, chain = certificate
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT / "tests" / "e2e"), "--factory"]
    tls = ["--port", "{port}", "--ssl-keyfile", str(key), "--ssl-certfile", str(chain)]
    quiet = {"DOOR_TOKEN": TOKEN, "PREFECT_HOME": "{folder}", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    inside = {
        "DOOR_UPSTREAM": mlflow_address,
        "DOOR_ACCOUNT": f"admin:{MLFLOW_PASSWORD}",
        "DOOR_AUTHORITY": str(certificate[1]),
    }
    return {
        "PREFECT_API_URL": serve([*command, "token_doors:prefect", *tls], "/api/health", **quiet) + "/api",
        "PREFECT_API_KEY": TOKEN,
        "PREFECT_API_SSL_CERT_FILE": str(certificate[1]),
        "MLFLOW_TRACKING_URI": serve([*command, "token_doors:mlflow", *tls], "/health", **quiet, **inside),
        "MLFLOW_TRACKING_TOKEN": TOKEN,
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate[1]),
    }


@pytest.fixture(scope="module")
def example(module_example):
    """The example, with a training that is over soon and two versions of which the second is no worse."""
    module_example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    module_example.replace("pipeline.yaml", "rounds: 60", "rounds: 3")
    lines = [line for line in module_example.spec.read_text().splitlines() if not line.startswith("gates:")]
    module_example.spec.write_text("\n".join(lines))
    return module_example


def without(settings, *names):
    return {name: value for name, value in settings.items() if name not in names}


@pytest.mark.parametrize(("command", "told"), [("deploy", "operator:wrong"), ("run", None)])
def test_without_the_right_sign_in_prefect_s_variable_is_named(example, module_lepton, at_prefect, told, command):
    settings = without(at_prefect, "PREFECT_API_AUTH_STRING") | ({"PREFECT_API_AUTH_STRING": told} if told else {})
    ended = module_lepton(command, example.spec, "--var", example.var, **settings)
    assert ended.code == 2, ended.err
    assert "refuses the sign-in (401). Set PREFECT_API_AUTH_STRING" in ended.err
    assert "Traceback" not in ended.err
    assert not example.var.exists()


def test_a_certificate_of_an_unknown_authority_is_said_for_prefect_and_mlflow(
    example, module_lepton, at_prefect, at_mlflow
):
    ended = module_lepton("deploy", example.spec, **without(at_prefect, "PREFECT_API_SSL_CERT_FILE"))
    assert ended.code == 2
    assert "is not trusted" in ended.err and "PREFECT_API_SSL_CERT_FILE" in ended.err
    ended = module_lepton("check", example.spec, **without(at_mlflow, "MLFLOW_TRACKING_SERVER_CERT_PATH"))
    assert ended.code == 2
    assert "its certificate is not trusted" in ended.err and "MLFLOW_TRACKING_SERVER_CERT_PATH" in ended.err


def test_without_the_right_sign_in_mlflow_s_variables_are_named_by_every_command(
    example, environment, commands_in_one_process, at_mlflow
):
    told = {**environment, **at_mlflow, "MLFLOW_TRACKING_PASSWORD": "wrong"}
    commands = (
        ("check", example.spec),
        ("promote", "breast-cancer", "--version", "1", "--reason", "good"),
        ("rollback", "breast-cancer", "--reason", "bad"),
        ("run", example.spec),
    )
    for command, ended in zip(
        commands, commands_in_one_process([(*one, "--var", example.var) for one in commands], told), strict=True
    ):
        assert ended.code == 2, command
        assert "refuses the sign-in. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in ended.err, command
        assert "Traceback" not in ended.err and "wrong" not in ended.err, command
    assert not (example.var / "runs").exists()


def test_what_works_with_local_servers_works_with_these_and_no_password_is_written_anywhere(
    example, module_lepton, environment, at_prefect, at_mlflow, tmp_path, end_worker
):
    told = {**at_prefect, **at_mlflow}
    said = []

    def lepton(*command, **changed):
        ended = module_lepton(*command, "--var", example.var, **{**told, **changed})
        assert ended.code == 0, (command, ended.err)
        said.append(ended.out + ended.err)
        return ended.out

    lepton("check", example.spec)
    lepton("deploy", example.spec, "--watch", "never")
    assert "v1 → champion" in lepton("run", example.spec)
    with (tmp_path / "worker.txt").open("w") as log:
        worker = subprocess.Popen(
            [Path(sys.executable).with_name("prefect"), "worker", "start", "--pool", "lepton"],
            env={**environment, **told},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        run = run_of_deployment(at_prefect)
    finally:
        end_worker(worker)
    assert run.state.is_completed(), run.state.message
    # Not even the file of the authority is needed by who says so.
    unchecked = {"PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "true", "PREFECT_API_SSL_CERT_FILE": ""}
    lepton("publish", next((example.var / "runs").iterdir()).name, **unchecked)
    lepton("promote", "breast-cancer", "--version", "2", "--reason", "as good")
    assert "v1" in lepton("rollback", "breast-cancer", "--reason", "not so good")
    written = [path.read_bytes() for path in example.var.rglob("*") if path.is_file()]
    written += ["".join(said).encode(), (tmp_path / "worker.txt").read_bytes()]
    for secret in (PREFECT_PASSWORD, MLFLOW_PASSWORD):
        assert not any(secret.encode() in text for text in written)


def test_a_token_does_as_well_as_a_password_and_is_written_nowhere(
    example, module_lepton, environment, commands_in_one_process, by_token, tmp_path
):
    ended = module_lepton("run", example.spec, "--var", tmp_path / "wrong", **{**by_token, "PREFECT_API_KEY": "wrong"})
    assert ended.code == 2 and "PREFECT_API_KEY" in ended.err, ended.err
    told = {**by_token, "MLFLOW_TRACKING_TOKEN": "wrong"}
    ended = module_lepton("run", example.spec, "--var", tmp_path / "wrong", **told)
    assert ended.code == 2 and "MLFLOW_TRACKING_TOKEN" in ended.err, ended.err
    commands = [(command, example.spec, "--var", tmp_path / "var") for command in ("check", "deploy", "run")]
    for ended in commands_in_one_process(commands, {**environment, **by_token}):
        assert ended.code == 0, ended.err
        assert TOKEN not in ended.out + ended.err
    assert not any(TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def run_of_deployment(at_prefect):
    """Start the deployed pipeline and wait until it has ended."""
    known = {
        PREFECT_API_URL: at_prefect["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: at_prefect["PREFECT_API_AUTH_STRING"],
        PREFECT_API_SSL_CERT_FILE: at_prefect["PREFECT_API_SSL_CERT_FILE"],
    }
    with temporary_settings(known), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("federated-retrain/breast-cancer")
        run = client.create_flow_run_from_deployment(deployment.id)
        until = time.monotonic() + 240
        while not run.state.is_final():
            assert time.monotonic() < until, run.state
            time.sleep(0.3)
            run = client.read_flow_run(run.id)
    return run
