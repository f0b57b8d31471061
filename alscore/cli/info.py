"""What a bug report has to say about an installation."""

import importlib
import importlib.metadata
import os
import platform
import sysconfig
from pathlib import Path
from typing import Any

from alscore import solvers
from alscore._core import kernel_table
from alscore._support.threads import available_cpus
from alscore._support.version import __version__
from alscore.bench import machine

_DEPENDENCIES = ("numpy", "scipy", "pandas", "pyarrow", "threadpoolctl", "tqdm")
# What else decides over threads and kernels; all of ALSCORE_ would show a folder of the user's.
_VARIABLES = ("ALSCORE_ISA", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_")


def collect() -> dict[str, Any]:
    """Describe this installation and what it runs on.

    Returns
    -------
    dict
        "version", "python", "platform", "free_threaded" (a build of Python that can do without the GIL), "cpu" (its
        model), "cpus" (usable by this process), "isa" (kernel set in use), "isa_available" (best first), "blas" and
        "openmp" (each library that is loaded: "library", "version" or None, "threads", "file", which is its name and
        its folder's), "dependencies" (versions), "solvers" (what each installed name stands for and the distribution
        that it comes from, or why it cannot be used), "environment" (variables that matter).
    """
    environment = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    libraries = _libraries()  # after that: threadpoolctl sets a variable of its own
    return {
        "version": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "cpu": machine.cpu_model(),
        "cpus": available_cpus(),
        "isa": kernel_table.isa(),
        "isa_available": kernel_table.available(),
        "blas": [_described(each) for each in libraries if each["user_api"] == "blas"],
        "openmp": [_described(each) for each in libraries if each["user_api"] == "openmp"],
        "dependencies": {name: _version(name) for name in _DEPENDENCIES},
        "solvers": {name: _solver(name) for name in solvers.registered()},
        "environment": environment,
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _solver(name: str) -> str:
    """What a name stands for, or what is wrong with it."""
    try:
        solvers.resolve(name)
    except Exception as error:  # a plug-in may raise anything
        return str(error)
    return solvers.described(solvers.registered()[name][0])


def _libraries() -> list[dict[str, Any]]:
    """Every BLAS and OpenMP runtime that is loaded once alscore computes."""
    from threadpoolctl import threadpool_info

    for module in ("numpy", "scipy.linalg.cython_blas", "alscore._core.sweeps"):
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
