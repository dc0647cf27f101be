"""What a person is shown who decides on a challenger: its figures beside the champion's, and the gates, as Markdown."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lepton_pipelines.registry.gates import NAMES
from lepton_pipelines.registry.promotion import CHAMPION, GATES_TAG, holder, read_version
from lepton_pipelines.registry.run_files import read_run_file
from lepton_pipelines.registry.tracking import Tracking

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class Candidacy:
    """A version that somebody decides on. champion: the version in use, None if there is none.

    text: both models' scores on the same held-out rows, those of organisations that allow it, and the gates.
    """

    model: str
    version: str
    champion: str | None
    text: str


def candidacy(tracking: Tracking, model: str, version: str) -> Candidacy:
    """Gather what is known of a version and of the champion. Raises UserError if there is no such version."""
    found = read_version(tracking, model, version)
    champion = holder(tracking, model, CHAMPION)
    number = None if champion is None else champion.number
    results = _results(tracking, model, version)
    lines = [f"**{model}: version {version}** " + (f"against champion v{number}" if number else "(no champion yet)")]
    if results is not None:
        lines += ["", *_scores(results, version)]
    gates = json.loads(found.tags.get(GATES_TAG, "[]"))
    if gates:
        lines += ["", "**Gates**", ""]
        lines += [f"- {'✓' if one['passed'] else '✗'} {one['name']}: {one['message']}" for one in gates]
    return Candidacy(model, version, number, "\n".join(lines))


def _scores(results: Mapping[str, Any], version: str) -> list[str]:
    """Write the scores as a table: one row a metric, then one an organisation that shows its own."""
    rows = {row["kind"]: row for row in results["comparison"] if row["kind"] in ("federated", "champion")}
    new, old = rows.get("federated"), rows.get("champion")
    if new is None:
        return []
    first = results["primary_metric"]
    metrics = [first, *(name for name in new["scores"] if name != first)]
    lines = [f"| on {results['figures']['rows']} held-out rows | v{version} | champion |", "| --- | ---: | ---: |"]
    lines += [_line(NAMES.get(name, name), new["scores"], old and old["scores"], name) for name in metrics]
    for organisation, scores in sorted(new["per_organisation"].items()):
        before = old and old["per_organisation"].get(organisation)
        lines.append(_line(f"{NAMES.get(first, first)} at {organisation}", scores, before, first))
    return lines


def _line(label: str, new: Mapping[str, float], old: Mapping[str, float] | None, metric: str) -> str:
    return f"| {label} | {_figure(new.get(metric))} | {_figure(None if old is None else old.get(metric))} |"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _results(tracking: Tracking, model: str, version: str) -> dict[str, Any] | None:
    """Load the figures that were recorded beside the version; None if its run has none."""
    found = read_run_file(tracking, model, version, RESULTS_FILE)
    return None if found is None else json.loads(found)
