"""A folder a machine, the commands that people run there, and how organisations are onboarded: docs/running.md."""

import contextlib
import hashlib
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner

from lepton_pipelines.cli.app import app

ROOT = Path(__file__).parents[2]
LEPTON = ROOT / ".venv" / "bin" / "lepton"
NAMES = ("harbour", "north", "valley")
PUBLISHER = "north"


@dataclass
class Machines:
    """A folder a machine: `hub` and one for each organisation, which hold what those would hold."""

    folder: Path
    port: int
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def at(self, machine: str, *command: object, code: int = 0) -> str:
        """Run a command at a machine, as its people would; return what it printed."""
        ended = subprocess.run(
            [LEPTON, *map(str, command)],
            cwd=self.folder / machine,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def here(self, machine: str, *command: object) -> str:
        """The same in this process, for commands that train nothing: nineteen interpreters need not start for them."""
        with contextlib.chdir(self.folder / machine):
            ended = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
        assert ended.exit_code == 0, ended.output
        return ended.output

    def leave(self, machine: str, *command: object, program: Path = LEPTON) -> subprocess.Popen[bytes]:
        """Start a command at a machine that goes on."""
        with (self.folder / machine / "log.txt").open("ab") as log:
            one = subprocess.Popen(
                [program, *map(str, command)],
                cwd=self.folder / machine,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.started.append(one)
        return one

    def until(self, machine: str, words: str, seconds: float = 120, *, count: int = 1) -> None:
        """Wait until a machine's log says this, so many times."""
        end = time.monotonic() + seconds
        while (said := (self.folder / machine / "log.txt").read_text()).count(words) < count:
            assert time.monotonic() < end, f"{machine} never said {words!r}: {said[-2000:]}"
            time.sleep(0.1)

    def carry(self, file: str, source: str, *targets: str) -> None:
        """Take a file that holds no secret from one machine to others."""
        for target in targets:
            shutil.copy(self.folder / source / file, self.folder / target)

    def models(self, run: str) -> dict[str, str]:
        """Every organisation's model of a run, by its digest."""
        found = {}
        for name in NAMES:
            path = self.folder / name / "var" / "runs" / run / "organisations" / name / "model.ubj"
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


def fingerprint(said: str) -> str:
    return next(
        line.removeprefix("fingerprint").strip() for line in said.splitlines() if line.startswith("fingerprint")
    )


def onboard(machines: Machines) -> None:
    """The commands of docs/running.md, in its order."""
    told = {"hub": fingerprint(machines.here("hub", "hub", "init", f"localhost:{machines.port}"))}
    for name in NAMES:
        machines.here(name, "org", "init", name)
        told[name] = fingerprint(machines.here(name, "org", "request"))
        shutil.copy(machines.folder / name / "organisation" / f"{name}.request", machines.folder / name)
    for name in NAMES:
        others = [other for other in NAMES if other != name]
        machines.carry(f"{name}.request", name, "hub", *others)
        machines.here("hub", "hub", "admit", f"{name}.request", "--fingerprint", told[name])
        machines.carry(f"{name}.admission", "hub", name)
        machines.here(name, "org", "accept", f"{name}.admission", "--fingerprint", told["hub"])
        for other in others:
            machines.here(other, "org", "trust", f"{name}.request", "--fingerprint", told[name])
