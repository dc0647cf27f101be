"""A platform's folder: ports that are remembered, one that runs it, errors with the next step."""

import os
import socket
import stat
import subprocess
import sys

import pytest

from lepton_pipelines.local_platform.home import PlatformHome, PlatformStatus, ProcessStatus
from lepton_pipelines.spec.errors import UserError

ANY = {"prefect": None, "mlflow": None, "hub": None}


@pytest.fixture
def home(tmp_path) -> PlatformHome:
    created = PlatformHome(tmp_path / "platform")
    created.create()
    return created


@pytest.fixture
def listener():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_the_folder_is_its_owners_alone(home):
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.logs.stat().st_mode) == 0o700


def test_a_second_start_has_the_same_ports(home):
    first = home.ports(ANY)
    assert len(set(first.values())) == 3
    assert home.ports(ANY) == first


def test_a_port_that_is_asked_for_wins_over_the_last_one(home):
    first = home.ports(ANY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
    assert home.ports({**ANY, "mlflow": other}) == {**first, "mlflow": other}


def test_a_port_that_is_taken_is_said_with_who_has_it_and_what_to_do(home, listener):
    with pytest.raises(UserError, match=rf"Port {listener} .*process {os.getpid()}.*lepton up --prefect-port N"):
        home.ports({**ANY, "prefect": listener})


def test_the_hubs_port_stays_because_admissions_name_it(home):
    first = home.ports(ANY)
    with pytest.raises(UserError, match=f"hub's port is {first['hub']}"):
        home.ports({**ANY, "hub": first["hub"] + 1 if first["hub"] < 65535 else first["hub"] - 1})


def test_two_servers_do_not_get_one_port(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match="share a port"):
        home.ports({**ANY, "prefect": port, "mlflow": port})


def test_one_process_runs_a_platform_and_is_named_to_the_second(home):
    with home.running():
        code = (
            "import sys; from pathlib import Path; from lepton_pipelines.local_platform.home import PlatformHome\n"
            "from lepton_pipelines.spec.errors import UserError\n"
            "home = PlatformHome(Path(sys.argv[1])); print(home.runner())\n"
            "try:\n    home.running().__enter__()\nexcept UserError as error:\n    print(error)"
        )
        told = subprocess.run(
            [sys.executable, "-c", code, home.folder], capture_output=True, text=True, check=True
        ).stdout
        assert told.splitlines()[0] == str(os.getpid())
        assert f"runs already (process {os.getpid()})" in told
        assert "lepton down" in told
    assert home.runner() is None


def test_a_lock_of_a_killed_process_is_no_lock(home):
    code = (
        "import os, sys; from pathlib import Path; from lepton_pipelines.local_platform.home import PlatformHome\n"
        "with PlatformHome(Path(sys.argv[1])).running():\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, home.folder], check=False)
    assert home.runner() is None
    with home.running():
        assert home.runner() == os.getpid()


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written .*--home"):
        PlatformHome(tmp_path / "file" / "platform").create()


def test_status_comes_back_as_it_was_written(home):
    one = ProcessStatus("hub", "healthy", 12, "127.0.0.1:7443", 1, 5, "")
    told = PlatformStatus(1, 2.0, None, False, [one])
    home.write_status(told)
    assert home.status() == told
