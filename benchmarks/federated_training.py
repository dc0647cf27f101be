"""A whole training over a hub beside stock XGBoost on the pooled rows: same rows, same edges, same cores, in one run.

    python benchmarks/federated_training.py                                # 1M × 28, 100 rounds
    python benchmarks/federated_training.py --rows 4000000 --rounds 50
    python benchmarks/federated_training.py --rounds 10 --mbit 100 --delay 50    # over slow lines (slow_line.py)

Three organisations and the hub are processes on loopback, with mutual TLS, write-ahead and every check of a secure sum.
Each organisation holds a third of the rows. The three models must be the same bytes, and those that one process makes
of all rows. `ratio` is of the time from the first round's end to the last's, for all rounds; `whole` is with binning:
here from the rows to the model, for XGBoost `QuantileDMatrix` and `train`.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from engine import Clock, XGBoostClock
from engine_cases import DEFAULTS, edges_of, generated
from real_hub import NAMES, with_a_hub
from slow_line import Line

import lepton_pipelines as lp
from lepton_pipelines.boosting.api import schema_of
from lepton_pipelines.boosting.pool import threads_of
from lepton_pipelines.boosting.rows import LocalRows
from lepton_pipelines.boosting.shard import Shard
from lepton_pipelines.boosting.training import boost
from lepton_pipelines.spec.booster_parameters import BoosterParameters
from lepton_pipelines.sums import LocalSums, Sums


@dataclass(frozen=True)
class Task:
    """What every organisation trains; folder holds the rows of all, of which it reads its own."""

    folder: Path
    parameters: dict[str, object]
    rounds: int
    hub: int


@dataclass(frozen=True)
class Trained:
    """What came of it. rounds, whole, waited: seconds."""

    model: str
    rounds: float
    whole: float
    waited: float
    sums: int
    sent: int
    received: int
    cpu: float


def per_round(clock: Any, rounds: int) -> float:
    return (clock.ends[-1] - clock.ends[0]) / (rounds - 1) * rounds


def train(task: Task, X: np.ndarray, y: np.ndarray, sums: Sums) -> Trained:
    edges = list(np.load(task.folder / "edges.npz").values())
    parameters = BoosterParameters.read(task.parameters)
    data = lp.Dataset(X, y)
    shard, features = Shard({"train": data}, threads=threads_of(parameters.nthread)), schema_of([data], parties=3)
    clock = Clock()
    began, used = time.perf_counter(), time.process_time()
    boosted = boost(
        parameters, LocalRows(shard), sums=sums, rounds=task.rounds, features=features, edges=edges, callbacks=[clock]
    )
    whole, used = time.perf_counter() - began, time.process_time() - used
    traffic = sums.traffic
    return Trained(
        hashlib.sha256(boosted.model).hexdigest(),
        per_round(clock, task.rounds),
        whole,
        traffic.seconds,
        traffic.sums,
        traffic.bytes_sent,
        traffic.bytes_received,
        used,
    )


def compile_kernels(parameters: dict[str, object]) -> None:
    X, y, _ = generated(2_000)
    lp.train(parameters, lp.Dataset(X, y), 2, verbose_eval=False)


def part(sums: Any, task: Task) -> Trained:
    place = NAMES.index(sums.member)
    compile_kernels(task.parameters)
    X, y = (np.load(task.folder / f"{name}.npy", mmap_mode="r") for name in ("X", "y"))
    mine = slice(*(len(y) * k // len(NAMES) for k in (place, place + 1)))
    X, y = np.array(X[mine]), np.array(y[mine])
    sums.sum("everybody is ready", np.zeros(1, np.int64), bound=1)
    sums.traffic.seconds = 0.0
    return train(task, X, y, sums)


def measure(rows: int, rounds: int, threads: int, own_threads: int, repeats: int, line: Line | None) -> dict[str, Any]:
    X, y, given = generated(rows)
    parameters = DEFAULTS | given
    compile_kernels(parameters)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "X.npy", X)
        np.save(folder / "y.npy", y)
        stock_rounds, stock_whole, federated = [], [], []
        for _ in range(repeats):
            clock, began = XGBoostClock(), time.perf_counter()
            matrix = xgboost.QuantileDMatrix(X, y, max_bin=DEFAULTS["max_bin"], nthread=threads)
            xgboost.train(parameters | {"nthread": threads}, matrix, rounds, callbacks=[clock])
            stock_whole.append(time.perf_counter() - began)
            stock_rounds.append(per_round(clock, rounds))
            np.savez(folder / "edges.npz", *edges_of(matrix))
            del matrix
            federated.append(
                with_a_hub(
                    part,
                    lambda hub: Task(folder, parameters | {"nthread": own_threads}, rounds, hub),
                    timeout=600,
                    line=line,
                )
            )
        task = Task(folder, parameters | {"nthread": threads}, rounds, 0)
        alone = train(task, X, y, LocalSums())
    models = {one.model for each in federated for one in each} | {alone.model}
    if len(models) > 1:
        raise AssertionError(f"{len(models)} different models of the same rows: {sorted(models)}")
    slowest = [max(each, key=lambda one: one.rounds) for each in federated]
    ours, theirs = statistics.median(one.rounds for one in slowest), statistics.median(stock_rounds)
    whole = statistics.median(max(one.whole for one in each) for each in federated)
    first = asdict(federated[0][0])
    return {
        "rows": rows,
        "rounds": rounds,
        "ratio": round(ours / theirs, 2),
        "ms a round": round(1e3 * ours / rounds, 1),
        "XGBoost": round(1e3 * theirs / rounds, 1),
        "one process": round(1e3 * alone.rounds / rounds, 1),
        "whole": round(whole / statistics.median(stock_whole), 2),
        "waited a round": round(1e3 * slowest[0].waited / rounds, 1),
        "cpu a round, all members": round(1e3 * sum(one.cpu for one in federated[0]) / rounds, 1),
        "sums": first["sums"],
        "kB sent a round": round(first["sent"] / rounds / 1e3),
        "kB received a round": round(first["received"] / rounds / 1e3),
        "load before": LOAD,
    }


LOAD = round(os.getloadavg()[0], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of XGBoost: the cores of the machine")
    parser.add_argument("--own-threads", type=int, default=1, help="of each organisation")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--mbit", type=float, help="of the line between each organisation and the hub, each way")
    parser.add_argument("--delay", type=float, default=50.0, help="of that line, milliseconds in each direction")
    options = parser.parse_args()
    line = Line(options.delay / 1e3, options.mbit * 125e3) if options.mbit else None
    told = (options.rows, options.rounds, options.threads, options.own_threads, options.repeats, line)
    print(json.dumps(measure(*told)))


if __name__ == "__main__":
    main()
