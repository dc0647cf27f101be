"""Rows that moved start a training by themselves: watch, event, automation, on a real server."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NAME = "breast-cancer"


@pytest.fixture(scope="module")
def trained(module_example, module_lepton, module_worker, prefect_server, prefect_api):
    """The example, deployed and trained once."""
    module_example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")
    module_example.replace("pipeline.yaml", "rounds: 60", "rounds: 5")
    text = module_example.spec.read_text()
    module_example.replace("pipeline.yaml", next(line for line in text.splitlines() if line.startswith("gates:")), "")
    ended = module_lepton("deploy", module_example.spec, "--var", module_example.var, PREFECT_API_URL=prefect_server)
    assert ended.code == 0, ended.err
    assert "cron 0 5 * * *: watch-drift/breast-cancer" in ended.out
    run = start(prefect_api, "federated-retrain")
    assert run.state.is_completed(), run.state.message
    return module_example


def start(prefect_api, flow):
    """Run a deployed flow to its end."""
    deployment = prefect_api.deployment(f"{flow}/{NAME}")
    begun = prefect_api.ask(lambda client: client.create_flow_run_from_deployment(deployment.id))
    return prefect_api.wait_for_run(flow, lambda run: run.id == begun.id and run.state.is_final())


def drift_table(prefect_api):
    artifacts = prefect_api.ask(lambda client: client.read_artifacts())
    return max((one for one in artifacts if one.key == f"{NAME}-drift"), key=lambda one: one.created).data


def test_rows_that_stay_start_nothing(trained, prefect_api):
    assert start(prefect_api, "watch-drift").state.is_completed()
    table = drift_table(prefect_api)
    assert "mean_radius" in table
    assert '"moved": "yes"' not in table
    begun = [run for run in prefect_api.runs("federated-retrain") if not run.state.is_scheduled()]
    assert len(begun) == 1


def test_rows_that_moved_start_a_training(trained, prefect_api):
    for hospital in ("north", "harbour", "valley"):
        trained.change_rows(hospital, lambda frame: frame.assign(mean_texture=frame["mean_texture"] * 1.6))
    watched = start(prefect_api, "watch-drift")
    assert watched.state.is_completed(), watched.state.message
    assert '"moved": "yes"' in drift_table(prefect_api)
    retrained = prefect_api.wait_for_run(
        "federated-retrain", lambda run: run.state.is_final() and run.start_time > watched.end_time
    )
    assert retrained.state.is_completed(), retrained.state.message
    assert "automation" in str(retrained.created_by).lower()


def test_a_run_that_died_with_its_worker_is_watched_for(trained, prefect_api):
    found = prefect_api.ask(lambda client: client.read_automations())
    names = [one.name for one in found]
    assert names.count("lepton: a run without heartbeat has crashed") == 1
    assert names.count("lepton: breast-cancer trains again on drift") == 1
