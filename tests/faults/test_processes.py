"""Faults of processes: real ones on loopback, killed with SIGKILL. The model must be the one of the fault-free run."""

import hashlib
import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from lepton_pipelines.federation.checkpoints import Checkpoints

NAMES = ("harbour", "north", "valley")
ROUNDS, VALUES = 4, 2_000


@pytest.fixture(scope="module")
def fault_free_model():
    return chain_of_totals(ROUNDS)


def chain_of_totals(rounds):
    """The model of the fault-free run, computed in one place."""
    path = Path(__file__).with_name("organisation_program.py")
    spec = importlib.util.spec_from_file_location("organisation_program", path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    state = b"start"
    for tree in range(rounds):
        for level in range(3):
            parts = [program.rows(name, f"tree-{tree}/level-{level}", state, VALUES) for name in NAMES]
            state = hashlib.sha256(state + sum(parts).tobytes()).digest()
    return state.hex()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("before write-ahead", marks=pytest.mark.slow),
        "after write-ahead",
        pytest.param("while a checkpoint is written", marks=pytest.mark.slow),
    ],
)
def test_an_organisation_that_is_killed_comes_back_and_the_model_is_the_same(processes, fault_free_model, moment):
    steady = [processes.start(name) for name in NAMES[:2]]
    victim = processes.start(NAMES[2], "--die", moment)
    assert victim.gone() == -9
    again = processes.start(NAMES[2])
    assert processes.finish([*steady, again]) == {fault_free_model}
    assert again.said[-1]["epoch"] == 2


@pytest.mark.slow
def test_an_organisation_that_comes_back_with_other_rows_is_refused_and_says_so(processes):
    steady = [processes.start(name) for name in NAMES[:2]]
    assert processes.start(NAMES[2], "--die", "after write-ahead").gone() == -9
    again = processes.start(NAMES[2], "--changed")
    for one in [*steady, again]:
        reason = one.until("aborted")["reason"]
        assert reason.startswith("valley: sum 'tree-") and "with other numbers. The rows changed" in reason
        assert one.gone() == 3


def test_a_hub_that_is_killed_in_the_middle_goes_on_from_its_log(processes, fault_free_model):
    organisations = [processes.start(name) for name in NAMES]
    organisations[0].until("sum", name="tree-1/level-0")
    processes.kill_hub()
    processes.serve()
    assert processes.finish(organisations) == {fault_free_model}


@pytest.mark.slow
def test_an_organisations_folder_is_restored_from_an_older_copy_and_the_model_is_the_same(processes, fault_free_model):
    steady = [processes.start(name) for name in NAMES[:2]]
    first = processes.start(NAMES[2])
    first.until("sum", name="tree-0/level-1")
    first.kill()
    folder, copy = processes.folder / NAMES[2], processes.folder / "backup"
    shutil.copytree(folder, copy)  # as `cp -a` does, with modes
    later = processes.start(NAMES[2])
    later.until("sum", name="tree-2/level-0")
    later.kill()
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    again = processes.start(NAMES[2])
    for one in steady:
        ended = one.until("aborted")
        assert ended["kind"] == "RunSuspended" and re.search(r"valley holds totals up to sum \d, ", ended["reason"])
        assert one.gone() == 3
    resumed = [processes.start(name) for name in NAMES[:2]]
    assert processes.finish([*resumed, again]) == {fault_free_model}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [15], indirect=True)
def test_a_lost_organisation_suspends_the_run_and_the_same_members_resume_it(processes, fault_free_model):
    steady = [processes.start(name) for name in NAMES[:2]]
    victim = processes.start(NAMES[2])
    victim.until("sum", name="tree-1/level-1")
    victim.kill()
    for one in steady:
        ended = one.until("aborted")
        assert ended["kind"] == "RunSuspended"
        assert "valley did not come back within the grace time of 15 s" in ended["reason"]
        assert f"lepton run --resume {processes.manifest.run}" in ended["reason"]
        assert one.gone() == 3
    resumed = [processes.start(name) for name in NAMES]
    assert processes.finish(resumed) == {fault_free_model}
    assert any(one.said[0]["checkpoint"] > 0 for one in resumed)


def test_a_checkpoint_that_was_torn_is_passed_over_for_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest() is None
    checkpoints.save(3, b"first")
    checkpoints.save(6, b"second")
    newest = tmp_path / "checkpoints" / "0000000006.checkpoint"
    assert newest.stat().st_mode & 0o777 == 0o600
    newest.write_bytes(newest.read_bytes()[:-1])
    found = checkpoints.newest()
    assert found is not None and (found.position, found.payload) == (3, b"first")
    assert checkpoints.newest(not_after=2) is None
