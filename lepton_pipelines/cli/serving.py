"""`lepton org serve`: waits for invitations, checks them against the organisation's own rules, and takes part.

Each run is a process of its own (`lepton org run`), so that one that dies takes no other with it. A part that ended
without its run being over (killed, machine restarted, run suspended) is started again, with growing pauses.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lepton_pipelines.cli.at_hub import SUSPENDED_CODE, Started
from lepton_pipelines.monitoring.json_log import VARIABLE
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.federation.wire import federation_pb2 as wire
    from lepton_pipelines.identity.organisation_home import OrganisationHome
    from lepton_pipelines.spec.pipeline import Pipeline

LOOK_SECONDS = 2.0
HUB_AWAY_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0
STOP_SECONDS = 60.0
_LEPTON = "from lepton_pipelines.cli import main; main()"


@dataclass
class Part:
    """The organisation's process in a run. pause: before it is started again, should it die."""

    process: subprocess.Popen[bytes]
    pause: float = FIRST_PAUSE


@dataclass
class Serving:
    """One organisation that takes part. organisation, pipelines: files. home: with its keys. var: where runs lie.

    log_json: where its parts log as JSON lines, too. waiting: how many other members a run waits for, by run.
    """

    organisation: Path
    pipelines: list[Path]
    home: Path
    var: Path
    parts: dict[str, Part] = field(default_factory=dict)
    not_before: dict[str, tuple[float, float]] = field(default_factory=dict)
    left_alone: set[str] = field(default_factory=set)
    log_json: str | None = None
    waiting: dict[str, int] = field(default_factory=dict)

    def until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT; parts are then stopped, and their runs can be gone on with."""
        from lepton_pipelines.identity.organisation_home import OrganisationHome
        from lepton_pipelines.spec.organisation import read_organisation

        mine = OrganisationHome(self.home)
        own = read_organisation(self.organisation)
        if own.organisation != mine.organisation:
            raise UserError(
                f"{self.home} holds the keys of {mine.organisation}, {self.organisation} is {own.organisation}'s."
            )
        self._known(loudly=True)
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        self._say(f"{mine.organisation} waits for invitations at {mine.admission().address}")
        try:
            while not stopped.is_set():
                try:
                    self._serve(mine, stopped)
                except UserError as error:  # the hub is away, or shuts this organisation out: both can pass
                    self._say(f"{error}. Trying again")
                    stopped.wait(HUB_AWAY_SECONDS)
        finally:
            self._stop()

    def _serve(self, mine: "OrganisationHome", stopped: threading.Event) -> None:
        from lepton_pipelines.federation.hub_connection import HubConnection

        connection = HubConnection(mine.credentials(), patience=60.0)
        try:
            renew_in_time(mine, connection)
            self._clear(mine, connection)
            until = time.monotonic() + 3600  # then with what may be a newer certificate
            while not stopped.is_set() and time.monotonic() < until:
                self._reap()
                going = connection.runs_under_way(wait=LOOK_SECONDS)
                self._count_missing(going, mine.organisation)
                for one in going:
                    self._look_at(one, mine, connection)
                stopped.wait(LOOK_SECONDS / 2)
        finally:
            connection.close()

    def _clear(self, mine: "OrganisationHome", connection: "HubConnection") -> None:
        """Delete what the policy says is not kept any longer of runs that are over."""
        from lepton_pipelines.organisation.retention import clear_over, runs_under_way
        from lepton_pipelines.spec.organisation import read_organisation

        days = read_organisation(self.organisation).policy.kept_days
        if days is None:
            return
        for one in clear_over(mine, self.var, days=days, under_way=runs_under_way(connection)):
            self._say(f"run {one.run} was over for {days} days: its journal, checkpoints and log were deleted")

    def _count_missing(self, going: "Sequence[wire.RunStatus]", name: str) -> None:
        """Note for the metrics whom runs wait for."""
        missing = {one.run: sum(member != name for member in one.missing) for one in going}
        for run in self.waiting.keys() - missing.keys():
            del self.waiting[run]
        self.waiting.update(missing)

    def _look_at(self, one: "wire.RunStatus", mine: "OrganisationHome", connection: "HubConnection") -> None:
        """Start this organisation's part of a run that goes on without it, if it may and has not been stopped here."""
        from lepton_pipelines.federation.home_rules import RunHistory
        from lepton_pipelines.federation.manifest import read_manifest
        from lepton_pipelines.federation.runs import accept, decline, is_held
        from lepton_pipelines.spec.organisation import read_organisation

        manifest = read_manifest(one.manifest)
        if manifest.series is not None:
            return  # it belongs to the part of the contribution report that it leaves a member out of
        run_id = manifest.root  # a run whose members changed goes on in the part that was begun with it
        moment, pause = self.not_before.get(run_id, (0.0, FIRST_PAUSE))
        if run_id in self.parts or run_id in self.left_alone or time.monotonic() < moment or is_held(run_id, mine):
            return
        started = Started.of(self.var / "runs" / run_id)
        if started is not None and started.by != "serve":
            self.left_alone.add(run_id)
            command = "market contribution SPEC" if manifest.kind == "contribution" else "run"
            self._say(f"run {run_id} was started here by hand and is left to: lepton {command} --resume {run_id}")
            return
        kept = self.var / "runs" / run_id / "pipeline.json"  # what was agreed, whatever the file says by now
        path = kept if started is not None and kept.is_file() else self._known().get(manifest.spec)
        if path is None:
            self._leave(run_id, f"refused run {run_id}: its pipeline {manifest.pipeline} does not stand here")
            decline(manifest, mine, connection, f"{mine.organisation} has no such pipeline: its file stands not there")
            return
        pipeline = self._read(path)
        history = RunHistory(mine.folder)
        try:
            policy = read_organisation(self.organisation).policy
            accept(
                manifest,
                mine,
                policy=policy,
                history=history,
                pipeline=pipeline,
                kind=manifest.kind,
                connection=connection,
            )
        except UserError as error:
            self._leave(run_id, str(error))
            return
        finally:
            history.close()
        self._say(f"takes part in run {run_id} ({pipeline.name}, with {', '.join(pipeline.members)})")
        self.parts[run_id] = Part(self._start(run_id, path), pause)

    def _start(self, run_id: str, pipeline: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _LEPTON, "org", "run", run_id, "--by", "serve"]
        options = {"pipeline": pipeline, "organisation": self.organisation, "home": self.home, "var": self.var}
        for option, path in options.items():
            command += [f"--{option}", str(path)]
        # A session of its own: Ctrl-C is for serve, which stops its parts in order.
        environment = os.environ if self.log_json is None else {**os.environ, VARIABLE: self.log_json}
        return subprocess.Popen(command, start_new_session=True, env=environment)

    def _reap(self) -> None:
        """Say how parts ended. One that was killed or suspended is started again, if its run still goes on."""
        for run_id, part in list(self.parts.items()):
            code = part.process.poll()
            if code is None:
                continue
            del self.parts[run_id]
            if code == 0:
                self.left_alone.add(run_id)
                self._say(f"run {run_id} is finished")
            elif code == 2:
                self._leave(run_id, f"run {run_id} ended here with an error, which stands above")
            else:
                what = "is suspended" if code == SUSPENDED_CODE else f"ended here with code {code}"
                self._say(f"run {run_id} {what}: this organisation's part is started again in {part.pause:.0f} s")
                self.not_before[run_id] = (time.monotonic() + part.pause, min(2 * part.pause, LONGEST_PAUSE))

    def _leave(self, run_id: str, why: str) -> None:
        self.left_alone.add(run_id)
        self._say(why)

    def _stop(self) -> None:
        """End parts as Ctrl-C would: they keep what they have, and leave no process behind."""
        for part in self.parts.values():
            if part.process.poll() is None:
                part.process.send_signal(signal.SIGINT)
        for part in self.parts.values():
            try:
                part.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                part.process.kill()
                part.process.wait()

    def _known(self, *, loudly: bool = False) -> dict[str, Path]:
        """Return the pipelines that stand here now, by digest; a file that is being written to is not among them."""
        known = {}
        for path in self.pipelines:
            try:
                known[self._read(path).digest().hex()] = path
            except UserError as error:
                if loudly:
                    raise
                self._say(f"{error}")
        return known

    def _read(self, path: Path) -> "Pipeline":
        from lepton_pipelines.federation.proposal import hub_of
        from lepton_pipelines.spec.pipeline import read_pipeline

        pipeline = read_pipeline(path)
        hub_of(pipeline)
        return pipeline

    def _say(self, sentence: str) -> None:
        typer.echo(f"{time.strftime('%H:%M:%S')}  {sentence}")
        sys.stdout.flush()


def renew_in_time(mine: "OrganisationHome", connection: "HubConnection") -> None:
    """Fetch a new certificate when a third of the longest lifetime is left."""
    if mine.credentials().expires.timestamp() - time.time() < 30 * 86400:
        mine.renew(connection.renew(mine.request().model_dump_json().encode()))
