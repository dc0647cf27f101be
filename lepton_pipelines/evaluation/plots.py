"""The report's plots, as SVG: readable in black and white, by colour-blind people, on paper and on a dark page.

Each function gives one standalone SVG file. Colours are Okabe and Ito's (2008); wherever two lines meet, they
differ in dashes or markers too. Text stays text, so that it can be searched and read aloud.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_pipelines.evaluation.result import (
    CalibrationBin,
    ComparisonRow,
    Confusion,
    Curve,
    DriftLine,
    Evaluation,
    Importance,
    RegressionFigures,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b2733", "#6b7885", "#d9dfe5"
BLUE, VERMILION, GREEN, AMBER, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, AMBER, SKY)
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (8, 2)), (0, (3, 1)))
HEAT = "Blues"

METRIC_NAMES = {
    "auc": "AUC",
    "aucpr": "PR AUC",
    "logloss": "log loss",
    "mlogloss": "log loss",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "merror": "error",
    "error": "error",
    "mean_error": "mean error",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
}

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lepton",  # the same figures give the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}

WIDE, SQUARE = (4.8, 2.9), (4.4, 3.9)


def metric_name(metric: str) -> str:
    """Give a metric's name as it is written: `logloss` is log loss; what has none keeps XGBoost's."""
    return METRIC_NAMES.get(metric, metric)


def draw(evaluation: Evaluation) -> dict[str, str]:
    """Draw every plot that an evaluation has figures for: {name: SVG}."""
    figures = evaluation.figures
    plots: dict[str, str] = {}
    for metric in _metrics_of(evaluation):
        plots[f"learning_{metric.replace('@', '_')}"] = learning_curve(evaluation, metric)
    if figures.task == "binary":
        if figures.roc.x:
            plots["roc"] = roc({"federated": figures.roc}, figures.scores.get("auc"))
        if figures.precision_recall.x:
            positives = sum(figures.confusion.counts[1])
            whole = positives + sum(figures.confusion.counts[0])
            plots["precision_recall"] = precision_recall(figures.precision_recall, positives / whole)
    elif figures.task == "multiclass":
        plots["roc"] = roc(figures.roc, None)
    if figures.task == "regression":
        plots["predicted_actual"] = predicted_against_actual(figures, evaluation.unit)
        plots["errors"] = error_histogram(figures, evaluation.unit)
    else:
        plots["calibration"] = calibration(figures.calibration, top_class=figures.task == "multiclass")
        plots["confusion"] = confusion(figures.confusion)
    if evaluation.gain:
        plots["gain"] = importance(evaluation.gain, "share of the total gain", percent=True)
    if evaluation.shap:
        unit = evaluation.unit or "log-odds" if figures.task != "regression" else evaluation.unit or "label's unit"
        plots["shap"] = importance(evaluation.shap, f"mean |SHAP value| ({unit})", percent=False)
    if any(row.per_organisation for row in evaluation.comparison):
        plots["organisations"] = organisations(evaluation.comparison, evaluation.primary_metric)
    return plots


def _metrics_of(evaluation: Evaluation) -> list[str]:
    names = [metric for scores in evaluation.history.values() for metric in scores]
    return list(dict.fromkeys(names))


@contextmanager
def axes_of(size: tuple[float, float], title: str) -> "Iterator[tuple[Axes, Callable[[], str]]]":
    """Give empty axes and what turns the figure into SVG; no global figure is involved."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure: Figure = Figure(figsize=size, layout="constrained")
        yield figure.subplots(), lambda: _svg(figure, title)


def _svg(figure: "Figure", title: str) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    return text.getvalue()


def learning_curve(evaluation: Evaluation, metric: str) -> str:
    """Draw a metric after each round: training and validation rows of the federation, organisations faintly."""
    from matplotlib.ticker import MaxNLocator

    with axes_of(WIDE, f"{metric_name(metric)} after each round") as (axes, svg):
        ends: dict[str, tuple[int, float]] = {}
        for organisation in evaluation.organisations:
            scores = (organisation.history or {}).get("valid", {}).get(metric, [])
            if scores:
                axes.plot(range(1, len(scores) + 1), scores, color=MUTED, linewidth=0.8, alpha=0.7)
                ends[organisation.name] = (len(scores), scores[-1])
        names = {"train": "training rows", "valid": "validation rows", "test": "test rows"}
        lines = [(rows, by[metric]) for rows, by in evaluation.history.items() if metric in by]
        for place, (rows, scores) in enumerate(lines):
            axes.plot(
                range(1, len(scores) + 1),
                scores,
                color=SERIES[place],
                linestyle=DASHES[place],
                label=names.get(rows, rows),
            )
        if evaluation.best_round is not None:
            axes.axvline(evaluation.best_round, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
            axes.annotate(
                f"best round: {evaluation.best_round}",
                (evaluation.best_round, 0.5),
                xycoords=("data", "axes fraction"),
                xytext=(-5, 0),
                textcoords="offset points",
                ha="right",
                rotation=90,
                va="center",
                fontsize=8,
                color=INK,
            )
        axes.set_xlabel("round")
        axes.set_ylabel(metric_name(metric))
        axes.margins(x=0.02)
        _name_ends(axes, ends)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        return svg()


def _name_ends(axes: "Axes", ends: dict[str, tuple[int, float]]) -> None:
    """Write names beside the ends of lines, from below upwards and far enough apart to be read."""
    low, high = axes.get_ylim()
    apart, lowest = (high - low) * 0.065, low
    for name, (x, y) in sorted(ends.items(), key=lambda end: end[1][1]):
        place = max(y, lowest)
        axes.annotate(
            name, (x, place), (4, 0), textcoords="offset points", color=MUTED, fontsize=8, va="center", clip_on=False
        )
        lowest = place + apart


def roc(curves: dict[str, Curve], auc: float | None) -> str:
    """Draw the receiver operating characteristic, one line a class."""
    with axes_of(SQUARE, "Receiver operating characteristic") as (axes, svg):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for place, (name, curve) in enumerate(curves.items()):
            style = DASHES[place % len(DASHES)]
            axes.plot(curve.x, curve.y, color=SERIES[place % len(SERIES)], linestyle=style, label=name)
        if len(curves) == 1:
            (curve,) = curves.values()
            axes.fill_between(curve.x, curve.y, color=BLUE, alpha=0.08, linewidth=0)
            if auc is not None:
                axes.text(0.95, 0.08, f"AUC {auc:.3f}", ha="right", fontsize=13, fontweight="bold")
        else:
            axes.legend(loc="lower right", title="class against the rest")
        _unit_square(axes, "false positive rate", "true positive rate")
        axes.text(0.5, 0.47, "guessing", color=MUTED, fontsize=8, rotation=42, ha="center", va="top")
        return svg()


def precision_recall(curve: Curve, share: float) -> str:
    """Draw precision against recall, with the share of positives that guessing would give."""
    with axes_of(SQUARE, "Precision and recall") as (axes, svg):
        axes.axhline(share, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.text(0.02, share + 0.015, f"guessing: {share:.0%}", color=MUTED, fontsize=8)
        axes.plot(curve.x, curve.y, color=BLUE)
        _unit_square(axes, "recall: positives that are found", "precision: finds that are right")
        return svg()


def calibration(bins: Sequence[CalibrationBin], *, top_class: bool) -> str:
    """Draw observed shares against predicted probabilities; areas of the points are rows."""
    with axes_of(SQUARE, "Calibration") as (axes, svg):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        some = [(b.predicted, b.observed, b.rows) for b in bins if b.predicted is not None and b.observed is not None]
        x, y, rows = ([point[axis] for point in some] for axis in range(3))
        most = max(rows, default=1.0)
        axes.plot(x, y, color=BLUE, linewidth=1.2, alpha=0.6)
        axes.scatter(
            x, y, s=[20 + 240 * one / most for one in rows], color=BLUE, alpha=0.85, linewidths=0, clip_on=False
        )
        what = "probability of the predicted class" if top_class else "predicted probability"
        _unit_square(axes, what, "share that came true")
        axes.text(0.97, 0.03, "larger point: more rows", color=MUTED, fontsize=8, ha="right")
        return svg()


def _unit_square(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def confusion(table: Confusion) -> str:
    """Draw rows by true and predicted class; darker cells hold a larger share of their true class."""
    counts = np.array(table.counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(7.0, max(4.2, 1.6 + 0.7 * len(counts)))
    with axes_of((size, size * 0.86), "Confusion") as (axes, svg):
        axes.grid(visible=False)
        axes.imshow(shares, cmap=HEAT, vmin=0, vmax=1.15)
        for (row, column), count in np.ndenumerate(counts):
            text = f"{count:,.0f}\n{shares[row, column]:.0%}" if len(counts) <= 6 else f"{count:,.0f}"
            colour = "#ffffff" if shares[row, column] > 0.7 else "#0b1726"
            axes.text(column, row, text, ha="center", va="center", color=colour)
        axes.set_xticks(range(len(counts)), table.classes)
        axes.set_yticks(range(len(counts)), table.classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        return svg()


def importance(features: Sequence[Importance], axis: str, *, percent: bool, most: int = 12) -> str:
    """Draw the most important features as bars."""
    shown = list(features[:most])[::-1]
    with axes_of((4.8, 0.8 + 0.27 * len(shown)), f"Importance: {axis}") as (axes, svg):
        values = [one.value for one in shown]
        axes.barh(range(len(shown)), values, color=BLUE, height=0.62)
        for place, value in enumerate(values):
            text = f"{value:.0%}" if percent else f"{value:.2g}"
            axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
        axes.set_yticks(range(len(shown)), [one.feature for one in shown])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12, y=0.02)
        axes.set_xlim(left=0)
        axes.set_xlabel(axis)
        if percent:
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        return svg()


def organisations(rows: Sequence[ComparisonRow], metric: str) -> str:
    """Draw each model's score on every organisation's rows: the dot is all rows, the bar from worst to best."""
    shown = [row for row in rows if metric in row.scores][::-1]
    markers = {"alone": "o", "champion": "D", "federated": "s", "pooled": "^"}
    colours = {"alone": MUTED, "champion": AMBER, "federated": BLUE, "pooled": GREEN}
    with axes_of((4.8, 1.0 + 0.36 * len(shown)), f"{metric_name(metric)} of each model") as (axes, svg):
        for place, row in enumerate(shown):
            own = {name: scores[metric] for name, scores in row.per_organisation.items() if metric in scores}
            colour = colours[row.kind]
            if own:
                axes.plot([min(own.values()), max(own.values())], [place, place], color=colour, linewidth=5, alpha=0.3)
                axes.scatter(list(own.values()), [place] * len(own), color=colour, s=18, marker="|", linewidths=1.4)
            axes.scatter([row.scores[metric]], [place], color=colour, s=70, marker=markers[row.kind], zorder=3)
        axes.set_yticks(range(len(shown)), [row.name for row in shown])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{metric_name(metric)} (marker: all rows; bar: worst to best organisation)", fontsize=9)
        return svg()


def predicted_against_actual(figures: RegressionFigures, unit: str) -> str:
    """Draw rows by actual and predicted value; the diagonal is a perfect model."""
    edges = np.array(figures.value_edges)
    joint = np.array(figures.joint)
    filled = np.flatnonzero(joint.any(axis=0) | joint.any(axis=1))
    low, high = (edges[filled[0]], edges[filled[-1] + 1]) if len(filled) else (edges[0], edges[-1])
    with axes_of(SQUARE, "Predicted against actual values") as (axes, svg):
        shade = np.ma.masked_equal(np.log1p(joint.T), 0)
        axes.pcolormesh(edges, edges, shade, cmap=HEAT, vmin=-0.25 * float(shade.max() or 1), rasterized=False)
        axes.plot([low, high], [low, high], color=VERMILION, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal", adjustable="box")
        axes.set_xlabel(f"actual{_in(unit)}")
        axes.set_ylabel(f"predicted{_in(unit)}")
        return svg()


def error_histogram(figures: RegressionFigures, unit: str) -> str:
    """Draw how errors are spread around zero."""
    with axes_of(SQUARE, "Errors") as (axes, svg):
        edges = np.array(figures.error_edges)
        axes.stairs(figures.error_counts, edges, fill=True, color=BLUE, alpha=0.85)
        axes.axvline(0, color=INK, linewidth=0.9)
        filled = np.flatnonzero(figures.error_counts)
        if len(filled):
            reach = max(abs(edges[filled[0]]), abs(edges[filled[-1] + 1]))
            axes.set_xlim(-reach, reach)
        axes.set_xlabel(f"predicted − actual{_in(unit)}")
        axes.set_ylabel("rows")
        return svg()


def drift_plot(lines: Sequence[DriftLine]) -> str:
    """Draw how far each column has moved, as bars of the population stability index, with each one's limit."""
    shown = sorted(lines, key=lambda line: line.psi)[-20:]
    with axes_of((4.8, 1.0 + 0.24 * len(shown)), "Population stability index by column") as (axes, svg):
        places = range(len(shown))
        colours = [VERMILION if line.drifted else BLUE for line in shown]
        axes.barh(places, [line.psi for line in shown], color=colours, height=0.62)
        axes.plot([line.psi_limit for line in shown], places, linestyle="none", marker="|", markersize=11, color=INK)
        axes.set_yticks(places, [line.column for line in shown])
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(left=0)
        axes.set_xlabel("population stability index; the mark is the limit")
        return svg()


def _in(unit: str) -> str:
    return f" ({unit})" if unit else ""
