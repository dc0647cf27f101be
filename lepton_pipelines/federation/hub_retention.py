"""What the hub's log keeps of runs that are over goes after the days that the hub's settings say.

Keys, statements of sums and small masked vectors go. Of every run stay its manifest with everyone's signature, so that
no other run takes its id; how it ended, with the signatures for that, for members that come late; and evidence. The
ledger and the market's documents are elsewhere and stay. A run that is suspended is not over, nor is one that goes on
with other members.
"""

import time
from dataclasses import dataclass

from lepton_pipelines.federation.hub_log import HubLog
from lepton_pipelines.federation.manifest import read_manifest


@dataclass(frozen=True)
class ClearedRun:
    """A run of which only its signed manifest and its end are left. statements, bytes: what went."""

    run: str
    statements: int
    bytes: int


def clear_log(log: HubLog, *, days: int, now: float | None = None) -> list[ClearedRun]:
    """Delete what is not kept of runs that were over for so many days, with all that they went on as."""
    before = (time.time() if now is None else now) - days * 86400
    ends = log.ends()
    stages: dict[str, list[str]] = {}
    for run, manifest in log.runs():
        stages.setdefault(read_manifest(manifest).root, []).append(run)
    cleared = []
    for of_one in stages.values():
        over = [ends[run] for run in of_one]
        if any(end is None or end > before for end in over):
            continue
        for run in of_one:
            statements, size = log.forget(run)
            if statements:
                cleared.append(ClearedRun(run, statements, size))
    return cleared
