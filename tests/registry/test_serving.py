import json
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests

from lepton_pipelines.registry import serving
from lepton_pipelines.registry.promotion import promote
from lepton_pipelines.registry.publishing import publish
from lepton_pipelines.registry.serving import check_port, follow, serve_command, serve_line, server_environment
from lepton_pipelines.spec.errors import UserError

RAW = "application/json"


def post(url, body, kind=RAW):
    return requests.post(f"{url}/invocations", data=body, headers={"Content-Type": kind}, timeout=30)


def predictions(answer):
    assert answer.ok, answer.text
    return np.array(answer.json()["predictions"], dtype=np.float32)


@pytest.fixture
def champion(tracking, publication, model_name):
    def make(**settings):
        published = publish(tracking, publication(**settings))
        promote(tracking, model_name, published.version, reason="it is the first", by="a test")
        return published

    return make


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("categories", [False, True], ids=["numbers", "categories"])
def test_raw_rows_get_the_probabilities_of_plain_xgboost(
    tracking, champion, trained, model_name, free_port, start, categories
):
    champion(categories=categories)
    booster, raw, matrix, _, _ = trained(categories=categories)
    expected = booster.predict(matrix)[:20]
    rows = raw.head(20)
    assert rows.isna().any(axis=None)
    port = free_port()
    served = start(serve_command(model_name, port=port), f"http://127.0.0.1:{port}", env=server_environment(tracking))
    served.wait_until_healthy("/ping")
    split = json.loads(rows.to_json(orient="split", index=False))
    records = json.loads(rows.to_json(orient="records"))
    assert np.array_equal(predictions(post(served.url, json.dumps({"dataframe_split": split}))), expected)
    assert np.array_equal(predictions(post(served.url, json.dumps({"dataframe_records": records}))), expected)
    assert np.array_equal(predictions(post(served.url, rows.to_csv(index=False), "text/csv")), expected)
    alone = [{**records[3], "size": None, "visits": None}]
    assert predictions(post(served.url, json.dumps({"dataframe_records": alone}))).shape == (1,)
    if categories:
        refused = post(served.url, json.dumps({"dataframe_records": [{**records[0], "site": "moon"}]}))
        assert refused.status_code == 400
        assert "'site' holds 'moon', the model knows lung, skin, bone" in refused.text
        missing = [{**records[0], "site": None}]
        assert predictions(post(served.url, json.dumps({"dataframe_records": missing}))).shape == (1,)
    del records[0]["age"]
    refused = post(served.url, json.dumps({"dataframe_records": records[:1]}))
    assert refused.status_code == 400
    assert "age" in refused.text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_new_champion_is_picked_up_without_a_hand(
    tracking, champion, publication, trained, model_name, free_port, start
):
    champion()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    script = Path(__file__).parents[2] / "mlflow" / "serve-model.sh"
    settings = {"LEPTON_SERVE_PORT": str(port), "LEPTON_SERVE_EVERY": "0.5"}
    following = start([str(script), model_name], url, env=server_environment(tracking) | settings)
    following.wait_until_healthy()
    booster, raw, matrix, _, _ = trained(rounds=5)
    body = raw.head(5).to_csv(index=False)
    assert np.array_equal(predictions(post(url, body, "text/csv")), booster.predict(matrix)[:5])
    second = publish(tracking, publication("r-2", rounds=9))
    promote(tracking, model_name, second.version, reason="it is better", by="a test")
    expected = trained(rounds=9)[0].predict(matrix)[:5]
    wait_for(following, lambda: predictions(post(url, body, "text/csv")), lambda found: np.array_equal(found, expected))
    following.process.send_signal(signal.SIGTERM)
    assert following.process.wait(60) == 0
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url, timeout=5)


def wait_for(server, ask, good, within=300):
    """Ask a server until its answer is good; it is down for a while in between."""
    pause, until = threading.Event(), time.monotonic() + within
    while time.monotonic() < until:
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        try:
            found = ask()
        except requests.exceptions.RequestException:
            found = None
        if found is not None and good(found):
            return
        pause.wait(0.25)
    raise AssertionError(f"no good answer within {within} s:\n{server.log.read_text()[-3000:]}")


LINGERING = """
import http.server, os, signal, sys, threading
if os.fork():
    signal.pause()
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(2, lambda: os._exit(0)).start())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_stopped_server_has_given_its_port_back_though_its_child_outlives_it(tracking, free_port, monkeypatch):
    port = free_port()
    # MLflow's process ends at once and leaves uvicorn to answer what is under way; this one shows it every time.
    monkeypatch.setattr(serving, "serve_command", lambda *_, **__: [sys.executable, "-c", LINGERING, str(port)])
    server = serving.ModelServer(tracking, "any", "1", host="127.0.0.1", port=port)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if requests.get(server.url, timeout=5).ok:
                break
        except requests.exceptions.ConnectionError:
            time.sleep(0.05)
    server.stop()
    check_port("127.0.0.1", port)


def test_a_port_that_is_taken_is_named_before_anything_starts(free_port):
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(UserError, match=f"Port {port} of 127.0.0.1 cannot be used"):
            check_port("127.0.0.1", port)


def test_a_model_without_a_champion_cannot_be_served(tracking, free_port):
    with pytest.raises(UserError, match="nobody has no champion to serve"):
        follow(tracking, "nobody", port=free_port())


def test_the_line_for_the_shell_names_the_store_and_the_alias(tracking):
    line = serve_line(tracking, "breast-cancer")
    assert f" MLFLOW_TRACKING_URI={tracking.uri} mlflow " in line
    assert "models serve -m models:/breast-cancer@champion --env-manager local" in line
