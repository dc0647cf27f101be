"""`lepton pool`: computers on offer, reservations, and work without private rows. Exit codes: 0; 2 for a refusal."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lepton_pipelines.cli.market_options import HOME, VAR, As, AsJson, Home, Var, Why, Words, kept_in, place_of
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.ledger.compute_entries import WorkKind
    from lepton_pipelines.pool.serving import Ended

app = typer.Typer(
    name="pool",
    help="Offer computers, reserve some, have work done there.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Offer = Annotated[str, typer.Argument(metavar="OFFER", help="OWNER/NAME.", show_default=False)]
Reserved = Annotated[str, typer.Argument(metavar="RESERVATION", help="As reserve prints it.", show_default=False)]
Spec = Annotated[Path, typer.Argument(metavar="SPEC", exists=True, help="The offer's YAML file.")]
POLL_SECONDS = 5.0


@app.command()
def offer(spec: Spec, home: Home = HOME, name: As = None, var: Var = VAR) -> None:
    """Offer a Dask cluster, or change an offer. Its address stays at home: work comes to it as data."""
    from lepton_pipelines.pool.offers import offer_compute as command

    told, version, written = command(place_of(home, name, var), spec)
    typer.echo(f"{told} is on offer, version {version}" + ("" if written else ": nothing has changed"))


@app.command()
def withdraw(told: Offer, reason: Why, home: Home = HOME, name: As = None, var: Var = VAR) -> None:
    """Offer computers no longer."""
    from lepton_pipelines.pool.offers import withdraw_compute as command

    command(place_of(home, name, var), told, reason)
    typer.echo(f"{told} is not on offer any more")


@app.command()
def offers(
    text: Words = "",
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """List computers on offer."""
    from lepton_pipelines.pool.offers import compute_offers

    found = compute_offers(place_of(home, name, var), text)
    if as_json:
        typer.echo(json.dumps([one.summary() for one in found]))
        return
    for one in found:
        terms = one.terms
        more = f", {terms.accelerators} {terms.accelerator}" if terms.accelerators else ""
        when = ", ".join(terms.hours) or "always"
        typer.echo(
            f"{one.id:<28} {terms.cores:>4} cores  {_size(terms.memory):>8}{more}  {when}  {one.described.title}"
        )
    if not found:
        typer.echo("nothing is on offer that fits")


@app.command()
def reserve(
    work: Annotated[str, typer.Option(help="benchmark, tuning or scoring.")],
    cores: Annotated[int, typer.Option(min=1, help="Worker threads at once.")],
    memory: Annotated[str, typer.Option(help="Such as 4 GB.")],
    hours: Annotated[float, typer.Option(min=0.01, max=744, help="How long.")],
    accelerators: Annotated[int, typer.Option(min=0, help="How many.")] = 0,
    start: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%dT%H:%M"], help="UTC; unset: now.", show_default=False)
    ] = None,
    where: Annotated[
        str | None, typer.Option("--offer", help="OWNER/NAME; unset: where there is room.", show_default=False)
    ] = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Reserve computers: on an offer, or on the best that has room. Prints the reservation."""
    from lepton_pipelines.pool.jobs import KINDS
    from lepton_pipelines.pool.reserving import Wanted
    from lepton_pipelines.pool.reserving import reserve as command
    from lepton_pipelines.spec.organisation import memory_of

    if work not in KINDS:
        raise UserError(
            f"--work {work!r} is not done in the pool, which takes {', '.join(KINDS)}. Training on private rows stays "
            "where the rows are: lepton run"
        )
    wanted = Wanted(
        cast("WorkKind", work),
        cores,
        memory_of(memory),
        hours,
        accelerators,
        None if start is None else start.replace(tzinfo=UTC),
    )
    held = command(place_of(home, name, var), wanted, where).reserved
    typer.echo(f"{held.reservation}\n{held.cores} cores of {held.offer} from {held.start} to {held.end}")


@app.command()
def release(told: Reserved, reason: Why, home: Home = HOME, name: As = None, var: Var = VAR) -> None:
    """End a reservation now: one's own, or one of one's own computers."""
    from lepton_pipelines.pool.reserving import release as command

    command(place_of(home, name, var), told, reason)
    typer.echo(f"{told} is released")


@app.command()
def run(
    told: Reserved,
    job: Annotated[Path, typer.Argument(metavar="JOB", exists=True, help="The job's YAML file.")],
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Ask for some work under a reservation; prints the job. Its owner's `lepton pool serve` does it."""
    from lepton_pipelines.pool.jobs import ask, read_job

    typer.echo(ask(place_of(home, name, var), told, read_job(job), _jobs(home, name, var)))


@app.command()
def result(
    job: Annotated[str, typer.Argument(metavar="JOB", help="As run prints it.", show_default=False)],
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
    as_json: AsJson = False,
) -> None:
    """Show what came of a job. Exit code 1 while it is not done, or if it failed."""
    from lepton_pipelines.pool.serving import result_of

    ended = result_of(place_of(home, name, var), job)
    if as_json:
        told = {"outcome": "asked"} if ended is None else _told(ended)
        typer.echo(json.dumps({"job": job, **told}))
    elif ended is None:
        typer.echo(f"{job} is not done yet")
    else:
        _print(ended)
    if ended is None or ended.outcome != "done":
        raise typer.Exit(1)


@app.command()
def serve(
    spec: Spec,
    once: Annotated[bool, typer.Option("--once", help="Do what is asked now, and end.")] = False,
    mlflow: Annotated[str | None, typer.Option(help="For scoring; unset: below --var.", show_default=False)] = None,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Do what is asked of an offer of one's own, on one's own cluster, until Ctrl-C."""
    from lepton_pipelines.data.storage import open_url
    from lepton_pipelines.pool.offers import OfferFile
    from lepton_pipelines.pool.serving import serve_once
    from lepton_pipelines.pool.work import Bench
    from lepton_pipelines.registry.tracking import open_tracking
    from lepton_pipelines.spec.yaml_file import read_model

    told = read_model(OfferFile, spec)
    place, cache = place_of(home, name, var), kept_in(home, name, var, "products")
    bench = Bench(place, cache, open_url, lambda: open_tracking(mlflow, folder=var.absolute()))
    while True:
        for ended in serve_once(bench, told, _jobs(home, name, var), lambda line: typer.echo(line, err=True)):
            _print(ended)
        if once:
            return
        time.sleep(POLL_SECONDS)


@app.command()
def deploy(
    spec: Spec,
    work_pool: Annotated[str, typer.Option("--pool", help="A Prefect work pool of one's own.")],
    minutes: Annotated[int, typer.Option("--every", min=1, help="Minutes between looks for jobs.")] = 5,
    home: Home = HOME,
    name: As = None,
    var: Var = VAR,
) -> None:
    """Have what is asked of an offer done in a work pool of one's own Prefect server, instead of by serve."""
    from lepton_pipelines.cli.deploy import deploy_pool_jobs
    from lepton_pipelines.pool.offers import OfferFile, compute_offer
    from lepton_pipelines.spec.yaml_file import read_model

    told, place = read_model(OfferFile, spec), place_of(home, name, var)
    compute_offer(place, told.id)
    if place.organisation != told.organisation:
        raise UserError(f"{told.id} is {told.organisation}'s, but you speak for {place.organisation}.")
    where = None if name else home
    deploy_pool_jobs(told.organisation, told.offer, spec, home=where, var=var, pool=work_pool, minutes=minutes)


@app.command()
def status(home: Home = HOME, name: As = None, var: Var = VAR, as_json: AsJson = False) -> None:
    """Show what is free and reserved, and core-hours: reserved, and as Dask measured them, those of runs as well."""
    from lepton_pipelines.organisation.core_hours import core_hours_of_runs
    from lepton_pipelines.pool.status import status as command

    told = command(place_of(home, name, var))
    told["core_hours"]["by_training"] = core_hours_of_runs(var)
    if as_json:
        typer.echo(json.dumps(told))
        return
    for one in told["offers"]:
        free = one["free"]
        typer.echo(f"{one['offer']:<28} {free['cores']} of {one['cores']} cores free, {_size(free['memory'])}")
    for one in told["reservations"]:
        jobs = ", ".join(f"{each['job']} {each['outcome']}" for each in one["jobs"]) or "no work asked"
        where = f"{one['cores']} cores of {one['offer']} for {one['holder']}"
        typer.echo(f"{one['reservation']:<12} {one['state']:<8} {where}, {one['start']} to {one['end']}: {jobs}")
    for organisation, hours in told["core_hours"]["by_organisation"].items():
        typer.echo(f"{organisation:<28} {hours['reserved']:.3g} core-hours reserved, {hours['measured']:.3g} measured")
    for trained, by_name in told["core_hours"]["by_training"].items():
        spent = ", ".join(f"{organisation} {hours:.3g}" for organisation, hours in by_name.items())
        typer.echo(f"{trained:<28} {spent} core-hours on their own workers")


def _jobs(home: Path, name: str | None, var: Path) -> Path:
    """Return where jobs that stay at home are kept."""
    return var / "pool" / name if name else home / "pool"


def _told(ended: "Ended") -> dict[str, Any]:
    return {"outcome": ended.outcome, "core_seconds": ended.core_seconds, "result": ended.result}


def _print(ended: "Ended") -> None:
    typer.echo(f"{ended.job} {ended.outcome}, {ended.core_seconds:.3g} core-seconds: {json.dumps(ended.result)}")


def _size(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
