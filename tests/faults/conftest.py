"""A hub and organisations as processes of their own, which tests kill."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lepton_pipelines.federation.manifest import Manifest, Member
from lepton_pipelines.federation.runs import propose
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome

NAMES = ("harbour", "north", "valley")
PROGRAM = Path(__file__).with_name("organisation_program.py")
LEPTON = "from lepton_pipelines.cli import main; main()"


@dataclass
class Organisation:
    """A running process and what it said so far."""

    name: str
    process: subprocess.Popen[str]
    said: list[dict[str, Any]] = field(default_factory=list)

    def until(self, event: str, **facts: Any) -> dict[str, Any]:
        """Read on until the process says this; fail if it ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == event and facts.items() <= self.said[-1].items():
                return self.said[-1]
        raise AssertionError(f"{self.name} ended with {self.process.wait()} before {event}: {self.said[-3:]}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.gone()

    def gone(self) -> int:
        """Wait until the process has ended."""
        code = self.process.wait(timeout=280)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@dataclass
class Processes:
    """One hub and three organisations on loopback, each in a folder of its own."""

    folder: Path
    manifest: Manifest
    homes: dict[str, OrganisationHome]
    hub_process: subprocess.Popen[str] | None = None
    host: str = "localhost"
    port: int = 0
    started: list[Organisation] = field(default_factory=list)

    def serve(self) -> None:
        command = [sys.executable, "-c", LEPTON, "hub", "serve", "--home", str(self.folder / "hub")]
        command += ["--listen", f"{self.host}:{self.port}"]
        self.hub_process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.hub_process.stdout is not None
        self.port = int(self.hub_process.stdout.readline().split()[-1])

    def kill_hub(self) -> None:
        assert self.hub_process is not None and self.hub_process.stdout is not None
        self.hub_process.kill()
        self.hub_process.wait(timeout=30)
        self.hub_process.stdout.close()
        self.hub_process = None

    def start(self, name: str, *options: str, program: Path = PROGRAM, within: Sequence[str] = ()) -> Organisation:
        """Start an organisation. within: a command to start it by, such as one that enters a network namespace."""
        command = [
            *within,
            sys.executable,
            str(program),
            str(self.folder / name),
            str(self.port),
            self.manifest.run,
            *options,
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.started.append(Organisation(name, process))
        return self.started[-1]

    def finish(self, organisations: list[Organisation]) -> set[str]:
        """Wait for everyone's model and return them."""
        models = {one.until("model")["model"] for one in organisations}
        for one in organisations:
            assert one.gone() == 0
        return models

    def close(self) -> None:
        for one in self.started:
            if one.process.poll() is None:
                one.kill()
            elif one.process.stdout is not None:
                one.process.stdout.close()
        if self.hub_process is not None:
            self.kill_hub()


def onboarded(folder: Path, names: Sequence[str]) -> tuple[HubHome, dict[str, OrganisationHome]]:
    """A hub's folder and organisations' that it admitted and that trust each other."""
    hub = HubHome.create(folder / "hub", "localhost:7443")
    homes = {name: OrganisationHome.create(folder / name, name) for name in names}
    for home in homes.values():
        asked = home.request()
        admission = hub.admit(asked, fingerprint=asked.fingerprint)
        home.accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)
        for other in homes.values():
            if other is not home:
                theirs = other.request()
                home.trust(theirs.model_dump_json().encode(), fingerprint=theirs.fingerprint)
    return hub, homes


@pytest.fixture
def processes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Processes]:
    """`lepton hub serve` and three onboarded organisations, whose run is proposed.

    The parameter is the grace time in seconds: long enough for a slow machine to start a process in, unless given.
    """
    hub, homes = onboarded(tmp_path, NAMES)
    manifest = Manifest(
        run=f"r-{int(time.time())}",
        hub=hub.signer().public.hex(),
        members=tuple(Member(name=name, key=homes[name].signer().public.hex()) for name in NAMES),
        spec="00" * 32,
        contract="11" * 32,
        code="test",
        grace_seconds=getattr(request, "param", 200),
    )
    hub.close()
    one = Processes(tmp_path, manifest, homes)
    try:
        one.serve()
        propose(manifest, homes["north"], address=f"localhost:{one.port}")
        yield one
    finally:
        one.close()


@pytest.fixture
def four_that_go_on(tmp_path: Path) -> Iterator[Processes]:
    """A hub and four organisations, which have signed for going on without one of them after six seconds."""
    names = ("coast", *NAMES)
    hub, homes = onboarded(tmp_path, names)
    manifest = Manifest(
        run="r",
        hub=hub.signer().public.hex(),
        members=tuple(Member(name=name, key=homes[name].signer().public.hex()) for name in names),
        spec="00" * 32,
        contract="11" * 32,
        code="test",
        when_lost="go_on",
        grace_seconds=6,
    )
    hub.close()
    one = Processes(tmp_path, manifest, homes)
    try:
        one.serve()
        propose(manifest, homes["north"], address=f"localhost:{one.port}")
        yield one
    finally:
        one.close()
