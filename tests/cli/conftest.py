"""The command line as a user runs it, in a process of its own or in this one."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEPTON = Path(sys.executable).with_name("lepton")


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """What a user's shell exports, with Prefect's home in a folder of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**kept, "PREFECT_HOME": str(tmp_path / "prefect"), "NO_COLOR": "1", "COLUMNS": "120"}


@pytest.fixture
def lepton(environment) -> Callable[..., Ended]:
    """Run the real command line in a process of its own."""

    def run(*arguments: object, **extra: str) -> Ended:
        ended = subprocess.run(
            [LEPTON, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**environment, **extra},
            cwd=ROOT,
            timeout=240,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def command_line(monkeypatch, capsys, tmp_path) -> Callable[..., Ended]:
    """Run the same command line in this process, where libraries are imported once for all tests."""
    from lepton_pipelines.cli.app import run_command_line

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["lepton", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as end:
            run_command_line()
        captured = capsys.readouterr()
        return Ended(int(end.value.code or 0), captured.out, captured.err)

    return run
