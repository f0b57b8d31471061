"""The parallel loops of training: half-sweeps, Gram matrix, rotation and loss, and the transposition before them.

Matrices are canonical. What is checked here is only what would otherwise read out of bounds. Every result has the same
bits on any number of threads: rows are independent, and a sum over rows is a sum over blocks whose size does not depend
on the threads.
"""

from cpython.pycapsule cimport PyCapsule_CheckExact, PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_IsValid
from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.math cimport fabs, isfinite

from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, strncmp

from alscore._core.blas cimport gemm, syrk
from alscore._core.kernel_table cimport dot, rows_dot_wide
from alscore._core.scratch cimport Scratch
from alscore.solver cimport (ALSCORE_NONNEGATIVE, ALSCORE_NOT_FINITE, ALSCORE_NOT_POSITIVE_DEFINITE, ALSCORE_OK,
                             ALSCORE_ORIGINAL_BASIS, ALSCORE_SOLVER_CAPSULE, ALSCORE_SOLVER_VERSION,
                             ALSCORE_WARM_START, als_row_f32, als_row_f64, als_solver)

import numpy as np

cdef enum:
    BLOCK_ROWS = 256       # rows of a factor matrix in one matrix product
    LOSS_ENTRIES = 128     # entries of a row whose scores are computed at a time
    SINGLE_ROWS = 64       # rows per thread at the start of the order, the longest ones: taken one at a time
    RUN_ROWS = 16          # rows after those that a thread takes together; a row can prefetch the next row of its run
    ALIGNED_NUMBERS = 64   # the length of an array in a thread's scratch memory is a multiple of this

NOT_POSITIVE_DEFINITE = ALSCORE_NOT_POSITIVE_DEFINITE
NOT_FINITE = ALSCORE_NOT_FINITE


cdef struct Confidence:
    # base + scale |s| for an entry of strength s, whose preference is 1 where s > 0; `unobserved` without an entry
    double base
    double scale
    double unobserved


cdef struct Layout:
    # Where the arrays of `solve_row` begin in a thread's scratch memory, in numbers.
    size_t diag     # the row's, regularization included
    size_t weight
    size_t target
    size_t work     # the solver's own, last


cdef struct Problem:
    # One half-sweep; pointers are void where the type depends on the precision.
    const als_solver *solver
    const int64_t *indptr
    const int32_t *indices
    const void *strength
    const void *factors
    const void *gram              # NULL in the rotated basis
    const double *diag            # k
    const double *regularization  # one number, or one per row
    int64_t regularization_step   # 0 or 1
    Confidence confidence
    int64_t k
    int64_t n_max                 # entries of the longest row
    Layout at
    void *out
    double *loss                  # one per row, or NULL


cdef inline size_t padded_length(size_t count) noexcept nogil:
    return (count + ALIGNED_NUMBERS - 1) // ALIGNED_NUMBERS * ALIGNED_NUMBERS


cdef inline Layout layout(int64_t k, int64_t n_max) noexcept nogil:
    """For k factors and rows of at most n_max entries."""
    cdef Layout at
    at.diag = 0
    at.weight = at.diag + padded_length(k)
    at.target = at.weight + padded_length(n_max)
    at.work = at.target + padded_length(n_max)
    return at


cdef const als_solver *unpack(capsule) except NULL:
    cdef const als_solver *solver
    cdef const char *name
    if not PyCapsule_IsValid(capsule, ALSCORE_SOLVER_CAPSULE):
        name = PyCapsule_GetName(capsule) if PyCapsule_CheckExact(capsule) else NULL
        if name != NULL and strncmp(name, b"alscore.solver.", 15) == 0:
            raise ValueError(f"the solver was compiled for {name.decode('utf-8', 'replace')!r}, this alscore has "
                             f"{ALSCORE_SOLVER_CAPSULE.decode()!r}: rebuild the solver against it")
        raise TypeError(f"a compiled solver is a PyCapsule named {ALSCORE_SOLVER_CAPSULE.decode()!r}, not {capsule!r}")
    solver = <const als_solver *> PyCapsule_GetPointer(capsule, ALSCORE_SOLVER_CAPSULE)
    if solver.version != ALSCORE_SOLVER_VERSION:
        raise ValueError(f"the solver was compiled for version {solver.version} of the contract, "
                         f"this alscore has {ALSCORE_SOLVER_VERSION}: rebuild the solver against it")
    return solver


def solver_flags(capsule):
    """(original_basis, warm_start, nonnegative) of a compiled solver."""
    cdef const als_solver *solver = unpack(capsule)
    return (bool(solver.flags & ALSCORE_ORIGINAL_BASIS), bool(solver.flags & ALSCORE_WARM_START),
            bool(solver.flags & ALSCORE_NONNEGATIVE))


cdef inline void weigh(const Confidence *confidence, int64_t n, const floating *strength, floating *weight,
                       floating *target) noexcept nogil:
    """weight = c - unobserved and target = c p of each entry, from its strength"""
    cdef floating base = <floating> confidence.base, scale = <floating> confidence.scale
    # The difference is taken once: it is 1 - 1 in the usual case, and adding 1 to each strength would round small ones.
    cdef floating offset = <floating> (confidence.base - confidence.unobserved)
    cdef floating r
    cdef int64_t i
    for i in range(n):
        r = -strength[i] if strength[i] < 0 else strength[i]
        weight[i] = offset + scale * r
        target[i] = base + scale * r if strength[i] > 0 else 0


cdef double observed_loss(const Confidence *confidence, int64_t n, int64_t k, const int32_t *cols,
                          const floating *strength, const floating *factors, const floating *x) noexcept nogil:
    """sum over the row's entries of c (p - x.y)^2 - unobserved (x.y)^2"""
    cdef double score[LOSS_ENTRIES]
    cdef double c, p, loss = 0
    cdef int64_t i, chunk, start, count
    for chunk in range((n + LOSS_ENTRIES - 1) // LOSS_ENTRIES):
        start = chunk * LOSS_ENTRIES
        count = min(n - start, LOSS_ENTRIES)
        rows_dot_wide(count, k, cols + start, factors, x, score)
        for i in range(count):
            c = confidence.base + confidence.scale * fabs(strength[start + i])
            p = 1 if strength[start + i] > 0 else 0
            loss += c * (p - score[i]) * (p - score[i]) - confidence.unobserved * score[i] * score[i]
    return loss


cdef int solve_row(const Problem *problem, int64_t row, int64_t next, floating *scratch) noexcept nogil:
    """Weigh one row's entries, solve it, and compute its loss; `next` is the row that follows, or -1."""
    cdef int64_t start = problem.indptr[row], n = problem.indptr[row + 1] - start, k = problem.k, j
    cdef int64_t n_next = 0 if next < 0 else problem.indptr[next + 1] - problem.indptr[next]
    cdef const int32_t *cols = problem.indices + start
    cdef const int32_t *cols_next = NULL if next < 0 else problem.indices + problem.indptr[next]
    cdef const floating *strength = <const floating *> problem.strength + start
    cdef const floating *factors = <const floating *> problem.factors
    cdef const floating *gram = <const floating *> problem.gram
    cdef floating *x = <floating *> problem.out + row * k
    cdef floating *diag = scratch + problem.at.diag
    cdef floating *weight = scratch + problem.at.weight
    cdef floating *target = scratch + problem.at.target
    cdef floating *work = scratch + problem.at.work
    cdef double regularization = problem.regularization[row * problem.regularization_step], total
    cdef als_row_f32 row_f32
    cdef als_row_f64 row_f64
    cdef int code

    if n == 0:
        for j in range(k):
            x[j] = 0
        if problem.loss != NULL:
            problem.loss[row] = 0
        return ALSCORE_OK
    for j in range(k):
        diag[j] = <floating> (problem.diag[j] + regularization)
    weigh(&problem.confidence, n, strength, weight, target)
    if floating is float:
        row_f32 = als_row_f32(n, k, cols, factors, weight, target, diag, gram, x, n_next, cols_next)
        code = problem.solver.solve_f32(problem.solver.params, &row_f32, work)
    else:
        row_f64 = als_row_f64(n, k, cols, factors, weight, target, diag, gram, x, n_next, cols_next)
        code = problem.solver.solve_f64(problem.solver.params, &row_f64, work)
    if code != ALSCORE_OK:
        return code
    if not isfinite(dot(k, x, x)):
        return ALSCORE_NOT_FINITE
    if problem.loss != NULL:
        total = 0
        for j in range(k):
            total += (problem.diag[j] + regularization) * x[j] * x[j]
        problem.loss[row] = total + observed_loss(&problem.confidence, n, k, cols, strength, factors, x)
    return ALSCORE_OK


cdef void solve_run(const Problem *problem, const int64_t *order, int64_t first, int64_t end, floating *scratch,
                    int64_t *failed_row, int32_t *failed_code) noexcept nogil:
    """Solve the rows order[first:end]; the last two keep the lowest row that cannot be solved, and its code."""
    cdef int64_t i
    cdef int code
    for i in range(first, end):
        code = solve_row(problem, order[i], order[i + 1] if i + 1 < end else -1, scratch)
        if code != ALSCORE_OK and (failed_row[0] < 0 or order[i] < failed_row[0]):
            failed_row[0], failed_code[0] = order[i], code


ctypedef fused id_t:
    int32_t
    int64_t


cdef bint in_range(const id_t[::1] ids, int64_t size, int num_threads) noexcept:
    """Whether all `ids` are from 0 to size - 1."""
    cdef int64_t i, outside = 0
    for i in prange(ids.shape[0], nogil=True, num_threads=num_threads):
        outside += ids[i] < 0 or ids[i] >= size
    return outside == 0


cdef int64_t longest(const int64_t[::1] indptr, int64_t size) noexcept:
    """Entries of the longest row, or -1 where `indptr`, not empty, falls or does not go from 0 to at most `size`."""
    cdef int64_t row, most = 0
    if indptr[0] != 0 or indptr[indptr.shape[0] - 1] > size:
        return -1
    for row in range(indptr.shape[0] - 1):
        if indptr[row + 1] < indptr[row]:
            return -1
        most = max(most, indptr[row + 1] - indptr[row])
    return most


cdef solve_all(const Problem *problem, const int64_t *order, int64_t n_rows, int num_threads,
               const floating *precision):  # not read: its type chooses the version of the function
    """Solve the rows of `order`. Returns (row, code) of the lowest row that could not be solved, or (-1, 0)."""
    cdef const als_solver *solver = problem.solver
    cdef size_t thread_bytes = problem.at.work * sizeof(floating)
    if solver.workspace != NULL:
        thread_bytes += solver.workspace(solver.params, problem.k, problem.n_max, sizeof(floating))
    cdef Scratch scratch = Scratch(num_threads, thread_bytes)
    failed_rows, failed_codes = np.full(num_threads, -1, np.int64), np.zeros(num_threads, np.int32)
    cdef int64_t[::1] failed_row = failed_rows
    cdef int32_t[::1] failed_code = failed_codes

    # The first runs have one row each, the others RUN_ROWS.
    cdef int64_t single = min(n_rows, SINGLE_ROWS * num_threads)
    cdef int64_t n_runs = single + (n_rows - single + RUN_ROWS - 1) // RUN_ROWS, run
    cdef int thread
    for run in prange(n_runs, nogil=True, schedule="dynamic", num_threads=num_threads):
        thread = threadid()
        solve_run[floating](problem, order, run if run < single else single + (run - single) * RUN_ROWS,
                            run + 1 if run < single else min(single + (run - single + 1) * RUN_ROWS, n_rows),
                            <floating *> (scratch.first + thread * scratch.step), &failed_row[thread],
                            &failed_code[thread])

    failures = [(int(row), int(bad)) for row, bad in zip(failed_rows, failed_codes, strict=True) if row >= 0]
    return min(failures, default=(-1, 0))


def sweep(capsule, half_sweep, floating[:, ::1] out, double[::1] loss):
    """Solve every row of a solvers.HalfSweep into `out` and, where it is not None, each row's share of the loss.

    Returns (row, code) of the lowest row that could not be solved, or (-1, 0).
    """
    cdef const int64_t[::1] indptr = half_sweep.indptr
    cdef const int32_t[::1] indices = half_sweep.indices
    cdef const floating[::1] strength = half_sweep.strength
    cdef const int64_t[::1] order = half_sweep.order
    cdef const floating[:, ::1] factors = half_sweep.factors
    cdef const floating[:, ::1] gram = half_sweep.gram
    cdef const double[::1] diag = half_sweep.diag
    cdef const double[::1] regularization = half_sweep.regularization
    cdef tuple confidence = half_sweep.confidence
    cdef int num_threads = half_sweep.num_threads
    cdef int64_t n_rows = out.shape[0], k = out.shape[1], n_max
    cdef Problem problem

    problem.solver = unpack(capsule)
    if (indptr.shape[0] != n_rows + 1 or order.shape[0] != n_rows or factors.shape[1] != k or diag.shape[0] != k
            or strength.shape[0] != indices.shape[0] or regularization.shape[0] not in (1, n_rows)
            or (loss is not None and loss.shape[0] != n_rows)
            or (gram is not None and not gram.shape[0] == gram.shape[1] == k)):
        raise ValueError("the arrays of the half-sweep do not fit each other")
    if num_threads < 1:
        raise ValueError("the half-sweep needs num_threads >= 1")
    n_max = longest(indptr, indices.shape[0])
    if (n_max < 0 or not in_range(indices, factors.shape[0], num_threads)
            or not in_range(order, n_rows, num_threads)):
        raise ValueError("indptr, indices or order of the half-sweep point outside of its arrays")
    if np.bincount(order, minlength=n_rows).max(initial=0) > 1:
        raise ValueError("the half-sweep needs each row once in its order")
    if (problem.solver.solve_f32 == NULL) if floating is float else (problem.solver.solve_f64 == NULL):
        raise TypeError(f"the solver does not offer {'float32' if floating is float else 'float64'}: "
                        "choose the other dtype")
    if n_rows == 0:
        return -1, 0

    problem.indptr = &indptr[0]
    problem.indices = &indices[0] if indices.shape[0] else NULL
    problem.strength = &strength[0] if indices.shape[0] else NULL
    problem.factors = &factors[0, 0] if factors.shape[0] else NULL
    problem.gram = &gram[0, 0] if gram is not None else NULL
    problem.diag = &diag[0]
    problem.regularization = &regularization[0]
    problem.regularization_step = regularization.shape[0] > 1
    problem.confidence = Confidence(confidence[0], confidence[1], confidence[2])
    problem.k = k
    problem.n_max = n_max
    problem.at = layout(k, n_max)
    problem.out = &out[0, 0]
    problem.loss = &loss[0] if loss is not None else NULL
    return solve_all(&problem, &order[0], n_rows, num_threads, &out[0, 0])


cdef void add_to_gram(const floating *rows, int64_t n, int64_t k, double *wide, double *out) noexcept nogil:
    """out += rows' rows in float64, BLOCK_ROWS rows at a time through `wide`"""
    cdef int64_t block, start, count, i
    for block in range((n + BLOCK_ROWS - 1) // BLOCK_ROWS):
        start = block * BLOCK_ROWS
        count = min(n - start, BLOCK_ROWS)
        for i in range(count * k):
            wide[i] = rows[start * k + i]
        syrk(<int> k, <int> count, wide, out)


def gram(const floating[:, ::1] factors, int num_threads):
    """factors' factors, (k, k) float64: a sum over parts of the rows, added in order."""
    cdef int64_t n = factors.shape[0], k = factors.shape[1], part
    # parts for up to 64 threads; their sums take at most half the memory of float32 factors
    cdef int64_t parts = max(1, min((n + 4 * BLOCK_ROWS - 1) // (4 * BLOCK_ROWS), min(64, n // (4 * k))))
    cdef int64_t size = (n + parts - 1) // parts
    sums = np.zeros((parts, k, k))
    cdef double[:, :, ::1] partial = sums
    cdef Scratch scratch = Scratch(num_threads, BLOCK_ROWS * k * sizeof(double))
    for part in prange(parts if n else 0, nogil=True, schedule="dynamic", num_threads=num_threads):
        if part * size < n:
            add_to_gram(&factors[part * size, 0], min(size, n - part * size), k,
                        <double *> (scratch.first + threadid() * scratch.step), &partial[part, 0, 0])
    total = sums[0]
    for i in range(1, parts):
        total += sums[i]
    return np.tril(total) + np.tril(total, -1).T


cdef void rotate_block(floating *rows, int64_t count, int64_t k, const floating *rotation,
                       floating *copy) noexcept nogil:
    memcpy(copy, rows, count * k * sizeof(floating))
    gemm(<int> count, <int> k, <int> k, copy, rotation, rows)


def rotate(floating[:, ::1] factors, const floating[:, ::1] rotation, int num_threads):
    """factors = factors rotation, in place."""
    cdef int64_t n = factors.shape[0], k = factors.shape[1], block
    cdef Scratch scratch = Scratch(num_threads, BLOCK_ROWS * k * sizeof(floating))
    if rotation.shape[0] != k or rotation.shape[1] != k:
        raise ValueError("the rotation does not fit the factors")
    for block in prange((n + BLOCK_ROWS - 1) // BLOCK_ROWS, nogil=True, schedule="dynamic", num_threads=num_threads):
        rotate_block(&factors[block * BLOCK_ROWS, 0], min(<int64_t> BLOCK_ROWS, n - block * BLOCK_ROWS), k,
                     &rotation[0, 0], <floating *> (scratch.first + threadid() * scratch.step))


def observed_losses(const int64_t[::1] indptr, const int32_t[::1] indices, const floating[::1] strength,
                    const floating[:, ::1] row_factors, const floating[:, ::1] column_factors, tuple confidence,
                    int num_threads):
    """Each row's sum over its entries of c (p - x.y)^2 - unobserved (x.y)^2, float64."""
    cdef int64_t n_rows = row_factors.shape[0], k = row_factors.shape[1], row
    cdef Confidence weights = Confidence(confidence[0], confidence[1], confidence[2])
    losses = np.zeros(n_rows)
    cdef double[::1] out = losses
    if indptr.shape[0] != n_rows + 1 or strength.shape[0] != indices.shape[0] or column_factors.shape[1] != k:
        raise ValueError("the arrays do not fit each other")
    if indices.shape[0] == 0:
        return losses
    for row in prange(n_rows, nogil=True, schedule="dynamic", chunksize=64, num_threads=num_threads):
        if indptr[row + 1] > indptr[row]:
            out[row] = observed_loss(&weights, indptr[row + 1] - indptr[row], k, &indices[indptr[row]],
                                     &strength[indptr[row]], &column_factors[0, 0], &row_factors[row, 0])
    return losses


def transpose(const int64_t[::1] indptr, const int32_t[::1] indices, const floating[::1] data, int64_t n_columns):
    """(indptr, indices, data) of the transposed CSR matrix, with sorted indices."""
    cdef int64_t n_rows = indptr.shape[0] - 1, row, i, place
    starts, rows, values = np.zeros(n_columns + 1, np.int64), np.empty(len(indices), np.int32), np.empty_like(data)
    cdef int64_t[::1] start = starts
    cdef int32_t[::1] out_rows = rows
    cdef floating[::1] out_values = values
    with nogil:
        for i in range(indices.shape[0]):
            start[indices[i] + 1] += 1
        for i in range(n_columns):
            start[i + 1] += start[i]
        for row in range(n_rows):
            for i in range(indptr[row], indptr[row + 1]):
                place = start[indices[i]]
                out_rows[place] = <int32_t> row
                out_values[place] = data[i]
                start[indices[i]] = place + 1
    # each start is now where the next row begins
    return np.concatenate([np.zeros(1, np.int64), starts[:n_columns]]), rows, values
