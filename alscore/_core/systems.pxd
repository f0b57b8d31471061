"""One row's system in panels: what the built-in solvers share.

A function that takes both an `als_row` and `floating` numbers is called with one precision for both.
"""

from cython cimport floating
from libc.math cimport fabs, sqrt, sqrtf
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from alscore._core.kernel_table cimport (ALS_ADD, ALS_IDENTITY, ALS_SUBTRACT, als_ahead, gather_rows, rank_update,
                                         rows_sum)
from alscore.solver cimport als_row, als_row_f64

cdef enum:
    # Entries in a chunk of a row that may be longer than the scratch memory. Not a power of two: the panels of a chunk
    # would all start in the same sets of the first-level cache.
    CHUNK_ENTRIES = 120
    WIDEST_PANEL = 16   # numbers


cdef inline int64_t padded(int64_t size) noexcept nogil:
    """`size` numbers, rounded up to whole panels of any kernel set."""
    return (size + WIDEST_PANEL - 1) // WIDEST_PANEL * WIDEST_PANEL


cdef inline floating root(floating value) noexcept nogil:
    if floating is float:
        return sqrtf(value)   # sqrt would make the compiler use vectors of double
    else:
        return sqrt(value)


cdef inline bint hopeless(double cancelled) noexcept nogil:
    """Whether a Cholesky factor that reports this cancellation has no correct digit, even in float64."""
    return cancelled > 1e12


cdef inline als_row part_of(const als_row *row, int64_t first, int64_t count) noexcept nogil:
    """The row with `count` of its entries, from entry `first` on."""
    cdef als_row part = row[0]
    part.n = count
    part.cols += first
    part.weight += first
    part.target += first
    return part


cdef inline bint add_products(int start, const als_row *part, const floating *e, floating *P, floating *d, floating *C,
                              als_ahead *ahead) noexcept nogil:
    """C = I + B'B (ALS_IDENTITY) or C += B'B (ALS_ADD) over the part's n <= CHUNK_ENTRIES entries.

    P and d are scratch memory. Returns whether an entry has negative weight.
    """
    cdef int32_t kept[CHUNK_ENTRIES]
    cdef int64_t i, count
    cdef bint subtract, negative = False
    for i in range(part.n):
        negative = negative or part.weight[i] < 0
    for subtract in range(1 + negative):
        count = 0
        for i in range(part.n):
            if (part.weight[i] < 0) if subtract else (part.weight[i] > 0):
                kept[count] = part.cols[i]
                d[count] = root(<floating> fabs(part.weight[i]))
                count += 1
        if count > 0 or (start == ALS_IDENTITY and not subtract):
            gather_rows(count, part.k, kept, <const floating *> part.factors, d, e, P)
            rank_update(ALS_SUBTRACT if subtract else start, part.k, count, P, C, ahead)
    return negative


cdef struct SystemLayout:
    # Where the arrays of `system_in_float64` begin in its scratch memory, in numbers of float64.
    size_t P         # a chunk's scaled factors in panels
    size_t rows      # a chunk's factors
    size_t d         # square roots of a chunk's weights
    size_t weights   # a chunk's
    size_t targets   # a chunk's
    size_t size


cdef inline SystemLayout system_layout(int64_t k) noexcept nogil:
    cdef SystemLayout at
    cdef size_t K = padded(k)
    at.P = 0
    at.rows = at.P + CHUNK_ENTRIES * K
    at.d = at.rows + CHUNK_ENTRIES * K
    at.weights = at.d + CHUNK_ENTRIES
    at.targets = at.weights + CHUNK_ENTRIES
    at.size = at.targets + CHUNK_ENTRIES
    return at


cdef inline bint system_in_float64(int start, const als_row *row, const double *e, double *C, double *b,
                                   double *work) noexcept nogil:
    """C = I + B'B (ALS_IDENTITY) or C += B'B (ALS_ADD), and b = Y't. Returns whether an entry has negative weight."""
    cdef SystemLayout at = system_layout(row.k)
    cdef double *rows = work + at.rows
    cdef double *weights = work + at.weights
    cdef double *targets = work + at.targets
    cdef int64_t k = row.k, i, j, chunk, first, count
    cdef int32_t own[CHUNK_ENTRIES]
    cdef als_row_f64 part
    cdef als_ahead nothing = als_ahead(NULL, 0, NULL, 0)
    cdef bint negative = False
    for i in range(CHUNK_ENTRIES):
        own[i] = <int32_t> i
    memset(b, 0, padded(k) * sizeof(double))
    for chunk in range((row.n + CHUNK_ENTRIES - 1) // CHUNK_ENTRIES):
        first = chunk * CHUNK_ENTRIES
        count = min(row.n - first, CHUNK_ENTRIES)
        for i in range(count):
            weights[i] = row.weight[first + i]
            targets[i] = row.target[first + i]
            for j in range(k):
                rows[i * k + j] = row.factors[row.cols[first + i] * k + j]
        part = als_row_f64(count, k, &own[0], rows, weights, targets, NULL, NULL, NULL, 0, NULL)
        if add_products(ALS_ADD if chunk else start, &part, e, work + at.P, work + at.d, C, &nothing):
            negative = True
        rows_sum(count, k, own, rows, targets, b)
    return negative
