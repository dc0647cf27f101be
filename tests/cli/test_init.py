"""`lepton init`: each template makes a project that is whole and right as it stands."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATES = ("healthcare", "finance", "retail", "blank")


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_project_passes_its_own_check(template, command_line, tmp_path, monkeypatch):
    made = command_line("init", "--template", template, "first-try")
    assert made.code == 0, made.err
    folder = tmp_path / "first-try"
    checked = command_line("check", folder / "pipeline.yaml", "--var", folder / "var")
    assert checked.code == 0, checked.err
    assert "first-try" in checked.out and "ready" in checked.out
    readme = (folder / "README.md").read_text()
    assert "lepton run pipeline.yaml" in readme
    assert "examples/" not in readme and "](../" not in readme
    named = {word.strip("`") for word in readme.split() if word.strip("`").endswith((".yaml", ".py"))}
    assert all((folder / name).is_file() for name in named if "/" not in name), named


@pytest.mark.slow
@pytest.mark.parametrize("template", ["healthcare", "blank"])
def test_a_new_project_runs_at_once_and_its_model_becomes_champion(template, lepton, tmp_path):
    project = tmp_path / "hello"
    assert lepton("init", "--template", template, project).code == 0
    ended = lepton("run", project / "pipeline.yaml", "--var", project / "var")
    assert ended.code == 0, ended.err
    assert "hello v1 → champion" in ended.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--template", "heathcare", "hello"), "Did you mean healthcare?"),
        (("Hello World",), "cannot name a pipeline"),
        (("taken",), "is there already and is not empty"),
    ],
)
def test_what_cannot_be_made_is_refused_and_nothing_is_written(arguments, told, command_line, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").touch()
    ended = command_line("init", *arguments)
    assert ended.code == 2 and told in ended.err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine.txt"]


def test_the_wheel_brings_every_template_and_no_rows(tmp_path):
    built = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(built, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if name.startswith("lepton_pipelines/templates/")]
    assert {name.split("/")[2] for name in names} == set(TEMPLATES)
    for template in TEMPLATES:
        assert {"README.md", "pipeline.yaml", "contract.odcs.yaml"} <= {
            name.split("/")[3] for name in names if name.split("/")[2] == template
        }
    assert not [name for name in names if "/data/" in name or name.endswith(".parquet")]
