"""A pool in a folder: three organisations with real ledgers, and computers on offer."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from lepton_pipelines.organisation.market_place import LocalMarket
from lepton_pipelines.pool.offers import offer_compute
from lepton_pipelines.pool.reserving import Wanted, reserve

NAMES = ("harbour", "north", "valley")


@dataclass
class Pool:
    """The pool in a folder, as each of its members sees it."""

    folder: Path

    def of(self, organisation: str) -> LocalMarket:
        return LocalMarket(self.folder / "var", organisation)

    def write(self, owner: str = "harbour", name: str = "evenings", **terms: object) -> Path:
        told = {"cores": 4, "memory": "8 GB", "title": "Spare evenings"} | terms
        spec = self.folder / f"{owner}-{name}.yaml"
        spec.write_text(
            f"offer: {name}\norganisation: {owner}\n" + "".join(f"{key}: {value}\n" for key, value in told.items())
        )
        return spec

    def offer(self, owner: str = "harbour", **terms: object) -> str:
        return offer_compute(self.of(owner), self.write(owner, **terms))[0]

    def reserve(self, by: str = "north", offer: str | None = "harbour/evenings", **wanted: object):
        asked = {"work": "benchmark", "cores": 2, "memory": 1 << 30, "hours": 1.0} | wanted
        return reserve(self.of(by), Wanted(**asked), offer)


@pytest.fixture(scope="session")
def members(tmp_path_factory):
    """A folder in which all three have keys and replicas."""
    folder = tmp_path_factory.mktemp("pool")
    for name in NAMES:
        LocalMarket(folder / "var", name).history()
    return folder


@pytest.fixture
def pool(members, tmp_path):
    import shutil

    shutil.copytree(members / "var", tmp_path / "var")
    return Pool(tmp_path)
