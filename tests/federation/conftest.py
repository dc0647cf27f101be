"""What the federation's tests share."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lepton_pipelines.federation.grpc_hub import HubServer
from lepton_pipelines.federation.grpc_member import HubSums
from lepton_pipelines.federation.hub_connection import HubConnection
from lepton_pipelines.federation.manifest import Manifest, Member
from lepton_pipelines.identity.hub_home import HubHome
from lepton_pipelines.identity.organisation_home import OrganisationHome
from lepton_pipelines.sums import SumAborted

NAMES = ("harbour", "north", "valley")


@pytest.fixture(scope="session")
def simulator() -> ModuleType:
    """The seeded simulator beside this file, which is a command as well."""
    path = Path(__file__).with_name("simulator.py")
    sys.path.insert(0, str(path.parent))  # so that its worker processes find it by its name
    spec = importlib.util.spec_from_file_location("simulator", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulator"] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class HubOfThree:
    """A hub with three admitted organisations, each with its own home, and a manifest that they share."""

    folder: Path
    hub: HubHome
    homes: dict[str, OrganisationHome]
    manifest: Manifest
    server: HubServer | None = None
    port: int = 0
    open_sums: list[HubSums] = field(default_factory=list)

    def serve(self) -> None:
        """Start the hub, on the port that it had before if it was stopped."""
        self.server = HubServer(self.hub, listen=f"localhost:{self.port}")
        self.port = self.server.port
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None

    def connect(self, name: str, **settings: Any) -> HubConnection:
        return HubConnection(self.homes[name].credentials(), address=f"localhost:{self.port}", **settings)

    def propose(self) -> None:
        connection = self.connect(NAMES[0])
        connection.propose(self.manifest)
        connection.close()

    def join(self, name: str) -> HubSums:
        home = self.homes[name]
        folder = home.run_folder(self.manifest.run)
        sums = HubSums(self.connect(name), self.manifest, name, home.signer(), folder)
        self.open_sums.append(sums)
        return sums

    def everywhere(self, part: Callable[[HubSums], Any], names: Sequence[str] = NAMES) -> list[Any]:
        """Run a part at every member in a thread of its own; an abort stands for its result."""

        def run(name: str) -> Any:
            try:
                return part(self.join(name))
            except SumAborted as error:
                return error

        with ThreadPoolExecutor(len(names)) as pool:
            return list(pool.map(run, names))

    def close(self) -> None:
        for sums in self.open_sums:
            sums.close()
        self.stop()
        self.hub.close()


@pytest.fixture
def hub_of_three(tmp_path: Path) -> Iterator[HubOfThree]:
    """A real hub on loopback, and three organisations that it admitted after their fingerprints were compared."""
    hub = HubHome.create(tmp_path / "hub", "localhost:7443")
    homes = {}
    for name in NAMES:
        homes[name] = home = OrganisationHome.create(tmp_path / name, name)
        request = home.request()
        admission = hub.admit(request, fingerprint=request.fingerprint)
        home.accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)
    manifest = Manifest(
        run="r-7f3a",
        hub=hub.signer().public.hex(),
        members=tuple(Member(name=name, key=homes[name].signer().public.hex()) for name in NAMES),
        spec="00" * 32,
        contract="11" * 32,
        code="test",
        grace_seconds=60,
    )
    one = HubOfThree(tmp_path, hub, homes, manifest)
    one.serve()
    one.propose()
    yield one
    one.close()
