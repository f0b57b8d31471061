"""How many threads a call may use, and the single-threaded BLAS that its parallel loops need."""

import contextlib
import functools
import math
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_parallel_used = False  # this process has run an OpenMP loop on more than one thread
_forked_after_parallel = False


def _after_fork() -> None:
    global _forked_after_parallel
    _forked_after_parallel = _parallel_used or _forked_after_parallel


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def available_cpus() -> int:
    """CPUs this process may use: its affinity, and the CPU quota of its control group."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = min(cpus, max(1, int(quota) // int(period)))  # "max" is no integer: no quota
    return cpus


# Multiplications below which starting threads, and their spinning at the end, costs more than they save.
_SMALL = 1 << 21
_MOST = 4096


def resolve_threads(num_threads: int, work: float = math.inf) -> int:
    """The number of threads to run on; 0 asks for `available_cpus()`, and little work gets one.

    In a process forked after a parallel loop GNU's OpenMP would wait forever for threads which the fork did not
    copy, so there the answer is 1, with a RuntimeWarning. Results have the same bits on any number of threads.
    """
    global _parallel_used
    if isinstance(num_threads, bool) or not hasattr(num_threads, "__index__") or not 0 <= num_threads <= _MOST:
        raise ValueError(
            f"num_threads must be an integer from 0 (all CPUs of this process) to {_MOST}, not {num_threads!r}"
        )
    if work < _SMALL:
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
    """What controls each BLAS whose threads all callers share; one on OpenMP starts none in a parallel loop."""
    import scipy.linalg.cython_blas  # noqa: F401  # so that scipy's copy of BLAS is loaded, beside numpy's
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController().select(user_api="blas")
    libraries = controller.lib_controllers
    shared = [each.filepath for each in libraries if getattr(each, "threading_layer", None) != "openmp"]
    return controller.select(filepath=shared)


def _take_control_of_openblas() -> None:
    """From threadpoolctl 3.8 on one thread controls OpenBLAS, and what the others ask for does silently nothing."""
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limit = contextlib.ExitStack()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit every BLAS to one thread, as long as any thread of this process is inside; then restore it."""
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
