"""Whether a model may be used: decisions from figures and the spec's limits, and nothing else.

Each gate gives one result that names its figure, its limit and what follows, so that a person can read why. A
figure that is missing fails its gate: what was not measured cannot be vouched for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lepton_pipelines.spec.gates import METRICS, Gates, Limit

NAMES = {
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
    "auc_gap": "AUC gap",
    "calibration_gap": "calibration gap",
    "demographic_parity_gap": "demographic parity gap",
    "equal_opportunity_gap": "equal opportunity gap",
}

GateKind = Literal["score", "organisation", "champion", "fairness", "model"]


@dataclass(frozen=True)
class GateResult:
    """One gate's outcome.

    name: what was asked, to be shown. figure: what was found, None if it was not measured or may not be shown.
    limit: what was required. passed: whether the figure keeps the limit. message: the outcome in a sentence.
    """

    name: str
    kind: GateKind
    figure: float | None
    limit: float
    passed: bool
    message: str


@dataclass(frozen=True)
class Candidate:
    """What gates look at: a model's figures on the held-out rows.

    scores: the federation's. organisations: all of them. per_organisation: the own scores of those that show
    them. verdicts: {organisation: {metric: limit kept}} of those that do not. gaps: fairness gaps by name, group
    column by the spec. size_bytes: of the model file. latency_ms: to score a row. champion: its scores on the
    same rows, None if there is no champion yet.
    """

    scores: Mapping[str, float]
    organisations: Sequence[str] = ()
    per_organisation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    gaps: Mapping[str, float] = field(default_factory=dict)
    size_bytes: int | None = None
    latency_ms: float | None = None
    champion: Mapping[str, float] | None = None


def decide(gates: Gates, objective: str, candidate: Candidate) -> list[GateResult]:
    """Hold a candidate against the spec's gates, in the spec's order.

    The improvement over the champion is a gate of its own and the last one; without a champion there is none.
    """
    results = [
        result
        for metric, limit in gates.limits().items()
        for result in _bounds(NAMES[metric], "score", candidate.scores.get(metric), limit)
    ]
    if gates.worst_organisation is not None:
        for metric, limit in gates.worst_organisation.limits().items():
            results += worst_organisation(metric, limit, candidate)
    if gates.fairness is not None:
        for gap, limit in gates.fairness.limits().items():
            results += _bounds(f"{NAMES[gap]} by {gates.fairness.group}", "fairness", candidate.gaps.get(gap), limit)
    if gates.size_mb is not None:
        size = None if candidate.size_bytes is None else candidate.size_bytes / 1e6
        results += _bounds("model size in MB", "model", size, gates.size_mb)
    if gates.latency_ms is not None:
        results += _bounds("latency in ms a row", "model", candidate.latency_ms, gates.latency_ms)
    if candidate.champion is not None:
        for metric, amount in gates.required_improvement(objective).items():
            results.append(improvement(metric, amount, candidate.scores.get(metric), candidate.champion.get(metric)))
    return results


def passed(results: list[GateResult]) -> bool:
    """Say whether every gate was passed."""
    return all(result.passed for result in results)


def _bounds(name: str, kind: GateKind, figure: float | None, limit: Limit) -> list[GateResult]:
    """Check both ends of a limit, each as a gate of its own."""
    results = []
    for sign, bound in (("≥", limit.min), ("≤", limit.max)):
        if bound is None:
            continue
        asked = f"{name} {sign} {_shown(bound)}"
        if figure is None:
            results.append(GateResult(asked, kind, None, bound, False, f"{name} was not measured, so {asked} fails."))
            continue
        kept = figure >= bound if sign == "≥" else figure <= bound
        short = "" if kept else f", {_shown(abs(figure - bound))} too {'low' if sign == '≥' else 'high'}"
        results.append(GateResult(asked, kind, figure, bound, kept, f"{name} is {_shown(figure)}{short}."))
    return results


def worst_organisation(metric: str, limit: Limit, candidate: Candidate) -> list[GateResult]:
    """Check that every single organisation keeps a limit; name those that do not, figures only where shown."""
    known = {name: scores[metric] for name, scores in candidate.per_organisation.items() if metric in scores}
    closed = {n: kept[metric] for n, kept in candidate.verdicts.items() if metric in kept and n not in known}
    everybody = sorted({*candidate.organisations, *known, *closed})
    unmeasured = [name for name in everybody if name not in known and name not in closed]
    results = []
    for sign, bound in (("≥", limit.min), ("≤", limit.max)):
        if bound is None:
            continue
        asked = f"worst organisation's {NAMES[metric]} {sign} {_shown(bound)}"
        worst = (min if sign == "≥" else max)(known.values(), default=None)
        failing = {name for name, value in known.items() if (value < bound if sign == "≥" else value > bound)}
        failing |= {name for name, kept in closed.items() if not kept}
        told = []
        if failing:
            told.append(f"{NAMES[metric]} {sign} {_shown(bound)} is not kept at {', '.join(sorted(failing))}")
        if unmeasured or not everybody:
            told.append(f"{NAMES[metric]} was not measured at {', '.join(unmeasured) or 'any organisation'}")
        message = "; ".join(told) or f"All {len(everybody)} organisations keep it"
        results.append(GateResult(asked, "organisation", worst, bound, not told, message + "."))
    return results


def improvement(metric: str, required: float, score: float | None, champion: float | None) -> GateResult:
    """Compare with the champion on the same held-out rows; required 0 means any improvement at all."""
    name = NAMES[metric]
    asked = f"{name} better than the champion's by {_shown(required)}"
    if score is None or champion is None:
        return GateResult(asked, "champion", None, required, False, f"{name} was not measured for both models.")
    change = score - champion
    gain = change if METRICS[metric] else -change
    # A gain that equals what is required must not fail in the last bit of a subtraction.
    kept = gain >= required - 1e-12 if required > 0 else gain > 0
    told = f"{name} {change:+.3f}" if abs(change) >= 0.0005 or change == 0 else f"{name} {change:+.1e}"
    short = "" if kept else f", not better by the required {_shown(required)}" if required else ", not better"
    return GateResult(asked, "champion", gain, required, kept, f"{told}{short}.")


def _shown(value: float) -> str:
    """Write a figure with three digits after the point, fewer if they say the same, more if it would be zero."""
    text = f"{value:.3f}".rstrip("0")
    if value and not text.strip("-0."):
        return f"{value:.1e}"
    return text + "0" * (2 - len(text.rpartition(".")[2])) if "." in text else text
