"""The command line in a process of its own, a worker, and what a Prefect server says."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEPTON = Path(sys.executable).with_name("lepton")


@pytest.fixture(scope="module")
def module_worker(environment, prefect_server, tmp_path_factory):
    """A worker of the pool `lepton`, as an operator starts it."""
    with (tmp_path_factory.mktemp("worker") / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("prefect"), "worker", "start", "--pool", "lepton"],
            env={**environment, "PREFECT_API_URL": prefect_server},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        yield process
        end_worker(process)


def end_worker(process: "subprocess.Popen[str]") -> None:
    """End a worker of Prefect's, which on a loaded machine may not take notice of being told to."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session", name="end_worker")
def _end_worker():
    """End a worker that a test has started."""
    return end_worker


@dataclass
class PrefectApi:
    """A Prefect server, asked by its own client."""

    address: str

    @property
    def site(self) -> str:
        return self.address.removesuffix("/api")

    def ask(self, question):
        """Put an asynchronous question to the client."""
        from prefect.client.orchestration import PrefectClient

        async def asking():
            async with PrefectClient(self.address) as client:
                return await question(client)

        # In a thread of its own: a browser's driver has a loop in this one.
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(lambda: asyncio.run(asking())).result()

    def deployment(self, name):
        return self.ask(lambda client: client.read_deployment_by_name(name))

    def runs(self, flow):
        """Return all runs of a flow."""
        from prefect.client.schemas.filters import FlowFilter, FlowFilterName

        wanted = FlowFilter(name=FlowFilterName(any_=[flow]))
        return self.ask(lambda client: client.read_flow_runs(flow_filter=wanted))

    def wait_for_run(self, flow, accept, seconds=300):
        """Return the first run of a flow that is accepted. accept: of Prefect's flow run."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            runs = self.runs(flow)
            for run in runs:
                if accept(run):
                    return run
            time.sleep(0.3)
        raise AssertionError(f"no such run of {flow}: {[(run.name, run.state) for run in runs]}")


@pytest.fixture(scope="module")
def prefect_api(prefect_server) -> PrefectApi:
    """The tests' Prefect server."""
    return PrefectApi(prefect_server)


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def environment(tmp_path_factory, prefect_database) -> dict[str, str]:
    """What a user's shell exports, with Prefect's home in a folder of the tests' own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    home = tmp_path_factory.mktemp("prefect")
    shutil.copy(prefect_database, home)
    settings = {"PREFECT_HOME": str(home)}
    return {**kept, **settings, "NO_COLOR": "1", "COLUMNS": "120"}


@pytest.fixture
def lepton(environment) -> Callable[..., Ended]:
    """Run the real command line in a process of its own."""
    return command(environment)


@pytest.fixture(scope="module")
def module_lepton(environment) -> Callable[..., Ended]:
    """The same for fixtures of a module."""
    return command(environment)


def command(environment: dict[str, str]) -> Callable[..., Ended]:
    def run(*arguments: object, **extra: str) -> Ended:
        ended = subprocess.run(
            [LEPTON, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**environment, **extra},
            cwd=ROOT,
            timeout=600,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


def postgresql_programs() -> Path | None:
    """The folder with the newest PostgreSQL's programs; None if there is none on this machine."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


@dataclass(frozen=True)
class PostgreSQL:
    """A PostgreSQL server on loopback. programs: the folder with its programs. password: of the account `postgres`."""

    programs: Path
    port: int
    password: str = "an administrator's password"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    """A server that asks for passwords, on a free port, in a folder that is thrown away."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL on this machine (Debian: apt-get install postgresql)")
    # Not as root, which it refuses; so not in pytest's folder, which is its owner's alone.
    user = "nobody" if os.getuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="lepton-postgresql-"))
    try:
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(home, account.pw_uid, account.pw_gid)
        secret = home / "password"
        secret.write_text(PostgreSQL.password)
        secret.chmod(0o644)
        data = home / "data"
        made = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--no-sync",
        ]
        subprocess.run(made, user=user, check=True, capture_output=True, cwd=home)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = ["-h", "127.0.0.1", "-p", str(port), "-k", "", "-c", "fsync=off"]
        with (home / "log.txt").open("w") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *settings], user=user, cwd=home, stdout=log, stderr=log
            )
        try:
            until = time.monotonic() + 60
            ask = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            while subprocess.run(ask, check=False).returncode != 0:
                assert server.poll() is None and time.monotonic() < until, (home / "log.txt").read_text()
                time.sleep(0.1)
            yield PostgreSQL(programs, port)
        finally:
            server.send_signal(signal.SIGINT)  # its fast stop; SIGTERM's waits for clients
            server.wait(30)
    finally:
        shutil.rmtree(home)
