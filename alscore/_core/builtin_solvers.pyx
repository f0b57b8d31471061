"""The built-in solvers, published as any third party's would be: one als_solver in a capsule.

Cholesky factorises one row's system; conjugate gradient multiplies by it. Three solvers (exact, CG, auto) are one
function that draws the line between the two at different rows; the fourth finds non-negative factors.

With E = diag and B = D^1/2 Y E^-1/2 (n x k), every system is the identity plus a product:
    primal    (I + B'B) w = E^-1/2 Y't,    x = E^-1/2 w
    dual      (I + B B') s = D^-1/2 t,     x = E^-1 Y' D^1/2 s        (n <= k and all of D positive)
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cython cimport floating
from libc.math cimport fabs, sqrt, sqrtf
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from alscore._core.kernel_table cimport (ALS_ADD, ALS_IDENTITY, ALS_SUBTRACT, als_ahead, cholesky, dot, gather_columns,
                               gather_rows, lanes, rank_update, rows_dot, rows_dot_wide, rows_sum, solve)
from alscore.solver cimport (ALSCORE_NONNEGATIVE, ALSCORE_NOT_POSITIVE_DEFINITE, ALSCORE_OK, ALSCORE_SOLVER_CAPSULE,
                             ALSCORE_SOLVER_VERSION, ALSCORE_WARM_START, als_row_f32, als_row_f64, als_solver)

cdef enum:
    # Up to so many factors a float32 row is solved in float64: it costs nothing there, and sums that cancel keep their
    # digits.
    NARROW = 4
    # Entries handled at a time where a row may be longer than the scratch memory. Not a power of two: the panels of a
    # chunk would all start in the same sets of the first-level cache.
    CHUNK = 120
    PADDING = 16      # the widest panel
    L1 = 24576        # bytes of factors that CG multiplies by twice while they are in the first-level cache
    # Bytes of the next row's factors that are asked from memory while this row is solved, and those of its own from
    # which on CG asks for them again in each pass: both for a second-level cache of 1 MB.
    NEXT = 262144
    FAR = 524288
    AHEAD = 8         # entries between the one that is multiplied and the one that is asked for
    # Rows of LONG k entries and more take no longer to solve exactly if there are at most FACTORS_A_PASS factors for
    # each pass of CG over them, of which there is one more than steps. Measured at 3 steps on the items of the full
    # Last.fm shape, exact against CG: k = 64 0.9 of the time, k = 96 the same, k = 128 1.15; below 64 assumed.
    LONG = 16
    FACTORS_A_PASS = 25

# The error of a float32 solution grows with the cancellation that its Cholesky factor reports: no more than 5e-6 times
# that, over k from 8 to 128, lengths from 2 to 20 k, alpha r up to 1e5, unobserved weights down to 1e-6 and factors of
# condition up to 100. From REFINE_ABOVE on the solution is refined, which squares its error; from WIDEN_ABOVE on, or
# where a squared pivot is so large that the refinement itself cancels, the row is solved in float64. From HOPELESS on
# nothing is left of float64 either.
cdef double REFINE_ABOVE = 4, WIDEN_ABOVE = 100, LARGE_PIVOT = 1e4, HOPELESS = 1e12

# Negative weights can make I + B'B singular. A squared pivot below this has lost too many digits of the weights to be
# told from 0.
cdef double SINGULAR_F32 = 1e-3, SINGULAR_F64 = 1e-10

# A coordinate at 0 stays there if its gradient is no less than minus this fraction of what its sum adds up: rounding.
cdef double GRADIENT_TOLERANCE = 1e-12


cdef struct Params:
    int64_t steps
    double tol
    bint prefer_exact   # for few factors, for rows of at most k entries, and for those without factors to start from


cdef struct Published:
    als_solver solver
    Params params


cdef inline int64_t padded(int64_t k) noexcept nogil:
    return (k + PADDING - 1) // PADDING * PADDING


cdef inline floating root(floating value) noexcept nogil:
    if floating is float:
        return sqrtf(value)   # not sqrt: vectors of float, not of double
    else:
        return sqrt(value)


cdef size_t workspace(const void *params, int64_t k, int64_t n_max, size_t real_size) noexcept nogil:
    """What `exact` lays out in float64, which is more than in float32 and than `conjugate_gradient` needs."""
    cdef size_t K = padded(k)
    return (K * K + 2 * max(K, CHUNK) * K + 4 * K + 3 * max(K, CHUNK)) * sizeof(double)


cdef void residual(bint wide, int64_t n, int64_t k, const int32_t *cols, const floating *Y, const floating *weight,
                   const floating *target, const floating *diag, const floating *x, floating *g,
                   als_ahead *ahead) noexcept nogil:
    """g = Y'(t - D Y x) - E x, with the products Y x summed in float64 where wide."""
    cdef floating s[CHUNK]
    cdef double s_wide[CHUNK]
    cdef int64_t i, j, block, start, count
    for j in range(k):
        g[j] = -diag[j] * x[j]
    for block in range((n + CHUNK - 1) // CHUNK):
        start = block * CHUNK
        count = min(n - start, CHUNK)
        if wide:
            rows_dot_wide(count, k, cols + start, Y, x, s_wide)
            for i in range(count):
                s[i] = <floating> (target[start + i] - weight[start + i] * s_wide[i])
        else:
            rows_dot(count, k, cols + start, Y, x, s, ahead)
            for i in range(count):
                s[i] = target[start + i] - weight[start + i] * s[i]
        rows_sum(count, k, cols + start, Y, s, g)


cdef void multiply(int64_t n, int64_t k, const int32_t *cols, const floating *Y, const floating *weight,
                   const floating *diag, const floating *p, floating *out, als_ahead *ahead) noexcept nogil:
    """out = (E + Y'DY) p"""
    cdef floating s[CHUNK]
    cdef int64_t i, j, block, start, count, chunk = max(8, min(CHUNK, L1 / (k * sizeof(floating))) // 4 * 4)
    for j in range(k):
        out[j] = diag[j] * p[j]
    for block in range((n + chunk - 1) // chunk):
        start = block * chunk
        count = min(n - start, chunk)
        rows_dot(count, k, cols + start, Y, p, s, ahead)
        for i in range(count):
            s[i] *= weight[start + i]
        rows_sum(count, k, cols + start, Y, s, out)


cdef inline als_ahead upcoming(const int32_t *cols, int64_t n, const floating *Y, int64_t k) noexcept nogil:
    return als_ahead(cols, max(n, 0), Y, k * sizeof(floating))


cdef inline int64_t most_of_next(int64_t n_next, int64_t k, const floating *Y) noexcept nogil:
    """How many of the next row's entries are asked for before its turn."""
    return min(n_next, NEXT // (k * sizeof(floating)))


cdef bint update(int start, int64_t n, int64_t k, const int32_t *cols, const floating *Y, const floating *weight,
                 const floating *e, floating *P, floating *d, floating *C, als_ahead *ahead) noexcept nogil:
    """C = I + B'B or C += B'B over the n <= CHUNK entries; returns whether one of them has negative weight."""
    cdef int32_t kept[CHUNK]
    cdef int64_t i, count
    cdef bint subtract, negative = False
    for i in range(n):
        negative = negative or weight[i] < 0
    for subtract in range(1 + negative):
        count = 0
        for i in range(n):
            if (weight[i] < 0) if subtract else (weight[i] > 0):
                kept[count] = cols[i]
                d[count] = root(<floating> fabs(weight[i]))
                count += 1
        if count > 0 or (start == ALS_IDENTITY and not subtract):
            gather_rows(count, k, kept, Y, d, e, P)
            rank_update(ALS_SUBTRACT if subtract else start, k, count, P, C, ahead)
    return negative


cdef void pivots(int64_t q, const floating *U, double *smallest, double *largest) noexcept nogil:
    """The smallest and the largest squared pivot."""
    cdef int64_t i, width = lanes(U), panel = (q + width - 1) // width * width * width
    cdef floating reciprocal, low = U[0], high = U[0]   # the factor's diagonal holds reciprocals
    for i in range(1, q):
        reciprocal = U[i // width * panel + i * width + i % width]
        low, high = min(low, reciprocal), max(high, reciprocal)
    smallest[0] = 1 / (<double> high * high)
    largest[0] = 1 / (<double> low * low)


cdef void refine(bint dual, int64_t n, int64_t k, const int32_t *cols, const floating *Y, const floating *weight,
                 const floating *target, const floating *diag, const floating *U, const floating *e,
                 const floating *d, floating *b, floating *g, floating *u, floating *x) noexcept nogil:
    """x += (E + Y'DY)^-1 g by the factor U at hand, with the residual g in float64; b, g and u are scratch."""
    cdef int64_t i, j
    cdef als_ahead nothing = als_ahead(NULL, 0, NULL, 0)
    residual(True, n, k, cols, Y, weight, target, diag, x, g, &nothing)
    if dual:   # = E^-1 (g - Y' D^1/2 (I + B B')^-1 D^1/2 Y E^-1 g)
        for j in range(k):
            u[j] = g[j] * e[j] * e[j]
        rows_dot(n, k, cols, Y, u, b, &nothing)
        for i in range(n):
            b[i] *= d[i]
        solve(n, U, b)
        for i in range(n):
            b[i] *= -d[i]
        rows_sum(n, k, cols, Y, b, g)
        for j in range(k):
            x[j] += g[j] * e[j] * e[j]
    else:
        for j in range(k):
            b[j] = g[j] * e[j]
        solve(k, U, b)
        for j in range(k):
            x[j] += b[j] * e[j]


cdef bint system_in_float64(int start, int64_t n, int64_t k, const int32_t *cols, const floating *Y,
                            const floating *weight, const floating *target, const double *e, double *C, double *b,
                            double *work) noexcept nogil:
    """C = I + B'B or C += B'B, and b = Y't; returns whether an entry has negative weight."""
    cdef int64_t K = padded(k), i, j, block, first, count
    cdef double *P = work
    cdef double *rows = P + CHUNK * K
    cdef double *d = rows + CHUNK * K
    cdef double *weights = d + CHUNK
    cdef double *targets = weights + CHUNK
    cdef int32_t own[CHUNK]
    cdef als_ahead nothing = als_ahead(NULL, 0, NULL, 0)
    cdef bint negative = False
    for i in range(CHUNK):
        own[i] = <int32_t> i
    memset(b, 0, K * sizeof(double))
    for block in range((n + CHUNK - 1) // CHUNK):
        first = block * CHUNK
        count = min(n - first, CHUNK)
        for i in range(count):
            weights[i] = weight[first + i]
            targets[i] = target[first + i]
            for j in range(k):
                rows[i * k + j] = Y[cols[first + i] * k + j]
        if update(ALS_ADD if block else start, count, k, own, rows, weights, e, P, d, C, &nothing):
            negative = True
        rows_sum(count, k, own, rows, targets, b)
    return negative


cdef int exact_in_float64(int64_t n, int64_t k, const int32_t *cols, const float *Y, const float *weight,
                          const float *target, const float *diag, float *x, double *work) noexcept nogil:
    """The k x k system of a float32 row, in float64."""
    cdef int64_t K = padded(k), j
    cdef double *C = work
    cdef double *e = C + K * K
    cdef double *b = e + K
    cdef double cancelled, smallest = 0, largest = 0
    cdef bint negative
    for j in range(K):
        e[j] = 1 / sqrt(diag[j]) if j < k else 0
    negative = system_in_float64(ALS_IDENTITY, n, k, cols, Y, weight, target, e, C, b, b + K)
    if cholesky(k, C, &cancelled) != 0 or cancelled > HOPELESS:
        return ALSCORE_NOT_POSITIVE_DEFINITE
    if negative:
        pivots(k, C, &smallest, &largest)
        if smallest < SINGULAR_F32:   # the weights are still float32
            return ALSCORE_NOT_POSITIVE_DEFINITE
    for j in range(k):
        b[j] *= e[j]
    solve(k, C, b)
    for j in range(k):
        x[j] = <float> (b[j] * e[j])
    return ALSCORE_OK


cdef int exact(int64_t n, int64_t k, const int32_t *cols, const floating *Y, const floating *weight,
               const floating *target, const floating *diag, floating *x, int64_t n_next, const int32_t *cols_next,
               floating *work) noexcept nogil:
    cdef int64_t K = padded(k), i, j, block, start, count, q
    cdef floating *C = work
    cdef floating *P = C + K * K
    cdef floating *e = P + max(K, CHUNK) * K
    cdef floating *b = e + K
    cdef floating *g = b + K
    cdef floating *u = g + K
    cdef floating *d = u + K
    cdef bint failed, negative = False, dual = n <= k
    cdef floating cancelled
    cdef double smallest = 0, largest = 0
    cdef als_ahead ahead

    if floating is float:
        if k <= NARROW:
            return exact_in_float64(n, k, cols, Y, weight, target, diag, x, <double *> work)
    for j in range(k):
        e[j] = 1 / root(diag[j])
    for j in range(k, K):
        e[j] = 0
    for i in range(n if dual else 0):
        dual = dual and weight[i] > 0
    q = n if dual else k

    memset(b, 0, K * sizeof(floating))
    if dual:
        for i in range(n):
            d[i] = root(weight[i])
            b[i] = target[i] / d[i]
        gather_columns(n, k, cols, Y, d, e, P)
        ahead = upcoming(cols_next, most_of_next(n_next, k, Y), Y, k)
        rank_update(ALS_IDENTITY, q, k, P, C, &ahead)
    else:
        for block in range((n + CHUNK - 1) // CHUNK):
            start = block * CHUNK
            count = min(n - start, CHUNK)
            if start + count < n:
                ahead = upcoming(cols + start + count, min(n - start - count, CHUNK), Y, k)
            else:
                ahead = upcoming(cols_next, min(n_next, CHUNK), Y, k)
            if update(ALS_ADD if block else ALS_IDENTITY, count, k, cols + start, Y, weight + start, e, P, d, C,
                      &ahead):
                negative = True
            # as in rank_update: the sum of a chunk first
            memset(g, 0, k * sizeof(floating))
            rows_sum(count, k, cols + start, Y, target + start, g)
            for j in range(k):
                b[j] += g[j]
        for j in range(k):
            b[j] *= e[j]
    failed = cholesky(q, C, &cancelled) != 0
    if negative or cancelled > REFINE_ABOVE:
        pivots(q, C, &smallest, &largest)
        if negative:   # what cancelled before the factorisation, against the identity
            cancelled = <floating> max(cancelled, 1 / smallest)
    if floating is float:
        if (failed or cancelled > WIDEN_ABOVE or (cancelled > REFINE_ABOVE and largest > LARGE_PIVOT)
                or (negative and smallest < SINGULAR_F32)):
            return exact_in_float64(n, k, cols, Y, weight, target, diag, x, <double *> work)
    elif failed or cancelled > HOPELESS or (negative and smallest < SINGULAR_F64):
        return ALSCORE_NOT_POSITIVE_DEFINITE

    solve(q, C, b)
    if dual:
        for i in range(n):
            b[i] *= d[i]
        memset(x, 0, k * sizeof(floating))
        rows_sum(n, k, cols, Y, b, x)
        for j in range(k):
            x[j] *= e[j] * e[j]
    else:
        for j in range(k):
            x[j] = b[j] * e[j]

    if floating is float:
        if cancelled > REFINE_ABOVE:
            refine(dual, n, k, cols, Y, weight, target, diag, C, e, d, b, g, u, x)
    return ALSCORE_OK


cdef int conjugate_gradient(int64_t steps, double tol, int64_t n, int64_t k, const int32_t *cols, const floating *Y,
                            const floating *weight, const floating *target, const floating *diag, floating *x,
                            int64_t n_next, const int32_t *cols_next, floating *work) noexcept nogil:
    """CG on (E + Y'DY) x = Y't from x, preconditioned by E, which makes it CG on I + B'B."""
    cdef int64_t K = padded(k), j, _
    cdef floating *r = work
    cdef floating *z = r + K
    cdef floating *p = z + K
    cdef floating *Ap = p + K
    cdef floating *inverse = Ap + K
    cdef double rz, rz_next, pAp, enough = 0
    cdef floating length, ratio
    cdef bint far = n * k * sizeof(floating) > FAR
    cdef int64_t there = AHEAD if far else most_of_next(n, k, Y)
    cdef als_ahead ahead

    for j in range(k):
        inverse[j] = 1 / diag[j]
    if tol > 0:
        memset(r, 0, k * sizeof(floating))
        rows_sum(n, k, cols, Y, target, r)
        for j in range(k):
            z[j] = r[j] * inverse[j]
        enough = tol * tol * dot(k, r, z)
    ahead = upcoming(cols + there, n - there, Y, k)
    residual(False, n, k, cols, Y, weight, target, diag, x, r, &ahead)
    for j in range(k):
        z[j] = r[j] * inverse[j]
        p[j] = z[j]
    rz = dot(k, r, z)
    ahead = upcoming(cols_next, most_of_next(n_next, k, Y), Y, k)
    for _ in range(steps):
        if rz <= enough:
            break
        if far:
            ahead = upcoming(cols + AHEAD, n - AHEAD, Y, k)
        multiply(n, k, cols, Y, weight, diag, p, Ap, &ahead)
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


cdef inline bint is_exact(const Params *params, int64_t n, int64_t k, const floating *x) noexcept nogil:
    cdef bint few_factors = k <= FACTORS_A_PASS * (params.steps + 1)
    return (params.steps == 0 or (params.prefer_exact and (few_factors or n <= k or dot(k, x, x) == 0))
            or (few_factors and n >= LONG * k))


cdef int solve_f32(const void *state, const als_row_f32 *row, void *work) noexcept nogil:
    cdef const Params *params = <const Params *> state
    if is_exact(params, row.n, row.k, row.x):
        return exact(row.n, row.k, row.cols, row.factors, row.weight, row.target, row.diag, row.x,
                     row.n_next, row.cols_next, <float *> work)
    return conjugate_gradient(params.steps, params.tol, row.n, row.k, row.cols, row.factors, row.weight, row.target,
                              row.diag, row.x, row.n_next, row.cols_next, <float *> work)


cdef int solve_f64(const void *state, const als_row_f64 *row, void *work) noexcept nogil:
    cdef const Params *params = <const Params *> state
    if is_exact(params, row.n, row.k, row.x):
        return exact(row.n, row.k, row.cols, row.factors, row.weight, row.target, row.diag, row.x,
                     row.n_next, row.cols_next, <double *> work)
    return conjugate_gradient(params.steps, params.tol, row.n, row.k, row.cols, row.factors, row.weight, row.target,
                              row.diag, row.x, row.n_next, row.cols_next, <double *> work)


cdef size_t nonnegative_workspace(const void *params, int64_t k, int64_t n_max, size_t real_size) noexcept nogil:
    """What `nonnegative` lays out up to C and `system_in_float64` from there on, which is more than the active set."""
    cdef size_t K = padded(k)
    return (2 * K * K + 3 * K + 2 * CHUNK * K + 3 * CHUNK) * sizeof(double)


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


cdef int nonnegative_minimum(int64_t k, const double *A, const double *b, double *x, double *work) noexcept nogil:
    """The minimum of x'Ax / 2 - b'x over x >= 0, starting from such an x, by an active set as Lawson and Hanson's.

    Newton steps over the passive coordinates, at first those above 0, lead to their minimum. Those that turn negative
    on the way stop at 0, passive no longer; where the objective does not fall so, the step is halved, at most until
    the first one stops. At the minimum all those with a negative gradient become passive, not only the most negative
    one. Some of them rise then, so the objective falls from minimum to minimum, and none comes twice.
    """
    cdef int64_t K = padded(k), i, j, q, _
    cdef double *C = work
    cdef double *root = C + K * K
    cdef double *y = root + K
    cdef double *x_next = y + K
    cdef double *y_next = x_next + K
    cdef double *step = y_next + K
    cdef double *packed = step + K
    cdef int64_t *passive = <int64_t *> (packed + K)
    cdef int64_t *kept = passive + K
    cdef double first, part, fall, size, cancelled = 0
    cdef bint stops, done

    for j in range(k):
        root[j] = sqrt(fabs(A[j * k + j]))
        passive[j] = x[j] > 0
    gradient(k, A, b, x, y)
    for _ in range(100 + 10 * k):   # more than any row took: rounding that undoes each step must not go on for ever
        q = 0
        memset(packed, 0, K * sizeof(double))
        for j in range(k):
            step[j] = 0
            if passive[j]:
                kept[q], packed[q] = j, -y[j]
                q += 1
        if q > 0:
            principal_submatrix(k, A, q, kept, C)
            if cholesky(q, C, &cancelled) != 0 or cancelled > HOPELESS:
                return ALSCORE_NOT_POSITIVE_DEFINITE
            solve(q, C, packed)
        for i in range(q):
            step[kept[i]] = packed[i]

        first = part = 1
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
        size = 0
        for j in range(k):
            x[j], y[j] = x_next[j], y_next[j]
            passive[j] = passive[j] and (x[j] > 0 or step[j] >= 0)
            size += root[j] * x[j]
        if first < 1:
            continue

        done = True
        for j in range(k):
            if not passive[j] and y[j] < -GRADIENT_TOLERANCE * (fabs(b[j]) + root[j] * size):
                passive[j], done = True, False
        if done:
            return ALSCORE_OK
    return ALSCORE_NOT_POSITIVE_DEFINITE


cdef int nonnegative(int64_t n, int64_t k, const int32_t *cols, const floating *Y, const floating *weight,
                     const floating *target, const floating *diag, const floating *gram, floating *x,
                     double *work) noexcept nogil:
    cdef int64_t K = padded(k), width = lanes(work), depth = (k + width - 1) // width * width, i, j
    cdef double *A = work
    cdef double *b = A + K * K
    cdef double *z = b + K
    cdef double *e = z + K
    cdef double *C = e + K
    cdef const double *column
    cdef int code

    for j in range(K):
        e[j] = 1 if j < k else 0
    memset(C, 0, K * K * sizeof(double))
    system_in_float64(ALS_ADD, n, k, cols, Y, weight, target, e, C, b, C + K * K)
    for j in range(k):
        column = C + j // width * depth * width + j % width
        for i in range(j + 1):
            A[j * k + i] = gram[j * k + i] + column[i * width]
        A[j * k + j] += diag[j]
        # where all factors are 0 the diagonal may be 0 too, and so is the solution
        z[j] = x[j] if x[j] > 0 and A[j * k + j] > 0 else 0
    code = nonnegative_minimum(k, A, b, z, C)
    if code == ALSCORE_OK:
        for j in range(k):
            x[j] = <floating> z[j]
    return code


cdef int nonnegative_f32(const void *params, const als_row_f32 *row, void *work) noexcept nogil:
    return nonnegative(row.n, row.k, row.cols, row.factors, row.weight, row.target, row.diag, row.gram, row.x,
                       <double *> work)


cdef int nonnegative_f64(const void *params, const als_row_f64 *row, void *work) noexcept nogil:
    return nonnegative(row.n, row.k, row.cols, row.factors, row.weight, row.target, row.diag, row.gram, row.x,
                       <double *> work)


cdef als_solver NONNEGATIVE = als_solver(ALSCORE_SOLVER_VERSION, ALSCORE_NONNEGATIVE | ALSCORE_WARM_START, NULL,
                                         nonnegative_workspace, nonnegative_f32, nonnegative_f64)


def publish_nonnegative():
    """Capsule of the solver of non-negative factors."""
    return PyCapsule_New(&NONNEGATIVE, ALSCORE_SOLVER_CAPSULE, NULL)


cdef void release(object capsule) noexcept:
    free(PyCapsule_GetPointer(capsule, ALSCORE_SOLVER_CAPSULE))


def publish(int64_t steps, double tol, bint prefer_exact):
    """Capsule of the solver that takes CG steps, 0 for none, on the rows that `is_exact` leaves."""
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
