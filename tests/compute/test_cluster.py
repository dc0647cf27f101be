"""Clusters from the spec: started, found, secured, and gone afterwards."""

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client, LocalCluster, Security, default_client

from lepton_pipelines.compute.cluster import open_cluster
from lepton_pipelines.compute.pinned import PinnedRows
from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.organisation import ClusterCompute, LocalCompute, SchedulerCompute, Tls


def listening() -> set[str]:
    """Addresses, as the kernel writes them, on which sockets of this machine listen."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return {fields[1] for line in lines if (fields := line.split())[3] == "0A"}


def test_the_default_is_one_worker_in_this_process():
    with open_cluster(LocalCompute(), organisation="north") as client:
        assert list(client.nthreads().values()) == [os.cpu_count()]
        assert list(client.run(os.getpid).values()) == [os.getpid()]
        with pytest.raises(ValueError, match="No clients found"):
            default_client()


def test_cores_are_shared_out_between_organisations_and_workers():
    with open_cluster(LocalCompute(workers=2, processes=False), organisation="north", share=3) as client:
        assert list(client.nthreads().values()) == [max(1, os.cpu_count() // 6)] * 2


def test_nothing_of_an_embedded_cluster_can_be_reached_from_outside():
    before = listening()
    with open_cluster(LocalCompute(workers=2, processes=False), organisation="north"):
        assert {address.partition(":")[0] for address in listening() - before} <= {"0100007F"}


def test_worker_processes_talk_tls_and_are_gone_afterwards():
    before = listening()
    with open_cluster(LocalCompute(workers=2), organisation="north") as client:
        pids = set(client.run(os.getpid).values())
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert all(address.startswith("tls://127.0.0.1:") for address in client.nthreads())
        assert {address.partition(":")[0] for address in listening() - before} <= {"0100007F"}
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


ORPHANS = """
import os, sys
from lepton_pipelines.compute.cluster import open_cluster
from lepton_pipelines.spec.organisation import LocalCompute
if __name__ == "__main__":
    with open_cluster(LocalCompute(workers=2), organisation="north") as client:
        print(*client.run(os.getpid).values(), flush=True)
        sys.stdin.read()
"""


def test_workers_of_a_killed_run_end_by_themselves(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(ORPHANS)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        assert run.stdout is not None
        pids = run.stdout.readline().split()
        handles = [os.pidfd_open(int(pid)) for pid in pids]
        assert len(handles) == 2
        run.send_signal(signal.SIGKILL)
    for handle in handles:
        # Readable once the process has ended.
        with os.fdopen(handle) as file:
            assert wait_readable(file.fileno(), seconds=20)


def wait_readable(descriptor: int, *, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def test_a_scheduler_that_does_not_answer_is_named_with_the_next_step():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    with (
        pytest.raises(UserError, match=rf"north: compute.scheduler {address} cannot be reached .* Check that it runs"),
        open_cluster(SchedulerCompute(scheduler=address), organisation="north", connect_seconds=0.5),
    ):
        pass


@pytest.fixture
def tls(tmp_path) -> Tls:
    """Certificates as an organisation keeps them: in files."""
    temporary = Security.temporary()
    files = {}
    for name, text in (
        ("ca", temporary.tls_ca_file),
        ("certificate", temporary.tls_client_cert),
        ("key", temporary.tls_client_key),
    ):
        path = tmp_path / f"{name}.pem"
        path.write_text(text)
        files[name] = str(path)
    return Tls(**files)


def test_a_running_cluster_is_reached_with_its_certificates_only(tls):
    security = Security(
        require_encryption=True,
        tls_ca_file=tls.ca,
        **{
            f"tls_{who}_{what}": getattr(tls, name)
            for who in ("client", "scheduler", "worker")
            for what, name in (("cert", "certificate"), ("key", "key"))
        },
    )
    with LocalCluster(
        n_workers=1, processes=False, protocol="tls://", security=security, dashboard_address=":0"
    ) as cluster:
        compute = SchedulerCompute(scheduler=cluster.scheduler_address, tls=tls)
        with open_cluster(compute, organisation="north") as client:
            assert client.submit(sum, [1, 2]).result() == 3
        # The client is gone, the cluster is not ours to stop.
        with Client(cluster, set_as_default=False) as other:
            assert len(other.nthreads()) == 1
        with (
            pytest.raises(UserError, match="cannot be reached"),
            open_cluster(SchedulerCompute(scheduler=cluster.scheduler_address), organisation="n", connect_seconds=0.5),
        ):
            pass


def test_a_cluster_class_is_started_scaled_and_stopped():
    compute = ClusterCompute(
        cluster="distributed.LocalCluster",
        arguments={"processes": False, "n_workers": 0, "dashboard_address": ":0"},
        workers=3,
    )
    with open_cluster(compute, organisation="north") as client:
        assert len(client.nthreads()) == 3
        cluster = client.cluster
    assert cluster.status.name == "closed"


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (ClusterCompute(cluster="dask_kubernettes.KubeCluster"), r"cannot be imported .*pip install dask-kubernettes"),
        (ClusterCompute(cluster="distributed.LocalClusterr"), "Did you mean LocalCluster"),
        (ClusterCompute(cluster="distributed.Client"), "is not a Dask cluster class"),
        (ClusterCompute(cluster="distributed.LocalCluster", arguments={"proceses": False}), "did not start|do not fit"),
    ],
)
def test_a_cluster_that_cannot_start_is_named_with_the_next_step(compute, message):
    with pytest.raises(UserError, match=message), open_cluster(compute, organisation="north", start_seconds=0.5):
        pass


def test_workers_that_never_come_are_counted(tmp_path, monkeypatch):
    (tmp_path / "idle_queue.py").write_text(
        "from distributed import LocalCluster\n"
        "class IdleQueue(LocalCluster):\n"
        "    def scale(self, n):\n"
        "        return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = {"processes": False, "n_workers": 0, "dashboard_address": ":0"}
    compute = ClusterCompute(cluster="idle_queue.IdleQueue", arguments=arguments, workers=2)
    with (
        pytest.raises(UserError, match=r"of 2 workers of idle_queue.IdleQueue, 0 started within 0.5 s"),
        open_cluster(compute, organisation="north", start_seconds=0.5),
    ):
        pass


def test_rows_are_held_by_the_processes_of_two_clusters_neither_of_which_is_the_default(numbers, multiply):
    with (
        open_cluster(LocalCompute(workers=2), organisation="north") as north,
        open_cluster(LocalCompute(workers=1, processes=True), organisation="harbour") as harbour,
    ):
        first, second = PinnedRows(north, numbers, [[1], [2, 3]]), PinnedRows(harbour, numbers, [[4]])
        assert first.add_up(multiply(2))[0] == second.add_up(multiply(3))[0] == 12
        first.close()
        second.close()
