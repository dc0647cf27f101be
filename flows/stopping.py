"""A run that is cancelled ends in time: what has not let go by itself a few seconds later is ended."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psutil
from prefect._internal.control_listener import get_intent
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling, Crashed

from lepton_pipelines.spec.errors import UserError

STOP_SECONDS = 2.5
"""Between Prefect's signal and the process's end, however long a sum, a cluster or a server keeps it busy.

Prefect's worker looks three seconds after the signal whether the process has ended, and only then every other three.
"""

ENDED = 128 + signal.SIGTERM

CAN_GO_ON = "its run can be gone on with"
"""Stands in the message with which a part is cancelled whose run nobody called off: another part has died."""

_log = logging.getLogger(__name__)


@contextmanager
def stopped_in_time(
    seconds: float = STOP_SECONDS, *, when_cancelled: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a flow's process to ending soon after Prefect has cancelled it, for the length of a block.

    when_cancelled: called at once, in a thread of its own, if it is Prefect that cancels and not a machine that stops.

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
    called = threading.Event()
    late = (heard, seconds, when_cancelled or (lambda: None), called)
    threading.Thread(target=_end_late, args=late, name="stopped-in-time", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)
        called.wait(seconds)  # at once, unless the signal came


def _end_late(heard: int, seconds: float, when_cancelled: Callable[[], None], called: threading.Event) -> None:
    """Wait for the signal to end; then end the process if it is still there. heard: a pipe with signals' numbers."""

    def call() -> None:
        try:
            if get_intent() == "cancel":
                when_cancelled()
        except UserError as error:
            _log.error("%s", error)
        finally:
            called.set()

    with os.fdopen(heard, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] == signal.SIGTERM:
                threading.Thread(target=call, name="when cancelled", daemon=True).start()
                time.sleep(seconds)
                end_now()
    called.set()


def is_called_off() -> bool:
    """Whether this flow run is being cancelled for good, and not because another organisation's part has died."""
    run = flow_run.get_id()
    if run is None:
        return False
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(run))).state
    return state is not None and CAN_GO_ON not in (state.message or "")


def end_children(flow: Any, flow_run: FlowRun, state: State) -> None:
    """End the flow and task runs below one that was cancelled or has crashed.

    A hook of flows: the worker has it called when the process that could have done so is gone. What ran in that process
    is said to have ended; a deployed run of its own, such as an organisation's part, is cancelled at its own worker.
    """
    ended = Crashed if state.is_crashed() else Cancelled
    message = f"{flow_run.name} {f'crashed: {CAN_GO_ON}' if state.is_crashed() else 'was cancelled'}"
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
