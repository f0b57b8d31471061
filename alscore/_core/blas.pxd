"""scipy's BLAS with sizes by value, for contiguous row-major matrices; each docstring is the formula."""

from cython cimport floating
from scipy.linalg.cython_blas cimport dgemm, dsyrk, sgemm


cdef inline void gemm(int m, int n, int k, const floating *A, const floating *B, floating *C) noexcept nogil:
    """C = A B, with A (m, k), B (k, n), C (m, n)"""
    cdef floating one = 1, zero = 0
    cdef char no = b"N"
    # BLAS is column-major and reads the transposes: C' = B' A'
    if floating is float:
        sgemm(&no, &no, &n, &m, &k, &one, <float *> B, &n, <float *> A, &k, &zero, C, &n)
    else:
        dgemm(&no, &no, &n, &m, &k, &one, <double *> B, &n, <double *> A, &k, &zero, C, &n)


cdef inline void syrk(int n, int k, const double *A, double *C) noexcept nogil:
    """C += A'A in the lower triangle, with A (k, n), C (n, n)"""
    cdef double one = 1
    cdef char upper = b"U", no = b"N"
    dsyrk(&upper, &no, &n, &k, &one, <double *> A, &n, &one, C, &n)
