"""Processes under watch: real ones, which die, hang, will not end, and start others."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lepton_pipelines.local_platform.home import HOME_MARK, PROCESS_MARK, PlatformHome
from lepton_pipelines.local_platform.services import Service
from lepton_pipelines.local_platform.supervisor import Clock, Supervisor, end_left_over

QUICK = Clock(start=10.0, unwell=1.0, steady=0.5, longest_pause=1.0)
PATIENCE = 30.0


@pytest.fixture
def home(tmp_path) -> PlatformHome:
    created = PlatformHome(tmp_path / "platform")
    created.create()
    return created


@pytest.fixture
def watched(home):
    """Start services under a supervisor, which is stopped at the end; gives it and what it said."""
    started: list[Supervisor] = []

    def start(*services: Service) -> tuple[Supervisor, list[str]]:
        said: list[str] = []
        supervisor = Supervisor(home, services, lambda name, what: said.append(f"{name} {what}"), clock=QUICK)
        supervisor.start()
        started.append(supervisor)
        return supervisor, said

    yield start
    for supervisor in started:
        supervisor.stop()


def service(home: PlatformHome, name: str, code: str, *, healthy=lambda: True, after=()) -> Service:
    environment = {**os.environ, HOME_MARK: str(home.folder), PROCESS_MARK: name}
    return Service(name, [sys.executable, "-c", code], environment, "nowhere", healthy, after)


def wait_for(condition):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("did not happen")


def pid_in(path: Path) -> int:
    return wait_for(lambda: path.exists() and path.read_text().strip() and int(path.read_text()))


SLEEPING = "import time; time.sleep(600)"


def test_a_killed_process_is_started_again_and_that_is_said(home, watched):
    supervisor, said = watched(service(home, "one", SLEEPING))
    wait_for(supervisor.all_healthy)
    (before,) = supervisor.status()
    assert before.rss > 1e6
    os.kill(before.pid, 9)
    wait_for(lambda: supervisor.status()[0].restarts == 1 and supervisor.all_healthy())
    assert supervisor.status()[0].pid != before.pid
    assert any("ended with signal 9; starts again in 1 s (log: " in line for line in said)


def test_a_process_that_keeps_ending_waits_longer_each_time(home, watched):
    _, said = watched(service(home, "one", "raise SystemExit(3)", healthy=lambda: False))
    wait_for(lambda: sum("ended with code 3" in line for line in said) >= 3)


def test_a_process_that_answers_no_more_is_started_again(home, watched, tmp_path):
    well = tmp_path / "well"
    well.touch()
    supervisor, said = watched(service(home, "one", SLEEPING, healthy=well.exists))
    wait_for(supervisor.all_healthy)
    well.unlink()
    wait_for(lambda: any("did not answer for 1 s" in line for line in said))


def test_who_needs_another_waits_for_it(home, watched, tmp_path):
    open_now = tmp_path / "open"
    first = service(home, "first", SLEEPING, healthy=open_now.exists)
    supervisor, _ = watched(first, service(home, "second", SLEEPING, after=("first",)))
    wait_for(lambda: supervisor.status()[0].state == "starting")
    assert supervisor.status()[1].pid is None
    open_now.touch()
    wait_for(supervisor.all_healthy)


def test_stopping_leaves_no_grandchild_not_even_one_in_a_session_of_its_own(home, watched, tmp_path):
    path = tmp_path / "pid"
    code = (
        "import subprocess, sys, time, pathlib\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEPING!r}], start_new_session=True)\n"
        f"pathlib.Path({str(path)!r}).write_text(str(child.pid))\ntime.sleep(600)"
    )
    supervisor, _ = watched(service(home, "one", code))
    child = pid_in(path)
    supervisor.stop()
    assert not psutil.pid_exists(child)
    assert supervisor.status()[0].state == "stopped"


def test_what_a_killed_supervisor_left_is_ended_and_nothing_else(home, tmp_path):
    other = service(home, "other", SLEEPING)
    stranger = {**other.environment, HOME_MARK: str(tmp_path / "another")}
    mine = subprocess.Popen(list(other.command), env=dict(other.environment))
    theirs = subprocess.Popen(list(other.command), env=stranger)
    try:
        assert end_left_over(home) == 1
        assert not psutil.pid_exists(mine.pid)
        assert theirs.poll() is None
    finally:
        theirs.kill()
        theirs.wait()
        mine.wait()
