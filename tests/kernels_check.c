/* Compares every kernel of every set that this processor can run with plain loops in double. Compiled once for each
 * precision: -DPRECISION=32 or 64. Prints the names of the sets, or the first difference, and then returns 1.
 *
 * The bounds are those of rounding-error analysis: the error of a sum of n products is at most about n units in the
 * last place of the sum of their absolute values, in any order (Higham 2002, sections 3.1, 10.1.1). */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels.h"

#if PRECISION == 32
typedef float REAL;
#define KERNELS f32
#else
typedef double REAL;
#define KERNELS f64
#endif

enum { ROWS = 60 }; /* of Y */

static const double unit = sizeof(REAL) == 4 ? FLT_EPSILON : DBL_EPSILON;
static const als_kernels *set;
static ptrdiff_t n, k, lanes; /* of the case under test */

static void near(const char *what, double got, double expected, double bound)
{
    if (!(fabs(got - expected) <= bound)) {
        printf("%s, float%d, n = %d, k = %d: %s is %.17g, not %.17g +- %.3g\n", set->isa, PRECISION, (int)n, (int)k,
               what, got, expected, bound);
        exit(1);
    }
}

static double uniform(void) /* in [-1, 1), of 20 bits; the same numbers on every machine */
{
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 44) / (1 << 19) - 1;
}

static void *get(ptrdiff_t count, size_t size)
{
    void *memory = calloc((size_t)count, size);
    if (!memory)
        abort();
    return memory;
}

static REAL *random_reals(ptrdiff_t count, ptrdiff_t zeros) /* `zeros` of them follow */
{
    REAL *x = get(count + zeros, sizeof *x);
    for (ptrdiff_t i = 0; i < count; i++)
        x[i] = (REAL)uniform();
    return x;
}

static ptrdiff_t padded(ptrdiff_t q) { return (q + lanes - 1) / lanes * lanes; }

/* Number i of vector p in panels of that depth */
static REAL *at(REAL *P, ptrdiff_t depth, ptrdiff_t p, ptrdiff_t i)
{
    return P + (i / lanes * depth + p) * lanes + i % lanes;
}

static void check_products(const int32_t *cols, const REAL *Y)
{
    REAL *x = random_reals(k, 0), *s = random_reals(n, 0), *out = get(n, sizeof *out), *sum = random_reals(k, 0);
    REAL *before = get(k, sizeof *before);
    double *wide = get(n, sizeof *wide);
    als_ahead ahead = {cols, n, Y, k * (ptrdiff_t)sizeof(REAL)};
    for (ptrdiff_t j = 0; j < k; j++)
        before[j] = sum[j];
    set->KERNELS.rows_dot(n, k, cols, Y, x, out, &ahead);
    near("rows not asked for by rows_dot", (double)ahead.n, 0, 0);
    set->KERNELS.rows_dot_wide(n, k, cols, Y, x, wide);
    set->KERNELS.rows_sum(n, k, cols, Y, s, sum);
    for (ptrdiff_t i = 0; i < n; i++) {
        const REAL *y = Y + cols[i] * k;
        double product = 0, size = 0;
        for (ptrdiff_t j = 0; j < k; j++) {
            product += (double)y[j] * x[j];
            size += fabs((double)y[j] * x[j]);
        }
        near("rows_dot", out[i], product, (double)k * unit * size);
        near("rows_dot_wide", wide[i], product, 2 * (double)k * DBL_EPSILON * size);
        near("dot", set->KERNELS.dot(k, y, x), product, (double)k * unit * size);
    }
    for (ptrdiff_t j = 0; j < k; j++) {
        double total = before[j], size = fabs(total);
        for (ptrdiff_t i = 0; i < n; i++) {
            total += (double)s[i] * Y[cols[i] * k + j];
            size += fabs((double)s[i] * Y[cols[i] * k + j]);
        }
        near("rows_sum", sum[j], total, (double)(n + 1) * unit * size);
    }
    free(x), free(s), free(out), free(sum), free(before), free(wide);
}

/* The rows, scaled: depth n and q = k in P, depth k and q = n in T */
static void check_gathers(const int32_t *cols, const REAL *Y, REAL *P, REAL *T)
{
    REAL *d = random_reals(n, 0), *e = random_reals(k, padded(k) - k);
    set->KERNELS.gather_rows(n, k, cols, Y, d, e, P);
    set->KERNELS.gather_columns(n, k, cols, Y, d, e, T);
    for (ptrdiff_t i = 0; i < padded(n); i++)
        for (ptrdiff_t j = 0; j < padded(k); j++) {
            const double number = i < n && j < k ? (double)Y[cols[i] * k + j] * d[i] * e[j] : 0;
            if (i < n)
                near("gather_rows", *at(P, n, i, j), number, 2 * unit * fabs(number));
            if (j < k)
                near("gather_columns", *at(T, k, j, i), number, 2 * unit * fabs(number));
        }
    free(d), free(e);
}

/* The backward errors of U'U = C, where U has reciprocals on its diagonal, and of the solution of C x = b */
static void check_factor(ptrdiff_t q, REAL *C, REAL *U)
{
    REAL *x = random_reals(q, padded(q) - q), *b = get(q, sizeof *b), cancelled = 0;
    double *solved = get(q, sizeof *solved), *size = get(q, sizeof *size), ratio = 1;
    for (ptrdiff_t i = 0; i < q; i++)
        b[i] = x[i];
    near("cholesky", (double)set->KERNELS.cholesky(q, U, &cancelled), 0, 0);
    set->KERNELS.solve(q, U, x);
    for (ptrdiff_t i = 0; i < q; i++) {
        const double inverse = *at(U, padded(q), i, i), number = *at(C, padded(q), i, i);
        ratio = fmax(ratio, number * inverse * inverse);
        for (ptrdiff_t j = i / lanes * lanes; j < i; j++)
            near("below the diagonal", *at(U, padded(q), i, j), 0, 0);
    }
    near("cancelled", cancelled, ratio, 8 * unit * ratio);
    for (ptrdiff_t i = 0; i < q; i++)
        for (ptrdiff_t j = i; j < q; j++) {
            double product = 0, absolute = 0;
            for (ptrdiff_t p = 0; p <= i; p++) {
                const double left = *at(U, padded(q), p, i), right = *at(U, padded(q), p, j);
                const double term = (p == i ? 1 / left : left) * (p == j ? 1 / right : right);
                product += term;
                absolute += fabs(term);
            }
            const double number = *at(C, padded(q), i, j);
            near("U'U", product, number, (double)(q + 4) * unit * absolute);
            solved[i] += number * x[j], size[i] += absolute * fabs(x[j]);
            if (j > i)
                solved[j] += number * x[i], size[j] += absolute * fabs(x[i]);
        }
    for (ptrdiff_t i = 0; i < q; i++)
        near("C x", solved[i], b[i], (double)(3 * q + 4) * unit * size[i]);
    for (ptrdiff_t i = q; i < padded(q); i++)
        near("padding of x", x[i], 0, 0);
    free(x), free(b), free(solved), free(size);
}

static void check_refusal(ptrdiff_t q, const REAL *C, REAL *U, double pivot)
{
    const ptrdiff_t count = padded(q) * padded(q), row = q / 2;
    REAL cancelled;
    for (ptrdiff_t i = 0; i < count; i++)
        U[i] = C[i];
    *at(U, padded(q), row, row) = (REAL)pivot;
    near("1 + the row that cholesky refuses", (double)set->KERNELS.cholesky(q, U, &cancelled), (double)row + 1, 0);
}

/* P: panels over q numbers of `depth` vectors */
static void check_system(ptrdiff_t q, ptrdiff_t depth, REAL *P, const int32_t *cols, const REAL *Y)
{
    const ptrdiff_t size = padded(q) * padded(q);
    REAL *C = get(size, sizeof *C), *U = get(size, sizeof *U);
    const int starts[] = {ALS_IDENTITY, ALS_ADD, ALS_SUBTRACT};
    for (int step = 0; step < 3; step++) {
        als_ahead ahead = {cols, n, Y, k * (ptrdiff_t)sizeof(REAL)};
        set->KERNELS.rank_update(starts[step], q, depth, P, C, &ahead);
        near("rows not asked for by rank_update", (double)ahead.n, 0, 0);
        for (ptrdiff_t i = 0; i < q; i++)
            for (ptrdiff_t j = i; j < q; j++) {
                double product = 0, absolute = 0;
                for (ptrdiff_t p = 0; p < depth; p++) {
                    const double term = (double)*at(P, depth, p, i) * *at(P, depth, p, j);
                    product += term;
                    absolute += fabs(term);
                }
                near("rank_update", *at(C, padded(q), i, j), (i == j) + (step == 1 ? 2 : 1) * product,
                     (double)(3 * depth + 4) * unit * (absolute + 1));
            }
        if (step == 1)
            continue;
        for (ptrdiff_t i = 0; i < size; i++)
            U[i] = C[i];
        check_factor(q, C, U);
    }
    check_refusal(q, C, U, -1);
    check_refusal(q, C, U, 0);
    check_refusal(q, C, U, INFINITY);
    check_refusal(q, C, U, NAN);
    free(C), free(U);
}

static void check_reach(ptrdiff_t rows)
{
    const ptrdiff_t group = set->KERNELS.group;
    REAL *Q = get(k * lanes, sizeof *Q), *P = random_reals(k * group, 0), *least = get(lanes, sizeof *least);
    REAL *product = get(lanes * group, sizeof *product);
    int32_t *place = get(lanes * group, sizeof *place);
    REAL **reached = get(lanes * group, sizeof *reached);
    for (ptrdiff_t row = 0; row < lanes; row++) {
        least[row] = row < rows ? (REAL)uniform() : (REAL)INFINITY;
        for (ptrdiff_t j = 0; j < k && row < rows; j++)
            *at(Q, k, j, row) = (REAL)uniform();
    }
    const ptrdiff_t count = set->KERNELS.reach(rows, k, Q, P, least, place, product);
    for (ptrdiff_t i = 0; i < count; i++) {
        near("1 for a new place within the rows", place[i] >= 0 && place[i] < rows * group && !reached[place[i]], 1, 0);
        near("1 for a product not below least", product[i] >= least[place[i] / group], 1, 0);
        reached[place[i]] = product + i;
    }
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t i = 0; i < group; i++) {
            const REAL *result = reached[row * group + i];
            double expected = 0, absolute = 0;
            for (ptrdiff_t j = 0; j < k; j++) {
                const double term = (double)*at(Q, k, j, row) * *at(P, k, j, i);
                expected += term;
                absolute += fabs(term);
            }
            const double bound = (double)k * unit * absolute;
            if (result)
                near("product", *result, expected, bound);
            else
                near("1 for a product below least", expected < least[row] + bound, 1, 0);
        }
    free(Q), free(P), free(least), free(product), free(place), free(reached);
}

/* A product that equals `least` is reached. One that is a digit below it is not, and NaN never is. The first and the
 * last column both have the largest product of each row: its bits do not depend on its place. Column 1 holds a NaN. */
static void check_ties(ptrdiff_t rows)
{
    const ptrdiff_t group = set->KERNELS.group;
    REAL *Q = get(k * lanes, sizeof *Q), *P = random_reals(k * group, 0), *least = get(lanes, sizeof *least);
    REAL *product = get(lanes * group, sizeof *product);
    int32_t *place = get(lanes * group, sizeof *place);
    for (ptrdiff_t j = 0; j < k; j++) {
        *at(P, k, j, 0) = *at(P, k, j, group - 1) = 1;
        for (ptrdiff_t row = 0; row < rows; row++)
            *at(Q, k, j, row) = (REAL)(uniform() + 2);
    }
    *at(P, k, k / 2, 1) = NAN;
    for (ptrdiff_t row = 0; row < lanes; row++)
        least[row] = row < rows ? -(REAL)INFINITY : (REAL)INFINITY;
    ptrdiff_t count = set->KERNELS.reach(rows, k, Q, P, least, place, product);
    near("products that are numbers", (double)count, (double)(rows * (group - 1)), 0);
    for (ptrdiff_t i = 0; i < count; i++)
        if (place[i] % group == 0)
            least[place[i] / group] = product[i];
    count = set->KERNELS.reach(rows, k, Q, P, least, place, product);
    near("products that equal least", (double)count, 2 * (double)rows, 0);
    for (ptrdiff_t i = 0; i < count; i++) {
        near("column of a tie", place[i] % group, i % 2 ? (double)(group - 1) : 0, 0);
        near("tie", product[i], least[place[i] / group], 0);
    }
    for (ptrdiff_t row = 0; row < rows; row++)
        least[row] *= 1 + (REAL)unit;
    near("products above all", (double)set->KERNELS.reach(rows, k, Q, P, least, place, product), 0, 0);
    for (ptrdiff_t row = 0; row < rows; row++)
        least[row] = NAN;
    near("products not below NaN", (double)set->KERNELS.reach(rows, k, Q, P, least, place, product), 0, 0);
    free(Q), free(P), free(least), free(product), free(place);
}

static void check_case(void)
{
    int32_t *cols = get(n, sizeof *cols);
    REAL *Y = random_reals(ROWS * k, 0), *P = get(n * padded(k), sizeof *P), *T = get(k * padded(n), sizeof *T);
    for (ptrdiff_t i = 0; i < n; i++)
        cols[i] = (int32_t)(i * 7 % ROWS); /* unique: ROWS is not a multiple of 7 */
    check_products(cols, Y);
    check_gathers(cols, Y, P, T);
    check_system(k, n, P, cols, Y);
    check_system(n, k, T, cols, Y);
    for (ptrdiff_t rows = 1; rows <= lanes; rows++)
        check_reach(rows), check_ties(rows);
    free(cols), free(Y), free(P), free(T);
}

int main(void)
{
    const ptrdiff_t sizes[] = {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 33, 47, 50, 0};
    /* 145 is more than eight vectors of the widest set */
    const ptrdiff_t widths[] = {1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 33, 47, 50, 145, 0};
    for (const als_kernels *const *next = als_available(); *next; next++) {
        set = *next;
        lanes = set->KERNELS.lanes;
        for (const ptrdiff_t *rows = sizes; *rows; rows++)
            for (const ptrdiff_t *factors = widths; *factors; factors++) {
                n = *rows, k = *factors;
                check_case();
            }
        printf("%s\n", set->isa);
    }
    return 0;
}
