"""The same run on a Prefect server: what its pages show, read back through its API."""

import asyncio

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = {"ingest", "validate", "bin", "train", "compare", "evaluate", "remember"}


@pytest.fixture(scope="module")
def pages(module_example, module_lepton, prefect_server):
    """Everything that the server knows after one run."""
    ended = module_lepton("run", module_example.spec, "--var", module_example.var, PREFECT_API_URL=prefect_server)
    assert ended.code == 0, ended.out + ended.err
    return asyncio.run(read(prefect_server))


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
    assert found["breast-cancer-results"].type == "table"
    assert "federated" in found["breast-cancer-results"].data
    report = found["breast-cancer-report"]
    assert report.type == "markdown"
    assert "breast-cancer v1 → champion" in report.data
    assert "report.html" in report.data


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
