"""`lepton data`: fetch public sets, check an organisation's rows against a contract, draft a contract."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.data.violations import Violations

app = typer.Typer(help="Fetch public data sets, check rows against a contract, draft a contract.", no_args_is_help=True)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="heart-disease, credit-default or beijing-air.", show_default=False)],
    to: Annotated[Path | None, typer.Option(help="Folder to write to; unset: var/data/NAME.")] = None,
) -> None:
    """Fetch a public data set, check it, and write it as parquet with its contract, one folder an organisation.

    LEPTON_DATA_MIRROR=FOLDER takes the original files from there.
    """
    from rich.console import Console

    from lepton_pipelines.data.public_sets import fetch_public_set, find_public_set

    chosen = find_public_set(name)
    console = Console(stderr=True)
    with console.status(chosen.title) as status:
        written = fetch_public_set(name, to or Path("var") / "data" / name, tell=status.update)
    for organisation, path in written.items():
        typer.echo(f"{organisation:16} {path}")
    typer.echo(f"{chosen.citation} {chosen.licence}. {chosen.page}", err=True)


@app.command()
def check(
    organisation: Annotated[Path, typer.Argument(help="The organisation's YAML file.", show_default=False)],
    contract: Annotated[Path, typer.Option("--contract", "-c", help="The contract (ODCS).", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Check an organisation's rows against a contract and print what breaks it; values of personal columns are not."""
    from lepton_pipelines.data.sources import open_source
    from lepton_pipelines.data.validation import check as check_rows
    from lepton_pipelines.data.violations import Violations
    from lepton_pipelines.spec.contract import read_contract
    from lepton_pipelines.spec.organisation import read_organisation

    agreed, own = read_contract(contract), read_organisation(organisation)
    source = open_source(own, agreed)
    found = Violations()
    with typer.progressbar(source.pieces(), label=f"reading {own.data.url}", file=sys.stderr) as pieces:
        for piece in pieces:
            for frame in source.blocks(piece):
                found += check_rows(frame, agreed, numbers=frame.index)
    if as_json:
        import json
        from dataclasses import asdict

        told = {"organisation": own.organisation, "rows": found.rows, "kept": found.kept, "set_aside": found.rejected}
        typer.echo(json.dumps({**told, "violations": [asdict(each) for each in found.found]}, default=str))
    else:
        _print_violations(found)
    for warning in found.warnings(agreed, organisation=own.organisation):
        typer.secho(warning, fg=typer.colors.YELLOW, err=True)
    problems = found.problems(agreed, organisation=own.organisation, on_violation=own.on_violation)
    if problems:
        raise UserError(problems)
    if not as_json:
        typer.echo(f"{own.organisation}: {found.kept} of {found.rows} rows keep contract {agreed.id} {agreed.version}.")


@app.command()
def profile(
    source: Annotated[str, typer.Argument(help="File, folder or URL of parquet or CSV files.", show_default=False)],
    label: Annotated[str | None, typer.Option(help="Column to predict: then leaks of it are looked for.")] = None,
    name: Annotated[str | None, typer.Option(help="The contract's name; unset: the file's or folder's.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Most rows to read.")] = 1_000_000,
    delimiter: Annotated[str, typer.Option(help="What separates values of a CSV file.")] = ",",
) -> None:
    """Draft a contract from data: lepton data profile SOURCE > contract.odcs.yaml."""
    from pydantic import ValidationError

    from lepton_pipelines.data.profile import draft_contract, read_sample
    from lepton_pipelines.data.profile import profile as describe
    from lepton_pipelines.spec.organisation import Csv, Data

    try:
        data = Data(url=source, csv=Csv(delimiter=delimiter))
    except ValidationError as error:
        raise UserError(f"{source}: {error.errors()[0]['msg']}.") from None
    found = describe(read_sample(data, rows=rows), label=label)
    typer.echo(draft_contract(found, name=name or Path(source.rstrip("/")).name.partition(".")[0]), nl=False)
    for column in found.columns:
        for note in column.notes:
            typer.secho(f"{column.name} {note}", fg=typer.colors.YELLOW, err=True)


@app.command()
def derive(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline's YAML file.", show_default=False)],
    organisation: Annotated[Path, typer.Argument(help="The organisation's YAML file.", show_default=False)],
    to: Annotated[Path, typer.Option(help="Folder to write to.", show_default=False)],
) -> None:
    """Compute the columns that the model takes, derived ones included, and write them as parquet to be scored.

    Lags and windows look back into all rows that the organisation's file names.
    """
    from lepton_pipelines.data.derived import write_features
    from lepton_pipelines.data.sources import open_source
    from lepton_pipelines.spec.organisation import read_organisation
    from lepton_pipelines.spec.pipeline import read_pipeline

    contract, own = read_pipeline(pipeline).read_contract(), read_organisation(organisation)
    for file in write_features(open_source(own, contract), to):
        typer.echo(file)


@app.command()
def prove(
    opening: Annotated[Path, typer.Argument(help="The opening that the run left with its owner.", show_default=False)],
    ledger: Annotated[Path, typer.Argument(metavar="DIR", help="A member's ledger.", show_default=False)],
) -> None:
    """Open a data set's commitment: show an auditor which data an organisation committed to in the ledger."""
    from lepton_pipelines.ledger.commitment import Opening
    from lepton_pipelines.ledger.lineage import find_commitment
    from lepton_pipelines.ledger.verification import verify_ledger

    for line in find_commitment(verify_ledger(ledger), Opening.load(opening)):
        typer.echo(line)


def _print_violations(found: "Violations") -> None:
    from rich.console import Console
    from rich.table import Table

    if not found.found:
        return
    table = Table("column", "rule", "rows", "values", "rows with", title=f"{found.rejected} of {found.rows} rows")
    for violation in found.found:
        keys = ", ".join(violation.keys) + (", …" if violation.count > len(violation.keys) else "")
        table.add_row(violation.column, violation.rule, str(violation.count), ", ".join(violation.values), keys)
    Console().print(table)
