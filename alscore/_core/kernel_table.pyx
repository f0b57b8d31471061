"""The set of C kernels in use. No other module knows src_c/kernels.h."""

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
    """Use the kernel set `name` from now on, in the whole process. Do not call it while another thread is computing.

    Raises
    ------
    ValueError
        The build lacks the set, or this processor cannot run it.
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
    try:
        use(os.environ["ALSCORE_ISA"])
    except ValueError as error:
        raise ValueError(f"the environment variable ALSCORE_ISA: {error}") from None
