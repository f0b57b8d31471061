"""A solver for alscore in Python, to try an idea before it is compiled."""

import numpy as np


class Textbook:
    """Equation 4 of Hu, Koren, Volinsky (2008): LAPACK solves the k x k system of each row."""

    original_basis = True

    def sweep(self, half_sweep, out):
        out[:] = 0
        for row, columns, weight, target, diag in half_sweep.rows():
            Y = half_sweep.factors[columns].astype(np.float64)
            system = half_sweep.gram + np.diag(diag) + Y.T @ (weight[:, None] * Y)
            out[row] = np.linalg.solve(system, Y.T @ target)
