"""Watching for drift, as tasks: the comparison at each organisation, and what is published of it."""

import base64

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from lepton_pipelines.evaluation.plots import drift_plot
from lepton_pipelines.evaluation.result import DriftLine, DriftReport
from lepton_pipelines.organisation import drift
from lepton_pipelines.organisation.run import OrganisationRun
from lepton_pipelines.spec.pipeline import Pipeline
from tasks.artifacts import key
from tasks.events import say

DRIFT_EVENT = "lepton.drift"
NO_DRIFT_EVENT = "lepton.no-drift"
ORGANISATION_LABEL = "lepton.organisation"


@task(name="remember", task_run_name="remember", cache_policy=NO_CACHE, persist_result=False)
def remember(part: OrganisationRun) -> drift.Reference | None:
    """Count what the model has seen, for later comparisons."""
    return drift.remember(part)


@task(name="compare with training", task_run_name="compare with training", cache_policy=NO_CACHE, persist_result=False)
def compare_with_training(part: OrganisationRun, worse: float) -> DriftReport:
    """Hold the organisation's rows, with the others', against what the champion saw."""
    return drift.watch(part, worse=worse)


@task(name="agree to compare", task_run_name="agree to compare", cache_policy=NO_CACHE, persist_result=False)
def agree_to_compare(part: OrganisationRun) -> bool:
    """Ask every organisation whether its rows may be compared today, within the limits of disclosure."""
    return drift.agree_to_compare(part)


@task(name="publish drift", task_run_name="publish drift", cache_policy=NO_CACHE, persist_result=False)
def publish_drift(pipeline: Pipeline, report: DriftReport, organisation: str) -> list[str]:
    """Show the table and the plot, and tell Prefect by an event; return the reasons to train again.

    organisation: whose watch this was; an automation listens to one of them, also where several share a server.
    """
    name, reasons = pipeline.name, report.reasons
    lines = [line for line in (report.label, report.scores, *report.columns) if line is not None]
    create_table_artifact(
        table=[_row(line) for line in lines],
        key=key(name, "drift"),
        description=f"{report.rows_now} rows now against {report.rows_before} that the champion was trained on",
    )
    picture = base64.b64encode(drift_plot(lines).encode()).decode()
    create_markdown_artifact(
        markdown=f"{_summary(name, report)}\n\n![drift](data:image/svg+xml;base64,{picture})",
        key=key(name, "drift", "report"),
    )
    payload = {"reasons": reasons, "rows": report.rows_now, "decay": report.decay}
    say(DRIFT_EVENT if reasons else NO_DRIFT_EVENT, name, payload, {ORGANISATION_LABEL: organisation})
    get_run_logger().info("%s: %s", name, "; ".join(reasons) or "nothing has moved beyond its limit")
    return reasons


def _row(line: DriftLine) -> dict[str, str]:
    return {
        "column": line.column,
        "PSI": f"{line.psi:.3f}",
        "limit": f"{line.psi_limit:.2f}",
        "KS": f"{line.ks:.3f}",
        "by chance": f"{line.ks_limit:.3f}",
        "missing then → now": f"{line.missing_before:.1%} → {line.missing_now:.1%}",
        "moved": "yes" if line.drifted else "no",
    }


def _summary(name: str, report: DriftReport) -> str:
    told = [f"# {name}: {'train again' if report.reasons else 'no drift'}", ""]
    told += [f"- {reason}" for reason in report.reasons] or ["Nothing has moved beyond its limit."]
    worse = [f"{metric} {amount:+.4f}" for metric, amount in report.decay.items()]
    return "\n".join([*told, "", "Worse than at training (negative: better): " + ", ".join(worse)])
