"""Which runs an organisation has taken part in, kept at home, so that its policy can limit their number."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import Organisation

WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Journal:
    """An organisation's list of runs: one JSON line a run, oldest first. path: of the file."""

    path: Path

    @classmethod
    def of(cls, var: Path, organisation: str) -> "Journal":
        """Return the journal in an organisation's folder below the working folder."""
        return cls(var / "organisations" / organisation / "runs.jsonl")

    def check(self, organisation: Organisation, run_id: str, *, runs: int = 1, begun: Collection[str] = ()) -> None:
        """Refuse more runs than policy allows in seven days.

        runs: that are to begin; one that goes on counts once. begun: ids of those among them that may have begun.
        """
        limit = organisation.policy.runs_per_week
        if limit is None:
            return
        since = datetime.now(UTC) - WEEK
        lately = {run: began for run, began in self._runs() if began > since and run not in {run_id, *begun}}
        if runs > limit:
            raise UserError(
                f"{organisation.organisation}: policy.runs_per_week is {limit}, and {runs} runs are to begin together."
            )
        if len(lately) + runs > limit:
            free = (min(lately.values()) + WEEK).strftime("%Y-%m-%d %H:%M UTC")
            raise UserError(
                f"{organisation.organisation}: policy.runs_per_week is {limit}, and {len(lately)} runs began within "
                f"seven days. The next may begin at {free}."
            )

    def note(self, run_id: str, pipeline: str) -> None:
        """Note that the organisation takes part in a run; once is enough."""
        if any(run == run_id for run, _ in self._runs()):
            return
        line = json.dumps({"run": run_id, "pipeline": pipeline, "began": datetime.now(UTC).isoformat()})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror}). Give write permission there."
            ) from error

    def _runs(self) -> list[tuple[str, datetime]]:
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [(line["run"], datetime.fromisoformat(line["began"])) for line in lines]
