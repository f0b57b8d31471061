"""For compiled modules, which cimport it: see kernels.pxd. It has no functions for Python."""

__pyx_capi__: dict[str, object]
