"""What would refuse an organisation's part of a run, found without starting one."""

from dataclasses import dataclass
from pathlib import Path

from lepton_pipelines.data.preparation import prepare_pieces
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.data.splits import SETS
from lepton_pipelines.data.violations import Violations
from lepton_pipelines.evaluation.score_histogram import task_of
from lepton_pipelines.organisation.hub_record import record_of
from lepton_pipelines.organisation.journal import Journal
from lepton_pipelines.organisation.product_use import ProductUse
from lepton_pipelines.spec.algorithm_code import refusals
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation, check_policy
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.spec.training import Training


@dataclass(frozen=True)
class Checked:
    """An organisation's rows that were accepted. rows: by set. warnings: what does not refuse them."""

    files: int
    checked: int
    set_aside: int
    rows: dict[str, int]
    warnings: list[str]


def check_spec(pipeline: Pipeline) -> None:
    """Refuse what can be trained but not evaluated. Raises UserError."""
    task_of(pipeline.training.objective)
    if isinstance(pipeline.training, Training) and len(pipeline.training.quantile_levels) > 1:
        raise UserError(
            "training.quantile_alpha: a model of several quantiles cannot be held against a champion. "
            "Give one quantile, or one pipeline each."
        )


def check_allowed(
    pipeline: Pipeline, organisation: Organisation, var: Path, run_id: str, *, trains: bool = True
) -> None:
    """Refuse a run that the organisation's policy does not allow. Raises UserError with every reason.

    trains: whether it counts among the runs that the policy allows a week.
    """
    training = pipeline.training
    check_policy(
        organisation,
        members=pipeline.members,
        publisher=pipeline.publisher,
        depth=training.max_depth if isinstance(training, Training) else 1,  # one that grows no trees has no depth
        rounds=pipeline.training.rounds,
    )
    name = organisation.organisation
    problems = list(refusals(organisation.policy, training.algorithm))
    if pipeline.contribution.report and not organisation.policy.contribution:
        problems.append(
            "contribution.report shows the other members nearly its own sums, and policy.contribution does not sign "
            "for that"
        )
    if problems:
        raise UserError(
            [f"{name}: {each}. Change the pipeline, or ask {name} to change its policy." for each in problems]
        )
    if trains:
        Journal.of(var, name).check(organisation, run_id)


def check_product(pipeline: Pipeline, organisation: Organisation, var: Path, run_id: str) -> ProductUse | None:
    """Refuse a run that the terms of the organisation's data product do not allow; None if its rows are no product.

    Raises TermsRefused, naming the clause.
    """
    if organisation.product is None:
        return None
    use = ProductUse(pipeline, organisation, var, run_id, record_of(run_id, organisation.organisation))
    use.begin()
    return use


def check_split(organisation: str, rows: dict[str, int]) -> None:
    """Refuse a split that leaves nothing to train on. rows: by set. Raises UserError."""
    if rows["train"] == 0:
        raise UserError(
            f"{organisation}: the split leaves no row to train on ({sum(rows.values())} rows). "
            "Correct split in the pipeline, or add rows."
        )


def check_organisation(pipeline: Pipeline, organisation: Organisation, var: Path) -> Checked:
    """Read an organisation's rows piece by piece and check them; keep none. Raises UserError with every problem."""
    check_allowed(pipeline, organisation, var, run_id="")
    check_product(pipeline, organisation, var, run_id="")
    name, contract = organisation.organisation, pipeline.read_contract()
    source = open_source(organisation, contract)
    found, rows = Violations(), dict.fromkeys(SETS, 0)
    for prepared in prepare_pieces(source, source.pieces(), pipeline.split):
        found = found + prepared.violations
        for part, encoded in prepared.sets.items():
            rows[part] += len(encoded)
    found.refuse(contract, organisation=name, on_violation=organisation.on_violation)
    check_split(name, rows)
    warnings = found.warnings(contract, organisation=name)
    return Checked(len(source.files), found.rows, found.rejected, rows, warnings)
