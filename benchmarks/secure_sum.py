"""How long a secure sum takes: organisations and hub as processes on loopback, everything on (README.md, secure sum).

.venv/bin/python benchmarks/secure_sum.py                 # over the network, three organisations
.venv/bin/python benchmarks/secure_sum.py --parties       # in-process, 3 to 50 organisations
.venv/bin/python benchmarks/secure_sum.py --parties --plot docs/images/sum-by-parties.svg
"""

import argparse
import json
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from real_hub import with_a_hub

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.federation.secure_sum import lay_out, message_bytes
from lepton_pipelines.sums import Sums

CASES = ((10, 1 << 40, 60), (1_000, 1 << 40, 60), (28 * 256 * 2 * 32, 1 << 40, 12), (1_000_000, 1 << 40, 8))


def cpu_seconds(process: int) -> float:
    """Processor time that a process has used, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def take_part(sums: Sums, hub: int) -> tuple[dict[str, Any], ...]:
    seconds: dict[str, list[float]] = {}
    sent: dict[str, float] = {}
    cpu: dict[str, tuple[float, float]] = {}
    for values, bound, repetitions in CASES:
        vector = np.random.default_rng(7).integers(-1000, 1000, values)
        times = []
        before, used = sums.traffic.bytes_sent, (cpu_seconds(os.getpid()), cpu_seconds(hub))
        for repetition in range(repetitions + 2):
            began = time.perf_counter()
            total = sums.sum(f"{values}/{repetition}", vector, bound=bound)
            times.append(time.perf_counter() - began)
        assert (total == 3 * vector).all()
        seconds[str(values)] = times[2:]
        now = (cpu_seconds(os.getpid()), cpu_seconds(hub))
        cpu[str(values)] = ((now[0] - used[0]) / (repetitions + 2), (now[1] - used[1]) / (repetitions + 2))
        sent[str(values)] = (sums.traffic.bytes_sent - before) / (repetitions + 2)
    return seconds, sent, cpu


def over_the_network() -> list[dict[str, float]]:
    parts = with_a_hub(take_part, lambda hub: hub, timeout=280)
    rows = []
    for values, _, _ in CASES:
        every = [max(times) for times in zip(*(part[0][str(values)] for part in parts), strict=True)]
        rows.append(
            {
                "values": values,
                "median ms": round(statistics.median(every) * 1e3, 2),
                "best ms": round(min(every) * 1e3, 2),
                "members' cpu ms": round(sum(part[2][str(values)][0] for part in parts) * 1e3, 1),
                "hub's cpu ms": round(max(part[2][str(values)][1] for part in parts) * 1e3, 1),
                "bytes sent": round(parts[0][1][str(values)]),
            }
        )
    return rows


def repeat_sum(federation: InProcessFederation, name: str, vector: np.ndarray, bound: int, times: list[float]) -> None:
    for repetition in range(5):
        began = time.perf_counter()
        federation.sums(name).sum(str(repetition), vector, bound=bound)
        times.append(time.perf_counter() - began)


def by_parties(values: int = 100_000, bound: int = 1 << 40) -> list[dict[str, float]]:
    rows = []
    for parties in (3, 5, 10, 20, 50):
        names = [f"member-{i:02}" for i in range(parties)]
        federation = InProcessFederation(names)
        vector = np.random.default_rng(7).integers(-1000, 1000, values)
        times: list[float] = []

        threads = [
            threading.Thread(target=repeat_sum, args=(federation, name, vector, bound, times if i == 0 else []))
            for i, name in enumerate(names)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        federation.close()
        size = message_bytes(lay_out(values, bound, parties), parties)
        rows.append({"parties": parties, "median ms": round(statistics.median(times) * 1e3, 1), **size})
    return rows


def plot(path: Path, rows: list[dict[str, float]]) -> None:
    """Draw the time of a sum and the bytes that a party sends against the number of parties."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "parties"
    parties = [row["parties"] for row in rows]
    figure, (time_axes, byte_axes) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    time_axes.loglog(parties, [row["median ms"] for row in rows], "o-", color="#0072b2")
    time_axes.set(xlabel="organisations, all in one process", ylabel="ms a sum of 100,000 values")
    byte_axes.plot(parties, [row["sent"] / 1e6 for row in rows], "s-", color="#d55e00")
    byte_axes.set(xlabel="organisations", ylabel="MB sent by each", ylim=(0, 1))
    for axes in (time_axes, byte_axes):
        axes.grid(visible=True, which="major", alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parties", action="store_true")
    parser.add_argument("--plot", type=Path, help="where to draw time and bytes by parties")
    options = parser.parse_args()
    if options.plot and not options.parties:
        parser.error("--plot draws the figures of --parties: give both")
    rows = by_parties() if options.parties else over_the_network()
    for row in rows:
        print(json.dumps(row))
    if options.plot:
        plot(options.plot, rows)


if __name__ == "__main__":
    main()
