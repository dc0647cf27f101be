"""What holds for the whole tree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lepton_pipelines", "flows", "tasks")


def test_the_folder_mlflow_does_not_shadow_the_library():
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    found = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('mlflow').origin)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "site-packages" in found


def test_lock_files_carry_versions_and_hashes_and_no_addresses():
    for lock in sorted((ROOT / "locks").glob("*.txt")):
        text = lock.read_text()
        assert "://" not in text, lock
        pinned = re.findall(r"^[a-zA-Z0-9_.\[\]-]+==\S+", text, flags=re.MULTILINE)
        assert pinned, lock
        for block in re.split(r"\n(?=[a-zA-Z])", text.strip()):
            assert "--hash=sha256:" in block, f"{lock}: {block.splitlines()[0]} has no hash"


def test_every_module_can_be_read_in_one_sitting():
    long = {
        str(path.relative_to(ROOT)): lines
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "_pb2" not in path.name and (lines := len(path.read_text().splitlines())) > 500
    }
    assert not long


@pytest.mark.parametrize("module", ["lepton_pipelines", "lepton_pipelines.spec.pipeline"])
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


HEAVY = ("mlflow", "xgboost", "prefect", "pandas", "s3fs", "distributed", "numba", "sklearn", "matplotlib")
