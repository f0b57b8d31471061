"""Scratch memory of the threads of a parallel loop: allocated once, before the loop."""

from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc

cdef class Scratch:
    """`size` bytes for each of `num_threads` threads, aligned to 64 bytes; freed with the object.

    Raises
    ------
    MemoryError
        There is not so much memory.
    """

    def __cinit__(self, int num_threads, size_t size):
        self.step = aligned(size) + CACHE_LINE   # a line between two threads' memory, so that they never share one
        self.raw = <char *> malloc(num_threads * self.step + CACHE_LINE)
        if self.raw == NULL:
            raise MemoryError(f"cannot allocate {num_threads} x {self.step} bytes of scratch memory")
        self.first = <char *> aligned(<uintptr_t> self.raw)

    def __dealloc__(self):
        free(self.raw)
