"""Half-sweeps: the rows of one side, solved on the factors of the fixed side."""

import dataclasses
from typing import Any

import numpy as np

from alscore import solvers
from alscore._core import sweeps
from alscore._support.arrays import Doubles, Floats, Int32s, Int64s
from alscore._support.threads import resolve_threads
from alscore.solvers.objective import Objective


def zero_factors(n: int, k: int, dtype: np.dtype) -> Floats:
    """Return zeros (n, k) that begin with a cache line, so that each row lies in as few lines as possible.

    numpy lets large arrays begin 16 bytes into a line: there an exact sweep at k = 128 takes a quarter more time.
    """
    size = int(n) * int(k) * dtype.itemsize
    raw = np.zeros(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].view(dtype).reshape(n, k)


def principal_axes(gram: Doubles) -> tuple[Doubles, Doubles]:
    """Return the eigenvalues of a Gram matrix, descending and at least 0, and its eigenvectors as columns."""
    eigenvalues, axes = np.linalg.eigh(gram)
    return np.maximum(eigenvalues[::-1], 0), np.ascontiguousarray(axes[:, ::-1])


def with_ridge(eigenvalues: Doubles, dtype: np.dtype) -> Doubles:
    """Raise the eigenvalues that are only rounding errors of the Gram matrix to 16 eps or 1e-12 of the largest.

    In the direction of such an eigenvalue the factors of the fixed side hold nothing but rounding errors, for example
    where there are more factors than items. The ridge keeps rows from being fitted to these errors where the
    regularization is too small to do so.
    """
    limits, largest = np.finfo(dtype), eigenvalues.max(initial=0)
    ridge = max(16 * float(limits.eps), 1e-12) * largest
    return np.where(eigenvalues > 1e-12 * largest, eigenvalues, max(ridge, float(limits.tiny)))


@dataclasses.dataclass
class Side:
    """The rows that one half-sweep solves, users or items: their entries, weights and order, without factors.

    Attributes
    ----------
    name : str
        "user" or "item".
    objective : Objective
    indptr, indices, strength : int64, int32 and float arrays
        The entries in compressed form.
    n_columns : int
        Rows of the fixed side.
    num_threads : int
    order : int64 array (n_rows,)
        The rows by number of entries, descending.
    regularization : float64 array (1,) or (n_rows,)
    """

    name: str
    objective: Objective
    indptr: Int64s
    indices: Int32s
    strength: Floats
    n_columns: int
    num_threads: int
    order: Int64s = dataclasses.field(init=False)
    regularization: Doubles = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        entries = np.diff(self.indptr)
        self.order = np.argsort(-entries, kind="stable")
        self.regularization = self.objective.row_regularization(entries, self.n_columns)

    @classmethod
    def of(cls, name: str, objective: Objective, matrix: Any, factors: int, num_threads: int) -> "Side":
        """Make a side of the rows of a canonical matrix, for factors of length `factors`."""
        threads = resolve_threads(num_threads, matrix.nnz * int(factors))
        return cls(
            name, objective, matrix.indptr, matrix.indices, objective.strength(matrix.data), matrix.shape[1], threads
        )

    def transposed(self, name: str) -> "Side":
        """Return the columns as rows."""
        arrays = sweeps.transpose(self.indptr, self.indices, self.strength, self.n_columns)
        return Side(name, self.objective, *arrays, len(self.indptr) - 1, self.num_threads)

    def part(self, first_row: int, n_columns: int) -> "Side":
        """Return the rows from `first_row` on, with their entries in the first `n_columns` columns."""
        start = self.indptr[first_row]
        inside = self.indices[start:] < n_columns
        indptr = np.concatenate([[0], np.cumsum(inside)])[self.indptr[first_row:] - start]
        indices, strength = self.indices[start:][inside], self.strength[start:][inside]
        return Side(self.name, self.objective, indptr, indices, strength, n_columns, self.num_threads)

    def update(self, solver: Any, fixed: Floats, out: Floats, loss: Doubles | None = None) -> bool:
        """Run a half-sweep: rotate `fixed` in place, unless the solver keeps the basis, and solve every row into `out`.

        Return whether `loss` was filled with each row's part of the objective, including the penalty of the row.
        """
        gram = sweeps.gram(fixed, self.num_threads)
        if not solvers.keeps_basis(solver):
            gram, rotation = principal_axes(gram)
            rotation = rotation.astype(fixed.dtype)
            sweeps.rotate(fixed, rotation, self.num_threads)
            if solvers.starts_warm(solver):
                sweeps.rotate(out, rotation, self.num_threads)
        return self.solve(solver, fixed, gram, out, loss)

    def solve(self, solver: Any, fixed: Floats, gram: Doubles, out: Floats, loss: Doubles | None = None) -> bool:
        """Solve every row into `out`, without rotating. Return whether `loss` was filled, as from `update`.

        `gram` is the Gram matrix of `fixed`: its diagonal (k,) if it is diagonal, else (k, k).
        """
        gram = self.objective.unobserved_weight * gram
        half_sweep = solvers.HalfSweep(
            side=self.name,
            indptr=self.indptr,
            indices=self.indices,
            strength=self.strength,
            order=self.order,
            factors=fixed,
            gram=gram.astype(fixed.dtype) if gram.ndim == 2 else None,
            diag=np.zeros(len(gram)) if gram.ndim == 2 else with_ridge(gram, fixed.dtype),
            regularization=self.regularization,
            confidence=self.objective.weights,
            num_threads=self.num_threads,
        )
        if loss is None or gram.ndim == 2 or not isinstance(solver, solvers.CompiledSolver):
            solver.sweep(half_sweep, out)
            return False
        solver.sweep(half_sweep, out, loss)
        return True


def to_canonical_basis(X: Floats, Y: Floats, num_threads: int) -> None:
    """Rotate both sides in place. Y'Y becomes diagonal and descends.

    In each column of Y the number of largest magnitude becomes positive.
    """
    rotation = principal_axes(sweeps.gram(Y, num_threads))[1].astype(Y.dtype)
    for factors in (X, Y):
        sweeps.rotate(factors, rotation, num_threads)
    signs = canonical_signs(Y.min(axis=0, initial=0), Y.max(axis=0, initial=0)).astype(Y.dtype)
    for factors in (X, Y):
        factors *= signs


def canonical_signs(lowest: Floats, highest: Floats) -> Int64s:
    """Return 1 or -1 for each column, from its least and its largest number.

    The sign makes the number of largest magnitude positive.
    """
    return np.where(-lowest > highest, -1, 1)
