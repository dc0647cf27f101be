"""The Dask cluster of one organisation, from the `compute` field of its file.

Workers on this machine, started for the run; a cluster that runs already, reached by its scheduler's address; or
any cluster class by its import path (Kubernetes, job queues, gateway). What is started here is stopped here, also
when the run fails.
"""

import importlib
import inspect
import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dask.system import CPU_COUNT
from distributed import Client, LocalCluster, Security

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean
from lepton_pipelines.spec.organisation import ClusterCompute, LocalCompute, SchedulerCompute, Tls

CONNECT_SECONDS = 10.0
START_SECONDS = 300.0  # a pod or a queued job may take minutes
LOOPBACK = "127.0.0.1:0"

# Dask imports parts of itself while a scheduler starts: two at once in one process find each other's halves.
_starting = threading.Lock()


@contextmanager
def open_cluster(
    compute: LocalCompute | SchedulerCompute | ClusterCompute,
    *,
    organisation: str,
    share: int = 1,
    connect_seconds: float = CONNECT_SECONDS,
    start_seconds: float = START_SECONDS,
) -> Iterator[Client]:
    """Connect to the organisation's Dask cluster, starting it if it is the run's own, and clean up afterwards.

    The client is not made the process's default: several organisations may live in one process. Wrap work that
    looks for a default client in `client.as_current()`.

    organisation: named in errors.
    share: how many organisations share this machine's cores, where `compute` leaves the threads open.
    connect_seconds, start_seconds: patience with a scheduler, and with the first workers of a started cluster.
    Raises UserError if the cluster cannot be reached or started.
    """
    with ExitStack() as stack:
        if isinstance(compute, LocalCompute):
            client = _local(compute, share, stack)
        elif isinstance(compute, SchedulerCompute):
            client = _remote(compute, organisation, connect_seconds, stack)
        else:
            client = _started(compute, organisation, start_seconds, stack)
        yield client


def _local(compute: LocalCompute, share: int, stack: ExitStack) -> Client:
    threads = compute.threads or max(1, CPU_COUNT // (compute.workers * share))
    processes = compute.workers > 1 if compute.processes is None else compute.processes
    # Dask would put what it spills beside everyone's: this folder is the user's alone and goes with the run.
    spill = stack.enter_context(TemporaryDirectory(prefix="lepton-dask-", ignore_cleanup_errors=True))
    with _starting:
        cluster = stack.enter_context(
            LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=compute.workers,
                threads_per_worker=threads,
                processes=processes,
                memory_limit=compute.memory or "auto",
                # A port that speaks pickle is a door to this account for everybody on the machine: certificates of
                # its own, made for this cluster only. Pages are served on loopback, on whatever port is free.
                security=True if processes else None,
                dashboard_address=LOOPBACK,
                worker_dashboard_address=LOOPBACK,
                local_directory=str(Path(spill)),
                silence_logs=logging.ERROR,
                # A worker that is silent for a minute is lost; Dask's own default waits five.
                scheduler_kwargs={"worker_ttl": "60s"},
            )
        )
    return stack.enter_context(_client(cluster, direct_to_workers=True))


def _remote(compute: SchedulerCompute, organisation: str, seconds: float, stack: ExitStack) -> Client:
    try:
        client = stack.enter_context(_client(compute.scheduler, security=_security(compute.tls), timeout=seconds))
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise UserError(
            f"{organisation}: compute.scheduler {compute.scheduler} has no workers. Start some with "
            f"`dask worker {compute.scheduler}`."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{organisation}: compute.scheduler {compute.scheduler} cannot be reached ({_reason(error)}). Check that "
            "it runs, its address, and compute.tls."
        ) from error
    return client


def _started(compute: ClusterCompute, organisation: str, seconds: float, stack: ExitStack) -> Client:
    kind = _cluster_class(compute, organisation)
    try:
        cluster = stack.enter_context(kind(**compute.arguments))
        # A class that starts workers by itself is left alone where it started enough of them.
        cluster.scale(compute.workers)
    except Exception as error:  # a cluster class may raise anything; none of it is worth a traceback
        raise UserError(
            f"{organisation}: compute.cluster {compute.cluster} did not start: {_reason(error)}. "
            "Check compute.arguments."
        ) from error
    client = stack.enter_context(_client(cluster))
    try:
        client.wait_for_workers(compute.workers, timeout=seconds)
    except TimeoutError:
        there = len(client.nthreads())  # type: ignore[no-untyped-call]
        raise UserError(
            f"{organisation}: of {compute.workers} workers of {compute.cluster}, {there} started within {seconds:g} s. "
            "Look at the cluster's own logs, or ask for fewer with compute.workers."
        ) from None
    return client


def _cluster_class(compute: ClusterCompute, organisation: str) -> Any:
    module_name, _, name = compute.cluster.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        package = module_name.partition(".")[0].replace("_", "-")
        raise UserError(
            f"{organisation}: compute.cluster {compute.cluster} cannot be imported ({error}). Install the package "
            f"that it comes from (pip install {package}), or correct the path."
        ) from error
    kind = getattr(module, name, None)
    if kind is None:
        classes = [n for n, member in inspect.getmembers(module, inspect.isclass) if hasattr(member, "scale")]
        raise UserError(f"{organisation}: compute.cluster: {module_name} has no {name}.{did_you_mean(name, classes)}")
    if not (inspect.isclass(kind) and hasattr(kind, "scale") and hasattr(kind, "close")):
        raise UserError(f"{organisation}: compute.cluster {compute.cluster} is not a Dask cluster class.")
    try:
        inspect.signature(kind).bind(**compute.arguments)
    except TypeError as error:
        raise UserError(f"{organisation}: compute.arguments do not fit {compute.cluster}: {error}.") from error
    return kind


@contextmanager
def _client(place: Any, **options: Any) -> Iterator[Client]:
    with Client(place, set_as_default=False, **options) as client:  # type: ignore[no-untyped-call]
        yield client


def _security(tls: Tls | None) -> Security | None:
    if tls is None:
        return None
    return Security(  # type: ignore[no-untyped-call]
        require_encryption=True, tls_ca_file=tls.ca, tls_client_cert=tls.certificate, tls_client_key=tls.key
    )


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().rstrip(".").splitlines()[0]
