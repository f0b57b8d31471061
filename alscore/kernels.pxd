"""Public: the kernels that the built-in solvers are made of, for compiled solvers by others.

``from alscore.kernels cimport dot`` needs nothing to link or include. Functions are looked up by name and signature at
run time, as those of scipy.linalg.cython_blas are, so that a module runs with any alscore that has them, and each call
goes to the kernel set in use on this processor. kernels.pyx says what each computes. `floating` is float or double.
Nothing allocates, or needs aligned arrays, though 64 bytes are faster.

Y is a matrix of factors, row-major, k numbers a row, and cols are n of its row numbers. A block of `depth` vectors of
length q is stored in ceil(q / lanes) panels: panel c has the numbers c lanes ... (c + 1) lanes - 1 of each vector in
turn, 0 beyond q. A symmetric matrix C of order q, or its Cholesky factor, is such a block of depth
ceil(q / lanes) lanes, of which only the upper triangle counts.
"""

from cython cimport floating

from libc.stdint cimport int32_t

cdef enum:   # how rank_update begins; the values are those of kernels.h
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
