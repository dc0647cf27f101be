"""The runs that this process takes part in, by their ids: how an organisation's part finds its sums.

A flow opens a run, every organisation's part joins it, whoever opened it closes it.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lepton_pipelines.federation.in_process import InProcessFederation, InProcessSums
from lepton_pipelines.spec.errors import UserError

_lock = threading.Lock()
_runs: dict[str, InProcessFederation] = {}


def open_run(run_id: str, members: Sequence[str], *, allow_two_parties: bool = False) -> InProcessFederation:
    """Begin an in-process run under this id.

    Raises UserError if the id is taken, or if there are too few members.
    """
    federation = InProcessFederation(members, allow_two_parties=allow_two_parties, run=run_id)
    with _lock:
        if run_id in _runs:
            raise UserError(f"run {run_id} is already open in this process. Close it, or give the new run its own id.")
        _runs[run_id] = federation
    return federation


def join(run_id: str, member: str) -> InProcessSums:
    """Return the member's sums in an open run.

    Raises UserError if no such run is open here, or if it does not know the member.
    """
    with _lock:
        federation = _runs.get(run_id)
    if federation is None:
        raise UserError(
            f"{member}: run {run_id} is not open in this process. In-process runs live where they were opened; for "
            "organisations in processes of their own set federation: {hub: host:port}."
        )
    if member not in federation.members:
        raise UserError(f"{member} is not a member of run {run_id}: {', '.join(federation.members)} are.")
    return federation.sums(member)


def close_run(run_id: str, *, reason: str | None = None) -> None:
    """End a run; members that still wait get SumAborted with the reason. A run that is not open stays so."""
    with _lock:
        federation = _runs.pop(run_id, None)
    if federation is not None:
        if reason is not None:
            federation.abort(reason)
        federation.close()


@contextmanager
def opened_run(
    run_id: str, members: Sequence[str], *, allow_two_parties: bool = False
) -> Iterator[InProcessFederation]:
    """Open a run for the length of a block."""
    federation = open_run(run_id, members, allow_two_parties=allow_two_parties)
    try:
        yield federation
    except BaseException as error:
        close_run(run_id, reason=f"{type(error).__name__}: {error}")
        raise
    finally:
        close_run(run_id)
