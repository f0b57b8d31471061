"""Training's arithmetic: the rows of one side, solved on the factors of the other."""

import dataclasses
from typing import Any

import numpy as np

from alscore import solvers
from alscore._core import sweeps
from alscore._support.arrays import Doubles, Floats, Int32s, Int64s
from alscore._support.threads import resolve_threads
from alscore.solvers.objective import Objective


def zero_factors(n: int, k: int, dtype: np.dtype) -> Floats:
    """Zeros (n, k) that begin with a cache line, so that a row lies in no more lines than it must.

    From where numpy puts large arrays, 16 bytes into a line, an exact sweep at k = 128 takes a quarter more time.
    """
    size = int(n) * int(k) * dtype.itemsize
    raw = np.zeros(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].view(dtype).reshape(n, k)


def principal_axes(gram: Doubles) -> tuple[Doubles, Doubles]:
    """Eigenvalues of a Gram matrix, descending and not negative, and its eigenvectors as columns."""
    energy, axes = np.linalg.eigh(gram)
    return np.maximum(energy[::-1], 0), np.ascontiguousarray(axes[:, ::-1])


def with_ridge(energy: Doubles, dtype: np.dtype) -> Doubles:
    """`energy`, raised to 16 eps or 1e-12 of the largest where it is no more than the rounding of the Gram matrix.

    Factors have numbers in such a direction (there are more of them than items, say), but nothing except rounding: the
    ridge keeps rows from explaining themselves by it where regularization does not.
    """
    limits, largest = np.finfo(dtype), energy.max(initial=0)
    ridge = max(16 * float(limits.eps), 1e-12) * largest
    return np.where(energy > 1e-12 * largest, energy, max(ridge, float(limits.tiny)))


@dataclasses.dataclass
class Side:
    """The rows that one half-sweep solves, users or items: everything about them but the factors."""

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
        """The rows of a canonical matrix."""
        threads = resolve_threads(num_threads, matrix.nnz * int(factors))
        return cls(
            name, objective, matrix.indptr, matrix.indices, objective.strength(matrix.data), matrix.shape[1], threads
        )

    def transposed(self, name: str) -> "Side":
        arrays = sweeps.transpose(self.indptr, self.indices, self.strength, self.n_columns)
        return Side(name, self.objective, *arrays, len(self.indptr) - 1, self.num_threads)

    def part(self, first_row: int, n_columns: int) -> "Side":
        """The rows from `first_row` on, with their entries in the first `n_columns` columns."""
        start = self.indptr[first_row]
        inside = self.indices[start:] < n_columns
        indptr = np.concatenate([[0], np.cumsum(inside)])[self.indptr[first_row:] - start]
        indices, strength = self.indices[start:][inside], self.strength[start:][inside]
        return Side(self.name, self.objective, indptr, indices, strength, n_columns, self.num_threads)

    def update(self, solver: Any, fixed: Floats, out: Floats, loss: Doubles | None = None) -> bool:
        """Half-sweep: rotate `fixed` in place, unless the solver forbids it, and solve every row into `out`.

        Returns whether `loss` was filled with each row's share of the objective, its own regularization included.
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
        """As `update`, for a `fixed` whose Gram matrix is known: its diagonal (k,) if it is diagonal, or all (k, k)."""
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
    """Rotate both sides in place so that Y'Y is diagonal and descends, and each column's largest number is positive."""
    rotation = principal_axes(sweeps.gram(Y, num_threads))[1].astype(Y.dtype)
    for factors in (X, Y):
        sweeps.rotate(factors, rotation, num_threads)
    signs = canonical_signs(Y.min(axis=0, initial=0), Y.max(axis=0, initial=0)).astype(Y.dtype)
    for factors in (X, Y):
        factors *= signs


def canonical_signs(lowest: Floats, highest: Floats) -> Int64s:
    """1 or -1 for each column, from its least and its largest number: that of largest magnitude becomes positive."""
    return np.where(-lowest > highest, -1, 1)
