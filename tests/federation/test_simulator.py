"""Seeded schedules of faults over the state machines that run in production."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

SCHEDULES = 2000


@pytest.mark.timeout(900)  # half a minute on two free cores
def test_every_schedule_ends_in_the_fault_free_model_or_in_an_abort_with_a_cause(simulator):
    batches = [range(begin, begin + 100) for begin in range(0, SCHEDULES, 100)]
    tally = {"model": 0, "abort": 0}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for counts, failure in pool.map(simulator.check_batch, batches):
            assert not failure, f"{failure}\nAgain: python tests/federation/simulator.py --trace --seed …"
            tally = {end: tally[end] + counts[end] for end in tally}
    assert sum(tally.values()) == SCHEDULES
    assert tally["model"] > SCHEDULES // 2 and tally["abort"] > SCHEDULES // 20
