"""The files in infra/: those who wrote their formats accept them, and what they name exists."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import typer
from compose_spec import ComposeSpecification
from pydantic import ValidationError
from ruamel.yaml import YAML

from lepton_pipelines.cli.app import app
from lepton_pipelines.spec.organisation import read_organisation

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


@pytest.fixture(scope="module")
def compose():
    return YAML(typ="safe").load((INFRA / "compose.yaml").read_text())


def test_every_secret_of_the_compose_file_is_asked_for_and_none_is_in_it(compose):
    text = (INFRA / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{([A-Z_]+)", text))
    lines = (INFRA / "platform.env.example").read_text().splitlines()
    assert {line.partition("=")[0] for line in lines if "=" in line} == asked
    assert all(line.endswith("=") for line in lines if "=" in line)


def test_the_compose_file_keeps_the_compose_specification(compose):
    read = ComposeSpecification.model_validate(compose)
    assert set(read.services) == set(compose["services"])
    with pytest.raises(ValidationError):
        ComposeSpecification.model_validate({**compose, "services": {"hub": {"ports": "all of them"}}})


@pytest.mark.parametrize("file", ["infra/Dockerfile", "mlflow/Dockerfile.server", "mlflow/Dockerfile.serving"])
def test_a_dockerfile_keeps_the_linters_rules(file):
    linter = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([linter, "--no-color", ROOT / file], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def manifests(file):
    return list(YAML(typ="safe").load_all((INFRA / "kubernetes" / file).read_text()))


@pytest.mark.parametrize("file", ["hub.yaml", "organisation.yaml"])
def test_kubernetes_schemas_accept_the_manifests(file):
    kinds = []
    for one in manifests(file):
        kubernetes_validate.validate(one, "1.33", strict=True)
        kinds.append(one["kind"])
    assert {"Namespace", "StatefulSet", "NetworkPolicy"} <= set(kinds)
    spoilt = next(one for one in manifests(file) if one["kind"] == "StatefulSet")
    spoilt["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoilt, "1.33", strict=True)


@pytest.mark.parametrize("file", ["hub.yaml", "organisation.yaml"])
def test_pods_run_without_rights_and_nobody_dials_an_organisation(file):
    found = {one["kind"]: one for one in manifests(file)}
    namespace = found["Namespace"]["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {one["metadata"].get("namespace", namespace["name"]) for one in found.values()} == {namespace["name"]}
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    for container in pod["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert command_exists(container["args"])
    rules = found["NetworkPolicy"]["spec"]
    assert rules["podSelector"] == found["StatefulSet"]["spec"]["selector"]
    if file == "organisation.yaml":
        assert rules["ingress"] == [] and "Service" not in found


def command_exists(words) -> bool:
    """Whether our command line knows a command and its options, as a container calls it."""
    command = typer.main.get_command(app)
    assert words[0] == "lepton"
    for word in words[1:3]:
        command = command.commands[word]
    options = {option for parameter in command.params for option in parameter.opts}
    return {word for word in words[3:] if word.startswith("--")} <= options


@pytest.mark.parametrize("name", ["kubernetes", "slurm", "gateway"])
def test_an_organisations_file_for_a_dask_cluster_is_one_that_we_read(name):
    read = read_organisation(INFRA / "dask" / f"{name}.yaml")
    assert read.compute.cluster.startswith(("dask_kubernetes.", "dask_jobqueue.", "dask_gateway."))
    assert read.compute.workers


def test_the_compose_file_names_files_and_services_that_exist(compose):
    services = compose["services"]
    assert {"database", "objects", "prefect", "mlflow", "hub", "north", "harbour", "valley"} == set(services)
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        if build := service.get("build"):
            assert (INFRA / build["context"] / build["dockerfile"]).is_file()
    assert (INFRA / "create-databases.sh").stat().st_mode & 0o111


def test_nothing_listens_beyond_this_machine_unless_somebody_changes_it(compose):
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes"])
def test_a_job_template_fills_in_only_variables_that_it_declares(kind):
    template = json.loads((INFRA / "work-pools" / f"{kind}.json").read_text())
    used = set(re.findall(r"\{\{ ([a-z_]+) \}\}", json.dumps(template["job_configuration"])))
    declared = template["variables"]["properties"]
    assert used <= set(declared)
    assert declared["env"]["default"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_systemd_accepts_the_units():
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on this machine")
    units = sorted((INFRA / "systemd").glob("*.service"))
    assert len(units) == 4
    ended = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    # The programs are installed on the target machine, not here.
    complaints = [line for line in ended.stderr.splitlines() if "is not executable" not in line]
    assert complaints == []
