"""What this machine can do at most, and what an exact sweep asks of it: both sides of every share that is reported."""

import contextlib
import math
import os
import platform
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from alscore._core import kernel_table, probe
from alscore._support.checks import require_integer
from alscore._support.threads import available_cpus, resolve_threads

_STEPS = 1 << 21  # of the chains in one run: some milliseconds, so that a busy machine leaves a few runs undisturbed
_AHEAD = (0, 4, 8, 16, 32)  # rows; which is best depends on k and on the processor
_LEAST_TABLE = 256 << 20  # bytes
_LARGEST = 2**31 - 1  # rows, and numbers in a row: their positions are int32


def fma_peak(threads: int = 0, seconds: float = 0.3) -> float:
    """Measure the FLOP/s of float32 fused multiply-adds with everything in registers, on all threads together.

    Parameters
    ----------
    threads : int
        0 takes all CPUs of this process.
    seconds : float
        How long to measure, about.

    Returns
    -------
    float
        Two FLOPs for each lane of each FMA, in the fastest run with the best width of vector (16, 32 or 64 bytes). A
        processor without FMA multiplies and adds.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    threads = resolve_threads(threads)
    flops = {width: flops for width in (16, 32, 64) if (flops := probe.fma_flops(width))}

    def rate(width: int) -> float:
        # 0.5 and 1 keep every lane between 0 and 12: no infinity, no denormal
        least = _least_seconds(lambda: probe.fma(width, _STEPS, 0.5, 1.0, threads)[0], seconds / len(flops))
        return threads * _STEPS * flops[width] / least

    return max(map(rate, flops))


def gather_bandwidth(k: int, threads: int = 0, rows: int | None = None, seconds: float = 0.3) -> float:
    """Measure the bytes/s at which random rows of k float32 arrive from memory in registers, on all threads together.

    The limit of the machine, not of a kernel: rows lie at multiples of 4k bytes from the start of a cache line, in huge
    pages where the system grants them; they are only added up; and the best of several distances of prefetching counts.

    Parameters
    ----------
    k : int
        Numbers in a row, at least 1.
    threads : int
        0 takes all CPUs of this process.
    rows : int, optional
        Rows of the array, from 1 to 2**31 - 1. Each is read once a run, in random order. By default they fill 256 MB,
        or 8 times the last-level caches where that is more.
    seconds : float
        How long to measure, about; filling the array comes on top.

    Returns
    -------
    float
        4k bytes for each row, in the fastest run.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    require_integer(k, "k", 1, _LARGEST)
    rows = _rows_beyond_cache(k) if rows is None else rows
    require_integer(rows, "rows", 1, _LARGEST)
    threads = resolve_threads(threads)
    table = _aligned_ones(rows, k)
    order = np.random.default_rng(0).permutation(np.arange(rows, dtype=np.int32))
    each = seconds / len(_AHEAD)

    def least(ahead: int) -> float:
        return _least_seconds(lambda: probe.gather(table, order, ahead, threads)[0], each)

    return table.nbytes / min(map(least, _AHEAD))


def sweep_flops(user_entries: npt.ArrayLike, item_entries: npt.ArrayLike, k: int) -> float:
    """Count the FLOPs of one exact sweep (both sides): what the method needs, however it is programmed.

    A row of n entries solves a system of m = min(n, k) unknowns, with M = max(n, k): the dual where n <= k, else the
    primal. It takes

        m (m + 1) M             the triangle of I + B B' or of I + B'B
        m (m + 1) (2m + 1) / 6  its Cholesky factor
        2 m**2                  forward and back substitution
        4 n k                   both scalings of the n gathered rows, and their product with one vector

    Besides, each side has rows * k (k + 1) for the triangle of its Gram matrix and rows * 2 k**2 for its rotation.

    Parameters
    ----------
    user_entries, item_entries : array_like of int, shape (n_users,) and (n_items,)
        Entries of each row: ``np.diff(matrix.indptr)`` and that of its transpose.
    k : int
        Number of factors, at least 1.

    Returns
    -------
    float
        Additions, multiplications, divisions and roots: an FMA counts as two.

    Raises
    ------
    ValueError
        Entries that are not one-dimensional integers of at least 0, or k below 1.
    """
    require_integer(k, "k", 1, _LARGEST)
    flops = 0.0
    for name, entries in (("user_entries", user_entries), ("item_entries", item_entries)):
        counts = np.asarray(entries)
        if counts.ndim != 1 or counts.dtype.kind not in "iu":
            raise ValueError(
                f"{name} must be a one-dimensional array of integers, not {counts.dtype} of shape {counts.shape}; "
                "np.diff(matrix.indptr) is one"
            )
        if counts.size and counts.min() < 0:
            raise ValueError(f"{name} must be at least 0, not {counts.min()} at row {counts.argmin()}")
        n = counts.astype(np.float64)
        m, M = np.minimum(n, k), np.maximum(n, k)
        rows = m * (m + 1) * M + m * (m + 1) * (2 * m + 1) / 6 + 2 * m**2 + 4 * n * k
        flops += float(rows.sum()) + counts.size * (k * (k + 1) + 2 * k**2)
    return flops


def gather_bytes(entries: int, k: int) -> int:
    """Count the bytes of factors that one sweep gathers: every entry's row of k float32, once for each side."""
    return 2 * int(entries) * k * 4


def describe() -> dict[str, Any]:
    """Describe the machine and the versions that a measurement depends on.

    Returns
    -------
    dict
        "cpu" (model), "cpus" (usable by this process), "caches" (bytes by level and kind, those of all CPUs
        together; empty where the system does not tell), "memory_bytes", "isa" (kernel set in use), "python",
        "numpy", "scipy".
    """
    return {
        "cpu": cpu_model(),
        "cpus": available_cpus(),
        "caches": _caches(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "isa": kernel_table.isa(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def _least_seconds(run: Callable[[], float], seconds: float) -> float:
    """Return the least that `run` reports, called until its reports add up to `seconds`."""
    if not 0 < seconds < math.inf:
        raise ValueError("seconds must be above 0 and finite")
    reports = [run()]
    while sum(reports) < seconds:
        reports.append(run())
    return min(reports)


def _rows_beyond_cache(k: int) -> int:
    return min(-(-max(_LEAST_TABLE, 8 * max(_caches().values(), default=0)) // (4 * k)), _LARGEST)


def _aligned_ones(rows: int, k: int) -> npt.NDArray[np.uint32]:
    """Rows of k numbers of 4 bytes each, from the start of a cache line."""
    memory = np.ones(rows * k + 15, np.uint32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + rows * k].reshape(rows, k)


def cpu_model() -> str:
    with contextlib.suppress(OSError):
        if model := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return model[1]
    return platform.processor() or platform.machine()


def _caches() -> dict[str, int]:
    """Bytes of the caches, those of all CPUs together: a thread on each of them finds that much."""
    sizes: dict[tuple[str, str, str], int] = {}  # one for each cache, named by the CPUs that share it
    for index in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            level, kind, shared, size = (
                (index / name).read_text().strip() for name in ("level", "type", "shared_cpu_list", "size")
            )
            sizes[level, kind, shared] = int(size.removesuffix("K")) << 10
    caches: Counter[str] = Counter()
    for level, kind, shared in sorted(sizes):
        caches[f"L{level} {kind.lower()}"] += sizes[level, kind, shared]
    return dict(caches)
