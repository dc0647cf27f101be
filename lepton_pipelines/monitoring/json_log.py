"""Logs as JSON lines, each with the run and the organisation that it belongs to, and never a value of a row.

Lines go where others read them. Our own messages name files, counts, members and steps. What an error says may quote a
row, as "could not convert 'Miller'" does, so of an error the kind and the places in code are kept and not its words;
and of other libraries' messages, which quote errors as they like, only who said it, where and how loudly. The words
stand in the run's own log.txt, at home.
"""

import contextvars
import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lepton_pipelines.organisation import progress
from lepton_pipelines.spec.errors import UserError

VARIABLE = "LEPTON_LOG_JSON"
STANDARD_ERROR = "-"
OURS = ("lepton", "lepton_pipelines", "flows", "tasks")
# Prefect, Dask and MLflow keep handlers of their own and do not pass on.
OTHERS = ("prefect", "prefect.flow_runs", "prefect.task_runs", "distributed", "mlflow")
FRAMES = 8

_part: contextvars.ContextVar[tuple[str, str] | None] = contextvars.ContextVar("lepton_part", default=None)
_active: list[tuple[str, str]] = []
_lock = threading.Lock()
_run_log = logging.getLogger("lepton.run")


class JsonLines(logging.Formatter):
    """One record, one line: time, level, logger, run, organisation, message; an error by its kind and places."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as a line of JSON."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        run, organisation = getattr(record, "part", None) or _whose() or (None, None)
        told |= {name: text for name, text in (("run", run), ("organisation", organisation)) if text}
        if record.name.partition(".")[0] in OURS:
            told["message"] = _message(record)
            told |= getattr(record, "fields", {})
        else:
            told["at"] = f"{record.module}:{record.lineno}"
        if record.exc_info and record.exc_info[0] is not None:
            told |= {"error": record.exc_info[0].__name__, "places": _places(record.exc_info[2])}
        return json.dumps(told, ensure_ascii=False)


def log_of_a_service(target: str | None) -> None:
    """Log what a service does: readable lines on standard error, or JSON lines to a file or (`-`) standard error."""
    if target is None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        return
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.handlers = [_handler(target)]


def also_log_json(target: str | None) -> None:
    """Send what this process logs to JSON lines as well; None changes nothing, and a second time neither."""
    if not target or any(isinstance(one.formatter, JsonLines) for one in logging.getLogger().handlers):
        return
    for name in (None, *OTHERS, "lepton_pipelines"):
        logger = logging.getLogger(name)
        if name is None or not logger.propagate:
            logger.addHandler(_handler(target))  # each its own: Dask silences the handlers that it finds at its logger
    logging.getLogger("lepton").setLevel(logging.INFO)


@contextmanager
def logged_part(run: str, organisation: str) -> Iterator[None]:
    """Log an organisation's part of a run for the length of a block: its steps, its rounds once a second, its end."""
    part = (run, organisation)
    token = _part.set(part)
    with _lock:
        _active.append(part)
    heard = _Heard(part)
    try:
        with progress.listening(run, heard.hear):
            heard.say("the part begins", event="started")
            yield
    except BaseException as error:
        heard.say(f"the part has stopped ({type(error).__name__})", event="stopped", error=type(error).__name__)
        raise
    else:
        heard.say("the part is finished", event="finished")
    finally:
        with _lock:
            _active.remove(part)
        _part.reset(token)


class _Heard:
    """Logs what is told of one organisation's part."""

    def __init__(self, part: tuple[str, str]) -> None:
        self._part = part
        self._last = -1.0

    def hear(self, event: progress.Event) -> None:
        if event.organisation != self._part[1]:
            return
        match event:
            case progress.StageStarted():
                self.say(f"{event.stage} begins", event="step started", step=event.stage)
            case progress.StageFinished():
                self.say(f"{event.stage} is done", event="step finished", step=event.stage, seconds=event.seconds)
            case progress.RoundFinished() if event.round == event.rounds or event.seconds - self._last >= 1:
                self._last = event.seconds
                told = {"round": event.round, "rounds": event.rounds, "sent_bytes": event.bytes_sent}
                self.say(f"round {event.round} of {event.rounds}", event="round", **told, seconds=event.seconds)
            case progress.Notice():
                self.say(event.message, event="notice")

    def say(self, message: str, **fields: Any) -> None:
        _run_log.info("%s", message, extra={"part": self._part, "fields": fields})


def _handler(target: str) -> logging.Handler:
    handler: logging.Handler
    if target == STANDARD_ERROR:
        handler = logging.StreamHandler(sys.stderr)
    else:
        try:
            handler = logging.FileHandler(target, encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"The log {Path(target)} cannot be written ({error.strerror or error}). Give write permission or space "
                f"there, or name another file with --log-json or {VARIABLE}."
            ) from error
    handler.setFormatter(JsonLines())
    return handler


def _whose() -> tuple[str, str] | None:
    """Return the part that the calling thread works for; a process with one part works for that."""
    mine = _part.get()
    if mine is not None:
        return mine
    with _lock:
        return _active[0] if len(_active) == 1 else None


def _message(record: logging.LogRecord) -> str:
    """Return a message of ours, errors in it by their kind."""
    args = record.args
    if isinstance(args, tuple):
        args = tuple(type(one).__name__ if isinstance(one, BaseException) else one for one in args)
    return str(record.msg) % args if args else str(record.msg)


def _places(trace: Any) -> list[str]:
    frames = traceback.extract_tb(trace)[-FRAMES:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
