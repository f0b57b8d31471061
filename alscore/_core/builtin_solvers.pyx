"""The built-in solvers without constraints, published as any third party's: one als_solver in a capsule.

Cholesky factorises a row's system; conjugate gradient (CG) multiplies by it. Cholesky, CG and Auto are one solver that
chooses between the two row by row (`is_exact`).

With E = diag and B = D^1/2 Y E^-1/2 (n x k), every system is the identity plus a product:
    primal    (I + B'B) w = E^-1/2 Y't,    x = E^-1/2 w
    dual      (I + B B') s = D^-1/2 t,     x = E^-1 Y' D^1/2 s        (n <= k and all of D positive)
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cython cimport floating
from libc.math cimport sqrt
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from alscore._core.kernel_table cimport (ALS_ADD, ALS_IDENTITY, als_ahead, cholesky, dot, gather_columns, lanes,
                                         rank_update, rows_dot, rows_dot_wide, rows_sum, solve)
from alscore._core.systems cimport (CHUNK_ENTRIES, add_products, hopeless, padded, part_of, root, system_in_float64,
                                    system_layout)
from alscore.solver cimport (ALSCORE_NOT_POSITIVE_DEFINITE, ALSCORE_OK, ALSCORE_SOLVER_CAPSULE, ALSCORE_SOLVER_VERSION,
                             ALSCORE_WARM_START, als_row, als_row_f32, als_row_f64, als_solver)

cdef enum:
    # A float32 row of at most so many factors is solved in float64. It takes no longer there, and sums that cancel
    # keep their digits.
    FLOAT64_FACTORS = 4
    # Bytes of factors that CG multiplies by twice while they are in the first-level cache.
    CHUNK_BYTES = 24576
    # Bytes of the next row's factors to prefetch while this row is solved. For a second-level cache of 1 MB.
    NEXT_ROW_BYTES = 262144
    # From so many bytes of factors on, CG prefetches a row's own factors again in each pass over them. For a
    # second-level cache of 1 MB.
    UNCACHED_ROW_BYTES = 524288
    # Entries between the one that such a pass multiplies and the one that it prefetches.
    PREFETCH_ENTRIES = 8
    # CG with s steps passes over a row s + 1 times. A row of at least LONG_ROW_ENTRIES k entries is solved exactly if
    # k is at most FACTORS_PER_PASS (s + 1), because CG saves no time there. Measured at 3 steps on the items of the
    # full Last.fm shape, time of exact / time of CG: 0.9 at k = 64, 1 at k = 96, 1.15 at k = 128. Below k = 64 the
    # same is assumed.
    LONG_ROW_ENTRIES = 16
    FACTORS_PER_PASS = 25

# The error of a float32 solution grows with the cancellation that its Cholesky factor reports. It is at most 5e-6 times
# the cancellation for k from 8 to 128, 2 to 20 k entries, alpha r up to 1e5, unobserved weights down to 1e-6 and
# factors of condition up to 100. From REFINE_ABOVE on the solution is refined, which squares its error. From
# WIDEN_ABOVE on the row is solved in float64, and also where a squared pivot above LARGE_PIVOT would make the
# refinement itself cancel.
cdef double REFINE_ABOVE = 4, WIDEN_ABOVE = 100, LARGE_PIVOT = 1e4

# Negative weights can make I + B'B singular. A squared pivot below this has lost so many digits of the weights that it
# may as well be 0.
cdef double SINGULAR_F32 = 1e-3, SINGULAR_F64 = 1e-10


cdef struct Params:
    int64_t steps       # of CG; 0 solves every row exactly
    double tol
    bint prefer_exact   # for few factors, for rows of at most k entries, and for rows that start from zeros


cdef struct Published:
    als_solver solver
    Params params


cdef inline als_ahead own_entries(const als_row *row, int64_t first, int64_t most) noexcept nogil:
    """At most `most` entries of the row from entry `first` on, to prefetch."""
    return als_ahead(row.cols + first, max(min(row.n - first, most), 0), row.factors, row.k * sizeof(row.factors[0]))


cdef inline als_ahead next_entries(const als_row *row, int64_t most) noexcept nogil:
    """The first entries of the next row, at most `most`, to prefetch."""
    return als_ahead(row.cols_next, min(row.n_next, most), row.factors, row.k * sizeof(row.factors[0]))


cdef inline int64_t entries_of_next(const als_row *row) noexcept nogil:
    """How many entries of a row are prefetched before its turn, at most."""
    return NEXT_ROW_BYTES // (row.k * sizeof(row.factors[0]))


cdef void residual(bint wide, const als_row *row, floating *g, als_ahead *ahead) noexcept nogil:
    """g = Y'(t - D Y x) - E x, with the products Y x summed in float64 where wide."""
    cdef const floating *Y = <const floating *> row.factors
    cdef const floating *x = <const floating *> row.x
    cdef floating s[CHUNK_ENTRIES]
    cdef double s_wide[CHUNK_ENTRIES]
    cdef int64_t k = row.k, i, j, chunk, start, count
    for j in range(k):
        g[j] = -row.diag[j] * x[j]
    for chunk in range((row.n + CHUNK_ENTRIES - 1) // CHUNK_ENTRIES):
        start = chunk * CHUNK_ENTRIES
        count = min(row.n - start, CHUNK_ENTRIES)
        if wide:
            rows_dot_wide(count, k, row.cols + start, Y, x, s_wide)
            for i in range(count):
                s[i] = <floating> (row.target[start + i] - row.weight[start + i] * s_wide[i])
        else:
            rows_dot(count, k, row.cols + start, Y, x, s, ahead)
            for i in range(count):
                s[i] = row.target[start + i] - row.weight[start + i] * s[i]
        rows_sum(count, k, row.cols + start, Y, s, g)


cdef void multiply(const als_row *row, const floating *p, floating *out, als_ahead *ahead) noexcept nogil:
    """out = (E + Y'DY) p"""
    cdef const floating *Y = <const floating *> row.factors
    cdef floating s[CHUNK_ENTRIES]
    cdef int64_t k = row.k, i, j, chunk, start, count
    # entries of a chunk: both products read its factors, so they should fit CHUNK_BYTES; a multiple of 4, at least 8
    cdef int64_t size = max(8, min(CHUNK_ENTRIES, CHUNK_BYTES / (k * sizeof(floating))) // 4 * 4)
    for j in range(k):
        out[j] = row.diag[j] * p[j]
    for chunk in range((row.n + size - 1) // size):
        start = chunk * size
        count = min(row.n - start, size)
        rows_dot(count, k, row.cols + start, Y, p, s, ahead)
        for i in range(count):
            s[i] *= row.weight[start + i]
        rows_sum(count, k, row.cols + start, Y, s, out)


cdef void pivots(int64_t q, const floating *U, double *smallest, double *largest) noexcept nogil:
    """The smallest and the largest squared pivot."""
    cdef int64_t i, width = lanes(U), panel = (q + width - 1) // width * width * width
    cdef floating reciprocal, low = U[0], high = U[0]   # the factor's diagonal holds reciprocals
    for i in range(1, q):
        reciprocal = U[i // width * panel + i * width + i % width]
        low, high = min(low, reciprocal), max(high, reciprocal)
    smallest[0] = 1 / (<double> high * high)
    largest[0] = 1 / (<double> low * low)


cdef struct WideLayout:
    # Where the arrays of `exact_in_float64` begin in its scratch memory, in numbers of float64.
    size_t C       # the system, then its Cholesky factor
    size_t e       # E^-1/2, padded with zeros
    size_t b       # the right-hand side, then w
    size_t system  # scratch memory of system_in_float64
    size_t size


cdef inline WideLayout wide_layout(int64_t k) noexcept nogil:
    cdef WideLayout at
    cdef size_t K = padded(k)
    at.C = 0
    at.e = at.C + K * K
    at.b = at.e + K
    at.system = at.b + K
    at.size = at.system + system_layout(k).size
    return at


cdef int exact_in_float64(const als_row_f32 *row, double *work) noexcept nogil:
    """Solve the primal system of a float32 row in float64."""
    cdef WideLayout at = wide_layout(row.k)
    cdef double *C = work + at.C
    cdef double *e = work + at.e
    cdef double *b = work + at.b
    cdef int64_t k = row.k, j
    cdef double cancelled, smallest = 0, largest = 0
    cdef bint negative
    for j in range(padded(k)):
        e[j] = 1 / sqrt(row.diag[j]) if j < k else 0
    negative = system_in_float64(ALS_IDENTITY, row, e, C, b, work + at.system)
    if cholesky(k, C, &cancelled) != 0 or hopeless(cancelled):
        return ALSCORE_NOT_POSITIVE_DEFINITE
    if negative:
        pivots(k, C, &smallest, &largest)
        if smallest < SINGULAR_F32:   # the weights are still float32
            return ALSCORE_NOT_POSITIVE_DEFINITE
    for j in range(k):
        b[j] *= e[j]
    solve(k, C, b)
    for j in range(k):
        row.x[j] = <float> (b[j] * e[j])
    return ALSCORE_OK


cdef struct ExactLayout:
    # Where the arrays of `exact` begin in its scratch memory, in numbers of the row's precision.
    size_t C   # the system, then its Cholesky factor
    size_t P   # B' in panels: of a chunk (primal), or of all n <= k entries (dual)
    size_t e   # E^-1/2, padded with zeros
    size_t b   # the right-hand side, then w or s
    size_t g   # a chunk's part of Y't; the residual
    size_t u   # a vector of the refinement
    size_t d   # D^1/2 of the entries in P
    size_t size


cdef inline ExactLayout exact_layout(int64_t k) noexcept nogil:
    cdef ExactLayout at
    cdef size_t K = padded(k), entries = max(padded(k), CHUNK_ENTRIES)
    at.C = 0
    at.P = at.C + K * K
    at.e = at.P + entries * K
    at.b = at.e + K
    at.g = at.b + K
    at.u = at.g + K
    at.d = at.u + K
    at.size = at.d + entries
    return at


cdef inline bint is_dual(const als_row *row) noexcept nogil:
    cdef int64_t i
    if row.n > row.k:
        return False
    for i in range(row.n):
        if not row.weight[i] > 0:
            return False
    return True


cdef void dual_system(const als_row *row, const ExactLayout *at, floating *work) noexcept nogil:
    """C = I + B B', b = D^-1/2 t, d = D^1/2"""
    cdef floating *P = work + at.P
    cdef floating *b = work + at.b
    cdef floating *d = work + at.d
    cdef als_ahead ahead = next_entries(row, entries_of_next(row))
    cdef int64_t i
    for i in range(row.n):
        d[i] = root(<floating> row.weight[i])
        b[i] = row.target[i] / d[i]
    gather_columns(row.n, row.k, row.cols, <const floating *> row.factors, d, work + at.e, P)
    rank_update(ALS_IDENTITY, row.n, row.k, P, work + at.C, &ahead)


cdef bint primal_system(const als_row *row, const ExactLayout *at, floating *work) noexcept nogil:
    """C = I + B'B, b = E^-1/2 Y't; returns whether an entry has negative weight."""
    cdef const floating *Y = <const floating *> row.factors
    cdef floating *e = work + at.e
    cdef floating *b = work + at.b
    cdef floating *g = work + at.g
    cdef int64_t k = row.k, j, chunk, start, end
    cdef als_row part
    cdef als_ahead ahead
    cdef bint negative = False
    for chunk in range((row.n + CHUNK_ENTRIES - 1) // CHUNK_ENTRIES):
        start = chunk * CHUNK_ENTRIES
        end = min(start + CHUNK_ENTRIES, row.n)
        part = part_of(row, start, end - start)
        ahead = own_entries(row, end, CHUNK_ENTRIES) if end < row.n else next_entries(row, CHUNK_ENTRIES)
        if add_products(ALS_ADD if chunk else ALS_IDENTITY, &part, e, work + at.P, work + at.d, work + at.C, &ahead):
            negative = True
        # a chunk's sum is complete before it is added, as in rank_update: long sums round less
        memset(g, 0, k * sizeof(floating))
        rows_sum(part.n, k, part.cols, Y, <const floating *> part.target, g)
        for j in range(k):
            b[j] += g[j]
    for j in range(k):
        b[j] *= e[j]
    return negative


cdef void refine(bint dual, const als_row *row, const ExactLayout *at, floating *work) noexcept nogil:
    """x += (E + Y'DY)^-1 g by the Cholesky factor at hand, with the residual g in float64."""
    cdef const floating *Y = <const floating *> row.factors
    cdef const floating *U = work + at.C
    cdef const floating *e = work + at.e
    cdef const floating *d = work + at.d
    cdef floating *b = work + at.b
    cdef floating *g = work + at.g
    cdef floating *u = work + at.u
    cdef int64_t n = row.n, k = row.k, i, j
    cdef als_ahead nothing = als_ahead(NULL, 0, NULL, 0)
    residual(True, row, g, &nothing)
    if dual:   # = E^-1 (g - Y' D^1/2 (I + B B')^-1 D^1/2 Y E^-1 g)
        for j in range(k):
            u[j] = g[j] * e[j] * e[j]
        rows_dot(n, k, row.cols, Y, u, b, &nothing)
        for i in range(n):
            b[i] *= d[i]
        solve(n, U, b)
        for i in range(n):
            b[i] *= -d[i]
        rows_sum(n, k, row.cols, Y, b, g)
        for j in range(k):
            row.x[j] += g[j] * e[j] * e[j]
    else:
        for j in range(k):
            b[j] = g[j] * e[j]
        solve(k, U, b)
        for j in range(k):
            row.x[j] += b[j] * e[j]


cdef inline int exact(const als_row *row, floating *work) noexcept nogil:
    """Solve the row by Cholesky: its dual system where n <= k and all weights are positive, else its primal one."""
    cdef ExactLayout at = exact_layout(row.k)
    cdef floating *C = work + at.C
    cdef floating *e = work + at.e
    cdef floating *b = work + at.b
    cdef floating *d = work + at.d
    cdef floating *x = <floating *> row.x
    cdef int64_t n = row.n, k = row.k, i, j, q
    cdef bint dual, failed, negative = False
    cdef floating cancelled
    cdef double smallest = 0, largest = 0

    if als_row is als_row_f32:
        if k <= FLOAT64_FACTORS:
            return exact_in_float64(row, <double *> work)
    for j in range(k):
        e[j] = 1 / root(<floating> row.diag[j])
    for j in range(k, padded(k)):
        e[j] = 0
    memset(b, 0, padded(k) * sizeof(floating))
    dual = is_dual(row)
    q = n if dual else k
    if dual:
        dual_system(row, &at, work)
    else:
        negative = primal_system(row, &at, work)

    failed = cholesky(q, C, &cancelled) != 0
    if negative or cancelled > REFINE_ABOVE:
        pivots(q, C, &smallest, &largest)
        if negative:   # what cancelled before the factorisation, against the identity
            cancelled = <floating> max(cancelled, 1 / smallest)
    if als_row is als_row_f32:
        if (failed or cancelled > WIDEN_ABOVE or (cancelled > REFINE_ABOVE and largest > LARGE_PIVOT)
                or (negative and smallest < SINGULAR_F32)):
            return exact_in_float64(row, <double *> work)
    elif failed or hopeless(cancelled) or (negative and smallest < SINGULAR_F64):
        return ALSCORE_NOT_POSITIVE_DEFINITE

    solve(q, C, b)
    if dual:
        for i in range(n):
            b[i] *= d[i]
        memset(x, 0, k * sizeof(floating))
        rows_sum(n, k, row.cols, <const floating *> row.factors, b, x)
        for j in range(k):
            x[j] *= e[j] * e[j]
    else:
        for j in range(k):
            x[j] = b[j] * e[j]

    if als_row is als_row_f32:
        if cancelled > REFINE_ABOVE:
            refine(dual, row, &at, work)
    return ALSCORE_OK


cdef struct CGLayout:
    # Where the arrays of `conjugate_gradient` begin in its scratch memory, in numbers of the row's precision.
    size_t r        # the residual
    size_t z        # the preconditioned residual
    size_t p        # the direction
    size_t Ap
    size_t inverse  # of E
    size_t size


cdef inline CGLayout cg_layout(int64_t k) noexcept nogil:
    cdef CGLayout at
    cdef size_t K = padded(k)
    at.r = 0
    at.z = at.r + K
    at.p = at.z + K
    at.Ap = at.p + K
    at.inverse = at.Ap + K
    at.size = at.inverse + K
    return at


cdef inline int conjugate_gradient(const Params *params, const als_row *row, floating *work) noexcept nogil:
    """CG on (E + Y'DY) x = Y't from x, preconditioned by E, which makes it CG on I + B'B."""
    cdef CGLayout at = cg_layout(row.k)
    cdef floating *r = work + at.r
    cdef floating *z = work + at.z
    cdef floating *p = work + at.p
    cdef floating *Ap = work + at.Ap
    cdef floating *inverse = work + at.inverse
    cdef floating *x = <floating *> row.x
    cdef int64_t n = row.n, k = row.k, j, _
    cdef double rz, rz_next, pAp, enough = 0
    cdef floating length, ratio
    cdef bint uncached = n * k * sizeof(floating) > UNCACHED_ROW_BYTES
    cdef als_ahead ahead

    for j in range(k):
        inverse[j] = 1 / row.diag[j]
    if params.tol > 0:
        memset(r, 0, k * sizeof(floating))
        rows_sum(n, k, row.cols, <const floating *> row.factors, <const floating *> row.target, r)
        for j in range(k):
            z[j] = r[j] * inverse[j]
        enough = params.tol * params.tol * dot(k, r, z)
    # the first entries of a short row were prefetched while the row before it was solved
    ahead = own_entries(row, PREFETCH_ENTRIES if uncached else min(n, entries_of_next(row)), n)
    residual(False, row, r, &ahead)
    for j in range(k):
        z[j] = r[j] * inverse[j]
        p[j] = z[j]
    rz = dot(k, r, z)
    ahead = next_entries(row, entries_of_next(row))
    for _ in range(params.steps):
        if rz <= enough:
            break
        if uncached:
            ahead = own_entries(row, PREFETCH_ENTRIES, n)
        multiply(row, p, Ap, &ahead)
        pAp = dot(k, p, Ap)
        if pAp <= 0:
            # products of a residual this small underflow: the row is solved
            return ALSCORE_OK if rz < 1e-30 else ALSCORE_NOT_POSITIVE_DEFINITE
        length = <floating> (rz / pAp)
        for j in range(k):
            x[j] += length * p[j]
            r[j] -= length * Ap[j]
            z[j] = r[j] * inverse[j]
        rz_next = dot(k, r, z)
        ratio = <floating> (rz_next / rz)
        for j in range(k):
            p[j] = z[j] + ratio * p[j]
        rz = rz_next
    return ALSCORE_OK


cdef inline bint is_exact(const Params *params, const als_row *row) noexcept nogil:
    """Whether the row is solved exactly, not by steps of CG."""
    cdef bint cheap_exact = row.k <= FACTORS_PER_PASS * (params.steps + 1)
    return (params.steps == 0
            or (params.prefer_exact and (cheap_exact or row.n <= row.k or dot(row.k, row.x, row.x) == 0))
            or (cheap_exact and row.n >= LONG_ROW_ENTRIES * row.k))


cdef inline int solve_row(const Params *params, const als_row *row, floating *work) noexcept nogil:
    return exact(row, work) if is_exact(params, row) else conjugate_gradient(params, row, work)


cdef int solve_f32(const void *params, const als_row_f32 *row, void *work) noexcept nogil:
    return solve_row(<const Params *> params, row, <float *> work)


cdef int solve_f64(const void *params, const als_row_f64 *row, void *work) noexcept nogil:
    return solve_row(<const Params *> params, row, <double *> work)


cdef size_t workspace(const void *params, int64_t k, int64_t n_max, size_t real_size) noexcept nogil:
    """Bytes of scratch memory in which a row can be solved in each of the ways above."""
    cdef size_t size = max(exact_layout(k).size, cg_layout(k).size) * real_size
    if real_size == sizeof(float):
        size = max(size, wide_layout(k).size * sizeof(double))
    return size


cdef void release(object capsule) noexcept:
    free(PyCapsule_GetPointer(capsule, ALSCORE_SOLVER_CAPSULE))


def publish(int64_t steps, double tol, bint prefer_exact):
    """Capsule of the solver with these `Params`."""
    cdef Published *published = <Published *> malloc(sizeof(Published))
    if published == NULL:
        raise MemoryError
    published.params = Params(steps, tol, prefer_exact)
    published.solver = als_solver(
        ALSCORE_SOLVER_VERSION,
        ALSCORE_WARM_START if steps > 0 else 0,
        &published.params,
        workspace,
        solve_f32,
        solve_f64,
    )
    return PyCapsule_New(published, ALSCORE_SOLVER_CAPSULE, release)
