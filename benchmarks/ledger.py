"""What the ledger costs: time added to a sum against the number of members, and verifying a large log.

    python benchmarks/ledger.py [--members 2 3 5 10] [--sums 200] [--entries 100000] [--plot FILE.svg]

A "sum" here is what one sum leaves in the ledger at worst: one entry, one head, and a cosignature of every member, each
replica in a folder and a thread of its own, each with its fsync. In production members work on machines of their own;
in one process their work adds up, so these figures are an upper bound, less the network.
"""

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from lepton_pipelines.ledger.entries import RunFinished, RunJoined, RunOpened, TreeFinished
from lepton_pipelines.ledger.note import Signer
from lepton_pipelines.ledger.replica import Replica
from lepton_pipelines.ledger.run_ledger import RunLedger
from lepton_pipelines.ledger.sequencer import Sequencer
from lepton_pipelines.ledger.verification import verify_ledger

LIMITS = {3: 5.0, 10: 25.0}
VERIFY_LIMIT = 15.0


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Bench:
    """A ledger of so many members, with a run under way."""

    def __init__(self, folder: Path, members: int, *, replicas: bool = True) -> None:
        self.names = [f"member{number:02}" for number in range(members)]
        log = Signer.generate("lepton.bench/ledger")
        keys = {name: Signer.generate(name) for name in self.names}
        self.sequencer = Sequencer(folder / "_log", log)
        self.replicas = {}
        if replicas:
            self.replicas = {name: Replica(folder / name, keys[name], log.verifier) for name in self.names}
        self.run = RunLedger(self.sequencer, self.replicas, keys)
        for name in self.names:
            self.sequencer.admit(keys[name])
        self.run.record(
            RunOpened, by=self.names[0], run="r", pipeline="bench", members=self.names,
            manifest=sha256("m"), spec=sha256("s"), code_version="bench",
        )  # fmt: skip
        for name in self.names:
            dataset = f"hmac-sha256:{sha256(name)}"
            self.run.record(RunJoined, by=name, run="r", manifest=sha256("m"), dataset=dataset)
        self.run.checkpoint()
        self.trees = 0

    def tree(self) -> None:
        """Say that a tree is finished."""
        self.trees += 1
        sent = {name: sha256(f"{name} {self.trees}") for name in self.names}
        self.run.record(
            TreeFinished, by=self.names[0], run="r", tree=self.trees, model=sha256(str(self.trees)),
            sent=sent, check="passed",
        )  # fmt: skip

    def close(self) -> None:
        """End the run and write everything as tiles."""
        self.run.record(
            RunFinished, by=self.names[0], run="r", manifest=sha256("m"), trees=self.trees, model=sha256("model")
        )
        self.run.checkpoint()
        for replica in self.replicas.values():
            replica.close()
        self.sequencer.close()


def milliseconds_a_sum(members: int, sums: int) -> tuple[float, float]:
    """Return median and 90th percentile of what a sum costs, in ms."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("LEPTON_BENCH_FOLDER")) as folder:
        bench = Bench(Path(folder), members)
        taken = []
        for _ in range(sums):
            began = time.perf_counter()
            bench.tree()
            bench.run.checkpoint()
            taken.append(1e3 * (time.perf_counter() - began))
        bench.close()
    taken.sort()
    return statistics.median(taken), taken[int(0.9 * len(taken))]


def seconds_to_verify(entries: int) -> tuple[float, float]:
    """Return how long a log of so many entries takes to write (by one member) and to verify, in seconds."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("LEPTON_BENCH_FOLDER")) as folder:
        began = time.perf_counter()
        bench = Bench(Path(folder), 3, replicas=False)
        for number in range(entries - bench.sequencer.size - 1):
            bench.tree()
            if number % 5000 == 4999:
                bench.run.checkpoint()
                bench.sequencer.publish()
        bench.close()
        written = time.perf_counter() - began
        began = time.perf_counter()
        verified = verify_ledger(Path(folder) / "_log")
        assert verified.head.size == entries
        return written, time.perf_counter() - began


def plot(path: Path, results: dict[int, tuple[float, float]]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4))
    members = sorted(results)
    axes.plot(members, [results[count][0] for count in members], "o-", color="#0072b2", label="median")
    axes.plot(members, [results[count][1] for count in members], "o--", color="#56b4e9", label="90th percentile")
    for count, limit in LIMITS.items():
        axes.plot(count, limit, "v", color="#d55e00")
        axes.annotate(f"limit {limit:g} ms", (count, limit), textcoords="offset points", xytext=(-8, 6), ha="right")
    axes.set(xlabel="members, all in one process", ylabel="ms added to a sum", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, nargs="*", default=[2, 3, 5, 8, 10])
    parser.add_argument("--sums", type=int, default=200)
    parser.add_argument("--entries", type=int, default=100_000, help="0 skips verifying")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    results = {}
    for members in arguments.members:
        results[members] = median, late = milliseconds_a_sum(members, arguments.sums)
        limit = f"   limit {LIMITS[members]:g}" if members in LIMITS else ""
        print(f"{members:>3} members   {median:6.2f} ms a sum, 90th percentile {late:6.2f}{limit}")
    if arguments.entries:
        written, verified = seconds_to_verify(arguments.entries)
        print(f"{arguments.entries} entries   written in {written:.1f} s")
        print(f"{arguments.entries} entries   verified in {verified:.1f} s   limit {VERIFY_LIMIT:g}")
    if arguments.plot:
        plot(arguments.plot, results)


if __name__ == "__main__":
    main()
