"""The commands by name, and how a command ends: exit code 0, 2 for a mistake of the user's, 130 for Ctrl-C.

Each command's work stands in a module of its own, imported when it is called. Groups of commands (`lepton hub`,
`lepton org`, …) are Typer apps in their own modules and are added at the bottom.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lepton_pipelines.cli import (
    data,
    hub,
    ledger,
    market,
    market_algorithms,
    market_contribution,
    model,
    org,
    pool,
    portal,
)
from lepton_pipelines.spec.errors import UserError

app = typer.Typer(
    name="lepton",
    help="Train one XGBoost model together with other organisations, without showing anyone a row.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The pipeline's YAML file.", show_default=False)]
Folder = Annotated[Path, typer.Option("--var", help="Where runs, models and records are kept.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"lepton {version('lepton-pipelines')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
) -> None:
    """Train one XGBoost model together with other organisations, without showing anyone a row."""


@app.command()
def run(
    spec: Annotated[
        Path | None, typer.Argument(metavar="[SPEC]", help="The pipeline's YAML file.", show_default=False)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with this run at its last tree.", show_default=False)
    ] = None,
    organisation: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="With a hub: this organisation's own file (NAME.yaml beside SPEC).", show_default=False
        ),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(help="With a hub: the folder with this organisation's keys (organisation).", show_default=False),
    ] = None,
    var: Folder = Path("var"),
) -> None:
    """Train, evaluate and register a model once: everybody in this process, or with the others through the hub."""
    from lepton_pipelines.cli import run as command

    command.run(spec, resume=resume, var=var, organisation=organisation, home=home)


@app.command()
def publish(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", show_default=False)],
    var: Folder = Path("var"),
) -> None:
    """Deliver what is pending of a run that was trained while MLflow was away: gates, registration, report."""
    from lepton_pipelines.cli import run as command

    command.publish(run, var=var)


@app.command()
def check(
    spec: Spec,
    var: Folder = Path("var"),
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Check a pipeline's files, its data and where its model goes; train nothing."""
    from lepton_pipelines.cli import check as command

    command.check(spec, var=var, as_json=as_json)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="pipeline or organisation.")] = "pipeline",
) -> None:
    """Print the JSON Schema of a spec, for editors that complete and check YAML."""
    from lepton_pipelines.cli import schema as command

    command.schema(kind)


@app.command()
def deploy(
    spec: Spec,
    var: Folder = Path("var"),
    pool: Annotated[str, typer.Option(help="Work pool whose workers run it; made if there is none.")] = "lepton",
    watch: Annotated[
        str, typer.Option(help="Cron line of the watch for drift, in the schedule's time zone; never: only by hand.")
    ] = "0 5 * * *",
    organisation: Annotated[
        Path | None,
        typer.Option(exists=True, help="With a hub: register the part of this own file.", show_default=False),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="With a hub: the folder with this organisation's keys.", show_default=False)
    ] = None,
    proposes: Annotated[
        bool,
        typer.Option(
            "--proposes", help="With --organisation: it begins runs; the others take part by their lepton org serve."
        ),
    ] = False,
) -> None:
    """Register a pipeline at a Prefect server: on its schedule, and in the UI."""
    from lepton_pipelines.cli import deploy as command

    command.deploy(spec, var=var, pool=pool, watch=watch, organisation=organisation, home=home, proposes=proposes)


@app.command()
def demo(var: Folder = Path("var")) -> None:
    """Run the healthcare example: three hospitals, real patients' rows, one model."""
    from lepton_pipelines.cli import demo as command

    command.demo(var=var)


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new folder, and the pipeline.", show_default=False)],
    template: Annotated[str, typer.Option(help="healthcare, finance, retail or blank.")] = "blank",
) -> None:
    """Write a project that runs at once, with rows, and a README that explains it."""
    from lepton_pipelines.cli import project as command

    command.init(template, name)


Model = Annotated[str, typer.Argument(help="The registered model.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; kept with the version.", show_default=False)]
By = Annotated[str | None, typer.Option(help="Who decides; unset: the user who runs this.", show_default=False)]
MlflowAddress = Annotated[
    str | None, typer.Option("--mlflow", help="MLflow's address; unset: MLFLOW_TRACKING_URI, or var/mlflow.")
]
Keys = Annotated[
    Path | None,
    typer.Option("--home", help="With a hub: the folder with this organisation's keys; its ledger is told."),
]


@app.command()
def score(
    model: Model,
    source: Annotated[str, typer.Argument(help="Parquet file, folder or pattern; a path or URL.", show_default=False)],
    target: Annotated[str, typer.Argument(help="Folder or URL for the scored files.", show_default=False)],
    organisation: Annotated[
        Path, typer.Option(exists=True, help="The organisation's own file: storage, cluster, MLflow.")
    ],
    version: Annotated[
        int | None, typer.Option(min=1, help="The model's version; unset: the champion.", show_default=False)
    ] = None,
    var: Folder = Path("var"),
) -> None:
    """Score an organisation's parquet files with a registered model, on its own Dask cluster."""
    from lepton_pipelines.cli import score as command

    command.score(model, source, target, organisation=organisation, version=version, var=var)


@app.command()
def promote(
    model: Model,
    version: Annotated[str, typer.Option(help="The version that becomes champion.", show_default=False)],
    reason: Reason,
    by: By = None,
    var: Folder = Path("var"),
    mlflow: MlflowAddress = None,
    home: Keys = None,
) -> None:
    """Make a version of a model champion: a person's decision, whatever the gates said."""
    from lepton_pipelines.cli import promotion as command

    command.promote(model, version, reason=reason, by=by, var=var, mlflow=mlflow, home=home)


@app.command()
def rollback(
    model: Model,
    reason: Reason,
    by: By = None,
    var: Folder = Path("var"),
    mlflow: MlflowAddress = None,
    home: Keys = None,
) -> None:
    """Make the previous champion of a model champion again."""
    from lepton_pipelines.cli import promotion as command

    command.rollback(model, reason=reason, by=by, var=var, mlflow=mlflow, home=home)


PlatformFolder = Annotated[Path, typer.Option("--home", help="The platform's folder: state, keys, rows, logs.")]
PLATFORM = Path("var/platform")
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Unset: the last time's, or a free one.")]


@app.command()
def up(
    home: PlatformFolder = PLATFORM,
    prefect_port: Port = None,
    mlflow_port: Port = None,
    hub_port: Port = None,
    portal_port: Port = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65534, help="The hub answers Prometheus here, organisations at the next port; unset: none do."
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it running in the background.")] = False,
) -> None:
    """Start a platform on this machine: Prefect, MLflow, hub, portal, three organisations, a scheduled pipeline."""
    from lepton_pipelines.cli import up as command

    ports = {"prefect": prefect_port, "mlflow": mlflow_port, "hub": hub_port, "portal": portal_port}
    command.up(home, ports=ports, detach=detach, metrics=metrics_port)


@app.command()
def down(home: PlatformFolder = PLATFORM) -> None:
    """Stop the platform that `lepton up` started."""
    from lepton_pipelines.cli import up as command

    command.down(home)


@app.command()
def status(
    home: PlatformFolder = PLATFORM,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Show the platform's processes, their health, memory and addresses."""
    from lepton_pipelines.cli import up as command

    command.status(home, as_json=as_json)


app.add_typer(hub.app)
app.add_typer(org.app)
app.add_typer(ledger.app)
market_algorithms.add_to(market.app)
market.app.command()(market_contribution.contribution)
app.add_typer(market.app)
app.add_typer(pool.app)
app.add_typer(model.app, name="model")
app.add_typer(portal.app)


app.add_typer(data.app, name="data")


def run_command_line() -> None:
    """Run the command that the process was started with, and end the process."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        complain(error)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except typer.Exit as end:
        code = end.exit_code
    except typer.Abort:
        code = 130
    except Exception as error:  # noqa: BLE001 - click's own errors are told by what they can do, the rest goes on
        code = _usage_error(error)
    _leave(code if isinstance(code, int) else 0)


def complain(error: UserError) -> None:
    """Print a user's error in red, without a traceback, one problem a line."""
    for problem in error.problems:
        typer.secho(problem, fg=typer.colors.RED, err=True)


def _usage_error(error: Exception) -> int:
    """Print what click says about wrong options; anything else is our bug and keeps its traceback."""
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    return int(getattr(error, "exit_code", 2))


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 130:
        # Ctrl-C: what was started has been stopped; a library's thread that still waits must not hold us up.
        os._exit(code)
    sys.exit(code)
