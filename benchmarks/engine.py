"""The engine beside stock XGBoost: same rows, same edges, same threads, in one run.

    python benchmarks/engine.py                              every case
    python benchmarks/engine.py --case "1M x 28" --threads 1 one of them; may be given again
    python benchmarks/engine.py --append results.md          append the table to a file
    python benchmarks/engine.py --plot docs/images/engine-time.svg   time against rows, 1k to 10M

A case is run in pairs, ours and XGBoost's one after the other. Two ratios: of the medians of a round, and of the
fastest rounds, which other work on the machine disturbs least.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
import xgboost
from engine_cases import BARS, CASES, DEFAULTS, Case, edges_of, generated

import lepton_pipelines as lp
from lepton_pipelines.boosting.progress import RoundReport

PLOTTED = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)


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


def measure(case: Case, threads: int, rounds: int, pairs: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each round of all pairs, ours and XGBoost's, without the first round of each training."""
    X, y, given = case
    params = DEFAULTS | {"nthread": threads} | given
    matrix = xgboost.QuantileDMatrix(X, y, max_bin=params["max_bin"], nthread=threads)
    edges = edges_of(matrix)
    data = lp.Dataset(X, y)
    few = np.unique(np.concatenate([np.unique(y, return_index=True)[1][:100], np.arange(1000)]))
    lp.train(params, lp.Dataset(X[few], y[few]), 2, edges=edges)  # compile
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(pairs):
        clock, other = Clock(), XGBoostClock()
        lp.train(params, data, rounds, edges=edges, callbacks=[clock])
        xgboost.train(params, matrix, rounds, callbacks=[other])
        ours += (1e3 * np.diff(clock.ends)).tolist()
        theirs += (1e3 * np.diff(other.ends)).tolist()
    return ours, theirs


def table(names: list[str], threads: int, rounds: int, pairs: int) -> list[str]:
    """Measure cases and print a line for each; returns the lines."""
    load = os.getloadavg()[0]
    lines = [
        f"XGBoost {xgboost.__version__}, {threads} threads, {pairs} × {rounds} rounds, load {load:.1f} before",
        "",
        "| case | ours, ms a round | XGBoost | ratio of medians | of the fastest | to be reached |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines))
    for name in names:
        ours, theirs = measure(CASES[name](), threads, rounds, pairs)
        a, b = statistics.median(ours), statistics.median(theirs)
        lines.append(f"| {name} | {a:.1f} | {b:.1f} | {a / b:.2f} | {min(ours) / min(theirs):.2f} | {BARS[name]:.2f} |")
        print(lines[-1], flush=True)
    return lines


def plot(path: Path, sizes: list[int], threads: int) -> None:
    """Draw the time of a round against the number of rows, ours and XGBoost's; medians."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "engine"
    figures = []
    for rows in sizes:
        ours, theirs = measure(generated(rows), threads, rounds=max(4, min(20, 10_000_000 // rows)), pairs=2)
        figures.append((rows, statistics.median(ours), statistics.median(theirs)))
        print(f"{rows:>11,} rows  ours {figures[-1][1]:8.2f} ms a round  XGBoost {figures[-1][2]:8.2f}", flush=True)
    rows, ours, theirs = zip(*figures, strict=True)
    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    axes.loglog(rows, ours, "o-", color="#0072b2", label="Lepton Pipelines")
    axes.loglog(rows, theirs, "s--", color="#d55e00", label=f"XGBoost {xgboost.__version__}")
    axes.set(xlabel="rows (28 columns, depth 6, 256 bins)", ylabel=f"ms a round, {threads} threads")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="one case; all without it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--append", type=Path, help="append the table to this file")
    parser.add_argument("--plot", type=Path, help="draw time against rows to this SVG file instead")
    parser.add_argument("--largest", type=int, default=PLOTTED[-1], help="rows up to which the plot goes")
    arguments = parser.parse_args()
    if arguments.plot:
        plot(arguments.plot, [rows for rows in PLOTTED if rows <= arguments.largest], arguments.threads)
        return
    lines = table(arguments.case or list(CASES), arguments.threads, arguments.rounds, arguments.pairs)
    if arguments.append:
        with arguments.append.open("a") as file:
            file.write("\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
