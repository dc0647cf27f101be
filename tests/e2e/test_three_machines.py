"""Three organisations and a hub, each with its own folder, keys and processes: docs/running.md, "Three machines"."""

import contextlib
import hashlib
import json
import os
import runpy
import shutil
import signal
import socket
import sqlite3
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from machines import LEPTON, NAMES, PUBLISHER, ROOT, Machines, fingerprint, onboard
from prefect.states import Cancelling

from lepton_pipelines.federation.runs import join, opened_run
from lepton_pipelines.identity.onboarding import read_request
from lepton_pipelines.ledger.verification import verify_ledger
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import read_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LOOPBACK = ("127.0.0.1", "::1")


@pytest.fixture(scope="module")
def machines(tmp_path_factory, environment, prefect_server):
    """A hub and three organisations that were onboarded by the commands that people use; harbour and valley serve."""
    folder = tmp_path_factory.mktemp("machines")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one = Machines(folder, port, {**environment, "PREFECT_API_URL": prefect_server})
    source = ROOT / "examples" / "healthcare"
    runpy.run_path(str(source / "make_hospitals.py"))["write"](folder / "data")
    for name in ("hub", *NAMES):
        (folder / name).mkdir()
    for name in NAMES:
        for file in (f"{name}.yaml", "contract.odcs.yaml"):
            shutil.copy(source / file, folder / name)
        shutil.copytree(folder / "data" / name, folder / name / "data" / name)
        spec = (source / "pipeline-hub.yaml").read_text().replace("localhost:7443", f"localhost:{port}")
        (folder / name / "pipeline.yaml").write_text(spec)
    try:
        onboard(one)
        one.leave("hub", "hub", "serve", "--listen", f"localhost:{port}")
        one.until("hub", "listening on port")
        for name in NAMES:
            if name != PUBLISHER:
                one.leave(name, "org", "serve", "--organisation", f"{name}.yaml", "--pipeline", "pipeline.yaml")
                one.until(name, f"{name} waits for invitations")
        yield one
    finally:
        for process in reversed(one.started):
            process.terminate()
        for process in one.started:
            process.wait(60)


@pytest.fixture(scope="module")
def in_process_model(machines, tmp_path_factory):
    """The digest of the model that the same organisations train in one process."""
    var, models = tmp_path_factory.mktemp("in-process"), {}
    pipeline = read_pipeline(machines.folder / PUBLISHER / "pipeline.yaml")

    def part(name):
        with join("together", name) as sums:
            own = read_organisation(machines.folder / name / f"{name}.yaml")
            run = OrganisationRun(pipeline, own, sums, RunFolder(var, "together"), share=3)
            try:
                for step in (run.ingest, run.validate, run.bin, run.train):
                    step()
                models[name] = hashlib.sha256(run.model).hexdigest()
            finally:
                run.close()

    with opened_run("together", NAMES):
        threads = [threading.Thread(target=part, args=(name,)) for name in NAMES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (model,) = set(models.values())
    return model


def the_run(said: str, *, last: bool = False) -> str:
    return [line for line in said.splitlines() if line.startswith("  run ")][-1 if last else 0].split()[1].rstrip(":")


def test_a_run_over_the_hub_gives_the_model_of_one_process_at_every_organisation(machines, in_process_model):
    said = machines.at(PUBLISHER, "run", "pipeline.yaml")
    run = the_run(said)
    for name in ("harbour", "valley"):
        machines.until(name, f"run {run} is finished")
    assert machines.models(run) == dict.fromkeys(NAMES, in_process_model)
    assert f"model     {in_process_model}" in said
    assert "registry  breast-cancer v1 → champion" in said
    assert "registry  north registers the model" in (machines.folder / "valley" / "log.txt").read_text()
    for name in NAMES:
        folder = machines.folder / name / "var"
        assert (folder / "runs" / run / "report.html").stat().st_size > 10_000
        assert (folder / "mlflow").exists() == (name == PUBLISHER)
        assert sorted(path.name for path in (folder / "runs" / run / "organisations").iterdir()) == [name]
        proved = verify_ledger(machines.folder / name / "organisation" / "ledger").proved
        assert any(f"run {run}: " in line and "cosigned by harbour, north, valley" in line for line in proved)
    assert f"run {run}: finished" in machines.here("valley", "org", "status")
    assert f"run {run}: finished" in machines.here("hub", "hub", "status")


def test_an_organisation_that_is_killed_comes_back_by_itself_and_the_model_is_the_same(machines, in_process_model):
    began = machines.leave(PUBLISHER, "run", "pipeline.yaml")
    machines.until(PUBLISHER, "  run ")
    run = the_run((machines.folder / PUBLISHER / "log.txt").read_text())
    journal = machines.folder / "valley" / "organisation" / "runs" / run / "journal.sqlite"
    end = time.monotonic() + 300
    while sums_begun(journal) < 60:
        assert time.monotonic() < end and began.poll() is None, (machines.folder / PUBLISHER / "log.txt").read_text()
        time.sleep(0.02)
    os.kill(part_of(run, "valley"), signal.SIGKILL)
    machines.until("valley", f"run {run} ended here with code -9: this organisation's part is started again")
    assert began.wait(600) == 0, (machines.folder / PUBLISHER / "log.txt").read_text()
    machines.until("valley", f"run {run} is finished")
    machines.until("harbour", f"run {run} is finished")
    assert machines.models(run) == dict.fromkeys(NAMES, in_process_model)
    assert f"run {run}: finished, key epoch 2" in machines.here("hub", "hub", "status")
    assert "challenger" in (machines.folder / PUBLISHER / "log.txt").read_text()


def sums_begun(journal: Path) -> int:
    if not journal.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        try:
            return database.execute("SELECT count(*) FROM commitments").fetchone()[0]
        except sqlite3.OperationalError:  # not laid out yet, or being written
            return 0


def part_of(run: str, organisation: str) -> int:
    """The process that an organisation's `org serve` has started for a run."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if run.encode() in words and f"{organisation}.yaml".encode() in words and b"serve" in words:
            return int(path.parent.name)
    raise AssertionError(f"{organisation} has no process in run {run}")


@pytest.fixture(scope="module")
def publisher(machines, prefect_api):
    """North's own Prefect: it begins runs and watches, a worker does its part, and a person decides."""
    for name in NAMES:
        path = machines.folder / name / "pipeline.yaml"
        lines = [line for line in path.read_text().splitlines() if not line.startswith("gates:")]
        path.write_text("\n".join(lines).replace("promote: automatically", "promote: ask"))
    said = machines.at(
        PUBLISHER, "deploy", "pipeline.yaml", "--organisation", "north.yaml", "--proposes", "--pool", "north"
    )
    assert "cron 0 5 * * *: watch-drift/breast-cancer-north" in said
    worker = machines.leave(PUBLISHER, "worker", "start", "--pool", "north", program=LEPTON.with_name("prefect"))
    yield prefect_api
    worker.terminate()
    worker.wait(60)


def run_of(prefect_api, flow):
    """Run the publisher's deployment of a flow to its end."""
    name = f"{flow}/breast-cancer" + ("" if flow == "rollback" else f"-{PUBLISHER}")
    found = prefect_api.deployment(name)
    begun = prefect_api.ask(lambda client: client.create_flow_run_from_deployment(found.id))
    ended = prefect_api.wait_for_run(flow, lambda run: run.id == begun.id and run.state.is_final())
    assert ended.state.is_completed(), ended.state.message
    return ended


def watched(machines, prefect_api):
    """Run the deployed watch to its end at every hospital; its id."""
    runs = machines.folder / PUBLISHER / "var" / "runs"
    before = set(runs.iterdir())
    run_of(prefect_api, "watch-drift")
    (folder,) = set(runs.iterdir()) - before
    for name in ("harbour", "valley"):
        machines.until(name, f"run {folder.name} is finished")
    return folder.name


def change_rows(machines, name, change):
    path = machines.folder / name / "data" / name / "patients.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def found_by(machines, run):
    """What each hospital was told by a watch."""
    paths = {name: machines.folder / name / "var" / "runs" / run / "drift.json" for name in NAMES}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def history_at(machines, name):
    return verify_ledger(machines.folder / name / "organisation" / "ledger").history.runs


def test_a_watch_that_one_hospital_begins_is_done_by_all_and_tells_all_the_same(machines, publisher):
    run = watched(machines, publisher)
    told = found_by(machines, run)
    assert told["north"] == told["harbour"] == told["valley"]
    assert told["north"]["rows_now"] == told["north"]["rows_before"]
    assert not any(line["psi"] for line in told["north"]["columns"])
    runs = history_at(machines, "valley")
    champion = runs.versions["breast-cancer", runs.aliases["breast-cancer", "champion"]].published.digest
    assert (runs.by_id[run].state, runs.by_id[run].trees, runs.by_id[run].model) == ("finished", 0, champion)


def test_rows_that_changed_by_a_few_are_not_compared_and_nobody_fails(machines, publisher):
    rows = machines.folder / "valley" / "data" / "valley" / "patients.parquet"
    before = rows.read_bytes()
    change_rows(machines, "valley", lambda frame: frame.iloc[3:])
    run = watched(machines, publisher)
    rows.write_bytes(before)
    assert found_by(machines, run) == {}
    assert f"watch     {run}: too few rows have changed" in (machines.folder / "harbour" / "log.txt").read_text()
    assert history_at(machines, "north").by_id[run].state == "aborted"


def test_rows_that_moved_start_a_training_and_a_person_is_asked(machines, publisher):
    for name in NAMES:
        change_rows(machines, name, lambda frame: frame.assign(mean_texture=frame["mean_texture"] * 1.6))
    run = watched(machines, publisher)
    assert [line["column"] for line in found_by(machines, run)["valley"]["columns"] if line["psi"] > 0.2] == [
        "mean_texture"
    ]
    retrained = publisher.wait_for_run("federated-retrain", lambda run: "automation" in str(run.created_by).lower())
    retrained = publisher.wait_for_run("federated-retrain", lambda run: run.id == retrained.id and run.state.is_final())
    assert retrained.state.is_completed(), retrained.state.message
    asked = publisher.wait_for_run("promote", lambda run: run.state.name == "Suspended")
    assert asked.name == "breast-cancer v3"
    answer = {"decision": "promote", "reason": "the scanners were replaced", "by": "Ada"}
    publisher.ask(lambda client: client.resume_flow_run(asked.id, run_input=answer))
    ended = publisher.wait_for_run("promote", lambda run: run.state.is_final())
    assert ended.state.is_completed(), ended.state.message
    assert history_at(machines, PUBLISHER).aliases["breast-cancer", "champion"] == 3


def test_the_way_back_stands_in_the_hubs_ledger(machines, publisher):
    run_of(publisher, "rollback")
    assert history_at(machines, PUBLISHER).aliases["breast-cancer", "champion"] == 1
    told = ("--version", 3, "--reason", "the scanners are calibrated", "--home", "organisation")
    assert "of the hub's" in machines.at(PUBLISHER, "promote", "breast-cancer", *told)
    assert history_at(machines, PUBLISHER).aliases["breast-cancer", "champion"] == 3


@pytest.fixture(scope="module")
def long_run(machines, publisher):
    """A run of 5,000 rounds that north's Prefect has begun, in which everybody boosts: its id, and its flow run's."""
    before = {name: (machines.folder / name / "pipeline.yaml").read_text() for name in NAMES}
    for name, told in before.items():
        told = told.replace("rounds: 60", "rounds: 5000").replace("  early_stopping_rounds: 10\n", "")
        (machines.folder / name / "pipeline.yaml").write_text(told)
    found = publisher.deployment(f"federated-retrain/breast-cancer-{PUBLISHER}")
    pipeline = found.parameters["pipeline"]
    longer = {**pipeline["training"], "rounds": 5000, "early_stopping_rounds": None}
    told = {"pipeline": {**pipeline, "training": longer}}
    begun = publisher.ask(lambda client: client.create_flow_run_from_deployment(found.id, parameters=told))
    one = publisher.wait_for_run("federated-retrain", lambda run: run.id == begun.id and "lepton.run" in run.labels)
    run, end = one.labels["lepton.run"], time.monotonic() + 120
    while sums_begun(machines.folder / "valley" / "organisation" / "runs" / run / "journal.sqlite") < 60:
        assert time.monotonic() < end
        time.sleep(0.1)
    for name, text in before.items():
        (machines.folder / name / "pipeline.yaml").write_text(text)
    return run, begun.id


def test_an_organisation_that_serves_and_trains_listens_to_nobody_outside_its_machine(machines, long_run):
    serving = [one for one in machines.started if one.args[1:3] == ["org", "serve"] and one.poll() is None]
    assert len(serving) == 2
    for one in serving:
        processes = [psutil.Process(one.pid), *psutil.Process(one.pid).children(recursive=True)]
        assert part_of(long_run[0], "valley" if "valley.yaml" in one.args else "harbour") in {p.pid for p in processes}
        doors = [door for process in processes for door in process.net_connections("inet")]
        outside = [door for door in doors if door.status == psutil.CONN_LISTEN and door.laddr.ip not in LOOPBACK]
        assert not outside


def test_cancelling_the_run_on_its_page_where_it_was_begun_ends_it_for_everyone(machines, publisher, long_run):
    run, begun = long_run
    publisher.ask(lambda client: client.set_flow_run_state(begun, Cancelling()))
    for name in ("harbour", "valley"):
        machines.until(name, f"run {run} was ended: north: run {run} was cancelled where it was begun", seconds=20)
        machines.until(name, f"run {run} ended here with an error", seconds=20)
    assert f"run {run}: aborted" in machines.here("hub", "hub", "status")
    ended = publisher.wait_for_run("federated-retrain", lambda run: run.id == begun and run.state.is_final())
    assert ended.state.is_cancelled()


def test_an_invitation_that_a_policy_refuses_is_declined_with_the_reason_for_everyone(machines):
    for name in NAMES:
        path = machines.folder / name / "pipeline.yaml"
        path.write_text(path.read_text().replace("max_depth: 4", "max_depth: 9"))
    said = machines.at(PUBLISHER, "run", "pipeline.yaml", code=2)  # its own policy allows 8: nobody is invited
    assert "it asks for max_depth 9, the policy allows up to 8" in said
    assert the_run(said) not in machines.here("hub", "hub", "status")
    own = machines.folder / PUBLISHER / f"{PUBLISHER}.yaml"
    own.write_text(own.read_text().replace("max_depth: 8", "max_depth: 10"))
    said = machines.at(PUBLISHER, "run", "pipeline.yaml", code=2)
    assert "refuses run" in said and "it asks for max_depth 9, the policy allows up to 8" in said
    run = the_run(said)
    refusing = [name for name in NAMES if f"{name} refuses run {run}" in machines.here(name, "org", "status")]
    assert refusing
    assert f"run {run}: aborted" in machines.here("hub", "hub", "status")


def test_a_certificate_is_renewed_and_one_that_is_revoked_ends_there(machines):
    assert "has a certificate until" in machines.here("harbour", "org", "request", "--renew")
    machines.here("hub", "hub", "revoke", "valley", "--reason", "left the federation")
    assert "valley               shut out: left the federation" in machines.here("hub", "hub", "status")
    # The hub's list of members is at most a second old: once the agent has met it, so does everybody.
    machines.until("valley", "valley was shut out by the hub's operator: left the federation. Trying again")
    said = machines.at("valley", "org", "status", code=2)
    assert "refused this organisation: valley was shut out by the hub's operator: left the federation" in said
    request = read_request((machines.folder / "hub" / "valley.request").read_bytes())
    machines.here("hub", "hub", "admit", "valley.request", "--fingerprint", request.fingerprint)
    machines.carry("valley.admission", "hub", "valley")
    hub = fingerprint(machines.here("hub", "hub", "status"))
    machines.here("valley", "org", "accept", "valley.admission", "--fingerprint", hub)
    assert "valley at localhost" in machines.here("valley", "org", "status")
    run = machines.here("valley", "org", "propose", "pipeline.yaml", "--run", "by-hand").strip()
    assert run == "by-hand"
    assert "run by-hand" in machines.here("harbour", "org", "status")


def test_a_run_goes_on_without_an_organisation_that_is_lost_for_good_where_all_signed_for_that(machines, tmp_path):
    for name in NAMES:
        allow_going_on(machines, name)
    log = machines.folder / PUBLISHER / "log.txt"
    known = log.read_text().count("  run ") if log.exists() else 0
    began = machines.leave(PUBLISHER, "run", "pipeline.yaml")
    machines.until(PUBLISHER, "  run ", count=known + 1)
    run = the_run(log.read_text(), last=True)
    kill_for_good(machines, run, "valley", began, log)
    assert began.wait(600) == 0, log.read_text()
    left = ("harbour", "north")
    machines.until("harbour", f"run {run} is finished")
    assert f"goes on without valley, as {run}.1 of harbour, north" in log.read_text()
    said = machines.here("hub", "hub", "status")
    assert f"run {run}: continued as run {run}.1" in said and f"run {run}.1: finished" in said
    folders = {name: machines.folder / name / "var" / "runs" / run for name in left}
    (model,) = {(folders[name] / "organisations" / name / "model.ubj").read_bytes() for name in left}
    assert hashlib.sha256(model).hexdigest() == model_of_the_same_schedule(machines, run, left, tmp_path)
    for name, folder in folders.items():
        told = json.loads((folder / "results.json").read_text())
        assert told["run_id"] == run and told["gates"] and told["figures"]["scores"]["auc"] > 0.95
        assert (told["registration"] is not None) == (name == PUBLISHER)
    proved = verify_ledger(machines.folder / "harbour" / "organisation" / "ledger").proved
    assert any(f"run {run}.1: " in line and "cosigned by harbour, north" in line for line in proved)
    runs = history_at(machines, PUBLISHER)
    assert (runs.by_id[run].state, runs.by_id[f"{run}.1"].state) == ("suspended", "finished")
    (version,) = [one for one in runs.versions.values() if one.published.run == f"{run}.1"]
    assert version.published.digest == hashlib.sha256(model).hexdigest()


def allow_going_on(machines, name):
    """Write into the files of an organisation that two may go on without the third, over a product of its own.

    Over the one of the runs before it may not: those were not signed for that, and the two sums would show the third's.
    """
    contract = machines.folder / name / "contract.odcs.yaml"
    contract.write_text(contract.read_text().replace("id: urn:lepton:example:", "id: urn:lepton:example:lasting-"))
    pipeline, own = machines.folder / name / "pipeline.yaml", machines.folder / name / f"{name}.yaml"
    told = pipeline.read_text().replace("max_depth: 9", "max_depth: 4")
    going_on = (
        f"federation: {{hub: localhost:{machines.port}, grace_seconds: 15, when_lost: go_on, minimum_members: 2}}"
    )
    told = told.replace(next(line for line in told.splitlines() if line.startswith("federation:")), going_on)
    pipeline.write_text(f"{told}\nallow_two_parties: true\n")
    own.write_text(own.read_text().replace("policy: {", "policy: {minimum_members: 2, "))


def kill_for_good(machines, run, name, began, log):
    """Kill an organisation's agent and its part of a run while it boosts."""
    journal = machines.folder / name / "organisation" / "runs" / run / "journal.sqlite"
    end = time.monotonic() + 300
    while sums_begun(journal) < 60:
        assert time.monotonic() < end and began.poll() is None, log.read_text()
        time.sleep(0.02)
    serving = next(one for one in machines.started if one.args[1:3] == ["org", "serve"] and f"{name}.yaml" in one.args)
    serving.kill()
    os.kill(part_of(run, name), signal.SIGKILL)


def model_of_the_same_schedule(machines, run, left, folder):
    """The digest of the model of threads whose members change after as many sums as they did in the run."""
    scheduled = runpy.run_path(str(ROOT / "tests" / "federation" / "scheduled.py"))
    stage = machines.folder / left[0] / "organisation" / "runs" / f"{run}.1" / "stage.json"
    held = [json.loads((stage.parents[4] / name / Path(*stage.parts[-4:])).read_text())["held"][0] for name in left]
    salt = 1  # of the ledger, among the first sums: a run in threads is in none
    schedule = scheduled["Scheduled"]([scheduled["Stage"](NAMES, max(held) - salt), scheduled["Stage"](left)])
    pipeline = read_pipeline(machines.folder / PUBLISHER / "pipeline.yaml")

    def part(sums):
        own = read_organisation(machines.folder / sums.member / f"{sums.member}.yaml")
        one = OrganisationRun(pipeline, own, sums, RunFolder(folder, "scheduled"), share=3, repeats=True)
        try:
            for step in (one.ingest, one.validate, one.bin, one.train):
                step()
            return hashlib.sha256(one.model).hexdigest()
        finally:
            one.close()

    found = schedule.run(part)
    (model,) = {found[name] for name in left}
    return model


def test_of_a_run_that_was_over_for_the_days_of_the_policy_the_model_is_left(machines):
    clear = ("org", "clear", "--organisation", "harbour.yaml", "--days", "1")
    assert "no run was over for 1 days" in machines.here("harbour", *clear)
    home, var = machines.folder / "harbour" / "organisation" / "runs", machines.folder / "harbour" / "var" / "runs"
    moment = time.time() - 2 * 86400
    for path in [*home.rglob("*"), *var.rglob("*")]:
        os.utime(path, (moment, moment))
    said = machines.here("harbour", *clear)
    cleared = {line.split()[1].rstrip(":") for line in said.splitlines() if " files deleted" in line}
    assert cleared
    for run in cleared:
        assert not list((home / run).glob("journal.sqlite*")) and not (var / run / "log.txt").exists()
    assert [run for run in cleared if list((var / run).rglob("model.ubj"))]
