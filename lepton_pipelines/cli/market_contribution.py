"""`lepton market contribution`: what each organisation's rows add to a model, where all of them signed for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_pipelines.cli.market_options import VAR, AsJson
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.evaluation.contribution import ContributionReport
    from lepton_pipelines.organisation.folder import RunFolder
    from lepton_pipelines.spec.pipeline import Pipeline


def contribution(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", exists=True, dir_okay=False, help="The pipeline's file.")],
    var: Annotated[Path, typer.Option("--var", help="Where runs and records are kept.")] = VAR,
    organisation: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="With a hub: this organisation's own file.", show_default=False),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="With a hub: the folder with the organisation's keys.", show_default=False)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="With a hub: go on with a report.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what each organisation's rows add: train with all, and without each in turn. All must have signed for it.

    With a hub the other organisations are invited, whose lepton org serve takes part if their policies sign for it.
    """
    from lepton_pipelines.cli.embedded import quieten
    from lepton_pipelines.organisation.checking import check_spec
    from lepton_pipelines.organisation.folder import check_writable
    from lepton_pipelines.spec.pipeline import read_pipeline

    quieten()
    pipeline = read_pipeline(spec)
    check_spec(pipeline)
    check_writable(var)
    if pipeline.federation == "in-process":
        if organisation is not None or home is not None or resume is not None:
            raise UserError(
                f"{spec}: federation is in-process, where --organisation, --home and --resume say nothing. Leave them "
                "out."
            )
        _in_process(pipeline, var, as_json=as_json)
        return
    from lepton_pipelines.cli.at_hub import own_file

    file = organisation or own_file(pipeline, spec)
    contribution_at_hub(pipeline, organisation=file, home=home, run_id=resume, var=var, as_json=as_json)


def contribution_at_hub(
    pipeline: "Pipeline",
    *,
    organisation: Path,
    home: Path | None,
    run_id: str | None,
    var: Path,
    by: str = "run",
    as_json: bool = False,
) -> None:
    """Take part in a report at a hub, and print it; without `run_id` propose a new one to the others.

    Ends the command with code 75 if it was suspended: it can be gone on with.
    """
    from lepton_pipelines.cli.at_hub import SUSPENDED_CODE, Started
    from lepton_pipelines.federation.grpc_member import RunSuspended
    from lepton_pipelines.organisation.contribution_at_hub import ContributionPart
    from lepton_pipelines.organisation.folder import RunFolder
    from lepton_pipelines.organisation.home import home_of
    from lepton_pipelines.organisation.outcome import SPEC_FILE
    from lepton_pipelines.spec.organisation import read_organisation
    from lepton_pipelines.sums import SumAborted

    run, own = run_id or _new_run(), read_organisation(organisation)
    keys, folder = home_of(own, home), RunFolder(var, run)
    folder.create()
    folder.write(SPEC_FILE, pipeline.with_contract_inside().model_dump_json(indent=2))
    Started(organisation, keys.folder, by).keep(folder.path)
    typer.echo(f"run        {run}: {', '.join(pipeline.members)}, as {own.organisation}", err=True)
    part = ContributionPart(pipeline, own, run, var, keys, lambda line: typer.echo(line, err=True))
    try:
        report = part.measure()
    except RunSuspended as error:
        typer.secho(
            f"{error}\nIt belongs to a contribution report: go on with lepton market contribution SPEC --resume {run}",
            fg=typer.colors.YELLOW,
            err=True,
        )
        raise typer.Exit(SUSPENDED_CODE) from None
    except SumAborted as error:
        raise UserError(f"run {run} was ended: {error}") from error
    except UserError:
        if not folder.of(own.organisation).path.exists():
            folder.discard()
        raise
    _deliver(report, folder, f"{keys.folder / 'ledger'}", as_json=as_json)


def _in_process(pipeline: "Pipeline", var: Path, *, as_json: bool) -> None:
    from flows.in_step import all_in_step
    from lepton_pipelines.organisation.contribution import measure
    from lepton_pipelines.organisation.contribution_record import record_contribution
    from lepton_pipelines.organisation.folder import RunFolder

    run = _new_run()
    report, trainings = measure(pipeline, run, var, all_in_step, lambda line: typer.echo(line, err=True))
    size = record_contribution(report, trainings, var)
    _deliver(report, RunFolder(var, run), f"{size} entries", as_json=as_json)


def _new_run() -> str:
    import secrets
    from datetime import datetime

    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}-contribution"


def _deliver(report: "ContributionReport", folder: "RunFolder", ledger: str, *, as_json: bool) -> None:
    """Write the report into the run's folder and print it. ledger: what is said of it."""
    from lepton_pipelines.evaluation.contribution import contribution_plot

    written = folder.write("contribution.json", report.model_dump_json(indent=2))
    plot = folder.write("contribution.svg", contribution_plot(report))
    if as_json:
        typer.echo(report.model_dump_json())
        return
    _print(report)
    typer.echo(f"\nreport     {written}\nplot       {plot}\nledger     {ledger}")


def _print(report: "ContributionReport") -> None:
    metric, held_out = report.metric, "fewer than 20" if report.rows is None else f"{report.rows:,}"
    typer.echo(f"{report.pipeline}: {metric} on {held_out} held-out rows of all organisations\n")
    typer.echo(f"{'trained':<28} {metric:>10}  {'added':>10}  {'rounds':>6}")
    typer.echo(f"{'with all':<28} {report.scores[metric]:>10.4f}  {'':>10}  {report.trees:>6}")
    for one in report.added:
        typer.echo(
            f"{'without ' + one.organisation:<28} {one.scores[metric]:>10.4f}  {one.added:>+10.4f}  {one.trees:>6}"
        )
    typer.echo(f"\n{report.trainings} trainings, {report.seconds:.1f} s")
    for told in report.reveals:
        typer.echo(f"shown      {told}")
