"""The whole pipeline from the command line, on real rows, with everything that it starts by itself."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

# A run takes half a minute; a machine that is busy with others' work takes many times that.
pytestmark = pytest.mark.timeout(900)

LEPTON = Path(sys.executable).with_name("lepton")


@pytest.fixture(scope="module")
def first_run(module_example, module_lepton):
    """One run of the example on Prefect's embedded API."""
    ended = module_lepton("run", module_example.spec, "--var", module_example.var)
    assert ended.code == 0, ended.out + ended.err
    return ended


def run_folder(example):
    return max((example.var / "runs").iterdir(), key=lambda folder: folder.name)


def results(example):
    return json.loads((run_folder(example) / "results.json").read_text())


def test_core_hours_of_a_run_are_told_by_organisation_and_by_the_pools_status(first_run, module_example, module_lepton):
    shown = {one["name"]: one["core_seconds"] for one in results(module_example)["organisations"]}
    assert all(0 < seconds < 600 for seconds in shown.values()) and len(shown) == 3
    assert "core-hours on Dask workers" in first_run.out
    ended = module_lepton("pool", "status", "--json", "--as", "north", "--var", module_example.var)
    by_training = json.loads(ended.out)["core_hours"]["by_training"][run_folder(module_example).name]
    assert by_training.keys() == shown.keys()
    for name, hours in by_training.items():
        assert hours * 3600 >= shown[name] * 0.99 - 0.01


def test_a_run_prints_what_came_of_it(first_run, module_example):
    out = first_run.out
    for text in (
        "Dask workers",
        "binning",
        "rounds · valid AUC",
        "on the same held-out rows",
        "north alone",
        "federated",
        "pooled (only a demo can do this)",
        "breast-cancer v1 → champion",
        "report.html",
        "models serve -m models:/breast-cancer@champion",
    ):
        assert text in out, out
    assert first_run.err == ""


def test_all_federated_trees_are_those_of_stock_xgboost(first_run, module_example):
    equal = results(module_example)["trees_equal"]
    assert equal["equal"]
    assert equal["trees_equal"] == equal["trees"] > 10
    assert "XGBoost" in equal["reference"]


def test_the_federation_is_no_worse_than_any_hospital_alone(first_run, module_example):
    rows = {row["name"]: row for row in results(module_example)["comparison"]}
    alone = [rows[f"{name} alone"]["scores"]["logloss"] for name in ("north", "harbour", "valley")]
    assert rows["federated"]["scores"]["logloss"] < min(alone)
    assert rows["federated"]["scores"] == pytest.approx(rows["pooled"]["scores"], abs=1e-5)
    assert set(rows["federated"]["per_organisation"]) == {"north", "harbour", "valley"}


def test_what_a_run_leaves_is_its_owner_s_alone(first_run, module_example):
    folder = run_folder(module_example)
    assert folder.stat().st_mode & 0o077 == 0
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert "Beginning flow run" in (folder / "log.txt").read_text()
    assert (folder / "report.html").read_text().startswith("<!")


def test_the_published_model_is_what_every_hospital_trained(first_run, module_example):
    import hashlib

    folder = run_folder(module_example)
    digests = {
        hashlib.sha256((folder / "organisations" / name / "model.ubj").read_bytes()).hexdigest()
        for name in ("north", "harbour", "valley")
    }
    assert digests == {results(module_example)["reproduction"]["model_digest"]}


@pytest.mark.slow
def test_a_second_run_makes_a_challenger_and_says_why(first_run, module_example, module_lepton):
    ended = module_lepton("run", module_example.spec, "--var", module_example.var)
    assert ended.code == 0, ended.out + ended.err
    assert re.search(r"v2 → challenger: AUC \+0\.000, not better by the required 0\.001, champion stays v1", ended.out)
    assert "champion (v1)" in ended.out
    told = results(module_example)
    assert told["champion"]["version"] == "1"
    assert told["champion"]["scores"]["auc"] == pytest.approx(told["figures"]["scores"]["auc"])


@pytest.mark.slow
def test_a_run_may_go_on_boosting_from_the_champion(first_run, module_example, module_lepton):
    import xgboost

    def model(folder):
        booster = xgboost.Booster()
        booster.load_model(bytearray((folder / "organisations" / "valley" / "model.ubj").read_bytes()))
        return booster

    before = min((module_example.var / "runs").iterdir(), key=lambda folder: folder.name)  # whose model is champion
    told = module_example.spec.read_text()
    for old, new in (("rounds: 60", "rounds: 5\n  start: champion"), ("  early_stopping_rounds: 10\n", "")):
        assert old in told
        told = told.replace(old, new, 1)
    warm = module_example.folder / "warm.yaml"
    warm.write_text(told.replace("comparison: {alone: true, pooled: true}", "comparison: {}"))
    ended = module_lepton("run", warm, "--var", module_example.var)
    assert ended.code == 0, ended.out + ended.err
    champion, longer = model(before), model(run_folder(module_example))
    assert longer.num_boosted_rounds() == champion.num_boosted_rounds() + 5
    assert longer.get_dump(with_stats=True)[:-5] == champion.get_dump(with_stats=True)
    assert {path.name for path in (run_folder(module_example) / "organisations").iterdir()} == {
        "harbour",
        "north",
        "valley",
    }


@pytest.fixture
def started(example, environment):
    """A run as a process, stopped at the end whatever happens."""
    running = []

    def start(*arguments):
        process = subprocess.Popen(
            [LEPTON, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        # Reads to the end and closes both pipes: an open one would be reported in whichever test comes next.
        process.communicate()


def wait_for_round(example, process, rounds):
    """Wait until all hospitals have kept their progress after so many rounds."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        kept = [list(example.var.glob(f"runs/*/organisations/{name}/round-*.npz")) for name in HOSPITALS]
        if all(files and max(int(file.stem[-6:]) for file in files) >= rounds for files in kept):
            return
        if process.poll() is not None:
            out, err = process.communicate()
            pytest.fail(f"the run ended with {process.returncode}:\n{out}\n{err}")
        time.sleep(0.02)
    pytest.fail("training did not begin")


HOSPITALS = ("north", "harbour", "valley")


def wait_until_gone(processes, within=60):
    until = time.monotonic() + within
    while left := [pid for pid in processes if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < until, f"still there: {[Path(f'/proc/{pid}/cmdline').read_text() for pid in left]}"
        time.sleep(0.1)


def descendants(pid):
    found, todo = set(), [pid]
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def longer(example, rounds=3000):
    example.replace("pipeline.yaml", "rounds: 60", f"rounds: {rounds}")
    example.replace("pipeline.yaml", "early_stopping_rounds: 10", "learning_rate: 0.02")
    example.replace("pipeline.yaml", "comparison: {alone: true, pooled: true}", "comparison: {}")


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_with_130_and_leaves_no_process(example, started):
    longer(example)
    process = started("run", example.spec, "--var", example.var)
    wait_for_round(example, process, 20)
    children = descendants(process.pid)
    assert children, "the embedded server is a process of its own"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert "lepton run --resume" in err
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
def test_a_killed_run_goes_on_at_its_last_tree_and_gives_the_same_model(example, started, lepton):
    longer(example, rounds=300)
    process = started("run", example.spec, "--var", example.var)
    wait_for_round(example, process, 30)
    children = descendants(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until_gone(children)
    killed = run_folder(example)
    ended = lepton("run", "--resume", killed.name, "--var", example.var)
    assert ended.code == 0, ended.out + ended.err
    model = (killed / "organisations" / "north" / "model.ubj").read_bytes()
    resumed = json.loads((killed / "results.json").read_text())
    assert resumed["rounds"] == 300
    whole = lepton("run", example.spec, "--var", example.var)
    assert whole.code == 0, whole.out + whole.err
    assert run_folder(example).name != killed.name
    assert (run_folder(example) / "organisations" / "north" / "model.ubj").read_bytes() == model
    np.testing.assert_array_equal(
        results(example)["history"]["valid"]["logloss"], resumed["history"]["valid"]["logloss"]
    )
