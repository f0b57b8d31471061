"""The public kernels, for other packages to cimport. kernels.pxd describes their arrays."""

from cython cimport floating

from libc.stdint cimport int32_t

cimport alscore._core.kernel_table as table


cdef ptrdiff_t lanes(const floating *precision) noexcept nogil:
    """Numbers per vector in a panel: a power of two, at most 16, by kernel set and precision."""
    return table.lanes(precision)


cdef floating dot(ptrdiff_t k, const floating *a, const floating *b) noexcept nogil:
    """a'b"""
    return table.dot(k, a, b)


cdef void rows_dot(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *x,
                   floating *out) noexcept nogil:
    """out = Y[cols] x"""
    cdef table.als_ahead nothing = table.als_ahead(NULL, 0, NULL, 0)
    table.rows_dot(n, k, cols, Y, x, out, &nothing)


cdef void rows_sum(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *s,
                   floating *out) noexcept nogil:
    """out += Y[cols]' s"""
    table.rows_sum(n, k, cols, Y, s, out)


cdef void gather_rows(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *d,
                      const floating *e, floating *P) noexcept nogil:
    """P = diag(d) Y[cols] diag(e) in panels over the factors: depth n, q = k. e is padded to panels."""
    table.gather_rows(n, k, cols, Y, d, e, P)


cdef void gather_columns(ptrdiff_t n, ptrdiff_t k, const int32_t *cols, const floating *Y, const floating *d,
                         const floating *e, floating *P) noexcept nogil:
    """P = (diag(d) Y[cols] diag(e))' in panels over the entries: depth k, q = n. e is padded to panels."""
    table.gather_columns(n, k, cols, Y, d, e, P)


cdef void rank_update(int start, ptrdiff_t q, ptrdiff_t depth, const floating *P, floating *C) noexcept nogil:
    """C = I + P'P (IDENTITY), C += P'P (ADD) or C -= P'P (SUBTRACT), in panels"""
    cdef table.als_ahead nothing = table.als_ahead(NULL, 0, NULL, 0)
    table.rank_update(start, q, depth, P, C, &nothing)


cdef ptrdiff_t cholesky(ptrdiff_t q, floating *C, floating *cancelled) noexcept nogil:
    """C = U'U in place, for `solve`; returns 0, or 1 + a row whose pivot is not positive.

    The padding of C must hold the identity, as after IDENTITY. `cancelled` is set to the largest ratio of a number on
    the diagonal of C to its squared pivot; the error of the solution grows with it.
    """
    return table.cholesky(q, C, cancelled)


cdef void solve(ptrdiff_t q, const floating *U, floating *b) noexcept nogil:
    """b = (U'U)^-1 b; b is padded to panels with zeros"""
    table.solve(q, U, b)
