"""What a contribution report leaves in the ledger: its runs, each with its members, and how each model scored.

Every member says by its own signature that it took part, under a manifest that holds the spec's digest, and with it
`contribution: {report: true}`. The models themselves are not kept.
"""

from collections.abc import Sequence
from pathlib import Path

from lepton_pipelines.evaluation.contribution import ContributionReport
from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.predicate import digest_of
from lepton_pipelines.ledger.run_ledger import RunLedger
from lepton_pipelines.organisation.contribution import Training
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.outcome import code_version
from lepton_pipelines.organisation.recording import (
    OPENING_FILE,
    admit,
    entry_name,
    manifest_of,
    open_ledger,
    opening_of,
)


def record_contribution(report: ContributionReport, trainings: Sequence[Training], var: Path) -> int:
    """Write a report's runs and scores into the ledger; return the ledger's size. Nothing is said twice.

    Of the runs' own files only the openings of the members' commitments stay.
    """
    scores = {one.organisation: one.scores for one in report.added}
    with open_ledger(var, report.members) as (sequencer, replicas, signers):
        admit(sequencer, signers)
        ledger = RunLedger(sequencer, replicas, signers)
        for one in trainings:
            if one.run not in sequencer.history.runs.by_id:
                _say(ledger, one, report, report.scores if one.without is None else scores[one.without], var)
        ledger.checkpoint()
        size = sequencer.size
    for one in trainings:
        RunFolder(var, one.run).keep_only(OPENING_FILE)
    return size


def _say(ledger: RunLedger, one: Training, report: ContributionReport, scores: dict[str, float], var: Path) -> None:
    pipeline, run, folder = one.pipeline, one.run, RunFolder(var, one.run)
    speaker = pipeline.publisher if pipeline.publisher in pipeline.members else pipeline.members[0]
    manifest, contract = digest_of(manifest_of(pipeline, run)), pipeline.read_contract()
    ledger.record(
        entries.RunOpened,
        by=speaker,
        run=run,
        pipeline=pipeline.name,
        members=pipeline.members,
        manifest=manifest,
        spec=pipeline.digest().hex(),
        code_version=code_version(),
    )
    for part in one.parts:
        opening = opening_of(part.organisation, contract, part.digest, part.rows, folder.of(part.organisation).path)
        ledger.record(
            entries.RunJoined, by=part.organisation, run=run, manifest=manifest, dataset=opening.commitment, rows=None
        )
    model = digest_of(one.model)
    ledger.record(entries.RunFinished, by=speaker, run=run, manifest=manifest, trees=one.trees, model=model)
    told = {entry_name(metric): float(score) for metric, score in scores.items()}
    ledger.record(entries.Evaluation, by=speaker, run=run, model=model, rows=report.rows, metrics=told)
