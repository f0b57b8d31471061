/* The table of kernels: every instruction set fills in the same one, and dispatch.c picks among them.
 *
 * Panels. A block of `depth` vectors of length q is stored as ceil(q / lanes) panels, panel c holding entries
 * c*lanes ... of every vector, contiguously: P[c][p][lane]. Lanes beyond q are zero. Every inner loop then
 * reads contiguous streams without a tail, whatever q is. A symmetric matrix or its Cholesky factor is a
 * block of depth ceil(q / lanes) * lanes in the same form, of which only the upper triangle counts: rank_update writes
 * what cholesky and solve read, the identity in the padding of the last tile of rows included.
 *
 * cols holds row numbers of the factor matrix Y, which is row-major with k numbers a row. Arrays need no alignment, though
 * 64 bytes are faster. Nothing here allocates, and only cholesky can fail.
 */
#ifndef ALSCORE_KERNELS_H
#define ALSCORE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Rows of a factor matrix that will be gathered soon, at random places in memory: kernels with much arithmetic ask for
 * them meanwhile, so that they lie in the second-level cache by then. Counts down as they are asked for; n = 0 asks
 * for nothing. */
typedef struct {
    const int32_t *cols;
    ptrdiff_t n;
    const void *Y;
    ptrdiff_t row_bytes;
} als_ahead;

/* How rank_update begins. */
enum { ALS_IDENTITY, ALS_ADD, ALS_SUBTRACT };

/* clang-format off */
#define ALS_KERNELS(real)                                                                                     \
    struct {                                                                                                  \
        ptrdiff_t lanes; /* numbers in one vector; panel width */                                             \
                                                                                                              \
        /* P: the rows Y[cols[i]], times d[i] and, by factor, e (padded to panels): depth n, q = k. */        \
        void (*gather_rows)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *d,      \
                            const real *e, real *P);                                                          \
                                                                                                              \
        /* The same block transposed: depth k, q = n. */                                                      \
        void (*gather_columns)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *d,   \
                               const real *e, real *P);                                                       \
                                                                                                              \
        /* C = I + sum_p P_p P_p', or C += or -= that sum. The sum is complete before it meets C: in chunks,  \
         * long sums round less. */                                                                           \
        void (*rank_update)(int start, ptrdiff_t q, ptrdiff_t depth, const real *P, real *C,                  \
                            als_ahead *ahead);                                                                \
                                                                                                              \
        /* C = U'U, in place: zeros below the diagonal, reciprocals of the pivots on it. Returns 0, or 1 + a row \
         * whose pivot is not positive or not finite. Only then is cancelled not set: to the largest ratio of a \
         * number on C's diagonal to its squared pivot, at least 1, with which the solution's error grows. */ \
        ptrdiff_t (*cholesky)(ptrdiff_t q, real *C, real *cancelled);                                         \
                                                                                                              \
        /* b = (U'U)^-1 b; b padded to panels */                                                              \
        void (*solve)(ptrdiff_t q, const real *U, real *b);                                                   \
                                                                                                              \
        /* out[i] = Y[cols[i]] . x, and the same with the products summed in float64 */                       \
        void (*rows_dot)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *x,         \
                         real *out, als_ahead *ahead);                                                        \
        void (*rows_dot_wide)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *x,    \
                              double *out);                                                                   \
                                                                                                              \
        /* out += sum_i s[i] Y[cols[i]] */                                                                    \
        void (*rows_sum)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *s,         \
                         real *out);                                                                          \
                                                                                                              \
        /* a . b */                                                                                           \
        real (*dot)(ptrdiff_t k, const real *a, const real *b);                                               \
                                                                                                              \
        /* The products of `rows` vectors, in one panel Q, with `group` others, in the panels at P, of depth k: those  \
         * not below least[row] (lanes numbers) go to product, row * group + column to place; returns how many. \
         * A product is one sum, term by term: its bits do not depend on the places of its two vectors. */    \
        ptrdiff_t (*reach)(ptrdiff_t rows, ptrdiff_t k, const real *Q, const real *P, const real *least,       \
                           int32_t *place, real *product);                                                    \
        ptrdiff_t group;                                                                                      \
    }
/* clang-format on */

typedef ALS_KERNELS(float) als_kernels_f32;
typedef ALS_KERNELS(double) als_kernels_f64;

typedef struct {
    const char *isa;
    als_kernels_f32 f32;
    als_kernels_f64 f64;
} als_kernels;

/* The sets this processor can run, best first, then NULL. */
const als_kernels *const *als_available(void);

#endif
