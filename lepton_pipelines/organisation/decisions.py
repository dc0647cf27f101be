"""What is decided after a run, and what becomes of one that ends early, in the ledger of runs in one process."""

import re
from collections.abc import Mapping
from pathlib import Path

from lepton_pipelines.ledger import entries
from lepton_pipelines.ledger.predicate import digest_of
from lepton_pipelines.ledger.run_ledger import RunLedger
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.hub_record import DECIDED_BY_A_PERSON
from lepton_pipelines.organisation.market_place import history_below
from lepton_pipelines.organisation.outcome import code_version
from lepton_pipelines.organisation.recording import admit, manifest_of, open_ledger
from lepton_pipelines.registry.promotion import Decision
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.pipeline import Pipeline

_CLAUSE = re.compile(r"^(?P<who>[A-Za-z0-9][A-Za-z0-9._-]*): policy\.(?P<clause>\w+)")


def record_decision(var: Path, decision: Decision) -> int | None:
    """Say in the ledger below a working folder that a person made another version champion.

    Returns the entry's index; None if nothing moved, or if no ledger there knows the version.
    Raises UserError if the ledger's files were changed.
    """
    model, version = decision.model, int(decision.champion or 0)
    for replica in sorted((var / "ledger").glob("[!_]*")):
        history = history_below(var, replica.name)
        known = None if history is None else history.runs.versions.get((model, version))
        if history is None or known is None:
            continue
        before = history.runs.aliases.get((model, "champion"))
        if before == version:
            return None
        told = {"model": model, "version": version, "alias": "champion", "digest": known.published.digest}
        with open_ledger(var, _members(var)) as (sequencer, replicas, signers):
            ledger = RunLedger(sequencer, replicas, signers)
            author = known.published.author.organisation
            if before is not None and before > version:
                rolled = {**told, "before": before, "reason": DECIDED_BY_A_PERSON}
                index = ledger.record(entries.ModelRolledBack, by=author, **rolled)
            else:
                index = ledger.record(entries.ModelPromoted, by=author, **told)
            ledger.checkpoint()
            return index
    return None


def record_stopped(pipeline: Pipeline, folder: RunFolder, error: BaseException, rounds: Mapping[str, int]) -> None:
    """Say that a run in one process did not end: which policy refused it, or that it waits to be resumed.

    rounds: of each organisation's last checkpoint; empty if there is none. Nothing of the error goes in but its kind.
    Raises UserError if the ledger's files were changed.
    """
    refusals = _refusals(pipeline, error)
    if not rounds and not (refusals and (folder.var / "ledger").is_dir()):
        return  # nothing came of it: what is refused at first sight leaves no files behind
    members, run = sorted(pipeline.members), folder.run_id
    manifest = digest_of(manifest_of(pipeline, run))
    with open_ledger(folder.var, sorted({*_members(folder.var), *members})) as (sequencer, replicas, signers):
        admit(sequencer, signers)
        ledger = RunLedger(sequencer, replicas, signers)
        for who, clause in refusals:
            told = f"the policy of {who}"
            ledger.record(entries.PolicyRefused, by=who, run=run, manifest=manifest, clause=clause, reason=told)
        known = ledger.history.runs.by_id.get(run)
        if rounds and known is None:
            ledger.record(
                entries.RunOpened,
                by=pipeline.publisher,
                run=run,
                pipeline=pipeline.name,
                members=members,
                manifest=manifest,
                spec=pipeline.digest().hex(),
                code_version=code_version(),
            )
        if rounds and (known is None or known.state == "open"):
            reason = f"stopped after round {min(rounds.values())} ({type(error).__name__})"
            ledger.record(
                entries.RunSuspended, by=pipeline.publisher, run=run, manifest=manifest, trees=0, reason=reason
            )
        ledger.checkpoint()


def _refusals(pipeline: Pipeline, error: BaseException) -> list[tuple[str, str]]:
    """Return which organisation's policy refused by which clause, as the error's sentences begin with it."""
    if not isinstance(error, UserError):
        return []
    found = [match for problem in error.problems if (match := _CLAUSE.match(problem))]
    return sorted({(match["who"], match["clause"]) for match in found if match["who"] in pipeline.members})


def _members(var: Path) -> list[str]:
    folder = var / "identity"
    return sorted(path.name for path in folder.glob("[!_.]*") if path.is_dir()) if folder.is_dir() else []
