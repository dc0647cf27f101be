"""How the kernels are compiled: by Numba on first use, kept on disk, free of the interpreter's lock.

No `fastmath` and no contraction to fused multiply-add: every organisation must compute the same bits. Kernels
release the interpreter's lock and run under our own threads (`pool.py`): Numba's threading layers differ from
machine to machine, and one of them aborts the process when two organisations train in it at once.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])

UNUSED_SECONDS = 14 * 24 * 3600  # kernels that no process asked for so long are removed

_log = logging.getLogger(__name__)


def kernel(function: Kernel) -> Kernel:
    """Compile a function on first use, without the interpreter's lock, and keep the machine code on disk.

    Division by zero gives an infinity, as in C. A changed source file anywhere in this package compiles anew:
    Numba alone looks only at the file of the function itself, not at those it calls.
    """
    config: Any = numba.config
    njit: Any = numba.njit
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        compiled: Kernel = njit(nogil=True, cache=True, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before
    return compiled


def part(function: Kernel) -> Kernel:
    """Compile a function that only kernels call: without the entry from Python, which takes as long to compile."""
    njit: Any = numba.njit
    compiled: Kernel = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return compiled


def inlined(function: Kernel) -> Kernel:
    """Compile a function into the kernels that call it."""
    njit: Any = numba.njit
    compiled: Kernel = njit(inline="always", error_model="numpy")(function)
    return compiled


@cache
def cache_folder() -> Path:
    """Return the folder that compiled kernels are kept in, one for each state of this package's sources.

    The first that can be written of: NUMBA_CACHE_DIR, the package's own folder, the user's cache folder, the
    system's temporary folder.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(package.glob("*.py")):
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:12]}"
    candidates = [
        package / "__pycache__",
        Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lepton-pipelines",
        Path(tempfile.gettempdir()) / f"lepton-pipelines-{os.getuid()}",
    ]
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        candidates.insert(0, Path(given))
    for parent in candidates:
        folder = parent / name
        try:
            new = not folder.exists()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            os.utime(folder)  # in use
            if new:
                _remove_unused(parent)
            return folder
    raise PermissionError(
        "no folder for compiled kernels can be written: tried "
        + ", ".join(map(str, candidates))
        + ". Set NUMBA_CACHE_DIR to one that can."
    )


def _remove_unused(parent: Path) -> None:
    """Remove the kernels of sources that are gone: those that no process has asked for in two weeks."""
    for folder in parent.glob("kernels-*"):
        with contextlib.suppress(FileNotFoundError):  # another process tidies up as well
            if time.time() - folder.stat().st_mtime > UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


@cache
def announce() -> None:
    """Say once in a process that kernels will be compiled, if none were kept on disk yet."""
    if not any(cache_folder().rglob("*.nbi")):
        _log.warning(
            "compiling the boosting kernels for this processor: once, some ten seconds (kept in %s)", cache_folder()
        )
