"""`lepton promote`, `lepton rollback`: a person decides which version is champion, with the reason on record."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lepton_pipelines.registry.promotion import Decision
    from lepton_pipelines.registry.tracking import Tracking


def promote(
    model: str, version: str, *, reason: str, by: str | None, var: Path, mlflow: str | None, home: Path | None
) -> None:
    """Make a version champion and say so. home: with a hub, the folder with the organisation's keys."""
    from lepton_pipelines.registry import promotion

    decision = promotion.promote(_tracking(var, mlflow), model, version, reason=reason, by=by or getpass.getuser())
    _say(decision, var, home)


def rollback(model: str, *, reason: str, by: str | None, var: Path, mlflow: str | None, home: Path | None) -> None:
    """Make the previous champion champion again and say so. home: as in `promote`."""
    from lepton_pipelines.registry import promotion

    decision = promotion.rollback(_tracking(var, mlflow), model, reason=reason, by=by or getpass.getuser())
    _say(decision, var, home)


def _tracking(var: Path, mlflow: str | None) -> "Tracking":
    from lepton_pipelines.registry.tracking import open_existing

    return open_existing(mlflow, folder=var.absolute())


def _say(decision: "Decision", var: Path, home: Path | None) -> None:
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.organisation import decisions, hub_record

    typer.echo(f"  {decision.model} {decision.sentence}")
    if home is not None:
        index = hub_record.record_decision(OrganisationHome(home), decision)
        if index is not None:
            typer.echo(f"  ledger      entry {index} of the hub's")
        return
    index = decisions.record_decision(var, decision)
    if index is not None:
        typer.echo(f"  ledger      entry {index}, cosigned by all")
