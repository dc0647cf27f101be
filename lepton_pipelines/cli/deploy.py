"""`lepton deploy`: register a pipeline at a Prefect server."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lepton_pipelines.cli.embedded import quieten, server_is_configured
from lepton_pipelines.cli.prefect_server import naming_what_is_wrong
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.spec.pipeline import Pipeline

NEVER = "never"


def deploy(
    spec: Path,
    *,
    var: Path,
    pool: str,
    watch: str,
    organisation: Path | None,
    home: Path | None,
    proposes: bool = False,
) -> None:
    """Register the pipeline and say what will happen, and what is still needed for that.

    watch: cron line of the watch for drift, or never. organisation, home: with a hub, register this organisation's
    parts, by its own file and the folder with its keys; without, what starts everybody's parts. proposes: the
    organisation begins runs by itself, at which the others take part through their agents.
    """
    quieten()
    _check_cron(watch)
    from lepton_pipelines.spec.pipeline import read_pipeline

    pipeline = read_pipeline(spec)
    pipeline.read_contract()
    if pipeline.federation != "in-process":
        _deploy_at_hub(pipeline, organisation, home, var=var, pool=pool, watch=watch, proposes=proposes)
        return
    if organisation is not None or home is not None or proposes:
        raise UserError(
            f"{spec}: federation is in-process, where --organisation, --home and --proposes say nothing. "
            "Leave them out."
        )
    pipeline.read_organisations()
    with _server() as flows:
        flows.deploy(pipeline, var=var, pool=pool, watch=None if watch == NEVER else watch)
    typer.echo(f"  deployment  federated-retrain/{pipeline.name}")
    _say_schedule(pipeline)
    _say_watch(watch, f"watch-drift/{pipeline.name}")
    typer.echo(f"  worker      prefect worker start --pool {pool}")
    typer.echo(f"  run now     prefect deployment run federated-retrain/{pipeline.name}")


def deploy_pool_jobs(
    name: str, offer: str, file: Path, *, home: Path | None, var: Path, pool: str, minutes: int
) -> None:
    """Register what does an offer's jobs in a work pool of the owner's own Prefect server."""
    quieten()
    with _server() as flows:
        deployment = flows.deploy_pool_jobs(
            name, offer, file, home=home, var=var, pool=pool, every=timedelta(minutes=minutes)
        )
    typer.echo(f"  deployment  {deployment}")
    typer.echo(f"  schedule    every {minutes} min; one run at a time")
    typer.echo(f"  worker      prefect worker start --pool {pool}")


def _deploy_at_hub(
    pipeline: "Pipeline",
    organisation: Path | None,
    home: Path | None,
    *,
    var: Path,
    pool: str,
    watch: str,
    proposes: bool,
) -> None:
    """Register one organisation's parts at its pool, or what starts all parts."""
    cron = None if watch == NEVER else watch
    if organisation is not None:
        _deploy_part(pipeline, organisation, home, var=var, pool=pool, watch=cron, proposes=proposes)
        return
    if proposes:
        raise UserError("--proposes needs the file of the organisation that begins runs: --organisation north.yaml")
    with _server():
        from flows import deploying_at_hub

        deploying_at_hub.deploy_starter(pipeline, pool=pool, watch=cron)
    typer.echo(f"  deployment  retrain-on-pools/{pipeline.name}")
    _say_schedule(pipeline)
    _say_watch(watch, f"watch-on-pools/{pipeline.name}")
    typer.echo(f"  parts       {', '.join(pipeline.members)}: each by lepton deploy --organisation, at its own pool")
    typer.echo(f"  worker      prefect worker start --pool {pool}")
    typer.echo(f"  run now     prefect deployment run retrain-on-pools/{pipeline.name}")


def _deploy_part(
    pipeline: "Pipeline",
    organisation: Path,
    home: Path | None,
    *,
    var: Path,
    pool: str,
    watch: str | None,
    proposes: bool,
) -> None:
    with _server():
        from flows import deploying_at_hub
        from flows.on_pools import WATCH, part_name
        from lepton_pipelines.spec.organisation import read_organisation

        name = read_organisation(organisation).organisation
        if proposes and deploying_at_hub.has_starter(pipeline):
            raise UserError(
                f"This Prefect server starts every part of {pipeline.name} at its pool (retrain-on-pools/"
                f"{pipeline.name}), and {name} would train a second time by itself. Leave --proposes out, or delete "
                "that deployment."
            )
        files = deploying_at_hub.PartFiles(organisation, home, var)
        deploying_at_hub.deploy_part(pipeline, files, pool=pool, proposes=proposes, watch=watch)
    typer.echo(f"  deployment  {part_name(pipeline.name, name)}")
    if proposes:
        _say_schedule(pipeline)
        _say_watch(watch or NEVER, part_name(pipeline.name, name, WATCH))
    if name == pipeline.publisher:
        typer.echo(f"  decisions   promote/{pipeline.name} asks a person, rollback/{pipeline.name} goes back")
    typer.echo(f"  worker      prefect worker start --pool {pool}")


def _say_watch(watch: str, deployment: str) -> None:
    typer.echo(f"  drift       {'only by hand' if watch == NEVER else f'cron {watch}'}: {deployment}")


def _say_schedule(pipeline: "Pipeline") -> None:
    schedule = pipeline.schedule
    if schedule is None:
        typer.echo("  schedule    none: it runs when it is started")
    else:
        when = f"cron {schedule.cron}" if schedule.cron else f"every {schedule.interval}"
        typer.echo(f"  schedule    {when}, {schedule.timezone}; one run at a time")


@contextmanager
def _server() -> Iterator[Any]:
    """Give what registers at the Prefect server. Raises UserError if none is configured or it cannot be reached."""
    if not server_is_configured():
        raise UserError(
            "No Prefect server is configured, and a deployment needs one that stays. Start one with "
            "`prefect server start` and set PREFECT_API_URL to its address."
        )
    from flows import deploying

    with naming_what_is_wrong():
        yield deploying


def _check_cron(watch: str) -> None:
    from pydantic import ValidationError

    from lepton_pipelines.spec.schedule import Schedule

    if watch == NEVER:
        return
    try:
        Schedule(cron=watch)
    except ValidationError as error:
        raise UserError(f"--watch {error.errors()[0]['msg']}. Or write: --watch never") from error
