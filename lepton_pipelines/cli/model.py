"""`lepton model`: what is known of a registered model, proved from the ledger.

Exit codes as in `lepton ledger`: 0 if everything held, 1 if something does not, 2 for a mistake in how it was asked.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.registry.champion import RegisteredModel
    from lepton_pipelines.registry.tracking import Tracking

app = typer.Typer(help="Verify a registered model.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Verify a registered model."""


@app.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="Or NAME/VERSION.", show_default=False)],
    var: Annotated[Path, typer.Option("--var", help="Where runs, models and records are kept.")] = Path("var"),
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The ledger to use; unset: the first in var/ledger.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Whose signatures count; unset: the ledger's own file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Walk from a served model back to its run, members, grants and dataset commitments, in a ledger verified first."""
    from lepton_pipelines.ledger.policy import read_policy
    from lepton_pipelines.registry.tracking import open_existing

    model, alias, number = _parse(name)
    folder = ledger or _first_ledger(var)
    trusted = None if policy is None else read_policy(policy)
    tracking = open_existing(folder=var.absolute())
    version = number or _holder(tracking, model, alias or "champion")
    try:
        found = _load(tracking, model, version)
        from lepton_pipelines.ledger.lineage import trace
        from lepton_pipelines.ledger.verification import verify_ledger

        verified = verify_ledger(folder, policy=trusted)
        lineage = trace(verified, model, int(version), found.digest, alias=alias)
    except UserError as error:
        if as_json:
            typer.echo(json.dumps({"holds": False, "problems": error.problems}))
        else:
            typer.secho(f"✗ {model} v{version} does not hold\n  {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
    proved, not_proved = lineage.proved + verified.proved[:1], lineage.not_proved + verified.not_proved[:2]
    if as_json:
        typer.echo(json.dumps({"holds": True, "run": lineage.run_id, "proved": proved, "not_proved": not_proved}))
        return
    typer.echo(f"✓ {model} v{version} holds, by {folder}\n\nproved")
    typer.echo("".join(f"  ✓ {line}\n" for line in proved) + "\nnot proved")
    typer.echo("".join(f"  – {line}\n" for line in not_proved), nl=False)


def _parse(text: str) -> tuple[str, str | None, str | None]:
    """Split NAME@ALIAS or NAME/VERSION into model, alias and version."""
    model, at, alias = text.removeprefix("models:/").partition("@")
    if at and model and alias:
        return model, alias, None
    model, slash, number = model.partition("/")
    if slash and model and number.isdecimal():
        return model, None, number
    raise UserError(f"{text!r} names no model: write NAME@champion, or NAME/3 for its third version.")


def _first_ledger(var: Path) -> Path:
    folders = sorted(each for each in (var / "ledger").glob("[!_]*") if each.is_dir())
    if not folders:
        raise UserError(f"There is no ledger in {var / 'ledger'}: run a pipeline first, or name one with --ledger.")
    return folders[0]


def _holder(tracking: "Tracking", model: str, alias: str) -> str:
    from lepton_pipelines.registry.promotion import holder

    found = holder(tracking, model, alias)
    if found is None:
        raise UserError(f"No version of {model} is {alias} in {tracking.shown}.")
    return str(found.number)


def _load(tracking: "Tracking", model: str, version: str) -> "RegisteredModel":
    from lepton_pipelines.registry.champion import load_version

    return load_version(tracking, model, version)
