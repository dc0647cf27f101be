"""A hub and organisations for benchmarks: a process each on loopback, with folder, keys and certificate of its own."""

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slow_line import Line, relay

NAMES = ("harbour", "north", "valley")


def _serve(folder: Path, ready: Any, stop: Any) -> None:
    from lepton_pipelines.federation.grpc_hub import HubServer
    from lepton_pipelines.identity.hub_home import HubHome

    server = HubServer(HubHome(folder), listen="localhost:0")
    server.start()
    ready.put((server.port, server._frames.port if server._frames is not None else 0))
    stop.wait()
    server.stop()


def _take_part(folder: Path, address: str, manifest: bytes, part: Callable[..., Any], given: Any, results: Any) -> None:
    from lepton_pipelines.federation.grpc_member import HubSums
    from lepton_pipelines.federation.hub_connection import HubConnection
    from lepton_pipelines.federation.manifest import read_manifest
    from lepton_pipelines.identity.organisation_home import OrganisationHome

    home = OrganisationHome(folder)
    try:
        connection = HubConnection(home.credentials(), address=address)
        manifest_ = read_manifest(manifest)
        with HubSums(connection, manifest_, home.organisation, home.signer(), home.run_folder("bench")) as sums:
            sums.wait_until_ready(60)
            result = part(sums, given)
            sums.finish(b"benchmark")
    except BaseException as error:
        results.put((home.organisation, None, f"{type(error).__name__}: {error}"))
        raise
    results.put((home.organisation, result, ""))


def with_a_hub(
    part: Callable[..., Any], given: Callable[[int], Any], *, timeout: float, line: Line | None = None
) -> list[Any]:
    """Run `part(sums, given(hub's process id))` at each organisation; return what they return, by their names' order.

    The time that processes take to start is before `part`: all members are there when it begins. line: over which each
    organisation reaches the hub; None: loopback as it is.
    """
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
        server = context.Process(target=_serve, args=(folder / "hub", ready, stop))
        server.start()
        processes = [server]
        try:
            port, frames = ready.get(timeout=60)
            connection = HubConnection(homes["north"].credentials(), address=f"localhost:{port}")
            connection.propose(manifest)
            connection.close()
            for place, organisation in enumerate(NAMES):
                host = "localhost" if line is None else f"127.0.0.{2 + place}"
                if line is not None:
                    told = (line, host, [port, frames], ready)
                    processes.append(context.Process(target=relay, args=told, daemon=True))
                    processes[-1].start()
                    ready.get(timeout=60)
                arguments = (
                    folder / organisation,
                    f"{host}:{port}",
                    manifest.encoded(),
                    part,
                    given(server.pid or 0),
                    results,
                )
                processes.append(context.Process(target=_take_part, args=arguments))
                processes[-1].start()
            parts = {}
            for _ in NAMES:
                organisation, parts[organisation], failed = results.get(timeout=timeout)
                if failed:
                    raise RuntimeError(f"{organisation}: {failed}")
        finally:
            stop.set()
            for process in processes:
                if process.daemon:  # a line: it carries until it is ended
                    process.kill()
                process.join(timeout=30)
                process.kill()
        return [parts[organisation] for organisation in NAMES]
