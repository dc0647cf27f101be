"""The healthcare example, copied, and the command line in a process of its own."""

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


def copied(folder: Path) -> Example:
    source = ROOT / "examples" / "healthcare"
    shutil.copytree(source, folder / "healthcare", ignore=shutil.ignore_patterns("var", "data", "__pycache__"))
    runpy.run_path(str(source / "make_hospitals.py"))["write"](folder / "healthcare" / "data")
    return Example(folder / "healthcare")


@pytest.fixture
def example(tmp_path) -> Example:
    """The example's specs and rows, for one test."""
    return copied(tmp_path)


@pytest.fixture(scope="module")
def module_example(tmp_path_factory) -> Example:
    """The example's specs and rows, for a module's tests, which run it one after the other."""
    return copied(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """What a user's shell exports, with Prefect's home in a folder of the tests' own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**kept, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "NO_COLOR": "1", "COLUMNS": "120"}


@pytest.fixture
def lepton(environment) -> Callable[..., Ended]:
    """Run the real command line in a process of its own."""
    return command(environment)


@pytest.fixture(scope="module")
def module_lepton(environment) -> Callable[..., Ended]:
    """The same for fixtures of a module."""
    return command(environment)


def command(environment: dict[str, str]) -> Callable[..., Ended]:
    def run(*arguments: object, **extra: str) -> Ended:
        ended = subprocess.run(
            [LEPTON, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**environment, **extra},
            cwd=ROOT,
            timeout=600,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run
