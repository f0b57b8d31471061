/* One row by element-wise ALS, for one REAL and one ROW. Each factor in turn moves to its minimum while the others are
 * fixed. */

static int NAME(const void *params, const ROW *row, void *work)
{
    const int64_t n = row->n, k = row->k;
    const REAL *w = row->weight;
    REAL *x = row->x, *s = work; /* s = t - D Y x, updated with every step */
    (void)params;

    for (int64_t i = 0; i < n; i++) {
        REAL score = 0;
        for (int64_t j = 0; j < k; j++)
            score += row->factors[row->cols[i] * k + j] * x[j];
        s[i] = row->target[i] - w[i] * score;
    }
    for (int64_t j = 0; j < k; j++) {
        const REAL *y = row->factors + j; /* its numbers are k apart */
        REAL slope = -row->diag[j] * x[j], curvature = row->diag[j];
        for (int64_t i = 0; i < n; i++) {
            slope += s[i] * y[row->cols[i] * k];
            curvature += w[i] * y[row->cols[i] * k] * y[row->cols[i] * k];
        }
        if (!(curvature > 0))
            return ALSCORE_NOT_POSITIVE_DEFINITE;
        x[j] += slope / curvature;
        for (int64_t i = 0; i < n; i++)
            s[i] -= w[i] * y[row->cols[i] * k] * (slope / curvature);
    }
    return ALSCORE_OK;
}
