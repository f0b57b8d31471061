"""Which set of C kernels is in use: the only module that knows src_c."""

import os


def available():
    """Names of the kernel sets that this processor can run, best first."""
    cdef const als_kernels *const *table = als_available()
    names = []
    while table[0] != NULL:
        names.append(table[0].isa.decode())
        table += 1
    return names


def isa():
    """Name of the kernel set in use."""
    return active.isa.decode()


def use(name):
    """Use the kernel set `name` from here on, in the whole process. Not while a fit is running in another thread.

    Raises
    ------
    ValueError
        If this build or this processor does not have it.
    """
    global active
    cdef const als_kernels *const *table = als_available()
    while table[0] != NULL:
        if table[0].isa.decode() == name:
            active = table[0]
            return
        table += 1
    raise ValueError(f"kernel set {name!r} is not available here; this processor can run: {', '.join(available())}")


active = als_available()[0]
if os.environ.get("ALSCORE_ISA"):
    use(os.environ["ALSCORE_ISA"])
