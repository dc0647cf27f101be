"""An organisation's rows on its workers: read there, checked there, and handed to the engine there.

What is defined here travels to Dask workers: builders, changes, steps and questions for `compute.pinned`, all of
them small and picklable.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_pipelines.boosting.base_score import margins_of
from lepton_pipelines.boosting.binning import Binning
from lepton_pipelines.boosting.features import FeatureSchema
from lepton_pipelines.boosting.model_file import read_model
from lepton_pipelines.boosting.objectives import objective_of
from lepton_pipelines.boosting.row_set import PartCodes
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.steps import BinRows, StartTraining
from lepton_pipelines.compute.reporting import report
from lepton_pipelines.data.encoding import Encoded, Gathered
from lepton_pipelines.data.preparation import cache_of, prepare_pieces
from lepton_pipelines.data.sources import Piece, Source
from lepton_pipelines.data.splits import SETS
from lepton_pipelines.data.violations import Violations
from lepton_pipelines.federation.home_rules import RowDigests
from lepton_pipelines.federation.row_sketch import RowSketch
from lepton_pipelines.organisation.piece_codes import KeptPiece, PieceCodes
from lepton_pipelines.spec.algorithm import find_algorithm
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.pipeline import KeySplit, TimeSplit
from lepton_pipelines.spec.training import XGBOOST
from lepton_pipelines.sums import Int64Array

Float32Array = NDArray[np.float32]
UInt64Array = NDArray[np.uint64]
_DIGESTED = 1 << 18  # rows that are digested at a time
_MERGED = 8  # pieces whose keys are held before they are merged

Counter = Callable[[Float32Array, Float32Array, Float32Array | None], Int64Array]


@dataclass(frozen=True)
class EncodedRows:
    """Encoded rows as the engine reads them (`boosting.row_set.RowSet`). part_codes: where their codes are kept."""

    encoded: Encoded
    part_codes: PartCodes | None = None

    @property
    def n_rows(self) -> int:
        """How many rows."""
        return len(self.encoded)

    @property
    def n_features(self) -> int:
        """How many columns."""
        return int(self.encoded.X.shape[1])

    @property
    def label(self) -> Float32Array | None:
        """float32, (rows,)."""
        return self.encoded.label

    @property
    def weight(self) -> Float32Array | None:
        """float32, (rows,), or None."""
        return self.encoded.weight

    @property
    def base_margin(self) -> Float32Array | None:
        """None: boosting starts from the base score."""
        return None

    @property
    def row_id(self) -> NDArray[np.uint64] | None:
        """uint64, (rows,)."""
        return self.encoded.row_id

    def block(self, start: int, stop: int) -> Float32Array:
        """float32, (stop - start, features)."""
        return self.encoded.X[start:stop]


@dataclass(frozen=True)
class RowsRead:
    """What a worker holds once its pieces are read: encoded rows by set, and what was found in them.

    kept: for each set where the codes of its pieces are kept between runs; empty without a cache.
    """

    sets: Mapping[str, Encoded]
    violations: Violations
    digests: tuple[bytes, ...]
    kept: Mapping[str, PartCodes] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadPieces:
    """Builds what a worker holds: reads its pieces, checks, splits and encodes them.

    quarantine: folder for rows that break the contract; None keeps none of them. topic: under which the client is told
    how far reading has come (`compute.reporting`); None tells nobody.
    """

    source: Source
    split: KeySplit | TimeSplit
    quarantine: str | None = None
    topic: str | None = None

    def __call__(self, pieces: list[Piece]) -> RowsRead:
        """Read the pieces, one after the other."""
        gathered = {name: Gathered() for name in SETS}
        violations: list[Violations] = []
        prepared: list[KeptPiece] = []
        told = None if self.topic is None else self._tell
        ready = prepare_pieces(self.source, pieces, self.split, quarantine=self.quarantine, told=told)
        for piece, one in zip(pieces, ready, strict=True):
            for name, rows in one.sets.items():
                gathered[name].add(rows)
            violations.append(one.violations)
            if len(violations) == _MERGED:
                violations = [Violations.together(violations)]
            rows_by_set = {name: len(rows) for name, rows in one.sets.items()}
            prepared.append(KeptPiece(piece, one.digest, rows_by_set, sound=not one.violations.rejected))
        cache = cache_of(self.source, self.split)
        return RowsRead(
            {name: rows.encoded() for name, rows in gathered.items()},
            Violations.together(violations),
            tuple(one.content for one in prepared),
            {} if cache is None else {name: PieceCodes(cache, name, tuple(prepared)) for name in SETS},
        )

    def _tell(self, piece: Piece, rows: int, done: bool) -> None:
        report(str(self.topic), [piece.index, rows, done])


@dataclass(frozen=True)
class ToShard:
    """Changes what a worker holds into the engine's shard.

    threads: that work on it. keeps_codes: whether codes are kept between runs, where the organisation has a cache.
    """

    threads: int
    keeps_codes: bool = False

    def __call__(self, held: RowsRead) -> Shard:
        """Make the shard; the encoded rows are not copied."""
        kept = held.kept if self.keeps_codes else {}
        return Shard(
            {name: EncodedRows(rows, kept.get(name)) for name, rows in held.sets.items()}, threads=self.threads
        )


@dataclass(frozen=True)
class Restore:
    """Brings a rebuilt shard to where its training was after a round: codes, margins and the next gradients.

    model: the XGBoost model file of the rounds so far.
    """

    parameters: BoosterParameters
    binning: Binning
    features: FeatureSchema
    train: str
    evaluation: tuple[str, ...]
    model: bytes

    def run(self, shard: Shard) -> Int64Array:
        """Restore; returns what the driver has already got."""
        BinRows(self.binning, self.features, self.train, self.evaluation).run(shard)
        model = read_model(self.model)
        outputs = objective_of(self.parameters, shard.custom_objective).outputs
        base = margins_of(model.base_score, self.parameters, outputs)
        trees = tuple(model.trees)
        return StartTraining(self.parameters, self.binning, self.train, self.evaluation, base, trees).run(shard)


@dataclass(frozen=True)
class CountScores:
    """Scores a set of rows with a model and counts the scores.

    model: a model file of the algorithm. count: (label, prediction, weight) to int64. group: count by this column's
    codes instead of weights.
    """

    model: bytes
    objective: str
    count: Callable[..., Int64Array]
    rows: str = "test"
    group: str | None = None
    threads: int = 1
    algorithm: str = XGBOOST

    def run(self, shard: Any) -> Int64Array:
        """Score and count; returns what `count` does."""
        encoded = shard.sets[self.rows].encoded
        predicted = self._predict(encoded.X)
        if self.group is not None:
            return self.count(encoded.label, predicted, encoded.groups[self.group])
        return self.count(encoded.label, predicted, encoded.weight)

    def _predict(self, values: Float32Array) -> Float32Array:
        return Scorer(self.model, self.objective, self.threads, self.algorithm).predict(values)


@dataclass(frozen=True)
class Scorer:
    """Scores raw rows as a served model would answer: with stock XGBoost, or as the model's algorithm predicts."""

    model: bytes
    objective: str
    threads: int = 1
    algorithm: str = XGBOOST

    @cached_property
    def _booster(self) -> Any:
        from lepton_pipelines.boosting.model_file import booster_of

        return booster_of(self.model, nthread=self.threads)

    def predict(self, values: Float32Array) -> Float32Array:
        """Return probabilities for classifying objectives, the predicted value for others.

        values: float32, (rows, features). Returns float32, (rows,) or (rows, classes).
        """
        if self.algorithm != XGBOOST:
            return np.asarray(find_algorithm(self.algorithm).predict(self.model, values), np.float32)
        import xgboost

        booster = self._booster
        outputs = 1 if not self.objective.startswith("multi:") else 2
        if len(values) == 0:
            classes = len(read_model(self.model).base_score) if outputs == 2 else 1
            return np.zeros((0, classes) if outputs == 2 else 0, np.float32)
        rows = xgboost.DMatrix(
            values,
            feature_names=booster.feature_names,
            feature_types=booster.feature_types,
            enable_categorical=True,
            nthread=self.threads,
        )
        if self.objective == "binary:logitraw":
            margin = booster.predict(rows, output_margin=True)
            return np.asarray(1 / (1 + np.exp(-margin)), np.float32)
        if self.objective == "multi:softmax":
            margin = booster.predict(rows, output_margin=True)
            powers = np.exp(margin - margin.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
        return np.asarray(booster.predict(rows), np.float32)


@dataclass(frozen=True)
class TakeRows:
    """A question for the rows themselves; asked only where a demo compares, or at home."""

    names: tuple[str, ...] = SETS
    most: int | None = None

    def __call__(self, shard: Any) -> dict[str, Encoded]:
        """Return the encoded rows of the sets."""
        taken = {}
        for name in self.names:
            encoded = shard.sets[name].encoded
            taken[name] = encoded if self.most is None else encoded.rows(np.arange(min(self.most, len(encoded))))
        return taken


@dataclass(frozen=True)
class DigestRows:
    """A question for digests of rows under a secret: a universal hash with secret coefficients (Carter and Wegman).

    salt: the secret. Two different rows have the same digest with a probability of about 2^-62. What is answered has a
    fixed size, however many rows there are (`federation.row_sketch`).
    """

    salt: bytes = field(repr=False)

    def __call__(self, held: RowsRead) -> RowDigests:
        """Return the rows' sketches, of who they are about and of all that they say."""
        people = rows = RowSketch.of(np.zeros(0, np.uint64), self.salt)
        for place, encoded in enumerate(held.sets.values()):
            for start in range(0, len(encoded), _DIGESTED):
                block = slice(start, start + _DIGESTED)
                who = encoded.row_id[block].view(np.uint32).reshape(-1, 2)
                said = [who, np.ascontiguousarray(encoded.X[block]).view(np.uint32)]
                said += [encoded.label[block].view(np.uint32)[:, None]]
                if encoded.weight is not None:
                    said.append(encoded.weight[block].view(np.uint32)[:, None])
                people += RowSketch.of(self._hash(who, place), self.salt)
                rows += RowSketch.of(self._hash(np.concatenate(said, axis=1), place), self.salt)
        return RowDigests(people, rows)

    def _hash(self, words: NDArray[np.uint32], place: int) -> UInt64Array:
        """The high halves of two sums of words times secret odd-length coefficients, modulo 2^64."""
        count = words.shape[1] + 2
        drawn = hashlib.shake_256(self.salt + count.to_bytes(4, "big")).digest(16 * count)
        coefficients = np.frombuffer(drawn, np.uint64).reshape(2, count)
        halves = []
        for row in coefficients:
            total = np.full(len(words), (int(row[0]) + int(row[1]) * place) % (1 << 64), np.uint64)
            for column, coefficient in zip(words.T, row[2:], strict=True):
                total += column.astype(np.uint64) * coefficient
            halves.append(total >> np.uint64(32))
        return (halves[0] << np.uint64(32)) | halves[1]


@dataclass(frozen=True)
class Summary:
    """What an organisation knows of its rows. rows: by set. label_mean: over all sets, nan without rows."""

    rows: dict[str, int] = field(default_factory=dict)
    label_sum: float = 0.0
    workers: int = 0

    @property
    def total(self) -> int:
        """Rows of all sets."""
        return sum(self.rows.values())

    @property
    def label_mean(self) -> float:
        """Mean label: with two classes the share of positives."""
        return self.label_sum / self.total if self.total else float("nan")


def summarise(held: RowsRead) -> Summary:
    """Count what one worker holds."""
    label = sum(float(rows.label.sum(dtype=np.float64)) for rows in held.sets.values())
    return Summary({name: len(rows) for name, rows in held.sets.items()}, label, 1)


def together(parts: list[Summary]) -> Summary:
    """Add up what the workers hold."""
    return Summary(
        {name: sum(part.rows[name] for part in parts) for name in SETS},
        sum(part.label_sum for part in parts),
        sum(part.workers for part in parts),
    )


def feature_schema(contract: Contract) -> FeatureSchema:
    """Say to the engine what the contract's features are."""
    return FeatureSchema(
        names=tuple(contract.feature_names),
        types=tuple(contract.feature_types),
        categories=tuple(len(column.categories) for column in contract.features),
    )
