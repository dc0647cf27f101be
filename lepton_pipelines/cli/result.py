"""The end of a run on the screen: the comparison, the gates, and where everything is."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from lepton_pipelines.cli.live import metric_label
from lepton_pipelines.evaluation.report import core_hours_text
from lepton_pipelines.evaluation.result import Evaluation, TreesEqual
from lepton_pipelines.registry.promotion import CHAMPION
from lepton_pipelines.registry.serving import serve_line
from lepton_pipelines.registry.tracking import Tracking

SHOWN = {
    "binary": ("auc", "logloss"),
    "multiclass": ("mlogloss", "merror"),
    "regression": ("rmse", "mae"),
}


def show(
    console: Console, evaluation: Evaluation, *, report: Path, tracking: Tracking | None, noun: str, plural: str
) -> None:
    """Print a run's outcome.

    tracking: where the model was registered; None if another organisation registers it. noun,
    plural: what members and rows are called.
    """
    console.print()
    console.print(comparison_table(evaluation, noun, plural))
    if evaluation.trees_equal is not None:
        console.print(f"  same trees as {same_trees(evaluation.trees_equal)}", soft_wrap=True)
    console.print()
    if evaluation.gates:
        marks = "   ".join(f"{gate.name} {'[green]✓[/]' if gate.passed else '[red]✗[/]'}" for gate in evaluation.gates)
        console.print(f"  gates     {marks}", soft_wrap=True)
        for gate in evaluation.gates:
            if not gate.passed:
                console.print(f"            [red]{gate.name}[/]: {gate.message}", soft_wrap=True)
    told = evaluation.registration
    if told is not None:
        console.print(f"  registry  {told.model} {told.decision}", soft_wrap=True)
    spent = {one.name: one.core_seconds for one in evaluation.organisations if one.core_seconds is not None}
    if spent:
        told_hours = ", ".join(f"{name} {core_hours_text(seconds)}" for name, seconds in spent.items())
        console.print(f"  computed  {told_hours} core-hours on Dask workers", soft_wrap=True)
    console.print(f"  report    {report}", soft_wrap=True)
    if told is not None and tracking is not None:
        # What is not served by the champion's name is served by its number: a first model that failed its gates.
        champion = told.alias == CHAMPION or evaluation.champion is not None
        selector = f"@{CHAMPION}" if champion else f"/{told.version}"
        console.print(f"  serve     {serve_line(tracking, told.model, selector)}", soft_wrap=True)


def comparison_table(evaluation: Evaluation, noun: str, plural: str) -> Table:
    """Draw the models side by side, on the same held-out rows."""
    metrics = SHOWN[evaluation.figures.task]
    primary = evaluation.primary_metric
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(f"  on the same held-out {plural}", no_wrap=True)
    for metric in metrics:
        table.add_column(metric_label(metric), justify="right", no_wrap=True)
    table.add_column(f"worst {noun}", justify="right", no_wrap=True)
    table.add_column("spread", justify="right", no_wrap=True)
    for row in evaluation.comparison:
        strong = "  [bold]" if row.kind == "federated" else "  "
        name = "pooled (only a demo can do this)" if row.kind == "pooled" else row.name
        if row.kind == "champion" and evaluation.champion is not None:
            name = f"champion (v{evaluation.champion.version})"
        cells = [figure(row.scores.get(metric)) for metric in metrics]
        table.add_row(strong + name, *cells, figure(row.worst(primary)), figure(row.spread(primary)))
    return table


def same_trees(found: TreesEqual) -> str:
    """Say how many trees are equal."""
    verdict = "[green]yes[/]" if found.equal else "[red]no[/]"
    return f"{found.reference}: {verdict}, {found.trees_equal} of {found.trees}"


def figure(value: float | None) -> str:
    """Write a score with three digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"
