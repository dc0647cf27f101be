"""The engine beside stock XGBoost: same rows, same edges, same threads, in one run.

    python benchmarks/engine.py                     every case
    python benchmarks/engine.py wide --threads 1    some of them
    python benchmarks/engine.py --append results.md append the table to a file

A case is run in pairs, ours and XGBoost's one after the other; the ratio is that of the two medians of a round.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import xgboost

import lepton_pipelines as lp
from lepton_pipelines.boosting.progress import RoundReport

Case = tuple[np.ndarray, np.ndarray, dict[str, object]]
BINARY = {"objective": "binary:logistic", "base_score": 0.5}


def generated(rows: int, columns: int = 28, **params: object) -> Case:
    rng = np.random.default_rng(7)
    X = rng.standard_normal((rows, columns), np.float32)
    score = X @ rng.standard_normal(columns, np.float32) + 2 * X[:, 0] * X[:, 1] + rng.standard_normal(rows, np.float32)
    return X, (score > 0).astype(np.float32), BINARY | params


def missing() -> Case:
    X, y, params = generated(1_000_000, max_bin=255)
    X[np.random.default_rng(1).random(X.shape, np.float32) < 0.5] = np.nan
    return X, y, params


def classes() -> Case:
    rng = np.random.default_rng(7)
    X = rng.standard_normal((100_000, 54), np.float32)
    y = np.argmax(X[:, :10] + 0.5 * rng.standard_normal((100_000, 10), np.float32), axis=1).astype(np.float32)
    return X, y, {"objective": "multi:softprob", "num_class": 10, "base_score": 0.5}


CASES: dict[str, Callable[[], Case]] = {
    "1M x 28": lambda: generated(1_000_000),
    "200k x 500": lambda: generated(200_000, 500),
    "30k x 23": lambda: generated(30_000, 23),
    "10 classes, 100k x 54": classes,
    "half missing, 1M x 28": missing,
    "depth 10, 1M x 28": lambda: generated(1_000_000, max_depth=10),
    "lossguide 255, 1M x 28": lambda: generated(1_000_000, grow_policy="lossguide", max_leaves=255, max_depth=0),
}


class Clock:
    """Notes when rounds end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_round(self, report: RoundReport) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


class XGBoostClock(xgboost.callback.TrainingCallback):
    """The same for XGBoost."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: dict[str, object]) -> bool:
        """Note the time; go on."""
        self.ends.append(time.perf_counter())
        return False


def measure(case: Case, threads: int, rounds: int, pairs: int) -> tuple[float, float]:
    """Milliseconds of a round, ours and XGBoost's: medians over all rounds of all pairs, the first round left out."""
    X, y, given = case
    params = {"max_depth": 6, "eta": 0.1, "max_bin": 256, "nthread": threads} | given
    matrix = xgboost.QuantileDMatrix(X, y, max_bin=params["max_bin"], nthread=threads)
    pointer, values = matrix.get_quantile_cut()
    places = pointer.astype(np.int64)
    edges = [values[a + 1 : b].astype(np.float32) for a, b in pairwise(places)]
    data = lp.Dataset(X, y)
    lp.train(params, lp.Dataset(X[:1000], y[:1000]), 2, edges=edges)  # compile
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(pairs):
        clock, other = Clock(), XGBoostClock()
        lp.train(params, data, rounds, edges=edges, callbacks=[clock])
        xgboost.train(params, matrix, rounds, callbacks=[other])
        ours += np.diff(clock.ends).tolist()
        theirs += np.diff(other.ends).tolist()
    return 1e3 * statistics.median(ours), 1e3 * statistics.median(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"parts of names of: {', '.join(CASES)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--append", type=Path, help="append the table to this file")
    arguments = parser.parse_args()
    lines = [
        f"XGBoost {xgboost.__version__}, {arguments.threads} threads, {arguments.pairs} × {arguments.rounds} rounds",
        "",
        "| case | ours, ms a round | XGBoost | ratio |",
        "| --- | --- | --- | --- |",
    ]
    print("\n".join(lines))
    for name, case in CASES.items():
        if arguments.cases and not any(part in name for part in arguments.cases):
            continue
        ours, theirs = measure(case(), arguments.threads, arguments.rounds, arguments.pairs)
        lines.append(f"| {name} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")
        print(lines[-1], flush=True)
    if arguments.append:
        with arguments.append.open("a") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
