"""Compiled kernels: the same bits on every machine, and a cache folder that does not grow for ever."""

import importlib
import os
import pkgutil
import re
import time

import numpy as np

import lepton_pipelines as lp
from lepton_pipelines import boosting
from lepton_pipelines.boosting import compiled

# x86's fused multiply-adds (vfmadd213pd, vfnmsub…) and ARM's (fmadd, fmla, fnmsub…).
FUSED = re.compile(r"^\s*(vfn?m(add|sub)\w*|fn?m(add|sub|la|ls)\w*)\s", re.MULTILINE)


def test_no_kernel_holds_a_fused_multiply_add():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    X[:30, 0] = np.nan
    for objective in ("binary:logistic", "reg:squarederror", "count:poisson", "reg:gamma"):
        label = (X[:, 1] > 0).astype(np.float32) + np.float32(objective == "reg:gamma")
        lp.train({"objective": objective, "nthread": 1}, lp.Dataset(X, label), 2)
    names = [module.name for module in pkgutil.iter_modules(boosting.__path__, "lepton_pipelines.boosting.")]
    kernels = {
        f"{name}.{key}": value
        for name in names
        for key, value in vars(importlib.import_module(name)).items()
        if hasattr(value, "inspect_asm")
    }
    code = {name: "\n".join(kernel.inspect_asm().values()) for name, kernel in kernels.items()}
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
