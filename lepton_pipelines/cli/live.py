"""The live view of a run: who brings how many rows, then a bar a step with rounds, score and time left."""

import threading
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table

from lepton_pipelines.organisation.progress import (
    Event,
    Notice,
    PiecesRead,
    RoundFinished,
    RowsRead,
    StageFinished,
    StageStarted,
)

BARS = {
    "ingest": "reading",
    "validate": "reading",
    "bin": "binning",
    "train": "boosting",
    "compare": "comparing",
    "evaluate": "evaluating",
}
"""The bar that a step belongs to."""


class LiveView:
    """Listens to a run and draws it. members: the organisations. label: the column that is predicted."""

    def __init__(self, console: Console, members: list[str], *, noun: str, label: str, binary: bool) -> None:
        self._console, self._members = console, members
        self._noun, self._label, self._binary = noun, label, binary
        self._lock = threading.Lock()
        self._rows: dict[str, RowsRead] = {}
        self._shown: dict[str, RowsRead] = {}
        self._done: dict[str, set[tuple[str, str]]] = {}
        self._pieces: dict[str, PiecesRead] = {}
        self._rounds: dict[str, RoundFinished] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("  {task.description:<11}", table_column=Column(no_wrap=True)),
            BarColumn(24),
            TextColumn("{task.fields[detail]}", table_column=Column(no_wrap=True)),
            console=console,
            refresh_per_second=8,
        )

    def __enter__(self) -> "LiveView":
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Take an event in; called from the organisations' threads."""
        with self._lock:
            if isinstance(event, StageStarted):
                self._bar(BARS[event.stage])
            elif isinstance(event, StageFinished):
                self._finished(event)
            elif isinstance(event, PiecesRead):
                self._reading(event)
            elif isinstance(event, RowsRead):
                self._read(event)
            elif isinstance(event, RoundFinished):
                self._round(event)
            elif isinstance(event, Notice):
                self._progress.console.print(f"  [yellow]note[/]  {event.organisation}: {event.message}")

    def _bar(self, name: str) -> TaskID:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=len(self._members) * self._steps(name), detail="")
        return self._bars[name]

    def _steps(self, name: str) -> int:
        return sum(bar == name for bar in BARS.values())

    def _finished(self, event: StageFinished) -> None:
        name = BARS[event.stage]
        done = self._done.setdefault(name, set())
        done.add((event.organisation, event.stage))
        if name == "boosting":
            if len(done) == len(self._members):
                last = self._rounds[event.organisation]
                self._progress.update(
                    self._bar(name), total=last.round, completed=last.round, detail=self._told(last, finished=True)
                )
            return
        if event.stage == "ingest":
            self._pieces.pop(event.organisation, None)
        detail = event.summary or f"{event.seconds:.1f} s"
        self._progress.update(self._bar(name), completed=self._completed(name), detail=detail)

    def _completed(self, name: str) -> float:
        """Return how many steps of a bar are done; of those that read, as much as is read."""
        read = sum(one.share for one in self._pieces.values()) if name == BARS["ingest"] else 0.0
        return len(self._done.get(name, ())) + read

    def _reading(self, event: PiecesRead) -> None:
        name = BARS["ingest"]
        if (event.organisation, "ingest") in self._done.get(name, ()):
            return  # told as the step ended, or read again
        self._pieces[event.organisation] = event
        detail = event.told() if len(self._members) == 1 else f"{event.organisation} {event.told()}"
        self._progress.update(self._bar(name), completed=self._completed(name), detail=detail)

    def _read(self, event: RowsRead) -> None:
        self._rows[event.organisation] = event
        # A part that goes on without a member that was lost reads its rows again: the same are not shown again.
        if len(self._rows) == len(self._members) and self._rows != self._shown:
            self._shown = dict(self._rows)
            self._progress.console.print(rows_table(self._rows, self._noun, self._label, binary=self._binary))

    def _round(self, event: RoundFinished) -> None:
        self._rounds[event.organisation] = event
        if event.organisation == self._members[0]:
            self._progress.update(
                self._bar("boosting"), total=event.rounds, completed=event.round, detail=self._told(event)
            )

    def _told(self, event: RoundFinished, *, finished: bool = False) -> str:
        told = [f"{event.round}/{event.rounds} rounds"]
        rows = "valid" if "valid" in event.scores else next(iter(event.scores), "")
        for metric, score in list(event.scores.get(rows, {}).items())[-1:]:
            told.append(f"{rows} {metric_label(metric)} {score:.3f}")
        told.append(
            f"{size(event.bytes_sent)} a{'n organisation' if self._noun == 'organisation' else f' {self._noun}'}"
        )
        if finished:
            told.append(f"{event.seconds:.1f} s")
        else:
            left = event.seconds / event.round * (event.rounds - event.round)
            told.append(f"{clock(left)} left")
        return " · ".join(told)


def rows_table(rows: Mapping[str, RowsRead], noun: str, label: str, *, binary: bool) -> Table:
    """Draw who brings how many rows."""
    table = Table(box=None, padding=(0, 4, 0, 0), header_style="bold")
    table.add_column(f"  {noun}")
    table.add_column("rows", justify="right")
    table.add_column(f"share {label}" if binary else f"mean {label}", justify="right")
    table.add_column("Dask workers", justify="right")
    for name in sorted(rows, key=lambda one: -rows[one].rows):
        one = rows[name]
        share = "–" if one.share is None else f"{one.share:.0%}".replace("%", " %") if binary else f"{one.share:.4g}"
        table.add_row(f"  {name}", f"{one.rows:,}", share, str(one.workers))
    return table


def metric_label(metric: str) -> str:
    """Write a metric as people do."""
    return {"auc": "AUC", "aucpr": "PR AUC", "logloss": "log loss", "mlogloss": "log loss", "rmse": "RMSE"}.get(
        metric, metric
    )


def size(count: int) -> str:
    """Write a number of bytes: 1.1 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def clock(seconds: float) -> str:
    """Write seconds as a person says them: 42 s, 3 min 5 s."""
    whole = int(seconds + 0.5)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
