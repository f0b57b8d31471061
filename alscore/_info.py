"""What a bug report has to say about an installation."""

import importlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from alscore import __version__, _kernels, _threads
from alscore.bench import machine

_DEPENDENCIES = ("numpy", "scipy", "pandas", "pyarrow", "threadpoolctl", "tqdm")
# What else decides over threads and kernels; all of ALSCORE_ would show a folder of the user's.
_VARIABLES = ("ALSCORE_ISA", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_")


def collect() -> dict[str, Any]:
    """Describe this installation and what it runs on.

    Returns
    -------
    dict
        "version", "python", "platform", "free_threaded" (the interpreter runs without the GIL), "cpu" (its model),
        "cpus" (usable by this process), "isa" (kernel set in use), "isa_available" (best first), "blas" and "openmp"
        (each library that is loaded: "library", "version" or None, "threads", "file", which is its name and its
        folder's), "dependencies" (versions), "solvers" (what each installed name stands for, and the distribution
        that it comes from), "environment" (variables that matter).
    """
    environment = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    libraries = _libraries()  # after that: threadpoolctl sets a variable of its own
    return {
        "version": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
        "cpu": machine.cpu_model(),
        "cpus": _threads.available_cpus(),
        "isa": _kernels.isa(),
        "isa_available": _kernels.available(),
        "blas": [_described(each) for each in libraries if each["user_api"] == "blas"],
        "openmp": [_described(each) for each in libraries if each["user_api"] == "openmp"],
        "dependencies": {name: importlib.metadata.version(name) for name in _DEPENDENCIES},
        "solvers": {
            entry.name: f"{entry.value} from {entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            for entry in importlib.metadata.entry_points(group="alscore.solvers")
        },
        "environment": environment,
    }


def _libraries() -> list[dict[str, Any]]:
    """Every BLAS and OpenMP runtime that is loaded once alscore computes."""
    from threadpoolctl import threadpool_info

    for module in ("numpy", "scipy.linalg.cython_blas", "alscore._sweep"):
        importlib.import_module(module)
    return list(threadpool_info())


def _described(library: dict[str, Any]) -> dict[str, Any]:
    """Without the path's beginning, which is nobody else's business."""
    return {
        "library": library["prefix"],
        "version": library["version"],
        "threads": library["num_threads"],
        "file": "/".join(Path(library["filepath"]).parts[-2:]),
    }


def lines(info: dict[str, Any]) -> list[str]:
    """The same for people: a line each, or one for each part."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {of}" for name, of in value.items() if of is not None)
        return ", ".join(value) if isinstance(value, list) else str(value)

    written = []
    for name, value in info.items():
        several = isinstance(value, list) and value and isinstance(value[0], dict)
        for part in value if several else [value]:
            written.append(f"{name.replace('_', ' ')}: {text(part) or 'none'}")
    return written
