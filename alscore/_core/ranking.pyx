"""The loops of the metrics: over ranked items and rows of sparse matrices, one row at a time, the same on any threads.

The matrices are canonical; what calls this has verified ids and shapes.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t

from alscore._core.search cimport position

import numpy as np


cdef inline const int32_t *first(const int32_t[::1] array) noexcept nogil:
    return &array[0] if array.shape[0] > 0 else NULL


def find(const int64_t[::1] wanted_indptr, const int32_t[::1] wanted, const int64_t[::1] indptr,
         const int32_t[::1] indices, int num_threads):
    """Of each wanted id of a row, where it is in `indices`, among those of the same row; -1 where it is not."""
    cdef int64_t row, i
    cdef int64_t[::1] out = np.empty(wanted.shape[0], np.int64)
    for row in prange(indptr.shape[0] - 1, nogil=True, schedule="dynamic", chunksize=64, num_threads=num_threads):
        for i in range(wanted_indptr[row], wanted_indptr[row + 1]):
            out[i] = position(first(indices), indptr[row], indptr[row + 1], wanted[i])
    return np.asarray(out)


cdef inline double places_above(const floating *scores, int64_t n, floating score) noexcept nogil:
    """How many of n scores are higher, and half of those that are equal."""
    cdef int64_t i, higher = 0, equal = 0
    for i in range(n):
        higher += scores[i] > score
        equal += scores[i] == score
    return higher + 0.5 * equal


cdef void row_places(const floating *scores, int64_t n, const int32_t *seen, int64_t n_seen, const int32_t *wanted,
                     int64_t n_wanted, double *out) noexcept nogil:
    cdef int64_t i, j
    cdef floating score, other
    for i in range(n_wanted):
        score = scores[wanted[i]]
        out[i] = places_above(scores, n, score) - 0.5   # itself
        for j in range(n_seen):
            other = scores[seen[j]]
            out[i] -= (other > score) + 0.5 * (other == score)


def places(const floating[:, ::1] scores, const int64_t[::1] seen_indptr, const int32_t[::1] seen,
           const int64_t[::1] wanted_indptr, const int32_t[::1] wanted, int num_threads):
    """How many items, those seen left out, score higher than each wanted one of the row; equal ones count half."""
    cdef int64_t row
    cdef double[::1] out = np.empty(wanted.shape[0])
    cdef double *out_first = &out[0] if wanted.shape[0] > 0 else NULL
    for row in prange(scores.shape[0], nogil=True, schedule="dynamic", num_threads=num_threads):
        row_places(&scores[row, 0], scores.shape[1], first(seen) + seen_indptr[row],
                   seen_indptr[row + 1] - seen_indptr[row], first(wanted) + wanted_indptr[row],
                   wanted_indptr[row + 1] - wanted_indptr[row], out_first + wanted_indptr[row])
    return np.asarray(out)


cdef void row_similarities(const int32_t *ranked, int64_t n_ranked, const int64_t *indptr, const int32_t *users,
                           double *weights, double *out) noexcept nogil:
    """`weights` is 0 for every user, before and after."""
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
    """Of each ranked item, the sum of its cosines to those ranked before it in the row; an id -1 counts for nothing.

    Item i is the set of users between its two `indptr`; one without users has cosine 0 to all.
    """
    cdef int64_t row
    cdef double[:, ::1] weights = np.zeros((num_threads, n_users))
    cdef double[:, ::1] out = np.empty((ranked.shape[0], ranked.shape[1]))
    for row in prange(ranked.shape[0], nogil=True, schedule="dynamic", num_threads=num_threads):
        row_similarities(&ranked[row, 0], ranked.shape[1], &indptr[0], first(users), &weights[threadid(), 0],
                         &out[row, 0])
    return np.asarray(out)
