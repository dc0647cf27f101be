"""The private file: sources, compute, policy; secrets by reference only."""

import pytest

from lepton_pipelines.spec.errors import UserError
from lepton_pipelines.spec.fields import read_secret
from lepton_pipelines.spec.organisation import (
    ClusterCompute,
    LocalCompute,
    Organisation,
    SchedulerCompute,
    check_policy,
    read_organisation,
)


def test_the_documented_example_is_read_as_it_stands(folder):
    harbour = read_organisation(folder.path / "harbour.yaml")
    assert harbour.data.url == "s3://harbour/patients/"
    assert harbour.compute == LocalCompute(workers=2)
    assert harbour.policy.members == ["north", "valley"]
    assert harbour.on_violation == "refuse"
    assert Organisation.model_validate_json(harbour.model_dump_json()) == harbour


def test_paths_are_taken_from_the_files_folder(folder):
    path = folder.change("harbour.yaml", ("s3://harbour/patients/", "rows/"))
    assert read_organisation(path).data.url == f"{folder.path}/rows/"


@pytest.mark.parametrize(
    ("compute", "kind"),
    [
        ("{scheduler: 'tls://dask.harbour:8786'}", SchedulerCompute),
        ("{cluster: dask_kubernetes.operator.KubeCluster, arguments: {name: x}}", ClusterCompute),
        ("{workers: 3, memory: 4 GB}", LocalCompute),
    ],
)
def test_compute_is_told_by_its_fields(folder, compute, kind):
    path = folder.change("harbour.yaml", ("{workers: 2}", compute))
    assert isinstance(read_organisation(path).compute, kind)


def test_memory_has_units(folder):
    path = folder.change("harbour.yaml", ("{workers: 2}", "{memory: 512 MiB}"))
    assert read_organisation(path).compute.memory == 512 * 2**20


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{workers: 2}", "{memory: 4 GBit}", 'compute.memory is "4 GBit", which is no amount of memory'),
        ("{workers: 2}", "{worker: 2}", "harbour.yaml:3  compute.worker is not a field. Did you mean workers?"),
        ("{workers: 2}", "{scheduler: 'dask:8786'}", "compute.scheduler: string should match"),
        ("s3://harbour", "s3://${BUCKET}", "data holds ${BUCKET}, but environment variables are read for secrets"),
        (
            "data: s3://harbour/patients/",
            "data: {url: 's3://h/', storage: {key: AKIA, secret: x}}",
            "data.storage.key is a secret",
        ),
        (
            "data: s3://harbour/patients/",
            "data: {url: 's3://h/', storage: {key: '${K}'}}",
            "needs key and secret together",
        ),
        ("organisation: harbour", "organization: harbour", "Did you mean organisation?"),
        ("runs_per_week: 2", "runs_per_week: -1", "policy.runs_per_week: input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_is_one_message_that_says_where(folder, old, new, message):
    path = folder.change("harbour.yaml", (old, new))
    with pytest.raises(UserError) as refused:
        read_organisation(path)
    assert message in str(refused.value)


def test_a_secret_stays_a_reference_until_it_is_read(folder, monkeypatch):
    storage = "data: {url: 's3://h/', storage: {key: '${HARBOUR_KEY}', secret: '${HARBOUR_SECRET}'}}"
    path = folder.change("harbour.yaml", ("data: s3://harbour/patients/", storage))
    monkeypatch.setenv("HARBOUR_KEY", "AKIA123")
    monkeypatch.delenv("HARBOUR_SECRET", raising=False)
    harbour = read_organisation(path)
    assert "AKIA123" not in harbour.model_dump_json()
    assert read_secret(harbour.data.storage.key, field="data.storage.key") == "AKIA123"
    with pytest.raises(UserError, match=r"data.storage.secret: the environment variable HARBOUR_SECRET is not set"):
        read_secret(harbour.data.storage.secret, field="data.storage.secret")


def test_policy_gives_every_reason_at_once(folder):
    harbour = read_organisation(folder.path / "harbour.yaml")
    check_policy(harbour, members=["harbour", "north", "valley"], publisher="north", depth=8, rounds=100)
    with pytest.raises(UserError) as refused:
        check_policy(harbour, members=["harbour", "south"], publisher="south", depth=0, rounds=10)
    told = str(refused.value)
    assert "policy.members does not allow training with south" in told
    assert "policy.minimum_members is 3, the pipeline names 2" in told
    assert "policy.max_depth is 8, training.max_depth is unlimited" in told
