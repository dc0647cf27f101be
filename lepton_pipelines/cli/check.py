"""`lepton check`: everything that would refuse a run, without running it."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lepton_pipelines.cli.embedded import quieten
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.spec.organisation import Organisation
    from lepton_pipelines.spec.pipeline import Pipeline


def check(spec: Path, *, var: Path, as_json: bool = False) -> None:
    """Check a pipeline's files, every organisation's rows, and where the model goes; leave nothing behind."""
    quieten()
    from lepton_pipelines.cli.at_hub import own_file
    from lepton_pipelines.spec.organisation import read_organisation
    from lepton_pipelines.spec.pipeline import read_pipeline

    pipeline = read_pipeline(spec)
    contract = pipeline.read_contract()
    if pipeline.federation == "in-process":
        organisations = pipeline.read_organisations()
    else:  # nobody else's file is here
        own = read_organisation(own_file(pipeline, spec))
        organisations = {own.organisation: own}

    from lepton_pipelines.organisation.checking import check_spec
    from lepton_pipelines.organisation.folder import check_writable

    check_spec(pipeline)
    told: dict[str, Any] = {"pipeline": pipeline.name, "members": pipeline.members, "contract": contract.id}
    show = _Nothing() if as_json else _Screen()
    show.line(spec.name, f"{pipeline.name}: {', '.join(pipeline.members)}, contract {contract.id}")
    told["organisations"], problems = _rows(pipeline, organisations, var, show)
    trained = {one["organisation"]: one["rows"]["train"] for one in told["organisations"]}
    told["notes"] = [] if problems else _notes(pipeline, trained)
    for note in told["notes"]:
        show.note(note)
    try:
        check_writable(var)
        if pipeline.publisher in organisations:
            check_registry(organisations[pipeline.publisher].tracking.mlflow, var)
    except UserError as error:
        problems += error.problems
    problems = list(dict.fromkeys(problems))
    if as_json:
        typer.echo(json.dumps({**told, "ready": not problems, "problems": problems}))
    if problems:
        raise UserError(problems)
    show.ready(f"lepton run {spec}")


def check_registry(address: str | None, var: Path) -> None:
    """Refuse a registry that does not answer; the embedded one is not made for a check. Raises UserError."""
    if address is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    from lepton_pipelines.registry.tracking import open_tracking

    open_tracking(address, folder=var)


class _Nothing:
    """Where JSON is written, nothing is shown meanwhile."""

    def line(self, what: str, text: str) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def ready(self, text: str) -> None:
        """Show nothing."""


class _Screen(_Nothing):
    """Shows what is found as it is found."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def line(self, what: str, text: str) -> None:
        """Show a line about something."""
        self._console.print(f"  {what:<12} {text}")

    def note(self, text: str) -> None:
        """Show what does not refuse a run, but should be known."""
        self._console.print(f"  [yellow]note[/]         {text}", soft_wrap=True)

    def ready(self, text: str) -> None:
        """Show what to do next."""
        self._console.print(f"  [green]ready[/]        {text}")


def _rows(
    pipeline: "Pipeline", organisations: dict[str, "Organisation"], var: Path, show: _Nothing
) -> tuple[list[dict[str, Any]], list[str]]:
    """Check every organisation's rows; return what was accepted, and what refuses a run."""
    from lepton_pipelines.organisation.checking import check_organisation

    accepted, problems = [], []
    for name, organisation in organisations.items():
        try:
            found = check_organisation(pipeline, organisation, var)
        except UserError as error:
            problems += error.problems
            continue
        accepted.append({"organisation": name, **asdict(found)})
        sets = ", ".join(f"{rows} {count:,}" for rows, count in found.rows.items())
        show.line(name, f"{found.files} files, {found.checked:,} rows ({sets}), {found.set_aside} set aside")
        for warning in found.warnings:
            show.note(warning)
    return accepted, problems


def _notes(pipeline: "Pipeline", trained: dict[str, int]) -> list[str]:
    """Return what the totals of the training would say about single rows. trained: rows by organisation, if known."""
    from lepton_pipelines.organisation.disclosure import contribution_notes, disclosure_notes

    rows = sum(trained.values()) * len(pipeline.members) // len(trained)
    whose = f"all organisations' {rows:,} training rows"
    if len(trained) < len(pipeline.members):
        whose = f"some {rows:,} training rows, if the others have as many as {next(iter(trained))},"
    return [*disclosure_notes(pipeline.training, rows, whose=whose), *contribution_notes(pipeline)]
