"""Exact top-N search: products in tiles, kept where they reach a query's n-th best, until no norm can reach that.

A product has the same bits wherever it is computed (`reach` in src_c/kernels.h), and results are kept by score, ties:
lower id first. So they do not depend on blocks, on threads, or on which candidates were not scored.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, fabs, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset

from alscore._core.kernel_table cimport gather_columns, group, lanes, reach
from alscore._core.scratch cimport Scratch, aligned
from alscore._core.search cimport position

import numpy as np

cdef enum:
    TILE_GROUPS = 4           # groups of candidates in a tile; queries that are done are dropped after each tile
    BLOCK_QUERIES = 512       # queries in a block, at most
    BLOCK_BYTES = 1 << 18     # bytes of a block's queries, at most: they stay in the second-level cache


cdef struct Candidates:
    # What is searched, in the order of the search.
    int64_t n
    int64_t k
    const void *factors
    const int32_t *order    # n rows of factors, those of the largest norm first
    const void *scale       # n factors to multiply them by, or NULL
    const double *norm      # n norms after that: no product exceeds norm times the query's norm
    const void *packed      # the first n_packed in panels, group by group
    int64_t n_packed
    const uint8_t *banned   # by row of factors, or NULL


cdef struct Excluded:
    # Rows of factors that a query leaves out, ascending; NULL where there are none.
    const int64_t *indptr
    const int32_t *indices


cdef struct Search:
    # One call of `search`. A task is one block of queries on one part of the candidates: every n_parts-th tile.
    Candidates candidates
    Excluded excluded
    int64_t n_queries
    const void *queries
    const double *query_norm
    const void *ones        # scales of 1: k + BLOCK_QUERIES, more than any block or group needs
    int64_t n               # results per query
    int64_t block           # queries per block
    int64_t n_parts
    int32_t *ids            # (n_parts, n_queries, n)
    void *scores            # (n_parts, n_queries, n)


cdef struct Layout:
    # Where a task's arrays begin in its thread's scratch memory, in bytes.
    size_t Q         # the queries that are not done, in panels
    size_t P         # a group of candidates in panels, unless it is packed
    size_t least     # by row of Q: the score that a candidate must reach
    size_t product   # what a call of `reach` returns
    size_t query     # by row of Q: its query in the block, or -1 once that is done
    size_t place     # what a call of `reach` returns
    size_t size


cdef struct Block:
    # A task while it runs. A row is one of Q.
    Excluded excluded
    const double *query_norm
    int32_t *query
    int32_t *place
    int32_t *ids            # n per query: a heap
    int64_t rows
    int64_t not_done        # queries


cdef inline bint worse(floating score_a, int32_t id_a, floating score_b, int32_t id_b) noexcept nogil:
    return score_a < score_b or (score_a == score_b and id_a > id_b)


cdef void replace_worst(int64_t n, int32_t *ids, floating *scores, int32_t new_id, floating new_score) noexcept nogil:
    """Replace the worst result, which is the root of the heap, by a better candidate."""
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
    """Sort a heap whose root is its worst result, in place."""
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


# `precision` is never read: Cython chooses the version of a function by the types of its arguments.
cdef inline double limit(const floating *precision) noexcept nogil:
    """Half the largest number. A product whose bound is below it cannot overflow."""
    return 1.7e38 if floating is float else 8.9e307


cdef inline double bound(double product_of_norms, int64_t k, const floating *precision) noexcept nogil:
    """An upper bound of a computed product of k terms, rounding and underflow included."""
    cdef double eps = 2.4e-7 if floating is float else 4.5e-16
    cdef double tiny = 1.5e-45 if floating is float else 5e-324
    return product_of_norms * (1 + (k + 8) * eps) + (k + 8) * tiny


cdef inline int64_t ceiling(int64_t a, int64_t b) noexcept nogil:
    """a / b, rounded up"""
    return (a + b - 1) // b


cdef Layout layout(int64_t block, int64_t k, const floating *precision) noexcept nogil:
    """For blocks of at most `block` queries. `block` is a multiple of the lanes."""
    cdef Layout at
    cdef size_t width = group(precision), panel = lanes(precision)
    at.Q = 0
    at.P = at.Q + aligned(block * k * sizeof(floating))
    at.least = at.P + aligned(width * k * sizeof(floating))
    at.product = at.least + aligned(block * sizeof(floating))
    at.query = at.product + aligned(panel * width * sizeof(floating))
    at.place = at.query + aligned(block * sizeof(int32_t))
    at.size = at.place + aligned(panel * width * sizeof(int32_t))
    return at


cdef void drop_done(Block *block, const Candidates *c, int64_t start, floating *least) noexcept nogil:
    """Mark the queries whose n-th best result no candidate from `start` on reaches."""
    cdef int64_t row, query
    cdef double most
    for row in range(block.rows):
        query = block.query[row]
        if query >= 0:
            most = bound(block.query_norm[query] * c.norm[start], c.k, least)
            if most < least[row] and most < limit(least):
                block.query[row], least[row] = -1, INFINITY
                block.not_done -= 1


cdef void compact(Block *block, int64_t k, const floating *queries, const floating *ones, floating *least,
                  floating *Q) noexcept nogil:
    """Fill Q with the queries that are not done, one after the other."""
    cdef int64_t row, kept = 0, panel = lanes(Q)
    for row in range(block.rows):
        if block.query[row] >= 0:
            block.query[kept], least[kept] = block.query[row], least[row]
            kept = kept + 1
    block.rows = block.not_done
    for row in range(block.rows, ceiling(block.rows, panel) * panel):
        least[row] = INFINITY
    gather_columns(block.rows, k, block.query, queries, ones, ones, Q)


cdef inline const floating *panels_of(const Candidates *c, int64_t begin, int64_t stop, const floating *ones,
                                      floating *P) noexcept nogil:
    """The group of candidates from `begin` on, before `stop`, in panels: as packed, or in P, which is filled."""
    cdef int64_t width = group(P)
    cdef const floating *scale = ones
    if begin < c.n_packed:
        return <const floating *> c.packed + begin * c.k
    if c.scale != NULL:
        scale = <const floating *> c.scale + begin
    if stop - begin < width:
        memset(P, 0, aligned(width * c.k * sizeof(floating)))
    gather_columns(min(width, stop - begin), c.k, c.order + begin, <const floating *> c.factors, scale, ones, P)
    return P


cdef inline void keep_better(const Search *search, const Block *block, int64_t row, int64_t candidate_at,
                             floating product, floating *scores, floating *least) noexcept nogil:
    """Put a candidate among the results of a row's query, if it is better than their worst and may be returned."""
    cdef int64_t query = block.query[row], n = search.n
    cdef int32_t candidate = search.candidates.order[candidate_at]
    cdef int32_t *ids = block.ids + query * n
    scores += query * n
    if (worse(scores[0], ids[0], product, candidate)
            and allowed(search.candidates.banned, block.excluded, query, candidate)):
        replace_worst(n, ids, scores, candidate, product)
        least[row] = scores[0]


cdef inline void search_group(const Search *search, Block *block, int64_t begin, int64_t stop, const floating *panels,
                              const Layout *at, char *memory, floating *scores) noexcept nogil:
    """Keep what is better of the group of candidates from `begin` on, before `stop`, which is in `panels`."""
    cdef const floating *Q = <const floating *> (memory + at.Q)
    cdef floating *least = <floating *> (memory + at.least)
    cdef floating *product = <floating *> (memory + at.product)
    cdef int64_t k = search.candidates.k, width = group(panels), lane_rows = lanes(panels)
    cdef int64_t first = 0, row, candidate_at, i, n_reached
    while first < block.rows:
        n_reached = reach(min(lane_rows, block.rows - first), k, Q + first * k, panels, least + first, block.place,
                          product)
        for i in range(n_reached):
            row = first + block.place[i] // width
            candidate_at = begin + block.place[i] % width
            if candidate_at < stop and block.query[row] >= 0:   # not padding, and not done
                keep_better(search, block, row, candidate_at, product[i], scores, least)
        first += lane_rows


cdef void search_block(const Search *search, Block *block, int64_t part, const Layout *at, char *memory,
                       const floating *queries, floating *scores) noexcept nogil:
    """Heaps of the n best candidates of every n_parts-th tile, from tile `part` on, for one block of queries."""
    cdef const Candidates *c = &search.candidates
    cdef const floating *ones = <const floating *> search.ones
    cdef floating *Q = <floating *> (memory + at.Q)
    cdef floating *P = <floating *> (memory + at.P)
    cdef floating *least = <floating *> (memory + at.least)
    cdef int64_t width = group(queries), tile = TILE_GROUPS * width, start = part * tile, begin, stop, row, i
    cdef bint gathered = False
    for row in range(block.rows):
        block.query[row] = <int32_t> row
        least[row] = -INFINITY
    for i in range(block.rows * search.n):
        block.ids[i], scores[i] = -1, -INFINITY
    while start < c.n:
        drop_done(block, c, start, least)
        if block.not_done == 0:
            break
        if not gathered or 8 * block.not_done <= 7 * block.rows:
            compact(block, c.k, queries, ones, least, Q)
            gathered = True
        begin, stop = start, min(start + tile, c.n)
        while begin < stop:
            search_group(search, block, begin, stop, panels_of(c, begin, stop, ones, P), at, memory, scores)
            begin += width
        start += tile * search.n_parts


cdef void search_task(const Search *search, int64_t task, const Layout *at, char *memory,
                      const floating *precision) noexcept nogil:
    cdef int64_t first = task // search.n_parts * search.block, part = task % search.n_parts
    cdef int64_t out = (part * search.n_queries + first) * search.n
    cdef Block block
    block.excluded = search.excluded
    if block.excluded.indptr != NULL:
        block.excluded.indptr += first
    block.query_norm = search.query_norm + first
    block.query = <int32_t *> (memory + at.query)
    block.place = <int32_t *> (memory + at.place)
    block.ids = search.ids + out
    block.rows = block.not_done = min(search.block, search.n_queries - first)
    search_block(search, &block, part, at, memory, <const floating *> search.queries + first * search.candidates.k,
                 <floating *> search.scores + out)


cdef void merge(int64_t n, int64_t n_parts, int64_t part_step, int32_t *ids, floating *scores) noexcept nogil:
    """Merge the heaps of a query's parts into that of the first part, and sort it."""
    cdef int64_t part, i
    for part in range(1, n_parts):
        for i in range(part * part_step, part * part_step + n):
            if worse(scores[0], ids[0], scores[i], ids[i]):
                replace_worst(n, ids, scores, ids[i], scores[i])
    sort_best_first(n, ids, scores)


def search(const floating[:, ::1] queries, const double[::1] query_norm, candidates, exclude,
           const uint8_t[::1] banned, int64_t n, int num_threads):
    """Each query's n best candidates, best first; id -1 and -inf where there are fewer.

    `candidates` is a `retrieval.Candidates` of the dtype of the queries. Row q of `exclude` (CanonicalRows or None) has
    the candidates that query q leaves out. `banned`: uint8 by row of `candidates.factors`, not 0 where a row must not
    be returned; or None.
    """
    cdef const floating[:, ::1] factors = candidates.factors
    cdef const floating[::1] scale = candidates.scale, packed = candidates.panels
    cdef const int32_t[::1] order = candidates.order, exclude_indices = None if exclude is None else exclude.indices
    cdef const int64_t[::1] exclude_indptr = None if exclude is None else exclude.indptr
    cdef const double[::1] norm = candidates.norm
    cdef int64_t n_queries = queries.shape[0], k = queries.shape[1], n_order = order.shape[0], i
    if (factors.shape[1] != k or query_norm.shape[0] != n_queries or norm.shape[0] != n_order
            or (scale is not None and scale.shape[0] != n_order)
            or (exclude_indptr is not None and exclude_indptr.shape[0] != n_queries + 1)
            or (banned is not None and banned.shape[0] != factors.shape[0])):
        raise ValueError("the arrays do not fit each other")
    for i in range(n_order):
        if not 0 <= order[i] < factors.shape[0]:
            raise ValueError("order has a row that factors lack")
    if exclude_indptr is not None:
        for i in range(n_queries):
            if not 0 <= exclude_indptr[i] <= exclude_indptr[i + 1] <= exclude_indices.shape[0]:
                raise ValueError("exclude_indptr points outside of exclude_indices")
    dtype = np.float32 if floating is float else np.float64
    if n_queries == 0 or n_order == 0 or n == 0:
        return np.full((n_queries, n), -1, np.int32), np.full((n_queries, n), -np.inf, dtype)

    cdef Search job
    cdef Candidates *c = &job.candidates
    cdef floating[::1] ones = np.ones(k + BLOCK_QUERIES, dtype)
    c.n, c.k, c.factors, c.order, c.norm = n_order, k, &factors[0, 0], &order[0], &norm[0]
    c.scale = NULL if scale is None else &scale[0]
    c.n_packed = 0 if packed is None else packed.shape[0] // k
    c.packed = NULL if c.n_packed == 0 else &packed[0]
    c.banned = NULL if banned is None else &banned[0]
    job.excluded = Excluded(NULL, NULL)
    if exclude_indptr is not None and exclude_indices.shape[0] > 0:
        job.excluded = Excluded(&exclude_indptr[0], &exclude_indices[0])
    job.n_queries, job.queries, job.query_norm = n_queries, &queries[0, 0], &query_norm[0]
    job.ones, job.n = &ones[0], n
    split(&job, num_threads, &ones[0])
    cdef int32_t[:, :, ::1] ids = np.empty((job.n_parts, n_queries, n), np.int32)
    cdef floating[:, :, ::1] scores = np.empty((job.n_parts, n_queries, n), dtype)
    job.ids, job.scores = &ids[0, 0, 0], &scores[0, 0, 0]
    run(&job, num_threads, &ones[0])
    results = np.asarray(ids)[0], np.asarray(scores)[0]
    return results if job.n_parts == 1 else (results[0].copy(), results[1].copy())   # no views of all parts


cdef void split(Search *search, int64_t num_threads, const floating *precision) noexcept nogil:
    """Choose the queries per block and the parts of the candidates."""
    cdef int64_t panel = lanes(precision), row_bytes = search.candidates.k * sizeof(floating)
    cdef int64_t share = ceiling(search.n_queries, num_threads), n_blocks, most_parts
    search.block = min(min(share, <int64_t> BLOCK_QUERIES), max(BLOCK_BYTES // row_bytes, panel))
    search.block = ceiling(search.block, panel) * panel
    # parts: where there are more threads than blocks, and candidates enough for all of them
    n_blocks = ceiling(search.n_queries, search.block)
    most_parts = search.candidates.n // max(search.n, TILE_GROUPS * group(precision))
    search.n_parts = max(min(ceiling(num_threads, n_blocks), most_parts), 1)


cdef run(const Search *search, int num_threads, const floating *precision):
    """Run all tasks. Then merge the results of all parts of each query into those of the first part, best first."""
    cdef Layout at = layout(search.block, search.candidates.k, precision)
    cdef Scratch scratch = Scratch(num_threads, at.size)
    cdef int64_t n_tasks = ceiling(search.n_queries, search.block) * search.n_parts, task, query
    for task in prange(n_tasks, nogil=True, schedule="dynamic", num_threads=num_threads):
        search_task(search, task, &at, scratch.first + threadid() * scratch.step, precision)
    for query in prange(search.n_queries, nogil=True, schedule="static", num_threads=num_threads):
        merge(search.n, search.n_parts, search.n_queries * search.n, search.ids + query * search.n,
              <floating *> search.scores + query * search.n)


def best(const floating[:, ::1] scores, const int64_t[::1] exclude_indptr, const int32_t[::1] exclude_indices,
         int64_t n, int num_threads):
    """The ids of the n best scores of each row, best first: int32; -1 where fewer are above -inf.

    Row q leaves out ids as query q of `search` does.
    """
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


cdef double norm_of(int64_t k, const floating *x) noexcept nogil:
    """The norm |x| or a little more, without overflow or underflow."""
    cdef int64_t j
    cdef double largest = 0, total = 0
    for j in range(k):
        largest = max(largest, fabs(<double> x[j]))
    if largest == 0 or largest == INFINITY:
        return largest
    for j in range(k):
        total += (x[j] / largest) * (x[j] / largest)
    return largest * sqrt(total) + 5e-324   # the smallest numbers have large rounding errors


def norms(const floating[:, ::1] factors, int num_threads):
    """The norm of each row, float64."""
    cdef int64_t i, k = factors.shape[1]
    cdef double[::1] out = np.empty(factors.shape[0])
    for i in prange(factors.shape[0], nogil=True, schedule="static", num_threads=num_threads):
        out[i] = norm_of(k, &factors[i, 0])
    return np.asarray(out)


def pack(const floating[:, ::1] factors, const int32_t[::1] order, const floating[::1] scale, int64_t n,
         int num_threads):
    """Return `retrieval.Candidates.panels`: the first n candidates of `order`, rounded up to whole groups."""
    cdef const floating *precision = NULL
    cdef int64_t width = group(precision), k = factors.shape[1], n_groups = ceiling(n, width), i
    dtype = np.float32 if floating is float else np.float64
    cdef floating[::1] out = np.zeros(n_groups * width * k, dtype)
    cdef floating[::1] ones = np.ones(k + width, dtype)
    for i in prange(n_groups, nogil=True, schedule="static", num_threads=num_threads):
        gather_columns(min(width, order.shape[0] - i * width), k, &order[i * width], &factors[0, 0],
                       &ones[0] if scale is None else &scale[i * width], &ones[0], &out[i * width * k])
    return np.asarray(out)
