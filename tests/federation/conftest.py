"""What the federation's tests share."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def simulator() -> ModuleType:
    """The seeded simulator beside this file, which is a command as well."""
    path = Path(__file__).with_name("simulator.py")
    sys.path.insert(0, str(path.parent))  # so that its worker processes find it by its name
    spec = importlib.util.spec_from_file_location("simulator", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulator"] = module
    spec.loader.exec_module(module)
    return module
