"""What each organisation's rows added to a model, leave-one-out: the figures, and a picture of them."""

from pydantic import Field

from lepton_pipelines.evaluation.plots import BLUE, INK, VERMILION, axes_of, metric_name
from lepton_pipelines.evaluation.result import HIGHER_IS_BETTER, Figure, Scores


class Added(Figure):
    """What one organisation's rows added.

    scores: of the model that was trained without them, on everybody's held-out rows. added: how much better the main
    score is with them than without; below zero, it is worse with them.
    """

    organisation: str
    scores: Scores
    added: float
    trees: int


class ContributionReport(Figure):
    """A contribution report. rows: held out, of all organisations; None below the disclosure limit.

    scores: of the model that everybody's rows were trained for.
    """

    run: str
    pipeline: str
    metric: str
    members: list[str]
    rows: int | None
    scores: Scores
    trees: int
    added: list[Added]
    trainings: int
    seconds: float
    reveals: list[str] = Field(default_factory=list)


def gain(metric: str, with_them: float, without: float) -> float:
    """Return how much better a score is with somebody's rows, in the metric's own direction."""
    return with_them - without if metric in HIGHER_IS_BETTER else without - with_them


def contribution_plot(report: ContributionReport) -> str:
    """Draw what each organisation's rows added to the main score, as SVG; most on top."""
    shown = sorted(report.added, key=lambda one: (one.added, one.organisation))
    title = f"What each organisation's rows added: {metric_name(report.metric)}"
    with axes_of((5.2, 1.1 + 0.36 * len(shown)), title) as (axes, svg):
        # Colours are told apart by the side of the line that a bar lies on, too.
        colours = [BLUE if one.added >= 0 else VERMILION for one in shown]
        axes.barh(range(len(shown)), [one.added for one in shown], color=colours, height=0.6)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(shown)), [one.organisation for one in shown])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{metric_name(report.metric)} with its rows, less without (right: better with)", fontsize=9)
        return svg()
