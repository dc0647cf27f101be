"""What Prometheus is told, read by its own parser; and the dashboard, which asks for what there is."""

import json
import os
import re
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lepton_pipelines.federation.run_figures import RunFigures
from lepton_pipelines.monitoring.metrics import HubMetrics, OrganisationMetrics, parse_address, served_metrics
from lepton_pipelines.monitoring.progress_file import PROGRESS_FILE, kept_progress, read_progress
from lepton_pipelines.organisation import progress
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.spec.errors import UserError

LABELS = ("organisation", "pipeline", "run", "member", "state", "step", "rows", "metric")
DASHBOARD = Path(__file__).parents[2] / "infra" / "grafana" / "lepton.json"


class OneRun:
    """A hub with a run that waits for valley."""

    def statuses(self):
        silent = {"north": 1.0, "harbour": 2.0, "valley": 40.0}
        return [RunFigures("r-1", "sales", "running", 12, 3_000, 50.0, ("valley",), silent)]

    def members(self):
        return []


def asked(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def values(text, name):
    """Samples of a metric: {its labels' values: its value}."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels[label] for label in LABELS if label in sample.labels)] = sample.value
    return found


def trained(var, run="r-1", rounds=3):
    folder = RunFolder(var, run)
    with kept_progress(folder, "north", "sales"):
        progress.tell(run, progress.StageStarted("north", "train"))
        for number in range(1, rounds + 1):
            scores = {"valid": {"rmse": 1.0 / number}}
            progress.tell(run, progress.RoundFinished("north", number, 9, scores, {}, 100 * number, 0.5 * number))
        progress.tell(run, progress.RoundFinished("harbour", 9, 9, {}, {}, 7, 7.0))
        progress.tell(run, progress.StageFinished("north", "train", 2.5))


def test_an_organisation_tells_of_its_newest_run(tmp_path):
    trained(tmp_path, "r-1", rounds=2)
    trained(tmp_path, "r-2", rounds=3)
    with served_metrics("127.0.0.1:0", OrganisationMetrics([tmp_path], lambda: {"r-2": 1})) as port:
        text = asked(port)
    key = ("north", "sales")
    assert values(text, "lepton_organisation_rounds") == {key: 3}
    assert values(text, "lepton_organisation_planned_rounds") == {key: 9}
    assert values(text, "lepton_organisation_sent_bytes") == {key: 300}
    assert values(text, "lepton_organisation_step_seconds") == {(*key, "train"): 2.5}
    assert values(text, "lepton_organisation_score") == {(*key, "valid", "rmse"): pytest.approx(1 / 3)}
    assert values(text, "lepton_organisation_runs") == {(*key, "finished"): 2}
    assert values(text, "lepton_organisation_run_info") == {(*key, "r-2", "finished", "train"): 1}
    assert values(text, "lepton_organisation_waiting_members") == {("r-2",): 1}


def test_a_hub_tells_of_sums_bytes_seconds_and_whom_it_waits_for():
    with served_metrics("0", HubMetrics(OneRun(), OneRun())) as port:
        text = asked(port)
    run = ("sales", "r-1")
    assert values(text, "lepton_hub_run_waiting_members") == {run: 1}
    assert values(text, "lepton_hub_run_sums") == {run: 12}
    assert values(text, "lepton_hub_run_seconds") == {run: 50}
    assert values(text, "lepton_hub_received_bytes_total") == {(): 3000}
    assert values(text, "lepton_hub_member_silent_seconds")["r-1", "valley"] == 40


def test_what_went_wrong_is_told_by_the_runs_state_alone(tmp_path):
    with pytest.raises(UserError), kept_progress(RunFolder(tmp_path, "r-1"), "north", "sales"):
        raise UserError("north: 3 rows have label 2 (rows with patient_id 4411)")
    (told,) = read_progress(tmp_path)
    assert told.state == "stopped"
    assert "4411" not in next(tmp_path.rglob(PROGRESS_FILE)).read_text()


def test_a_full_disk_stops_no_training(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with kept_progress(RunFolder(tmp_path, "r-1"), "north", "sales"):
        progress.tell("r-1", progress.StageStarted("north", "train"))
    assert caplog.text.count("No space left on device") == 1


def test_nobody_answers_unless_asked():
    with served_metrics(None, OrganisationMetrics([])) as port:
        assert port is None


def test_a_port_that_is_taken_is_named_with_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(UserError, match=rf"127.0.0.1:{port}: Address already in use.*--metrics HOST:PORT"),
            served_metrics(str(port)),
        ):
            pass


def test_without_a_host_only_this_machine_is_answered():
    assert parse_address("9464") == ("127.0.0.1", 9464)
    assert parse_address(":9464") == ("127.0.0.1", 9464)
    assert parse_address("[::1]:9464") == ("::1", 9464)
    with pytest.raises(UserError, match=r"as in 127\.0\.0\.1:9464"):
        parse_address("hub.example.org")


def test_every_metric_that_the_dashboard_asks_for_exists(tmp_path):
    trained(tmp_path)
    with served_metrics(
        "0", HubMetrics(OneRun(), OneRun()), OrganisationMetrics([tmp_path], lambda: {"r-1": 0})
    ) as port:
        text = asked(port)
    there = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    board = json.loads(DASHBOARD.read_text())
    wanted = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\b(?:lepton|process)_\w+", target["expr"])
    }
    assert wanted <= there, wanted - there
    assert {name for name in there if name.startswith("lepton_")} <= wanted, "a metric that no panel shows"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
