"""iALS++ (Rendle, Krichene, Zhang, Koren 2021), in the basis in which the Gram matrix is the diagonal E.

With s = t - D Y x, a block J of the row's factors moves to its minimum, the others being fixed:

    (E_J + Y_J' D Y_J) step = Y_J' s - E_J x_J,    x_J += step,    s -= D Y_J step

scaled to I + P'P by P = D^1/2 Y_J E_J^-1/2. The Gram matrix couples no blocks here: what the paper multiplies by it is
gone.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cython cimport floating
from libc.math cimport fabs, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from alscore.kernels cimport ADD, IDENTITY, SUBTRACT, cholesky, gather_rows, rank_update, rows_dot, rows_sum, solve
from alscore.solver cimport (ALSCORE_NOT_POSITIVE_DEFINITE, ALSCORE_OK, ALSCORE_SOLVER_CAPSULE, ALSCORE_SOLVER_VERSION,
                             ALSCORE_WARM_START, als_row_f32, als_row_f64, als_solver)

cdef enum:
    CHUNK = 120   # entries handled at a time
    PANEL = 16    # no panel is wider


cdef struct Params:
    int64_t block


cdef struct Published:
    als_solver solver
    Params params


cdef inline int64_t padded(int64_t size) noexcept nogil:
    return (size + PANEL - 1) // PANEL * PANEL


cdef size_t workspace(const void *params, int64_t k, int64_t n_max, size_t real_size) noexcept nogil:
    cdef size_t q = padded(min((<const Params *> params).block, k))
    return (padded(n_max) + q * q + 2 * CHUNK * q + 2 * q + 2 * padded(CHUNK)) * real_size


cdef int block_step(int64_t first, int64_t q, int64_t n, int64_t k, const int32_t *cols, const floating *Y,
                    const floating *weight, const floating *diag, floating *x, floating *s,
                    floating *work) noexcept nogil:
    """Move x[first:first + q] to its minimum, and s with it."""
    cdef int64_t Q = padded(q), i, j, chunk, start, count, depth
    cdef floating *C = work
    cdef floating *rows = C + Q * Q
    cdef floating *P = rows + CHUNK * Q
    cdef floating *e = P + CHUNK * Q
    cdef floating *step = e + Q
    cdef floating *root = step + Q
    cdef floating *score = root + padded(CHUNK)
    cdef int32_t own[CHUNK]
    cdef int32_t kept[CHUNK]
    cdef floating cancelled
    cdef bint negative

    for i in range(CHUNK):
        own[i] = <int32_t> i
    for j in range(Q):
        e[j] = 1 / sqrt(diag[first + j]) if j < q else 0
        step[j] = 0
    rank_update(IDENTITY, q, 0, P, C)
    for chunk in range((n + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        count = min(n - start, CHUNK)
        for i in range(count):
            memcpy(rows + i * q, Y + cols[start + i] * k + first, q * sizeof(floating))
        rows_sum(count, q, own, rows, s + start, step)
        for negative in range(2):
            depth = 0
            for i in range(count):
                if (weight[start + i] < 0) if negative else (weight[start + i] > 0):
                    kept[depth], root[depth] = <int32_t> i, sqrt(fabs(weight[start + i]))
                    depth += 1
            gather_rows(depth, q, kept, rows, root, e, P)
            rank_update(SUBTRACT if negative else ADD, q, depth, P, C)
    if cholesky(q, C, &cancelled) != 0:
        return ALSCORE_NOT_POSITIVE_DEFINITE
    for j in range(q):
        step[j] = (step[j] - diag[first + j] * x[first + j]) * e[j]
    solve(q, C, step)
    for j in range(q):
        step[j] *= e[j]
        x[first + j] += step[j]
    for chunk in range((n + CHUNK - 1) // CHUNK):
        start = chunk * CHUNK
        count = min(n - start, CHUNK)
        for i in range(count):
            memcpy(rows + i * q, Y + cols[start + i] * k + first, q * sizeof(floating))
        rows_dot(count, q, own, rows, step, score)
        for i in range(count):
            s[start + i] -= weight[start + i] * score[i]
    return ALSCORE_OK


cdef int one_pass(const Params *params, int64_t n, int64_t k, const int32_t *cols, const floating *Y,
                  const floating *weight, const floating *target, const floating *diag, floating *x,
                  floating *work) noexcept nogil:
    cdef int64_t block = min(params.block, k), b, i, first
    cdef floating *s = work
    cdef int code
    rows_dot(n, k, cols, Y, x, s)
    for i in range(n):
        s[i] = target[i] - weight[i] * s[i]
    for b in range((k + block - 1) // block):
        first = b * block
        code = block_step(first, min(block, k - first), n, k, cols, Y, weight, diag, x, s, work + padded(n))
        if code != ALSCORE_OK:
            return code
    return ALSCORE_OK


cdef int solve_f32(const void *params, const als_row_f32 *row, void *work) noexcept nogil:
    return one_pass(<const Params *> params, row.n, row.k, row.cols, row.factors, row.weight, row.target, row.diag,
                    row.x, <float *> work)


cdef int solve_f64(const void *params, const als_row_f64 *row, void *work) noexcept nogil:
    return one_pass(<const Params *> params, row.n, row.k, row.cols, row.factors, row.weight, row.target, row.diag,
                    row.x, <double *> work)


cdef void release(object capsule) noexcept:
    free(PyCapsule_GetPointer(capsule, ALSCORE_SOLVER_CAPSULE))


def publish(int64_t block):
    """Capsule of the solver with blocks of this size."""
    cdef Published *published = <Published *> malloc(sizeof(Published))
    if published == NULL:
        raise MemoryError
    published.params = Params(block)
    published.solver = als_solver(ALSCORE_SOLVER_VERSION, ALSCORE_WARM_START, &published.params, workspace, solve_f32,
                                  solve_f64)
    return PyCapsule_New(published, ALSCORE_SOLVER_CAPSULE, release)
