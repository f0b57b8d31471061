"""The parallel loops of training: sweep, Gram matrix, rotation, loss, and the transposition before them.

Callers (solvers.py, als.py) hand over arrays that are already canonical; what is checked here is only what would
otherwise read out of bounds. Each result has the same bits for every number of threads: rows are independent, and sums
over rows run over blocks whose size does not depend on the threads.
"""

from cpython.pycapsule cimport PyCapsule_CheckExact, PyCapsule_GetName, PyCapsule_GetPointer, PyCapsule_IsValid
from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.math cimport fabs, isfinite

from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strncmp

from alscore._core.blas cimport gemm, syrk
from alscore._core.kernel_table cimport dot, rows_dot_wide
from alscore.solver cimport (ALSCORE_NONNEGATIVE, ALSCORE_NOT_FINITE, ALSCORE_NOT_POSITIVE_DEFINITE, ALSCORE_OK,
                             ALSCORE_ORIGINAL_BASIS, ALSCORE_SOLVER_CAPSULE, ALSCORE_SOLVER_VERSION,
                             ALSCORE_WARM_START, als_row_f32, als_row_f64, als_solver)

import numpy as np

cdef enum:
    ALIGNMENT = 64
    BLOCK = 256          # rows of a factor matrix that one product handles
    CHUNK = 128          # entries of a row that the loss handles at a time
    RUN = 16             # rows that one thread takes at a time

NOT_POSITIVE_DEFINITE = ALSCORE_NOT_POSITIVE_DEFINITE
NOT_FINITE = ALSCORE_NOT_FINITE


cdef struct Confidence:
    # of an entry of strength s: base + scale |s|, with preference 1 where s > 0; `unobserved` where there is no entry
    double base
    double scale
    double unobserved


cdef struct Problem:
    # one half-sweep, untyped where it depends on the precision
    const als_solver *solver
    const int64_t *indptr
    const int32_t *indices
    const void *strength
    const void *factors
    const void *gram              # NULL in the rotated basis
    const double *diag            # k
    const double *regularization  # one number, or one a row
    int64_t regularization_step   # 0 or 1
    Confidence confidence
    int64_t k
    int64_t n_max
    void *out
    double *loss                  # one a row, or NULL


cdef inline size_t aligned(size_t size) noexcept nogil:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


cdef class _Scratch:
    """`count` aligned stretches of `size` bytes, allocated once and freed with the object."""
    cdef char *raw
    cdef char *first
    cdef size_t step

    def __cinit__(self, int count, size_t size):
        self.step = aligned(size) + ALIGNMENT   # one line apart, so that no two threads share one
        self.raw = <char *> malloc(count * self.step + ALIGNMENT)
        if self.raw == NULL:
            raise MemoryError(f"cannot allocate {count} x {self.step} bytes of scratch memory")
        self.first = <char *> aligned(<uintptr_t> self.raw)

    def __dealloc__(self):
        free(self.raw)


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


cdef int solve(const als_solver *solver, int64_t n, int64_t k, const int32_t *cols, const floating *factors,
               const floating *weight, const floating *target, const floating *diag, const floating *gram,
               floating *x, int64_t n_next, const int32_t *cols_next, void *work) noexcept nogil:
    cdef als_row_f32 row_f32
    cdef als_row_f64 row_f64
    if floating is float:
        row_f32 = als_row_f32(n, k, cols, factors, weight, target, diag, gram, x, n_next, cols_next)
        return solver.solve_f32(solver.params, &row_f32, work)
    else:
        row_f64 = als_row_f64(n, k, cols, factors, weight, target, diag, gram, x, n_next, cols_next)
        return solver.solve_f64(solver.params, &row_f64, work)


cdef inline void weigh(const Confidence *confidence, int64_t n, const floating *strength, floating *weight,
                       floating *target) noexcept nogil:
    cdef floating base = <floating> confidence.base, scale = <floating> confidence.scale
    # 1 - 1 in the usual case: adding and subtracting them for each entry would cost the small ones their digits
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
    cdef double score[CHUNK]
    cdef double c, p, loss = 0
    cdef int64_t i, block, start, count
    for block in range((n + CHUNK - 1) // CHUNK):
        start = block * CHUNK
        count = min(n - start, CHUNK)
        rows_dot_wide(count, k, cols + start, factors, x, score)
        for i in range(count):
            c = confidence.base + confidence.scale * fabs(strength[start + i])
            p = 1 if strength[start + i] > 0 else 0
            loss += c * (p - score[i]) * (p - score[i]) - confidence.unobserved * score[i] * score[i]
    return loss


cdef int solve_row(const Problem *problem, int64_t row, int64_t next, floating *scratch) noexcept nogil:
    """Weigh one row's entries, solve it, and account for its loss; `next` is the row that follows, or -1."""
    cdef int64_t start = problem.indptr[row], n = problem.indptr[row + 1] - start, k = problem.k, j
    cdef const int32_t *cols = problem.indices + start
    cdef const floating *strength = <const floating *> problem.strength + start
    cdef const floating *factors = <const floating *> problem.factors
    cdef floating *x = <floating *> problem.out + row * k
    cdef floating *diag = scratch
    cdef floating *weight = diag + aligned(k)
    cdef floating *target = weight + aligned(problem.n_max)
    cdef double regularization = problem.regularization[row * problem.regularization_step], total
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
    code = solve(problem.solver, n, k, cols, factors, weight, target, diag, <const floating *> problem.gram, x,
                 0 if next < 0 else problem.indptr[next + 1] - problem.indptr[next],
                 NULL if next < 0 else problem.indices + problem.indptr[next],
                 target + aligned(problem.n_max))
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
    """Solve the rows order[first:end]; the last two keep the first row, by number, that cannot be solved."""
    cdef int64_t i
    cdef int code
    for i in range(first, end):
        code = solve_row(problem, order[i], order[i + 1] if i + 1 < end else -1, scratch)
        if code != ALSCORE_OK and (failed_row[0] < 0 or order[i] < failed_row[0]):
            failed_row[0], failed_code[0] = order[i], code


ctypedef fused code_t:
    int32_t
    int64_t


cdef bint in_range(const code_t[::1] codes, int64_t size, int num_threads) noexcept:
    """Whether all `codes` are from 0 to size - 1."""
    cdef int64_t i, outside = 0
    for i in prange(codes.shape[0], nogil=True, num_threads=num_threads):
        outside += codes[i] < 0 or codes[i] >= size
    return outside == 0


cdef int64_t longest(const int64_t[::1] indptr, int64_t size) noexcept:
    """Entries of the longest row, or -1 where `indptr`, not empty, does not rise from 0 to at most `size`."""
    cdef int64_t row, most = 0
    if indptr[0] != 0 or indptr[indptr.shape[0] - 1] > size:
        return -1
    for row in range(indptr.shape[0] - 1):
        if indptr[row + 1] < indptr[row]:
            return -1
        most = max(most, indptr[row + 1] - indptr[row])
    return most


def sweep(capsule, const int64_t[::1] indptr, const int32_t[::1] indices, const floating[::1] strength,
          const int64_t[::1] order, const floating[:, ::1] factors, const floating[:, ::1] gram,
          const double[::1] diag, const double[::1] regularization, tuple confidence,
          floating[:, ::1] out, double[::1] loss, int num_threads):
    """Solve every row of one side into `out` (see solvers.HalfSweep for the arguments).

    Returns (row, code) of the first row, by number, that could not be solved, or (-1, 0).
    """
    cdef int64_t n_rows = out.shape[0], i
    cdef Problem problem
    cdef const als_solver *solver = unpack(capsule)
    cdef size_t own, thread_bytes
    cdef int thread
    cdef _Scratch scratch

    if (indptr.shape[0] != n_rows + 1 or order.shape[0] != n_rows or factors.shape[1] != out.shape[1]
            or diag.shape[0] != out.shape[1] or strength.shape[0] != indices.shape[0]
            or regularization.shape[0] not in (1, n_rows) or (loss is not None and loss.shape[0] != n_rows)
            or (gram is not None and not gram.shape[0] == gram.shape[1] == out.shape[1])):
        raise ValueError("the arrays of the half-sweep do not fit each other")
    if num_threads < 1:
        raise ValueError("the half-sweep needs num_threads >= 1")
    cdef int64_t n_max = longest(indptr, indices.shape[0])
    if (n_max < 0 or not in_range(indices, factors.shape[0], num_threads)
            or not in_range(order, n_rows, num_threads)):
        raise ValueError("indptr, indices or order of the half-sweep point outside of its arrays")
    if np.bincount(order, minlength=n_rows).max(initial=0) > 1:
        raise ValueError("the half-sweep needs each row once in its order")
    if (solver.solve_f32 == NULL) if floating is float else (solver.solve_f64 == NULL):
        raise TypeError(f"the solver does not offer {'float32' if floating is float else 'float64'}: "
                        "choose the other dtype")
    if n_rows == 0:
        return -1, 0

    problem.solver = solver
    problem.indptr = &indptr[0]
    problem.indices = &indices[0] if indices.shape[0] else NULL
    problem.strength = &strength[0] if indices.shape[0] else NULL
    problem.factors = &factors[0, 0] if factors.shape[0] else NULL
    problem.gram = &gram[0, 0] if gram is not None else NULL
    problem.diag = &diag[0]
    problem.regularization = &regularization[0]
    problem.regularization_step = regularization.shape[0] > 1
    problem.confidence = Confidence(confidence[0], confidence[1], confidence[2])
    problem.k = out.shape[1]
    problem.n_max = n_max
    problem.out = &out[0, 0]
    problem.loss = &loss[0] if loss is not None else NULL

    own = (aligned(problem.k) + 2 * aligned(problem.n_max)) * sizeof(floating)
    thread_bytes = own
    if solver.workspace != NULL:
        thread_bytes += solver.workspace(solver.params, problem.k, problem.n_max, sizeof(floating))
    scratch = _Scratch(num_threads, thread_bytes)
    failed_rows, failed_codes = np.full(num_threads, -1, np.int64), np.zeros(num_threads, np.int32)
    cdef int64_t[::1] failed_row = failed_rows
    cdef int32_t[::1] failed_code = failed_codes

    # The first rows, which are the longest, one at a time, the others in runs: there a row knows which one follows.
    cdef int64_t alone = min(n_rows, 64 * num_threads), runs = alone + (n_rows - alone + RUN - 1) // RUN
    for i in prange(runs, nogil=True, schedule="dynamic", num_threads=num_threads):
        thread = threadid()
        solve_run[floating](&problem, &order[0], i if i < alone else alone + (i - alone) * RUN,
                            i + 1 if i < alone else min(alone + (i - alone + 1) * RUN, n_rows),
                            <floating *> (scratch.first + thread * scratch.step), &failed_row[thread],
                            &failed_code[thread])

    failures = [(int(row), int(bad)) for row, bad in zip(failed_rows, failed_codes, strict=True) if row >= 0]
    return min(failures, default=(-1, 0))


cdef void add_to_gram(const floating *rows, int64_t n, int64_t k, double *wide, double *out) noexcept nogil:
    """out += rows' rows in float64, BLOCK rows at a time through `wide`"""
    cdef int64_t block, start, count, i
    for block in range((n + BLOCK - 1) // BLOCK):
        start = block * BLOCK
        count = min(n - start, BLOCK)
        for i in range(count * k):
            wide[i] = rows[start * k + i]
        syrk(<int> k, <int> count, wide, out)


def gram(const floating[:, ::1] factors, int num_threads):
    """factors' factors, (k, k) float64, summed over fixed parts of the rows in order."""
    cdef int64_t n = factors.shape[0], k = factors.shape[1], part
    # enough parts for many threads, whose sums take at most half the memory of the factors
    cdef int64_t parts = max(1, min((n + 4 * BLOCK - 1) // (4 * BLOCK), min(64, n // (4 * k))))
    cdef int64_t size = (n + parts - 1) // parts
    sums = np.zeros((parts, k, k))
    cdef double[:, :, ::1] partial = sums
    cdef _Scratch scratch = _Scratch(num_threads, BLOCK * k * sizeof(double))
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
    cdef _Scratch scratch = _Scratch(num_threads, BLOCK * k * sizeof(floating))
    if rotation.shape[0] != k or rotation.shape[1] != k:
        raise ValueError("the rotation does not fit the factors")
    for block in prange((n + BLOCK - 1) // BLOCK, nogil=True, schedule="dynamic", num_threads=num_threads):
        rotate_block(&factors[block * BLOCK, 0], min(<int64_t> BLOCK, n - block * BLOCK), k, &rotation[0, 0],
                     <floating *> (scratch.first + threadid() * scratch.step))


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
    """(indptr, indices, data) of the transposed CSR matrix, its rows sorted."""
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
    # each start now stands where the next row begins
    return np.concatenate([np.zeros(1, np.int64), starts[:n_columns]]), rows, values
