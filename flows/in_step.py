"""Every organisation's part at the same time, in one process, in step through their sums."""

import contextvars
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.federation.runs import opened_run
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.sums import SumAborted

LOOK_SECONDS = 0.2
Part = TypeVar("Part")


def all_in_step(pipeline: Pipeline, run_id: str, start: Callable[[str], Part]) -> list[Part]:
    """Run every organisation's part in a thread of its own; one that fails releases the others.

    start: does the part of the organisation that it is given, whose sums it finds by the run's id.
    Returns the parts' results by the members' order. Raises UserError with the problems of all organisations, or what
    went wrong at the first.
    """
    members = pipeline.members
    with (
        opened_run(run_id, members, allow_two_parties=pipeline.allow_two_parties) as federation,
        ThreadPoolExecutor(len(members), thread_name_prefix="organisation") as threads,
    ):
        # The copied context tells Prefect whose children they are.
        running = {name: threads.submit(contextvars.copy_context().run, start, name) for name in members}
        try:
            # With a time limit: a signal that another thread takes (Ctrl-C) is acted upon when this one wakes up.
            while wait(running.values(), timeout=LOOK_SECONDS, return_when=FIRST_EXCEPTION).not_done:
                if any(part.done() and part.exception() is not None for part in running.values()):
                    break
        except BaseException as stop:
            # Ctrl-C, or Prefect cancels: the others must not wait for a sum that never comes.
            federation.abort(f"the run was stopped ({type(stop).__name__})")
            raise
        return _results(running, federation)


def _results(running: dict[str, "Future[Part]"], federation: InProcessFederation) -> list[Part]:
    for name, part in running.items():
        if part.done() and (error := part.exception()) is not None:
            federation.abort(f"{name} has stopped: {error}")
    wait(running.values())
    errors = [error for part in running.values() if (error := part.exception()) is not None]
    problems = [problem for error in errors if isinstance(error, UserError) for problem in error.problems]
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    for error in sorted(errors, key=lambda error: isinstance(error, SumAborted)):
        raise error
    return [part.result() for part in running.values()]
