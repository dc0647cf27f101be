"""The report: one self-contained HTML file that opens anywhere, from an evaluation and nothing else.

What it says in words is worked out here, by small functions of the evaluation; how it looks is in
`report.html.j2`. Nothing is loaded from anywhere: styles and plots are in the file, there is no script.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lepton_pipelines.evaluation import plots as drawing
from lepton_pipelines.evaluation.plots import metric_name
from lepton_pipelines.evaluation.result import HIGHER_IS_BETTER, Evaluation, better

TEMPLATE = Path(__file__).with_name("report.html.j2")

# The colours that plots are drawn with become the page's own, so that they follow light, dark and paper.
_PAGE_COLOURS = {
    drawing.INK: "var(--ink)",
    drawing.MUTED: "var(--muted)",
    drawing.GRID: "var(--line)",
    drawing.BLUE: "var(--blue)",
    drawing.VERMILION: "var(--vermilion)",
    drawing.GREEN: "var(--green)",
    drawing.PURPLE: "var(--purple)",
    drawing.AMBER: "var(--amber)",
    drawing.SKY: "var(--sky)",
}

PLOT_TITLES = {
    "roc": "ROC: hits against false alarms",
    "precision_recall": "Precision and recall",
    "calibration": "Calibration: does 70 % mean 70 %?",
    "confusion": "Right and wrong, by class",
    "predicted_actual": "Predicted against actual",
    "errors": "How errors are spread",
}


@dataclass(frozen=True)
class Finding:
    """One of the answers on the first screen. mark: pass, fail or note; shown as a sign and a word, too."""

    question: str
    answer: str
    detail: str
    mark: Literal["pass", "fail", "note"]


def render(evaluation: Evaluation, plots: dict[str, str] | None = None) -> str:
    """Write the report: one HTML file without external resources.

    plots: from `plots.draw`, drawn here if they are not given.
    """
    from jinja2 import Environment, StrictUndefined

    drawn = drawing.draw(evaluation) if plots is None else plots
    inline = {name: inline_plot(name, svg) for name, svg in drawn.items()}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        bytes=bytes_text,
        seconds=seconds_text,
        core_hours=core_hours_text,
        count=count_text,
        score=score_text,
        gaps=gaps_text,
        metric=metric_name,
        title=titled,
    )
    return environment.from_string(TEMPLATE.read_text()).render(
        e=evaluation,
        verdict=verdict(evaluation),
        findings=findings(evaluation),
        metrics=compared_metrics(evaluation),
        plots=inline,
        plot_titles=PLOT_TITLES,
        learning=[name for name in inline if name.startswith("learning_")],
        rows=total_rows(evaluation),
    )


def verdict(evaluation: Evaluation) -> Finding:
    """Say whether the model may be used."""
    failed = [gate for gate in evaluation.gates if not gate.passed]
    decision = evaluation.registration.decision if evaluation.registration else ""
    if failed:
        one = len(evaluation.gates) == 1
        count = "its one gate failed" if one else f"{len(failed)} of {len(evaluation.gates)} gates failed"
        return Finding("May it be used?", f"Not to be used: {count}", decision, "fail")
    if not evaluation.gates:
        return Finding("May it be used?", "No gates are set: nobody has said what it must reach", decision, "note")
    gates = len(evaluation.gates)
    passed = "its one gate was passed" if gates == 1 else f"all {gates} gates were passed"
    return Finding("May it be used?", f"May be used: {passed}", decision, "pass")


def findings(evaluation: Evaluation) -> list[Finding]:
    """Answer the first screen's questions: how good, better than each alone, than the champion, the same trees?"""
    found = (_how_good(evaluation), _than_alone(evaluation), _than_champion(evaluation), _same_trees(evaluation))
    return [finding for finding in found if finding is not None]


def _how_good(evaluation: Evaluation) -> Finding:
    metric = evaluation.primary_metric
    score = evaluation.figures.scores.get(metric)
    rows = f"on {count_text(evaluation.figures.rows)} held-out rows"
    if score is None:
        return Finding(f"How good is it? ({metric_name(metric)})", "not defined", rows, "note")
    unit = f" {evaluation.unit}" if evaluation.unit and metric in ("rmse", "mae") else ""
    return Finding(f"How good is it? ({metric_name(metric)})", score_text(score, metric) + unit, rows, "note")


def _than_alone(evaluation: Evaluation) -> Finding | None:
    metric = evaluation.primary_metric
    alone = [row for row in evaluation.comparison if row.kind == "alone" and metric in row.scores]
    score = evaluation.figures.scores.get(metric)
    if not alone or score is None:
        return None
    best = max(alone, key=lambda row: row.scores[metric] * _sign(metric))
    detail = f"best alone: {best.name.removesuffix(' alone')} with {score_text(best.scores[metric], metric)}"
    everybody = "the only one" if len(alone) == 1 else f"all {len(alone)}"
    beaten = [row for row in alone if better(metric, score, row.scores[metric])]
    if len(beaten) == len(alone):
        return Finding("Better than each alone?", f"Yes, than {everybody}", detail, "pass")
    if not better(metric, best.scores[metric], score):
        return Finding("Better than each alone?", f"Than {len(beaten)}, equal to the best", detail, "note")
    return Finding("Better than each alone?", f"Than {len(beaten)} of {len(alone)}", detail, "fail")


def _than_champion(evaluation: Evaluation) -> Finding:
    metric, champion = evaluation.primary_metric, evaluation.champion
    question = "Better than the champion?"
    if champion is None:
        return Finding(question, "No champion yet", "this is the first model of its name", "note")
    old, new = champion.scores.get(metric), evaluation.figures.scores.get(metric)
    if old is None or new is None:
        return Finding(question, "not comparable", f"{metric_name(metric)} is not defined for both", "note")
    change = f"{metric_name(metric)} {new - old:+.3f} against version {champion.version}"
    if better(metric, new, old):
        return Finding(question, "Yes", f"{change} on the same rows", "pass")
    return Finding(question, "No" if better(metric, old, new) else "Equal", f"{change} on the same rows", "note")


def _same_trees(evaluation: Evaluation) -> Finding | None:
    equal = evaluation.trees_equal
    if equal is None:
        return None
    answer = f"Yes, {equal.trees_equal} of {equal.trees}" if equal.equal else f"{equal.trees_equal} of {equal.trees}"
    return Finding("Same trees as pooled rows?", answer, equal.reference, "pass" if equal.equal else "fail")


def _sign(metric: str) -> int:
    return 1 if metric.partition("@")[0] in HIGHER_IS_BETTER else -1


def compared_metrics(evaluation: Evaluation) -> list[str]:
    """Choose the columns of the comparison: the primary metric, then one more that says something else."""
    second = {"binary": "logloss", "regression": "mae", "multiclass": "merror"}[evaluation.figures.task]
    wanted = dict.fromkeys([evaluation.primary_metric, second])
    return [metric for metric in wanted if any(metric in row.scores for row in evaluation.comparison)]


def total_rows(evaluation: Evaluation) -> int | None:
    """Count the rows that the model was trained on, if every organisation shows its count."""
    counts = [one.rows.get("train") if one.rows else None for one in evaluation.organisations]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def score_text(value: float | None, metric: str = "") -> str:
    """Write a score: three digits after the point, or four significant ones where values are large."""
    if value is None:
        return "–"
    if metric in ("rmse", "mae", "mean_error") or abs(value) >= 100:
        return f"{value:,.4g}"
    return f"{value:.3f}"


def count_text(value: float | None) -> str:
    """Write a count with thin spaces between thousands, as is read alike in every language."""
    return "not shown" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def bytes_text(value: float | None) -> str:
    """Write a number of bytes in the unit that leaves one to three digits before the point."""
    if value is None:
        return "not shown"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the loop ends at GB")


def seconds_text(value: float | None) -> str:
    """Write a time: 3 ms, 2.4 s, 1 min 20 s."""
    if value is None:
        return "not shown"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def core_hours_text(seconds: float | None) -> str:
    """Write processor seconds as core-hours."""
    return "–" if seconds is None else f"{seconds / 3600:.3g}"


def gaps_text(gaps: dict[str, float]) -> str:
    """Write the gaps between groups as one sentence."""
    return ", ".join(f"{name.replace('_', ' ')} {score_text(value)}" for name, value in gaps.items())


def titled(text: str) -> str:
    """Begin with a capital letter and leave the rest alone."""
    return text[:1].upper() + text[1:]


def inline_plot(name: str, svg: str) -> str:
    """Make a standalone SVG part of the page: its ids its own, its colours the page's, nothing but the drawing."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'\b(width|height)="[\d.]+pt"', "", body, count=2)
    # Matplotlib names a font that a reader may not have; the page's own is as good.
    body = re.sub(r"font:([^;\"]*?)'?sans-serif'?[^;\"]*", r"font:\1var(--font)", body)
    body = body.replace("xmlns:xlink=", "xmlns:xlink=", 1)
    for colour, variable in _PAGE_COLOURS.items():
        body = body.replace(colour, variable)
    return body
