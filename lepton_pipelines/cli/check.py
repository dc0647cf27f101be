"""`lepton check`: everything that would refuse a run, without running it."""

import os
from pathlib import Path

from lepton_pipelines.cli.embedded import quieten
from lepton_pipelines.spec.errors import UserError


def check(spec: Path, *, var: Path) -> None:
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

    from rich.console import Console

    from lepton_pipelines.organisation.checking import check_organisation, check_spec
    from lepton_pipelines.organisation.disclosure import contribution_notes, disclosure_notes
    from lepton_pipelines.organisation.folder import check_writable

    check_spec(pipeline)
    console = Console(highlight=False)
    console.print(f"  {spec.name:<12} {pipeline.name}: {', '.join(pipeline.members)}, contract {contract.id}")
    problems: list[str] = []
    trained: list[int] = []
    for name, organisation in organisations.items():
        try:
            found = check_organisation(pipeline, organisation, var)
        except UserError as error:
            problems += error.problems
            continue
        trained.append(found.rows["train"])
        sets = ", ".join(f"{rows} {count:,}" for rows, count in found.rows.items())
        console.print(f"  {name:<12} {found.files} files, {found.checked:,} rows ({sets}), {found.set_aside} set aside")
        for warning in found.warnings:
            console.print(f"  [yellow]note[/]         {warning}", soft_wrap=True)
    if not problems:
        rows = sum(trained) * len(pipeline.members) // len(trained)
        whose = f"all organisations' {rows:,} training rows"
        if len(trained) < len(pipeline.members):
            whose = f"some {rows:,} training rows, if the others have as many as {next(iter(organisations))},"
        for note in disclosure_notes(pipeline.training, rows, whose=whose):
            console.print(f"  [yellow]note[/]         {note}", soft_wrap=True)
        for note in contribution_notes(pipeline):
            console.print(f"  [yellow]note[/]         {note}", soft_wrap=True)
    try:
        check_writable(var)
        if pipeline.publisher in organisations:
            check_registry(organisations[pipeline.publisher].tracking.mlflow, var)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    console.print(f"  [green]ready[/]        lepton run {spec}")


def check_registry(address: str | None, var: Path) -> None:
    """Refuse a registry that does not answer; the embedded one is not made for a check. Raises UserError."""
    if address is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    from lepton_pipelines.registry.tracking import open_tracking

    open_tracking(address, folder=var)
