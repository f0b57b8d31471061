"""Solvers: option objects for the built-in ones, look-up by name, and the half-sweep that a solver is given.

A solver is any of

- an option object of this module: ``Cholesky()``, ``ConjugateGradient(steps=3)``, ``Auto()``, ``NonNegative()``;
- a name: a built-in one, or one that another package registers in the entry-point group ``alscore.solvers``;
- an object with a method ``capsule()`` that returns a PyCapsule as in ``alscore.h``, or such a capsule itself;
- an object with a method ``sweep(half_sweep, out)``, in Python, and optionally an attribute ``original_basis = True``,
  or ``nonnegative = True``, which implies that.
"""

import dataclasses
import functools
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from alscore._core import builtin_solvers, sweeps
from alscore._support.arrays import Doubles, Floats, Int32s, Int64s
from alscore._support.checks import require_integer


class NotPositiveDefiniteError(ArithmeticError):
    """A row's least-squares system has no unique minimum."""


@dataclasses.dataclass(frozen=True)
class Cholesky:
    """Exact solution of every row: of its n x n dual system where it has n <= k entries, of the k x k one otherwise."""

    def capsule(self) -> object:
        return builtin_solvers.publish(0, 0.0, False)


@dataclasses.dataclass(frozen=True)
class ConjugateGradient:
    """A few steps of preconditioned conjugate gradient from the row's last factors.

    Rows so long that an exact solution costs no more (at 3 steps, from 16 k entries on if k is at most 100) get that.

    Parameters
    ----------
    steps : int
        Steps at most, at least 1.
    tol : float
        A row stops earlier once its preconditioned residual is this fraction of its right-hand side.

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
    """The way to the lowest objective in the least time: exact, with steps of CG on long rows of many factors.

    Exact for rows of at most k entries, where steps save little time and cost much of the objective, for rows without
    factors to start from, and where k is at most 25 (`steps` + 1). What is left for CG are rows of more than k entries,
    from the second sweep on.

    Parameters
    ----------
    steps, tol
        As for `ConjugateGradient`.
    """

    def capsule(self) -> object:
        return builtin_solvers.publish(self.steps, self.tol, True)


@dataclasses.dataclass(frozen=True)
class NonNegative:
    """Exact solution of every row among factors >= 0, so that a factor can only add to a score.

    By an active set (Lawson, Hanson 1974) from the row's last factors, in float64 throughout: the gradient of a factor
    at 0 is no less than -1e-12 of what its sum adds up. The factors keep the basis in which they are non-negative: they
    are in no order, and correlated.
    """

    def capsule(self) -> object:
        return builtin_solvers.publish_nonnegative()


@dataclasses.dataclass(frozen=True, eq=False)
class HalfSweep:
    """One side's least-squares problems, as a value: what a solver needs to update each of its rows.

    Row u has entries ``indices[indptr[u]:indptr[u + 1]]`` of the given strengths, and minimises over x ::

        x' (gram + diag(diag + regularization[u])) x + sum_i weight_i (y_i . x)^2 - 2 sum_i target_i (y_i . x)

    Attributes
    ----------
    side : str
        "user" or "item": what the rows are.
    indptr, indices, strength
        The interactions, one row for each row to solve: int64, int32, and the dtype of the factors. Confidence grows
        with ``abs(strength)``; a negative strength says "dislikes".
    order : int64 array (n_rows,)
        The rows, those with the most entries first.
    factors : array (n_columns, k)
        The fixed side Y. Rotated so that Y'Y is diagonal, unless the solver asked for the original basis.
    gram : None or array (k, k)
        None in the rotated basis; in the original basis Y'Y times the weight of unobserved entries.
    diag : float64 array (k,)
        In the rotated basis the diagonal of Y'Y times the weight of unobserved entries, with a tiny ridge where it has
        no energy; zeros in the original basis.
    regularization : float64 array (1,) or (n_rows,)
        One number for all rows, or one for each.
    confidence : (base, scale, unobserved)
        An entry's confidence is ``base + scale * abs(strength)``; its weight is that less `unobserved`.
    num_threads : int
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
        """Every row that has entries, those with the most first, for solvers in Python.

        Yields
        ------
        row : int
        columns : int32 array (n,)
            Rows of `factors`.
        weight, target : float64 array (n,)
        diagonal : float64 array (k,)
            `diag` and the row's regularization together.
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
    """A capsule, called as a solver in Python would be. It keeps the capsule and its owner alive."""

    def __init__(self, capsule: object, owner: object = None) -> None:
        self._capsule, self._owner = capsule, owner
        self.original_basis, self.warm_start, self.nonnegative = sweeps.solver_flags(capsule)

    def sweep(self, half_sweep: HalfSweep, out: Floats, loss: Doubles | None = None) -> None:
        """Solve every row into `out`, and where `loss` (float64, one a row) is given put each row's share there."""
        h = half_sweep
        row, code = sweeps.sweep(
            self._capsule,
            h.indptr,
            h.indices,
            h.strength,
            h.order,
            h.factors,
            h.gram,
            h.diag,
            h.regularization,
            h.confidence,
            out,
            loss,
            h.num_threads,
        )
        if row < 0:
            return
        if code == sweeps.NOT_POSITIVE_DEFINITE:
            raise NotPositiveDefiniteError(
                f"{h.side} row {row}: the system is not positive definite, or too near to that for {out.dtype}; raise "
                "regularization, lower unobserved_weight below the confidence of the entries, or use dtype=float64"
            )
        if code == sweeps.NOT_FINITE:
            raise FloatingPointError(
                f"{h.side} row {row}: the solution is not finite; scale the values or alpha down, or use dtype=float64"
            )
        raise RuntimeError(f"{h.side} row {row}: the solver failed with its error code {code}")


def keeps_basis(solver: Any) -> bool:
    """Whether a resolved solver asks for factors that are not rotated."""
    return is_nonnegative(solver) or bool(getattr(solver, "original_basis", False))


def starts_warm(solver: Any) -> bool:
    """Whether a resolved solver starts from a row's last factors."""
    return bool(getattr(solver, "warm_start", True))


def is_nonnegative(solver: Any) -> bool:
    """Whether a resolved solver finds factors >= 0, and asks for such a start."""
    return bool(getattr(solver, "nonnegative", False))


@functools.cache
def registered() -> dict[str, list[Any]]:
    """The entry points of the installed solvers by name: where two packages clash, more than one."""
    from importlib.metadata import entry_points

    found: dict[str, list[Any]] = {}
    for entry in entry_points(group="alscore.solvers"):
        same_name = found.setdefault(entry.name, [])
        # the same distribution seen twice (an editable install beside its metadata) is no clash
        if all(entry.value != other.value for other in same_name):
            same_name.append(entry)
    return found


def described(entry: Any) -> str:
    """An entry point, and the distribution that it comes from."""
    return f"{entry.value} from {entry.dist.name} {entry.dist.version}" if entry.dist else str(entry.value)


@functools.cache
def by_name(name: str) -> Any:
    """What is registered under a name.

    Raises
    ------
    ValueError
        Nothing is, or two things are.
    ImportError
        It cannot be imported.
    """
    if name not in registered():
        registered.cache_clear()  # it may have been installed meanwhile
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
    """What `solver`, in any form this module's head lists, stands for: an object with ``sweep(half_sweep, out)``.

    Raises
    ------
    ValueError
        No solver is registered by this name, or two are, or it was compiled for another version of the contract.
    ImportError
        The one of this name cannot be imported.
    TypeError
        `solver` is none of these forms.
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
    """Return a solver's name, or the name and the options of an option object that is registered under it."""
    if isinstance(solver, str):
        return solver
    origin = f"{type(solver).__module__}:{type(solver).__qualname__}"
    names = [name for name, entries in registered().items() if origin in (entry.value for entry in entries)]
    if not names or not dataclasses.is_dataclass(type(solver)):
        raise TypeError(
            f"cannot save the solver {solver!r}, not an option object of an installed one; "
            f"choose another with set_params(solver=...)"
        )
    return {"name": names[0], "options": dataclasses.asdict(solver)}


def from_json(solver: str | dict[str, Any]) -> Any:
    if isinstance(solver, str):
        return solver
    name = solver["name"]
    if name not in registered():
        raise ValueError(f"its solver {name!r} is not installed here")
    return by_name(name)(**solver["options"])
