"""`lepton hub`: the relay's own commands, for its operator."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_pipelines.spec.errors import UserError

app = typer.Typer(
    name="hub", help="Run the hub: the relay that organisations dial.", no_args_is_help=True, rich_markup_mode=None
)

Home = Annotated[Path, typer.Option("--home", help="The hub's folder: keys, members, log. Nobody else reads it.")]
HOME = Path("hub")
Metrics = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Answer Prometheus here; unset: nowhere.", show_default=False),
]
KeptDays = Annotated[
    int | None,
    typer.Option(min=1, help="Days that the log keeps runs that are over; unset: for ever.", show_default=False),
]
CLEAR_SECONDS = 3600.0
LogJson = Annotated[
    str | None,
    typer.Option(
        "--log-json",
        envvar="LEPTON_LOG_JSON",
        metavar="FILE",
        help="Log as JSON lines to a file, or - for standard error.",
    ),
]


@app.command()
def init(
    address: Annotated[str, typer.Argument(help="host:port that organisations will dial.")],
    kept_days: KeptDays = None,
    home: Home = HOME,
) -> None:
    """Create the hub's keys and its authority, at home, and show its fingerprint."""
    from lepton_pipelines.identity.hub_home import HubHome

    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"{address} is not host:port, as in hub.example.org:7443.")
    hub = HubHome.create(home, address, kept_days=kept_days)
    typer.echo(f"the hub's keys are in {home}, readable by their owner alone")
    typer.echo(f"fingerprint  {hub.fingerprint}")
    typer.echo("Read it out to every organisation over a channel other than this file's.")


@app.command()
def admit(
    request: Annotated[Path, typer.Argument(exists=True, help="The file that `lepton org request` wrote.")],
    fingerprint: Annotated[
        str | None, typer.Option(help="As the organisation read it out; asked for if not given.", show_default=False)
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="How long the certificate lives.")] = 90,
    home: Home = HOME,
) -> None:
    """Certify an organisation after its fingerprint was compared, and write the answer beside its request."""
    import datetime as dt

    from lepton_pipelines.identity.hub_home import HubHome
    from lepton_pipelines.identity.onboarding import read_request

    asked = read_request(request.read_bytes())
    told = fingerprint or typer.prompt(f"fingerprint, as {asked.organisation} reads it out", type=str)
    admission = HubHome(home).admit(asked, fingerprint=told, lifetime=dt.timedelta(days=days))
    answer = request.with_name(f"{asked.organisation}.admission")
    answer.write_text(admission.model_dump_json(indent=1))
    typer.echo(f"{asked.organisation} is admitted for {days} days. Send it {answer}; nothing in it is secret.")


@app.command()
def revoke(
    organisation: Annotated[str, typer.Argument(help="Whom to shut out.")],
    reason: Annotated[str, typer.Option(help="What the organisation is told.")],
    home: Home = HOME,
) -> None:
    """Shut an organisation out from its next call on; admitting it anew lets it in again."""
    from lepton_pipelines.identity.hub_home import HubHome

    HubHome(home).revoke(organisation, reason)
    typer.echo(f"{organisation} is shut out: {reason}")


@app.command()
def serve(
    listen: Annotated[str, typer.Option(help="Address to listen on.")] = "[::]:7443",
    frames_port: Annotated[
        int, typer.Option(help="Port of the same address that takes vectors faster; -1: the next one.")
    ] = -1,
    home: Home = HOME,
    kept_days: Annotated[
        int | None, typer.Option(min=1, help="Instead of kept_days in the folder's hub.json.", show_default=False)
    ] = None,
    metrics: Metrics = None,
    log_json: LogJson = None,
) -> None:
    """Relay statements and add up masked vectors until stopped; go on with runs from the log."""
    from lepton_pipelines.federation.grpc_hub import HubServer
    from lepton_pipelines.identity.hub_home import HubHome
    from lepton_pipelines.monitoring.json_log import log_of_a_service
    from lepton_pipelines.monitoring.metrics import HubMetrics, served_metrics

    log_of_a_service(log_json)
    hub = HubHome(home)
    days = kept_days or hub.kept_days
    if days is not None:
        _clear(home, days)
    server = HubServer(hub, listen=listen, frames=frames_port)
    try:
        with served_metrics(metrics, HubMetrics(server, hub)) as port, _clearing(home, days):
            stopping = _stop_on_signals(server)
            server.start()
            typer.echo(f"listening on port {server.port}{'' if port is None else f', metrics on port {port}'}")
            server.wait()
            stopping.join()
    except UserError:
        server.stop()
        raise


@app.command()
def clear(
    home: Home = HOME,
    days: Annotated[
        int | None, typer.Option(min=1, help="Instead of kept_days in the folder's hub.json.", show_default=False)
    ] = None,
) -> None:
    """Delete from the log what was said in runs that were over for the days that the hub's settings say.

    `lepton hub serve` does it by itself. Manifests, how runs ended, evidence and the ledger are kept.
    """
    from lepton_pipelines.identity.hub_home import HubHome

    kept = days or HubHome(home).kept_days
    if kept is None:
        raise UserError(
            f'{home / "hub.json"} does not say how long runs are kept: write "kept_days": 90 there, or name --days.'
        )
    if not (home / "hub.sqlite").exists():
        raise UserError(f"{home} holds no log: no hub was ever served from there. Name its folder with --home.")
    if not _clear(home, kept):
        typer.echo(f"no run was over for {kept} days")


def _clear(home: Path, days: int) -> int:
    """Clear the log and say what went; return of how many runs."""
    from contextlib import closing

    from lepton_pipelines.federation.hub_log import HubLog
    from lepton_pipelines.federation.hub_retention import clear_log

    with closing(HubLog(home)) as log:
        cleared = clear_log(log, days=days)
    for one in cleared:
        typer.echo(f"  run {one.run}: {one.statements} statements deleted, {one.bytes / 1e3:.1f} kB")
    return len(cleared)


@contextmanager
def _clearing(home: Path, days: int | None) -> Iterator[None]:
    """Clear the log about once an hour for the length of a block."""
    if days is None:
        yield
        return
    import logging
    import sqlite3

    over = threading.Event()

    def again() -> None:
        while not over.wait(CLEAR_SECONDS):
            try:
                _clear(home, days)
            except sqlite3.OperationalError as error:  # locked, or the disk is full: both can pass
                logging.getLogger("lepton.hub").warning("the log was not cleared: %s. Again in an hour", error)

    thread = threading.Thread(target=again, name="clearing the log")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@app.command()
def status(
    home: Home = HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Show whom the hub admitted, and the runs in its log."""
    import datetime as dt
    import json

    from lepton_pipelines.cli.run_listing import show_runs, standing

    told = _status(home)
    if as_json:
        typer.echo(json.dumps(told))
        return
    typer.echo(f"fingerprint  {told['fingerprint']}")
    now = dt.datetime.now(dt.UTC)
    for member in told["members"]:
        left = (dt.datetime.fromisoformat(member["certificate_until"]) - now).days
        state = f"shut out: {member['shut_out']}" if member["shut_out"] else f"certificate for {left} more days"
        typer.echo(f"  {member['organisation']:<20} {state}")
    for run in told["runs"]:
        stands = standing(
            run["state"], reason=run["reason"] or "", lost=run["lost"], successor=run["continued_as"] or ""
        )
        epoch = "" if run["key_epoch"] is None else f", key epoch {run['key_epoch']}"
        run["line"] = f"{stands}{epoch}; {run['pipeline']}: {', '.join(run['members'])}"
    show_runs(told["runs"])


def _status(home: Path) -> dict[str, Any]:
    """Return what `status` shows: times in ISO 8601, UTC."""
    from lepton_pipelines.federation.hub import ABORTED, CONTINUED
    from lepton_pipelines.federation.hub_log import HubLog
    from lepton_pipelines.federation.manifest import read_manifest
    from lepton_pipelines.identity.hub_home import HubHome

    hub = HubHome(home)
    members = [
        {"organisation": one.name, "certificate_until": one.expires.isoformat(), "shut_out": one.revoked or None}
        for one in hub.members()
    ]
    log, runs = HubLog(home), []
    for run, encoded in log.runs():
        states = [record for record in log.records(run) if record.envelope is None]
        last = states[-1] if states else None
        manifest, reason = read_manifest(encoded), last.reason if last else ""
        state = last.state if last else "inviting"
        runs.append(
            {
                "run": run,
                "pipeline": manifest.pipeline,
                "state": state,
                "key_epoch": last.epoch if last else None,
                "members": list(manifest.names),
                "reason": (reason if state == ABORTED else "") or None,
                "lost": list(last.lost) if last else [],
                "continued_as": reason if state == CONTINUED else None,
            }
        )
    log.close()
    told = {"fingerprint": hub.fingerprint, "members": members, "runs": runs}
    hub.close()
    return told


def _stop_on_signals(server: Any) -> Any:
    """Stop in a thread of its own: a signal handler must not wait."""
    asked = threading.Event()

    def stop() -> None:
        asked.wait()
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    thread = threading.Thread(target=stop, name="stopping the hub")
    thread.start()
    return thread
