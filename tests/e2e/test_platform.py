"""A whole platform from one command: real servers and workers, one killed, all stopped, found again."""

import json
import os
import re
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

import lepton_pipelines as lp
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.local_platform.home import HOME_MARK, PlatformHome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PROCESSES = ["prefect", "mlflow", "hub", "portal", "worker-north", "worker-harbour", "worker-valley", "metrics"]
PATIENCE = 120.0
LABELS = ("organisation", "pipeline", "run", "member", "state", "step", "rows", "metric")


@pytest.fixture(scope="module")
def platform(tmp_path_factory, module_lepton):
    """A platform that is up, and what the command said."""
    folder = tmp_path_factory.mktemp("up") / "platform"
    ended = module_lepton("up", "--detach", "--home", folder, "--metrics-port", two_free_ports())
    assert ended.code == 0, ended.err
    yield PlatformHome(folder), ended.out
    module_lepton("down", "--home", folder)


def two_free_ports() -> int:
    """The first of two free ports side by side."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            try:
                second.bind(("127.0.0.1", first.getsockname()[1] + 1))
            except OSError:
                continue
            return first.getsockname()[1]


def processes_of(home: PlatformHome) -> list[int]:
    """Every process that carries the platform's mark, the dead excepted."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get(HOME_MARK) == str(home.folder):
                found.append(one.pid)
        except (psutil.Error, OSError):
            continue
    return found


def post(address: str, question: dict, method: str = "POST") -> list:
    request = urllib.request.Request(  # noqa: S310 - our own
        address, json.dumps(question).encode(), {"Content-Type": "application/json"}, method=method
    )
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            # SQLite was locked: to be asked again, as Prefect's own client does.
            if error.code != 503 or time.monotonic() > until:
                raise
            time.sleep(0.2)


def at(home: PlatformHome) -> dict:
    return {one.name: one for one in home.status().processes}


def test_it_says_where_everything_is_and_each_answers(platform):
    home, said = platform
    assert list(at(home)) == PROCESSES
    for name, path in (("prefect", "/api/health"), ("mlflow", "/health"), ("portal", "/api/v1/health")):
        address = at(home)[name].address
        assert address in said
        with urllib.request.urlopen(address + path, timeout=30) as answer:  # noqa: S310 - our own
            assert answer.status == 200
    assert at(home)["hub"].address in said


def test_it_takes_less_than_three_gigabytes(platform):
    home, _ = platform
    assert sum(one.rss for one in home.status().processes) < 3e9


def test_the_demo_is_deployed_on_its_schedule_and_each_organisation_has_a_pool_with_a_worker(platform):
    home, _ = platform
    api = at(home)["prefect"].address + "/api"
    deployment = starter(api, "retrain-on-pools")
    assert deployment["schedules"][0]["schedule"]["cron"] == "0 3 * * 1"
    assert starter(api, "watch-on-pools")["schedules"][0]["schedule"]["cron"] == "0 5 * * *"
    assert deployment["work_pool_name"] == "north"
    for name in ("north", "harbour", "valley"):
        (worker,) = post(f"{api}/work_pools/{name}/workers/filter", {})
        assert (worker["name"], worker["status"]) == (name, "ONLINE")


def test_a_run_does_each_part_at_its_organisations_pool_and_all_have_one_model(platform):
    home, _ = platform
    api = at(home)["prefect"].address + "/api"
    started = post(f"{api}/deployments/{starter(api, 'retrain-on-pools')['id']}/create_flow_run", {})["id"]
    state = ended(api, started)
    assert state["type"] == "COMPLETED", state["message"]
    deployments = {one["id"]: one["name"] for one in post(f"{api}/deployments/filter", {})}
    parts = post(f"{api}/flow_runs/filter", {"flows": {"name": {"any_": ["federated-retrain"]}}})
    pools = {deployments[run["deployment_id"]]: run["work_pool_name"] for run in parts}
    assert pools == {f"breast-cancer-{name}": name for name in ("north", "harbour", "valley")}
    models = {
        path.read_bytes()
        for name in ("north", "harbour", "valley")
        for path in home.organisation(name).glob(f"var/runs/*/organisations/{name}/model.ubj")
    }
    assert len(models) == 1


def test_prometheus_is_told_of_that_run_by_the_hub_and_by_every_organisation(platform):
    home, said = platform
    organisations = at(home)["metrics"].address
    assert f"metrics   {organisations}" in said
    port = int(re.search(r":(\d+)/metrics", organisations)[1])
    hub = told_by(f"http://127.0.0.1:{port - 1}/metrics")
    assert hub["lepton_hub_runs"][("finished",)] == 1
    assert sum(hub["lepton_hub_sums_total"].values()) > 100 and sum(hub["lepton_hub_received_bytes_total"].values()) > 0
    told = told_by(organisations)
    results = json.loads(next(home.organisation("north").glob("var/runs/*/results.json")).read_text())
    for name in ("north", "harbour", "valley"):
        key = (name, "breast-cancer")
        assert told["lepton_organisation_rounds"][key] >= results["rounds"]
        assert told["lepton_organisation_sent_bytes"][key] > 0
        assert told["lepton_organisation_step_seconds"][(*key, "train")] > 0
        assert told["lepton_organisation_runs"][(*key, "finished")] == 1
        assert 0.9 < told["lepton_organisation_score"][(*key, "valid", "auc")] <= 1


def told_by(address: str) -> dict[str, dict[tuple, float]]:
    """What Prometheus would read: by metric, by its labels' values."""
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - our own
        families = list(text_string_to_metric_families(answer.read().decode()))
    found: dict[str, dict[tuple, float]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, {})[tuple(sample.labels[label] for label in LABELS if label in sample.labels)] = (
            sample.value
        )
    return found


def test_the_portal_shows_that_run_with_its_pages_and_verifies_the_hubs_ledger(platform):
    home, said = platform
    address = at(home)["portal"].address
    assert f"lepton portal sign-in {address} --home {home.keys('north')}" in said
    with lp.Platform(address, home=home.keys("north")) as portal:
        (run,) = portal.runs.search()
        shown = portal.runs.show(run.run)
        assert (shown.state, shown.members) == ("finished", ["harbour", "north", "valley"])
        assert "/runs/flow-run/" in shown.links["Prefect"] and "/runs/" in shown.links["MLflow"]
        (model,) = portal.models.search("breast-cancer")
        assert model.run == run.run and model.publisher == "north"
        assert portal.ledger.verify().holds
    with lp.Platform(address, home=home.keys("valley")) as portal:
        assert portal.whoami().organisation == "valley"
        assert {one.name for one in portal.organisations()} == {"north", "harbour", "valley"}


def test_a_request_is_asked_and_granted_through_the_portal_at_the_hub(platform, lepton, tmp_path):
    home, _ = platform
    address = at(home)["portal"].address
    spec = tmp_path / "product.yaml"
    shutil.copy(home.pipeline / "contract.odcs.yaml", tmp_path)
    spec.write_text("product: patients\norganisation: harbour\ntitle: Aspirates\ncontract: contract.odcs.yaml\n")
    assert lepton("market", "publish", spec, "--home", home.keys("harbour")).code == 0
    with (
        lp.Platform(address, home=home.keys("north")) as north,
        lp.Platform(address, home=home.keys("harbour")) as harbour,
    ):
        until = time.monotonic() + PATIENCE
        while not north.market.search("aspirates"):  # the portal catches up with the hub beside
            assert time.monotonic() < until
            time.sleep(0.5)
        asked = north.market.request("harbour/patients", purpose="a study", message="please")
        while not harbour.market.usage("harbour/patients"):
            assert time.monotonic() < until
            time.sleep(0.5)
        given = harbour.market.grant("harbour/patients", asked.grant, runs=2)
        assert (given.state, given.runs_allowed, given.message) == ("given", 2, "please")
        assert harbour.ledger.verify().holds


def starter(api: str, flow: str) -> dict:
    """The deployment of a flow that starts everybody's parts."""
    (found,) = post(f"{api}/deployments/filter", {"flows": {"name": {"any_": [flow]}}})
    return found


def test_cancelling_the_run_on_its_page_stops_every_organisation_within_ten_seconds_and_leaves_nothing(
    platform, lepton
):
    home, _ = platform
    with a_long_run(home) as (api, before, started):
        # What the page's button does.
        post(f"{api}/flow_runs/{started}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        cancelled = time.monotonic()
        while any("prefect.engine" in line for line in flow_run_processes(home).values()):
            assert time.monotonic() < cancelled + 10, flow_run_processes(home)
            time.sleep(0.05)
        # Prefect's worker then starts a process for the flow's hook.
        while flow_run_processes(home) or not all(run["state"]["name"] == "Cancelled" for run in since(api, before)):
            assert time.monotonic() < cancelled + 40, (flow_run_processes(home), since(api, before))
            time.sleep(0.2)
    assert len(since(api, before)) == 7  # what starts the parts, and a part with its steps at each of three
    newest = run_at_hub(home, lepton)
    assert (newest["state"], newest["reason"]) == (
        "aborted",
        f"{newest['reason'].partition(':')[0]}: run {newest['run']} was cancelled where it was begun",
    )


def run_at_hub(home: PlatformHome, lepton) -> dict:
    """What the hub says of the run that was begun last."""
    ended = lepton("hub", "status", "--json", "--home", home.hub)
    assert ended.code == 0, ended.err
    return max(json.loads(ended.out)["runs"], key=lambda run: run["run"])


def test_what_starts_the_parts_takes_them_with_it_when_it_is_killed(platform, lepton):
    home, _ = platform
    with a_long_run(home) as (api, before, started):
        (starter_process,) = [pid for pid in flow_run_processes(home) if flow_run_of(pid) == started]
        os.kill(starter_process, signal.SIGKILL)
        until = time.monotonic() + 60
        while flow_run_processes(home) or not all(ended_as(run) for run in since(api, before)):
            assert time.monotonic() < until, (flow_run_processes(home), since(api, before))
            time.sleep(0.2)
    states = {run["id"]: run["state"]["name"] for run in since(api, before)}
    assert states.pop(started) == "Crashed"
    assert len(states) == 6 and set(states.values()) == {"Cancelled"}
    assert run_at_hub(home, lepton)["state"] in ("running", "suspended")  # it goes on when it is retried


@contextmanager
def a_long_run(home: PlatformHome) -> Iterator[tuple[str, set[str], str]]:
    """Begin a run, and wait until all organisations train: Prefect's address, earlier flow runs, the run."""
    api = at(home)["prefect"].address + "/api"
    before = {run["id"] for run in post(f"{api}/flow_runs/filter", {})}
    with longer_parts(api):
        started = post(f"{api}/deployments/{starter(api, 'retrain-on-pools')['id']}/create_flow_run", {})["id"]
        until = time.monotonic() + PATIENCE
        while len(training(api, before)) < 3:
            assert time.monotonic() < until, post(f"{api}/flow_runs/filter", {})
            time.sleep(0.2)
        assert len(flow_run_processes(home)) >= 4
        yield api, before, started


def ended_as(run: dict) -> str | None:
    """How a flow run ended; None if it has not."""
    return run["state"]["name"] if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


@contextmanager
def longer_parts(api: str) -> Iterator[None]:
    """Have every organisation's part train for long, for the length of a block."""
    kept = {}
    for one in post(f"{api}/deployments/filter", {"flows": {"name": {"any_": ["federated-retrain"]}}}):
        kept[one["id"]] = one["parameters"]
        longer = json.loads(json.dumps(one["parameters"]))
        longer["pipeline"]["training"] |= {"rounds": 5000, "early_stopping_rounds": None}
        post(f"{api}/deployments/{one['id']}", {"parameters": longer}, "PATCH")
    assert len(kept) == 3
    yield
    for part, parameters in kept.items():
        post(f"{api}/deployments/{part}", {"parameters": parameters}, "PATCH")


def since(api: str, before: set[str]) -> list[dict]:
    return [run for run in post(f"{api}/flow_runs/filter", {}) if run["id"] not in before]


def training(api: str, before: set[str]) -> list[dict]:
    """The step `train` of every organisation that has begun it."""
    runs = [run["id"] for run in since(api, before)]
    asked = {"limit": 200, "flow_runs": {"id": {"any_": runs}}, "task_runs": {"name": {"any_": ["train"]}}}
    return [task for task in post(f"{api}/task_runs/filter", asked) if task["state"]["type"] == "RUNNING"]


def flow_run_processes(home: PlatformHome) -> dict[int, str]:
    """The command line of every process that belongs to a flow run, by its number."""
    found = {}
    for pid in processes_of(home):
        try:
            if flow_run_of(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found[pid] = " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            continue
    return found


def flow_run_of(pid: int) -> str | None:
    return psutil.Process(pid).environ().get("PREFECT__FLOW_RUN_ID")


def change_rows(home: PlatformHome, name: str) -> None:
    path = home.organisation(name) / "data" / name / "patients.parquet"
    rows = pd.read_parquet(path)
    rows.assign(mean_texture=rows["mean_texture"] * 1.6).to_parquet(path, index=False)


def test_rows_that_moved_at_the_pools_start_one_training_that_waits_for_a_person(platform, lepton):
    home, _ = platform
    api = at(home)["prefect"].address + "/api"
    spec = home.pipeline / "pipeline.yaml"
    lines = [line for line in spec.read_text().splitlines() if not line.startswith("gates:")]
    spec.write_text("\n".join(lines).replace("promote: automatically", "promote: ask"))
    told = {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": at(home)["mlflow"].address}
    assert lepton("deploy", spec, "--pool", "north", **told).code == 0
    for name in ("north", "harbour", "valley"):
        change_rows(home, name)
        own = home.organisation(name)
        ended_with = lepton(
            "deploy", spec, "--pool", name, "--organisation", own / f"{name}.yaml", "--var", own / "var", **told
        )
        assert ended_with.code == 0, ended_with.err
    watch = post(f"{api}/deployments/{starter(api, 'watch-on-pools')['id']}/create_flow_run", {})["id"]
    state = ended(api, watch)
    assert state["type"] == "COMPLETED", state["message"]
    (retrain,) = runs_of(api, "retrain-on-pools", lambda run: "automation" in json.dumps(run["created_by"]).lower())
    state = ended(api, retrain["id"])
    assert state["type"] == "COMPLETED", state["message"]
    (asked,) = runs_of(api, "promote", lambda run: run["state"]["name"] == "Suspended")
    assert asked["name"] == "breast-cancer v2"
    answer = {"decision": "promote", "reason": "the scanners were replaced", "by": "Ada"}
    post(f"{api}/flow_runs/{asked['id']}/resume", {"run_input": answer})
    assert ended(api, asked["id"])["type"] == "COMPLETED"
    ledger = verify_ledger(home.organisation("north") / "keys" / "ledger").history.runs
    assert ledger.aliases["breast-cancer", "champion"] == 2


def runs_of(api: str, flow: str, accept) -> list[dict]:
    """Wait for runs of a flow that are accepted."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        told = post(f"{api}/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
        if found := [run for run in told if accept(run)]:
            return found
        time.sleep(0.5)
    raise AssertionError(f"no such run of {flow}: {[(run['name'], run['state']['name']) for run in told]}")


def ended(api: str, run: str) -> dict:
    """Wait until a flow run has ended; its last state."""
    until = time.monotonic() + 900
    while time.monotonic() < until:
        (found,) = post(f"{api}/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        if found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return found["state"]
        time.sleep(1)
    raise AssertionError(f"{run} has not ended: {found['state']}")


def test_a_second_start_is_refused_with_the_process_that_runs_it(platform, lepton):
    home, _ = platform
    ended = lepton("up", "--home", home.folder)
    assert ended.code == 2
    assert f"runs already (process {home.runner()})" in ended.err


def test_a_killed_server_is_started_again(platform, lepton):
    home, _ = platform
    before = at(home)["mlflow"]
    os.kill(before.pid, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while at(home)["mlflow"].restarts == before.restarts or at(home)["mlflow"].state != "healthy":
        assert time.monotonic() < until
        time.sleep(0.5)
    assert "ended with signal 9; starts again" in (home.logs / "up.log").read_text()
    assert lepton("status", "--home", home.folder).code == 0


def test_down_leaves_nothing_and_a_second_start_finds_deployment_and_keys(platform, lepton):
    home, _ = platform
    address, runner = at(home)["prefect"].address, home.runner()
    deployments = {one["id"] for one in post(f"{address}/api/deployments/filter", {})}
    key = (home.organisation("harbour") / "keys" / "signing.key").read_bytes()
    assert lepton("down", "--home", home.folder).code == 0
    assert home.runner() is None
    assert processes_of(home) == []
    assert lepton("status", "--home", home.folder).code == 1
    assert lepton("up", "--detach", "--home", home.folder).code == 0
    assert home.runner() != runner
    assert {one["id"] for one in post(f"{address}/api/deployments/filter", {})} == deployments
    assert (home.organisation("harbour") / "keys" / "signing.key").read_bytes() == key


def test_what_a_killed_platform_leaves_is_ended_by_down(platform, lepton):
    home, _ = platform
    os.kill(home.runner(), signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while home.runner() is not None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert processes_of(home)
    ended = lepton("down", "--home", home.folder)
    assert "left over; they are ended" in ended.out
    assert processes_of(home) == []
