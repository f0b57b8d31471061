"""Scratch memory of the threads of a parallel loop: allocated once, before the loop."""

cdef enum:
    CACHE_LINE = 64   # bytes; the vectors of the widest kernel set are as long


cdef inline size_t aligned(size_t size) noexcept nogil:
    """`size` rounded up to whole cache lines."""
    return (size + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE


cdef class Scratch:
    cdef char *raw
    cdef char *first   # of the first thread; aligned
    cdef size_t step   # bytes from one thread's memory to the next one's
