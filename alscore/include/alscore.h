/* alscore: the contract between the sweep and a compiled solver.
 *
 * In a half-sweep one side's factors Y (items, say) are fixed, and every row of the other side (a user) is one
 * independent least-squares problem of k unknowns. With the row's n observed entries, Y_u the n x k matrix of
 * their factors, D the diagonal of its weights, t its targets:
 *
 *     minimise   x'(A0 + diag(e)) x  +  sum_i weight[i] (y_i . x)^2  -  2 sum_i target[i] (y_i . x)
 *     that is,   (A0 + diag(e) + Y_u' D Y_u) x = Y_u' t
 *
 * The sweep has rotated Y so that the part common to all rows is diagonal: A0 is absent (`gram` is NULL) and
 * e holds that diagonal and this row's regularization together. A solver whose constraint is tied to the original axes
 * sets ALSCORE_ORIGINAL_BASIS: Y is then not rotated, `gram` is A0 and e is the regularization alone.
 * ALSCORE_NONNEGATIVE implies that, and says that the minimum is over x >= 0: training then starts from such factors too.
 *
 * A solver is one als_solver in a PyCapsule named ALSCORE_SOLVER_CAPSULE; it and its params live as long as the capsule,
 * or the object whose capsule() returned that. The sweep calls
 *     workspace   once per half-sweep, to learn how much scratch memory each thread needs;
 *     solve_*     once per row with n > 0, from many threads at a time, without the GIL. (Rows with n = 0 are 0.)
 * solve_* must not allocate, call Python, write to anything but x and its scratch, or depend on anything
 * but its arguments: the same row must give the same bits on every thread.
 */
#ifndef ALSCORE_H
#define ALSCORE_H

#include <stddef.h>
#include <stdint.h>

#define ALSCORE_SOLVER_VERSION 1
#define ALSCORE_SOLVER_CAPSULE "alscore.solver.v1"

/* als_solver.flags, or'ed */
#define ALSCORE_ORIGINAL_BASIS 1u
#define ALSCORE_WARM_START 2u
#define ALSCORE_NONNEGATIVE 4u

/* What solve_* returns. Other positive codes are the solver's own: the sweep reports the number and the row. */
#define ALSCORE_OK 0
#define ALSCORE_NOT_POSITIVE_DEFINITE 1
#define ALSCORE_NOT_FINITE 2

/* One row's problem. Every array is borrowed and, but for x, read-only. */
/* clang-format off */
#define ALSCORE_ROW(real)                                                                                     \
    struct {                                                                                                  \
        int64_t n;           /* observed entries of this row, at least 1 */                                   \
        int64_t k;           /* factors */                                                                    \
        const int32_t *cols; /* n unique row numbers of `factors`, ascending */                               \
        const real *factors; /* the fixed side, row-major, k numbers a row */                                 \
        const real *weight;  /* n: confidence less the weight of the unobserved; may be 0 or negative */      \
        const real *target;  /* n: confidence times preference */                                             \
        const real *diag;    /* k: e above; positive, though in the original basis it may be 0 */              \
        const real *gram;    /* NULL, or k x k: A0 above */                                                   \
        real *x;             /* k: out, the solution; in, with ALSCORE_WARM_START, the row's factors before   \
                              * the half-sweep in the same basis, else anything finite */                     \
        int64_t n_next;      /* entries of the row that this thread solves next, or 0 where it does not know, */\
        const int32_t *cols_next; /* and their columns: a hint, to ask the memory for their factors early */   \
    }
/* clang-format on */
typedef ALSCORE_ROW(float) als_row_f32;
typedef ALSCORE_ROW(double) als_row_f64;

typedef struct {
    uint32_t version;   /* ALSCORE_SOLVER_VERSION as compiled; always first */
    uint32_t flags;     /* of those above */
    const void *params; /* the solver's own; must live as long as the capsule */

    /* Bytes of scratch one thread needs for k factors and rows of up to n_max entries of real_size (4 or 8) bytes. May be
     * NULL where it needs none. */
    size_t (*workspace)(const void *params, int64_t k, int64_t n_max, size_t real_size);

    /* Solves one row into row->x and returns ALSCORE_OK or an error code. `work` is aligned to 64 bytes and holds
     * anything on entry. Either function may be NULL where that precision is not offered. */
    int (*solve_f32)(const void *params, const als_row_f32 *row, void *work);
    int (*solve_f64)(const void *params, const als_row_f64 *row, void *work);
} als_solver;

#endif
