"""Core-hours of ordinary runs, by run and organisation: what the threads of each one's Dask workers spent on its rows.

Read from what runs leave in the working folder: an organisation's own part tells its own, the run's results tell the
others' where their policies show rows, with whose number the time goes.
"""

import json
from pathlib import Path
from typing import Any

from lepton_pipelines.organisation.outcome import RESULTS_FILE

PART_FILE = "part.json"


def core_hours_of_runs(var: Path) -> dict[str, dict[str, float]]:
    """Return core-hours by run, oldest first, and by organisation, of the runs that have ended below a folder."""
    found = {}
    for folder in sorted((var / "runs").glob("*/")):
        seconds = {**_shown(folder / RESULTS_FILE), **_own(folder)}
        if seconds:
            found[folder.name] = {name: round(spent / 3600, 6) for name, spent in sorted(seconds.items())}
    return found


def _shown(results: Path) -> dict[str, float]:
    told: list[dict[str, Any]] = json.loads(results.read_bytes())["organisations"] if results.is_file() else []
    return {one["name"]: one["core_seconds"] for one in told if one.get("core_seconds") is not None}


def _own(folder: Path) -> dict[str, float]:
    parts = [json.loads(path.read_bytes()) for path in folder.glob(f"organisations/*/{PART_FILE}")]
    return {one["organisation"]: one["core_seconds"] for one in parts if one.get("core_seconds") is not None}
