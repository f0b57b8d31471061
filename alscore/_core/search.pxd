"""Binary search in the rows of canonical matrices."""

from libc.stdint cimport int32_t, int64_t


cdef inline int64_t position(const int32_t *indices, int64_t low, int64_t end, int32_t index) noexcept nogil:
    """The position of `index` in `indices`, ascending from `low` on and before `end`, or -1."""
    cdef int64_t high = end, middle
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < index:
            low = middle + 1
        else:
            high = middle
    return low if low < end and indices[low] == index else -1
