"""Runs that are cancelled, killed, retried, and gone on with by the next schedule; on a real server with a worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.sorting import LogSort

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "federated-retrain/breast-cancer"
NAMES = ("harbour", "north", "valley")
ROUNDS = 400


@pytest.fixture(scope="module")
def deployed(module_example, module_lepton, module_worker, prefect_server):
    """The example, deployed, with a training of some seconds."""
    module_example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    module_example.replace("pipeline.yaml", "rounds: 60", f"rounds: {ROUNDS}")
    lines = [
        line
        for line in module_example.spec.read_text().splitlines()
        if not line.startswith(("gates:", "schedule:", "  early_stopping_rounds:"))
    ]
    module_example.spec.write_text("\n".join(lines))
    ended = module_lepton(
        "deploy", module_example.spec, "--var", module_example.var, "--watch", "never", PREFECT_API_URL=prefect_server
    )
    assert ended.code == 0, ended.err
    return module_example


def begin(deployed, prefect_api):
    """Start a run, and return it and its folder when every organisation has grown some trees."""
    before = set(folders(deployed))
    found = prefect_api.deployment(NAME)
    begun = prefect_api.ask(lambda client: client.create_flow_run_from_deployment(found.id))
    until = time.monotonic() + 180
    while True:
        new = set(folders(deployed)) - before
        if new and all(rounds(folder) >= 5 for folder in new):
            return begun.id, new.pop()
        assert time.monotonic() < until, prefect_api.ask(lambda client: client.read_flow_run(begun.id)).state
        time.sleep(0.05)


def folders(deployed):
    runs = deployed.var / "runs"
    return list(runs.iterdir()) if runs.is_dir() else []


def rounds(folder):
    """After how many rounds all organisations have a checkpoint."""
    kept = [sorted((folder / "organisations" / name).glob("round-*.npz")) for name in NAMES]
    return min((int(paths[-1].stem.removeprefix("round-")) if paths else 0) for paths in kept)


def processes_of(run):
    """Every process of a flow run and what it started; the dead excepted."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.environ().get("PREFECT__FLOW_RUN_ID") == str(run) and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


def ended(prefect_api, run):
    return prefect_api.wait_for_run("federated-retrain", lambda one: one.id == run and one.state.is_final())


def kill(prefect_api, run):
    """End a run's processes, and wait until the worker has said of it what it has to say."""
    for process in processes_of(run):
        os.kill(process.pid, signal.SIGKILL)
    # Its runner reports first, the worker itself some seconds later, and would overwrite a retry in between.
    until = time.monotonic() + 60
    while not any(
        line.name == "prefect.flow_runs.worker" and "exceeded" in line.message for line in said(prefect_api, run)
    ):
        assert time.monotonic() < until
        time.sleep(0.3)
    assert prefect_api.ask(lambda client: client.read_flow_run(run)).state.is_crashed()


def said(prefect_api, run):
    """What Prefect's pages show of a run's log."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    return prefect_api.ask(lambda client: client.read_logs(log_filter=wanted, limit=200, sort=LogSort.TIMESTAMP_DESC))


def resumed_at(folder):
    return {
        json.loads((folder / "organisations" / name / "part.json").read_text())["trained"]["resumed_at"]
        for name in NAMES
    }


def test_a_run_that_is_cancelled_is_gone_within_ten_seconds_and_leaves_no_process(deployed, prefect_api):
    from prefect.states import Cancelling

    run, _ = begin(deployed, prefect_api)
    assert processes_of(run)
    prefect_api.ask(lambda client: client.set_flow_run_state(run, Cancelling()))
    cancelled = time.monotonic()
    while processes_of(run):
        assert time.monotonic() < cancelled + 10, processes_of(run)
        time.sleep(0.05)
    state = ended(prefect_api, run).state
    assert state.name == "Cancelled", state.message
    for part in prefect_api.runs("organisation-run"):
        assert part.state.is_final(), (part.name, part.state)


def test_a_run_that_was_killed_goes_on_at_its_last_tree_when_it_is_retried(
    deployed, prefect_api, environment, prefect_server
):
    run, folder = begin(deployed, prefect_api)
    kill(prefect_api, run)
    reached = rounds(folder)
    retried = subprocess.run(
        [Path(sys.executable).with_name("prefect"), "--no-prompt", "flow-run", "retry", str(run)],
        env={**environment, "PREFECT_API_URL": prefect_server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert retried.returncode == 0, retried.stdout + retried.stderr
    after = prefect_api.wait_for_run("federated-retrain", lambda one: one.id == run and one.state.is_completed(), 150)
    assert after.run_count == 2
    (at,) = resumed_at(folder)
    assert reached - 1 <= at < ROUNDS


@pytest.fixture
def every_minute(deployed, lepton, prefect_server):
    """Deploys the pipeline with a schedule, which is taken away again."""
    spec, told = deployed.spec, ("--var", deployed.var, "--watch", "never")
    without = spec.read_text()

    def schedule() -> None:
        spec.write_text(f'{without}\nschedule: {{cron: "* * * * *"}}\n')
        ended = lepton("deploy", spec, *told, PREFECT_API_URL=prefect_server)
        assert ended.code == 0, ended.err

    yield schedule
    spec.write_text(without)
    assert lepton("deploy", spec, *told, PREFECT_API_URL=prefect_server).code == 0


def test_a_run_that_was_killed_is_gone_on_with_by_the_next_one_of_the_schedule(deployed, prefect_api, every_minute):
    run, folder = begin(deployed, prefect_api)
    kill(prefect_api, run)
    reached, before = rounds(folder), set(folders(deployed))
    every_minute()
    done = prefect_api.wait_for_run(
        # Those that fall due while it is still going are skipped.
        "federated-retrain",
        lambda one: one.auto_scheduled and one.state.is_completed(),
        180,
    )
    assert done.labels["lepton.run"] == folder.name
    assert set(folders(deployed)) == before
    (at,) = resumed_at(folder)
    assert reached - 1 <= at < ROUNDS
    assert json.loads((folder / "results.json").read_text())["rounds"] == ROUNDS
