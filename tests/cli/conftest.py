"""The healthcare example in a folder of the test's own, and the command line as a user runs it."""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
LEPTON = Path(sys.executable).with_name("lepton")


@dataclass
class Example:
    """A copy of the healthcare example that a test may spoil."""

    folder: Path

    @property
    def spec(self) -> Path:
        return self.folder / "pipeline.yaml"

    @property
    def var(self) -> Path:
        return self.folder / "var"

    def replace(self, file: str, old: str, new: str) -> None:
        """Change a text in one of the example's files; it must be there."""
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} holds no {old!r}"
        path.write_text(text.replace(old, new, 1))

    def change_rows(self, hospital: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Write a hospital's rows anew."""
        path = self.folder / "data" / hospital / "patients.parquet"
        change(pd.read_parquet(path)).to_parquet(path, index=False)


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def example(tmp_path) -> Example:
    """The example's specs and rows, copied."""
    source = ROOT / "examples" / "healthcare"
    folder = tmp_path / "healthcare"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("var", "data", "__pycache__"))
    runpy.run_path(str(source / "make_hospitals.py"))["write"](folder / "data")
    return Example(folder)


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
