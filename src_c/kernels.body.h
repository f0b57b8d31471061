/* The kernels, for one instruction set and one REAL. They are written with vector types: the compiler chooses the
 * target's instructions, and contracts a product and a sum to an FMA if the target has one. */

/* Size of a tile of a triangular product, in rows and in panels. Its accumulators, one vector of each panel and a
 * broadcast fit the registers. TILE_ROWS divides LANES. */
#define TILE_ROWS (LANES < ALS_REGISTERS / 4 ? LANES : ALS_REGISTERS / 4)
#define TILE_PANELS 3

#define WIDE_LANES (ALS_BYTES / 8)

typedef REAL FN(vec) __attribute__((vector_size(ALS_BYTES)));
typedef REAL FN(loose) __attribute__((vector_size(ALS_BYTES), aligned(sizeof(REAL)), may_alias));
typedef INTEGER FN(ivec) __attribute__((vector_size(ALS_BYTES)));
typedef double FN(wide) __attribute__((vector_size(ALS_BYTES)));
typedef REAL FN(narrow) __attribute__((vector_size(WIDE_LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define vec FN(vec)
#define wide FN(wide)

INLINE vec FN(load)(const REAL *p) { return *(const FN(loose) *)p; }
INLINE void FN(store)(REAL *p, vec v) { *(FN(loose) *)p = v; }
INLINE wide FN(load_wide)(const REAL *p) { return __builtin_convertvector(*(const FN(narrow) *)p, wide); }
INLINE vec FN(load_first)(const REAL *p, ptrdiff_t count)
{
    vec v = {0};
    memcpy(&v, p, (size_t)count * sizeof(REAL));
    return v;
}
INLINE ptrdiff_t FN(panels)(ptrdiff_t q) { return (q + LANES - 1) / LANES; }

/* Stage s of a transposition by halves swaps the off-diagonal s x s blocks of every 2s x 2s block. Rows a and b
 * become LOW_s and HIGH_s. Lane l of LOW_s is lane l of a if bit s of l is 0, else lane l - s of b. Lane l of
 * HIGH_s is lane l + s of a if bit s of l is 0, else lane l of b. */
#if LANES == 16
#define LOW_8(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HIGH_8(a, b) SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define LOW_4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define HIGH_4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define LOW_2(a, b) SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH_2(a, b) SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define LOW_1(a, b) SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#define HIGH_1(a, b) SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)
#elif LANES == 8
#define LOW_4(a, b) SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH_4(a, b) SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define LOW_2(a, b) SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH_2(a, b) SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW_1(a, b) SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define HIGH_1(a, b) SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#elif LANES == 4
#define LOW_2(a, b) SHUFFLE(a, b, 0, 1, 4, 5)
#define HIGH_2(a, b) SHUFFLE(a, b, 2, 3, 6, 7)
#define LOW_1(a, b) SHUFFLE(a, b, 0, 4, 2, 6)
#define HIGH_1(a, b) SHUFFLE(a, b, 1, 5, 3, 7)
#else
#define LOW_1(a, b) SHUFFLE(a, b, 0, 2)
#define HIGH_1(a, b) SHUFFLE(a, b, 1, 3)
#endif
#define STAGE(s)                                                                                                       \
    _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++) if (!(i & s))                                             \
    {                                                                                                                  \
        vec a = rows[i], b = rows[i + s];                                                                              \
        rows[i] = LOW_##s(a, b);                                                                                       \
        rows[i + s] = HIGH_##s(a, b);                                                                                  \
    }

INLINE void FN(transpose)(vec rows[LANES])
{
#if LANES >= 16
    STAGE(8)
#endif
#if LANES >= 8
    STAGE(4)
#endif
#if LANES >= 4
    STAGE(2)
#endif
    STAGE(1)
}

INLINE REAL FN(sum)(vec v)
{
    REAL lane[LANES];
    memcpy(lane, &v, sizeof v);
    for (int s = LANES / 2; s > 0; s /= 2)
        for (int l = 0; l < s; l++)
            lane[l] += lane[l + s];
    return lane[0];
}

static void FN(gather_rows)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const REAL *Y, const REAL *d, const REAL *e,
                            REAL *P)
{
    const ptrdiff_t whole = k / LANES;
    for (ptrdiff_t i = 0; i < n; i++) {
        const REAL *y = Y + cols[i] * k;
        REAL *out = P + i * LANES;
        for (ptrdiff_t c = 0; c < whole; c++, out += n * LANES)
            FN(store)(out, FN(load)(y + c * LANES) * FN(load)(e + c * LANES) * d[i]);
        if (whole * LANES < k)
            FN(store)(out, FN(load_first)(y + whole * LANES, k % LANES) * FN(load)(e + whole * LANES) * d[i]);
    }
}

static void FN(gather_columns)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const REAL *Y, const REAL *d,
                               const REAL *e, REAL *P)
{
    static const REAL nothing[LANES] = {0};
    for (ptrdiff_t i0 = 0; i0 < n; i0 += LANES) {
        const REAL *y[LANES];
        REAL scale[LANES];
        for (int i = 0; i < LANES; i++) {
            const int there = i0 + i < n;
            y[i] = there ? Y + cols[i0 + i] * k : NULL;
            scale[i] = there ? d[i0 + i] : 0;
        }
        for (ptrdiff_t j0 = 0; j0 < k; j0 += LANES, P += LANES * LANES) {
            const ptrdiff_t width = k - j0 < LANES ? k - j0 : LANES;
            const vec column_scale = FN(load)(e + j0);
            vec rows[LANES];
            if (width == LANES) {
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    rows[i] = FN(load)(y[i] ? y[i] + j0 : nothing) * column_scale * scale[i];
                FN(transpose)(rows);
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++)
                    FN(store)(P + i * LANES, rows[i]);
            } else {
                for (int i = 0; i < LANES; i++)
                    rows[i] = (y[i] ? FN(load_first)(y[i] + j0, width) : (vec){0}) * column_scale * scale[i];
                FN(transpose)(rows);
                memcpy(P, rows, (size_t)(width * LANES) * sizeof(REAL));
                P += (width - LANES) * LANES;
            }
        }
    }
}

/* acc[r][c] += or -= sum over p < depth of a[p][r] b[c][p]. a points to the first of `rows` lanes of a panel, b to the
 * first of `count` panels that are `panel` numbers apart. subtract, rows and count are constants wherever it is inlined. */
INLINE void FN(tile)(int subtract, int rows, int count, ptrdiff_t depth, const REAL *a, const REAL *b, ptrdiff_t panel,
                     vec acc[][TILE_PANELS])
{
    for (ptrdiff_t p = 0; p < depth; p++, a += LANES, b += LANES) {
        vec right[TILE_PANELS];
#pragma GCC unroll 4
        for (int c = 0; c < count; c++)
            right[c] = FN(load)(b + c * panel);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int c = 0; c < count; c++)
                acc[r][c] = subtract ? acc[r][c] - right[c] * a[r] : acc[r][c] + right[c] * a[r];
    }
}

/* C = I + P'P, C += P'P or C -= P'P: P and C, and the numbers in a panel of each */
typedef struct {
    ptrdiff_t depth;
    const REAL *P;
    ptrdiff_t P_panel;
    REAL *C;
    ptrdiff_t C_panel;
} FN(rank_product);

/* `rows` rows of C from row i on, in `count` panels from panel `first` on. */
INLINE void FN(update_tile)(int start, int rows, int count, ptrdiff_t i, ptrdiff_t first,
                            const FN(rank_product) * product)
{
    const ptrdiff_t own = i / LANES;
    const REAL *a = product->P + own * product->P_panel + i % LANES, *b = product->P + first * product->P_panel;
    REAL *C = product->C + first * product->C_panel;
    vec acc[LANES][TILE_PANELS] = {{{0}}};
    FN(tile)(0, rows, count, product->depth, a, b, product->P_panel, acc);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < count; c++) {
            REAL *out = C + c * product->C_panel + (i + r) * LANES;
            FN(store)(out, start == ALS_IDENTITY ? acc[r][c]
                           : start == ALS_ADD    ? FN(load)(out) + acc[r][c]
                                                 : FN(load)(out) - acc[r][c]);
        }
    if (start == ALS_IDENTITY && first == own)
        for (int r = 0; r < rows; r++)
            C[(i + r) * LANES + i % LANES + r] += 1;
}

/* Panels are taken in groups of TILE_PANELS: a group stays in the first-level cache for all strips of TILE_ROWS rows. A
 * single panel has too few independent sums: there the strips of a whole panel are one tile. */
INLINE void FN(update)(int start, ptrdiff_t q, ptrdiff_t depth, const REAL *P, REAL *C, als_ahead *ahead)
{
    const ptrdiff_t last = FN(panels)(q);
    const FN(rank_product) product = {depth, P, depth * LANES, C, last * LANES * LANES};
    /* a lower bound */
    const ptrdiff_t tiles = (q + TILE_ROWS - 1) / TILE_ROWS * (last + 1) / (2 * TILE_PANELS) + 1;
    const ptrdiff_t rows_a_tile = (ahead->n + tiles - 1) / tiles;
    for (ptrdiff_t group = 0; group < last; group += TILE_PANELS) {
        const ptrdiff_t end = group + TILE_PANELS < last ? group + TILE_PANELS : last;
        for (ptrdiff_t i = 0; i < q && i < end * LANES; i += TILE_ROWS) {
            const ptrdiff_t own = i / LANES, first = own > group ? own : group;
            if (end - first == 3)
                FN(update_tile)(start, TILE_ROWS, 3, i, first, &product);
            else if (end - first == 2)
                FN(update_tile)(start, TILE_ROWS, 2, i, first, &product);
            else if (i % LANES == 0)
                FN(update_tile)(start, LANES, 1, i, first, &product);
            fetch(ahead, rows_a_tile);
        }
    }
}

static void FN(rank_update)(int start, ptrdiff_t q, ptrdiff_t depth, const REAL *P, REAL *C, als_ahead *ahead)
{
    if (start == ALS_IDENTITY)
        FN(update)(ALS_IDENTITY, q, depth, P, C, ahead);
    else if (start == ALS_ADD)
        FN(update)(ALS_ADD, q, depth, P, C, ahead);
    else
        FN(update)(ALS_SUBTRACT, q, depth, P, C, ahead);
}

/* How to eliminate among TILE_ROWS rows, from their diagonal block; and what cholesky returns. */
typedef struct {
    REAL multiplier[TILE_ROWS][TILE_ROWS];
    REAL inverse[TILE_ROWS]; /* reciprocals of the pivots */
    REAL cancelled;
    ptrdiff_t bad; /* 1 + the first row whose pivot is not positive or not finite, or 0 */
} FN(elimination);

/* Rows i ... i + TILE_ROWS - 1 of the factor, in `count` panels from panel `first` on: subtract the products with the
 * rows above, then eliminate among the rows. The tile of the rows' own panel is the first; it fills `e`. */
INLINE void FN(eliminate_tile)(int count, ptrdiff_t i, ptrdiff_t first, REAL *C, ptrdiff_t panel, FN(elimination) * e)
{
    const ptrdiff_t own = i / LANES;
    const int diagonal = first == own;
    const REAL *a = C + own * panel + i % LANES;
    REAL *group = C + first * panel;
    vec acc[TILE_ROWS][TILE_PANELS];
    REAL before[TILE_ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < count; c++)
            acc[r][c] = FN(load)(group + c * panel + (i + r) * LANES);
        before[r] = diagonal ? group[(i + r) * LANES + i % LANES + r] : 0;
    }
    FN(tile)(1, TILE_ROWS, count, i, a, group, panel, acc);
#pragma GCC unroll 8
    for (int p = 0; p < TILE_ROWS; p++) {
        if (diagonal) {
            REAL lane[LANES];
            memcpy(lane, &acc[p][0], sizeof lane);
            const REAL *from = lane + i % LANES;
            if (!(from[p] > 0 && from[p] < INFINITY) && !e->bad)
                e->bad = i + p + 1;
            e->inverse[p] = 1 / SQRT(from[p]);
            before[p] *= e->inverse[p] * e->inverse[p];
#pragma GCC unroll 8
            for (int r = p + 1; r < TILE_ROWS; r++)
                e->multiplier[p][r] = from[r] * e->inverse[p];
        }
#pragma GCC unroll 4
        for (int c = 0; c < count; c++)
            acc[p][c] *= e->inverse[p];
#pragma GCC unroll 8
        for (int r = p + 1; r < TILE_ROWS; r++)
#pragma GCC unroll 4
            for (int c = 0; c < count; c++)
                acc[r][c] -= acc[p][c] * e->multiplier[p][r];
    }
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++) {
#pragma GCC unroll 4
        for (int c = 0; c < count; c++)
            FN(store)(group + c * panel + (i + r) * LANES, acc[r][c]);
        if (diagonal)
            e->cancelled = before[r] > e->cancelled ? before[r] : e->cancelled;
    }
}

static ptrdiff_t FN(cholesky)(ptrdiff_t q, REAL *C, REAL *cancelled)
{
    const ptrdiff_t last = FN(panels)(q), panel = last * LANES * LANES;
    FN(elimination) e = {.cancelled = 1};
    for (ptrdiff_t i = 0; i < q && !e.bad; i += TILE_ROWS) {
        const ptrdiff_t own = i / LANES;
        for (ptrdiff_t first = own; first < last; first += TILE_PANELS) {
            if (last - first >= 3)
                FN(eliminate_tile)(3, i, first, C, panel, &e);
            else if (last - first == 2)
                FN(eliminate_tile)(2, i, first, C, panel, &e);
            else
                FN(eliminate_tile)(1, i, first, C, panel, &e);
        }
        for (ptrdiff_t r = 0; r < TILE_ROWS; r++) {
            REAL *row = C + own * panel + (i + r) * LANES;
            memset(row, 0, (size_t)(i % LANES + r) * sizeof(REAL));
            row[i % LANES + r] = e.inverse[r];
        }
    }
    *cancelled = e.cancelled;
    return e.bad;
}

/* TILE_ROWS rows at a time, all in one panel: their own triangle in scalars, all else in vectors. */
static void FN(solve)(ptrdiff_t q, const REAL *U, REAL *b)
{
    const ptrdiff_t last = FN(panels)(q), panel = last * LANES * LANES;
    const ptrdiff_t tiles = (q + TILE_ROWS - 1) / TILE_ROWS;
    REAL z[TILE_ROWS];
    for (ptrdiff_t i = 0; i < tiles * TILE_ROWS; i += TILE_ROWS) {
        const REAL *rows = U + i * LANES, *own = rows + (i / LANES) * panel + i % LANES;
        for (int r = 0; r < TILE_ROWS; r++) {
            z[r] = b[i + r];
            for (int p = 0; p < r; p++)
                z[r] -= own[p * LANES + r] * z[p];
            z[r] *= own[r * LANES + r];
        }
        for (ptrdiff_t c = i / LANES; c < last; c++) {
            vec acc = FN(load)(b + c * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++)
                acc -= FN(load)(rows + c * panel + r * LANES) * z[r];
            FN(store)(b + c * LANES, acc);
        }
        memcpy(b + i, z, sizeof z);
    }
    for (ptrdiff_t i = (tiles - 1) * TILE_ROWS; i >= 0; i -= TILE_ROWS) {
        const REAL *rows = U + i * LANES, *own = rows + (i / LANES) * panel + i % LANES;
        vec acc[TILE_ROWS] = {{0}};
        memcpy(z, b + i, sizeof z);
        memset(b + i, 0, sizeof z);
        for (ptrdiff_t c = i / LANES; c < last; c++) {
            const vec right = FN(load)(b + c * LANES);
#pragma GCC unroll 8
            for (int r = 0; r < TILE_ROWS; r++)
                acc[r] += FN(load)(rows + c * panel + r * LANES) * right;
        }
        for (int r = TILE_ROWS - 1; r >= 0; r--) {
            z[r] -= FN(sum)(acc[r]);
            for (int p = r + 1; p < TILE_ROWS; p++)
                z[r] -= own[r * LANES + p] * z[p];
            z[r] *= own[r * LANES + r];
        }
        memcpy(b + i, z, sizeof z);
    }
}

/* Rows at a time: their sums are independent, so that a product need not wait for the one before it. */
#define ROWS 4

static REAL FN(dot)(ptrdiff_t k, const REAL *a, const REAL *b)
{
    vec acc[ROWS] = {{0}};
    REAL tail = 0;
    ptrdiff_t j = 0;
    for (; j + ROWS * LANES <= k; j += ROWS * LANES)
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++)
            acc[r] += FN(load)(a + j + r * LANES) * FN(load)(b + j + r * LANES);
    for (; j + LANES <= k; j += LANES)
        acc[0] += FN(load)(a + j) * FN(load)(b + j);
    for (; j < k; j++)
        tail += a[j] * b[j];
    return FN(sum)((acc[0] + acc[1]) + (acc[2] + acc[3])) + tail;
}

static void FN(rows_dot)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const REAL *Y, const REAL *x, REAL *out,
                         als_ahead *ahead)
{
    const ptrdiff_t whole = k - k % LANES;
    ptrdiff_t i = 0;
    for (; i + ROWS <= n; i += ROWS) {
        const REAL *y[ROWS];
        vec acc[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            y[r] = Y + cols[i + r] * k;
            acc[r] = (vec){0};
        }
        fetch(ahead, ROWS);
        for (ptrdiff_t j = 0; j < whole; j += LANES) {
            const vec right = FN(load)(x + j);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++)
                acc[r] += FN(load)(y[r] + j) * right;
        }
        for (int r = 0; r < ROWS; r++) {
            REAL tail = 0;
            for (ptrdiff_t j = whole; j < k; j++)
                tail += y[r][j] * x[j];
            out[i + r] = FN(sum)(acc[r]) + tail;
        }
    }
    fetch(ahead, n - i);
    for (; i < n; i++)
        out[i] = FN(dot)(k, Y + cols[i] * k, x);
}

static void FN(rows_dot_wide)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const REAL *Y, const REAL *x, double *out)
{
    const ptrdiff_t whole = k - k % WIDE_LANES;
    for (ptrdiff_t i = 0; i < n; i += ROWS) {
        const REAL *y[ROWS];
        wide acc[ROWS] = {{0}};
        for (int r = 0; r < ROWS; r++)
            y[r] = Y + cols[i + r < n ? i + r : i] * k;
        for (ptrdiff_t j = 0; j < whole; j += WIDE_LANES) {
            const wide right = FN(load_wide)(x + j);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++)
                acc[r] += FN(load_wide)(y[r] + j) * right;
        }
        for (int r = 0; r < ROWS && i + r < n; r++) {
            double total = 0;
            for (ptrdiff_t j = whole; j < k; j++)
                total += (double)y[r][j] * x[j];
            for (int l = 0; l < WIDE_LANES; l++)
                total += acc[r][l];
            out[i + r] = total;
        }
    }
}

static void FN(rows_sum)(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const REAL *Y, const REAL *s, REAL *out)
{
    const ptrdiff_t whole = k - k % LANES;
    ptrdiff_t j = 0;
    for (; j + 8 * LANES <= whole; j += 8 * LANES) {
        vec acc[8];
        memcpy(acc, out + j, sizeof acc);
        for (ptrdiff_t i = 0; i < n; i++) {
            const REAL *y = Y + cols[i] * k + j;
#pragma GCC unroll 8
            for (int c = 0; c < 8; c++)
                acc[c] += FN(load)(y + c * LANES) * s[i];
        }
        memcpy(out + j, acc, sizeof acc);
    }
    for (; j < whole; j += LANES) {
        vec acc = FN(load)(out + j);
        for (ptrdiff_t i = 0; i < n; i++)
            acc += FN(load)(Y + cols[i] * k + j) * s[i];
        FN(store)(out + j, acc);
    }
    for (; j < k; j++)
        for (ptrdiff_t i = 0; i < n; i++)
            out[j] += Y[cols[i] * k + j] * s[i];
}

INLINE ptrdiff_t FN(reach_tile)(int rows, ptrdiff_t first, ptrdiff_t k, const REAL *Q, const REAL *P, const REAL *least,
                                int32_t *place, REAL *product)
{
    enum { GROUP = TILE_PANELS * LANES };
    vec acc[LANES][TILE_PANELS] = {{{0}}};
    FN(ivec) reached = {0};
    int64_t any[ALS_BYTES / 8], some = 0;
    ptrdiff_t found = 0;
    FN(tile)(0, rows, TILE_PANELS, k, Q + first, P, k * LANES, acc);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < TILE_PANELS; c++)
            reached |= acc[r][c] >= least[first + r];
    memcpy(any, &reached, sizeof any);
    for (int l = 0; l < ALS_BYTES / 8; l++)
        some |= any[l];
    if (!some)
        return 0;
    for (int r = 0; r < rows; r++) {
        REAL products[GROUP];
        memcpy(products, acc[r], sizeof products);
        for (int l = 0; l < GROUP; l++) {
            place[found] = (int32_t)((first + r) * GROUP + l);
            product[found] = products[l];
            found += products[l] >= least[first + r];
        }
    }
    return found;
}

static ptrdiff_t FN(reach)(ptrdiff_t rows, ptrdiff_t k, const REAL *Q, const REAL *P, const REAL *least, int32_t *place,
                           REAL *product)
{
    if (rows == 1)
        return FN(reach_tile)(1, 0, k, Q, P, least, place, product);
    ptrdiff_t found = 0;
    for (ptrdiff_t first = 0; first < rows; first += TILE_ROWS)
        found += FN(reach_tile)(TILE_ROWS, first, k, Q, P, least, place + found, product + found);
    return found;
}

#undef vec
#undef wide
#undef STAGE
#undef ROWS
#undef TILE_ROWS
#undef WIDE_LANES
#undef TILE_PANELS
#undef LOW_8
#undef LOW_4
#undef LOW_2
#undef LOW_1
#undef HIGH_8
#undef HIGH_4
#undef HIGH_2
#undef HIGH_1
