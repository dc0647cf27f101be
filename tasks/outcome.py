"""What happens to a trained model, as tasks: gates, publish, record. Retried where MLflow may be back in a moment."""

from collections.abc import Mapping

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from lepton_pipelines.evaluation.result import Evaluation
from lepton_pipelines.organisation.drift import attach_reference
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.outcome import assemble, judge, publish_model, settle_model
from lepton_pipelines.organisation.outcome import record as write_record
from lepton_pipelines.organisation.recording import Said, attach_proof, record_run
from lepton_pipelines.organisation.reports import PartReport
from lepton_pipelines.registry.gates import GateResult
from lepton_pipelines.registry.promotion import Decision
from lepton_pipelines.registry.publishing import Published, delivered_later
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.pipeline import Pipeline
from tasks.artifacts import show_results
from tasks.events import tell_gates
from tasks.retrying import worth_retrying


@task(name="gates", task_run_name="gates", cache_policy=NO_CACHE, persist_result=False)
def gates(pipeline: Pipeline, part: PartReport, model: bytes) -> list[GateResult]:
    """Hold the model against the limits of the spec, and tell Prefect of each by an event."""
    results = judge(pipeline, part, model)
    tell_gates(pipeline.name, part.run_id, results)
    return results


@task(
    name="publish",
    task_run_name="publish",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def publish(
    pipeline: Pipeline,
    parts: list[PartReport],
    model: bytes,
    results: list[GateResult],
    tracking: Tracking,
    experiment: str | None,
) -> tuple[Published, Decision]:
    """Register the model as a new version, load it back, and let the gates decide on its alias."""
    published = publish_model(pipeline, parts, model, tracking, experiment)
    with delivered_later(tracking, parts[0].run_id):
        return published, settle_model(pipeline, published, results, tracking)


@task(
    name="record",
    task_run_name="record",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def record(
    pipeline: Pipeline,
    parts: list[PartReport],
    model: bytes,
    results: list[GateResult],
    published: Published,
    decision: Decision,
    folder: RunFolder,
    tracking: Tracking,
    seconds: Mapping[str, float],
) -> Evaluation:
    """Write the report and the ledger, and show the results on the run's page. parts: the publisher's first."""
    evaluation = assemble(pipeline, parts[0], results, published, decision, seconds, folder)
    with delivered_later(tracking, folder.run_id):
        report = write_record(folder, evaluation, published, tracking)
        recorded = record_run(Said(pipeline, parts, model, results, published, decision), folder)
        attach_proof(recorded, published, tracking)
        attach_reference(folder, pipeline.publisher, published, tracking)
    show_results(evaluation, report, published.address)
    return evaluation


@task(
    name="record",
    task_run_name="record",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def record_at_home(
    pipeline: Pipeline,
    part: PartReport,
    results: list[GateResult],
    registered: tuple[Published, Decision] | None,
    folder: RunFolder,
    tracking: Tracking | None,
    seconds: Mapping[str, float],
) -> Evaluation:
    """Write one organisation's report of a run at a hub. registered, tracking: the publisher's; None at the others."""
    published, decision = registered or (None, None)
    evaluation = assemble(pipeline, part, results, published, decision, seconds, folder)
    report = write_record(folder, evaluation, published, tracking)
    if published is not None and tracking is not None:
        attach_reference(folder, part.organisation, published, tracking)
    show_results(evaluation, report, f"registered by {pipeline.publisher}" if published is None else published.address)
    return evaluation
