"""`lepton deploy`: register a pipeline at a Prefect server."""

from pathlib import Path

import typer

from lepton_pipelines.cli.embedded import quieten, server_is_configured
from lepton_pipelines.spec.errors import UserError


def deploy(spec: Path, *, var: Path, pool: str) -> None:
    """Register the pipeline and say what will happen, and what is still needed for that."""
    quieten()
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
        register(pipeline, var=var, pool=pool)
    except httpx.TransportError as error:
        raise UserError(f"Prefect at {PREFECT_API_URL.value()} cannot be reached ({error}). Is it running?") from error
    typer.echo(f"  deployment  federated-retrain/{pipeline.name}")
    schedule = pipeline.schedule
    if schedule is None:
        typer.echo("  schedule    none: it runs when it is started")
    else:
        when = f"cron {schedule.cron}" if schedule.cron else f"every {schedule.interval}"
        typer.echo(f"  schedule    {when}, {schedule.timezone}; one run at a time")
    typer.echo(f"  worker      prefect worker start --pool {pool}")
    typer.echo(f"  run now     prefect deployment run federated-retrain/{pipeline.name}")
