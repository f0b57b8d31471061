"""The peaks of this machine, and what an exact sweep needs: `alscore bench sweep` reports the shares."""

import contextlib
import math
import os
import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

from alscore._core import kernel_table
from alscore._core import probe as compiled_probe
from alscore._support.checks import require_integer
from alscore._support.threads import available_cpus, resolve_threads

_STEPS = 1 << 21  # multiply-adds of each chain in one run: some milliseconds, so a busy machine leaves some undisturbed
_PREFETCH_ROWS = (0, 4, 8, 16, 32)  # distances of prefetching to try; the best depends on k and on the processor
_MIN_TABLE_BYTES = 256 << 20
_MAX_INT32 = 2**31 - 1  # of rows, and of numbers in a row: their positions are int32


def fma_peak(threads: int = 0, seconds: float = 0.3, probe: Any = compiled_probe) -> float:
    """Measure the FLOP/s of float32 fused multiply-adds on registers, all threads together.

    Parameters
    ----------
    threads : int
        Number of threads. 0 takes all CPUs of this process.
    seconds : float
        Approximate duration of the measurement.
    probe : module or object
        Has the functions of `alscore._core.probe`.

    Returns
    -------
    float
        FLOP/s of the fastest run with the best width of vector (16, 32 or 64 bytes). Each lane of an FMA counts two
        FLOPs. A processor without FMA multiplies and then adds.

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
        return threads * _STEPS * float(flops[width]) / least

    return max(map(rate, flops))


def gather_bandwidth(
    k: int, threads: int = 0, rows: int | None = None, seconds: float = 0.3, probe: Any = compiled_probe
) -> float:
    """Measure the bytes/s at which random rows of k float32 arrive from memory in registers, all threads together.

    This is the limit of the machine, not of a kernel. Rows lie at multiples of 4k bytes from the start of a cache line,
    in huge pages where the system grants them. They are only added up. The best of several distances of prefetching
    counts.

    Parameters
    ----------
    k : int
        Numbers in a row, >= 1.
    threads : int
        Number of threads. 0 takes all CPUs of this process.
    rows : int, optional
        Rows of the array, from 1 to 2**31 - 1. A run reads each of them once, in random order. By default they fill 256
        MB, or 8 times the largest cache level if that is more.
    seconds : float
        Approximate duration of the measurement, without the filling of the array.
    probe : module or object
        Has the functions of `alscore._core.probe`.

    Returns
    -------
    float
        Bytes/s of the fastest run, with 4k bytes for each row.

    Raises
    ------
    ValueError
        An argument out of range.
    """
    require_integer(k, "k", 1, _MAX_INT32)
    rows = rows_beyond_cache(k, _cache_bytes()) if rows is None else rows
    require_integer(rows, "rows", 1, _MAX_INT32)
    threads = resolve_threads(threads)
    rows, k = int(rows), int(k)  # small NumPy integers would overflow below
    table = _aligned_ones(rows, k)
    order = np.random.default_rng(0).permutation(np.arange(rows, dtype=np.int32))
    seconds_each = seconds / len(_PREFETCH_ROWS)

    def least(ahead: int) -> float:
        return _least_seconds(lambda: probe.gather(table, order, ahead, threads)[0], seconds_each)

    return table.nbytes / min(map(least, _PREFETCH_ROWS))


def sweep_flops(user_entries: npt.ArrayLike, item_entries: npt.ArrayLike, k: int) -> float:
    """Count the FLOPs that the method needs for one exact sweep (both sides), however it is programmed.

    A row of n entries solves a system of m = min(n, k) unknowns: the dual system if n <= k, else the primal one. With
    M = max(n, k) it takes

        m (m + 1) M             one triangle of I + B B' or of I + B'B
        m (m + 1) (2m + 1) / 6  its Cholesky factor
        2 m**2                  forward and back substitution
        4 n k                   both scalings of the n gathered rows, and their product with one vector

    Each side also takes rows * k (k + 1) for one triangle of its Gram matrix and rows * 2 k**2 for its rotation.

    Parameters
    ----------
    user_entries, item_entries : array_like of int, shape (n_users,) and (n_items,)
        Number of entries of each row: ``np.diff(matrix.indptr)``, of the matrix and of its transpose.
    k : int
        Number of factors, >= 1.

    Returns
    -------
    float
        Number of additions, multiplications, divisions and roots. An FMA counts as two.

    Raises
    ------
    ValueError
        `user_entries` or `item_entries` is not a one-dimensional array of integers >= 0, or k < 1.
    """
    require_integer(k, "k", 1, _MAX_INT32)
    k = int(k)  # a small NumPy integer would overflow below
    flops = 0.0
    for name, entries in (("user_entries", user_entries), ("item_entries", item_entries)):
        counts = np.asarray(entries)
        if counts.ndim != 1 or counts.dtype.kind not in "iu":
            raise ValueError(
                f"{name} must be a one-dimensional array of integers, such as np.diff(matrix.indptr), "
                f"not {counts.dtype} of shape {counts.shape}"
            )
        if counts.size and counts.min() < 0:
            raise ValueError(f"{name} must be at least 0, not {counts.min()} at row {counts.argmin()}")
        n = counts.astype(np.float64)
        m, M = np.minimum(n, k), np.maximum(n, k)
        rows = m * (m + 1) * M + m * (m + 1) * (2 * m + 1) / 6 + 2 * m**2 + 4 * n * k
        flops += float(rows.sum()) + counts.size * (k * (k + 1) + 2 * k**2)
    return flops


def gather_bytes(entries: int, k: int) -> int:
    """Count the bytes of factors that one sweep gathers: a row of k float32 for every entry, on each side."""
    return 2 * int(entries) * k * 4


def describe() -> dict[str, Any]:
    """Describe the machine and the versions that a measurement depends on.

    Returns
    -------
    dict
        "cpu" (model), "cpus" (number that this process may use), "caches" (bytes by level and kind, the sum over all
        CPUs; empty if the system does not tell it), "memory_bytes", "isa" (kernel set in use), "python", "numpy",
        "scipy" (versions).
    """
    return {
        "cpu": cpu_model(),
        "cpus": available_cpus(),
        "caches": _cache_bytes(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "isa": kernel_table.isa(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }


def _least_seconds(run: Callable[[], float], seconds: float) -> float:
    """Call `run`, which returns seconds, until they add up to `seconds`; return the least of them."""
    if not 0 < seconds < math.inf:
        raise ValueError("seconds must be above 0 and finite")
    reports = [run()]
    while sum(reports) < seconds:
        reports.append(run())
    return min(reports)


def rows_beyond_cache(k: int, cache_bytes: Mapping[str, int]) -> int:
    """Return the number of rows of k float32 that are far larger than the caches."""
    table_bytes = max(_MIN_TABLE_BYTES, 8 * max(cache_bytes.values(), default=0))
    return min(-(-table_bytes // (4 * k)), _MAX_INT32)


def _aligned_ones(rows: int, k: int) -> npt.NDArray[np.uint32]:
    """Return rows of k numbers of 4 bytes each; the first row begins at a cache line."""
    memory = np.ones(rows * k + 15, np.uint32)
    first = -memory.ctypes.data % 64 // 4
    return memory[first : first + rows * k].reshape(rows, k)


def cpu_model() -> str:
    """Return the name of the processor's model."""
    with contextlib.suppress(OSError):
        if model := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return model[1]
    return platform.processor() or platform.machine()


def _cache_bytes() -> dict[str, int]:
    """Return the bytes of each kind of cache, the sum over all CPUs: threads on all CPUs have this much together."""
    sizes: dict[tuple[str, str, str], int] = {}  # bytes by level, kind and the CPUs that share the cache
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
