"""The kernel table of src_c/kernels.h as functions; each docstring is the formula."""

from cython cimport floating

from libc.stdint cimport int32_t


cdef extern from "kernels.h" nogil:
    ctypedef struct als_ahead:
        const int32_t *cols
        ptrdiff_t n
        const void *Y
        ptrdiff_t row_bytes

    enum:
        ALS_IDENTITY
        ALS_ADD
        ALS_SUBTRACT

    ctypedef struct als_kernels_f32:
        ptrdiff_t lanes
        void (*gather_rows)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const float *Y,
                            const float *d, const float *e, float *P) noexcept nogil
        void (*gather_columns)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const float *Y,
                               const float *d, const float *e, float *P) noexcept nogil
        void (*rank_update)(int start, ptrdiff_t q, ptrdiff_t depth, const float *P, float *C,
                            als_ahead *ahead) noexcept nogil
        ptrdiff_t (*cholesky)(ptrdiff_t q, float *C, float *cancelled) noexcept nogil
        void (*solve)(ptrdiff_t q, const float *U, float *b) noexcept nogil
        void (*rows_dot)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const float *Y,
                         const float *x, float *out, als_ahead *ahead) noexcept nogil
        void (*rows_dot_wide)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const float *Y,
                              const float *x, double *out) noexcept nogil
        void (*rows_sum)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const float *Y,
                         const float *s, float *out) noexcept nogil
        float (*dot)(ptrdiff_t k, const float *a, const float *b) noexcept nogil
        ptrdiff_t (*reach)(ptrdiff_t rows, ptrdiff_t k, const float *Q, const float *P, const float *least,
                           int32_t *place, float *product) noexcept nogil
        ptrdiff_t group

    ctypedef struct als_kernels_f64:
        ptrdiff_t lanes
        void (*gather_rows)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const double *Y,
                            const double *d, const double *e, double *P) noexcept nogil
        void (*gather_columns)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const double *Y,
                               const double *d, const double *e, double *P) noexcept nogil
        void (*rank_update)(int start, ptrdiff_t q, ptrdiff_t depth, const double *P, double *C,
                            als_ahead *ahead) noexcept nogil
        ptrdiff_t (*cholesky)(ptrdiff_t q, double *C, double *cancelled) noexcept nogil
        void (*solve)(ptrdiff_t q, const double *U, double *b) noexcept nogil
        void (*rows_dot)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const double *Y,
                         const double *x, double *out, als_ahead *ahead) noexcept nogil
        void (*rows_dot_wide)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const double *Y,
                              const double *x, double *out) noexcept nogil
        void (*rows_sum)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const double *Y,
                         const double *s, double *out) noexcept nogil
        double (*dot)(ptrdiff_t k, const double *a, const double *b) noexcept nogil
        ptrdiff_t (*reach)(ptrdiff_t rows, ptrdiff_t k, const double *Q, const double *P, const double *least,
                           int32_t *place, double *product) noexcept nogil
        ptrdiff_t group

    ctypedef struct als_kernels:
        const char *isa
        als_kernels_f32 f32
        als_kernels_f64 f64

    const als_kernels *const *als_available()


cdef const als_kernels *active   # never NULL after import


cdef inline ptrdiff_t lanes(const floating *precision) noexcept nogil:
    """Numbers in one vector: the width of a panel."""
    if floating is float:
        return active.f32.lanes
    else:
        return active.f64.lanes


cdef inline void gather_rows(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *d,
                             const floating *e, floating *P) noexcept nogil:
    """P = D Y[cols] E in panels over the factors: depth n, q = k."""
    if floating is float:
        active.f32.gather_rows(n, k, cols, Y, d, e, P)
    else:
        active.f64.gather_rows(n, k, cols, Y, d, e, P)


cdef inline void gather_columns(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y,
                                const floating *d, const floating *e, floating *P) noexcept nogil:
    """P = (D Y[cols] E)' in panels over the entries: depth k, q = n."""
    if floating is float:
        active.f32.gather_columns(n, k, cols, Y, d, e, P)
    else:
        active.f64.gather_columns(n, k, cols, Y, d, e, P)


cdef inline void rank_update(int start, ptrdiff_t q, ptrdiff_t depth, const floating *P, floating *C,
                             als_ahead *ahead) noexcept nogil:
    """C = I + P'P, C += P'P or C -= P'P; prefetches `ahead` meanwhile."""
    if floating is float:
        active.f32.rank_update(start, q, depth, P, C, ahead)
    else:
        active.f64.rank_update(start, q, depth, P, C, ahead)


cdef inline ptrdiff_t cholesky(ptrdiff_t q, floating *C, floating *cancelled) noexcept nogil:
    """C = U'U in place. Returns 0 and sets `cancelled`, or 1 + a row whose pivot is not positive."""
    if floating is float:
        return active.f32.cholesky(q, C, cancelled)
    else:
        return active.f64.cholesky(q, C, cancelled)


cdef inline void solve(ptrdiff_t q, const floating *U, floating *b) noexcept nogil:
    """b = (U'U)^-1 b"""
    if floating is float:
        active.f32.solve(q, U, b)
    else:
        active.f64.solve(q, U, b)


cdef inline void rows_dot(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *x,
                          floating *out, als_ahead *ahead) noexcept nogil:
    """out = Y[cols] x; prefetches `ahead` meanwhile."""
    if floating is float:
        active.f32.rows_dot(n, k, cols, Y, x, out, ahead)
    else:
        active.f64.rows_dot(n, k, cols, Y, x, out, ahead)


cdef inline void rows_dot_wide(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y,
                               const floating *x, double *out) noexcept nogil:
    """out = Y[cols] x, summed in float64"""
    if floating is float:
        active.f32.rows_dot_wide(n, k, cols, Y, x, out)
    else:
        active.f64.rows_dot_wide(n, k, cols, Y, x, out)


cdef inline void rows_sum(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *s,
                          floating *out) noexcept nogil:
    """out += Y[cols]' s"""
    if floating is float:
        active.f32.rows_sum(n, k, cols, Y, s, out)
    else:
        active.f64.rows_sum(n, k, cols, Y, s, out)


cdef inline floating dot(ptrdiff_t k, const floating *a, const floating *b) noexcept nogil:
    """a'b"""
    if floating is float:
        return active.f32.dot(k, a, b)
    else:
        return active.f64.dot(k, a, b)


cdef inline ptrdiff_t group(const floating *precision) noexcept nogil:
    """Rows of factors that one call of `reach` multiplies by: a multiple of `lanes`."""
    if floating is float:
        return active.f32.group
    else:
        return active.f64.group


cdef inline ptrdiff_t reach(ptrdiff_t rows, ptrdiff_t k, const floating *Q, const floating *P, const floating *least,
                            int32_t *place, floating *product) noexcept nogil:
    """The products Q P' that are not below `least` of their row, and their places. Returns how many there are."""
    if floating is float:
        return active.f32.reach(rows, k, Q, P, least, place, product)
    else:
        return active.f64.reach(rows, k, Q, P, least, place, product)
