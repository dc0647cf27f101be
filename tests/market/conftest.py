"""A small market: three organisations in one folder, with real ledgers."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from lepton_pipelines.market import dealing
from lepton_pipelines.market.terms import Use
from lepton_pipelines.organisation.market_place import LocalMarket

ROOT = Path(__file__).parents[2]
PURPOSE = "breast cancer screening"


@dataclass
class Market:
    """The market in a folder, as each of its members sees it."""

    folder: Path

    def of(self, organisation: str) -> LocalMarket:
        return LocalMarket(self.folder / "var", organisation)

    def write(self, owner: str = "harbour", name: str = "patients", terms: str = "{}", more: str = "") -> Path:
        contract = self.folder / "contract.odcs.yaml"
        if not contract.exists():
            shutil.copy(ROOT / "examples/healthcare/contract.odcs.yaml", contract)
        spec = self.folder / f"{owner}-{name}.yaml"
        spec.write_text(
            f"product: {name}\norganisation: {owner}\ntitle: Needle aspirates of {owner}\ndomain: healthcare\n"
            f"contract: contract.odcs.yaml\nrows: 187\nterms: {terms}\n{more}"
        )
        return spec

    def publish(self, owner: str = "harbour", **settings: str) -> str:
        return dealing.publish(self.of(owner), self.write(owner, **settings))[0]

    def granted(self, product: str = "harbour/patients", by: str = "north", **limits: object) -> str:
        number = dealing.request(self.of(by), dealing.Request(product, PURPOSE))
        dealing.give(self.of(product.split("/")[0]), product, number, **limits)
        return number


@pytest.fixture
def market(tmp_path):
    return Market(tmp_path)


@pytest.fixture
def use():
    """A run that the healthcare example would make."""
    return Use(
        run="r-1", members=("harbour", "north", "valley"), publisher="north", purpose=PURPOSE,
        algorithm="xgboost", depth=4, rounds=60,
    )  # fmt: skip
