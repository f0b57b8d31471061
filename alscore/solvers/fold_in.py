"""Fold-in: exact factors for rows after training, on the factors of the fixed side."""

import copy
from typing import Any

import numpy as np

from alscore import solvers
from alscore._core import sweeps
from alscore._support.arrays import Floats
from alscore._support.threads import one_blas_thread, resolve_threads
from alscore.solvers.half_sweeps import Side, principal_axes, zero_factors

_EXACT = solvers.resolve(solvers.Cholesky())


class FoldIn:
    """The factors of the fixed side, prepared to solve rows of the other side.

    Parameters
    ----------
    factors : array (n, k), C-contiguous
        Not copied, and not modified.
    num_threads : int

    Attributes
    ----------
    factors : array (n, k)
    gram : float64 array (k, k)
        ``factors.T @ factors``
    eigenvalues, axes : float64 arrays (k,), (k, k)
        The eigenvalues of `gram`, descending, and its eigenvectors as columns. For a `gram` that is diagonal up to
        rounding, such as that of the item factors of a fitted model: its diagonal, and the identity.
    """

    def __init__(self, factors: Floats, num_threads: int) -> None:
        self.factors = factors
        with one_blas_thread():
            self.gram = sweeps.gram(factors, resolve_threads(num_threads, factors.size * factors.shape[1]))
            self.eigenvalues, self.axes = principal_axes(self.gram)
        diagonal = np.diag(self.gram).copy()
        # the largest relative error of a solution that treats `gram` as diagonal
        scale = np.sqrt(diagonal + 1e-14 * self.eigenvalues.max(initial=np.finfo(float).tiny))
        off = np.linalg.norm((self.gram - np.diag(diagonal)) / np.outer(scale, scale), 2)
        self._is_canonical = bool(off <= 32 * np.finfo(factors.dtype).eps)
        if self._is_canonical:
            self.eigenvalues, self.axes = diagonal, np.eye(len(diagonal))
        self._rotation = self.axes.astype(factors.dtype)
        self._rotation_back = np.ascontiguousarray(self._rotation.T)

    def solve(self, rows: Side, solver: Any) -> Floats:
        """Return the exact factors (n_rows, k) of `rows`. A solver that keeps the original basis is used itself."""
        out = zero_factors(len(rows.order), self.factors.shape[1], self.factors.dtype)
        if self._is_canonical and not solvers.keeps_basis(solver):
            rows.solve(_EXACT, self.factors, self.eigenvalues, out)  # needs no BLAS, so no limit of its threads
            return out
        with one_blas_thread():
            if solvers.keeps_basis(solver):
                rows.solve(solver, self.factors, self.gram, out)
            else:
                rows, rotated = self._touched(rows)
                sweeps.rotate(rotated, self._rotation, rows.num_threads)
                rows.solve(_EXACT, rotated, self.eigenvalues, out)
                sweeps.rotate(out, self._rotation_back, rows.num_threads)
        return out

    def _touched(self, rows: Side) -> tuple[Side, Floats]:
        """Return `rows` renumbered to a copy of the factors that they have entries for, and the copy.

        With many entries the copy has all factors, and `rows` stay as they are.
        """
        touched: Any = slice(None)
        if len(rows.indices) < len(self.factors):
            touched, indices = np.unique(rows.indices, return_inverse=True)
            rows = copy.copy(rows)  # keeps n_columns, which its regularization counts
            rows.indices = indices.astype(np.int32)
        factors = self.factors[touched]
        copied = zero_factors(len(factors), factors.shape[1], factors.dtype)
        copied[:] = factors
        return rows, copied
