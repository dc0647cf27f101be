"""Real Dask clusters and the simplest steps that change what a worker holds."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import cloudpickle
import numpy as np
import pytest
from distributed import Client, LocalCluster

# Workers are other processes and cannot import a test's folder.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Numbers:
    """What a worker holds in these tests: numbers and a running total that every step changes."""

    def __init__(self, pieces):
        self.numbers = np.concatenate([np.asarray(piece, np.int64) for piece in pieces] or [np.zeros(0, np.int64)])
        self.seen = 0


class Multiply:
    """Multiply the numbers and return their sum, the sum of all steps before, and how many held them."""

    def __init__(self, factor):
        self.factor = factor

    def run(self, shard):
        shard.numbers = shard.numbers * self.factor % 1009
        shard.seen += int(shard.numbers.sum())
        return np.array([shard.numbers.sum(), shard.seen], np.int64)


def kill_worker(client: Client, address: str) -> None:
    """Kill a worker's process as the kernel does when memory runs out, and wait until the scheduler knows."""
    pid = client.run(os.getpid, workers=[address])[address]
    os.kill(pid, signal.SIGKILL)


@contextmanager
def worker_processes() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        Client(cluster, direct_to_workers=True) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def two_processes() -> Iterator[Client]:
    with worker_processes() as client:
        yield client


@pytest.fixture
def processes(two_processes) -> Client:
    """A cluster of two worker processes, both living: Dask's nanny has replaced those that a test killed."""
    two_processes.wait_for_workers(2, timeout=30)
    return two_processes


@pytest.fixture
def doomed_processes() -> Iterator[Client]:
    """The same for one test alone: a nanny whose worker dies again while it starts may give up."""
    with worker_processes() as client:
        yield client


@pytest.fixture
def threads() -> Iterator[Client]:
    """A cluster of three workers in this process."""
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, direct_to_workers=True) as client,
    ):
        yield client


@pytest.fixture
def numbers() -> type[Numbers]:
    """The builder: what a worker holds."""
    return Numbers


@pytest.fixture
def multiply() -> type[Multiply]:
    """The step."""
    return Multiply


@pytest.fixture
def kill():
    """Kill the worker at an address, as the kernel does when memory runs out."""
    return kill_worker
