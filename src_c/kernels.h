/* The table of kernels. Every instruction set fills in the same table, and dispatch.c chooses one.
 *
 * Panels. A block of `depth` vectors of length q is stored as ceil(q / lanes) panels. Panel c holds the numbers c
 * lanes ... (c + 1) lanes - 1 of each vector in turn: P[c][p][lane]. Lanes beyond q are zero. Every inner loop
 * therefore reads contiguous memory without a tail for any q. A symmetric matrix or its Cholesky factor is a block of
 * depth ceil(q / lanes) lanes, of which only the upper triangle counts. rank_update writes what cholesky and solve
 * read, including the identity in the padding of the last rows.
 *
 * cols holds row numbers of the factor matrix Y, which is row-major with k numbers per row. Arrays need no alignment,
 * but 64 bytes are faster. No kernel allocates memory, and only cholesky can fail.
 */
#ifndef ALSCORE_KERNELS_H
#define ALSCORE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* Rows of a factor matrix that will be read soon, at random places in memory. Kernels with much arithmetic prefetch
 * them into the second-level cache. cols and n then stand for the rows that are left; n = 0: no rows. */
typedef struct {
    const int32_t *cols;
    ptrdiff_t n;
    const void *Y;
    ptrdiff_t row_bytes;
} als_ahead;

/* `start` of rank_update */
enum { ALS_IDENTITY, ALS_ADD, ALS_SUBTRACT };

/* clang-format off */
#define ALS_KERNELS(real)                                                                                              \
    struct {                                                                                                           \
        ptrdiff_t lanes; /* numbers in a vector; width of a panel */                                                   \
                                                                                                                       \
        /* P = diag(d) Y[cols] diag(e): depth n, q = k; e is padded to panels. */                                      \
        void (*gather_rows)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *d,               \
                            const real *e, real *P);                                                                   \
                                                                                                                       \
        /* The same block transposed: depth k, q = n. */                                                               \
        void (*gather_columns)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *d,            \
                               const real *e, real *P);                                                                \
                                                                                                                       \
        /* C = I + sum_p P_p P_p', or C += or -= that sum. The sum is complete before it is added: a long              \
         * sum in chunks rounds less. */                                                                               \
        void (*rank_update)(int start, ptrdiff_t q, ptrdiff_t depth, const real *P, real *C,                           \
                            als_ahead *ahead);                                                                         \
                                                                                                                       \
        /* C = U'U, in place: zeros below the diagonal, reciprocals of the pivots on it. Returns 0, or 1 + the         \
         * first row whose pivot is not positive or not finite. If it returns 0, cancelled is the largest              \
         * ratio of a number on C's diagonal to its squared pivot, at least 1: the solution's error grows with it. */  \
        ptrdiff_t (*cholesky)(ptrdiff_t q, real *C, real *cancelled);                                                  \
                                                                                                                       \
        /* b = (U'U)^-1 b; b padded to panels */                                                                       \
        void (*solve)(ptrdiff_t q, const real *U, real *b);                                                            \
                                                                                                                       \
        /* out[i] = Y[cols[i]] . x; rows_dot_wide sums the products in float64 */                                      \
        void (*rows_dot)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *x,                  \
                         real *out, als_ahead *ahead);                                                                 \
        void (*rows_dot_wide)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *x,             \
                              double *out);                                                                            \
                                                                                                                       \
        /* out += sum_i s[i] Y[cols[i]] */                                                                             \
        void (*rows_sum)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const real *Y, const real *s,                  \
                         real *out);                                                                                   \
                                                                                                                       \
        /* a . b */                                                                                                    \
        real (*dot)(ptrdiff_t k, const real *a, const real *b);                                                        \
                                                                                                                       \
        /* The products of `rows` vectors of length k, in one panel Q, with `group` vectors, in the panels P.          \
         * Those not below least[row] (lanes numbers) go to product, row * group + column to place. Returns            \
         * how many. A product is a sum in order: its bits do not depend on the places of its two vectors. */          \
        ptrdiff_t (*reach)(ptrdiff_t rows, ptrdiff_t k, const real *Q, const real *P, const real *least,               \
                           int32_t *place, real *product);                                                             \
        ptrdiff_t group;                                                                                               \
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
