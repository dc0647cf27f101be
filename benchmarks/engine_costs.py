"""What the engine costs beside rounds: memory, binning, the first training; and what it is worth.

    python benchmarks/engine_costs.py memory      peak memory of a training of 1M × 28 rows, beside its bound
    python benchmarks/engine_costs.py binning     turning 1M × 28 values into codes, beside QuantileDMatrix
    python benchmarks/engine_costs.py first       the first training ever of 1,000 rows, and the next
    python benchmarks/engine_costs.py quality     held-out AUC and RMSE, each library with its own edges

Every figure is of a process of its own where it must be (memory, first training).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xgboost
from engine_cases import CASES, DEFAULTS, beijing_air, credit_default, edges_of, generated

import lepton_pipelines as lp


def memory(case: str, threads: int) -> None:
    """Peak memory over that of the rows as given, and the bound: a byte a value, 40 a row, and the histograms."""
    for library in ("ours", "xgboost"):
        command = [sys.executable, __file__, "memory-of", library, "--case", case, "--threads", str(threads)]
        subprocess.run(command, check=True)


def memory_of(library: str, case: str, threads: int) -> None:
    """Train in this process and print by how much its memory grew at most (Linux: /proc)."""
    X, y, given = CASES[case]()
    params = DEFAULTS | {"nthread": threads} | given
    few = lp.Dataset(X[:1000], y[:1000])
    if library == "ours":
        lp.train(params, few, 2, verbose_eval=False)  # compile
        data = lp.Dataset(X, y)
    else:
        xgboost.train(params, xgboost.QuantileDMatrix(X[:1000], y[:1000]), 2)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    if library == "ours":
        lp.train(params, data, 5, verbose_eval=False)
    else:
        xgboost.train(params, xgboost.QuantileDMatrix(X, y, max_bin=params["max_bin"], nthread=threads), 5)
    peak = (_status("VmHWM") - before) / 1e6
    depth = int(params["max_depth"]) or 8
    histograms = 2**depth * X.shape[1] * int(params["max_bin"]) * 16
    bound = (X.size + 40 * len(X) + histograms) / 1e6
    print(f"{case}, {library}: peak {peak:.0f} MB over the rows as given; bound {bound:.0f} MB")


def _status(field: str) -> int:
    """Bytes, from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")


def binning(case: str, threads: int) -> None:
    """Seconds to find edges and codes, ours, to find codes on given edges, and QuantileDMatrix's for both."""
    from lepton_pipelines.boosting.collective import Collective
    from lepton_pipelines.boosting.edges import EdgeSearch, find_edges, given_edges
    from lepton_pipelines.boosting.rows import LocalRows
    from lepton_pipelines.boosting.shard import Shard
    from lepton_pipelines.boosting.steps import BinRows
    from lepton_pipelines.sums import LocalSums

    X, y, given = CASES[case]()
    bins = int(given.get("max_bin", DEFAULTS["max_bin"]))
    data = lp.Dataset(X, y)
    schema = data.schema

    def ours(edges: list[np.ndarray] | None) -> None:
        rows = Collective(LocalRows(Shard({"train": data}, threads=threads)), LocalSums(), "binning")
        if edges is None:
            found = find_edges(rows, "train", schema, EdgeSearch(bins, 1, len(X)))
        else:
            found = given_edges(rows, "train", schema, edges, len(X))
        rows.run(BinRows(found, schema, "train"))

    def theirs() -> xgboost.QuantileDMatrix:
        return xgboost.QuantileDMatrix(X, y, max_bin=bins, nthread=threads)

    edges = edges_of(theirs())
    ours(None), ours(edges)  # compile
    times: dict[str, list[float]] = {"edges and codes": [], "codes": [], "QuantileDMatrix": []}
    for _ in range(5):
        for name, work in (
            ("edges and codes", lambda: ours(None)),
            ("codes", lambda: ours(edges)),
            ("QuantileDMatrix", theirs),
        ):
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["edges and codes"] / medians["QuantileDMatrix"]
    figures = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in medians.items())
    print(f"{case}, {threads} threads: {figures}; ratio {ratio:.2f}")


TRAIN_A_FEW = """
import time
import numpy as np
started = time.perf_counter()
import xgboost
imported = time.perf_counter()
import lepton_pipelines as lp
X = np.random.default_rng(0).normal(size=(1000, 28)).astype(np.float32)
lp.train({"objective": "binary:logistic"}, lp.Dataset(X, (X[:, 0] > 0).astype(np.float32)), 10, verbose_eval=False)
print(f"{time.perf_counter() - imported:.1f} s beyond importing xgboost, which takes {imported - started:.1f} s")
"""


def first() -> None:
    """The first training on a machine, which compiles, and the second, which finds the kernels on disk."""
    with tempfile.TemporaryDirectory() as folder:
        for what in ("first training of 1,000 rows", "the next process's"):
            print(what, end=": ", flush=True)
            command = [sys.executable, "-c", TRAIN_A_FEW]
            subprocess.run(command, env=os.environ | {"NUMBA_CACHE_DIR": folder}, check=True)


def quality() -> None:
    """Held-out scores over five splits, ours with the edges that we find, XGBoost's with its sketch's."""
    from sklearn.metrics import roc_auc_score, root_mean_squared_error
    from sklearn.model_selection import train_test_split

    sets = {
        "credit-default, AUC": (credit_default(), roc_auc_score),
        "beijing-air, RMSE": (beijing_air(), root_mean_squared_error),
        "100k x 28, AUC": (generated(100_000), roc_auc_score),
    }
    for name, ((X, y, given), score) in sets.items():
        params = DEFAULTS | {"nthread": 2} | given
        ours, theirs = [], []
        for seed in range(5):
            X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=seed)
            test = xgboost.DMatrix(X_test)
            mine = lp.train(params, lp.Dataset(X_train, y_train), 100, verbose_eval=False)
            other = xgboost.train(params, xgboost.QuantileDMatrix(X_train, y_train, max_bin=params["max_bin"]), 100)
            ours.append(score(y_test, mine.predict(test)))
            theirs.append(score(y_test, other.predict(test)))
        difference = np.subtract(ours, theirs)
        print(
            f"{name}: ours {np.mean(ours):.5f}, XGBoost {np.mean(theirs):.5f}, difference {difference.mean():+.5f} "
            f"± {difference.std(ddof=1):.5f} over 5 splits (the score itself varies by {np.std(theirs, ddof=1):.5f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "memory-of", "binning", "first", "quality"])
    parser.add_argument("library", nargs="?", choices=["ours", "xgboost"], default="ours", help="with memory-of")
    parser.add_argument("--case", choices=list(CASES), default="1M x 28")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.what == "memory":
        memory(arguments.case, arguments.threads)
    elif arguments.what == "memory-of":
        memory_of(arguments.library, arguments.case, arguments.threads)
    elif arguments.what == "binning":
        binning(arguments.case, arguments.threads)
    elif arguments.what == "first":
        first()
    else:
        quality()


if __name__ == "__main__":
    main()
