"""`lepton org`: an organisation's keys, its hub, and its part in runs that others propose."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.federation.manifest import Manifest
    from lepton_pipelines.federation.wire import federation_pb2 as wire
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.spec.pipeline import Pipeline

app = typer.Typer(name="org", help="Be an organisation: keys, hub, runs.", no_args_is_help=True, rich_markup_mode=None)

Home = Annotated[Path, typer.Option("--home", help="The organisation's folder: keys and runs. Nobody else reads it.")]
Var = Annotated[Path, typer.Option("--var", help="Where runs, models and records are kept.")]
Told = Annotated[
    str | None, typer.Option("--fingerprint", help="As it was read out; asked for if not given.", show_default=False)
]
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
    home: Home = HOME,
) -> None:
    """Invite the pipeline's organisations to a run at the hub."""
    import secrets

    from lepton_pipelines.federation.runs import propose as propose_to_hub
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.spec.pipeline import read_pipeline

    mine = OrganisationHome(home)
    run_id = run or f"r-{secrets.token_hex(4)}"
    propose_to_hub(_manifest(read_pipeline(pipeline), mine, run_id), mine)
    typer.echo(run_id)


@app.command()
def run(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    pipeline: Annotated[Path, typer.Option(exists=True, help="This organisation's copy of the pipeline file.")],
    organisation: Annotated[Path, typer.Option(exists=True, help="This organisation's own file.")],
    home: Home = HOME,
    var: Var = Path("var"),
) -> None:
    """Do this organisation's part of a run: check it against the policy, sign it, train with the others."""
    import hashlib
    import logging

    from lepton_pipelines.federation.runs import connect
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.organisation.folder import RunFolder
    from lepton_pipelines.organisation.hub_record import recorded_run
    from lepton_pipelines.organisation.run import OrganisationRun
    from lepton_pipelines.spec.organisation import read_organisation
    from lepton_pipelines.spec.pipeline import read_pipeline

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    spec, own = read_pipeline(pipeline), read_organisation(organisation)
    mine = OrganisationHome(home)
    with (
        connect(run_id, mine, policy=own.policy, spec=spec.digest()) as sums,
        recorded_run(sums, mine, spec, mine.admission().address),
    ):
        sums.wait_until_ready()
        part = OrganisationRun(spec, own, sums, RunFolder(var, run_id))
        try:
            part.ingest()
            part.validate()
            part.bin()
            part.train()
            part.evaluate()
            sums.finish(hashlib.sha256(part.model).digest())
        finally:
            part.close()
    digest = hashlib.sha256(part.model).hexdigest()
    typer.echo(f"{own.organisation}: run {run_id} is finished, model {digest[:16]}…")


@app.command()
def serve(
    organisation: Annotated[Path, typer.Option(exists=True, help="This organisation's own file.")],
    pipeline: Annotated[list[Path], typer.Option(exists=True, help="Pipelines that may run here; give several.")],
    home: Home = HOME,
    var: Var = Path("var"),
) -> None:
    """Wait for invitations and take part in those that the policy allows, until stopped. Dials out only.

    Only pipelines that stand here are run, found by their digests: nothing that a hub sends is executed.
    """
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.spec.pipeline import read_pipeline

    known = {read_pipeline(path).digest().hex(): path for path in pipeline}
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    mine = OrganisationHome(home)
    typer.echo(f"{mine.organisation} waits for invitations at {mine.admission().address}")
    parts: dict[str, subprocess.Popen[bytes]] = {}
    refused: set[str] = set()
    while not stopped.is_set():
        connection = HubConnection(mine.credentials())
        try:
            _renew_in_time(mine.credentials().expires.timestamp(), connection, home)
            while not stopped.is_set():
                for invitation in connection.invitations(wait=5.0):
                    if invitation.run in parts or invitation.run in refused:
                        stopped.wait(1.0)
                        continue
                    path = _known_pipeline(invitation, known)
                    if path is None:
                        refused.add(invitation.run)
                        typer.echo(f"refused run {invitation.run}: its pipeline does not stand here")
                        continue
                    parts[invitation.run] = _start(invitation.run, path, organisation, home, var)
                _reap(parts)
        finally:
            connection.close()
    for part in parts.values():
        part.terminate()
    for part in parts.values():
        part.wait(timeout=60)


@app.command()
def status(home: Home = HOME) -> None:
    """Show the organisation's certificate, its runs at the hub and who is late, and what it refused."""
    import datetime as dt

    from lepton_pipelines.federation.home_rules import RunHistory
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    mine = OrganisationHome(home)
    credentials = mine.credentials()
    left = (credentials.expires - dt.datetime.now(dt.UTC)).days
    typer.echo(f"{mine.organisation} at {credentials.address}, certificate for {left} more days")
    connection = HubConnection(credentials, patience=5.0)
    try:
        for one in connection.runs():
            typer.echo(f"  run {one.run}: {_where(one)}")
    finally:
        connection.close()
    history = RunHistory(home)
    for run_id, at, reason in history.refusals():
        typer.echo(f"  {dt.datetime.fromtimestamp(at):%Y-%m-%d %H:%M} refused {run_id}: {reason}")
    history.close()


def _manifest(pipeline: "Pipeline", mine: "OrganisationHome", run_id: str) -> "Manifest":
    """Say what every member is to sign, from the pipeline and the keys that were compared here."""
    import time

    from lepton_pipelines import __version__
    from lepton_pipelines.federation.manifest import Manifest, Member

    keys = {**mine.trusted(), mine.organisation: mine.signer().public}
    strangers = [name for name in pipeline.members if name not in keys]
    if strangers:
        raise UserError(
            [
                f"{name}'s key was never compared here: ask {name} for its request file and its fingerprint, then run "
                f"lepton org trust {name}.request"
                for name in strangers
            ]
        )
    training = pipeline.training.model_dump()
    limits = {name: training.get(name) for name in ("max_depth", "rounds", "max_bin")}
    return Manifest(
        run=run_id,
        pipeline=pipeline.name,
        hub=mine.admission().hub_key,
        members=tuple(
            Member(name=name, key=keys[name].hex(), product=f"{name}/{pipeline.name}")
            for name in sorted(pipeline.members)
        ),
        spec=pipeline.digest().hex(),
        contract=pipeline.read_contract().agreement().hex(),
        code=__version__,
        parameters={name: value for name, value in limits.items() if isinstance(value, int)},
        allow_two_parties=pipeline.allow_two_parties,
        created=int(time.time()),
    )


def _known_pipeline(invitation: "wire.RunStatus", known: dict[str, Path]) -> Path | None:
    from lepton_pipelines.federation.manifest import read_manifest

    return known.get(read_manifest(invitation.manifest).spec)


def _start(run_id: str, pipeline: Path, organisation: Path, home: Path, var: Path) -> subprocess.Popen[bytes]:
    typer.echo(f"takes part in run {run_id}")
    command = [sys.executable, "-c", "from lepton_pipelines.cli import main; main()", "org", "run", run_id]
    for option, path in {"pipeline": pipeline, "organisation": organisation, "home": home, "var": var}.items():
        command += [f"--{option}", str(path)]
    return subprocess.Popen(command)


def _reap(parts: dict[str, subprocess.Popen[bytes]]) -> None:
    """Say how parts ended; a run that was not finished can be resumed by hand."""
    for run_id, part in list(parts.items()):
        code = part.poll()
        if code is not None:
            typer.echo(f"run {run_id} ended with code {code}")
            del parts[run_id]


def _renew_in_time(expires: float, connection: "HubConnection", home: Path) -> None:
    """Fetch a new certificate when a third of the longest lifetime is left."""
    import time

    from lepton_pipelines.identity.organisation_home import OrganisationHome

    if expires - time.time() < 30 * 86400:
        mine = OrganisationHome(home)
        mine.renew(connection.renew(mine.request().model_dump_json().encode()))


def _where(one: "wire.RunStatus") -> str:
    if one.status != "running" or not one.missing:
        return f"{one.status}{f', {one.reason}' if one.reason else ''}"
    late = ", ".join(f"{name} (last seen {one.seconds_since_seen.get(name, 0.0):.0f} s ago)" for name in one.missing)
    return f"sum {one.number}, {one.step}: waiting for {late}; {one.bytes / 1e6:.1f} MB so far"
