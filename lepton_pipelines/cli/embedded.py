"""Prefect and MLflow inside one command: quiet, early, and gone when the command ends.

Without a configured server Prefect starts one for the run, of which it first imports the code: seconds in which
nothing else happens. The same server is started here instead, as the first thing a command does, while the rest is
imported beside it.
"""

import atexit
import importlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "lepton_pipelines",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}
# What a server for one run needs not do.
SERVER = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
# A first start migrates its database: 20 s on a slow machine.
START_SECONDS = 180.0
STOP_SECONDS = 10.0
HEAVY = (
    "pandas",
    "pyarrow.parquet",
    "distributed",
    "lepton_pipelines.organisation.run",
    "xgboost",
    "sklearn",
    "mlflow",
    "matplotlib",
)


def quieten() -> None:
    """Keep Prefect and MLflow from reporting home; what the user set stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def server_is_configured() -> bool:
    """Tell whether the user has told Prefect of a server: by environment, profile or a settings file."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    files = [profiles, Path(".env"), Path("prefect.toml"), Path("pyproject.toml")]
    told = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    return any("PREFECT_API_URL" in text or "[api]" in text or "[tool.prefect.api]" in text for text in told)


class EmbeddedServer:
    """Prefect's API for the length of a command, in a process of its own. log: where its output goes."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self) -> None:
        """Start the server, without waiting for it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/api"
        command = [sys.executable, "-m", "lepton_pipelines.cli.embedded_api", str(port)]
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the run, which then still has to say how it ended.
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **SERVER},
                # Closed by whatever ends this process, SIGKILL too, and then the server ends.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Registered before Prefect is imported, so that it runs after Prefect's own clean-up, which talks to it.
        atexit.register(self.stop)

    def wait(self) -> bool:
        """Wait until the server answers; False if it ended instead, and Prefect has to start one by itself."""
        until = time.monotonic() + START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:  # noqa: S310 - our own
                    return bool(answer.status == 200)
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                time.sleep(0.05)
        return False

    def stop(self) -> None:
        """Stop the server; nothing is left running."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            assert process.stdin is not None  # noqa: S101
            process.stdin.close()


def import_ahead() -> threading.Thread:
    """Import what a run needs in the background, in the order in which it is needed."""

    def work() -> None:
        for module in HEAVY:
            try:
                importlib.import_module(module)
            except Exception:  # noqa: BLE001 - whoever needs the module meets the same error and can say it
                return

    thread = threading.Thread(target=work, name="import-ahead", daemon=True)
    thread.start()
    return thread


@contextmanager
def native_errors_to(path: Path) -> Iterator[None]:
    """Send what compiled libraries write to standard error into a file, for the length of a block.

    XGBoost's collective layer tells every rank's arrival there, whatever its verbosity.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


def log_to(path: Path) -> None:
    """Send what libraries log to a file instead of the screen; Prefect's pages get theirs as before."""
    from prefect.logging.configuration import setup_logging

    from lepton_pipelines.monitoring.json_log import VARIABLE, also_log_json

    setup_logging()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    for name in ("prefect", "distributed", "mlflow", "tornado", "lepton_pipelines", "alembic", "asyncio"):
        logger = logging.getLogger(name)
        kept = [one for one in logger.handlers if type(one).__name__ == "APILogHandler"]
        logger.handlers = [*kept, handler]
        logger.propagate = False
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)
    also_log_json(os.environ.get(VARIABLE))
