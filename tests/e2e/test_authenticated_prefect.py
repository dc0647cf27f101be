"""A Prefect server that asks for a sign-in works as an open one does, and says what is missing."""

import asyncio

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIGN_IN = "operator:a long enough password"


@pytest.fixture(scope="module")
def server_settings():
    """What the tests' Prefect server is started with."""
    return {"PREFECT_SERVER_API_AUTH_STRING": SIGN_IN}


@pytest.mark.parametrize("told", [{}, {"PREFECT_API_AUTH_STRING": "operator:wrong"}])
@pytest.mark.parametrize("command", ["deploy", "run"])
def test_without_the_right_sign_in_it_is_said_how_to_give_it(
    module_example, module_lepton, prefect_server, told, command
):
    ended = module_lepton(
        command, module_example.spec, "--var", module_example.var, PREFECT_API_URL=prefect_server, **told
    )
    assert ended.code == 2, ended.err
    assert "refuses the sign-in (401). Set PREFECT_API_AUTH_STRING" in ended.err
    assert "Traceback" not in ended.err


def test_a_deployment_and_a_run_with_the_sign_in_stand_on_its_pages(module_example, module_lepton, prefect_server):
    module_example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    module_example.replace("pipeline.yaml", "rounds: 60", "rounds: 2")
    told = {"PREFECT_API_URL": prefect_server, "PREFECT_API_AUTH_STRING": SIGN_IN}
    for command in ("deploy", "run"):
        ended = module_lepton(command, module_example.spec, "--var", module_example.var, **told)
        assert ended.code == 0, ended.err
    runs, deployments = asyncio.run(pages(prefect_server))
    assert all(run.state.is_completed() for run in runs if run.start_time)
    assert {"north", "harbour", "valley"} <= {run.name for run in runs}
    assert "breast-cancer" in {one.name for one in deployments}


async def pages(address):
    from prefect.client.orchestration import PrefectClient

    async with PrefectClient(address, auth_string=SIGN_IN) as client:
        return await client.read_flow_runs(), await client.read_deployments()
