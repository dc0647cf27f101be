"""The door of the house: it answers at once, and says plainly what went wrong."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML


def test_help_answers_in_half_a_second(lepton):
    # Processor time: what the wall clock says too, unless the machine is busy with something else.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = lepton("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.code == 0
    assert all(command in ended.out for command in ("run", "check", "demo", "schema"))
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, lepton_pipelines.cli.app; "
        "print(*{'mlflow', 'xgboost', 'prefect', 'pandas', 'distributed', 'numba', 'grpc'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_version_is_the_package_s(command_line):
    from importlib.metadata import version

    assert command_line("--version").out == f"lepton {version('lepton-pipelines')}\n"


def test_the_schema_accepts_the_example(command_line, example):
    schema = json.loads(command_line("schema", "pipeline").out)
    jsonschema.validate(YAML(typ="safe").load(example.spec), schema)


def test_a_mistake_is_said_in_plain_words_with_exit_code_2(lepton, example):
    example.replace("pipeline.yaml", "max_depth", "max_deph")
    ended = lepton("run", example.spec, "--var", example.var)
    assert ended.code == 2
    assert "training.max_deph is not a parameter. Did you mean max_depth?" in ended.err
    assert "pipeline.yaml:" in ended.err
    assert "Traceback" not in ended.out + ended.err


def test_checking_the_example_trains_nothing_and_leaves_nothing(command_line, example):
    ended = command_line("check", example.spec, "--var", example.var)
    assert ended.code == 0, ended.err
    assert "north" in ended.out
    assert "214 rows" in ended.out
    assert "all organisations' 380 training rows make at most 19 bins a column" in ended.out
    assert "ready" in ended.out
    assert not example.var.exists()


@pytest.mark.parametrize("arguments", [["run"], ["run", "pipeline.yaml", "--resume", "r-1"]])
def test_a_run_is_named_in_one_way(command_line, arguments):
    ended = command_line(*arguments)
    assert ended.code == 2
    assert "--resume RUN" in ended.err or "no run r-1" in ended.err


def test_an_option_that_does_not_exist_is_refused(command_line):
    ended = command_line("run", "--rounds", "10")
    assert ended.code == 2
    assert "--rounds" in ended.err


def test_check_reads_one_organisations_own_files_where_a_hub_is_named(example, command_line):
    hub = (Path(__file__).parents[2] / "examples" / "healthcare" / "pipeline-hub.yaml").read_text()
    (example.folder / "pipeline.yaml").write_text(hub)
    ended = command_line("check", example.spec)
    assert ended.code == 2 and "Say which organisation this is" in ended.err
    for other in ("harbour", "valley"):
        (example.folder / f"{other}.yaml").unlink()
    ended = command_line("check", example.spec)
    assert ended.code == 0 and "214 rows" in ended.out and "harbour  " not in ended.out


def test_a_shell_completes_commands_by_tab(lepton):
    told = lepton(_LEPTON_COMPLETE="complete_bash", COMP_WORDS="lepton portal s", COMP_CWORD="2")
    assert told.out.split() == ["serve", "sign-in"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("promote", "sales", "--version", "1", "--reason", "better"),
        ("rollback", "sales", "--reason", "worse"),
        ("model", "verify", "sales@champion", "--ledger", "ledger"),
    ],
)
def test_where_nothing_was_trained_a_command_that_reads_models_makes_no_store(command_line, tmp_path, arguments):
    ended = command_line(*arguments, "--var", tmp_path / "var")
    assert ended.code == 2
    assert f"There is no registered model in {tmp_path / 'var' / 'mlflow'}" in ended.err
    assert not (tmp_path / "var").exists()
