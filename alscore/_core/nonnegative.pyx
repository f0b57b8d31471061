"""The built-in solver of non-negative factors, in the original basis and in float64: one als_solver in a capsule.

With A = A0 + E + Y'DY and b = Y't, a row minimises x'Ax / 2 - b'x over x >= 0, by an active set as that of Lawson and
Hanson (1974). A coordinate is passive where x may differ from 0.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport fabs, sqrt
from libc.stdint cimport int64_t
from libc.string cimport memset

from alscore._core.kernel_table cimport ALS_ADD, cholesky, dot, lanes, solve
from alscore._core.systems cimport hopeless, padded, system_in_float64, system_layout
from alscore.solver cimport (ALSCORE_NONNEGATIVE, ALSCORE_NOT_POSITIVE_DEFINITE, ALSCORE_OK, ALSCORE_SOLVER_CAPSULE,
                             ALSCORE_SOLVER_VERSION, ALSCORE_WARM_START, als_row, als_row_f32, als_row_f64, als_solver)

# A coordinate at 0 stays there if its gradient is at least minus this fraction of the sum of its terms' sizes: a
# gradient nearer to 0 is rounding.
cdef double GRADIENT_TOLERANCE = 1e-12


cdef struct Layout:
    # Where the arrays begin in the scratch memory, in numbers of 8 bytes. C, and what follows it, serves twice: while
    # A is summed, then while the minimum is looked for.
    size_t A         # k x k, row-major; only the lower triangle
    size_t b
    size_t x
    size_t ones      # scale of the factors in Y'DY, padded with zeros
    size_t C         # Y'DY in panels; then A[passive][:, passive] and its Cholesky factor
    size_t system    # scratch memory of system_in_float64
    size_t root      # square roots of A's diagonal
    size_t y         # the gradient A x - b
    size_t x_next
    size_t y_next
    size_t step      # the Newton step; 0 where a coordinate is not passive
    size_t packed    # the Newton step of the passive coordinates, padded with zeros
    size_t passive   # int64: whether a coordinate is passive
    size_t kept      # int64: the passive coordinates
    size_t size


cdef inline Layout layout(int64_t k) noexcept nogil:
    cdef Layout at
    cdef size_t K = padded(k), after_C
    at.A = 0
    at.b = at.A + K * K
    at.x = at.b + K
    at.ones = at.x + K
    at.C = at.ones + K
    after_C = at.C + K * K
    at.system = after_C
    at.root = after_C
    at.y = at.root + K
    at.x_next = at.y + K
    at.y_next = at.x_next + K
    at.step = at.y_next + K
    at.packed = at.step + K
    at.passive = at.packed + K
    at.kept = at.passive + K
    at.size = max(at.system + system_layout(k).size, at.kept + K)
    return at


cdef void principal_submatrix(int64_t k, const double *A, int64_t q, const int64_t *kept, double *C) noexcept nogil:
    """C = A[kept][:, kept] in panels, from the lower triangle of A"""
    cdef int64_t width = lanes(C), depth = (q + width - 1) // width * width, i, j
    cdef const double *row
    cdef double *column
    memset(C, 0, depth * depth * sizeof(double))
    for j in range(depth):
        column = C + j // width * depth * width + j % width
        if j >= q:
            column[j * width] = 1
            continue
        row = A + kept[j] * k
        for i in range(j + 1):
            column[i * width] = row[kept[i]]


cdef void gradient(int64_t k, const double *A, const double *b, const double *x, double *y) noexcept nogil:
    """y = A x - b, from the lower triangle of A"""
    cdef int64_t i, j
    for j in range(k):
        y[j] = dot(j + 1, A + j * k, x) - b[j]
        for i in range(j if x[j] != 0 else 0):
            y[i] += A[j * k + i] * x[j]


cdef int newton_step(int64_t k, const Layout *at, double *work) noexcept nogil:
    """step = from x to the minimum over the passive coordinates, without their bound at 0"""
    cdef const double *y = work + at.y
    cdef const int64_t *passive = <const int64_t *> (work + at.passive)
    cdef int64_t *kept = <int64_t *> (work + at.kept)
    cdef double *C = work + at.C
    cdef double *packed = work + at.packed
    cdef double *step = work + at.step
    cdef int64_t j, i, q = 0
    cdef double cancelled = 0
    memset(packed, 0, padded(k) * sizeof(double))
    for j in range(k):
        step[j] = 0
        if passive[j]:
            kept[q], packed[q] = j, -y[j]
            q += 1
    if q == 0:
        return ALSCORE_OK
    principal_submatrix(k, work + at.A, q, kept, C)
    if cholesky(q, C, &cancelled) != 0 or hopeless(cancelled):
        return ALSCORE_NOT_POSITIVE_DEFINITE
    solve(q, C, packed)
    for i in range(q):
        step[kept[i]] = packed[i]
    return ALSCORE_OK


cdef bint move(int64_t k, const Layout *at, double *work) noexcept nogil:
    """Follow the step as far as the objective falls. Returns whether a coordinate would turn negative before its end.

    Coordinates that would turn negative stop at 0 and are no longer passive. Where the objective does not fall so, the
    step is halved, at most until only the first of them stops.
    """
    cdef const double *A = work + at.A
    cdef const double *b = work + at.b
    cdef const double *step = work + at.step
    cdef double *x = work + at.x
    cdef double *y = work + at.y
    cdef double *x_next = work + at.x_next
    cdef double *y_next = work + at.y_next
    cdef int64_t *passive = <int64_t *> (work + at.passive)
    cdef double first = 1, part = 1, fall   # parts of the step: to the first stop, and the one that is tried
    cdef int64_t j
    cdef bint stops
    for j in range(k):
        if step[j] < 0:
            first = min(first, x[j] / -step[j])
    while True:
        fall = 0
        for j in range(k):
            stops = step[j] < 0 and x[j] / -step[j] <= part
            x_next[j] = 0 if stops else max(x[j] + part * step[j], 0)
        gradient(k, A, b, x_next, y_next)
        for j in range(k):
            fall -= (x_next[j] - x[j]) * (y[j] + y_next[j])
        if fall > 0 or part <= first:
            break
        part = part / 2 if part > max(2 * first, 1e-3) else first
    for j in range(k):
        x[j], y[j] = x_next[j], y_next[j]
        passive[j] = passive[j] and (x[j] > 0 or step[j] >= 0)
    return first < 1


cdef bint release_negative(int64_t k, const Layout *at, double *work) noexcept nogil:
    """Make every coordinate with a negative gradient passive; returns whether there is one."""
    cdef const double *b = work + at.b
    cdef const double *x = work + at.x
    cdef const double *y = work + at.y
    cdef const double *root = work + at.root
    cdef int64_t *passive = <int64_t *> (work + at.passive)
    cdef double size = 0
    cdef int64_t j
    cdef bint released = False
    for j in range(k):
        size += root[j] * x[j]
    for j in range(k):
        if not passive[j] and y[j] < -GRADIENT_TOLERANCE * (fabs(b[j]) + root[j] * size):
            passive[j], released = True, True
    return released


cdef int minimise(int64_t k, const Layout *at, double *work) noexcept nogil:
    """The minimum over x >= 0, from an x >= 0.

    Newton steps over the passive coordinates, at first those above 0, lead to the minimum over them. There all those
    with a negative gradient become passive, not only the most negative one. One of them at least rises then, so the
    objective falls from minimum to minimum, and no set of passive coordinates comes twice.
    """
    cdef const double *A = work + at.A
    cdef const double *x = work + at.x
    cdef double *root = work + at.root
    cdef int64_t *passive = <int64_t *> (work + at.passive)
    cdef int64_t j, _
    for j in range(k):
        root[j] = sqrt(fabs(A[j * k + j]))
        passive[j] = x[j] > 0
    gradient(k, A, work + at.b, x, work + at.y)
    for _ in range(100 + 10 * k):   # more than any row took: rounding that undoes each step must not go on for ever
        if newton_step(k, at, work) != ALSCORE_OK:
            return ALSCORE_NOT_POSITIVE_DEFINITE
        if not move(k, at, work) and not release_negative(k, at, work):
            return ALSCORE_OK
    return ALSCORE_NOT_POSITIVE_DEFINITE


cdef int solve_row(const als_row *row, double *work) noexcept nogil:
    cdef Layout at = layout(row.k)
    cdef double *A = work + at.A
    cdef double *b = work + at.b
    cdef double *x = work + at.x
    cdef double *ones = work + at.ones
    cdef double *C = work + at.C
    cdef const double *column
    cdef int64_t k = row.k, width = lanes(C), depth = (k + width - 1) // width * width, i, j
    cdef int code

    for j in range(padded(k)):
        ones[j] = 1 if j < k else 0
    memset(C, 0, padded(k) * padded(k) * sizeof(double))
    system_in_float64(ALS_ADD, row, ones, C, b, work + at.system)
    for j in range(k):
        column = C + j // width * depth * width + j % width
        for i in range(j + 1):
            A[j * k + i] = row.gram[j * k + i] + column[i * width]
        A[j * k + j] += row.diag[j]
        # where all factors are 0 the diagonal may be 0 too, and so is the solution
        x[j] = row.x[j] if row.x[j] > 0 and A[j * k + j] > 0 else 0
    code = minimise(k, &at, work)
    if code == ALSCORE_OK:
        for j in range(k):
            row.x[j] = x[j]
    return code


cdef size_t workspace(const void *params, int64_t k, int64_t n_max, size_t real_size) noexcept nogil:
    return layout(k).size * sizeof(double)


cdef int solve_f32(const void *params, const als_row_f32 *row, void *work) noexcept nogil:
    return solve_row(row, <double *> work)


cdef int solve_f64(const void *params, const als_row_f64 *row, void *work) noexcept nogil:
    return solve_row(row, <double *> work)


cdef als_solver NONNEGATIVE = als_solver(ALSCORE_SOLVER_VERSION, ALSCORE_NONNEGATIVE | ALSCORE_WARM_START, NULL,
                                         workspace, solve_f32, solve_f64)


def publish():
    """Capsule of the solver of non-negative factors."""
    return PyCapsule_New(&NONNEGATIVE, ALSCORE_SOLVER_CAPSULE, NULL)
