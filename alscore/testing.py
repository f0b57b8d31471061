"""What alscore measures itself against: tolerances, float64 oracles, and the conformance suite for solvers.

It needs numpy and scipy alone, so that a package that provides a solver can use it in tests of its own::

    from alscore.testing import check_solver

    def test_my_solver_conforms():
        assert check_solver(MySolver(), exact=True) == ("float32", "float64")

The oracles take dense arrays and compute the formula as it is written, in float64. Their ``**parameters``
are `regularization`, `alpha`, `confidence`, `epsilon`, `unobserved_weight`, `regularization_exponent` and
`regularization_count`, with the meaning and the defaults that they have in `alscore.calculate_loss`.
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
from alscore.solvers.training import Training

Array = npt.NDArray[Any]

TOLERANCES = {
    # |x - oracle| / |oracle| of a row, for alpha * r <= 1e3 and singular values of the fixed factors of 1 to 0.1:
    # their rotation rounds to a few eps, which their condition magnifies, as it does where a fold-in takes finished
    # factors to be as orthogonal as their precision can store. In float64 the oracle's own error has room too.
    "half-sweep": {"float32": 1e-5, "float64": 1e-9},
    # The same up to alpha * r = 1e5, where LAPACK's own float32 solution of the system has an error of 2e-4.
    "half-sweep, strong": {"float32": 3e-4, "float64": 1e-9},
    # The same where negative weights cancel most of the system: eps over the least squared pivot that counts as
    # positive, 1e-3 and 1e-10. What cancels further is refused.
    "half-sweep, cancelling": {"float32": 1e-3, "float64": 1e-5},
    # |x.y - oracle| / (|x| |y|): rounding of one inner product, sqrt(k) eps with a wide margin.
    "score": {"float32": 1e-5, "float64": 1e-13},
    # Relative, for given factors: all sums run in float64, so float32 only rounds the strengths.
    "loss": {"float32": 1e-6, "float64": 1e-12},
    # By how much an objective may rise, relative: a minimum feels the rounding of factors in second order,
    # but the start, which the rotation rounds, is not at a minimum.
    "descent": {"float32": 1e-5, "float64": 1e-12},
    # |X Y' - other X Y'| / |X Y'| of two fits that differ in rounding only, such as by the kernel set, for
    # alpha * r <= 100. Sweeps magnify the rounding of a half-sweep: exact ones a few times, those of a few CG
    # steps beyond any bound once alpha * r reaches 1e3.
    "fit": {"float32": 3e-5, "float64": 1e-12},
}


def tolerance(operation: str, dtype: npt.DTypeLike) -> float:
    """How far an operation may be from its oracle.

    Parameters
    ----------
    operation : str
        A key of `TOLERANCES`, where the reasons stand.
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
    """Oracle: what the objective is made of, pair by pair.

    Parameters
    ----------
    user_items : array (n_users, n_items)
        Dense; 0 where there is no entry.
    regularization, alpha, confidence, epsilon, unobserved_weight, regularization_exponent, regularization_count
        As for `alscore.calculate_loss`.

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
    """Oracle: the minimising user factors for fixed item factors; transpose `user_items` for the other side.

    Parameters
    ----------
    user_items : array (n_users, n_items)
        Dense; 0 where there is no entry.
    item_factors : array (n_items, k)
    nonnegative : bool
        The minimum over user factors >= 0, by SciPy's.
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
    """argmin of x'Ax / 2 - b'x over x >= 0: with A = U'U that of |Ux - (U')^-1 b|."""
    U = np.linalg.cholesky(A).T
    return np.asarray(optimize.nnls(U, linalg.solve_triangular(U, b, trans=1))[0])


def row_losses(user_items: Array, user_factors: Array, item_factors: Array, **parameters: Any) -> Array:
    """Oracle: each user's share of the objective, without the items' regularization.

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
        As for `row_losses`.

    Returns
    -------
    float
    """
    item_regularization = dense_problem(np.transpose(user_items), **parameters)[2]
    item_energy = (np.asarray(item_factors, np.float64) ** 2).sum(axis=1)
    rows = row_losses(user_items, user_factors, item_factors, **parameters)
    return float(rows.sum() + item_regularization @ item_energy)


def exact_top_n(scores: Array, n: int, excluded: Array | bool = False) -> tuple[Array, Array]:
    """Oracle: the n best columns of each row, of equal scores the lower column first.

    Parameters
    ----------
    scores : array (n_users, n_items)
    n : int
    excluded : bool array, broadcast to the shape of `scores`
        What not to return.

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
    """Norm of each row's error, relative to the oracle's row where that is not 0.

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
    """Rows of interactions, and fixed factors with a decaying spectrum such as training gives them.

    Parameters
    ----------
    k : int
        Factors.
    lengths : sequence of int
        Entries of each row.
    largest : float
        Entries are whole numbers from 1 to this, evenly spread in the logarithm.
    dislikes : bool
        A third of the entries are negative.
    decay : float
        Smallest over largest singular value of the factors, roughly.
    seed : int

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
    """One half-sweep of a solver, as in training.

    Parameters
    ----------
    solver : str or object
        In any form that `alscore.solvers` describes.
    user_items : array (n_users, n_items)
        Dense.
    item_factors : array (n_items, k)
    start : float32 or float64 array (n_users, k)
        User factors to go on from; all arithmetic is in this dtype.
    num_threads : int
    **parameters
        See the head of this module.

    Returns
    -------
    user_factors : array (n_users, k)
    item_factors : array (n_items, k)
        In the basis in which the solver worked, and its solutions stand.
    """
    objective = Objective(**parameters)
    matrix = canonical_csr(sparse.csr_array(user_items), dtype=start.dtype)
    users = Side.of("user", objective, matrix, start.shape[1], num_threads)
    users.num_threads = resolve_threads(num_threads)  # little work too
    X, Y = np.array(start, order="C"), np.array(item_factors, start.dtype, order="C")
    with one_blas_thread():
        Training(users, users.transposed("item"), X, Y, solvers.resolve(solver)).solve_users()
    return X, Y


class _Guarded:
    """A solver, and the check that it leaves its half-sweep as it was."""

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
    # confidences from 2 on and 3 elsewhere: weights are negative, zero and positive
    "weights of both signs": {"regularization": 0.1, "unobserved_weight": 3.0},
}


def _offers(solver: Any, dtype: str) -> bool:
    try:
        run_half_sweep(solver, np.ones((1, 1)), np.ones((1, 1)), np.zeros((1, 1), dtype), regularization=1.0)
    except TypeError:
        return False
    return True


def _require(holds: Array | np.bool, what: str, case: str) -> None:
    """Raise an AssertionError that names the first row which does not hold; row n has n entries here."""
    if not holds.all():
        raise AssertionError(f"{what}: row of {int(np.argmin(holds))} entries, with {case}")


def check_solver(solver: Any, *, exact: bool = False) -> tuple[str, ...]:
    """Verify that a solver keeps the contract, on rows of 0 to 4k entries for several k and objectives.

    Rows without entries become 0; every number is finite, and not negative if the solver says so; the half-sweep's
    arrays are not modified; the bits do not depend on the number of threads; no row's objective ends above both its
    start's and that of 0.

    Parameters
    ----------
    solver : str or object
        In any form that `alscore.solvers` describes.
    exact : bool
        Require every row to equal the float64 oracle, of a non-negative solver that over factors >= 0, within
        `TOLERANCES` as well.

    Returns
    -------
    tuple of str
        "float32", "float64", or both: what the solver offers and was verified in. One that it refuses with a
        TypeError is left out.

    Raises
    ------
    AssertionError
        Saying what does not hold, on which row, in which case.

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
