"""A run that is called off where it was begun ends for everyone, whatever its members are waiting for."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from lepton_pipelines.federation.calling_off import call_off, was_proposed_from
from lepton_pipelines.federation.grpc_member import RunSuspended
from lepton_pipelines.federation.runs import propose
from lepton_pipelines.sums import SumAborted

REASON = "north: run begun was cancelled where it was begun"


@pytest.fixture
def begun(hub_of_three):
    """A run that north has proposed from its own folder."""
    hub_of_three.manifest = hub_of_three.manifest.model_copy(update={"run": "begun"})
    propose(hub_of_three.manifest, hub_of_three.homes["north"], address=f"localhost:{hub_of_three.port}")
    return hub_of_three


def called_off(begun):
    return call_off("begun", begun.homes["north"], REASON, address=f"localhost:{begun.port}")


def test_who_waits_for_a_sum_is_told_within_seconds_who_called_the_run_off(begun):
    def part(name):
        sums = begun.join(name)
        sums.wait_until_ready(60)
        if name == "north":
            sums.close()  # as a process does that is being ended
            assert called_off(begun) == ["begun"]
            return time.monotonic()
        with pytest.raises(SumAborted, match=REASON) as ended:
            sums.sum("s", np.ones(3, np.int64), bound=9)
        assert not isinstance(ended.value, RunSuspended)
        return time.monotonic()

    with ThreadPoolExecutor(3) as threads:
        told = dict(zip(begun.homes, threads.map(part, begun.homes), strict=True))
    assert max(told.values()) - told["north"] < 6
    with closing(begun.connect("valley")) as connection:
        status = connection.look("begun")
    assert (status.status, status.reason) == ("aborted", REASON)


def test_a_run_that_only_invites_is_called_off_and_one_that_is_over_stays_as_it_is(begun):
    assert called_off(begun) == ["begun"]
    assert called_off(begun) == []


def test_only_who_has_proposed_a_run_is_the_one_who_began_it(begun):
    assert [name for name, home in begun.homes.items() if was_proposed_from(home, "begun")] == ["north"]
    assert not was_proposed_from(begun.homes["north"], "another")
