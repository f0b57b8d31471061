"""Solvers: options of the built-in solvers, look-up by name, and the half-sweep as the argument of a solver.

A solver is any of

- an option object of this module: ``Cholesky()``, ``ConjugateGradient(steps=3)``, ``Auto()``, ``NonNegative()``;
- a name: of a built-in solver, or of a solver that another package registers in the entry-point group
  ``alscore.solvers``;
- an object with a method ``capsule()`` that returns a PyCapsule as in ``alscore.h``, or such a capsule itself;
- an object with a Python method ``sweep(half_sweep, out)``. Its optional attributes: ``original_basis = True`` asks for
  factors that are not rotated; ``nonnegative = True`` implies that.
"""

import dataclasses
import functools
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from alscore._core import builtin_solvers, nonnegative, sweeps
from alscore._support.arrays import Doubles, Floats, Int32s, Int64s
from alscore._support.checks import require_integer


class NotPositiveDefiniteError(ArithmeticError):
    """A row's least-squares system has no unique minimum."""


@dataclasses.dataclass(frozen=True)
class Cholesky:
    """Exact solution of every row: by its n x n dual system if it has n <= k entries, else by its k x k system."""

    def capsule(self) -> object:
        return builtin_solvers.publish(0, 0.0, False)


@dataclasses.dataclass(frozen=True)
class ConjugateGradient:
    """A few steps of preconditioned conjugate gradient from the row's previous factors.

    Very long rows are solved exactly, since that costs no more: with 3 steps, rows of 16 k entries or more if k <= 100.

    Parameters
    ----------
    steps : int
        Number of steps at most, from 1 to 1,000,000.
    tol : float
        A row stops earlier when its preconditioned residual is this fraction of its right-hand side. At least 0 and
        below 1.

    Examples
    --------
    >>> from alscore import AlternatingLeastSquares, solvers
    >>> AlternatingLeastSquares(solver=solvers.ConjugateGradient(steps=5))
    AlternatingLeastSquares(solver=ConjugateGradient(steps=5, tol=0.0))
    """

    steps: int = 3
    tol: float = 0.0

    def __post_init__(self) -> None:
        require_integer(self.steps, "steps", 1, 1_000_000)
        if not isinstance(self.tol, numbers.Real) or not 0 <= self.tol < 1:
            raise ValueError(f"tol must be at least 0 and below 1, not {self.tol!r}")

    def capsule(self) -> object:
        return builtin_solvers.publish(self.steps, self.tol, False)


@dataclasses.dataclass(frozen=True)
class Auto(ConjugateGradient):
    """The lowest objective in the least time: exact, except for long rows of many factors.

    Conjugate gradient solves the rows of more than k entries, from the second sweep on, where k is above
    25 (`steps` + 1). All other rows are solved exactly: for rows of at most k entries, conjugate gradient would save
    little time and end at a much higher objective; rows without previous factors have nothing to start from.

    Parameters
    ----------
    steps, tol
        Same as for `ConjugateGradient`.
    """

    def capsule(self) -> object:
        return builtin_solvers.publish(self.steps, self.tol, True)


@dataclasses.dataclass(frozen=True)
class NonNegative:
    """Exact solution of every row among factors >= 0: a factor can only add to a score.

    The method is an active set (Lawson, Hanson 1974) from the row's previous factors, in float64. At the solution, the
    gradient of a factor at 0 is at least -1e-12 of the sum of the magnitudes of its terms. The factors keep their
    basis: they have no order, and they are correlated.
    """

    def capsule(self) -> object:
        return nonnegative.publish()


@dataclasses.dataclass(frozen=True, eq=False)
class HalfSweep:
    """The least-squares problems of one side: everything that a solver needs to update each row.

    Row u has the entries ``indices[indptr[u]:indptr[u + 1]]`` with their strengths. It minimises over x ::

        x' (gram + diag(diag + regularization[u])) x + sum_i weight_i (y_i . x)^2 - 2 sum_i target_i (y_i . x)

    Attributes
    ----------
    side : str
        "user" or "item": the side of the rows.
    indptr, indices, strength : int64, int32 and float arrays
        The entries of each row, in compressed form. `strength` has the dtype of the factors. The confidence grows with
        ``abs(strength)``; a negative strength is a dislike.
    order : int64 array (n_rows,)
        The rows by number of entries, descending.
    factors : array (n_columns, k)
        The factors Y of the fixed side. They are rotated so that Y'Y is diagonal, unless the solver asks for the
        original basis.
    gram : None or array (k, k)
        None in the rotated basis. In the original basis: Y'Y times the weight of unobserved entries.
    diag : float64 array (k,)
        In the rotated basis: the diagonal of Y'Y times the weight of unobserved entries, with a tiny ridge where the
        eigenvalue is only rounding. In the original basis: zeros.
    regularization : float64 array (1,) or (n_rows,)
        One number for all rows, or one for each row.
    confidence : (base, scale, unobserved)
        The confidence of an entry is ``base + scale * abs(strength)``. Its weight is its confidence less `unobserved`.
    num_threads : int
        Number of threads, at least 1.
    """

    side: str
    indptr: Int64s
    indices: Int32s
    strength: Floats
    order: Int64s
    factors: Floats
    gram: Doubles | None
    diag: Doubles
    regularization: Doubles
    confidence: tuple[float, float, float]
    num_threads: int

    def rows(self) -> Iterator[tuple[int, Int32s, Doubles, Doubles, Doubles]]:
        """Iterate over the rows that have entries, by number of entries, descending: for solvers in Python.

        Yields
        ------
        row : int
        columns : int32 array (n,)
            The rows of `factors` that belong to the entries.
        weight, target : float64 array (n,)
        diagonal : float64 array (k,)
            The sum of `diag` and the regularization of the row.
        """
        base, scale, unobserved = self.confidence
        regularization = np.broadcast_to(self.regularization, len(self.order))
        for row in self.order[np.diff(self.indptr)[self.order] > 0]:
            entries = slice(self.indptr[row], self.indptr[row + 1])
            strength = self.strength[entries].astype(np.float64)
            confidence = base + scale * np.abs(strength)
            diag = self.diag + regularization[row]
            yield int(row), self.indices[entries], confidence - unobserved, confidence * (strength > 0), diag


class CompiledSolver:
    """A capsule with the interface of a solver in Python. It keeps the capsule and its owner alive."""

    def __init__(self, capsule: object, owner: object = None) -> None:
        self._capsule, self._owner = capsule, owner
        self.original_basis, self.warm_start, self.nonnegative = sweeps.solver_flags(capsule)

    def sweep(self, half_sweep: HalfSweep, out: Floats, loss: Doubles | None = None) -> None:
        """Solve every row into `out`. Write each row's part of the objective to `loss` (float64, n_rows), if given."""
        row, code = sweeps.sweep(self._capsule, half_sweep, out, loss)
        if row < 0:
            return
        where = f"{half_sweep.side} row {row}"
        if code == sweeps.NOT_POSITIVE_DEFINITE:
            raise NotPositiveDefiniteError(
                f"{where}: the system is not positive definite, or nearly singular in {out.dtype}; raise "
                "regularization, set unobserved_weight below the confidence of the entries, or use dtype=float64"
            )
        if code == sweeps.NOT_FINITE:
            raise FloatingPointError(
                f"{where}: the solution is not finite; scale the values or alpha down, or use dtype=float64"
            )
        raise RuntimeError(f"{where}: the solver failed with its error code {code}")


def keeps_basis(solver: Any) -> bool:
    """Whether a resolved solver asks for the original basis: factors that are not rotated."""
    return is_nonnegative(solver) or bool(getattr(solver, "original_basis", False))


def starts_warm(solver: Any) -> bool:
    """Whether a resolved solver starts from the previous factors of a row."""
    return bool(getattr(solver, "warm_start", True))


def is_nonnegative(solver: Any) -> bool:
    """Whether a resolved solver finds factors >= 0, and needs initial factors >= 0."""
    return bool(getattr(solver, "nonnegative", False))


@functools.cache
def registered() -> dict[str, list[Any]]:
    """Return the entry points of the installed solvers by name. A name that two packages register
    has several entry points.
    """
    from importlib.metadata import entry_points

    found: dict[str, list[Any]] = {}
    for entry in entry_points(group="alscore.solvers"):
        same_name = found.setdefault(entry.name, [])
        # the same distribution seen twice (an editable install beside its metadata) is not a clash
        if all(entry.value != other.value for other in same_name):
            same_name.append(entry)
    return found


def described(entry: Any) -> str:
    """Describe an entry point and its distribution."""
    return f"{entry.value} from {entry.dist.name} {entry.dist.version}" if entry.dist else str(entry.value)


@functools.cache
def by_name(name: str) -> Any:
    """Return the object that is registered under a name.

    Raises
    ------
    ValueError
        No solver has this name, or two packages register it.
    ImportError
        The object cannot be imported.
    """
    if name not in registered():
        registered.cache_clear()  # a package may have been installed meanwhile
    if name not in registered():
        raise ValueError(f"no solver is named {name!r}; installed: {', '.join(sorted(registered()))}")
    entry, *others = registered()[name]
    if others:
        raise ValueError(
            f"two packages register the solver {name!r}: {described(entry)}, and {described(others[0])}; "
            "uninstall one, or pass the object instead of the name"
        )
    try:
        return entry.load()
    except Exception as error:
        raise ImportError(
            f"the solver {name!r} ({described(entry)}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def resolve(solver: Any) -> Any:
    """Return the object with ``sweep(half_sweep, out)`` for a solver in any form that the head of this module lists.

    Raises
    ------
    ValueError
        No solver has this name, two packages register it, or it was compiled for another version of the contract.
    ImportError
        The solver of this name cannot be imported.
    TypeError
        `solver` has another form.
    """
    if isinstance(solver, str):
        solver = by_name(solver)
    if isinstance(solver, type):
        solver = solver()
    if hasattr(solver, "sweep"):
        return solver
    capsule = solver.capsule() if hasattr(solver, "capsule") else solver
    if type(capsule).__name__ == "PyCapsule":
        return CompiledSolver(capsule, owner=solver)
    raise TypeError(
        f"solver must be a name, an object of alscore.solvers, a capsule, or an object with a method "
        f"sweep(half_sweep, out); not {solver!r}"
    )


def to_json(solver: Any) -> str | dict[str, Any]:
    """Return the JSON form of a solver: its name, or for an option object its registered name and its options."""
    if isinstance(solver, str):
        return solver
    origin = f"{type(solver).__module__}:{type(solver).__qualname__}"
    names = [name for name, entries in registered().items() if origin in (entry.value for entry in entries)]
    if not names or not dataclasses.is_dataclass(type(solver)):
        raise TypeError(
            f"cannot save the solver {solver!r}: its class is not a dataclass with an entry point in alscore.solvers; "
            "register it, or use set_params(solver='auto') first"
        )
    return {"name": names[0], "options": dataclasses.asdict(solver)}


def from_json(solver: str | dict[str, Any]) -> Any:
    """Return the solver of a JSON form."""
    if isinstance(solver, str):
        return solver
    name = solver["name"]
    if name not in registered():
        raise ValueError(f"its solver {name!r} is not installed; install the package that registers it")
    return by_name(name)(**solver["options"])
