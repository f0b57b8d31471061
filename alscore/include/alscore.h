/* alscore: the contract between a half-sweep and a compiled solver.
 *
 * In a half-sweep the factors Y of one side (items, say) are fixed. Every row of the other side (a user) is an
 * independent least-squares problem with k unknowns. A row has n entries; Y_u is the n x k matrix of their factors, D
 * the diagonal matrix of their weights, t the vector of their targets:
 *
 *     minimise   x'(A0 + diag(e)) x  +  sum_i weight[i] (y_i . x)^2  -  2 sum_i target[i] (y_i . x)
 *     that is,   (A0 + diag(e) + Y_u' D Y_u) x = Y_u' t
 *
 * The half-sweep has rotated Y so that the part common to all rows is diagonal: A0 is absent (`gram` is NULL), and e
 * is the sum of that diagonal and this row's regularization. A solver whose constraint depends on the original axes
 * sets ALSCORE_ORIGINAL_BASIS: then Y is not rotated, `gram` is A0, and e is the regularization alone.
 * ALSCORE_NONNEGATIVE implies ALSCORE_ORIGINAL_BASIS. It says that the minimum is over x >= 0; training then starts
 * from factors >= 0.
 *
 * A solver is one als_solver in a PyCapsule named ALSCORE_SOLVER_CAPSULE. The solver and its params live as long as
 * the capsule, or as the object whose capsule() returned it. A half-sweep calls
 *     workspace   once, to learn how much scratch memory each thread needs;
 *     solve_*     once per row with n > 0, from many threads at a time, without the GIL. (Rows with n = 0 become 0.)
 * solve_* must not allocate memory or call Python. It writes only to x and to its scratch memory, and depends only on
 * its arguments: the same row must give the same bits on every thread.
 */
#ifndef ALSCORE_H
#define ALSCORE_H

#include <stddef.h>
#include <stdint.h>

#define ALSCORE_SOLVER_VERSION 1
#define ALSCORE_SOLVER_CAPSULE "alscore.solver.v1"

/* als_solver.flags: any of these, combined by | */
#define ALSCORE_ORIGINAL_BASIS 1u
#define ALSCORE_WARM_START 2u /* x holds the row's previous factors on entry */
#define ALSCORE_NONNEGATIVE 4u

/* What solve_* returns. Other positive codes are the solver's own: alscore reports the code and the row. */
#define ALSCORE_OK 0
#define ALSCORE_NOT_POSITIVE_DEFINITE 1
#define ALSCORE_NOT_FINITE 2

/* One row's problem. Every array is borrowed. All are read-only except x. */
/* clang-format off */
#define ALSCORE_ROW(real)                                                                                              \
    struct {                                                                                                           \
        int64_t n;           /* entries of this row, at least 1 */                                                     \
        int64_t k;           /* factors */                                                                             \
        const int32_t *cols; /* n unique row numbers of `factors`, ascending */                                        \
        const real *factors; /* the fixed side, row-major, k numbers per row */                                        \
        const real *weight;  /* n: confidence less that of unobserved pairs; may be 0 or negative */                   \
        const real *target;  /* n: confidence times preference */                                                      \
        const real *diag;    /* k: e above; positive, but may be 0 in the original basis */                            \
        const real *gram;    /* k x k: A0 above; or NULL */                                                            \
        real *x;             /* k. On return: the solution. On entry: with ALSCORE_WARM_START the row's                \
                              * factors before the half-sweep, in the same basis; else any finite numbers. */          \
        int64_t n_next;      /* entries of the row that this thread solves next, or 0 if it is not known */            \
        const int32_t *cols_next; /* n_next: their columns, a hint to prefetch their factors */                        \
    }
/* clang-format on */
typedef ALSCORE_ROW(float) als_row_f32;
typedef ALSCORE_ROW(double) als_row_f64;

typedef struct {
    uint32_t version;   /* ALSCORE_SOLVER_VERSION as compiled; always first */
    uint32_t flags;     /* see above */
    const void *params; /* the solver's own; must live as long as the capsule */

    /* Returns the bytes of scratch memory that a thread needs for k factors and rows of at most n_max entries, in
     * numbers of real_size bytes (4 or 8). May be NULL if no scratch memory is needed. */
    size_t (*workspace)(const void *params, int64_t k, int64_t n_max, size_t real_size);

    /* Solve one row into row->x. Return ALSCORE_OK or an error code. `work` is the scratch memory: aligned to 64
     * bytes, with undefined content on entry. A function is NULL if the solver does not offer its precision. */
    int (*solve_f32)(const void *params, const als_row_f32 *row, void *work);
    int (*solve_f64)(const void *params, const als_row_f64 *row, void *work);
} als_solver;

#endif
