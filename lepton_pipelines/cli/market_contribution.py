"""`lepton market contribution`: what each organisation's rows add to a model, where all of them signed for it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_pipelines.cli.market_options import VAR, AsJson

if TYPE_CHECKING:
    from lepton_pipelines.evaluation.contribution import ContributionReport


def contribution(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", exists=True, dir_okay=False, help="The pipeline's file.")],
    var: Annotated[Path, typer.Option("--var", help="Where runs and records are kept.")] = VAR,
    as_json: AsJson = False,
) -> None:
    """Say what each organisation's rows add: train with all, and without each in turn. All must have signed for it."""
    import secrets
    from datetime import datetime

    from flows.in_step import all_in_step
    from lepton_pipelines.cli.embedded import quieten
    from lepton_pipelines.evaluation.contribution import contribution_plot
    from lepton_pipelines.organisation.checking import check_spec
    from lepton_pipelines.organisation.contribution import measure
    from lepton_pipelines.organisation.contribution_record import record_contribution
    from lepton_pipelines.organisation.folder import RunFolder, check_writable
    from lepton_pipelines.spec.pipeline import read_pipeline

    quieten()
    pipeline = read_pipeline(spec)
    check_spec(pipeline)
    check_writable(var)
    run = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}-contribution"
    report, trainings = measure(pipeline, run, var, all_in_step, lambda line: typer.echo(line, err=True))
    size = record_contribution(report, trainings, var)
    folder = RunFolder(var, run)
    written = folder.write("contribution.json", report.model_dump_json(indent=2))
    plot = folder.write("contribution.svg", contribution_plot(report))
    if as_json:
        typer.echo(report.model_dump_json())
        return
    _print(report)
    typer.echo(f"\nreport     {written}\nplot       {plot}\nledger     {size} entries")


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
