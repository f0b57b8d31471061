"""The loops of the metrics, over ranked items and rows of sparse matrices. Same bits for any number of threads.

The matrices must be canonical. The callers verify ids and shapes.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t

from alscore._core.search cimport position

import numpy as np


cdef inline const int32_t *first(const int32_t[::1] array) noexcept nogil:
    return &array[0] if array.shape[0] > 0 else NULL


def find(const int64_t[::1] query_indptr, const int32_t[::1] query_ids, const int64_t[::1] indptr,
         const int32_t[::1] indices, int num_threads):
    """Return the position in `indices` of each query id, searched in the same row; -1 if the row does not have it."""
    cdef int64_t row, i
    cdef int64_t[::1] out = np.empty(query_ids.shape[0], np.int64)
    for row in prange(indptr.shape[0] - 1, nogil=True, schedule="dynamic", chunksize=64, num_threads=num_threads):
        for i in range(query_indptr[row], query_indptr[row + 1]):
            out[i] = position(first(indices), indptr[row], indptr[row + 1], query_ids[i])
    return np.asarray(out)


cdef inline double places_above(const floating *scores, int64_t n, floating score) noexcept nogil:
    """Count the n scores that are higher than `score`. An equal one counts half."""
    cdef int64_t i, higher = 0, equal = 0
    for i in range(n):
        higher += scores[i] > score
        equal += scores[i] == score
    return higher + 0.5 * equal


cdef void row_places(const floating *scores, int64_t n, const int32_t *seen, int64_t n_seen, const int32_t *test,
                     int64_t n_test, double *out) noexcept nogil:
    """Write the number of items above each test item of one row. Seen items do not count."""
    cdef int64_t i, j
    cdef floating score, other
    for i in range(n_test):
        score = scores[test[i]]
        out[i] = places_above(scores, n, score) - 0.5   # the item itself is one of the n
        for j in range(n_seen):
            other = scores[seen[j]]
            out[i] -= (other > score) + 0.5 * (other == score)


def places(const floating[:, ::1] scores, const int64_t[::1] seen_indptr, const int32_t[::1] seen,
           const int64_t[::1] test_indptr, const int32_t[::1] test, int num_threads):
    """Return the number of items above each test item of the row, without seen items. An equal score counts half."""
    cdef int64_t row
    cdef double[::1] out = np.empty(test.shape[0])
    cdef double *out_first = &out[0] if test.shape[0] > 0 else NULL
    for row in prange(scores.shape[0], nogil=True, schedule="dynamic", num_threads=num_threads):
        row_places(&scores[row, 0], scores.shape[1], first(seen) + seen_indptr[row],
                   seen_indptr[row + 1] - seen_indptr[row], first(test) + test_indptr[row],
                   test_indptr[row + 1] - test_indptr[row], out_first + test_indptr[row])
    return np.asarray(out)


cdef void row_similarities(const int32_t *ranked, int64_t n_ranked, const int64_t *indptr, const int32_t *users,
                           double *weights, double *out) noexcept nogil:
    """`weights` must be 0 for every user. It is 0 again at the end."""
    cdef int64_t place, i
    cdef int32_t item
    cdef double length
    for place in range(n_ranked):
        item = ranked[place]
        out[place] = 0
        if item < 0 or indptr[item] == indptr[item + 1]:
            continue
        length = sqrt(<double> (indptr[item + 1] - indptr[item]))
        for i in range(indptr[item], indptr[item + 1]):
            out[place] += weights[users[i]] / length
            weights[users[i]] += 1 / length
    for place in range(n_ranked):
        item = ranked[place]
        if item >= 0:
            for i in range(indptr[item], indptr[item + 1]):
                weights[users[i]] = 0


def similarities(const int32_t[:, ::1] ranked, const int64_t[::1] indptr, const int32_t[::1] users, int64_t n_users,
                 int num_threads):
    """Return the sum of the cosines of each ranked item to the items before it in the row. An id of -1 gets 0.

    Item i is the set ``users[indptr[i]:indptr[i + 1]]``. An item without users has cosine 0 to all items.
    """
    cdef int64_t row
    cdef double[:, ::1] weights = np.zeros((num_threads, n_users))
    cdef double[:, ::1] out = np.empty((ranked.shape[0], ranked.shape[1]))
    for row in prange(ranked.shape[0], nogil=True, schedule="dynamic", num_threads=num_threads):
        row_similarities(&ranked[row, 0], ranked.shape[1], &indptr[0], first(users), &weights[threadid(), 0],
                         &out[row, 0])
    return np.asarray(out)
