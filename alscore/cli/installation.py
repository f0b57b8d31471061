"""What a bug report must say about an installation."""

import importlib
import importlib.metadata
import os
import platform
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alscore import solvers
from alscore._core import kernel_table
from alscore._support.threads import available_cpus
from alscore._support.version import __version__
from alscore.bench import machine

_DEPENDENCIES = ("numpy", "scipy", "pandas", "pyarrow", "threadpoolctl", "tqdm")  # the required ones
# Environment variables that decide on threads and kernels, by the beginnings of their names. ALSCORE_DATA is not among
# them: it would show a folder of the user.
_VARIABLES = ("ALSCORE_ISA", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_")


def collect(dependencies: Sequence[str] = _DEPENDENCIES) -> dict[str, Any]:
    """Describe this installation and the machine.

    Parameters
    ----------
    dependencies : sequence of str
        Names of distributions whose versions to report.

    Returns
    -------
    dict
        - "version", "python", "platform";
        - "free_threaded": whether this build of Python can run without the GIL;
        - "cpu": model; "cpus": number that this process may use;
        - "isa": kernel set in use; "isa_available": kernel sets, best first;
        - "blas" and "openmp": for each loaded library "library", "version" or None, "threads" and "file", its name
          after that of its folder;
        - "dependencies": versions;
        - "solvers": for each installed name its class and distribution, or why it cannot be used;
        - "environment": variables that decide on threads and kernels.
    """
    environment = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    libraries = _libraries()  # after the environment is read: threadpoolctl sets a variable
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
        "dependencies": {name: _version(name) for name in dependencies},
        "solvers": {name: _solver(name) for name in solvers.registered()},
        "environment": environment,
    }


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _solver(name: str) -> str:
    """Return the class and distribution of a solver's name, or why it cannot be used."""
    try:
        solvers.resolve(name)
    except Exception as error:  # a plug-in may raise anything
        return str(error)
    return solvers.described(solvers.registered()[name][0])


def _libraries() -> list[dict[str, Any]]:
    """Return every BLAS and OpenMP runtime that is loaded when alscore computes."""
    for module in ("numpy", "scipy.linalg.cython_blas", "alscore._core.sweeps"):
        importlib.import_module(module)
    import threadpoolctl  # sets the environment variable KMP_DUPLICATE_LIB_OK

    return list(threadpoolctl.threadpool_info())


def _described(library: dict[str, Any]) -> dict[str, Any]:
    """Return what to report of a library. Its path is cut to the last two parts, to show no private folders."""
    return {
        "library": library["prefix"],
        "version": library["version"],
        "threads": library["num_threads"],
        "file": "/".join(Path(library["filepath"]).parts[-2:]),
    }


def lines(info: dict[str, Any]) -> list[str]:
    """Return the description as lines of text: one for each value, or one for each library."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{name} {part}" for name, part in value.items() if part is not None)
        return ", ".join(value) if isinstance(value, list) else str(value)

    return [
        f"{name.replace('_', ' ')}: {text(part) or 'none'}"
        for name, value in info.items()
        for part in (value if value and isinstance(value, list) and isinstance(value[0], dict) else [value])
    ]
