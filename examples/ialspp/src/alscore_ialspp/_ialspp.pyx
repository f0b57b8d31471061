"""iALS++ (Rendle, Krichene, Zhang, Koren 2021), in the basis in which the Gram matrix is the diagonal E.

With s = t - D Y x, a block J of the row's factors moves to its minimum while the others are fixed:

    (E_J + Y_J' D Y_J) step = Y_J' s - E_J x_J,    x_J += step,    s -= D Y_J step

The system is scaled to I + P'P with P = D^1/2 Y_J E_J^-1/2. In this basis the Gram matrix couples no blocks: the
product with it, which the paper needs, is gone.

A function that takes both an `als_row` and `floating` numbers is called with one precision for both.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cython cimport floating
from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from alscore.kernels cimport ADD, IDENTITY, SUBTRACT, cholesky, gather_rows, rank_update, rows_dot, rows_sum, solve
from alscore.solver cimport (ALSCORE_NOT_POSITIVE_DEFINITE, ALSCORE_OK, ALSCORE_SOLVER_CAPSULE, ALSCORE_SOLVER_VERSION,
                             ALSCORE_WARM_START, als_row, als_row_f32, als_row_f64, als_solver)

cdef enum:
    CHUNK_ENTRIES = 120   # entries of a row that are handled at a time
    WIDEST_PANEL = 16     # numbers


cdef struct Params:
    int64_t block   # factors


cdef struct Published:
    als_solver solver
    Params params


cdef inline int64_t padded(int64_t size) noexcept nogil:
    return (size + WIDEST_PANEL - 1) // WIDEST_PANEL * WIDEST_PANEL


cdef struct Layout:
    # Where the arrays begin in the scratch memory, in numbers.
    size_t s       # t - D Y x of the row
    size_t C       # the block's system, then its Cholesky factor
    size_t rows    # the block's columns of a chunk's factors
    size_t P       # the same, scaled, in panels
    size_t e       # E_J^-1/2, padded with zeros
    size_t step    # padded with zeros
    size_t root    # square roots of a chunk's weights
    size_t score   # Y_J step of a chunk
    size_t size


cdef inline Layout layout(const Params *params, int64_t k, int64_t n_max) noexcept nogil:
    cdef Layout at
    cdef size_t Q = padded(min(params.block, k))
    at.s = 0
    at.C = at.s + padded(n_max)
    at.rows = at.C + Q * Q
    at.P = at.rows + CHUNK_ENTRIES * Q
    at.e = at.P + CHUNK_ENTRIES * Q
    at.step = at.e + Q
    at.root = at.step + Q
    at.score = at.root + padded(CHUNK_ENTRIES)
    at.size = at.score + padded(CHUNK_ENTRIES)
    return at


cdef size_t workspace(const void *params, int64_t k, int64_t n_max, size_t real_size) noexcept nogil:
    return layout(<const Params *> params, k, n_max).size * real_size


cdef void copy_columns(const als_row *row, int64_t start, int64_t count, int64_t first, int64_t q,
                       floating *rows) noexcept nogil:
    """rows = factors `first` ... `first + q - 1` of the row's entries `start` ... `start + count - 1`"""
    cdef int64_t i
    for i in range(count):
        memcpy(rows + i * q, row.factors + row.cols[start + i] * row.k + first, q * sizeof(floating))


cdef int block_step(const als_row *row, int64_t first, int64_t q, const Layout *at, floating *work) noexcept nogil:
    """Move x[first:first + q] to its minimum, and update s."""
    cdef int64_t n = row.n, i, j, chunk, start, count, depth
    cdef floating *s = work + at.s
    cdef floating *C = work + at.C
    cdef floating *rows = work + at.rows
    cdef floating *P = work + at.P
    cdef floating *e = work + at.e
    cdef floating *step = work + at.step
    cdef floating *root = work + at.root
    cdef floating *score = work + at.score
    cdef int32_t own[CHUNK_ENTRIES]
    cdef int32_t kept[CHUNK_ENTRIES]
    cdef floating cancelled
    cdef bint negative

    for i in range(CHUNK_ENTRIES):
        own[i] = <int32_t> i
    for j in range(padded(q)):
        e[j] = 1 / sqrt(row.diag[first + j]) if j < q else 0
        step[j] = 0
    rank_update(IDENTITY, q, 0, P, C)
    for chunk in range((n + CHUNK_ENTRIES - 1) // CHUNK_ENTRIES):
        start = chunk * CHUNK_ENTRIES
        count = min(n - start, CHUNK_ENTRIES)
        copy_columns(row, start, count, first, q, rows)
        rows_sum(count, q, own, rows, s + start, step)
        for negative in range(2):
            depth = 0
            for i in range(count):
                if (row.weight[start + i] < 0) if negative else (row.weight[start + i] > 0):
                    kept[depth], root[depth] = <int32_t> i, sqrt(fabs(row.weight[start + i]))
                    depth += 1
            gather_rows(depth, q, kept, rows, root, e, P)
            rank_update(SUBTRACT if negative else ADD, q, depth, P, C)
    if cholesky(q, C, &cancelled) != 0:
        return ALSCORE_NOT_POSITIVE_DEFINITE
    for j in range(q):
        step[j] = (step[j] - row.diag[first + j] * row.x[first + j]) * e[j]
    solve(q, C, step)
    for j in range(q):
        step[j] *= e[j]
        row.x[first + j] += step[j]
    for chunk in range((n + CHUNK_ENTRIES - 1) // CHUNK_ENTRIES):
        start = chunk * CHUNK_ENTRIES
        count = min(n - start, CHUNK_ENTRIES)
        copy_columns(row, start, count, first, q, rows)
        rows_dot(count, q, own, rows, step, score)
        for i in range(count):
            s[start + i] -= row.weight[start + i] * score[i]
    return ALSCORE_OK


cdef inline int one_pass(const Params *params, const als_row *row, floating *work) noexcept nogil:
    """Move each block of the row's factors in turn."""
    cdef Layout at = layout(params, row.k, row.n)
    cdef int64_t block = min(params.block, row.k), b, i, first
    cdef floating *s = work + at.s
    cdef int code
    rows_dot(row.n, row.k, row.cols, <const floating *> row.factors, <const floating *> row.x, s)
    for i in range(row.n):
        s[i] = row.target[i] - row.weight[i] * s[i]
    for b in range((row.k + block - 1) // block):
        first = b * block
        code = block_step(row, first, min(block, row.k - first), &at, work)
        if code != ALSCORE_OK:
            return code
    return ALSCORE_OK


cdef int solve_f32(const void *params, const als_row_f32 *row, void *work) noexcept nogil:
    return one_pass(<const Params *> params, row, <float *> work)


cdef int solve_f64(const void *params, const als_row_f64 *row, void *work) noexcept nogil:
    return one_pass(<const Params *> params, row, <double *> work)


cdef void release(object capsule) noexcept:
    free(PyCapsule_GetPointer(capsule, ALSCORE_SOLVER_CAPSULE))


def publish(int64_t block):
    """Capsule of the solver with blocks of so many factors."""
    cdef Published *published = <Published *> malloc(sizeof(Published))
    if published == NULL:
        raise MemoryError
    published.params = Params(block)
    published.solver = als_solver(ALSCORE_SOLVER_VERSION, ALSCORE_WARM_START, &published.params, workspace, solve_f32,
                                  solve_f64)
    return PyCapsule_New(published, ALSCORE_SOLVER_CAPSULE, release)
