"""Linear models trained by one party, and by several over the real secure sums."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.linear.model_file import LinearModel
from lepton_pipelines.linear.parameters import LinearParameters
from lepton_pipelines.linear.rows import LocalRows, Shard, Table
from lepton_pipelines.linear.training import fit
from lepton_pipelines.spec.algorithm import Trained
from lepton_pipelines.sums import FinishedSum, LocalSums, Sums


@dataclass
class Columns:
    """Columns as a contract names them."""

    names: Sequence[str]
    types: Sequence[str] = field(default_factory=list)


class ManyShards:
    """One party's rows on several workers: every step runs on each, and the vectors are added up."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards

    def add_up(self, step: Any) -> Any:
        return sum(step.run(shard) for shard in self.shards)

    def start(self, step: Any) -> FinishedSum:
        return FinishedSum(self.add_up(step))


def _columns(shards: Sequence[Shard]) -> Columns:
    rows = next(iter(shards[0].sets.values()))
    return Columns([f"f{i}" for i in range(rows.n_features)])


def train(shards: Sequence[Shard], sums: Sums | None = None, *, rounds: int = 2000, **settings: Any) -> Trained:
    """Train on a party's shards. settings: parameters by their names in a spec, and `fit`'s other arguments."""
    passed = {
        name: settings.pop(name) for name in ("evaluation", "warm_start", "on_round", "features") if name in settings
    }
    passed.setdefault("features", _columns(shards))
    rows = LocalRows(shards[0]) if len(shards) == 1 else ManyShards(shards)
    return fit(
        LinearParameters.model_validate(settings),
        rows,
        sums=LocalSums() if sums is None else sums,
        rounds=rounds,
        **passed,
    )


def together(parties: Mapping[str, Sequence[Shard]], **settings: Any) -> dict[str, Any]:
    """Train at every party, each in a thread and with secure sums. Returns what each got: a result or its error."""
    federation = InProcessFederation(sorted(parties), allow_two_parties=True)

    def part(member: str) -> Any:
        try:
            with federation.sums(member) as sums:
                return train(parties[member], sums, **settings)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error

    with ThreadPoolExecutor(len(parties)) as pool:
        results = dict(zip(sorted(parties), pool.map(part, sorted(parties)), strict=True))
    federation.close()
    return results


@pytest.fixture(scope="session")
def train_alone() -> Callable[..., Trained]:
    return train


@pytest.fixture(scope="session")
def train_together() -> Callable[..., dict[str, Any]]:
    return together


@pytest.fixture
def model_of() -> Callable[..., LinearModel]:
    """Train on pooled rows: features, label, and weights if any."""

    def run(features: Any, label: Any, weight: Any = None, **settings: Any) -> LinearModel:
        trained = train([Shard({"train": Table(features, label, weight)})], **settings)
        assert not trained.notes
        return LinearModel.from_bytes(trained.model)

    return run


@pytest.fixture
def two_organisations() -> dict[str, tuple[Any, Any]]:
    """1,000 and 2,000 rows whose truth is θ = [1, 1]; the second organisation sees other values than the first."""
    random = np.random.default_rng(11)
    parts = {}
    for name, rows, shift in (("north", 1000, 0.0), ("south", 2000, 1.5)):
        features = random.normal(shift, 1.0, (rows, 2))
        parts[name] = (features, features @ [1.0, 1.0] + random.normal(0, 0.01, rows))
    return parts
