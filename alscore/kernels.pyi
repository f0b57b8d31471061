"""Nothing to call from Python: other compiled modules cimport it, see kernels.pxd."""

__pyx_capi__: dict[str, object]
