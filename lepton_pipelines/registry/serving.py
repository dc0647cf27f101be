"""Serving the champion: MLflow's own model server, started again when the champion changes.

`mlflow models serve` looks an alias up once, when it starts. `follow` keeps one running, asks the registry now
and then who holds the alias, and replaces the server when that is another version. The next one is checked to be
loadable before the old one is stopped: a version that cannot be loaded never takes a working server down.

    python -m lepton_pipelines.registry.serving NAME --port 5001
"""

import argparse
import contextlib
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from lepton_pipelines.registry.champion import load_version
from lepton_pipelines.registry.promotion import CHAMPION, holder
from lepton_pipelines.registry.tracking import Tracking, open_tracking
from lepton_pipelines.spec.errors import UserError

log = logging.getLogger(__name__)

READY_WITHIN = 180.0
STOP_WITHIN = 20.0


def serve_command(
    model: str, selector: str = f"@{CHAMPION}", *, host: str = "127.0.0.1", port: int = 5001
) -> list[str]:
    """Give the stock command that serves a version. selector: @alias or /number.

    MLflow's environment variables say where the registry is: `Tracking.environment()`.
    """
    mlflow = Path(sys.executable).with_name("mlflow")
    program = str(mlflow) if mlflow.exists() else "mlflow"
    address = f"models:/{model}{selector}"
    return [program, "models", "serve", "-m", address, "--env-manager", "local", "-h", host, "-p", str(port)]


def server_environment(tracking: Tracking) -> dict[str, str]:
    """Give the whole environment of a server process.

    MLflow's command starts `uvicorn` by its bare name: this interpreter's folder must be on the path, which it is
    not where a virtual environment was not activated.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, **tracking.environment(), "PATH": path}


def serve_line(tracking: Tracking, model: str, selector: str = f"@{CHAMPION}") -> str:
    """Give the line that a user can copy into a shell to serve a version, from the folder where he stands.

    selector: @alias or /number.
    """
    # MLflow starts uvicorn by its bare name, so the folder of both must be on the path.
    programs = Path(sys.executable).parent
    near = programs.relative_to(Path.cwd()) if programs.is_relative_to(Path.cwd()) else programs
    path = f'PATH="$PWD/{near}:$PATH"' if not near.is_absolute() else f'PATH="{near}:$PATH"'
    return (
        f"{path} MLFLOW_TRACKING_URI={shlex.quote(tracking.shown)} "
        f"mlflow models serve -m models:/{model}{selector} --env-manager local"
    )


class ModelServer:
    """A running `mlflow models serve` of one version. Ends with everything that it started."""

    def __init__(self, tracking: Tracking, model: str, version: str, *, host: str, port: int) -> None:
        self.version = version
        self.url = f"http://{host}:{port}"
        self._host, self._port = host, port
        check_port(host, port)
        self._process = subprocess.Popen(
            serve_command(model, f"/{version}", host=host, port=port),
            env=server_environment(tracking),
            start_new_session=True,
        )

    def wait_until_ready(self, within: float = READY_WITHIN) -> None:
        """Wait until it answers /health. Raises UserError if it ends or does not come up in time."""
        deadline = time.monotonic() + within
        while not self.healthy():
            if self._process.poll() is not None:
                raise UserError(f"The model server ended with code {self._process.returncode}; its messages say why.")
            if time.monotonic() > deadline:
                self.stop()
                raise UserError(f"The model server at {self.url} did not answer /health within {within:.0f} s.")
            time.sleep(0.2)

    def healthy(self) -> bool:
        """Say whether it runs and answers."""
        if self._process.poll() is not None:
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:  # noqa: S310 - our own address
                return bool(answer.status == 200)
        except OSError:
            return False

    def ended(self) -> bool:
        """Say whether the process is gone."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End the server and its worker processes; requests under way are answered first."""
        _signal_group(self._process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_WITHIN
        # MLflow's process is gone before the one that it started and that holds the port.
        while not (self.ended() and _can_listen(self._host, self._port)):
            if time.monotonic() > deadline:
                _signal_group(self._process.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        self._process.wait()


def check_port(host: str, port: int) -> None:
    """Raise UserError if something else listens on a port."""
    try:
        _listen(host, port)
    except OSError as problem:
        raise UserError(
            f"Port {port} of {host} cannot be used: {problem.strerror}. Choose another one with --port."
        ) from problem


def _listen(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _can_listen(host: str, port: int) -> bool:
    try:
        _listen(host, port)
    except OSError:
        return False
    return True


def _signal_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to a process and everything that it started, as far as any of it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def follow(
    tracking: Tracking,
    model: str,
    *,
    alias: str = CHAMPION,
    host: str = "127.0.0.1",
    port: int = 5001,
    every: float = 10.0,
    stop: threading.Event | None = None,
) -> None:
    """Serve whoever holds an alias until `stop` is set, and a new holder within `every` seconds and a restart.

    A server that ends by itself is started again. While the registry cannot be asked, the running one goes on.
    Raises UserError if there is no such model, version or port to begin with.
    """
    stop = stop or threading.Event()
    found = holder(tracking, model, alias)
    if found is None:
        raise UserError(f"{model} has no {alias} to serve. Make one with: lepton promote {model} --version N")
    load_version(tracking, model, found.number)
    server = ModelServer(tracking, model, found.number, host=host, port=port)
    try:
        server.wait_until_ready()
        log.info("serving %s v%s at %s", model, server.version, server.url)
        while not stop.wait(every):
            wanted = _wanted(tracking, model, alias, server.version)
            if wanted == server.version and not server.ended():
                continue
            log.info("replacing %s v%s by v%s", model, server.version, wanted)
            server.stop()
            try:
                server = ModelServer(tracking, model, wanted, host=host, port=port)
                server.wait_until_ready()
            except UserError as problem:
                # It has ended, so that the next turn starts it again.
                log.warning("%s v%s is not served, next try in %s s: %s", model, wanted, every, problem)
                continue
            log.info("serving %s v%s at %s", model, server.version, server.url)
    finally:
        server.stop()


def _wanted(tracking: Tracking, model: str, alias: str, served: str) -> str:
    """Ask who holds the alias; stay with the version that is served if nobody can tell or the new one is broken."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        found = holder(tracking, model, alias)
        if found is None or found.number == served:
            return served
        load_version(tracking, model, found.number)
    except (UserError, MlflowException, SQLAlchemyError, OSError) as problem:
        log.warning("staying with %s v%s: %s", model, served, problem)
        return served
    return found.number


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve from the command line until interrupted. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="serving", description="Serve a registered model and follow its alias.")
    parser.add_argument("model", help="name of the registered model")
    parser.add_argument("--alias", default=CHAMPION, help="alias to follow (champion)")
    parser.add_argument("--tracking", help="MLflow's address; else MLFLOW_TRACKING_URI; else var/mlflow")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=5001, help="port to listen on (5001)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks at the alias (10)")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        tracking = open_tracking(chosen.tracking, folder=Path("var"))
        follow(
            tracking,
            chosen.model,
            alias=chosen.alias,
            host=chosen.host,
            port=chosen.port,
            every=chosen.every,
            stop=stop,
        )
    except UserError as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
