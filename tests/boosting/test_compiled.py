"""Compiled kernels: the same bits on every machine, and a cache folder that does not grow for ever."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from lepton_pipelines.boosting import compiled

# x86's fused multiply-adds (vfmadd213pd, vfnmsub…) and ARM's (fmadd, fmla, fnmsub…).
FUSED = re.compile(r"^\s*(vfn?m(add|sub)\w*|fn?m(add|sub|la|ls)\w*)\s", re.MULTILINE)


INSPECTION = """
import importlib, json, pkgutil
import numpy as np
import lepton_pipelines as lp
from lepton_pipelines import boosting

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 3)).astype(np.float32)
X[:30, 0] = np.nan
for objective in ("binary:logistic", "reg:squarederror", "count:poisson", "reg:gamma"):
    label = (X[:, 1] > 0).astype(np.float32) + np.float32(objective == "reg:gamma")
    lp.train({"objective": objective, "nthread": 1}, lp.Dataset(X, label), 2)
    lp.train({"objective": objective, "nthread": 1, "colsample_bynode": 0.9}, lp.Dataset(X, label), 2)  # by sums
code = {}
for module in pkgutil.iter_modules(boosting.__path__, "lepton_pipelines.boosting."):
    for name, value in vars(importlib.import_module(module.name)).items():
        if hasattr(value, "inspect_asm"):
            code[f"{module.name}.{name}"] = "\\n".join(value.inspect_asm().values())
print(json.dumps(code))
"""


@pytest.mark.slow
def test_no_kernel_holds_a_fused_multiply_add(tmp_path):
    # A process and a cache of its own: Numba shows no code of a kernel that it has loaded from disk.
    told = subprocess.run(
        [sys.executable, "-c", INSPECTION],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    code = json.loads(told.stdout.splitlines()[-1])
    assert code["lepton_pipelines.boosting.whole_tree_kernels.grow"]
    assert code["lepton_pipelines.boosting.split._search"]
    assert [name for name, text in code.items() if FUSED.search(text)] == []


def test_cached_kernels_of_sources_that_nobody_uses_any_more_are_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    unused, used, other = (tmp_path / name for name in ("kernels-unused", "kernels-used", "something-else"))
    long_ago = time.time() - compiled.UNUSED_SECONDS - 60
    for folder in (unused, used, other):
        folder.mkdir()
        (folder / "kernel.nbi").touch()
    for folder in (unused, other):
        os.utime(folder, (long_ago, long_ago))
    own = compiled.cache_folder.__wrapped__()
    assert sorted(tmp_path.iterdir()) == sorted([used, other, own])
