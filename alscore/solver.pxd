"""Public: the contract of a compiled solver, for Cython. alscore.h is the original, with comments.

``from alscore.solver cimport als_solver`` needs the folder `alscore.get_include()` on the C compiler's include path.
kernels.pxd is public too. The .pxd files of alscore/_core may change in any version.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t


cdef extern from "alscore.h" nogil:
    const uint32_t ALSCORE_SOLVER_VERSION
    const char *ALSCORE_SOLVER_CAPSULE
    const uint32_t ALSCORE_ORIGINAL_BASIS
    const uint32_t ALSCORE_WARM_START
    const uint32_t ALSCORE_NONNEGATIVE
    const int ALSCORE_OK
    const int ALSCORE_NOT_POSITIVE_DEFINITE
    const int ALSCORE_NOT_FINITE

    ctypedef struct als_row_f32:
        int64_t n
        int64_t k
        const int32_t *cols
        const float *factors
        const float *weight
        const float *target
        const float *diag
        const float *gram
        float *x
        int64_t n_next
        const int32_t *cols_next

    ctypedef struct als_row_f64:
        int64_t n
        int64_t k
        const int32_t *cols
        const double *factors
        const double *weight
        const double *target
        const double *diag
        const double *gram
        double *x
        int64_t n_next
        const int32_t *cols_next

    ctypedef struct als_solver:
        uint32_t version
        uint32_t flags
        const void *params
        size_t (*workspace)(const void *params, int64_t k, int64_t n_max, size_t real_size) noexcept nogil
        int (*solve_f32)(const void *params, const als_row_f32 *row, void *work) noexcept nogil
        int (*solve_f64)(const void *params, const als_row_f64 *row, void *work) noexcept nogil


ctypedef fused als_row:   # a row of either precision, for functions that are written once
    als_row_f32
    als_row_f64
