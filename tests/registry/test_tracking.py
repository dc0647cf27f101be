import http.server
import os
import threading
import time

import pytest

from lepton_pipelines.registry.tracking import Tracking, open_tracking, quiet_mlflow, without_password
from lepton_pipelines.spec.errors import UserError


@pytest.fixture
def answering(free_port):
    """A maker of web servers that answer everything with one status."""
    running = []

    def make(status):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_):
                """Stay silent."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield make
    for server in running:
        server.shutdown()
        server.server_close()


def test_the_default_is_sqlite_and_a_folder_below_var(tracking):
    assert tracking.uri.startswith("sqlite:////")
    assert tracking.uri.endswith("/mlflow/mlflow.db")
    assert tracking.artifacts.startswith("file:///")


def test_the_environments_address_is_taken_and_the_organisations_goes_first(monkeypatch, tmp_path, free_port):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match="not reachable"):
        open_tracking(folder=tmp_path)
    with pytest.raises(UserError, match="is not understood"):
        open_tracking("databricks", folder=tmp_path)


def test_a_server_that_is_down_is_named_within_seconds(tmp_path, free_port):
    address = f"http://127.0.0.1:{free_port()}"
    begin = time.monotonic()
    with pytest.raises(UserError, match="connection refused") as problem:
        open_tracking(address, folder=tmp_path)
    assert time.monotonic() - begin < 20
    assert address in str(problem.value)
    assert "tracking.mlflow" in str(problem.value)


def test_an_unknown_host_is_named(tmp_path):
    with pytest.raises(UserError, match=r"mlflow\.invalid is not reachable"):
        open_tracking("http://mlflow.invalid", folder=tmp_path)


def test_a_server_that_is_not_mlflow_is_told_apart(answering, tmp_path):
    with pytest.raises(UserError, match=r"not as an MLflow server does \(status 404"):
        open_tracking(answering(404), folder=tmp_path)


def test_a_refused_sign_in_says_which_variables_to_set(answering, tmp_path):
    with pytest.raises(UserError, match="MLFLOW_TRACKING_USERNAME"):
        open_tracking(answering(401), folder=tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "var"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot keep its runs in"):
        open_tracking(folder=blocked)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "x.db").write_text("no database" * 1000)
    with pytest.raises(UserError, match=r"x\.db cannot be opened"):
        open_tracking(f"sqlite:///{tmp_path}/x.db", folder=tmp_path)


def test_a_password_is_never_shown():
    assert without_password("postgresql://ada:secret@db:5432/mlflow") == "postgresql://ada:…@db:5432/mlflow"
    assert Tracking("https://ada:secret@mlflow.example.org").shown == "https://ada:…@mlflow.example.org"
    assert without_password("sqlite:////var/mlflow.db") == "sqlite:////var/mlflow.db"


def test_what_a_user_set_in_the_environment_stays(monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    quiet_mlflow()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"


def test_the_store_of_a_block_is_gone_after_it(tracking):
    import mlflow

    before = mlflow.get_tracking_uri()
    with tracking.as_current():
        assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == tracking.uri
    assert mlflow.get_tracking_uri() == before


def test_processes_started_after_a_block_inherit_no_store_of_it(tracking, monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    with tracking.as_current():
        assert os.environ["MLFLOW_REGISTRY_URI"] == tracking.uri
    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"} & os.environ.keys()
