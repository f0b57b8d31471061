"""Exact top-N: products in tiles, kept where they reach a query's N-th best, until no norm can reach that any more.

Every product has the same bits wherever it is computed (`reach` in src_c/kernels.h), and of those kept the better by
score, then by the lower id, stays. So the answer does not depend on blocks, on threads, or on what was not scored.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY, fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from alscore._core.kernel_table cimport gather_columns, group, lanes, reach
from alscore._core.search cimport position

import numpy as np

cdef enum:
    GROUPS = 4             # of candidates in a tile, between two looks at which queries are done
    QUERIES = 512          # in one block at most,
    BLOCK_BYTES = 1 << 18  # and as many as fit this, so that they stay in the second-level cache
    ALIGNMENT = 64


cdef struct Candidates:
    # what is searched, in the order of the search
    int64_t n
    int64_t k
    const void *factors
    const int32_t *order    # rows of factors, those of the largest norm first
    const void *scale       # by which each is multiplied
    const double *norm      # of each, scaled: no product exceeds it times the query's
    const void *packed      # the first n_packed in panels, group by group
    int64_t n_packed
    const uint8_t *banned   # by row of factors, or NULL


cdef struct Excluded:
    # rows of factors that a query leaves out, ascending; NULL where there are none
    const int64_t *indptr
    const int32_t *indices


cdef inline bint worse(floating score_a, int32_t id_a, floating score_b, int32_t id_b) noexcept nogil:
    return score_a < score_b or (score_a == score_b and id_a > id_b)


cdef void replace_worst(int64_t n, int32_t *ids, floating *scores, int32_t new_id, floating new_score) noexcept nogil:
    """Put a better candidate in the place of the root of a heap whose root is its worst."""
    cdef int64_t place = 0, child = 1
    while child < n:
        if child + 1 < n and worse(scores[child + 1], ids[child + 1], scores[child], ids[child]):
            child += 1
        if not worse(scores[child], ids[child], new_score, new_id):
            break
        scores[place] = scores[child]
        ids[place] = ids[child]
        place = child
        child = 2 * place + 1
    scores[place] = new_score
    ids[place] = new_id


cdef void sort_best_first(int64_t n, int32_t *ids, floating *scores) noexcept nogil:
    cdef int64_t last
    cdef int32_t worst_id
    cdef floating worst_score
    for last in range(n - 1, 0, -1):
        worst_id, worst_score = ids[0], scores[0]
        replace_worst(last, ids, scores, ids[last], scores[last])
        ids[last], scores[last] = worst_id, worst_score


cdef inline bint allowed(const uint8_t *banned, Excluded excluded, int64_t query, int32_t candidate) noexcept nogil:
    if banned != NULL and banned[candidate]:
        return False
    if excluded.indptr == NULL:
        return True
    return position(excluded.indices, excluded.indptr[query], excluded.indptr[query + 1], candidate) < 0


cdef inline double limit(const floating *precision) noexcept nogil:
    """Half the largest number: what may exceed it may be infinite."""
    return 1.7e38 if floating is float else 8.9e307


cdef inline double bound(double product_of_norms, int64_t k, const floating *precision) noexcept nogil:
    """What no computed product of k terms exceeds, rounding and underflow included."""
    cdef double eps = 2.4e-7 if floating is float else 4.5e-16
    cdef double tiny = 1.5e-45 if floating is float else 5e-324
    return product_of_norms * (1 + (k + 8) * eps) + (k + 8) * tiny


cdef inline int64_t ceiling(int64_t a, int64_t b) noexcept nogil:
    """a / b, rounded up"""
    return (a + b - 1) // b


cdef inline size_t aligned(size_t size) noexcept nogil:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


cdef int search_block(const Candidates *c, Excluded excluded, int64_t n_queries, const floating *queries,
                const double *query_norm, const floating *ones, int64_t first_tile, int64_t tile_step, int64_t n,
                int32_t *ids, floating *scores) noexcept nogil:
    """Heaps of the n best of every tile_step-th tile, for one block of queries."""
    cdef int64_t k = c.k, width = group(queries), panel = lanes(queries), tile = GROUPS * width
    cdef int64_t capacity = ceiling(n_queries, panel) * panel
    cdef size_t size_Q = aligned(capacity * k * sizeof(floating)), size_P = aligned(width * k * sizeof(floating))
    cdef size_t size_least = aligned(capacity * sizeof(floating)), size_who = aligned(capacity * sizeof(int32_t))
    cdef size_t size_product = aligned(panel * width * sizeof(floating))
    cdef size_t size_place = aligned(panel * width * sizeof(int32_t))
    cdef char *raw = <char *> malloc(size_Q + size_P + size_least + size_who + size_product + size_place + ALIGNMENT)
    cdef char *at = raw + (ALIGNMENT - <size_t> raw % ALIGNMENT)
    if raw == NULL:
        return 1
    cdef floating *Q = <floating *> at
    cdef floating *P = <floating *> (at + size_Q)
    cdef floating *least = <floating *> (at + size_Q + size_P)
    cdef floating *product = <floating *> (at + size_Q + size_P + size_least)
    cdef int32_t *who = <int32_t *> (at + size_Q + size_P + size_least + size_product)
    cdef int32_t *place = <int32_t *> (at + size_Q + size_P + size_least + size_product + size_who)
    cdef const floating *factors = <const floating *> c.factors
    cdef const floating *scale = <const floating *> c.scale
    cdef const floating *group_P
    cdef int64_t rows = n_queries, alive = n_queries, start = first_tile * tile, stop, begin, row, i
    cdef int64_t found, q, slot, column
    cdef double most
    cdef int32_t candidate
    for row in range(rows):
        who[row] = <int32_t> row
        least[row] = -INFINITY
    for i in range(n_queries * n):
        ids[i], scores[i] = -1, -INFINITY
    while start < c.n:
        # who is done: no candidate from here on reaches its n-th best
        for row in range(rows):
            q = who[row]
            if q >= 0:
                most = bound(query_norm[q] * c.norm[start], k, queries)
                if most < least[row] and most < limit(queries):
                    who[row], least[row] = -1, INFINITY
                    alive -= 1
        if alive == 0:
            break
        if start == first_tile * tile or 8 * alive <= 7 * rows:
            i = 0
            for row in range(rows):
                if who[row] >= 0:
                    who[i], least[i] = who[row], least[row]
                    i = i + 1
            rows = alive
            for row in range(rows, ceiling(rows, panel) * panel):
                least[row] = INFINITY
            gather_columns(rows, k, who, queries, ones, ones, Q)
        stop = min(start + tile, c.n)
        begin = start
        while begin < stop:
            if begin < c.n_packed:
                group_P = <const floating *> c.packed + begin * k
            else:
                if stop - begin < width:
                    memset(P, 0, size_P)
                gather_columns(min(width, stop - begin), k, c.order + begin, factors,
                               ones if scale == NULL else scale + begin, ones, P)
                group_P = P
            row = 0
            while row < rows:
                found = reach(min(panel, rows - row), k, Q + row * k, group_P, least + row, place, product)
                for i in range(found):
                    slot, column = row + place[i] // width, begin + place[i] % width
                    q = who[slot]
                    if column >= stop or q < 0:   # padding; done
                        continue
                    candidate = c.order[column]
                    if (worse(scores[q * n], ids[q * n], product[i], candidate)
                            and allowed(c.banned, excluded, q, candidate)):
                        replace_worst(n, ids + q * n, scores + q * n, candidate, product[i])
                        least[slot] = scores[q * n]
                row += panel
            begin += width
        start += tile * tile_step
    free(raw)
    return 0


cdef void merge(int64_t n, int64_t n_parts, int64_t part_step, int32_t *ids, floating *scores) noexcept nogil:
    """The heaps of one query's parts into the first of them, sorted."""
    cdef int64_t part, i
    for part in range(1, n_parts):
        for i in range(part * part_step, part * part_step + n):
            if worse(scores[0], ids[0], scores[i], ids[i]):
                replace_worst(n, ids, scores, ids[i], scores[i])
    sort_best_first(n, ids, scores)


def search(const floating[:, ::1] queries, const double[::1] query_norm, const floating[:, ::1] factors,
          const int32_t[::1] order, const floating[::1] scale, const double[::1] norm, const floating[::1] packed,
          const int64_t[::1] exclude_indptr, const int32_t[::1] exclude_indices, const uint8_t[::1] banned,
          int64_t n, int num_threads):
    """Each query's n best of the factors named in `order`, best first; as many as there are, id -1 and -inf after them.

    `order`, `scale`, `norm` and `packed` are as in `Candidates` above. Row q leaves out the ascending `exclude_indices`
    between its two `exclude_indptr`, and what `banned` marks.
    """
    cdef int64_t n_queries = queries.shape[0], k = queries.shape[1], n_order = order.shape[0], i
    if (factors.shape[1] != k or query_norm.shape[0] != n_queries or norm.shape[0] != n_order
            or (scale is not None and scale.shape[0] != n_order)
            or (exclude_indptr is not None and exclude_indptr.shape[0] != n_queries + 1)
            or (banned is not None and banned.shape[0] != factors.shape[0])):
        raise ValueError("the arrays do not fit each other")
    for i in range(n_order):
        if not 0 <= order[i] < factors.shape[0]:
            raise ValueError("order names a row that there is not")
    if exclude_indptr is not None:
        for i in range(n_queries):
            if not 0 <= exclude_indptr[i] <= exclude_indptr[i + 1] <= exclude_indices.shape[0]:
                raise ValueError("exclude_indptr points outside of exclude_indices")
    dtype = np.float32 if floating is float else np.float64
    if n_queries == 0 or n_order == 0 or n == 0:
        return np.full((n_queries, n), -1, np.int32), np.full((n_queries, n), -np.inf, dtype)

    cdef const floating *precision = NULL
    cdef int64_t panel = lanes(precision), row_bytes = k * sizeof(floating)
    cdef int64_t share = ceiling(n_queries, num_threads)
    cdef int64_t block = min(min(share, <int64_t> QUERIES), max(BLOCK_BYTES // row_bytes, panel))
    block = ceiling(block, panel) * panel
    cdef int64_t n_blocks = ceiling(n_queries, block)
    # where there are more threads than blocks, and candidates enough for all of them
    cdef int64_t n_parts = max(min(ceiling(num_threads, n_blocks), n_order // max(n, GROUPS * group(precision))), 1)
    cdef floating[::1] ones = np.ones(k + QUERIES, dtype)
    cdef int32_t[:, :, ::1] ids = np.empty((n_parts, n_queries, n), np.int32)
    cdef floating[:, :, ::1] scores = np.empty((n_parts, n_queries, n), dtype)
    cdef Candidates c
    cdef Excluded excluded
    cdef int64_t task
    cdef int failed = 0
    c.n, c.k, c.factors, c.order, c.norm = n_order, k, &factors[0, 0], &order[0], &norm[0]
    c.scale = NULL if scale is None else &scale[0]
    c.n_packed = 0 if packed is None else packed.shape[0] // k
    c.packed = NULL if c.n_packed == 0 else &packed[0]
    c.banned = NULL if banned is None else &banned[0]
    excluded.indptr, excluded.indices = NULL, NULL
    if exclude_indptr is not None and exclude_indices.shape[0] > 0:
        excluded.indptr, excluded.indices = &exclude_indptr[0], &exclude_indices[0]
    for task in prange(n_blocks * n_parts, nogil=True, schedule="dynamic", num_threads=num_threads):
        failed |= search_task(&c, excluded, n_queries, block, n_parts, task, &queries[0, 0], &query_norm[0], &ones[0],
                              n, &ids[0, 0, 0], &scores[0, 0, 0])
    if failed:
        raise MemoryError("no memory for the scores of one block of queries")
    for i in prange(n_queries, nogil=True, schedule="static", num_threads=num_threads):
        merge(n, n_parts, n_queries * n, &ids[0, i, 0], &scores[0, i, 0])
    found = np.asarray(ids)[0], np.asarray(scores)[0]
    return found if n_parts == 1 else (found[0].copy(), found[1].copy())   # not views that hold the other parts


def best(const floating[:, ::1] scores, const int64_t[::1] exclude_indptr, const int32_t[::1] exclude_indices,
         int64_t n, int num_threads):
    """The n best ids of each row of scores, as from `search`: int32, -1 where none above -inf is left."""
    cdef int64_t n_queries = scores.shape[0], query
    dtype = np.float32 if floating is float else np.float64
    cdef int32_t[:, ::1] ids = np.full((n_queries, n), -1, np.int32)
    cdef floating[:, ::1] heap = np.full((n_queries, n), -np.inf, dtype)
    cdef Excluded excluded
    excluded.indptr = &exclude_indptr[0]
    excluded.indices = &exclude_indices[0] if exclude_indices.shape[0] > 0 else NULL
    for query in prange(n_queries, nogil=True, schedule="dynamic", num_threads=num_threads):
        best_of_row(&scores[query, 0], scores.shape[1], excluded, query, n, &ids[query, 0], &heap[query, 0])
    return np.asarray(ids)


cdef void best_of_row(const floating *scores, int64_t n_scores, Excluded excluded, int64_t query, int64_t n,
                      int32_t *ids, floating *heap) noexcept nogil:
    cdef int32_t candidate
    for candidate in range(<int32_t> n_scores):
        if (worse(heap[0], ids[0], scores[candidate], candidate)
                and allowed(NULL, excluded, query, candidate)):
            replace_worst(n, ids, heap, candidate, scores[candidate])
    sort_best_first(n, ids, heap)


cdef int search_task(const Candidates *c, Excluded excluded, int64_t n_queries, int64_t block, int64_t n_parts,
                     int64_t task, const floating *queries, const double *query_norm, const floating *ones, int64_t n,
                     int32_t *ids, floating *scores) noexcept nogil:
    cdef int64_t first = task // n_parts * block, part = task % n_parts, out = (part * n_queries + first) * n
    if excluded.indptr != NULL:
        excluded.indptr += first
    return search_block(c, excluded, min(block, n_queries - first), queries + first * c.k, query_norm + first, ones, part,
                  n_parts, n, ids + out, scores + out)


cdef double norm_of(int64_t k, const floating *x) noexcept nogil:
    """|x|, whatever its magnitude, or a little more."""
    cdef int64_t j
    cdef double largest = 0, total = 0
    for j in range(k):
        largest = max(largest, fabs(<double> x[j]))
    if largest == 0 or largest == INFINITY:
        return largest
    for j in range(k):
        total += (x[j] / largest) * (x[j] / largest)
    return largest * sqrt(total) + 5e-324   # the smallest numbers round by much


def norms(const floating[:, ::1] factors, int num_threads):
    """The length of each row, float64."""
    cdef int64_t i, k = factors.shape[1]
    cdef double[::1] out = np.empty(factors.shape[0])
    for i in prange(factors.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        out[i] = norm_of(k, &factors[i, 0])
    return np.asarray(out)


def pack(const floating[:, ::1] factors, const int32_t[::1] order, const floating[::1] scale, int64_t n,
         int num_threads):
    """The first n of `order`, in whole groups, as `Candidates.packed`."""
    cdef const floating *precision = NULL
    cdef int64_t width = group(precision), k = factors.shape[1], n_groups = ceiling(n, width), i
    dtype = np.float32 if floating is float else np.float64
    cdef floating[::1] out = np.zeros(n_groups * width * k, dtype)
    cdef floating[::1] ones = np.ones(k + width, dtype)
    for i in prange(n_groups, nogil=True, schedule="static", num_threads=num_threads):
        gather_columns(min(width, order.shape[0] - i * width), k, &order[i * width], &factors[0, 0],
                       &ones[0] if scale is None else &scale[i * width], &ones[0], &out[i * width * k])
    return np.asarray(out)
