"""What the totals of a training would say about single rows, told before it is started (design §11).

A sum hides who contributed, not what the total says: a leaf that few rows reach has a value that is nearly theirs, and
a column with few rows has few bins. Nothing here refuses a run; members decide what they accept.
"""

from lepton_pipelines.boosting.edges import SMALLEST_BIN
from lepton_pipelines.spec.pipeline import Pipeline
from lepton_pipelines.spec.training import Training

_ROWS_OF_A_HESSIAN = {"reg:squarederror": 1, "binary:logistic": 4, "binary:logitraw": 4, "reg:logistic": 4}
"""How many unweighted rows a hessian of 1 stands for at least: a logistic row's is at most 1/4."""


def disclosure_notes(training: object, rows: int, *, whose: str) -> list[str]:
    """Say where a training's totals come near to single rows; empty if they do not.

    training: the pipeline's; one that grows no trees has nothing to note. rows: training rows of all organisations.
    whose: how the messages speak of them, such as `all organisations' 380 training rows`.
    """
    if not isinstance(training, Training) or rows == 0:
        return []
    notes = []
    if rows // SMALLEST_BIN < training.max_bin:
        most = max(1, rows // SMALLEST_BIN)
        notes.append(
            f"training.max_bin is {training.max_bin}; {whose} make at most {most} bins a column, because a bin holds "
            f"at least {SMALLEST_BIN} rows of the total."
        )
    leaves = _leaves(training, rows)
    if rows < leaves * SMALLEST_BIN:
        fewer = max(1, rows // SMALLEST_BIN)
        told = f"up to {leaves:,} leaves a tree share" if leaves < rows else "without a limit on leaves, trees divide"
        notes.append(
            f"{told} {whose}: a leaf may hold fewer than {SMALLEST_BIN} rows, and its value is nearly theirs. Set "
            f"training.max_depth to {max(1, fewer.bit_length() - 1)}, training.max_leaves to {fewer}, or raise "
            "training.min_child_weight."
        )
    return notes


def contribution_notes(pipeline: Pipeline) -> list[str]:
    """Say what a contribution report costs and what it gives away; empty if the pipeline does not ask for one."""
    if not pipeline.contribution.report:
        return []
    return [
        f"contribution.report: lepton market contribution trains {len(pipeline.members) + 1} times. The totals of a "
        "run without an organisation, next to those with it, show the other members nearly its own sums: how its rows "
        "and labels lie in every bin."
    ]


def _leaves(training: Training, rows: int) -> int:
    """Return the most leaves that a tree can have."""
    limits = [rows]
    if training.max_depth:
        limits.append(2 ** min(training.max_depth, 62))
    if training.max_leaves:
        limits.append(training.max_leaves)
    fewest = training.min_child_weight * _ROWS_OF_A_HESSIAN.get(training.objective, 0)
    if fewest >= 1:
        limits.append(max(1, int(rows // fewest)))
    return min(limits)
