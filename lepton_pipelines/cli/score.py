"""`lepton score`: score an organisation's files in batches with a registered model."""

from pathlib import Path

import typer

from lepton_pipelines.cli.embedded import log_to, native_errors_to, quieten
from lepton_pipelines.cli.run import embedded_api


def score(model: str, source: str, target: str, *, organisation: Path, version: int | None, var: Path) -> None:
    """Score what lies at `source`, and say what was written."""
    quieten()
    with embedded_api() as log:
        from rich.console import Console

        from flows.score_batch import score_batch
        from lepton_pipelines.organisation.progress import Event, FilesScored, listening

        console = Console(highlight=False)

        def show(event: Event) -> None:
            if isinstance(event, FilesScored):
                status.update(f"{event.files} of {event.of} files, {event.rows} rows")

        log_to(log)
        with native_errors_to(log), console.status("finding the model") as status, listening(target, show):
            scored = score_batch(model, organisation, source, target, version, var)
    before = sum(one.kept for one in scored.files)
    typer.echo(f"  model     {scored.model} v{scored.version}, sha256:{scored.digest}")
    typer.echo(f"  scored    {scored.rows} rows in {len(scored.files)} files: {target}")
    if before:
        typer.echo(f"  kept      {before} of the files, which had been scored before by this model")
