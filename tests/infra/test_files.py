"""The files in infra/: those who wrote their formats accept them, and what they name exists."""

import json
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from uuid import uuid4

import kubernetes_validate
import pytest
import typer
from compose_spec import ComposeSpecification
from jsonschema import Draft202012Validator
from prefect.server.schemas.actions import DeploymentCreate, WorkPoolCreate, validate_base_job_template
from prefect.utilities.schema_tools.validation import ValidationError as WrongVariables
from prefect.utilities.templating import apply_values
from prefect.workers.process import ProcessJobConfiguration
from pydantic import ValidationError
from ruamel.yaml import YAML

from flows.deploying import HEARTBEATS
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


POOLS = ["process", "docker", "kubernetes"]
# What the workers' packages take (prefect-docker 0.7.4, prefect-kubernetes 0.8.0) and Prefect's own list lacks.
NEWER = {"process": set(), "docker": {"container_create_kwargs"}, "kubernetes": {"annotations"}}


def job_template(kind):
    return json.loads((INFRA / "work-pools" / f"{kind}.json").read_text())


@pytest.fixture(scope="module")
def prefects_templates():
    """The base job templates of Prefect's own workers, as its server offers them for a new pool."""
    views = resources.files("prefect.server.api") / "collections_data" / "views"
    listed = json.loads((views / "aggregate-worker-metadata.json").read_text())
    return {kind: one["default_base_job_configuration"] for found in listed.values() for kind, one in found.items()}


@pytest.mark.parametrize("kind", POOLS)
def test_a_job_template_fills_in_only_variables_that_it_declares(kind):
    template = job_template(kind)
    used = set(re.findall(r"\{\{ ([a-z_]+) \}\}", json.dumps(template["job_configuration"])))
    declared = template["variables"]["properties"]
    assert used == set(declared)
    assert declared["env"]["default"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


@pytest.mark.parametrize("kind", POOLS)
def test_prefects_server_accepts_a_job_template_and_its_worker_ignores_nothing_of_it(kind, prefects_templates):
    template, theirs = job_template(kind), prefects_templates[kind]
    assert validate_base_job_template(template) == template
    assert set(template["job_configuration"]) <= set(theirs["job_configuration"]) | NEWER[kind]
    Draft202012Validator.check_schema(template["variables"])
    pool = WorkPoolCreate(name="north", type=kind, base_job_template=template)
    assert pool.base_job_template == template


@pytest.mark.parametrize("kind", POOLS)
def test_what_a_deployment_gives_a_pool_is_a_variable_of_its_template(kind):
    template = job_template(kind)
    assert set(HEARTBEATS) <= set(template["variables"]["properties"])
    deployment = DeploymentCreate(name="north", flow_id=uuid4(), job_variables=HEARTBEATS, work_pool_name="north")
    deployment.check_valid_configuration(template)
    wrong = deployment.model_copy(update={"job_variables": {"env": "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"}})
    with pytest.raises(WrongVariables, match="field 'env'"):
        wrong.check_valid_configuration(template)


def test_the_process_worker_reads_its_template_with_every_setting():
    template = job_template("process")
    values = defaults_of(template) | {"working_dir": str(ROOT), "command": "prefect flow-run execute"}
    filled = ProcessJobConfiguration(**apply_values(template["job_configuration"], values))
    assert filled.env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert filled.working_dir == ROOT and filled.stream_output


def defaults_of(template):
    declared = template["variables"]["properties"]
    return {name: one["default"] for name, one in declared.items() if one.get("default") is not None}


def test_kubernetes_accepts_the_job_that_its_template_makes():
    template = job_template("kubernetes")
    told = {"name": "harbour", "command": ["prefect", "flow-run", "execute"], "finished_job_ttl": 60} | {
        "cpu_request": "1",
        "cpu_limit": "2",
        "memory_request": "2Gi",
        "memory_limit": "4Gi",
        "labels": {"app": "lepton"},
        "annotations": {},
        "backoff_limit": 0,
    }
    values = defaults_of(template) | told
    # The worker writes variables as Kubernetes has them.
    values["env"] = [{"name": name, "value": value} for name, value in values["env"].items()]
    job = apply_values(template["job_configuration"]["job_manifest"], values)
    kubernetes_validate.validate(job, "1.33", strict=True)


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
