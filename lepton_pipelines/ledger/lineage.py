"""From a model's file back to what it came from: version, run, manifest, members, grants, dataset commitments.

Every step is an entry of a ledger that was verified first; what is said is what those entries say.
"""

from dataclasses import dataclass, field

from lepton_pipelines.ledger.commitment import Opening
from lepton_pipelines.ledger.errors import ProofRefused
from lepton_pipelines.ledger.grants import Grants
from lepton_pipelines.ledger.runs import Run
from lepton_pipelines.ledger.verification import Verified


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from: the run, what was proved of it, and what was not."""

    run_id: str
    run: Run
    proved: list[str] = field(default_factory=list)
    not_proved: list[str] = field(default_factory=list)


def trace(verified: Verified, model: str, version: int, digest: str, *, alias: str | None = None) -> Lineage:
    """Walk from a version of a model, whose file has this SHA-256, back through a verified ledger.

    alias: what the version was found under, to be held against the ledger.
    Raises ProofRefused if the ledger does not know the version, or knows it with another digest.
    """
    runs = verified.history.runs
    known = runs.versions.get((model, version))
    if known is None:
        raise ProofRefused(
            f"the ledger {verified.folder} does not know {model} v{version}: it was published without it"
        )
    if known.published.digest != digest:
        raise ProofRefused(
            f"{model} v{version} is not the model in the ledger: its digest is {digest[:16]}…, in entry {known.index} "
            f"it is {known.published.digest[:16]}…. Do not use it"
        )
    run_id = known.published.run
    lineage = Lineage(run_id, runs.by_id[run_id])
    publisher = known.published.author.organisation
    lineage.proved.append(
        f"the file ({digest[:16]}…) is the one that {publisher} published as {model} v{version} at "
        f"{known.published.time} (entry {known.index})"
    )
    _say_alias(lineage, verified, model, version, alias)
    _say_run(lineage, verified, digest)
    _say_data(lineage, verified.history.grants)
    for index, evaluation in lineage.run.evaluations:
        scores = ", ".join(f"{name} {score:.4g}" for name, score in sorted(evaluation.metrics.items())[:4])
        gates = f"{sum(evaluation.gates.values())} of {len(evaluation.gates)} gates passed"
        lineage.proved.append(
            f"{evaluation.author.organisation} recorded its scores: {scores}; {gates} (entry {index})"
        )
    lineage.not_proved.append("which rows are behind a commitment: their owner can open it (lepton data prove)")
    lineage.not_proved.append("that members told the truth, and that a host that ran several of them kept them apart")
    return lineage


def find_commitment(verified: Verified, opening: Opening) -> list[str]:
    """Say where in a verified ledger the commitment stands that an opening belongs to, and what it opens to.

    Raises ProofRefused if it stands nowhere.
    """
    commitment = opening.commitment
    found = [
        f"{name} committed to these data when it joined run {run_id} (entry {index})"
        for run_id, run in verified.history.runs.by_id.items()
        for name, (index, joined) in run.joined.items()
        if joined.dataset == commitment
    ]
    found += [
        f"{product.owner} committed to these data when it published {name} (entry {product.index})"
        for name, product in verified.history.grants.products.items()
        if product.terms.commitment == commitment
    ]
    if not found:
        raise ProofRefused(f"no commitment in {verified.folder} opens to this: it is of other data or another ledger")
    return [*found, *(f"{name}: {_shown(value)}" for name, value in sorted(opening.document.items()))]


def _say_alias(lineage: Lineage, verified: Verified, model: str, version: int, alias: str | None) -> None:
    if alias is None:
        return
    holds = verified.history.runs.aliases.get((model, alias))
    if holds == version:
        lineage.proved.append(f"it was made {alias}, and no entry since gave that to another version")
    else:
        there = "no version" if holds is None else f"v{holds}"
        lineage.not_proved.append(f"that v{version} is {alias}: in the ledger {there} is, the registry says otherwise")


def _say_run(lineage: Lineage, verified: Verified, digest: str) -> None:
    run = lineage.run
    members = ", ".join(run.members)
    lineage.proved.append(
        f"it comes from run {lineage.run_id} of {members}, under the manifest {run.opened.manifest[:16]}… and the spec "
        f"{run.opened.spec[:16]}…, code {run.opened.code_version} (entry {run.index})"
    )
    if run.model == digest:
        lineage.proved.append(f"the run ended with exactly this file after {run.trees} trees (entry {run.ended_at})")
    else:
        lineage.not_proved.append("that the file is byte for byte the run's: the run ended with another one")
    at = None if run.ended_at is None else verified.cosigned_after(run.ended_at, run.members)
    if at is None:
        lineage.not_proved.append(f"that all of {members} saw the run's end: no head kept has all their cosignatures")
    else:
        lineage.proved.append(f"{members} cosigned the ledger after the run had ended (head {at})")


def _say_data(lineage: Lineage, grants: Grants) -> None:
    for name, (index, joined) in sorted(lineage.run.joined.items()):
        rows = "a number of rows that it does not tell" if joined.rows is None else f"{joined.rows} rows"
        lineage.proved.append(f"{name} joined with {rows}, committed to as {joined.dataset[:28]}… (entry {index})")
    used = [
        f"{product} (grant {grant}, for {each.given.purpose if each.given else 'unknown'}, entry {each.index})"
        for (product, grant), each in sorted(grants.by_id.items())
        if lineage.run_id in each.used_by
    ]
    if used:
        lineage.proved.append(f"granted data products were used: {'; '.join(used)}")
    else:
        lineage.not_proved.append("grants: every member brought its own rows, no data product was used under a grant")


def _shown(value: object) -> str:
    return ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)
