"""What an organisation keeps of runs that are over goes after the days that its policy says.

Journals, checkpoints, rows that were set aside and logs go. What proves and explains a model stays: the model, report,
spec and part, the ledger and the salt of its digests. The memory of members and rows (`history.sqlite`) stays, too, or
the rules that look back at earlier runs would begin anew. A run whose journal went is noted there first and never
signed for again: without its commitments the same run could be repeated over other rows.
"""

import datetime as dt
import shutil
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lepton_pipelines.federation.changing import STAGES_FILE
from lepton_pipelines.federation.home_rules import RunHistory
from lepton_pipelines.federation.hub_connection import HubConnection
from lepton_pipelines.federation.manifest import read_manifest
from lepton_pipelines.federation.runs import is_held, only_process
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.organisation.folder import CHECKPOINT, LOG_FILE, QUARANTINE, ROWS_FILE, SALT_FILE, RunFolder
from lepton_pipelines.spec.errors import UserError

KEPT_AT_HOME = frozenset({SALT_FILE, STAGES_FILE})  # they check the ledger's digests, and name its runs


@dataclass(frozen=True)
class Cleared:
    """A run of which only what proves its model is left. files, bytes: what went."""

    run: str
    files: int
    bytes: int


def clear_over(
    home: OrganisationHome, var: Path, *, days: int, under_way: Collection[str], now: dt.datetime | None = None
) -> list[Cleared]:
    """Delete what is not kept of runs at a hub that are over, and in which nothing happened for so many days.

    var: where their reports and models lie. under_way: runs that the hub says are not over, by the ids that they began
    with: suspended ones are among them until they expire. A run that a process is in is left alone.
    Raises UserError if something cannot be deleted.
    """
    before = (now or dt.datetime.now(dt.UTC)).timestamp() - days * 86400
    stages: dict[str, list[Path]] = {}
    cleared = []
    with closing(RunHistory(home.folder)) as history:
        for path in sorted((home.folder / "runs").glob("*/")):
            manifest = history.manifest(path.name)
            stages.setdefault(path.name if manifest is None else manifest.root, []).append(path)
        for run, folders in stages.items():
            own = RunFolder(var, run)
            going = [path for folder in folders for path in _private(folder)]
            going += _of_run(own, home.organisation)
            if run in under_way or not going or _last_change([*folders, own.path]) > before or is_held(run, home):
                continue
            with only_process(run, home):
                for stage in {run, *(folder.name for folder in folders)}:
                    history.forget(stage)
                cleared.append(_delete(run, going))
    return cleared


def runs_under_way(connection: HubConnection) -> set[str]:
    """Ask the hub which runs of this organisation are not over; by the ids that they began with."""
    return {read_manifest(one.manifest).root for one in connection.runs_under_way()}


def _private(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if path.name not in KEPT_AT_HOME and path.name != "lock"]


def _of_run(folder: RunFolder, organisation: str) -> list[Path]:
    own = folder.of(organisation).path
    found = [path for path in own.glob("*") if CHECKPOINT.match(path.name) or path.name == ROWS_FILE]
    found += [*own.glob("said-*"), *_files(own / QUARANTINE), folder.path / LOG_FILE]
    return [path for path in found if path.is_file()]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _last_change(folders: list[Path]) -> float:
    # The lock is opened by whoever asks whether a process is in the run.
    times = [path.stat().st_mtime for folder in folders for path in _files(folder) if path.name != "lock"]
    return max(times, default=0.0)


def _delete(run: str, going: list[Path]) -> Cleared:
    size = 0
    try:
        for path in going:
            size += path.stat().st_size
            path.unlink()
        for folder in {path.parent for path in going if path.parent.name in ("totals", "checkpoints", QUARANTINE)}:
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(
            f"run {run}: {error.filename} cannot be deleted ({error.strerror}). Give write permission there."
        ) from error
    return Cleared(run, len(going), size)
