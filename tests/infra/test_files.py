"""The files in infra/: they parse, and what they name exists."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

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
