"""Seeded schedules of faults over the state machines that run in production."""

import importlib.util
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

SCHEDULES = 2000
OF_CHANGING_MEMBERS = 600


@pytest.mark.timeout(900)  # half a minute on two free cores
def test_every_schedule_ends_in_the_fault_free_model_or_in_an_abort_with_a_cause(simulator):
    batches = [range(begin, begin + 100) for begin in range(0, SCHEDULES, 100)]
    tally = {"model": 0, "abort": 0}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for counts, failure in pool.map(simulator.check_batch, batches):
            assert not failure, f"{failure}\nAgain: python tests/federation/simulator.py --trace --seed …"
            tally = {end: tally[end] + counts.get(end, 0) for end in tally}
    assert sum(tally.values()) == SCHEDULES
    assert tally["model"] > SCHEDULES // 2 and tally["abort"] > SCHEDULES // 20


def test_every_schedule_of_lost_members_ends_in_the_model_of_its_members_or_in_an_abort(simulator):
    path = Path(__file__).with_name("changing_simulator.py")
    spec = importlib.util.spec_from_file_location("changing_simulator", path)
    changing = importlib.util.module_from_spec(spec)
    sys.modules["changing_simulator"] = changing
    spec.loader.exec_module(changing)
    batches = [range(begin, begin + 50) for begin in range(0, OF_CHANGING_MEMBERS, 50)]
    tally = {"model": 0, "went on": 0, "abort": 0}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for counts, failure in pool.map(partial(simulator.run_batch, changing.check), batches):
            assert not failure, f"{failure}\nAgain: python tests/federation/changing_simulator.py --trace --seed …"
            tally = {end: tally[end] + counts.get(end, 0) for end in tally}
    assert sum(tally.values()) == OF_CHANGING_MEMBERS
    assert tally["went on"] > OF_CHANGING_MEMBERS // 20
