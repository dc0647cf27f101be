"""A run that is cancelled ends in time: what has not let go by itself a few seconds later is ended."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from prefect._internal.control_listener import get_intent
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Cancelling, Crashed

STOP_SECONDS = 2.5
"""Between Prefect's signal and the process's end, however long a sum, a cluster or a server keeps it busy.

Prefect's worker looks three seconds after the signal whether the process has ended, and only then every other three.
"""

ENDED = 128 + signal.SIGTERM


@contextmanager
def stopped_in_time(seconds: float = STOP_SECONDS) -> Iterator[None]:
    """Hold a flow's process to ending soon after Prefect has cancelled it, for the length of a block.

    Prefect cancels by SIGTERM, which is raised in the main thread as an exception; everything is then closed in order.
    That may wait for others (a sum, a cosignature, a Dask cluster, a server's answer), and Prefect itself would wait
    for half a minute. What a run needs to go on is on disk at any time, so a late end is worth nothing. Outside of the
    main thread, and where the signal's default ends the process anyway, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGTERM)):
        yield
        return
    # Prefect's own handler must stay: without it a cancellation counts as a crash. The interpreter writes the numbers
    # of signals that come into this pipe, whatever the main thread is doing.
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=(heard, seconds), name="stopped-in-time", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)


def _end_late(heard: int, seconds: float) -> None:
    """Wait for the signal to end; then end the process if it is still there. heard: a pipe with signals' numbers."""
    with os.fdopen(heard, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] == signal.SIGTERM:
                time.sleep(seconds)
                end_now()


def end_children(flow: Any, flow_run: FlowRun, state: State) -> None:
    """End the flow and task runs below one that was cancelled or has crashed.

    A hook of flows: the worker has it called when the process that could have done so is gone. What ran in that process
    is said to have ended; a deployed run of its own, such as an organisation's part, is cancelled at its own worker.
    """
    ended = Crashed if state.is_crashed() else Cancelled
    message = f"{flow_run.name} {'crashed' if state.is_crashed() else 'was cancelled'}"
    with get_client(sync_client=True) as client:
        below = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run.id]))
        )
        for child in below:
            if child.state is None or child.state.is_final():
                continue
            if child.deployment_id is None:
                client.set_flow_run_state(child.id, ended(message=message), force=True)
            elif not child.state.is_cancelling():
                client.set_flow_run_state(child.id, Cancelling(message=message))
        family = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id, *(child.id for child in below)]))
        for task in client.read_task_runs(flow_run_filter=family):
            if task.state is not None and not task.state.is_final():
                client.set_task_run_state(task.id, ended(message=message), force=True)


def end_now() -> None:
    """End this process and all that it has started, without another word."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    # To Prefect's worker another code than 0 is a crash. Only Prefect's own channel tells what the signal was for.
    os._exit(0 if get_intent() == "cancel" else ENDED)
