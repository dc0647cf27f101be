"""`lepton deploy`: register a pipeline at a Prefect server."""

from pathlib import Path

import typer

from lepton_pipelines.cli.embedded import quieten, server_is_configured
from lepton_pipelines.spec.errors import UserError

NEVER = "never"


def deploy(spec: Path, *, var: Path, pool: str, watch: str) -> None:
    """Register the pipeline and say what will happen, and what is still needed for that.

    watch: cron line of the watch for drift, or never.
    """
    quieten()
    _check_cron(watch)
    from lepton_pipelines.spec.pipeline import read_pipeline

    pipeline = read_pipeline(spec)
    pipeline.read_contract()
    pipeline.read_organisations()
    if not server_is_configured():
        raise UserError(
            "No Prefect server is configured, and a deployment needs one that stays. Start one with "
            "`prefect server start` and set PREFECT_API_URL to its address."
        )
    import httpx
    from prefect.settings import PREFECT_API_URL

    from flows.deploying import deploy as register

    try:
        register(pipeline, var=var, pool=pool, watch=None if watch == NEVER else watch)
    except httpx.TransportError as error:
        raise UserError(f"Prefect at {PREFECT_API_URL.value()} cannot be reached ({error}). Is it running?") from error
    typer.echo(f"  deployment  federated-retrain/{pipeline.name}")
    schedule = pipeline.schedule
    if schedule is None:
        typer.echo("  schedule    none: it runs when it is started")
    else:
        when = f"cron {schedule.cron}" if schedule.cron else f"every {schedule.interval}"
        typer.echo(f"  schedule    {when}, {schedule.timezone}; one run at a time")
    typer.echo(f"  drift       {'only by hand' if watch == NEVER else f'cron {watch}'}: watch-drift/{pipeline.name}")
    typer.echo(f"  worker      prefect worker start --pool {pool}")
    typer.echo(f"  run now     prefect deployment run federated-retrain/{pipeline.name}")


def _check_cron(watch: str) -> None:
    from pydantic import ValidationError

    from lepton_pipelines.spec.schedule import Schedule

    if watch == NEVER:
        return
    try:
        Schedule(cron=watch)
    except ValidationError as error:
        raise UserError(f"--watch {error.errors()[0]['msg']}. Or write: --watch never") from error
