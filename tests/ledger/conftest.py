"""Small ledgers to test with: real files, real keys, real threads."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lepton_pipelines.ledger.entries import RunFinished, RunJoined, RunOpened, TreeFinished
from lepton_pipelines.ledger.note import Note, Signer
from lepton_pipelines.ledger.replica import Replica
from lepton_pipelines.ledger.run_ledger import RunLedger
from lepton_pipelines.ledger.sequencer import Sequencer

ORIGIN = "lepton.test/ledger"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Federation:
    """A log, its members' keys and replicas, and the door for a run. Folders lie below `folder`."""

    folder: Path
    names: tuple[str, ...] = ("harbour", "north", "valley")
    log: Signer = field(default_factory=lambda: Signer.generate(ORIGIN))
    keys: dict[str, Signer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = self.keys or {name: Signer.generate(name) for name in self.names}
        self.sequencer = Sequencer(self.folder / "hub", self.log)
        self.replicas = {name: self.replica(name) for name in self.names}
        self.run = RunLedger(self.sequencer, self.replicas, self.keys, timeout=10)

    def replica(self, name: str) -> Replica:
        return Replica(self.folder / name, self.keys[name], self.log.verifier)

    def admit(self) -> Note:
        for name in self.names:
            self.sequencer.admit(self.keys[name])
        return self.run.checkpoint()

    def open_run(self, run: str = "r-1") -> Note:
        first = self.names[0]
        self.run.record(
            RunOpened, by=first, run=run, pipeline="demo", members=sorted(self.names),
            manifest=sha256(run), spec=sha256("spec"), code_version="0.1.0",
        )  # fmt: skip
        for name in self.names:
            commitment = f"hmac-sha256:{sha256(run + name)}"
            self.run.record(RunJoined, by=name, run=run, manifest=sha256(run), dataset=commitment, rows=100)
        return self.run.checkpoint()

    def tree(self, number: int, run: str = "r-1") -> None:
        sent = {name: sha256(f"{name} {number}") for name in self.names}
        model = sha256(f"{run} {number}")
        self.run.record(TreeFinished, by=self.names[0], run=run, tree=number, model=model, sent=sent, check="passed")

    def finish_run(self, trees: int, run: str = "r-1") -> Note:
        model = sha256(f"{run} {trees}")
        self.run.record(RunFinished, by=self.names[0], run=run, manifest=sha256(run), trees=trees, model=model)
        return self.run.checkpoint()

    def whole_run(self, trees: int = 3, run: str = "r-1") -> Note:
        self.open_run(run)
        for number in range(1, trees + 1):
            self.tree(number, run)
        return self.finish_run(trees, run)

    def close(self) -> None:
        for replica in self.replicas.values():
            replica.close()
        self.sequencer.close()


@pytest.fixture
def make_federation(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    made: list[Federation] = []

    def make(folder: str = "ledger", **options: object) -> Federation:
        made.append(Federation(tmp_path / folder, **options))
        return made[-1]

    yield make
    for each in made:
        for replica in each.replicas.values():
            replica.store.give_back()
        each.sequencer.store.give_back()


@pytest.fixture
def federation(make_federation: Callable[..., Federation]) -> Federation:
    return make_federation()


@pytest.fixture
def written(federation: Federation) -> Federation:
    """A ledger of three members and one run of three trees, closed."""
    federation.admit()
    federation.whole_run()
    federation.close()
    return federation


@pytest.fixture
def digest() -> Callable[[str], str]:
    return sha256
