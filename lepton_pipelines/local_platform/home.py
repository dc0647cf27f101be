"""The platform's folder: its ports, who runs it now, what its processes do, their logs.

One platform a folder. Whoever runs it holds a lock on `platform.lock`, which the kernel takes back when that process
ends, however it ends; so a stale lock cannot be met.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lepton_pipelines.identity.private_files import make_private_folder, write_private
from lepton_pipelines.spec.errors import UserError

HOST = "127.0.0.1"
HOME_MARK = "LEPTON_PLATFORM_HOME"
"""Environment variable of everything that a platform starts: what is left of it can be found by that."""
PROCESS_MARK = "LEPTON_PLATFORM_PROCESS"


@dataclass(frozen=True)
class ProcessStatus:
    """What is known of one process. state: waiting, starting, healthy, unwell, restarting, stopped.

    pid: None while it does not run. address: where people or programs reach it. restarts: how often it was started
    again. rss: bytes of memory of it and its children. note: what happened last.
    """

    name: str
    state: str
    pid: int | None
    address: str
    restarts: int
    rss: int
    note: str


@dataclass(frozen=True)
class PlatformStatus:
    """What `lepton status` shows. pid: of the process that watches the others. ready: when all were healthy, Unix time.

    deployed: whether the demo's pipeline is registered.
    """

    pid: int
    began: float
    ready: float | None
    deployed: bool
    processes: list[ProcessStatus]


@dataclass(frozen=True)
class PlatformHome:
    """The folder of one platform."""

    folder: Path

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.folder / "logs"

    @property
    def hub(self) -> Path:
        """The hub's own folder."""
        return self.folder / "hub"

    @property
    def pipeline(self) -> Path:
        """The demo's shared files: pipeline and contract."""
        return self.folder / "pipeline"

    def organisation(self, name: str) -> Path:
        """One organisation's folder: its own file, its rows, its keys in `keys`, its runs in `var`."""
        return self.folder / "organisations" / name

    def keys(self, name: str) -> Path:
        """One organisation's keys."""
        return self.organisation(name) / "keys"

    def create(self) -> None:
        """Make the folder, its owner's alone. Raises UserError if it cannot be written."""
        try:
            for each in (self.folder, self.logs):
                each.mkdir(parents=True, exist_ok=True, mode=0o700)
                each.chmod(0o700)
            probe = self.folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written ({error.strerror or error}). Give write permission or space there, "
                "or name another folder with --home."
            ) from error
        make_private_folder(self.folder)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the one that runs this platform, for the length of a block. Raises UserError if another process does."""
        with (self.folder / "platform.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"The platform in {self.folder} runs already (process {self.runner() or 'unknown'}). "
                    "Look at it with lepton status, stop it with lepton down, or start another with --home."
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def runner(self) -> int | None:
        """Return the process that runs this platform now; None if none does."""
        path = self.folder / "platform.lock"
        if not path.is_file():
            return None
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                told = file.read().strip()
                return int(told) if told.isdecimal() else None
        return None

    def ports(self, wanted: Mapping[str, int | None]) -> dict[str, int]:
        """Return a port for each server: as asked for, as it was last time, or a free one; and remember them.

        Raises UserError with all ports that are taken, and by whom where that can be seen.
        """
        path = self.folder / "ports.json"
        before: dict[str, int] = json.loads(path.read_text()) if path.is_file() else {}
        ports = {name: port or _last_port(name, before) or _free_port() for name, port in wanted.items()}
        problems = [
            f"Port {port} on {HOST}, {'asked for' if wanted[name] else 'used last time'} for {name}, is taken"
            f"{_holder(port)}. End that process, or choose another port: "
            f"lepton up --{name.removeprefix('hub-') if name == 'hub-metrics' else name}-port N"
            for name, port in ports.items()
            if _is_taken(port)
        ]
        if before.get("hub") and ports["hub"] != before["hub"]:
            problems.append(
                f"The hub's port is {before['hub']}: it stands in the organisations' admissions and cannot be changed. "
                "Leave --hub-port out, or start another platform with --home."
            )
        if len(set(ports.values())) < len(ports):
            problems.append(f"Two servers cannot share a port: {ports}.")
        if problems:
            raise UserError(problems)
        write_private(path, json.dumps(ports).encode(), replace=True)
        return ports

    def write_status(self, status: PlatformStatus) -> None:
        """Say how things are, for `lepton status`."""
        path, beside = self.folder / "status.json", self.folder / ".status.json.new"
        beside.write_text(json.dumps(asdict(status), indent=1))
        beside.replace(path)

    def status(self) -> PlatformStatus | None:
        """Return what was said last; None if nothing was."""
        path = self.folder / "status.json"
        if not path.is_file():
            return None
        told = json.loads(path.read_text())
        return PlatformStatus(**{**told, "processes": [ProcessStatus(**one) for one in told["processes"]]})


def _last_port(name: str, before: Mapping[str, int]) -> int | None:
    """Return a server's port of the last time; None for one that nobody dials by heart and that somebody has taken."""
    port = before.get(name)
    known_by_heart = name in ("prefect", "mlflow", "hub", "portal")
    return None if port is None or (not known_by_heart and _is_taken(port)) else port


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do it: a port whose last connections are still ending is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _holder(port: int) -> str:
    """Name the process that listens on a port, where this user may see it."""
    import psutil

    try:
        for one in psutil.net_connections("tcp"):
            if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN and one.pid:
                return f" by {psutil.Process(one.pid).name()} (process {one.pid})"
    except psutil.Error:
        return ""
    return ""
