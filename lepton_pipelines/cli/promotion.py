"""`lepton promote`, `lepton rollback`: a person decides which version is champion, with the reason on record."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lepton_pipelines.registry.promotion import Decision
    from lepton_pipelines.registry.tracking import Tracking


def promote(model: str, version: str, *, reason: str, by: str | None, var: Path, mlflow: str | None) -> None:
    """Make a version champion and say so."""
    from lepton_pipelines.registry import promotion

    _say(promotion.promote(_tracking(var, mlflow), model, version, reason=reason, by=by or getpass.getuser()), var)


def rollback(model: str, *, reason: str, by: str | None, var: Path, mlflow: str | None) -> None:
    """Make the previous champion champion again and say so."""
    from lepton_pipelines.registry import promotion

    _say(promotion.rollback(_tracking(var, mlflow), model, reason=reason, by=by or getpass.getuser()), var)


def _tracking(var: Path, mlflow: str | None) -> "Tracking":
    from lepton_pipelines.registry.tracking import open_tracking

    return open_tracking(mlflow, folder=var.absolute())


def _say(decision: "Decision", var: Path) -> None:
    from lepton_pipelines.organisation.decisions import record_decision

    typer.echo(f"  {decision.model} {decision.sentence}")
    index = record_decision(var, decision)
    if index is not None:
        typer.echo(f"  ledger      entry {index}, cosigned by all")
