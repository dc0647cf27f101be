"""How long a secure sum takes: organisations and hub as processes on loopback, everything on (README.md, secure sum).

.venv/bin/python benchmarks/secure_sum.py                 # over the network, three organisations
.venv/bin/python benchmarks/secure_sum.py --parties       # in-process, 3 to 50 organisations
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from lepton_pipelines.federation.in_process import InProcessFederation
from lepton_pipelines.federation.secure_sum import lay_out, message_bytes

NAMES = ("harbour", "north", "valley")
CASES = ((10, 1 << 40, 60), (1_000, 1 << 40, 60), (28 * 256 * 2 * 32, 1 << 40, 12), (1_000_000, 1 << 40, 8))


def serve(folder: Path, ready: Any, stop: Any) -> None:
    from lepton_pipelines.federation.grpc_hub import HubServer
    from lepton_pipelines.identity.hub_home import HubHome

    server = HubServer(HubHome(folder), listen="localhost:0")
    server.start()
    ready.put(server.port)
    stop.wait()
    server.stop()


def cpu_seconds(process: int) -> float:
    """Processor time that a process has used, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def take_part(folder: Path, port: int, manifest: bytes, hub: int, results: Any) -> None:
    from lepton_pipelines.federation.grpc_member import HubSums
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.federation.manifest import read_manifest
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    home = OrganisationHome(folder)
    connection = HubConnection(home.credentials(), address=f"localhost:{port}")
    sums = HubSums(connection, read_manifest(manifest), home.organisation, home.signer(), home.run_folder("bench"))
    sums.wait_until_ready(60)
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
    sums.finish(b"benchmark")
    results.put((home.organisation, seconds, sent, cpu))


def over_the_network() -> list[dict[str, float]]:
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.federation.manifest import Manifest, Member
    from lepton_pipelines.identity.hub_home import HubHome
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hub = HubHome.create(folder / "hub", "localhost:7443")
        homes = {}
        for organisation in NAMES:
            home = homes[organisation] = OrganisationHome.create(folder / organisation, organisation)
            request = home.request()
            admission = hub.admit(request, fingerprint=request.fingerprint)
            home.accept(admission.model_dump_json().encode(), fingerprint=hub.fingerprint)
        manifest = Manifest(
            run="bench",
            hub=hub.signer().public.hex(),
            members=tuple(Member(name=n, key=home.signer().public.hex()) for n, home in sorted(homes.items())),
            spec="00" * 32,
            contract="00" * 32,
            code="benchmark",
        )
        ready, results, stop = context.Queue(), context.Queue(), context.Event()
        processes = [context.Process(target=serve, args=(folder / "hub", ready, stop))]
        processes[0].start()
        port = ready.get(timeout=60)
        connection = HubConnection(homes["north"].credentials(), address=f"localhost:{port}")
        connection.propose(manifest)
        connection.close()
        for organisation in NAMES:
            arguments = (folder / organisation, port, manifest.encoded(), processes[0].pid, results)
            processes.append(context.Process(target=take_part, args=arguments))
            processes[-1].start()
        parts = [results.get(timeout=280) for _ in NAMES]
        stop.set()
        for process in processes:
            process.join(timeout=30)
    rows = []
    for values, _, _ in CASES:
        every = [max(times) for times in zip(*(part[1][str(values)] for part in parts), strict=True)]
        rows.append(
            {
                "values": values,
                "median ms": round(statistics.median(every) * 1e3, 2),
                "best ms": round(min(every) * 1e3, 2),
                "members' cpu ms": round(sum(part[3][str(values)][0] for part in parts) * 1e3, 1),
                "hub's cpu ms": round(max(part[3][str(values)][1] for part in parts) * 1e3, 1),
                "bytes sent": round(parts[0][2][str(values)]),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parties", action="store_true")
    options = parser.parse_args()
    for row in by_parties() if options.parties else over_the_network():
        print(json.dumps(row))


if __name__ == "__main__":
    main()
