"""Exact top-N: scores in tiles by GEMM, masked and selected inside the tile, parallel over blocks of queries."""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc

from alscore._blas cimport gemm_nt

cdef enum:
    QUERIES = 32   # in one block
    TILE = 1024    # factors scored at a time: QUERIES x TILE scores stay in the second-level cache


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


cdef int select_block(int64_t n_queries, int64_t n_factors, int64_t k, int64_t n, const floating *queries,
                      const floating *factors, const int64_t *exclude_indptr, const int32_t *exclude_indices,
                      const uint8_t *banned, int32_t *ids, floating *scores) noexcept nogil:
    cdef int64_t start, width, q, i
    cdef int64_t next_excluded[QUERIES]
    cdef floating *tile = <floating *> malloc(QUERIES * TILE * sizeof(floating))
    cdef floating *row
    if tile == NULL:
        return 1
    for q in range(n_queries):
        next_excluded[q] = exclude_indptr[q] if exclude_indptr != NULL else 0
    for i in range(n_queries * n):
        ids[i], scores[i] = -1, -INFINITY
    start = 0
    while start < n_factors:
        width = min(<int64_t> TILE, n_factors - start)
        gemm_nt(<int> n_queries, <int> width, <int> k, queries, factors + start * k, tile)
        for q in range(n_queries):
            row = tile + q * width
            if banned != NULL:
                for i in range(width):
                    if banned[start + i]:
                        row[i] = -INFINITY
            if exclude_indptr != NULL:
                i = next_excluded[q]
                while i < exclude_indptr[q + 1] and exclude_indices[i] < start + width:
                    row[exclude_indices[i] - start] = -INFINITY
                    i = i + 1
                next_excluded[q] = i
            # ids rise, so of two equal scores the first comer, the lower id, stays
            for i in range(width):
                if row[i] > scores[q * n]:
                    replace_worst(n, ids + q * n, scores + q * n, <int32_t> (start + i), row[i])
        start += TILE
    for q in range(n_queries):
        sort_best_first(n, ids + q * n, scores + q * n)
    free(tile)
    return 0


def top_n(const floating[:, ::1] queries, const floating[:, ::1] factors, const int64_t[::1] exclude_indptr,
          const int32_t[::1] exclude_indices, const uint8_t[::1] banned, int32_t[:, ::1] ids,
          floating[:, ::1] scores, int num_threads):
    """Fill `ids` and `scores` (queries, n) with each query's best factors by inner product, best first.

    Row q leaves out the sorted `exclude_indices` between its two `exclude_indptr`, and what `banned` marks.
    """
    cdef int64_t n_queries = queries.shape[0], n_factors = factors.shape[0], k = queries.shape[1], n = ids.shape[1]
    cdef int64_t block
    cdef int failed = 0
    cdef const int64_t *indptr = NULL
    cdef const int32_t *excluded = NULL
    cdef const uint8_t *mask = NULL
    if (factors.shape[1] != k or ids.shape[0] != n_queries or scores.shape[0] != n_queries or scores.shape[1] != n
            or (exclude_indptr is not None and exclude_indptr.shape[0] != n_queries + 1)
            or (banned is not None and banned.shape[0] != n_factors)):
        raise ValueError("the arrays do not fit each other")
    if n_queries == 0 or n_factors == 0 or n == 0:
        ids[:, :] = -1
        scores[:, :] = -INFINITY
        return
    if exclude_indptr is not None and exclude_indices.shape[0] > 0:
        indptr, excluded = &exclude_indptr[0], &exclude_indices[0]
    if banned is not None:
        mask = &banned[0]
    for block in prange(0, n_queries, QUERIES, nogil=True, schedule="dynamic", num_threads=num_threads):
        failed |= select_block(min(<int64_t> QUERIES, n_queries - block), n_factors, k, n, &queries[block, 0],
                               &factors[0, 0], indptr + block if indptr != NULL else NULL, excluded, mask,
                               &ids[block, 0], &scores[block, 0])
    if failed:
        raise MemoryError("no memory for the scores of one block")
