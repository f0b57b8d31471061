"""The loops of src_c/probe.c on several threads, timed without Python's overhead."""

from cython.parallel cimport prange
from libc.stdint cimport int32_t, int64_t, uint32_t
from openmp cimport omp_get_wtime

import numpy as np

cdef extern nogil:
    ptrdiff_t probe_fma_flops(int bytes)
    double probe_fma(int bytes, ptrdiff_t steps, float multiplier, float addend)
    uint32_t probe_gather(ptrdiff_t n, ptrdiff_t k, const int32_t *rows, const uint32_t *table, ptrdiff_t ahead)


def fma_flops(int width):
    """FLOPs of one step of `fma` on one thread; 0 if the processor has no vectors of `width` bytes."""
    return probe_fma_flops(width)


def fma(int width, int64_t steps, float multiplier, float addend, int num_threads):
    """Repeat x = multiplier x + addend in registers, `steps` times, with vectors of `width` bytes.

    Each thread has as many independent chains as its units need; chain c starts from x = c in every lane. Returns
    (seconds, sum of x over all lanes, chains and threads).
    """
    cdef double total = 0, began
    cdef int _thread
    if probe_fma_flops(width) == 0:
        raise ValueError(f"width: this processor has no vectors of {width} bytes")
    if steps < 0 or num_threads < 1:
        raise ValueError(f"steps and num_threads must be at least 0 and 1, not {steps} and {num_threads}")
    with nogil:
        began = omp_get_wtime()
        for _thread in prange(num_threads, schedule="static", num_threads=num_threads):
            total += probe_fma(width, steps, multiplier, addend)
        began = omp_get_wtime() - began
    return began, total


def gather(const uint32_t[:, ::1] table, const int32_t[::1] rows, int64_t ahead, int num_threads):
    """Read the `rows` of `table`, an equal share on each thread, and prefetch the row that comes `ahead` rows later.

    Returns (seconds, sum of all numbers read modulo 2**32).
    """
    cdef int64_t n = rows.shape[0], k = table.shape[1], start
    cdef const uint32_t *numbers
    cdef const int32_t *first
    cdef uint32_t total = 0
    cdef double began
    cdef int thread
    if n == 0 or k == 0 or ahead < 0 or num_threads < 1:
        raise ValueError("rows and table must not be empty, ahead must be at least 0 and num_threads 1")
    if np.min(rows) < 0 or np.max(rows) >= table.shape[0]:
        raise ValueError(f"rows must be from 0 to {table.shape[0] - 1}, not {np.min(rows)} to {np.max(rows)}")
    numbers, first = &table[0, 0], &rows[0]
    with nogil:
        began = omp_get_wtime()
        for thread in prange(num_threads, schedule="static", num_threads=num_threads):
            start = n * thread // num_threads
            total += probe_gather(n * (thread + 1) // num_threads - start, k, first + start, numbers, ahead)
        began = omp_get_wtime() - began
    return began, total
