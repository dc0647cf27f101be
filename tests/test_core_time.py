"""Core time is what threads spend on the processor, the caller's and its helpers', and nobody else's."""

import threading
import time

import pytest

from lepton_pipelines.boosting.pool import Pool
from lepton_pipelines.core_time import CoreTime

BUSY = 0.15


def spin(seconds: float = BUSY) -> None:
    """Keep this thread's processor busy for so long, by the system's clock of the whole process' threads."""
    end = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) + seconds
    while time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) < end:
        pass


def test_helpers_count_with_the_thread_that_they_help():
    pool, counted = Pool(3), CoreTime()
    with counted.counted():
        pool.run([(spin, ())] * 6)
    pool.close()
    assert counted.seconds == pytest.approx(6 * BUSY, rel=0.2)


def test_waiting_and_other_threads_work_count_nothing():
    counted, other = CoreTime(), threading.Thread(target=spin)
    with counted.counted():
        other.start()
        other.join()
    assert counted.seconds < BUSY / 3


def test_work_outside_of_a_counted_block_is_not_counted_and_one_inside_another_counts_once():
    outer, inner, pool = CoreTime(), CoreTime(), Pool(2)
    pool.run([(spin, ())] * 2)
    with outer.counted(), inner.counted():
        pool.run([(spin, ())] * 2)
    pool.close()
    assert inner.seconds == pytest.approx(2 * BUSY, rel=0.2)
    assert outer.seconds <= inner.seconds * 1.2
