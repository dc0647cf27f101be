"""Work of the compute pool in its owner's Prefect work pool: a real server, a real worker, a borrower with neither."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def pool(lepton, prefect_server, tmp_path):
    """`lepton pool` as one organisation; harbour alone knows the Prefect server."""

    def command(name, *arguments, code=0):
        knows = {"PREFECT_API_URL": prefect_server} if name == "harbour" else {}
        ended = lepton("pool", *arguments, "--as", name, "--var", tmp_path / "var", **knows)
        assert ended.code == code, ended.out + ended.err
        return ended.out + ended.err

    (tmp_path / "offer.yaml").write_text(
        "offer: evenings\norganisation: harbour\ntitle: Spare evenings\ncores: 2\nmemory: 4 GB\n"
    )
    (tmp_path / "job.yaml").write_text("work: benchmark\nrows: 1000\ncolumns: 3\nrounds: 2\n")
    return command


def test_reserved_work_is_done_by_the_owners_own_deployment_in_its_work_pool(
    pool, module_worker, prefect_api, tmp_path
):
    offer = tmp_path / "offer.yaml"
    assert "is not on offer" in pool("harbour", "deploy", offer, "--pool", "lepton", code=2)
    pool("harbour", "offer", offer)
    assert "you speak for north" in pool("north", "deploy", offer, "--pool", "lepton", code=2)
    held = pool("north", "reserve", "--work", "benchmark", "--cores", 1, "--memory", "1 GB", "--hours", 1).split()[0]
    job = pool("north", "run", held, tmp_path / "job.yaml").strip()
    said = pool("harbour", "deploy", offer, "--pool", "lepton", "--every", 1)
    assert "pool-jobs/harbour-evenings" in said and "every 1 min; one run at a time" in said
    found = prefect_api.deployment("pool-jobs/harbour-evenings")
    assert (found.work_pool_name, found.global_concurrency_limit.limit) == ("lepton", 1)
    prefect_api.ask(lambda client: client.create_flow_run_from_deployment(found.id))
    prefect_api.wait_for_run(
        "pool-jobs", lambda run: run.state_type is not None and run.state_type.value == "COMPLETED"
    )
    ended = json.loads(pool("north", "result", job, "--json"))
    assert ended["outcome"] == "done" and ended["result"]["rows_a_second"] > 0
    status = json.loads(pool("valley", "status", "--json"))
    assert status["core_hours"]["by_run"][job]["organisation"] == "north"
