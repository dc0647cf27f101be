"""What a platform consists of: one description a process, with how to start it and how to tell that it is well."""

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lepton_pipelines.local_platform.home import HOME_MARK, HOST, PROCESS_MARK, PlatformHome

ASK_SECONDS = 5.0
PREFECT, MLFLOW, HUB, PORTAL = "prefect", "mlflow", "hub", "portal"
HUB_METRICS, METRICS = "hub-metrics", "metrics"
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "lepton_pipelines",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Links:
    """Where the pages of the servers are that the portal links to."""

    prefect: str
    mlflow: str


@dataclass(frozen=True)
class Service:
    """One process. healthy: asks it, quickly, whether it does its work. after: services that must be healthy first."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    address: str
    healthy: Callable[[], bool]
    after: Sequence[str] = field(default=())


def worker_name(organisation: str) -> str:
    """Name an organisation's worker among the platform's processes."""
    return f"worker-{organisation}"


def describe_services(home: PlatformHome, ports: Mapping[str, int], organisations: Sequence[str]) -> list[Service]:
    """Return all processes of a platform, in the order in which they start."""
    environment = platform_environment(home, ports)
    python, programs = sys.executable, Path(sys.executable).parent
    prefect, mlflow = f"http://{HOST}:{ports[PREFECT]}", f"http://{HOST}:{ports[MLFLOW]}"
    store = (home.folder / "mlflow").absolute()
    asked = ["--metrics", f"{HOST}:{ports[HUB_METRICS]}"] if HUB_METRICS in ports else []
    services = [
        Service(
            PREFECT,
            [str(programs / "prefect"), "server", "start", "--host", HOST, "--port", str(ports[PREFECT])],
            environment,
            prefect,
            lambda: answers(f"{prefect}/api/health"),
        ),
        Service(
            MLFLOW,
            [
                *(python, "-m", "mlflow", "server", "--host", HOST, "--port", str(ports[MLFLOW]), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{store}/mlflow.db"),
                *("--artifacts-destination", str(store / "artifacts")),
            ],
            environment,
            mlflow,
            lambda: answers(f"{mlflow}/health"),
        ),
        Service(
            HUB,
            [*lepton(), "hub", "serve", "--home", str(home.hub), "--listen", f"{HOST}:{ports[HUB]}", *asked],
            environment,
            f"{HOST}:{ports[HUB]}",
            lambda: accepts(ports[HUB]),
        ),
    ]
    services.append(_portal(home, ports, organisations, environment, Links(prefect, mlflow)))
    services += [_worker(name, environment, ports[worker_name(name)]) for name in organisations]
    if METRICS in ports:
        folders = [text for name in organisations for text in ("--var", str(home.organisation(name) / "var"))]
        address = f"{HOST}:{ports[METRICS]}"
        services.append(
            Service(
                METRICS,
                [*lepton(), "org", "metrics", address, *folders],
                environment,
                f"http://{address}/metrics",
                lambda: answers(f"http://{address}/metrics"),
            )
        )
    return [
        Service(one.name, one.command, {**one.environment, PROCESS_MARK: one.name}, one.address, one.healthy, one.after)
        for one in services
    ]


def platform_environment(home: PlatformHome, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the environment of everything that belongs to a platform: its own servers, whatever the user's are."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    programs = str(Path(sys.executable).parent)
    return {
        **kept,
        **QUIET,
        HOME_MARK: str(home.folder.absolute()),
        # MLflow starts its server by a bare name.
        "PATH": os.pathsep.join([programs, kept.get("PATH", os.defpath)]),
        "PREFECT_HOME": str((home.folder / "prefect").absolute()),
        "PREFECT_API_URL": f"http://{HOST}:{ports[PREFECT]}/api",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports[MLFLOW]}",
    }


def lepton() -> list[str]:
    """Return the command line's own program, as this interpreter runs it."""
    return [sys.executable, "-c", "from lepton_pipelines.cli import main; main()"]


def _portal(
    home: PlatformHome,
    ports: Mapping[str, int],
    organisations: Sequence[str],
    environment: Mapping[str, str],
    pages: Links,
) -> Service:
    """Describe the portal: all organisations of this machine have their stands in one process."""
    address = f"http://{HOST}:{ports[PORTAL]}"
    command = [*lepton(), "portal", "serve", "--host", HOST, "--port", str(ports[PORTAL])]
    command += ["--prefect", pages.prefect, "--mlflow", pages.mlflow]
    for name in organisations:
        command += ["--home", str(home.keys(name)), "--var", str(home.organisation(name) / "var")]
    healthy = f"{address}/api/v1/health"
    return Service(PORTAL, command, environment, address, lambda: answers(healthy), after=(HUB,))


def _worker(organisation: str, environment: Mapping[str, str], port: int) -> Service:
    name = worker_name(organisation)
    command = [str(Path(sys.executable).with_name("prefect")), "worker", "start", "--with-healthcheck"]
    command += ["--pool", organisation, "--name", organisation, "--type", "process", "--install-policy", "never"]
    own = {"PREFECT_WORKER_WEBSERVER_HOST": HOST, "PREFECT_WORKER_WEBSERVER_PORT": str(port)}
    return Service(
        name,
        command,
        {**environment, **own},
        f"pool {organisation}",
        lambda: answers(f"http://{HOST}:{port}/health"),
        after=(PREFECT,),
    )


def answers(address: str) -> bool:
    """Tell whether a server answers 200 at an address."""
    try:
        with urllib.request.urlopen(address, timeout=ASK_SECONDS) as answer:  # noqa: S310 - our own loopback address
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def accepts(port: int) -> bool:
    """Tell whether something on this machine accepts connections at a port."""
    try:
        with socket.create_connection((HOST, port), timeout=ASK_SECONDS):
            return True
    except OSError:
        return False
