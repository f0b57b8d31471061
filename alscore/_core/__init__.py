"""The compiled core: the loops of training, solvers, search and metrics, over the C kernels in src_c/."""
