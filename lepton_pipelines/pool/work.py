"""The work itself, as an owner's computers do it: a function a kind, run as tasks on its own Dask cluster."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lepton_pipelines.boosting.api import train
from lepton_pipelines.boosting.dataset import Dataset
from lepton_pipelines.data.encoding import Encoded
from lepton_pipelines.data.preparation import prepare_pieces
from lepton_pipelines.data.sources import open_source
from lepton_pipelines.market.catalogue import offer
from lepton_pipelines.market.place import Place
from lepton_pipelines.market.shared_rows import Open, fetch
from lepton_pipelines.pool.errors import PoolRefused
from lepton_pipelines.pool.jobs import Benchmark, Job, Scoring, Tuning, refuse_private
from lepton_pipelines.pool.metering import Metered
from lepton_pipelines.registry.champion import load_version
from lepton_pipelines.registry.scoring import ScoredFile, registered_columns, score_batch
from lepton_pipelines.registry.tracking import Tracking
from lepton_pipelines.spec.contract import Contract
from lepton_pipelines.spec.organisation import Data, Organisation


@dataclass(frozen=True)
class Bench:
    """Where work is done. cache: of rows that were fetched. open_url: reads them. tracking: opens the own registry."""

    place: Place
    cache: Path
    open_url: Open
    tracking: Callable[[], Tracking]


def do(job: Job, bench: Bench, cluster: Metered) -> dict[str, Any]:
    """Do some work and return its result, which others may read. Raises UserError for what cannot be done."""
    if isinstance(job, Benchmark):
        return _benchmark(job, cluster)
    if isinstance(job, Tuning):
        return _tune(job, bench, cluster)
    return _score(job, bench, cluster)


def _benchmark(job: Benchmark, cluster: Metered) -> dict[str, Any]:
    seconds = cluster.map(partial(_time_training, job), list(range(job.repeats)))
    return {"seconds": seconds, "rows_a_second": job.rows * job.rounds / min(seconds)}


def _time_training(job: Benchmark, seed: int) -> float:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(job.rows, job.columns)).astype(np.float32)
    data = Dataset(rows, (rows[:, 0] + random.normal(size=job.rows) > 0).astype(np.float32))
    parameters = {"objective": "binary:logistic", "max_depth": job.max_depth, "nthread": 1}
    train(parameters, data, 1, verbose_eval=False)  # compiles
    began = time.perf_counter()
    train(parameters, data, job.rounds, verbose_eval=False)
    return time.perf_counter() - began


def _tune(job: Tuning, bench: Bench, cluster: Metered) -> dict[str, Any]:
    refuse_private(bench.place, job)
    found = offer(bench.place, job.product)
    rows = fetch(found, bench.cache, bench.open_url, licence=job.licence)
    sets = _read(rows, found.contract, job)
    candidates = job.combinations()
    shared = cluster.client.scatter(  # type: ignore[no-untyped-call]
        [*sets, tuple(found.contract.feature_names), tuple(found.contract.feature_types)], broadcast=True
    )
    scores = cluster.map(partial(_score_candidate, job), candidates, *shared)
    metric = next(iter(scores[0]))
    told = [{"parameters": one, metric: score[metric]} for one, score in zip(candidates, scores, strict=True)]
    return {"product": job.product, "metric": metric, "candidates": told}


def _read(path: Path, contract: Contract, job: Tuning) -> tuple[Encoded, Encoded]:
    source = open_source(Organisation(organisation="pool", data=Data(url=str(path))), contract)
    pieces = list(prepare_pieces(source, source.pieces(), job.split))
    rows, held_out = (Encoded.joined([piece.sets[name] for piece in pieces]) for name in ("train", "valid"))
    if not len(rows) or not len(held_out):
        raise PoolRefused(f"{job.product}: split leaves no rows to train or to validate on. Correct split.")
    return rows, held_out


def _score_candidate(
    job: Tuning,
    candidate: dict[str, Any],
    rows: Encoded,
    held_out: Encoded,
    names: tuple[str, ...],
    types: tuple[str, ...],
) -> dict[str, float]:
    """Train one candidate in a worker and return its scores on the validation rows by metric, the first one's first."""

    def dataset(part: Encoded) -> Dataset:
        return Dataset(part.X, part.label, weight=part.weight, feature_names=names, feature_types=types)

    scores: dict[str, dict[str, list[float]]] = {}
    evals = [(dataset(held_out), "valid")]
    train(job.parameters(candidate), dataset(rows), job.rounds, evals=evals, evals_result=scores, verbose_eval=False)
    return {metric: values[-1] for metric, values in scores["valid"].items()}


def _score(job: Scoring, bench: Bench, cluster: Metered) -> dict[str, Any]:
    tracking = bench.tracking()
    model = load_version(tracking, job.model, str(job.version))
    columns = registered_columns(tracking, job.model, str(job.version))

    def spread(one: Callable[[str], ScoredFile], files: list[str]) -> list[ScoredFile]:
        return cluster.map(one, files)

    scored = score_batch(model, columns, job.source, job.target, apply=spread)
    return {"model": scored.model, "version": scored.version, "digest": scored.digest}
