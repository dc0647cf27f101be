"""Runs, as the ledger and this organisation's own folder know them: rounds so far, scores, their pages."""

import io
import json
from typing import Any

import numpy as np

from lepton_pipelines.ledger.history import History
from lepton_pipelines.ledger.runs import Run
from lepton_pipelines.organisation.folder import RunFolder
from lepton_pipelines.organisation.outcome import SPEC_FILE
from lepton_pipelines.portal import messages
from lepton_pipelines.portal.listing import NotThere
from lepton_pipelines.portal.server_pages import pages_of
from lepton_pipelines.portal.stand import Stand

REPORT = "report.html"
HERE = "here"  # what the ledger does not know (yet): a run in one process is recorded when it has ended
Scores = dict[str, dict[str, list[float]]]


def runs(stand: Stand) -> list[messages.Run]:
    """Return all runs, the newest first."""
    history = stand.snapshot().history
    folder = stand.var / "runs"
    here = {path.name for path in folder.iterdir() if (path / SPEC_FILE).is_file()} if folder.is_dir() else set()
    known = [_run(stand, history, name) for name in sorted(here | history.runs.by_id.keys())]
    return sorted(known, key=lambda run: (run.index is None, run.index or 0, run.run), reverse=True)


def run(stand: Stand, name: str) -> messages.RunDetail:
    """Return one run. Raises NotThere if neither the ledger nor the own folder knows it."""
    history = stand.snapshot().history
    folder = RunFolder(stand.var, name)
    known = history.runs.by_id.get(name)
    if known is None and not (folder.path / SPEC_FILE).is_file():
        raise NotThere(f"there is no run {name}.")
    one = _run(stand, history, name)
    versions = [(m, n) for (m, n), version in history.runs.versions.items() if version.published.run == name]
    return messages.RunDetail(
        **one.model_dump(),
        **({} if known is None else _said(known)),
        models=[f"{model}/{number}" for model, number in sorted(versions)],
        history=_history(folder, stand.organisation),
        report=(folder.path / REPORT).is_file(),
        links=pages_of(stand.links, name, one.pipeline),
    )


def _said(known: Run) -> dict[str, Any]:
    return {
        "manifest": known.opened.manifest,
        "spec": known.opened.spec,
        "joined": {name: joined.rows for name, (_, joined) in sorted(known.joined.items())},
        "metrics": {metric: score for _, one in known.evaluations for metric, score in one.metrics.items()},
        "gates": {gate: passed for _, one in known.evaluations for gate, passed in one.gates.items()},
    }


def _run(stand: Stand, history: History, name: str) -> messages.Run:
    known = history.runs.by_id.get(name)
    folder = RunFolder(stand.var, name)
    spec = _spec(folder)
    rounds = max((folder.of(each).rounds() or [0])[-1] for each in _members(known, spec) or [stand.organisation])
    done = known is not None and known.state == "finished"
    return messages.Run(
        run=name,
        pipeline=known.opened.pipeline if known is not None else str(spec.get("name", name)),
        state=known.state if known is not None else HERE,
        members=_members(known, spec),
        trees=0 if known is None else known.trees,
        rounds=max(rounds, 0 if known is None else known.trees),
        of=None if done else spec.get("training", {}).get("rounds"),
        index=None if known is None else known.index,
        model=None if known is None else known.model,
    )


def _members(known: Run | None, spec: dict[str, Any]) -> list[str]:
    if known is not None:
        return known.members
    return sorted(spec.get("organisations") or [])


def _spec(folder: RunFolder) -> dict[str, Any]:
    try:
        found = json.loads((folder.path / SPEC_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _history(folder: RunFolder, organisation: str) -> Scores:
    """Return the scores so far from this organisation's newest checkpoint, which a run may be replacing just now."""
    own = folder.of(organisation)
    for number in reversed(own.rounds()):
        try:
            with np.load(io.BytesIO(own.read_checkpoint(number)), allow_pickle=False) as file:
                scores, _ = json.loads(file["history"].tobytes())
        except (OSError, ValueError, KeyError):
            continue
        return dict(scores)
    return {}
