"""The number of threads of a call, and the limit of BLAS to one thread inside parallel loops."""

import contextlib
import functools
import math
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alscore._support.checks import require_integer

_parallel_used = False  # this process has run an OpenMP loop on more than one thread
_forked_after_parallel = False


def _after_fork() -> None:
    global _forked_after_parallel
    _forked_after_parallel = _parallel_used or _forked_after_parallel


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def available_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return the number of CPUs that this process may use: by its affinity and the CPU quota of its control group."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = quota_file.read_text().split()
        cpus = min(cpus, max(1, int(quota) // int(period)))  # "max" is not an integer: no quota
    return cpus


# Multiplications of a call from which on it runs on several threads. For less work, threads cost more time (they start,
# and spin at the end) than they save.
_LEAST_WORK = 1 << 21
_MAX_THREADS = 4096


def resolve_threads(num_threads: int, work: float = math.inf) -> int:
    """Return the number of threads to run on. 0 stands for `available_cpus()`. Little work gets one thread.

    In a process that was forked after a parallel loop, GNU's OpenMP would wait forever for threads that the fork did
    not copy: the number is 1 there, with a RuntimeWarning. Results have the same bits on any number of threads.

    Parameters
    ----------
    num_threads : int
        From 0 to 4,096.
    work : float
        Multiplications.
    """
    global _parallel_used
    require_integer(num_threads, "num_threads", 0, _MAX_THREADS, " (0: all CPUs of this process)")
    if work < _LEAST_WORK:
        return 1
    threads = int(num_threads) or available_cpus()
    if threads > 1 and _forked_after_parallel:
        warnings.warn(
            "this process was forked after alscore had run on several threads, which OpenMP does not survive: "
            "running on one thread. Start workers with the 'spawn' or 'forkserver' method to use more.",
            RuntimeWarning,
            stacklevel=4,
        )
        return 1
    _parallel_used = _parallel_used or threads > 1
    return threads


@functools.cache
def _shared_blas() -> Any:
    """Return the controller of every BLAS whose threads all callers share.

    A BLAS on OpenMP is not among them: it starts no threads in a parallel loop.
    """
    import scipy.linalg.cython_blas  # noqa: F401  # loads scipy's copy of BLAS; numpy has another
    from threadpoolctl import ThreadpoolController  # sets the environment variable KMP_DUPLICATE_LIB_OK

    controller = ThreadpoolController().select(user_api="blas")
    libraries = controller.lib_controllers
    shared = [each.filepath for each in libraries if getattr(each, "threading_layer", None) != "openmp"]
    return controller.select(filepath=shared)


def _take_control_of_openblas() -> None:
    """Make this thread control OpenBLAS. Since threadpoolctl 3.8 requests of other threads silently have no effect."""
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limit = contextlib.ExitStack()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit every BLAS to one thread while any thread of this process is inside, then restore the limits."""
    global _blas_users
    with _blas_lock:
        if _blas_users == 0:
            _take_control_of_openblas()
            _blas_limit.enter_context(_shared_blas().limit(limits=1))
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _take_control_of_openblas()
                _blas_limit.close()
