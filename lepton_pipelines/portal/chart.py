"""A training's scores, a round a point, as lines that a page draws."""

from dataclasses import dataclass

WIDTH, HEIGHT, PAD = 320, 96, 6
COLOURS = 3


@dataclass(frozen=True)
class Line:
    """One set's scores. points: as SVG has them."""

    name: str
    points: str
    last: float


@dataclass(frozen=True)
class Chart:
    """One metric: its lines, and the range that they were drawn in."""

    metric: str
    lines: list[Line]
    low: float
    high: float
    rounds: int


def charts_of(history: dict[str, dict[str, list[float]]]) -> list[Chart]:
    """Return a chart a metric with a line a set (train, valid)."""
    metrics = list(dict.fromkeys(metric for scores in history.values() for metric in scores))
    found = []
    for metric in metrics:
        series = {name: scores[metric] for name, scores in history.items() if scores.get(metric)}
        values = [value for each in series.values() for value in each]
        if not values:
            continue
        low, high = min(values), max(values)
        rounds = max(len(each) for each in series.values())
        lines = [Line(name, _points(each, low, high, rounds), each[-1]) for name, each in series.items()]
        found.append(Chart(metric, lines[:COLOURS], low, high, rounds))
    return found


def _points(values: list[float], low: float, high: float, rounds: int) -> str:
    step = (WIDTH - 2 * PAD) / max(rounds - 1, 1)
    span = (high - low) or 1.0
    placed = (
        (PAD + step * i, HEIGHT - PAD - (value - low) / span * (HEIGHT - 2 * PAD)) for i, value in enumerate(values)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
