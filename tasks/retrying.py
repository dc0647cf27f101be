"""Which failures are worth another attempt: a network that may be back in a moment, never a mistake."""

from typing import Any

# Errors of the operating system that another attempt meets again.
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
TRANSIENT_NAMES = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ServerDisconnectedError",
    "ClientConnectionError",
    "ConnectionError",
    "SlowDown",
)


def may_pass(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is one of a network or a store that is away for the moment."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, TimeoutError | ConnectionError):
            return True
        if isinstance(error, OSError) and not isinstance(error, LASTING):
            return True
        if type(error).__name__ in TRANSIENT_NAMES:
            return True
        error = error.__cause__ or error.__context__
    return False


def worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """Decide for Prefect (`retry_condition_fn`) whether a failed task is run again."""
    failed = state.result(raise_on_failure=False)
    return isinstance(failed, BaseException) and may_pass(failed)
