"""Deciding who is champion, as tasks. Retried where MLflow may be back in a moment; each can be done twice."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.organisation import decisions, hub_record
from lepton_pipelines.registry import promotion
from lepton_pipelines.registry.approval import Candidacy, candidacy
from lepton_pipelines.registry.promotion import Decision
from lepton_pipelines.registry.tracking import Tracking
from tasks.artifacts import key
from tasks.retrying import worth_retrying

PATIENT: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_condition_fn": worth_retrying,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}


@task(name="compare with champion", task_run_name="compare with champion", **PATIENT)
def compare_with_champion(tracking: Tracking, model: str, version: str) -> Candidacy:
    """Put the challenger's figures beside the champion's, and show them on the run's page."""
    found = candidacy(tracking, model, version)
    create_markdown_artifact(
        markdown=found.text, key=key(model, "approval"), description=f"{model} v{version}: to be decided"
    )
    return found


@task(name="promote", task_run_name="promote", **PATIENT)
def promote(tracking: Tracking, model: str, version: str, reason: str, by: str) -> Decision:
    """Make the version champion."""
    return _shown(promotion.promote(tracking, model, version, reason=reason, by=by))


@task(name="refuse", task_run_name="refuse", **PATIENT)
def refuse(tracking: Tracking, model: str, version: str, reason: str, by: str) -> Decision:
    """Record that the version was refused, and why."""
    return _shown(promotion.refuse(tracking, model, version, reason=reason, by=by))


@task(name="roll back", task_run_name="roll back", cache_policy=NO_CACHE, persist_result=False)
def roll_back(tracking: Tracking, model: str, reason: str, by: str) -> Decision:
    """Make the previous champion champion again. Never retried: a second time would go back one more."""
    return _shown(promotion.rollback(tracking, model, reason=reason, by=by))


@task(name="record decision", task_run_name="record decision", **PATIENT)
def record_decision(var: Path, decision: Decision, home: Path | None = None) -> int | None:
    """Say in the ledger which version a person made champion; nothing if none knows it.

    It is the one below the working folder, or that of the hub that the organisation with its keys at `home` belongs to.
    """
    if home is not None:
        return hub_record.record_decision(OrganisationHome(home), decision)
    return decisions.record_decision(var, decision)


def _shown(decision: Decision) -> Decision:
    create_markdown_artifact(markdown=f"# {decision.model}\n\n{decision.sentence}", key=key(decision.model, "decision"))
    return decision
