"""Metrics for Prometheus, gathered when they are asked for: of a hub, and of the runs in organisations' folders.

Labels are names of organisations, pipelines, runs, steps and metrics. A hub knows sums and bytes, not rounds: those are
an organisation's to tell.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lepton_pipelines.monitoring.progress_file import RUNNING, RunProgress, read_progress
from lepton_pipelines.spec.errors import UserError

if TYPE_CHECKING:
    from lepton_pipelines.federation.grpc_hub import HubServer
    from lepton_pipelines.identity.hub_home import HubHome

LOOPBACK = "127.0.0.1"


class HubMetrics(Collector):
    """What a hub does: runs by state, and of those under way their sums, bytes, seconds and whom they wait for."""

    def __init__(self, hub: "HubServer", home: "HubHome") -> None:
        self._hub, self._home = hub, home

    def collect(self) -> Iterator[Metric]:
        """Gather everything now."""
        runs = self._hub.statuses()
        states = Counter(run.state for run in runs)
        yield _gauge(
            "lepton_hub_runs", "Runs in the hub's log, by state.", ("state",), [((s,), n) for s, n in states.items()]
        )
        yield CounterMetricFamily(
            "lepton_hub_received_bytes", "Bytes of members since the hub started.", value=sum(run.bytes for run in runs)
        )
        yield CounterMetricFamily("lepton_hub_sums", "Sums of all runs.", value=sum(run.sums for run in runs))
        going = [run for run in runs if run.under_way]
        for name, text, value in (
            ("sums", "Sums of a run so far.", lambda run: run.sums),
            ("received_bytes", "Bytes that its members have sent.", lambda run: run.bytes),
            ("seconds", "Seconds since the hub took it up.", lambda run: run.seconds),
            ("waiting_members", "Members that the run's next step waits for.", lambda run: len(run.missing)),
        ):
            lines = [((run.run, run.pipeline), value(run)) for run in going]
            yield _gauge(f"lepton_hub_run_{name}", text, ("run", "pipeline"), lines)
        silent = [((run.run, member), ago) for run in going for member, ago in run.silent.items()]
        yield _gauge(
            "lepton_hub_member_silent_seconds", "Seconds since a member was last heard of.", ("run", "member"), silent
        )
        now = dt.datetime.now(dt.UTC)
        left = [((one.name,), (one.expires - now).total_seconds()) for one in self._home.members() if not one.revoked]
        yield _gauge(
            "lepton_hub_member_certificate_seconds", "Seconds until a member's certificate ends.", ("member",), left
        )


class OrganisationMetrics(Collector):
    """How far the newest run of each pipeline has come at each organisation, from the files below `var` folders.

    waiting: returns by run how many other members the run waits for, where that is known.
    """

    def __init__(self, folders: Sequence[Path], waiting: Callable[[], Mapping[str, int]] = dict) -> None:
        self._folders = folders
        self._waiting = waiting

    def collect(self) -> Iterator[Metric]:
        """Read the files now."""
        told = [one for folder in self._folders for one in read_progress(folder)]
        both = ("organisation", "pipeline")
        counted = Counter((one.organisation, one.pipeline, one.state) for one in told)
        yield _gauge(
            "lepton_organisation_runs", "Runs in its folder, by state.", (*both, "state"), list(counted.items())
        )
        newest: dict[tuple[str, str], RunProgress] = {}
        for one in sorted(told, key=lambda one: one.began):
            newest[one.organisation, one.pipeline] = one
        yield _gauge(
            "lepton_organisation_run_info",
            "The newest run.",
            (*both, "run", "state", "step"),
            [((*key, one.run, one.state, one.step), 1) for key, one in newest.items()],
        )
        for name, text, value in (
            ("rounds", "Rounds that the newest run has finished.", lambda one: one.round),
            ("planned_rounds", "Most rounds of the newest run.", lambda one: one.rounds),
            ("training_seconds", "Seconds since training began, at its last round.", lambda one: one.training),
            ("sent_bytes", "Bytes sent through sums, at its last round.", lambda one: one.sent),
            ("running", "Whether the newest run is going on.", lambda one: float(one.state == RUNNING)),
            ("updated_timestamp_seconds", "When the run was last heard of.", lambda one: one.updated),
        ):
            yield _gauge(f"lepton_organisation_{name}", text, both, [(key, value(one)) for key, one in newest.items()])
        steps = [((*key, step), s) for key, one in newest.items() for step, s in one.seconds.items()]
        yield _gauge("lepton_organisation_step_seconds", "Seconds of finished steps.", (*both, "step"), steps)
        scores = [
            ((*key, rows, metric), score)
            for key, one in newest.items()
            for rows, by in one.scores.items()
            for metric, score in by.items()
        ]
        yield _gauge(
            "lepton_organisation_score",
            "The federation's score after the last round.",
            (*both, "rows", "metric"),
            scores,
        )
        waiting = [((run,), float(count)) for run, count in self._waiting().items()]
        yield _gauge(
            "lepton_organisation_waiting_members",
            "Other members that a run waits for, as the hub says.",
            ("run",),
            waiting,
        )


@contextmanager
def served_metrics(address: str | None, *collectors: Collector) -> Iterator[int | None]:
    """Answer Prometheus at an address for the length of a block; yields the port, or None if no address is given.

    address: HOST:PORT, or PORT for this machine alone. Raises UserError if it cannot be listened on.
    """
    if address is None:
        yield None
        return
    host, port = parse_address(address)
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise UserError(
            f"Metrics cannot be served at {host}:{port}: {error.strerror or error}. End what listens there, or choose "
            "another address with --metrics HOST:PORT."
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def parse_address(address: str) -> tuple[str, int]:
    """Take an address apart; without a host it is this machine's own. Raises UserError if it is none."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--metrics {address} is no address. Write HOST:PORT, as in {LOOPBACK}:9464.")
    return host.strip("[]") or LOOPBACK, int(port)


def _gauge(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    made = GaugeMetricFamily(name, text, labels=labels)
    for names, value in values:
        made.add_metric(names, value)
    return made
