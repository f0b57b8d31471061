"""Tests for solvers: tolerances, float64 oracles, and the conformance suite that the built-in solvers pass.

This module imports no test framework. A package with a solver of its own can use it in its tests::

    from alscore.testing import check_solver

    def test_my_solver_conforms():
        assert check_solver(MySolver(), exact=True) == ("float32", "float64")

The oracles take dense arrays and compute each formula as it is written, in float64. Their ``**parameters``
are `regularization`, `alpha`, `confidence`, `epsilon`, `unobserved_weight`, `regularization_exponent` and
`regularization_count`. They have the meaning and the defaults of `alscore.calculate_loss`.
"""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize, sparse

from alscore import solvers
from alscore._data.canonical import canonical_csr
from alscore._support.moved import renamed
from alscore._support.threads import one_blas_thread, resolve_threads
from alscore.solvers.half_sweeps import Side
from alscore.solvers.objective import Objective

Array = npt.NDArray[Any]

TOLERANCES = {
    # |x - oracle| / |oracle| of a row, for alpha * r <= 1e3 and singular values of the fixed factors from 1 to 0.1.
    # Their rotation rounds to a few eps, and their condition magnifies that. A fold-in that treats finished factors as
    # orthogonal has an error of the same size. In float64 there is room for the oracle's own error.
    "half-sweep": {"float32": 1e-5, "float64": 1e-9},
    # The same up to alpha * r = 1e5. LAPACK's float32 solution of the same system has an error of 2e-4 there.
    "half-sweep, strong": {"float32": 3e-4, "float64": 1e-9},
    # The same where negative weights cancel most of the system: eps over the least squared pivot that counts as
    # positive, 1e-3 in float32 and 1e-10 in float64. A system that cancels further is refused.
    "half-sweep, cancelling": {"float32": 1e-3, "float64": 1e-5},
    # |x.y - oracle| / (|x| |y|): the rounding of one inner product, sqrt(k) eps with a wide margin.
    "score": {"float32": 1e-5, "float64": 1e-13},
    # Relative error for given factors: all sums are float64, so float32 only rounds the strengths.
    "loss": {"float32": 1e-6, "float64": 1e-12},
    # Relative rise of an objective. At a minimum the rounding of the factors has a second-order effect, but the initial
    # factors, which the rotation rounds, are not at a minimum.
    "descent": {"float32": 1e-5, "float64": 1e-12},
    # |X Y' - other X Y'| / |X Y'| of two fits that differ in rounding only, for example by the kernel set, for
    # alpha * r <= 100. Sweeps magnify the rounding of a half-sweep: exact sweeps a few times, sweeps of a few CG steps
    # beyond any bound from alpha * r = 1e3 on.
    "fit": {"float32": 3e-5, "float64": 1e-12},
}


def tolerance(operation: str, dtype: npt.DTypeLike) -> float:
    """Return the largest error of an operation against its oracle.

    Parameters
    ----------
    operation : str
        A key of `TOLERANCES`. The comments there give the reasons.
    dtype : numpy dtype
        float32 or float64.

    Returns
    -------
    float
    """
    return TOLERANCES[operation][np.dtype(dtype).name]


def dense_problem(
    user_items: Array,
    regularization: float,
    alpha: float = 1.0,
    confidence: str = "linear",
    epsilon: float = 1.0,
    unobserved_weight: float = 1.0,
    regularization_exponent: float = 0.0,
    regularization_count: str = "all",
) -> tuple[Array, Array, Array]:
    """Oracle: confidence, preference and regularization of every pair.

    Parameters
    ----------
    user_items : array (n_users, n_items)
        Dense; 0 where there is no entry.
    regularization, alpha, confidence, epsilon, unobserved_weight, regularization_exponent, regularization_count
        Same as for `alscore.calculate_loss`.

    Returns
    -------
    c, p : float64 array (n_users, n_items)
        Confidences and preferences.
    regularization : float64 array (n_users,)
        λ_u.
    """
    r = np.asarray(user_items, np.float64)
    observed = {
        "linear": 1 + alpha * abs(r),
        "log": 1 + alpha * np.log(1 + abs(r) / epsilon),
        "raw": alpha * abs(r),
    }[confidence]
    size = (r != 0).sum(axis=1) + (unobserved_weight * r.shape[1] if regularization_count == "all" else 0)
    c, p = np.where(r != 0, observed, unobserved_weight), np.where(r > 0, 1.0, 0.0)
    return c, p, regularization * size.astype(np.float64) ** regularization_exponent


def exact_half_sweep(user_items: Array, item_factors: Array, nonnegative: bool = False, **parameters: Any) -> Array:
    """Oracle: the user factors of the minimum for fixed item factors. Transpose `user_items` to solve items.

    Parameters
    ----------
    user_items : array (n_users, n_items)
        Dense; 0 where there is no entry.
    item_factors : array (n_items, k)
    nonnegative : bool
        Return the minimum over user factors >= 0, by scipy.optimize.nnls.
    **parameters
        See the head of this module.

    Returns
    -------
    float64 array (n_users, k)
    """
    Y = np.asarray(item_factors, np.float64)
    ridge = np.eye(Y.shape[1])
    solve = _nonnegative_minimum if nonnegative else np.linalg.solve
    rows = [
        solve(Y.T @ (c[:, None] * Y) + lam * ridge, Y.T @ (c * p))
        for c, p, lam in zip(*dense_problem(user_items, **parameters), strict=True)
    ]
    return np.array(rows).reshape(-1, Y.shape[1])


def _nonnegative_minimum(A: Array, b: Array) -> Array:
    """Return the minimum of x'Ax / 2 - b'x over x >= 0: with A = U'U, the minimum of |Ux - (U')^-1 b|."""
    U = np.linalg.cholesky(A).T
    return np.asarray(optimize.nnls(U, linalg.solve_triangular(U, b, trans=1))[0])


def row_losses(user_items: Array, user_factors: Array, item_factors: Array, **parameters: Any) -> Array:
    """Oracle: each user's part of the objective, without the regularization of the items.

    Parameters
    ----------
    user_items : array (n_users, n_items)
    user_factors : array (n_users, k)
    item_factors : array (n_items, k)
    **parameters
        See the head of this module.

    Returns
    -------
    float64 array (n_users,)
    """
    X, Y = np.asarray(user_factors, np.float64), np.asarray(item_factors, np.float64)
    c, p, lam = dense_problem(user_items, **parameters)
    losses: Array = (c * (p - X @ Y.T) ** 2).sum(axis=1) + lam * (X**2).sum(axis=1)
    return losses


def loss(user_items: Array, user_factors: Array, item_factors: Array, **parameters: Any) -> float:
    """Oracle: the objective.

    Parameters
    ----------
    user_items, user_factors, item_factors, **parameters
        Same as for `row_losses`.

    Returns
    -------
    float
    """
    item_regularization = dense_problem(np.transpose(user_items), **parameters)[2]
    squared_norms = (np.asarray(item_factors, np.float64) ** 2).sum(axis=1)
    rows = row_losses(user_items, user_factors, item_factors, **parameters)
    return float(rows.sum() + item_regularization @ squared_norms)


def exact_top_n(scores: Array, n: int, excluded: Array | bool = False) -> tuple[Array, Array]:
    """Oracle: the n best columns of each row. Ties: lower column first.

    Parameters
    ----------
    scores : array (n_users, n_items)
    n : int
    excluded : bool array, broadcast to the shape of `scores`
        Columns that are not returned.

    Returns
    -------
    ids : int array (n_users, n)
        -1 where a row has fewer than n columns to return.
    scores : array (n_users, n)
        -inf where the id is -1.
    """
    scores = np.where(excluded, -np.inf, scores)
    scores = np.pad(scores, ((0, 0), (0, n)), constant_values=-np.inf)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    best = np.take_along_axis(scores, ids, axis=1)
    return np.where(best > -np.inf, ids, -1), best


def row_errors(x: Array, oracle: Array) -> Array:
    """Return the norm of each row's error, relative to the row of the oracle where that is not 0.

    Parameters
    ----------
    x, oracle : array (n_rows, k)

    Returns
    -------
    array (n_rows,)
    """
    norms = np.linalg.norm(oracle, axis=1)
    errors: Array = np.linalg.norm(x - oracle, axis=1) / np.where(norms > 0, norms, 1)
    return errors


def random_problem(
    k: int, lengths: Any, largest: float = 1e3, dislikes: bool = False, decay: float = 0.1, seed: int = 0
) -> tuple[Array, Array]:
    """Make rows of entries, and fixed factors with a decaying spectrum like that of trained factors.

    Parameters
    ----------
    k : int
        Length of the factors.
    lengths : sequence of int
        Number of entries of each row.
    largest : float
        Largest value. Values are whole numbers from 1 to this, evenly spread in the logarithm.
    dislikes : bool
        Whether a third of the values are negative.
    decay : float
        Smallest over largest singular value of the factors, roughly.
    seed : int
        Seed of the random numbers. The same seed gives the same problem.

    Returns
    -------
    user_items : float64 array (len(lengths), n_items)
    item_factors : float64 array (n_items, k)
    """
    rng = np.random.default_rng(seed)
    n_items = max(lengths) + k // 2 + 5
    axes = np.linalg.qr(rng.standard_normal((k, k)))[0]
    item_factors = (rng.standard_normal((n_items, k)) * np.geomspace(1, decay, k)) @ axes
    user_items = np.zeros((len(lengths), n_items))
    for row, n in zip(user_items, lengths, strict=True):
        sign = np.where(rng.random(n) < 1 / 3, -1, 1) if dislikes else 1
        row[rng.permutation(n_items)[:n]] = sign * np.rint(largest ** rng.random(n))
    return user_items, item_factors


def run_half_sweep(
    solver: Any, user_items: Array, item_factors: Array, start: Array, num_threads: int = 1, **parameters: Any
) -> tuple[Array, Array]:
    """Run one half-sweep of a solver, the users on the item factors, as in training.

    Parameters
    ----------
    solver : str or object
        In any form that `alscore.solvers` describes.
    user_items : array (n_users, n_items)
        Dense.
    item_factors : array (n_items, k)
    start : float32 or float64 array (n_users, k)
        Previous user factors. Their dtype is that of the arithmetic.
    num_threads : int
    **parameters
        See the head of this module.

    Returns
    -------
    user_factors : array (n_users, k)
    item_factors : array (n_items, k)
        In the basis of the returned user factors.
    """
    objective = Objective(**parameters)
    matrix = canonical_csr(sparse.csr_array(user_items), dtype=start.dtype)
    users = Side.of("user", objective, matrix, start.shape[1], num_threads)
    users.num_threads = resolve_threads(num_threads)  # little work too
    X, Y = np.array(start, order="C"), np.array(item_factors, start.dtype, order="C")
    with one_blas_thread():
        users.update(solvers.resolve(solver), Y, X)
    return X, Y


class _Guarded:
    """A solver, with a check that it does not modify its half-sweep."""

    def __init__(self, solver: Any) -> None:
        self._solver = solver
        self.original_basis = solvers.keeps_basis(solver)
        self.warm_start = solvers.starts_warm(solver)
        self.nonnegative = solvers.is_nonnegative(solver)

    def sweep(self, half_sweep: solvers.HalfSweep, out: Array) -> None:
        arrays = {name: value for name, value in vars(half_sweep).items() if isinstance(value, np.ndarray)}
        before = {name: array.copy() for name, array in arrays.items()}
        self._solver.sweep(half_sweep, out)
        for name, array in arrays.items():
            if not np.array_equal(array, before[name]):
                raise AssertionError(f"the solver modified {name}")


_CONFORMANCE_FACTORS = (1, 2, 3, 16, 17, 40)
_CONFORMANCE_CASES: dict[str, dict[str, Any]] = {
    "defaults": {"regularization": 0.01},
    "strong regularization": {"regularization": 100.0},
    "dislikes": {"regularization": 0.1, "dislikes": True},
    "scaled weights": {"regularization": 0.01, "unobserved_weight": 0.1, "regularization_exponent": 0.5},
    "log confidence": {"regularization": 0.01, "confidence": "log", "alpha": 40.0},
    # confidences of at least 2 for entries and 3 elsewhere: weights are negative, zero and positive
    "weights of both signs": {"regularization": 0.1, "unobserved_weight": 3.0},
}


def _offers(solver: Any, dtype: str) -> bool:
    try:
        run_half_sweep(solver, np.ones((1, 1)), np.ones((1, 1)), np.zeros((1, 1), dtype), regularization=1.0)
    except TypeError:
        return False
    return True


def _require(holds: Array | np.bool, what: str, case: str) -> None:
    """Raise an AssertionError that names the first row where `holds` is False. Row n has n entries here."""
    if not holds.all():
        raise AssertionError(f"{what}: row of {int(np.argmin(holds))} entries, with {case}")


def check_solver(solver: Any, *, exact: bool = False) -> tuple[str, ...]:
    """Verify that a solver keeps the contract, on rows of 0 to 4k entries, for several k and objectives.

    The contract: rows without entries become 0. Every number is finite, and at least 0 if the solver is non-negative.
    The arrays of the half-sweep are not modified. The bits do not depend on the number of threads. The objective of a
    row does not end above the larger of two values: its value at the previous factors, and its value at 0.

    Parameters
    ----------
    solver : str or object
        In any form that `alscore.solvers` describes.
    exact : bool
        Also require every row to equal the float64 oracle within `TOLERANCES`. For a non-negative solver it is the
        oracle over factors >= 0.

    Returns
    -------
    tuple of str
        "float32", "float64", or both: the dtypes that the solver offers, verified. A dtype that it refuses with a
        TypeError is left out.

    Raises
    ------
    AssertionError
        The message says which part of the contract does not hold, for which row and case.

    Examples
    --------
    >>> from alscore.testing import check_solver
    >>> check_solver("cholesky", exact=True)
    ('float32', 'float64')
    """
    solver = _Guarded(solvers.resolve(solver))
    offered = tuple(dtype for dtype in ("float32", "float64") if _offers(solver, dtype))
    if not offered:
        raise AssertionError("the solver refuses both float32 and float64 with a TypeError")
    for dtype in offered:
        for k, name in itertools.product(_CONFORMANCE_FACTORS, _CONFORMANCE_CASES):
            _check_rows(solver, exact, k, np.dtype(dtype), name)
        _check_threads(solver, np.dtype(dtype))
    return offered


def _start(solver: _Guarded, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    start = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    return np.maximum(start, 0) if solver.nonnegative else start


def _check_rows(solver: _Guarded, exact: bool, k: int, dtype: np.dtype[Any], name: str) -> None:
    parameters = dict(_CONFORMANCE_CASES[name])
    R, Y = random_problem(k, range(4 * k + 1), dislikes=bool(parameters.pop("dislikes", False)))
    Y = Y.astype(dtype)
    start = _start(solver, (len(R), k), dtype)
    X, rotated = run_half_sweep(solver, R, Y, start, **parameters)

    case = f"{name}, k={k}, {dtype}"
    _require(np.isfinite(X).all(axis=1), "not finite", case)
    _require(np.logical_or((X == 0).all(axis=1), (R != 0).any(axis=1)), "not 0", case)
    if solver.nonnegative:
        _require((X >= 0).all(axis=1), "negative", case)
    bound = np.maximum(row_losses(R, start, Y, **parameters), row_losses(R, 0 * start, Y, **parameters))
    slack = 1 + tolerance("descent", dtype)
    _require(row_losses(R, X, rotated, **parameters) <= slack * bound, "the objective rose", case)
    if exact:
        errors = row_errors(X, exact_half_sweep(R, rotated, solver.nonnegative, **parameters))
        _require(errors <= tolerance("half-sweep", dtype), f"errors up to {errors.max():.1e}", case)


def _check_threads(solver: _Guarded, dtype: np.dtype[Any], k: int = 17) -> None:
    R, Y = random_problem(k, range(4 * k + 1), dislikes=True)
    start = _start(solver, (len(R), k), dtype)
    expected = run_half_sweep(solver, R, Y, start, 1, regularization=0.1)[0]
    for threads in (2, 5):
        X = run_half_sweep(solver, R, Y, start, threads, regularization=0.1)[0]
        _require((expected == X).all(axis=1), f"other bits on {threads} threads", f"k={k}, {dtype}")


__getattr__ = renamed(__name__, {"half_sweep": "exact_half_sweep", "top_n": "exact_top_n"})
