"""Scratch memory of the threads of a parallel loop: allocated once, before the loop."""

cdef class Scratch:
    cdef char *raw
    cdef char *first   # of the first thread; aligned
    cdef size_t step   # bytes from one thread's memory to the next one's
