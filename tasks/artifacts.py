"""What a run shows on its Prefect pages: progress while it trains, the results' table, the report, links."""

import contextvars
import logging
import re
import threading
from abc import ABC, abstractmethod
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from lepton_pipelines.evaluation.result import Evaluation
from lepton_pipelines.organisation.progress import Event, PiecesRead, RoundFinished, listening
from tasks.events import tell_round

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0  # a round takes milliseconds: the page is told once in a while, not each time


def key(*words: str) -> str:
    """Make an artifact's key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


Followed = TypeVar("Followed", PiecesRead, RoundFinished)


class FollowedProgress(ABC, Generic[Followed]):
    """A progress artifact of one organisation's part, told about every second.

    Telling the page happens in a thread of its own: a slow Prefect server never holds up a step, and one that is away
    is left alone until the step ends.
    """

    kind: type[Followed]
    what: str

    def __init__(self, pipeline: str, run_id: str, organisation: str) -> None:
        self.pipeline, self.run = pipeline, run_id
        self.organisation = organisation
        self._listening = listening(run_id, self._hear)
        self._latest: Followed | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Create the artifact and begin to listen."""
        self._artifact: UUID = create_progress_artifact(  # type: ignore[assignment]
            progress=0.0, key=key(self.organisation, self.what), description=f"{self.organisation}: {self.what} begins"
        )
        context = contextvars.copy_context()
        name = f"{self.what}-progress"
        self._thread = threading.Thread(target=context.run, args=(self._follow,), name=name, daemon=True)
        self._listening.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Say where the step ended."""
        self._listening.__exit__(None, None, None)
        self._ended.set()
        self._thread.join()
        if kind is None and self._latest is not None:
            self._update(1.0, self._latest)

    @abstractmethod
    def share(self, event: Followed) -> float:
        """How far an event says that the step has come, from 0 to 1."""

    @abstractmethod
    def told(self, event: Followed) -> str:
        """What the page says of an event."""

    def also(self, event: Followed) -> None:
        """Tell others than the page; nobody, unless a step has such."""

    def _hear(self, event: Event) -> None:
        if isinstance(event, self.kind) and event.organisation == self.organisation:
            self._latest = event

    def _follow(self) -> None:
        told: Followed | None = None
        while not self._ended.wait(EVERY_SECONDS):
            latest = self._latest
            if latest is not None and latest is not told:
                told = latest
                if not self._update(self.share(latest), latest):
                    return

    def _update(self, share: float, event: Followed) -> bool:
        description = f"{self.organisation}: {self.told(event)}"
        try:
            update_progress_artifact(artifact_id=self._artifact, progress=100.0 * share, description=description)
            self.also(event)
        except Exception:  # noqa: BLE001 - a page that cannot be told is no reason to stop a training
            logger.warning("%s: Prefect cannot be told of the progress; %s goes on", self.organisation, self.what)
            return False
        return True


class TrainingProgress(FollowedProgress[RoundFinished]):
    """The progress artifact of one organisation's training, and events of its rounds, about every second."""

    kind, what = RoundFinished, "training"

    def share(self, event: RoundFinished) -> float:
        """Return the share of rounds that are done."""
        return event.round / event.rounds

    def told(self, event: RoundFinished) -> str:
        """Say which round, and the scores after it."""
        scores = " · ".join(
            f"{rows} {metric} {score:.4f}" for rows, by in event.scores.items() for metric, score in by.items()
        )
        return f"round {event.round} of {event.rounds} · {scores}"

    def also(self, event: RoundFinished) -> None:
        """Tell automations."""
        tell_round(self.pipeline, self.run, event)


class ReadingProgress(FollowedProgress[PiecesRead]):
    """The progress artifact of one organisation's reading: pieces and rows so far."""

    kind, what = PiecesRead, "reading"

    def share(self, event: PiecesRead) -> float:
        """Return the share of rows that are read."""
        return event.share

    def told(self, event: PiecesRead) -> str:
        """Say how many pieces and rows are read."""
        return event.told()


def show_results(evaluation: Evaluation, report: str, address: str) -> None:
    """Publish the results' table, the report's first screen and links to report and MLflow run."""
    metric = evaluation.primary_metric
    table = [
        {
            "model": row.name,
            **{name: f"{row.scores[name]:.4f}" for name in shown_metrics(evaluation) if name in row.scores},
            f"worst organisation ({metric})": _shown(row.worst(metric)),
        }
        for row in evaluation.comparison
    ]
    name = evaluation.pipeline
    create_table_artifact(table=table, key=key(name, "results"), description="Scores on the same held-out rows")
    create_markdown_artifact(markdown=summary(evaluation, report, address), key=key(name, "report"))
    if address.startswith("http"):
        create_link_artifact(link=address, link_text="MLflow run", key=key(name, "mlflow"))


def shown_metrics(evaluation: Evaluation) -> list[str]:
    """Return the metrics that the table shows: the primary one first."""
    first = evaluation.primary_metric
    others = [name for name in ("auc", "logloss", "mlogloss", "rmse", "mae", "r2", "merror") if name != first]
    known = evaluation.figures.scores
    return [name for name in (first, *others) if name in known][:3]


def summary(evaluation: Evaluation, report: str, address: str) -> str:
    """Write the run's outcome as Markdown: decision, scores, gates, where report and model are."""
    lines = [f"# {evaluation.pipeline} · {evaluation.run_id}", ""]
    if evaluation.registration is not None:
        lines += [f"**{evaluation.registration.model} {evaluation.registration.decision}**", ""]
    metrics = shown_metrics(evaluation)
    lines += ["| model | " + " | ".join(metrics) + " |", "| --- |" + " --- |" * len(metrics)]
    for row in evaluation.comparison:
        lines.append(f"| {row.name} | " + " | ".join(_shown(row.scores.get(name)) for name in metrics) + " |")
    if evaluation.gates:
        lines += ["", "## Gates", ""]
        lines += [f"- {'✓' if gate.passed else '✗'} {gate.name}: {gate.message}" for gate in evaluation.gates]
    lines += ["", "## Where", "", f"- report: `{report}`", f"- MLflow: {address}"]
    if evaluation.reproduction.model_digest:
        lines.append(f"- model: SHA-256 `{evaluation.reproduction.model_digest}`")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
