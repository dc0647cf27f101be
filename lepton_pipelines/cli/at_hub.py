"""`lepton run` with a hub, and what `lepton org serve` starts: one organisation's share of a run, on the screen."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.spec.pipeline import Pipeline

STARTED_FILE = "started.json"
SUSPENDED_CODE = 75  # EX_TEMPFAIL: nothing is wrong here, the run can be gone on with


@dataclass(frozen=True)
class Started:
    """With which files an organisation began its part of a run: what going on with it needs. by: serve or run."""

    organisation: Path
    home: Path | None
    by: str

    def keep(self, folder: Path) -> None:
        """Write them into the run's folder."""
        from lepton_pipelines.organisation.folder import write_private

        told = {
            "organisation": str(self.organisation.absolute()),
            "home": None if self.home is None else str(self.home.absolute()),
            "by": self.by,
        }
        write_private(folder / STARTED_FILE, json.dumps(told))

    @classmethod
    def of(cls, folder: Path) -> "Started | None":
        """Read them back; None if the run was not begun here."""
        path = folder / STARTED_FILE
        if not path.is_file():
            return None
        told = json.loads(path.read_text())
        return cls(Path(told["organisation"]), None if told["home"] is None else Path(told["home"]), told["by"])


def run_at_hub(
    pipeline: "Pipeline",
    *,
    spec: Path,
    organisation: Path | None,
    home: Path | None,
    run_id: str | None,
    var: Path,
    by: str = "run",
) -> None:
    """Do this organisation's share of a run; without `run_id` propose a new one to the others. Prints what came of it.

    Ends the command with code 75 if the run was suspended: it can be gone on with.
    """
    from lepton_pipelines.cli.embedded import log_to, native_errors_to
    from lepton_pipelines.cli.run import embedded_api, keep_log
    from lepton_pipelines.federation.grpc_member import RunSuspended
    from lepton_pipelines.organisation.folder import RunFolder
    from lepton_pipelines.spec.organisation import read_organisation
    from lepton_pipelines.sums import SumAborted

    before = Started.of(var / "runs" / run_id) if run_id else None
    file = organisation or (before.organisation if before else own_file(pipeline, spec))
    home = home or (before.home if before else None)
    own = read_organisation(file)
    name = own.organisation
    with embedded_api() as log:
        from rich.console import Console

        from flows.federated_retrain import federated_retrain
        from flows.run_ids import new_run_id
        from lepton_pipelines.cli.live import LiveView
        from lepton_pipelines.cli.result import show
        from lepton_pipelines.organisation.progress import listening
        from lepton_pipelines.registry.tracking import open_tracking

        console = Console(highlight=False)
        run_id = run_id or new_run_id()
        folder = RunFolder(var, run_id)
        folder.create()
        Started(file, home, by).keep(folder.path)
        console.print(f"  run       {run_id}: {', '.join(pipeline.members)}, as {name}", soft_wrap=True)
        binary = pipeline.training.objective.startswith("binary:")
        view = LiveView(console, [name], noun="organisation", label=pipeline.training.label, binary=binary)
        log_to(log)
        try:
            with native_errors_to(log), listening(run_id, view), view:
                evaluation = federated_retrain(pipeline=pipeline, var=var, run=run_id, organisation=file, home=home)
        except RunSuspended as error:
            typer.secho(str(error), fg=typer.colors.YELLOW, err=True)
            raise typer.Exit(SUSPENDED_CODE) from None
        except SumAborted as error:
            raise UserError(f"run {run_id} was ended: {error}") from error
        except KeyboardInterrupt:
            typer.echo(f"Stopped here. The others wait for {name}; go on with: lepton run --resume {run_id}", err=True)
            raise
        finally:
            keep_log(folder, log)
        tracking = open_tracking(own.tracking.mlflow, folder=var.absolute()) if name == pipeline.publisher else None
        report = folder.path / "report.html"
        show(console, evaluation, report=report, tracking=tracking, noun="organisation", plural="rows")
        if tracking is None:
            console.print(f"  registry  {pipeline.publisher} registers the model in its own MLflow", soft_wrap=True)
        model = evaluation.reproduction.model_digest
        console.print(f"  model     {model}, the same bytes at every organisation", soft_wrap=True)


def watch_at_hub(
    pipeline: "Pipeline", *, organisation: Path, home: Path, run_id: str, var: Path, by: str = "run"
) -> None:
    """Do this organisation's part of a watch for drift that was proposed, and print what was found."""
    from lepton_pipelines.cli.embedded import log_to, native_errors_to
    from lepton_pipelines.cli.run import embedded_api, keep_log
    from lepton_pipelines.federation.grpc_member import RunSuspended
    from lepton_pipelines.organisation.folder import RunFolder
    from lepton_pipelines.sums import SumAborted

    with embedded_api() as log:
        from flows.watch_drift import watch_drift

        folder = RunFolder(var, run_id)
        folder.create()
        Started(organisation, home, by).keep(folder.path)
        log_to(log)
        try:
            with native_errors_to(log):
                report = watch_drift(pipeline=pipeline, var=var, run=run_id, organisation=organisation, home=home)
        except RunSuspended as error:
            typer.secho(str(error), fg=typer.colors.YELLOW, err=True)
            raise typer.Exit(SUSPENDED_CODE) from None
        except SumAborted as error:
            raise UserError(f"run {run_id} was ended: {error}") from error
        finally:
            keep_log(folder, log)
        if report is None:
            typer.echo(f"  watch     {run_id}: too few rows have changed since an earlier run to be compared")
            return
        typer.echo(f"  watch     {run_id}: {'; '.join(report.reasons) or 'nothing has moved beyond its limit'}")


def own_file(pipeline: "Pipeline", spec: Path) -> Path:
    """Return the one organisation's file that stands beside the pipeline. Raises UserError if there is not just one."""
    beside = [path for name in pipeline.members if (path := spec.parent / f"{name}.yaml").is_file()]
    if len(beside) == 1:
        return beside[0]
    found = f"{len(beside)} of its organisations' files stand" if beside else "no organisation's file stands"
    raise UserError(
        f"{pipeline.name}: {found} beside {os.fspath(spec)}. Say which organisation this is, as in: "
        f"lepton run {os.fspath(spec)} --organisation {pipeline.members[0]}.yaml"
    )
