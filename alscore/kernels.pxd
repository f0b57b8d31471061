"""Public: the kernels of the built-in solvers, for compiled solvers in other packages.

``from alscore.kernels cimport dot`` needs nothing to link or include. Functions are looked up by name and signature at
run time, as those of scipy.linalg.cython_blas, and each call goes to the kernel set in use on this processor. A
compiled module therefore runs with any alscore that has the functions. kernels.pyx says what each one computes.
`floating` is float or double. No function allocates memory or needs aligned arrays; arrays aligned to 64 bytes are
faster.

Y is a matrix of factors, row-major, k numbers per row. cols are n row numbers of Y. A block of `depth` vectors of
length q is stored in ceil(q / lanes) panels: panel c has the numbers c lanes ... (c + 1) lanes - 1 of each vector in
turn, 0 beyond q. A symmetric matrix C of order q, or its Cholesky factor, is a block of depth
ceil(q / lanes) lanes, of which only the upper triangle counts.
"""

from cython cimport floating

from libc.stdint cimport int32_t

cdef enum:   # `start` of rank_update; the values of kernels.h
    IDENTITY
    ADD
    SUBTRACT

cdef ptrdiff_t lanes(const floating *precision) noexcept nogil
cdef floating dot(ptrdiff_t k, const floating *a, const floating *b) noexcept nogil
cdef void rows_dot(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *x,
                   floating *out) noexcept nogil
cdef void rows_sum(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *s,
                   floating *out) noexcept nogil
cdef void gather_rows(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *d,
                      const floating *e, floating *P) noexcept nogil
cdef void gather_columns(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *d,
                         const floating *e, floating *P) noexcept nogil
cdef void rank_update(int start, ptrdiff_t q, ptrdiff_t depth, const floating *P, floating *C) noexcept nogil
cdef ptrdiff_t cholesky(ptrdiff_t q, floating *C, floating *cancelled) noexcept nogil
cdef void solve(ptrdiff_t q, const floating *U, floating *b) noexcept nogil
