"""Rows that stay on Dask workers: exact sums, order, and what happens when a worker is killed."""

import os
import signal
import time

import numpy as np
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from lepton_pipelines.compute.pinned import PinnedRows, WorkersLost, deal

PIECES = [[3, 1, 4], [1, 5], [9, 2, 6, 5], [3, 5, 8, 9, 7, 9]]
FACTORS = [2, 3, 5, 7, 11, 13]


@pytest.fixture
def expected(numbers, multiply):
    alone = numbers(PIECES)
    return [multiply(factor).run(alone).copy() for factor in FACTORS]


def test_sums_over_workers_equal_those_of_one_holder(threads, numbers, multiply, expected):
    rows = PinnedRows(threads, numbers, PIECES)
    assert len(rows.parts) == 3
    pending = [rows.start(multiply(factor)) for factor in FACTORS]
    np.testing.assert_array_equal([each.result() for each in pending], expected)
    rows.close()


class Spin:
    """A step that keeps its thread's processor busy for so long."""

    def __init__(self, seconds):
        self.seconds = seconds

    def run(self, shard):
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        return np.zeros(1, np.int64)


def test_core_time_is_told_apart_between_organisations_whose_workers_share_a_process(threads, numbers):
    """Three workers each, all in this process: by the process' clock both would have spent the same."""
    busy, idle = (PinnedRows(threads, numbers, PIECES) for _ in range(2))
    busy.add_up(Spin(0.2))
    assert busy.core_seconds() == pytest.approx(3 * 0.2, rel=0.2)
    assert idle.core_seconds() < 0.1
    busy.close()
    idle.close()


def test_a_killed_worker_changes_no_sum(processes, numbers, multiply, expected, kill):
    losses = []
    rows = PinnedRows(processes, numbers, PIECES, on_loss=losses.append)
    sums = [rows.add_up(multiply(factor)) for factor in FACTORS[:3]]
    kill(processes, rows.parts[0].worker)
    sums += [rows.add_up(multiply(factor)) for factor in FACTORS[3:]]
    np.testing.assert_array_equal(sums, expected)
    assert len(losses) == 1
    assert "is lost" in losses[0]
    rows.close()


def test_a_worker_killed_during_a_step_changes_no_sum(processes, numbers, expected, multiply):
    class KillsItsFirstWorker:
        """Die on the worker that holds the first piece, the first time."""

        def __init__(self, victim):
            self.victim = victim

        def run(self, shard):
            if os.getpid() == self.victim:
                os.kill(os.getpid(), signal.SIGKILL)
            return multiply(FACTORS[3]).run(shard)

    rows = PinnedRows(processes, numbers, PIECES)
    sums = [rows.add_up(multiply(factor)) for factor in FACTORS[:3]]
    victim = rows.ask(lambda held: os.getpid())[1]
    started = time.monotonic()
    sums.append(rows.add_up(KillsItsFirstWorker(victim)))
    assert time.monotonic() - started < 10, "a lost worker was noticed late"
    sums += [rows.add_up(multiply(factor)) for factor in FACTORS[4:]]
    np.testing.assert_array_equal(sums, expected)
    rows.close()


def test_after_a_checkpoint_a_rebuilt_worker_repeats_only_what_came_since(processes, numbers, multiply, kill, tmp_path):
    log = tmp_path / "steps"

    class Noted:
        def __init__(self, name, seen):
            self.name, self.seen = name, seen

        def run(self, shard):
            with log.open("a") as file:
                file.write(f"{self.name} ")
            if self.seen is not None:
                shard.seen = self.seen
            return np.array([shard.seen], np.int64)

    rows = PinnedRows(processes, numbers, PIECES[:1])
    for name in "abc":
        rows.add_up(Noted(name, None))
    rows.checkpoint(Noted("restore", 40))
    rows.add_up(Noted("d", 41))
    kill(processes, rows.parts[0].worker)
    assert rows.add_up(Noted("e", None)).tolist() == [41]
    assert log.read_text().split() == ["a", "b", "c", "d", "restore", "d", "e"]
    rows.close()


def test_a_change_outlives_the_worker_that_made_it(processes, numbers, multiply, kill):
    def doubled(held):
        return type(held)([held.numbers * 2])

    rows = PinnedRows(processes, numbers, PIECES)
    rows.change(doubled)
    before = sum(rows.ask(lambda held: int(held.numbers.sum())))
    kill(processes, rows.parts[0].worker)
    assert sum(rows.ask(lambda held: int(held.numbers.sum()))) == before == 2 * sum(map(sum, PIECES))
    rows.close()


def test_survivors_take_over_when_no_worker_comes_back(threads, numbers, multiply, expected):
    rows = PinnedRows(threads, numbers, PIECES, patience=0.1)
    sums = [rows.add_up(multiply(factor)) for factor in FACTORS[:2]]
    threads.retire_workers([rows.parts[0].worker])
    sums += [rows.add_up(multiply(factor)) for factor in FACTORS[2:]]
    np.testing.assert_array_equal(sums, expected)
    rows.close()


def test_rows_that_kill_every_worker_stop_the_run_and_say_why(doomed_processes, numbers):
    class Greedy:
        def run(self, shard):
            os.kill(os.getpid(), signal.SIGKILL)

    rows = PinnedRows(doomed_processes, numbers, PIECES[:1])
    with pytest.raises(WorkersLost, match="killed for want of memory"):
        rows.add_up(Greedy())
    rows.close()


def test_a_step_that_fails_raises_its_own_error_and_the_rows_live_on(threads, numbers, multiply):
    class Fails:
        def run(self, shard):
            raise OSError("the file of step 7 is gone")

    rows = PinnedRows(threads, numbers, PIECES)
    with pytest.raises(OSError, match="step 7"):
        rows.add_up(Fails())
    assert rows.add_up(multiply(1)).tolist() == [sum(map(sum, PIECES))] * 2
    rows.close()


def test_a_builder_that_fails_raises_its_own_error(threads):
    def fails(pieces):
        raise FileNotFoundError("patients.csv")

    with pytest.raises(FileNotFoundError, match=r"patients\.csv"):
        PinnedRows(threads, fails, PIECES)


def test_two_parties_in_one_process_do_not_mix_their_clusters(threads, processes, numbers, multiply):
    with processes.as_current():
        first = PinnedRows(threads, numbers, PIECES[:2])
    with Client.as_current(threads):
        second = PinnedRows(processes, numbers, PIECES[2:])
    assert first.add_up(multiply(1))[0] == 14
    assert second.add_up(multiply(1))[0] == 22 + 41
    assert {part.worker for part in first.parts} <= set(threads.nthreads())
    assert {part.worker for part in second.parts} <= set(processes.nthreads())
    first.close()
    second.close()


@given(
    weights=st.lists(st.floats(0, 1e9), max_size=20),
    workers=st.integers(1, 5),
)
def test_every_piece_is_dealt_once_and_no_worker_is_left_idle_while_another_holds_two(weights, workers):
    names = [f"w{index}" for index in range(workers)]
    dealt = deal(list(range(len(weights))), weights, names)
    assert sorted(piece for _, pieces in dealt for piece in pieces) == list(range(len(weights)))
    assert len(dealt) == max(1, min(workers, len(weights)))
