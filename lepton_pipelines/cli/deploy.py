"""`lepton deploy`: register a pipeline at a Prefect server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lepton_pipelines.cli.embedded import quieten, server_is_configured
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.spec.pipeline import Pipeline

NEVER = "never"


def deploy(spec: Path, *, var: Path, pool: str, watch: str, organisation: Path | None, home: Path | None) -> None:
    """Register the pipeline and say what will happen, and what is still needed for that.

    watch: cron line of the watch for drift, or never. organisation, home: with a hub, register this organisation's
    part, by its own file and the folder with its keys; without, what starts everybody's parts.
    """
    quieten()
    _check_cron(watch)
    from lepton_pipelines.spec.pipeline import read_pipeline

    pipeline = read_pipeline(spec)
    pipeline.read_contract()
    if pipeline.federation != "in-process":
        _deploy_at_hub(pipeline, organisation, home, var=var, pool=pool)
        return
    if organisation is not None or home is not None:
        raise UserError(
            f"{spec}: federation is in-process, where --organisation and --home say nothing. Leave them out."
        )
    pipeline.read_organisations()
    with _server() as flows:
        flows.deploy(pipeline, var=var, pool=pool, watch=None if watch == NEVER else watch)
    typer.echo(f"  deployment  federated-retrain/{pipeline.name}")
    _say_schedule(pipeline)
    typer.echo(f"  drift       {'only by hand' if watch == NEVER else f'cron {watch}'}: watch-drift/{pipeline.name}")
    typer.echo(f"  worker      prefect worker start --pool {pool}")
    typer.echo(f"  run now     prefect deployment run federated-retrain/{pipeline.name}")


def _deploy_at_hub(pipeline: "Pipeline", organisation: Path | None, home: Path | None, *, var: Path, pool: str) -> None:
    """Register one organisation's part at its pool, or what starts all parts."""
    if organisation is None:
        with _server() as flows:
            flows.deploy_starter(pipeline, pool=pool)
        typer.echo(f"  deployment  retrain-on-pools/{pipeline.name}")
        _say_schedule(pipeline)
        typer.echo(
            f"  parts       {', '.join(pipeline.members)}: each by lepton deploy --organisation, at its own pool"
        )
        typer.echo(f"  worker      prefect worker start --pool {pool}")
        typer.echo(f"  run now     prefect deployment run retrain-on-pools/{pipeline.name}")
        return
    with _server() as flows:
        flows.deploy_part(pipeline, organisation, home=home, var=var, pool=pool)
        from flows.on_pools import part_name
        from lepton_pipelines.spec.organisation import read_organisation

        name = read_organisation(organisation).organisation
        typer.echo(f"  deployment  {part_name(pipeline.name, name)}")
    typer.echo(f"  worker      prefect worker start --pool {pool}")


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
    import httpx
    from prefect.settings import PREFECT_API_URL

    from flows import deploying

    try:
        yield deploying
    except httpx.TransportError as error:
        raise UserError(f"Prefect at {PREFECT_API_URL.value()} cannot be reached ({error}). Is it running?") from error


def _check_cron(watch: str) -> None:
    from pydantic import ValidationError

    from lepton_pipelines.spec.schedule import Schedule

    if watch == NEVER:
        return
    try:
        Schedule(cron=watch)
    except ValidationError as error:
        raise UserError(f"--watch {error.errors()[0]['msg']}. Or write: --watch never") from error
