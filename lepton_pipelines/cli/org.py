"""`lepton org`: an organisation's keys, its hub, and its part in runs that others propose."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_pipelines.cli.hub import LogJson, Metrics
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.federation.wire import federation_pb2 as wire

app = typer.Typer(name="org", help="Be an organisation: keys, hub, runs.", no_args_is_help=True, rich_markup_mode=None)

Home = Annotated[Path, typer.Option("--home", help="The organisation's folder: keys and runs. Nobody else reads it.")]
Var = Annotated[Path, typer.Option("--var", help="Where runs, models and records are kept.")]
Told = Annotated[
    str | None, typer.Option("--fingerprint", help="As it was read out; asked for if not given.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]
HOME = Path("organisation")


@app.command()
def init(organisation: Annotated[str, typer.Argument(help="Its name.")], home: Home = HOME) -> None:
    """Create the organisation's keys at home, and show its fingerprint."""
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    created = OrganisationHome.create(home, organisation)
    typer.echo(f"{organisation}'s keys are in {home}, readable by their owner alone")
    typer.echo(f"fingerprint  {created.request().fingerprint}")


@app.command()
def request(
    home: Home = HOME,
    renew: Annotated[bool, typer.Option("--renew", help="Fetch a new certificate from the hub.")] = False,
) -> None:
    """Write what the hub's operator and the other organisations need to know of this one; no secret is in it."""
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    mine = OrganisationHome(home)
    asked = mine.request()
    if renew:
        connection = HubConnection(mine.credentials(), patience=10.0)
        try:
            mine.renew(connection.renew(asked.model_dump_json().encode()))
        finally:
            connection.close()
        typer.echo(f"{asked.organisation} has a certificate until {mine.credentials().expires:%Y-%m-%d}")
        return
    path = home / f"{asked.organisation}.request"
    path.write_text(asked.model_dump_json(indent=1))
    typer.echo(f"wrote {path}: send it to the hub's operator and to the other organisations")
    typer.echo(f"fingerprint  {asked.fingerprint}")
    typer.echo("Read it out to them over another channel: they compare.")


@app.command()
def accept(
    admission: Annotated[Path, typer.Argument(exists=True, help="The file that the hub's operator sent.")],
    fingerprint: Told = None,
    home: Home = HOME,
) -> None:
    """Take in a hub's admission after comparing the hub's fingerprint."""
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    told = fingerprint or typer.prompt("the hub's fingerprint, as its operator reads it out", type=str)
    accepted = OrganisationHome(home).accept(admission.read_bytes(), fingerprint=told)
    typer.echo(f"{accepted.organisation} is a member of the hub at {accepted.address}")


@app.command()
def trust(
    request: Annotated[Path, typer.Argument(exists=True, help="Another organisation's request file.")],
    fingerprint: Told = None,
    home: Home = HOME,
) -> None:
    """Take in another organisation's key after comparing its fingerprint with that organisation itself."""
    from lepton_pipelines.identity.onboarding import read_request
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    other = read_request(request.read_bytes()).organisation
    told = fingerprint or typer.prompt(f"fingerprint, as {other} reads it out", type=str)
    OrganisationHome(home).trust(request.read_bytes(), fingerprint=told)
    typer.echo(f"{other}'s key is trusted from now on")


@app.command()
def propose(
    pipeline: Annotated[Path, typer.Argument(exists=True, help="The shared pipeline file.")],
    run: Annotated[str | None, typer.Option(help="The run's id; drawn if not given.", show_default=False)] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Compare rows for drift instead of training.")] = False,
    home: Home = HOME,
) -> None:
    """Invite the pipeline's organisations to a run; this one's part is done by serve, or by `lepton org run`."""
    import datetime as dt
    import secrets

    from lepton_pipelines.federation.proposal import hub_of, proposed_manifest
    from lepton_pipelines.federation.runs import propose as propose_to_hub
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.spec.pipeline import read_pipeline

    mine, spec = OrganisationHome(home), read_pipeline(pipeline)
    run_id = run or f"{dt.datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}{'-drift' if watch else ''}"
    manifest = proposed_manifest(spec, mine, run_id, "watch" if watch else "training")
    propose_to_hub(manifest, mine, address=hub_of(spec).hub)
    typer.echo(run_id)


@app.command()
def run(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    pipeline: Annotated[Path, typer.Option(exists=True, help="This organisation's copy of the pipeline file.")],
    organisation: Annotated[Path, typer.Option(exists=True, help="This organisation's own file.")],
    home: Home = HOME,
    var: Var = Path("var"),
    by: Annotated[str, typer.Option(hidden=True)] = "run",
) -> None:
    """Do this organisation's part of a run that was proposed: check it against the policy, sign it, train or watch."""
    from lepton_pipelines.cli.at_hub import run_at_hub, watch_at_hub
    from lepton_pipelines.cli.embedded import quieten
    from lepton_pipelines.federation.proposal import hub_of
    from lepton_pipelines.federation.runs import invitation
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.spec.pipeline import read_pipeline

    quieten()
    spec = read_pipeline(pipeline)
    manifest = invitation(run_id, OrganisationHome(home), address=hub_of(spec).hub)
    if manifest is None:
        raise UserError(f"the hub at {hub_of(spec).hub} has no run {run_id} that this organisation is invited to.")
    if manifest.kind == "watch":
        watch_at_hub(spec, organisation=organisation, home=home, run_id=run_id, var=var, by=by)
        return
    if manifest.series is not None:
        whole = manifest.series.run
        raise UserError(f"run {run_id} is a part of {whole}: take part in that one, with lepton org run {whole}")
    if manifest.kind == "contribution":
        from lepton_pipelines.cli.market_contribution import contribution_at_hub

        contribution_at_hub(spec, organisation=organisation, home=home, run_id=run_id, var=var, by=by)
        return
    run_at_hub(spec, spec=pipeline, organisation=organisation, home=home, run_id=run_id, var=var, by=by)


@app.command()
def serve(
    organisation: Annotated[Path, typer.Option(exists=True, help="This organisation's own file.")],
    pipeline: Annotated[list[Path], typer.Option(exists=True, help="Pipelines that may run here; give several.")],
    home: Home = HOME,
    var: Var = Path("var"),
    metrics: Metrics = None,
    log_json: LogJson = None,
) -> None:
    """Wait for invitations and take part in those that the policy allows, until stopped. Dials out only.

    Only pipelines that stand here are run, found by their digests: nothing that a hub sends is executed.
    """
    from lepton_pipelines.cli.serving import Serving
    from lepton_pipelines.monitoring.metrics import OrganisationMetrics, served_metrics

    serving = Serving(organisation, pipeline, home, var, log_json=log_json)
    with served_metrics(metrics, OrganisationMetrics([var], serving.waiting.copy)):
        serving.until_stopped()


@app.command()
def metrics(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="Where to answer Prometheus.")],
    var: Annotated[list[Path], typer.Option("--var", help="Where runs are kept; give several.")] = [Path("var")],  # noqa: B006 - typer reads it
) -> None:
    """Answer Prometheus with what the runs below working folders tell, until stopped; where no `serve` runs."""
    import signal
    import threading

    from lepton_pipelines.monitoring.metrics import OrganisationMetrics, served_metrics

    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    with served_metrics(address, OrganisationMetrics(var)) as port:
        typer.echo(f"metrics on port {port}")
        stopped.wait()


@app.command()
def clear(
    organisation: Annotated[Path, typer.Option(exists=True, help="This organisation's own file.")],
    home: Home = HOME,
    var: Var = Path("var"),
    days: Annotated[
        int | None, typer.Option(min=1, help="Instead of policy.kept_days of the file.", show_default=False)
    ] = None,
) -> None:
    """Delete journals, checkpoints, rows set aside and logs of runs that were over for the days that the policy says.

    `lepton org serve` does it by itself. Models, reports, the ledger and what the rules at home remember are kept.
    """
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.organisation.retention import clear_over, runs_under_way
    from lepton_pipelines.spec.organisation import read_organisation

    mine, own = OrganisationHome(home), read_organisation(organisation)
    if own.organisation != mine.organisation:
        raise UserError(f"{home} holds the keys of {mine.organisation}, {organisation} is {own.organisation}'s.")
    kept = days or own.policy.kept_days
    if kept is None:
        raise UserError(
            f"{organisation} does not say how long runs are kept: write policy: {{kept_days: 90}}, or name --days."
        )
    connection = HubConnection(mine.credentials(), patience=10.0)
    try:
        under_way = runs_under_way(connection)
    finally:
        connection.close()
    cleared = clear_over(mine, var, days=kept, under_way=under_way)
    for one in cleared:
        typer.echo(f"  run {one.run}: {one.files} files deleted, {one.bytes / 1e6:.1f} MB")
    if not cleared:
        typer.echo(f"no run was over for {kept} days")


@app.command()
def status(home: Home = HOME, as_json: AsJson = False) -> None:
    """Show the organisation's certificate, its runs at the hub and who is late, and what it refused."""
    import datetime as dt
    import json

    from lepton_pipelines.cli.run_listing import going_on, show_runs, standing

    told = _status(home)
    if as_json:
        typer.echo(json.dumps(told))
        return
    left = (dt.datetime.fromisoformat(told["certificate_until"]) - dt.datetime.now(dt.UTC)).days
    typer.echo(f"{told['organisation']} at {told['hub']}, certificate for {left} more days")
    under_way = ("inviting", "running")
    for one in told["runs"]:
        stands = standing(one["status"], reason=one["reason"], lost=one["lost"], successor=one["continued_as"] or "")
        one.update(state=one["status"], line=going_on(one) if one["status"] in under_way else stands)
    show_runs(told["runs"])
    for one in told["refused"]:
        at = dt.datetime.fromisoformat(one["at"]).astimezone()
        typer.echo(f"  {at:%Y-%m-%d %H:%M} refused {one['run']}: {one['reason']}")


def _status(home: Path) -> dict[str, Any]:
    """Return what `status` shows: times in ISO 8601, UTC."""
    import datetime as dt

    from lepton_pipelines.federation.home_rules import RunHistory
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    mine = OrganisationHome(home)
    credentials = mine.credentials()
    connection = HubConnection(credentials, patience=5.0)
    try:
        runs = [_run(one) for one in connection.runs()]
    finally:
        connection.close()
    history = RunHistory(home)
    refused = [
        {"run": run_id, "at": dt.datetime.fromtimestamp(at, dt.UTC).isoformat(), "reason": reason}
        for run_id, at, reason in history.refusals()
    ]
    history.close()
    return {
        "organisation": mine.organisation,
        "hub": credentials.address,
        "certificate_until": credentials.expires.isoformat(),
        "runs": runs,
        "refused": refused,
    }


def _run(one: "wire.RunStatus") -> dict[str, Any]:
    seen = {name: one.seconds_since_seen.get(name) for name in one.missing}
    late = {name: None if seconds is None else round(seconds) for name, seconds in seen.items()}
    return {
        "run": one.run,
        "status": one.status,
        "reason": one.reason,
        "sum": one.number,
        "step": one.step,
        "bytes": one.bytes,
        "seconds_since_seen_of_missing": late,
        "seconds_left": round(one.seconds_left),
        "lost": list(one.lost),
        "continued_as": one.successor or None,
    }
