"""`lepton run`: one run, followed on the screen; here with everybody in this process, `at_hub` with a hub."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lepton_pipelines.cli.embedded import (
    EmbeddedServer,
    import_ahead,
    log_to,
    native_errors_to,
    quieten,
    server_is_configured,
)
from lepton_pipelines.cli.prefect_server import ask_for_an_answer
from lepton_pipelines.organisation.folder import LOG_FILE
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import did_you_mean

if TYPE_CHECKING:
    from lepton_pipelines.organisation.folder import RunFolder

DELIVER_SECONDS = 10.0


def run(
    spec: Path | None,
    *,
    resume: str | None,
    var: Path,
    organisation: Path | None = None,
    home: Path | None = None,
    noun: str = "organisation",
    plural: str = "rows",
) -> None:
    """Read the spec, run it, and print what came of it. noun, plural: what members and rows are called.

    organisation, home: with a hub, this organisation's own file and the folder with its keys.
    """
    if resume is not None and spec is None:
        spec = spec_of(var, resume)
    if spec is None or (resume is not None and spec != spec_of(var, resume)):
        raise UserError("Name either the pipeline's file, as in: lepton run pipeline.yaml; or a run: --resume RUN.")
    quieten()
    from lepton_pipelines.spec.pipeline import read_pipeline

    pipeline = read_pipeline(spec)
    pipeline.read_contract()
    if pipeline.federation != "in-process":
        from lepton_pipelines.cli.at_hub import run_at_hub

        run_at_hub(pipeline, spec=spec, organisation=organisation, home=home, run_id=resume, var=var)
        return
    if organisation is not None or home is not None:
        raise UserError(
            f"{spec}: federation is in-process, where --organisation and --home say nothing. Leave them out."
        )
    organisations = pipeline.read_organisations()
    with embedded_api() as log:
        from rich.console import Console

        from flows.federated_retrain import federated_retrain
        from flows.run_ids import new_run_id
        from lepton_pipelines.cli.live import LiveView
        from lepton_pipelines.cli.result import show
        from lepton_pipelines.organisation.folder import RunFolder
        from lepton_pipelines.organisation.progress import listening
        from lepton_pipelines.registry.tracking import open_tracking

        tracking = open_tracking(organisations[pipeline.publisher].tracking.mlflow, folder=var.absolute())
        console = Console(highlight=False)
        run_id = resume or new_run_id()
        folder = RunFolder(var, run_id)
        binary = pipeline.training.objective.startswith("binary:")
        view = LiveView(console, pipeline.members, noun=noun, label=pipeline.training.label, binary=binary)
        log_to(log)
        try:
            with native_errors_to(log), listening(run_id, view), view:
                evaluation = federated_retrain(pipeline=pipeline, var=var, run=run_id)
        except KeyboardInterrupt:
            say_how_to_go_on(folder, pipeline.members)
            raise
        except UserError:
            # What is trained to its end is delivered, and the message says how.
            if has_trees(folder, pipeline.members) and not list(folder.path.glob("organisations/*/part.json")):
                say_how_to_go_on(folder, pipeline.members)
            raise
        finally:
            keep_log(folder, log)
        show(console, evaluation, report=folder.path / "report.html", tracking=tracking, noun=noun, plural=plural)


def publish(run_id: str, *, var: Path) -> None:
    """Deliver a run that is trained. Raises UserError if there is no such run, or if it is not trained yet."""
    spec = spec_of(var, run_id)
    if not list((spec.parent / "organisations").glob("*/part.json")):
        raise UserError(f"Run {run_id} is not trained to its end. Go on with it: lepton run --resume {run_id}")
    run(None, resume=run_id, var=var)


def keep_log(folder: "RunFolder", log: Path) -> None:
    """Keep a run's log in its folder, if it has one; where that fails, say so beside what else there is to say."""
    if not folder.path.is_dir():
        return
    try:
        folder.write(LOG_FILE, log.read_bytes())
    except UserError as problem:
        typer.echo(f"The run's log is lost: {problem}", err=True)


def has_trees(folder: "RunFolder", members: list[str]) -> bool:
    """Tell whether a run got so far that it can be gone on with."""
    return any(folder.of(name).rounds() for name in members)


def say_how_to_go_on(folder: "RunFolder", members: list[str]) -> None:
    """Of a run that was stopped: one that has trees can go on; one that has none leaves nothing."""
    if has_trees(folder, members):
        typer.echo(f"The run was stopped. Go on at its last tree with: lepton run --resume {folder.run_id}", err=True)
    else:
        folder.discard()


def spec_of(var: Path, run_id: str) -> Path:
    """Return the spec that a run was started with. Raises UserError if there is no such run."""
    runs = var / "runs"
    path = runs / run_id / "pipeline.json"
    if path.is_file():
        return path
    known = sorted(one.name for one in runs.iterdir()) if runs.is_dir() else []
    hint = did_you_mean(run_id, known) or (f" The last was {known[-1]}." if known else " There is none.")
    raise UserError(f"There is no run {run_id} in {runs}.{hint}")


@contextmanager
def embedded_api() -> Iterator[Path]:
    """Have Prefect's API ready for the length of a block, the user's server or one of our own; yields a log file."""
    with tempfile.TemporaryDirectory(prefix="lepton-run-") as temporary:
        log = Path(temporary) / LOG_FILE
        log.touch(mode=0o600)
        server = None if server_is_configured() else EmbeddedServer(log)
        if server is not None:
            server.start()
        ahead = import_ahead()
        try:
            if server is not None:
                use(server)
            # A package that one thread imports and another asks for a part of may be found half made.
            ahead.join()
            if server is None:
                ask_for_an_answer()
            yield log
        finally:
            if server is not None:
                finish_prefect()
                server.stop()


def use(server: EmbeddedServer) -> None:
    """Point Prefect at the server once it answers; before Prefect is imported."""
    import os

    if server.wait():
        os.environ["PREFECT_API_URL"] = server.address


def finish_prefect() -> None:
    """Let Prefect deliver what it still holds (logs, events) while its server is there."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=DELIVER_SECONDS)
    EventsWorker.drain_all(timeout=DELIVER_SECONDS)
