"""The standard's own command line, `datacontract lint`, takes every contract that we show or draft."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from lepton_pipelines.data.profile import draft_contract, profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/*.odcs.yaml"))


@pytest.fixture(scope="module")
def lint(tmp_path_factory):
    """Lints a file; in an environment of its own, for its dependencies are pinned more narrowly than ours may be."""
    folder = tmp_path_factory.mktemp("datacontract") / "venv"
    install = [folder / "bin" / "pip", "install", "--quiet", "datacontract-cli>=1.2,<2"]
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        subprocess.run(install, check=True, capture_output=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"datacontract-cli cannot be installed here: {error}")
    # It brings the standard's schema along: nothing is fetched, and nothing listens at this port.
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")

    def run(file: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [folder / "bin" / "datacontract", "lint", file],
            env={**os.environ, **offline, "NO_PROXY": "", "no_proxy": ""},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_contracts_pass(lint, path):
    linted = lint(path)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "Data contract is valid" in linted.stdout


def test_a_drafted_contract_passes(lint, tmp_path, patients):
    frame = patients(400).assign(email=[f"p{i}@example.org" for i in range(400)], constant=1.0, empty=np.nan)
    path = tmp_path / "drafted.odcs.yaml"
    path.write_text(draft_contract(profile(frame, label="malignant"), name="patients"), encoding="utf-8")
    linted = lint(path)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_a_contract_whose_categories_are_found_passes_and_one_that_breaks_the_standard_does_not(lint, tmp_path):
    yaml, path = YAML(typ="safe", pure=True), tmp_path / "contract.odcs.yaml"
    told = yaml.load(EXAMPLES[0])
    custom = [{"property": "lepton", "value": {"categories": "found"}}]
    told["schema"][0]["properties"].append({"name": "ward", "logicalType": "string", "customProperties": custom})
    yaml.dump(told, path)
    assert lint(path).returncode == 0
    told["schema"][0]["properties"][-1]["logicalType"] = "word"
    yaml.dump(told, path)
    assert lint(path).returncode != 0
