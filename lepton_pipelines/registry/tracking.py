"""Where MLflow keeps runs and models, checked before anything is trained.

Without configuration that is an SQLite file and a folder below `var/mlflow`; otherwise the server or database
that an organisation names. The address is always said, because MLflow's own default is a file in whatever
folder a process happens to stand. Sign-in and TLS are MLflow's: MLFLOW_TRACKING_USERNAME with
MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; MLFLOW_TRACKING_SERVER_CERT_PATH for a private authority and
MLFLOW_TRACKING_CLIENT_CERT_PATH for a client's certificate.
"""

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

REACHABLE_WITHIN = 5.0
"""Seconds after which a server that has not answered counts as unreachable."""

DATABASE = "mlflow.db"

_mlflow_globals = threading.RLock()


@dataclass(frozen=True)
class Tracking:
    """A checked MLflow store: runs and registered models live at one address.

    uri: as MLflow takes it, http(s):// or a database's. artifacts: where new experiments put their files, None
    where the server decides.
    """

    uri: str
    artifacts: str | None = None

    @property
    def shown(self) -> str:
        """The address without a password, for messages and reports."""
        return without_password(self.uri)

    def client(self) -> "MlflowClient":
        """Return a client of this store, and of no other one that the environment may name."""
        quiet_mlflow()
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextmanager
    def as_current(self) -> Iterator[None]:
        """Make this the store that MLflow's module-level functions use, for the length of a block.

        MLflow keeps that address in a global of the process: blocks of several threads take turns.
        """
        quiet_mlflow()
        with _mlflow_globals:
            mlflow = _import_mlflow()
            # Setting the address also sets the environment; asked for an address nobody set, MLflow invents one.
            before = {name: os.environ.get(name) or None for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
            mlflow.set_tracking_uri(self.uri)
            mlflow.set_registry_uri(self.uri)
            try:
                yield
            finally:
                mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"])
                mlflow.set_registry_uri(before["MLFLOW_REGISTRY_URI"])
                # MLflow leaves the registry's variable as it was where it is told of none: children would inherit ours.
                if before["MLFLOW_REGISTRY_URI"] is None:
                    os.environ.pop("MLFLOW_REGISTRY_URI", None)

    def environment(self) -> dict[str, str]:
        """Return the environment variables that point a process (`mlflow models serve`) at this store."""
        return {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_REGISTRY_URI": self.uri, **QUIET}


QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4"}
"""Half a minute of retries with growing pauses, where MLflow's seven take several minutes."""


def quiet_mlflow() -> None:
    """Keep MLflow from reporting home, printing addresses, drawing progress bars and waiting for minutes.

    What a user set in the environment stays.
    """
    for name, value in {**QUIET, **PATIENCE}.items():
        os.environ.setdefault(name, value)


def _import_mlflow() -> Any:
    """Import MLflow with its models, without the warning about its own type hints that the import gives."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType", category=UserWarning)
        import mlflow
        import mlflow.pyfunc
    return mlflow


@contextmanager
def quiet_logging() -> Iterator[None]:
    """Keep MLflow from narrating each step, for the length of a block; its warnings still come through."""
    log = logging.getLogger("mlflow")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def without_password(uri: str) -> str:
    """Return an address whose password, if it has one, is replaced by dots."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:…@{host}"))


def open_tracking(uri: str | None = None, *, folder: Path, within: float = REACHABLE_WITHIN) -> Tracking:
    """Check that a store answers, and can be written where it is local, before anything is trained.

    uri: address from the organisation's file; None takes MLFLOW_TRACKING_URI, and without that the embedded
        default, an SQLite file and an artifact folder in `folder`/mlflow.
    folder: the working folder's `var`.
    Raises UserError, within a few seconds, that names the address, the cause and what to do.
    """
    quiet_mlflow()
    address = uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not address:
        return _open_embedded(folder / "mlflow")
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        return _open_server(address.rstrip("/"), within)
    if scheme.partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
        return _open_database(address)
    raise UserError(
        f"MLflow address {address!r} is not understood. Give the address of a server (https://mlflow.example.org), "
        f"of a database (postgresql://… or sqlite:////folder/mlflow.db), or none for the embedded default."
    )


def open_existing(uri: str | None = None, *, folder: Path) -> Tracking:
    """Check that a store from which models are read answers; arguments as in `open_tracking`.

    Raises UserError as that does, and where the embedded default holds nothing yet: reading makes no store.
    """
    store = folder / "mlflow"
    if not (uri or os.environ.get("MLFLOW_TRACKING_URI")) and not (store / DATABASE).is_file():
        raise UserError(
            f"There is no registered model in {store}: nothing was trained there yet. Train one with lepton run, name "
            f"the folder of another run with --var, or set MLFLOW_TRACKING_URI to the MLflow server that has it."
        )
    return open_tracking(uri, folder=folder)


def _open_embedded(folder: Path) -> Tracking:
    artifacts = folder / "artifacts"
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise UserError(
            f"MLflow cannot keep its runs in {folder}: {problem.strerror}. Give write permission there, or name a "
            f"server under tracking.mlflow in the organisation's file."
        ) from problem
    return _open_database(f"sqlite:///{folder.resolve()}/{DATABASE}", artifacts.resolve().as_uri())


def _open_database(address: str, artifacts: str | None = None) -> Tracking:
    """Open a database, which creates or upgrades MLflow's tables."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    tracking = Tracking(address, artifacts)
    try:
        with quiet_logging():
            tracking.client().search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ModuleNotFoundError) as problem:
        raise UserError(
            f"MLflow's database {tracking.shown} cannot be opened: {_first_line(problem)}. Check the address, that "
            f"the database runs, and its user's rights."
        ) from problem
    return tracking


def _open_server(address: str, within: float) -> Tracking:
    """Ask a server for its health and then, signed in, for one experiment."""
    import requests

    tracking = Tracking(address)
    try:
        health = requests.get(f"{address}/health", timeout=within, verify=_authority())
    except requests.exceptions.SSLError as problem:
        raise UserError(
            f"MLflow at {tracking.shown}: its certificate is not trusted. Name your authority's certificate file in "
            f"MLFLOW_TRACKING_SERVER_CERT_PATH."
        ) from problem
    except requests.exceptions.RequestException as problem:
        raise UserError(
            f"MLflow at {tracking.shown} is not reachable ({_reason(problem)}). Start it, correct tracking.mlflow "
            f"in the organisation's file, or leave that out to keep runs in var/mlflow."
        ) from problem
    if health.status_code not in (200, 401, 403):
        raise UserError(
            f"{tracking.shown} answers, but not as an MLflow server does (status {health.status_code} at /health). "
            f"Check the address."
        )
    _sign_in(tracking, within)
    return tracking


def _sign_in(tracking: Tracking, within: float) -> None:
    from mlflow.exceptions import MlflowException

    impatient = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(within)))}
    with _environment(impatient):
        try:
            tracking.client().search_experiments(max_results=1)
        except MlflowException as problem:
            if any(status in str(problem) for status in ("401", "403")) or problem.error_code in (
                "UNAUTHENTICATED",
                "PERMISSION_DENIED",
            ):
                raise UserError(
                    f"MLflow at {tracking.shown} refuses the sign-in. Set MLFLOW_TRACKING_USERNAME and "
                    f"MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to an account that may write runs."
                ) from problem
            raise UserError(f"MLflow at {tracking.shown} does not answer as it should: {_first_line(problem)}.") from (
                problem
            )


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the length of a block; MLflow reads its time limits there only."""
    with _mlflow_globals:
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _authority() -> bool | str:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _reason(problem: Exception) -> str:
    text = str(problem)
    for sign, reason in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "unknown host name"),
        ("Failed to resolve", "unknown host name"),
        ("timed out", "no answer in time"),
    ):
        if sign in text:
            return reason
    return type(problem).__name__


def _first_line(problem: Any) -> str:
    return str(problem).strip().splitlines()[0].rstrip(".") if str(problem).strip() else type(problem).__name__
