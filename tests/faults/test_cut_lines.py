"""A real cut between an organisation and its hub: the organisation has a network of its own, whose line goes down.

Unlike a killed process, a cut leaves connections open on both sides and says nothing. Needs root and iproute2.
"""

import importlib.util
import os
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from lepton_pipelines.federation.hub_connection import HubConnection

NAMES = ("harbour", "north", "valley")
ROUNDS = 150
HUB, ORGANISATION = "10.201.77.1", "10.201.77.2"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


@pytest.fixture
def line():
    """A network namespace and a line to it, which is up."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    name, here, there = f"lepton{os.getpid()}", f"lph{os.getpid()}"[:15], f"lpt{os.getpid()}"[:15]
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("address", "add", f"{HUB}/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "address", "add", f"{ORGANISATION}/30", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        yield Line(name, here)
    finally:
        ip("netns", "delete", name)  # takes the line with it


class Line:
    """A line to a namespace. within: the command that starts others there."""

    def __init__(self, namespace, device):
        self.device, self.within = device, ("ip", "netns", "exec", namespace)

    def cut(self):
        ip("link", "set", self.device, "down")

    def mend(self):
        ip("link", "set", self.device, "up")


@pytest.fixture
def far(processes, line):
    """Three organisations, of which valley sits behind the line; the hub listens at its other end."""
    processes.kill_hub()
    processes.host = HUB
    processes.serve()
    return processes


def started(far, line, name):
    told = ("--rounds", str(ROUNDS), "--host", HUB)
    return far.start(name, *told, within=line.within if name == "valley" else ())


def until_silent(far, seconds):
    """Wait until the hub has not heard of valley for so long, or stopped the run."""
    end = time.monotonic() + 120
    with closing(HubConnection(far.homes["north"].credentials(), address=f"{HUB}:{far.port}")) as connection:
        while True:
            (status,) = connection.runs()
            if status.status == "suspended" or status.seconds_since_seen.get("valley", 0) > seconds:
                return status
            assert time.monotonic() < end, status
            time.sleep(0.1)


@pytest.fixture(scope="module")
def fault_free_model():
    """The chain of totals, computed in one place."""
    path = Path(__file__).with_name("test_processes.py")
    spec = importlib.util.spec_from_file_location("test_processes_of_cuts", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.chain_of_totals(ROUNDS)


@pytest.mark.parametrize("processes", [60], indirect=True)
def test_a_cut_shorter_than_the_grace_time_is_waited_through(far, line, fault_free_model):
    parts = [started(far, line, name) for name in NAMES]
    parts[2].until("sum", name="tree-1/level-0")
    line.cut()
    status = until_silent(far, 8)
    assert status.status == "running" and status.missing == ["valley"]
    line.mend()
    assert far.finish(parts) == {fault_free_model}
    assert {one.said[-1]["epoch"] for one in parts} == {1}


@pytest.mark.parametrize("processes", [12], indirect=True)
def test_a_cut_longer_than_the_grace_time_suspends_the_run_on_both_sides_and_it_is_resumed(far, line, fault_free_model):
    parts = [started(far, line, name) for name in NAMES]
    parts[2].until("sum", name="tree-1/level-0")
    line.cut()
    assert until_silent(far, 3600).status == "suspended"
    lost = "valley did not come back within the grace time"
    for one, reason in zip(parts, (lost, lost, "was not reached"), strict=True):
        ended = one.until("aborted")
        assert ended["kind"] == "RunSuspended" and reason in ended["reason"]
        assert one.gone() == 3
    line.mend()
    assert far.finish([started(far, line, name) for name in NAMES]) == {fault_free_model}
