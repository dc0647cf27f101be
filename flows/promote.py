"""A person decides who is champion: a form that waits for approval, and the way back."""

from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field, PositiveInt

from lepton_pipelines.registry.promotion import Decision
from lepton_pipelines.registry.tracking import Tracking, open_existing
from lepton_pipelines.spec.organisation import read_organisation
from lepton_pipelines.spec.pipeline import Pipeline
from tasks import promotion as tasks

WAITS_DAYS = 30


class Approval(RunInput):
    """What a person decides on a challenger."""

    decision: Literal["promote", "refuse"] = Field(
        title="Decision", description="promote: it becomes champion and is served. refuse: the champion stays."
    )
    reason: str = Field(title="Reason", min_length=3, description="Kept with the version, for whoever asks later why.")
    by: str = Field(title="Your name", min_length=1, description="Who decides; kept with the version.")


@flow(name="promote", flow_run_name="{model} v{version}", persist_result=True, result_serializer="json")
def promote(
    model: str, version: PositiveInt, organisation: Path, var: Path = Path("var"), home: Path | None = None
) -> str:
    """Show a challenger beside the champion, wait until a person has decided, and record what and why.

    Args:
        model: The registered model.
        version: The challenger's number.
        organisation: File of the organisation that registers the model; says where its MLflow is.
        var: Where runs, models and records are kept.
        home: With a hub, the folder with this organisation's keys: its ledger is told.
    """
    tracking = tracking_of(organisation, var)
    number = str(version)
    shown = tasks.compare_with_champion(tracking, model, number)
    form = Approval.with_initial_data(description=shown.text)
    told = suspend_flow_run(wait_for_input=form, key="approval", timeout=WAITS_DAYS * 86400)
    if told.decision == "promote":
        decision = tasks.promote(tracking, model, number, told.reason, told.by)
        tasks.record_decision(var, decision, home)
        return decision.sentence
    return tasks.refuse(tracking, model, number, told.reason, told.by).sentence


@flow(name="rollback", flow_run_name="{model}", persist_result=False)
def rollback(
    model: str,
    organisation: Path,
    var: Path = Path("var"),
    home: Path | None = None,
    reason: str = "asked for on Prefect's page",
    by: str = "whoever may start runs in Prefect",
) -> Decision:
    """Make the previous champion champion again.

    Args:
        model: The registered model.
        organisation: File of the organisation that registers the model; says where its MLflow is.
        var: Where runs, models and records are kept.
        home: With a hub, the folder with this organisation's keys: its ledger is told.
        reason: Why; kept with both versions.
        by: Who decides; kept with both versions.
    """
    decision = tasks.roll_back(tracking_of(organisation, var), model, reason, by)
    tasks.record_decision(var, decision, home)
    return decision


def ask_for_approval(
    pipeline: Pipeline, decision: Decision, organisation: Path, var: Path, home: Path | None = None
) -> None:
    """Start the deployed promotion of a challenger that waits for a person; without a deployment, say what to do.

    Asked again about the same version, as a retried run does, Prefect gives the run that is there.
    """
    logger = get_run_logger()
    parameters = {
        "model": decision.model,
        "version": int(decision.version),
        "organisation": str(organisation.absolute()),
        "var": str(var.absolute()),
        "home": None if home is None else str(home.absolute()),
    }
    try:
        asked: Any = run_deployment(
            f"promote/{pipeline.name}",
            parameters=parameters,
            timeout=0,
            as_subflow=False,
            idempotency_key=f"promote {decision.model} {decision.version}",
        )
    except ObjectNotFound:
        logger.warning(
            "%s v%s waits for a decision: lepton promote %s --version %s --reason …  (for a form on Prefect's page, "
            "register the pipeline with lepton deploy)",
            *(decision.model, decision.version, decision.model, decision.version),
        )
        return
    logger.info("%s v%s waits for a decision in the flow run %s", decision.model, decision.version, asked.name)


def tracking_of(organisation: Path, var: Path) -> Tracking:
    """Open the MLflow store that an organisation's file names."""
    return open_existing(read_organisation(organisation).tracking.mlflow, folder=var.absolute())
