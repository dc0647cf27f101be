"""`lepton up`, `lepton down`, `lepton status`: a whole platform on this machine, watched until it is stopped."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from lepton_pipelines.local_platform.home import PlatformHome, PlatformStatus
    from lepton_pipelines.local_platform.supervisor import Supervisor

HOME = Path("var/platform")
LOOK_SECONDS = 1.0
READY_SECONDS = 600.0
DOWN_SECONDS = 90.0
LOG = "up.log"
DEPLOY_LOG = "deploy.log"
DEPLOYED = "deployed.sha256"
STATE_STYLES = {"healthy": "green", "unwell": "yellow", "restarting": "red", "starting": "cyan", "waiting": "dim"}


def up(folder: Path, *, ports: dict[str, int | None], detach: bool, metrics: int | None = None) -> None:
    """Start the platform and watch it until Ctrl-C or `lepton down`. ports: asked for, by server; None: any.

    metrics: port at which the hub answers Prometheus; the organisations answer at the next one. None: none do.
    """
    if detach:
        _start_in_background(folder, ports, metrics)
        return
    from lepton_pipelines.cli.demo import hospitals
    from lepton_pipelines.local_platform.demo import ORGANISATIONS, set_up
    from lepton_pipelines.local_platform.home import PlatformHome
    from lepton_pipelines.local_platform.services import (
        HUB,
        HUB_METRICS,
        METRICS,
        describe_services,
        worker_name,
    )
    from lepton_pipelines.local_platform.supervisor import Supervisor, end_left_over

    example = hospitals()
    home = PlatformHome(folder)
    home.create()
    with home.running(), _asked_to_stop() as asked:
        if left := end_left_over(home):
            typer.echo(f"  {left} processes were left over from a platform that was killed; they are ended")
        wanted = {**ports, **{worker_name(name): None for name in ORGANISATIONS}}
        if metrics is not None:
            wanted |= {HUB_METRICS: metrics, METRICS: metrics + 1}
        taken = home.ports(wanted)
        spec = set_up(home, example, hub_port=taken[HUB])
        services = describe_services(home, taken, ORGANISATIONS)
        screen = _Screen()
        supervisor = Supervisor(home, services, screen.tell)
        deployment = _Deployment(home, spec, services[0].environment)
        try:
            supervisor.start()
            with screen:
                _watch(home, supervisor, deployment, screen, asked)
        finally:
            typer.echo("  stopping …")
            deployment.stop()
            supervisor.stop()
            home.write_status(_status(supervisor, deployment, began=time.time(), ready=None))
            typer.echo("  everything is stopped")


def down(folder: Path) -> None:
    """Stop the platform of a folder, and whatever a killed one has left running."""
    from lepton_pipelines.local_platform.home import PlatformHome
    from lepton_pipelines.local_platform.supervisor import end_left_over

    home = PlatformHome(folder)
    if not folder.is_dir():
        raise UserError(f"There is no platform in {folder}. Start one with: lepton up")
    runner = home.runner()
    if runner is None:
        left = end_left_over(home)
        typer.echo(f"  {left} processes were left over; they are ended" if left else "  no platform runs here")
        return
    os.kill(runner, signal.SIGTERM)
    until = time.monotonic() + DOWN_SECONDS
    while home.runner() is not None and time.monotonic() < until:
        time.sleep(0.1)
    if home.runner() is not None:
        raise UserError(
            f"Process {runner} did not stop the platform within {DOWN_SECONDS:.0f} s. Its log: {home.logs}. "
            f"End it with kill -9 {runner}, then run lepton down again, which ends what it leaves."
        )
    typer.echo("  stopped")


def status(folder: Path, *, as_json: bool = False) -> None:
    """Show the platform's processes and addresses. Exits with 1 unless it runs and all of it is healthy."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from lepton_pipelines.local_platform.home import PlatformHome

    home = PlatformHome(folder)
    told = home.status()
    if home.runner() is None or told is None:
        typer.echo(json.dumps({"running": False}) if as_json else _not_running(folder))
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps({"running": True, **asdict(told)}))
    else:
        Console(highlight=False).print(_table(told))
        say_addresses(told, home)
    if told.ready is None or any(one.state != "healthy" for one in told.processes):
        raise typer.Exit(1)


def _not_running(folder: Path) -> str:
    return f"  no platform runs in {folder}. Start it with: lepton up"


def say_addresses(told: "PlatformStatus", home: "PlatformHome") -> None:
    """Print where everything is reached."""
    at = {one.name: one.address for one in told.processes}
    if "metrics" in at:
        typer.echo(f"  metrics   {at['metrics']}, and of the hub at the port before")
    for name, where in (
        ("Prefect", f"{at['prefect']}/dashboard"),
        ("MLflow", f"{at['mlflow']}   (choose “Model training” at the top)"),
        ("hub", at["hub"]),
        ("portal", f"{at['portal']}   (lepton portal sign-in {at['portal']} --home {home.keys('north')})"),
        ("pipeline", f"{home.pipeline / 'pipeline.yaml'}   (deployed as retrain-on-pools/breast-cancer)"),
        ("logs", str(home.logs)),
    ):
        typer.echo(f"  {name:<10}{where}")
    typer.echo(f"  run now   PREFECT_API_URL={at['prefect']}/api prefect deployment run retrain-on-pools/breast-cancer")
    typer.echo("  stop      Ctrl-C, or: lepton down" + ("" if home.folder == HOME else f" --home {home.folder}"))


class _Deployment:
    """Registers the demo's pipeline once Prefect is up; a pipeline that was not changed since is left as it is."""

    def __init__(self, home: "PlatformHome", spec: Path, environment: Mapping[str, str]) -> None:
        self._home, self._spec, self._environment = home, spec, dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._again_at = 0.0
        self.done = self._digest_file.is_file() and self._digest_file.read_text() == self._digest()

    @property
    def _digest_file(self) -> Path:
        return self._home.folder / DEPLOYED

    def _digest(self) -> str:
        files = [self._spec, *sorted(self._spec.parent.glob("*.odcs.yaml"))]
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()

    def step(self) -> str | None:
        """Go on with registering; returns what went wrong, if something did just now."""
        if self.done or time.monotonic() < self._again_at:
            return None
        if self._process is None:
            command = [sys.executable, "-m", "lepton_pipelines.cli.platform_deployment"]
            command += [str(self._spec), str(self._home.folder)]
            with (self._home.logs / DEPLOY_LOG).open("ab") as log:
                self._process = subprocess.Popen(
                    command, env=self._environment, stdout=log, stderr=log, start_new_session=True
                )
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._process = None
        if code == 0:
            self._digest_file.write_text(self._digest())
            self.done = True
            return None
        self._again_at = time.monotonic() + 10.0
        return f"the pipeline could not be registered (log: {self._home.logs / DEPLOY_LOG}); tried again in 10 s"

    def stop(self) -> None:
        """End it if it is still at work."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)


class _Screen:
    """A live table where there is a terminal, a line for each event where there is none."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console: Console = Console(highlight=False)
        self._live = Live(console=self.console, refresh_per_second=2) if self.console.is_terminal else None

    def __enter__(self) -> "_Screen":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, name: str, what: str) -> None:
        """Say what happened to a process."""
        self.console.print(f"  {time.strftime('%H:%M:%S')}  {name:<16} {what}", soft_wrap=True)

    def show(self, told: "PlatformStatus") -> None:
        """Bring the table up to date."""
        if self._live is not None:
            self._live.update(_table(told))


def _watch(
    home: "PlatformHome",
    supervisor: "Supervisor",
    deployment: _Deployment,
    screen: _Screen,
    asked: threading.Event,
) -> None:
    began, ready = time.time(), None
    while not asked.is_set():
        if supervisor.is_healthy("prefect") and (problem := deployment.step()):
            screen.tell("deployment", problem)
        told = _status(supervisor, deployment, began=began, ready=ready)
        if ready is None and deployment.done and supervisor.all_healthy():
            ready = time.time()
            told = _status(supervisor, deployment, began=began, ready=ready)
            memory = sum(one.rss for one in told.processes) / 1e9
            screen.tell("platform", f"is ready after {ready - began:.0f} s, {memory:.1f} GB")
            say_addresses(told, home)
        home.write_status(told)
        screen.show(told)
        asked.wait(LOOK_SECONDS)


def _status(
    supervisor: "Supervisor", deployment: _Deployment, *, began: float, ready: float | None
) -> "PlatformStatus":
    from lepton_pipelines.local_platform.home import PlatformStatus

    return PlatformStatus(os.getpid(), began, ready, deployment.done, supervisor.status())


def _table(told: "PlatformStatus") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=True)
    for heading in ("process", "state", "pid", "address", "memory", "restarts", ""):
        table.add_column(heading, justify="right" if heading in ("pid", "memory", "restarts") else "left")
    for one in told.processes:
        style = STATE_STYLES.get(one.state, "default")
        pid = "" if one.pid is None else str(one.pid)
        memory = f"{one.rss / 1e6:.0f} MB" if one.rss else ""
        table.add_row(one.name, f"[{style}]{one.state}[/]", pid, one.address, memory, str(one.restarts or ""), one.note)
    total = sum(one.rss for one in told.processes) / 1e9
    state = "ready" if told.ready else "starting"
    table.add_row("[bold]platform[/]", state, str(told.pid), "", f"{total:.2f} GB", "", "")
    return table


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into an event, for the length of a block."""
    asked = threading.Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_in_background(folder: Path, ports: dict[str, int | None], metrics: int | None) -> None:
    """Start the same command without a terminal, wait until the platform is ready, and leave it running."""
    from lepton_pipelines.local_platform.home import PlatformHome
    from lepton_pipelines.local_platform.services import lepton

    home = PlatformHome(folder)
    home.create()
    command = [*lepton(), "up", "--home", str(folder)]
    for name, port in ports.items():
        command += [] if port is None else [f"--{name}-port", str(port)]
    command += [] if metrics is None else ["--metrics-port", str(metrics)]
    log = home.logs / LOG
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise UserError(
                log.read_text(encoding="utf-8").strip() or f"lepton up ended with code {process.returncode}"
            )
        told = home.status()
        if told is not None and told.pid == process.pid and told.ready is not None:
            typer.echo(f"  ready after {told.ready - told.began:.0f} s; it goes on in the background")
            say_addresses(told, home)
            return
        time.sleep(0.2)
    raise UserError(f"The platform was not ready within {READY_SECONDS:.0f} s. See {log} and: lepton status")
