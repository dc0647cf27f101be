"""The same run on a Prefect server: what its pages show, read back through its API."""

import asyncio
import json
import time
import urllib.request

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = {"ingest", "validate", "bin", "train", "compare", "evaluate", "remember"}


@pytest.fixture(scope="module")
def pages(module_example, module_lepton, prefect_server):
    """Everything that the server knows after one run."""
    ended = module_lepton(
        *("run", module_example.spec, "--var", module_example.var),
        PREFECT_API_URL=prefect_server,
        LEPTON_LOG_JSON=str(module_example.folder / "log.jsonl"),
    )
    assert ended.code == 0, ended.out + ended.err
    told = asyncio.run(read(prefect_server))
    return told | {
        "events": events(prefect_server, "lepton.run.finished"),
        "log": (module_example.folder / "log.jsonl").read_text(),
    }


def events(address, wanted):
    """Our events of the server's feed, once one of this kind has arrived."""
    body = json.dumps({"limit": 50, "filter": {"event": {"prefix": ["lepton."]}}}).encode()
    asked = urllib.request.Request(f"{address}/events/filter", body, {"Content-Type": "application/json"})  # noqa: S310 - our own
    until = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - our own
            found = json.load(answer)["events"]
        if any(one["event"] == wanted for one in found):
            return found
        assert time.monotonic() < until, found
        time.sleep(0.2)


async def read(address):
    from prefect.client.orchestration import PrefectClient

    async with PrefectClient(address) as client:
        flows = {flow.id: flow.name for flow in await client.read_flows()}
        runs = await client.read_flow_runs()
        tasks = await client.read_task_runs(limit=200)
        artifacts = await client.read_artifacts()
    return {"flows": flows, "runs": runs, "tasks": tasks, "artifacts": artifacts}


def parent(pages):
    (run,) = [run for run in pages["runs"] if pages["flows"][run.flow_id] == "federated-retrain"]
    return run


def children(pages):
    return {run.name: run for run in pages["runs"] if pages["flows"][run.flow_id] == "organisation-run"}


def test_the_run_is_named_after_pipeline_and_time_and_has_succeeded(pages):
    run = parent(pages)
    name, _, time = run.name.partition(" · ")
    assert name == "breast-cancer"
    assert len(time) == len("2026-11-22 03:00")
    assert run.state.is_completed()


def test_every_organisation_is_a_child_run_of_its_own_name(pages):
    runs = children(pages)
    assert set(runs) == {"north", "harbour", "valley"}
    stand_ins = {task.id: task.flow_run_id for task in pages["tasks"]}
    for run in runs.values():
        assert run.state.is_completed()
        assert stand_ins[run.parent_task_run_id] == parent(pages).id


def test_organisations_run_at_the_same_time(pages):
    runs = children(pages).values()
    assert max(run.start_time for run in runs) < min(run.end_time for run in runs)


def test_steps_are_tasks_by_their_names(pages):
    for name, run in children(pages).items():
        done = {task.name for task in pages["tasks"] if task.flow_run_id == run.id and task.state.is_completed()}
        assert done == STEPS, name
    own = {task.name for task in pages["tasks"] if task.flow_run_id == parent(pages).id}
    assert {"gates", "publish", "record"} <= own


def test_progress_results_and_report_are_artifacts(pages):
    found = {artifact.key: artifact for artifact in pages["artifacts"]}
    for name in ("north", "harbour", "valley"):
        progress = found[f"{name}-training"]
        assert progress.type == "progress"
        assert float(progress.data) == 100
        assert "valid auc" in progress.description
        reading = found[f"{name}-reading"]
        assert float(reading.data) == 100
        assert "1 of 1 pieces" in reading.description
    assert found["breast-cancer-results"].type == "table"
    assert "federated" in found["breast-cancer-results"].data
    report = found["breast-cancer-report"]
    assert report.type == "markdown"
    assert "breast-cancer v1 → champion" in report.data
    assert "report.html" in report.data


def test_run_rounds_and_gates_are_events_of_the_pipeline(pages):
    told = pages["events"]
    assert {one["resource"]["prefect.resource.id"] for one in told} == {"lepton.pipeline.breast-cancer"}
    kinds = [one["event"] for one in told]
    assert kinds.count("lepton.run.started") == kinds.count("lepton.run.finished") == 1
    finished = next(one["payload"] for one in told if one["event"] == "lepton.run.finished")
    assert (finished["alias"], finished["version"]) == ("champion", "1") and finished["scores"]["auc"] > 0.9
    last = [one["payload"] for one in told if one["event"] == "lepton.round"]
    assert {one["organisation"] for one in last} == {"north", "harbour", "valley"}
    assert max(one["round"] for one in last) == finished["rounds"]
    gates = [one["payload"] for one in told if one["event"] == "lepton.gate.passed"]
    assert "AUC ≥ 0.95" in {one["gate"] for one in gates} and all(one["figure"] is not None for one in gates)


def test_the_log_has_every_organisations_steps_under_the_runs_id(pages):
    lines = [json.loads(line) for line in pages["log"].splitlines()]
    steps = {(one["organisation"], one["step"]) for one in lines if one.get("event") == "step finished"}
    assert steps == {(name, step) for name in ("north", "harbour", "valley") for step in STEPS - {"remember"}}
    assert len({one["run"] for one in lines if one.get("event")}) == 1


def test_a_rows_value_that_stops_a_run_is_said_at_home_and_in_no_event_or_log(example, lepton, prefect_server):
    example.change_rows(
        "valley", lambda frame: frame.assign(mean_radius=frame["mean_radius"].where(frame.index != 3, -7777.25))
    )
    log = example.folder / "log.jsonl"
    settings = {"PREFECT_API_URL": prefect_server, "LEPTON_LOG_JSON": str(log)}
    ended = lepton("run", example.spec, "--var", example.var, **settings)
    assert ended.code == 2 and "7777" in ended.err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    stopped = [one for one in lines if one.get("event") == "stopped"]
    assert ("valley", "UserError") in {(one["organisation"], one["error"]) for one in stopped}
    assert "7777" not in log.read_text()
    assert "7777" not in json.dumps(events(prefect_server, "lepton.run.stopped"))


def test_a_failing_organisation_fails_the_run_with_its_message(example, lepton, prefect_server):
    example.change_rows("valley", lambda frame: frame.head(50))
    ended = lepton("run", example.spec, "--var", example.var, PREFECT_API_URL=prefect_server)
    assert ended.code == 2
    assert "valley: has 50 rows, the contract wants at least 100" in ended.err
    pages = asyncio.run(read(prefect_server))
    run = max(
        (run for run in pages["runs"] if pages["flows"][run.flow_id] == "federated-retrain"),
        key=lambda run: run.start_time,
    )
    assert run.state.is_failed()
    assert "has 50 rows" in run.state.message
    mine = {task.id for task in pages["tasks"] if task.flow_run_id == run.id}
    states = {one.name: one.state for one in pages["runs"] if one.parent_task_run_id in mine}
    assert set(states) == {"north", "harbour", "valley"}
    assert all(state.is_failed() for state in states.values())
    assert "has 50 rows" in states["valley"].message
