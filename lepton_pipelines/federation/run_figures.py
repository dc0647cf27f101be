"""What a hub's own operator may see of a run: counts, seconds, and whom it waits for."""

from dataclasses import dataclass

from lepton_pipelines.federation.hub import ABORTED, FINISHED, HubRun


@dataclass(frozen=True)
class RunFigures:
    """Figures of one run. sums, bytes: so far. seconds: since the hub took it up.

    missing: members that its next step waits for. silent: seconds since each member was last heard of.
    """

    run: str
    pipeline: str
    state: str
    sums: int
    bytes: int
    seconds: float
    missing: tuple[str, ...]
    silent: dict[str, float]

    @property
    def under_way(self) -> bool:
        """Whether the run still invites, runs, or can be resumed."""
        return self.state not in (ABORTED, FINISHED)


def figures_of(machine: HubRun, *, began: float, now: float) -> RunFigures:
    """Read a run's figures. began, now: of the hub's clock."""
    _, number, missing = machine.missing()
    return RunFigures(
        run=machine.manifest.run,
        pipeline=machine.manifest.pipeline,
        state=machine.state,
        sums=number,
        bytes=machine.bytes,
        seconds=now - began,
        missing=() if machine.state in (ABORTED, FINISHED) else tuple(missing),
        silent={name: now - machine.seen.get(name, began) for name in machine.manifest.names},
    )
