"""Against real tracking servers: a plain one, and one with TLS and accounts; both hand artifacts out themselves."""

import base64
import os
import sys
from pathlib import Path

import pytest
import requests

from lepton_pipelines.registry.champion import load_champion
from lepton_pipelines.registry.promotion import settle
from lepton_pipelines.registry.publishing import publish
from lepton_pipelines.registry.tracking import open_tracking
from lepton_pipelines.spec.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONFIGURATION = Path(__file__).parents[2] / "mlflow"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@pytest.fixture
def serve(start, free_port, tmp_path):
    """A maker of tracking servers, started by the script in mlflow/ with settings of a test."""

    def begin(scheme="http", port=None, **settings):
        port = port or free_port()
        environment = {
            **os.environ,
            **QUIET,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LEPTON_MLFLOW_STORE": f"sqlite:///{tmp_path}/server.db",
            "LEPTON_MLFLOW_ARTIFACTS": str(tmp_path / "artifacts"),
            "LEPTON_MLFLOW_PORT": str(port),
            "LEPTON_MLFLOW_WORKERS": "1",
            **settings,
        }
        url = f"{scheme}://127.0.0.1:{port}"
        return start([str(CONFIGURATION / "start-server.sh")], url, env=environment, cwd=tmp_path)

    return begin


def test_a_run_that_was_published_is_what_the_server_shows(serve, publication, model_name, tmp_path, trained):
    server = serve().wait_until_healthy()
    tracking = open_tracking(server.url, folder=tmp_path / "var")
    told = publication()
    published = publish(tracking, told)
    assert publish(tracking, told) == published
    answer = requests.get(
        f"{server.url}/api/2.0/mlflow/runs/get", params={"run_id": published.mlflow_run_id}, timeout=30
    ).json()["run"]
    assert {one["key"]: one["value"] for one in answer["data"]["params"]}["max_depth"] == "3"
    assert {one["dataset"]["name"] for one in answer["inputs"]["dataset_inputs"]} == {"north", "valley"}
    assert answer["info"]["artifact_uri"].startswith("mlflow-artifacts:/")
    files = requests.get(
        f"{server.url}/api/2.0/mlflow/artifacts/list", params={"run_id": published.mlflow_run_id}, timeout=30
    ).json()["files"]
    assert "report.html" in {one["path"] for one in files}
    settle(tracking, model_name, published.version, [])
    assert load_champion(tracking, model_name).model == told.model
    assert published.address.startswith(f"{server.url}/#/experiments/")
    assert not (tmp_path / "var").exists()


def test_a_run_is_published_when_a_server_that_was_gone_is_back(serve, publication, tmp_path, free_port):
    port = free_port()
    server = serve(port=port).wait_until_healthy()
    tracking = open_tracking(server.url, folder=tmp_path / "var")
    server.stop()
    with pytest.raises(UserError, match="What was trained is kept; publish it with: lepton publish r-1"):
        publish(tracking, publication())
    serve(port=port).wait_until_healthy()
    assert publish(tracking, publication()).version == "1"


def test_a_server_with_tls_and_accounts_works_as_a_local_one_does(
    serve, publication, certificate, model_name, tmp_path, monkeypatch
):
    pytest.importorskip("flask_wtf", reason="MLflow's accounts need Flask-WTF, which is not installed")
    key, chain = certificate
    server = serve(
        "https",
        LEPTON_MLFLOW_TLS_KEY=str(key),
        LEPTON_MLFLOW_TLS_CERTIFICATE=str(chain),
        LEPTON_MLFLOW_ACCOUNTS=f"sqlite:///{tmp_path}/accounts.db",
        MLFLOW_AUTH_ADMIN_PASSWORD="a long enough password",
        MLFLOW_FLASK_SERVER_SECRET_KEY="of the test",
    ).wait_until_healthy(verify=str(chain))
    with pytest.raises(UserError, match="certificate is not trusted"):
        open_tracking(server.url, folder=tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(chain))
    with pytest.raises(UserError, match="refuses the sign-in"):
        open_tracking(server.url, folder=tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a long enough password")
    tracking = open_tracking(server.url, folder=tmp_path)
    told = publication()
    published = publish(tracking, told)
    settle(tracking, model_name, published.version, [])
    assert load_champion(tracking, model_name).model == told.model
    refused = requests.get(
        f"{server.url}/api/2.0/mlflow/runs/get",
        params={"run_id": published.mlflow_run_id},
        headers={"Authorization": "Basic " + base64.b64encode(b"admin:wrong").decode()},
        verify=str(chain),
        timeout=30,
    )
    assert refused.status_code == 401
