"""A pipeline registered at a Prefect server, run by a worker with parameters that somebody changed in the form."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lepton_pipelines.spec.pipeline import Pipeline, read_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
NAME = "federated-retrain/breast-cancer"


@pytest.fixture
def deployed(example, lepton, prefect_server):
    """The example, deployed."""
    example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    ended = lepton("deploy", example.spec, "--var", example.var, PREFECT_API_URL=prefect_server)
    assert ended.code == 0, ended.err
    assert "cron 0 3 * * 1, Europe/Berlin; one run at a time" in ended.out
    return example


@pytest.fixture
def worker(environment, prefect_server, tmp_path, end_worker):
    """A worker of the pool, as an operator starts it."""
    prefect = Path(sys.executable).with_name("prefect")
    with (tmp_path / "worker.txt").open("w") as log:
        process = subprocess.Popen(
            [prefect, "worker", "start", "--pool", "lepton"],
            env={**environment, "PREFECT_API_URL": prefect_server},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        yield process
        end_worker(process)


def ask(address, question):
    from prefect.client.orchestration import PrefectClient

    async def asking():
        async with PrefectClient(address) as client:
            return await question(client)

    return asyncio.run(asking())


def test_schedule_limit_tags_and_form_come_from_the_spec(deployed, prefect_server):
    found = ask(prefect_server, lambda client: client.read_deployment_by_name(NAME))
    (schedule,) = found.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 3 * * 1", "Europe/Berlin")
    assert found.global_concurrency_limit.limit == 1
    assert found.concurrency_options.collision_strategy.value == "CANCEL_NEW"
    assert set(found.tags) == {"lepton", "breast-cancer"}
    form = found.parameter_openapi_schema["definitions"]["Training"]["properties"]
    assert form["rounds"]["description"] == "Most boosting rounds."
    assert found.parameters["pipeline"]["training"]["max_depth"] == 4


def test_deploying_again_updates_and_does_not_double(deployed, lepton, prefect_server):
    deployed.replace("pipeline.yaml", "max_depth: 4", "max_depth: 3")
    assert lepton("deploy", deployed.spec, PREFECT_API_URL=prefect_server).code == 0
    found = ask(prefect_server, lambda client: client.read_deployments())
    flows = {flow.id: flow.name for flow in ask(prefect_server, lambda client: client.read_flows())}
    named = [flows[deployment.flow_id] for deployment in found if deployment.name == "breast-cancer"]
    assert sorted(named) == ["federated-retrain", "promote", "rollback", "score-batch", "watch-drift"]
    one = ask(prefect_server, lambda client: client.read_deployment_by_name(NAME))
    assert one.parameters["pipeline"]["training"]["max_depth"] == 3
    assert len(one.schedules) == 1


def test_a_run_with_changed_parameters_trains_with_them(deployed, worker, prefect_server):
    async def run(client):
        deployment = await client.read_deployment_by_name(NAME)
        pipeline = deployment.parameters["pipeline"]
        pipeline["training"] |= {"rounds": 7, "max_depth": 2}
        started = await client.create_flow_run_from_deployment(deployment.id, parameters={"pipeline": pipeline})
        for _ in range(2400):
            started = await client.read_flow_run(started.id)
            if started.state.is_final():
                return started
            await asyncio.sleep(0.1)
        return started

    ended = ask(prefect_server, run)
    assert ended.state.is_completed(), ended.state.message
    (folder,) = (deployed.var / "runs").iterdir()
    told = json.loads((folder / "results.json").read_text())
    assert told["rounds"] == 7
    assert told["reproduction"]["parameters"]["max_depth"] == 2


def test_of_runs_that_piled_up_while_no_worker_was_there_one_trains_and_the_others_are_skipped(
    deployed, prefect_server, prefect_api, request
):
    from prefect.states import Scheduled

    found = prefect_api.deployment(NAME)
    pipeline = found.parameters["pipeline"]
    pipeline["training"] |= {"rounds": 2}
    since = datetime.now(UTC) - timedelta(days=3)
    started = [
        prefect_api.ask(
            lambda client, day=day: client.create_flow_run_from_deployment(
                found.id,
                parameters={"pipeline": pipeline},
                state=Scheduled(scheduled_time=since + timedelta(days=day)),
            )
        ).id
        for day in range(3)
    ]
    request.getfixturevalue("worker")
    for one in started:
        prefect_api.wait_for_run("federated-retrain", lambda run, one=one: run.id == one and run.state.is_final())
    ended = sorted(run.state.name for run in prefect_api.runs("federated-retrain") if run.id in started)
    assert ended == ["Cancelled", "Cancelled", "Completed"]
    assert len(list((deployed.var / "runs").iterdir())) == 1


def test_the_repositorys_prefect_yaml_deploys_the_example_as_the_command_does(environment, prefect_server, prefect_api):
    ended = subprocess.run(
        [Path(sys.executable).with_name("prefect"), "--no-prompt", "deploy", "--all"],
        env={**environment, "PREFECT_API_URL": prefect_server},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = prefect_api.deployment(NAME)
    assert found.schedules[0].schedule.cron == "0 3 * * 1"
    assert found.concurrency_options.collision_strategy.value == "CANCEL_NEW"
    assert found.work_pool_name == "lepton"
    told = Pipeline.model_validate(found.parameters["pipeline"])
    assert told == relative(read_pipeline(ROOT / "examples" / "healthcare" / "pipeline.yaml"))
    for flow in ("promote", "rollback", "score-batch"):
        assert prefect_api.deployment(f"{flow}/breast-cancer").parameters["model"] == "breast-cancer"


def relative(pipeline: Pipeline) -> Pipeline:
    """The spec with paths from the repository's folder, as prefect.yaml has them."""
    files = {name: str(Path(file).relative_to(ROOT)) for name, file in pipeline.organisations.items()}
    contract = str(Path(pipeline.contract).relative_to(ROOT))
    return pipeline.model_copy(update={"organisations": files, "contract": contract})


def test_without_a_server_it_says_how_to_get_one(example, lepton):
    ended = lepton("deploy", example.spec)
    assert ended.code == 2
    assert "prefect server start" in ended.err
