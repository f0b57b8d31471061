"""The estimator: parameters, the alternation of half-sweeps, and recommendations by id."""

import contextlib
import dataclasses
import inspect
import math
import numbers
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import sparse

from alscore import _sweep, _threads, retrieval, solvers
from alscore.interactions import canonical_csr
from alscore.objective import Objective, penalty


class NotFittedError(ValueError, AttributeError):
    """The model has no factors yet."""


def _principal_axes(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a Gram matrix, descending and not negative, and its eigenvectors as columns."""
    energy, axes = np.linalg.eigh(gram)
    return np.maximum(energy[::-1], 0), np.ascontiguousarray(axes[:, ::-1])


def zero_factors(n: int, k: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (n, k) that begin with a cache line, so that a row lies in no more lines than it must.

    From where numpy puts large arrays, 16 bytes into a line, an exact sweep at k = 128 takes a quarter more time.
    """
    size = int(n) * int(k) * dtype.itemsize
    raw = np.zeros(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].view(dtype).reshape(n, k)


def _with_ridge(energy: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`energy`, raised to 16 eps of the largest where it is no more than the rounding of the Gram matrix.

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
    indptr: np.ndarray
    indices: np.ndarray
    strength: np.ndarray
    n_columns: int
    num_threads: int
    order: np.ndarray = dataclasses.field(init=False)
    regularization: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        entries = np.diff(self.indptr)
        self.order = np.argsort(-entries, kind="stable")
        self.regularization = self.objective.row_regularization(entries, self.n_columns)

    @classmethod
    def of(cls, name: str, objective: Objective, matrix: Any, factors: int, num_threads: int) -> "Side":
        """The rows of a canonical matrix."""
        threads = _threads.resolve(num_threads, matrix.nnz * int(factors))
        return cls(
            name, objective, matrix.indptr, matrix.indices, objective.strength(matrix.data), matrix.shape[1], threads
        )

    def transposed(self, name: str) -> "Side":
        arrays = _sweep.transpose(self.indptr, self.indices, self.strength, self.n_columns)
        return Side(name, self.objective, *arrays, len(self.indptr) - 1, self.num_threads)

    def update(self, solver: Any, fixed: np.ndarray, out: np.ndarray, loss: np.ndarray | None = None) -> bool:
        """Half-sweep: rotate `fixed` in place, unless the solver forbids it, and solve every row into `out`.

        Returns whether `loss` was filled with each row's share of the objective, its own regularization included.
        """
        gram = _sweep.gram(fixed, self.num_threads)
        if not solvers.keeps_basis(solver):
            gram, rotation = _principal_axes(gram)
            rotation = rotation.astype(fixed.dtype)
            _sweep.rotate(fixed, rotation, self.num_threads)
            if getattr(solver, "warm_start", True):
                _sweep.rotate(out, rotation, self.num_threads)
        return self.solve(solver, fixed, gram, out, loss)

    def solve(
        self, solver: Any, fixed: np.ndarray, gram: np.ndarray, out: np.ndarray, loss: np.ndarray | None = None
    ) -> bool:
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
            diag=np.zeros(len(gram)) if gram.ndim == 2 else _with_ridge(gram, fixed.dtype),
            regularization=self.regularization,
            confidence=self.objective.weights,
            num_threads=self.num_threads,
        )
        if loss is None or gram.ndim == 2 or not isinstance(solver, solvers.CompiledSolver):
            solver.sweep(half_sweep, out)
            return False
        solver.sweep(half_sweep, out, loss)
        return True


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C only sets the flag that the yielded function reads; a second one acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python delivers signals to the main thread alone
        return
    interrupted = False
    previous = signal.getsignal(signal.SIGINT)

    def note(signum: int, frame: Any) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, previous)

    if previous is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: interrupted
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, previous)


class AlternatingLeastSquares:
    """Matrix factorisation of implicit feedback by alternating least squares (Hu, Koren, Volinsky 2008).

    An entry r > 0 says that the user chose the item, with confidence c growing with r; r < 0 that the user rejected it,
    with the confidence of ``abs(r)``; no entry, or an explicit 0, is the same as r = 0. User factors x_u and item
    factors y_i minimise ::

        sum_ui c_ui (p_ui - x_u . y_i)**2  +  sum_u λ_u |x_u|**2  +  sum_i λ_i |y_i|**2

    with p = 1 where r > 0 and 0 elsewhere.

    Parameters
    ----------
    factors : int
        Length k of every factor vector.
    regularization : float
        λ, at least 0. A direction in which the other side's factors have no energy (there are more factors than items,
        say) gets a ridge of 16 eps times the largest energy besides, so that rows stay near 0 there even with 0.
    alpha : float
        Scale of the confidence.
    iterations : int
        Sweeps (users, then items) at most.
    solver : str or object
        "cholesky" (exact), "cg" (a few steps of conjugate gradient), "auto" (exact, but for long rows of many factors),
        the name of an installed plug-in, or an object: see `alscore.solvers`.
    dtype : numpy dtype
        float32 or float64: of the factors and of all arithmetic on rows. Gram matrices, rotations and the loss are
        computed in float64 always.
    confidence : {"linear", "log", "raw"}
        c = 1 + α abs(r);  1 + α log(1 + abs(r) / ε);  or α abs(r), where the values are confidences already.
    unobserved_weight : float
        α0, the confidence where there is no entry.
    regularization_exponent : float
        ν: λ_u = λ (n_u + α0 n_items)**ν for a user of n_u entries, and likewise for items (Rendle et al. 2021).
    tol : float, optional
        Stop after a sweep that lowers the objective by less than this fraction of it.
    calculate_training_loss : bool
        Compute the objective after each sweep and show it in the progress bar. It is computed too where `tol` or a
        callback asks for it.
    num_threads : int
        0 takes all CPUs that this process may use. The result has the same bits for any number.
    random_state : None, int, numpy Generator or RandomState
        Of the first item factors.
    epsilon : float
        ε of the "log" confidence.

    Attributes
    ----------
    user_factors : array (n_users, factors)
    item_factors : array (n_items, factors)
        None before `fit`. In the canonical basis: ``item_factors.T @ item_factors`` is diagonal and descends along it,
        and the number of largest magnitude in each column of `item_factors` is positive. (A solver that asks for the
        original basis keeps it.)
    training_loss : list of float
        The objective after each sweep of the last `fit`, if that computed it.
    """

    def __init__(
        self,
        factors: int = 100,
        regularization: float = 0.01,
        alpha: float = 1.0,
        iterations: int = 15,
        solver: Any = "auto",
        dtype: Any = np.float32,
        confidence: str = "linear",
        unobserved_weight: float = 1.0,
        regularization_exponent: float = 0.0,
        tol: float | None = None,
        calculate_training_loss: bool = False,
        num_threads: int = 0,
        random_state: Any = None,
        epsilon: float = 1.0,
    ) -> None:
        self.factors = factors
        self.regularization = regularization
        self.alpha = alpha
        self.iterations = iterations
        self.solver = solver
        self.dtype = dtype
        self.confidence = confidence
        self.unobserved_weight = unobserved_weight
        self.regularization_exponent = regularization_exponent
        self.tol = tol
        self.calculate_training_loss = calculate_training_loss
        self.num_threads = num_threads
        self.random_state = random_state
        self.epsilon = epsilon
        self.user_factors: np.ndarray | None = None
        self.item_factors: np.ndarray | None = None
        self.training_loss: list[float] = []

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        return {name: p.default for name, p in inspect.signature(cls).parameters.items()}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's parameters by name; `deep` is there for scikit-learn and changes nothing."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> "AlternatingLeastSquares":
        """Set constructor parameters by name; they count from the next `fit`."""
        for name, value in params.items():
            if name not in self._defaults():
                raise ValueError(f"{name!r} is not a parameter; there are: {', '.join(self._defaults())}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = self._defaults()
        shown = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name] and not (type(value) is type(defaults[name]) and value == defaults[name])
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def _objective(self) -> Objective:
        return Objective(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Objective)})

    def _checked(self) -> tuple[Objective, np.dtype, Any]:
        for name, least in (("factors", 1), ("iterations", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, not {value!r}")
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            dtype = np.dtype(object)
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, not {self.dtype!r}")
        if self.tol is not None and not (isinstance(self.tol, numbers.Real) and 0 <= self.tol < 1):
            raise ValueError(f"tol must be None, or at least 0 and below 1, not {self.tol!r}")
        return self._objective(), dtype, solvers.resolve(self.solver)

    def _first_factors(self, n_items: int, dtype: np.dtype) -> np.ndarray:
        """Normal with standard deviation 0.1 / sqrt(k) (Rendle et al. 2021): the same start in both precisions."""
        random = self.random_state
        if not isinstance(random, (np.random.Generator, np.random.RandomState)):
            try:
                random = np.random.default_rng(random)
            except (TypeError, ValueError) as error:
                raise type(error)(
                    f"random_state must be None, an integer >= 0, a Generator or a RandomState, not {random!r}"
                ) from error
        start = zero_factors(n_items, self.factors, dtype)
        if not isinstance(random, np.random.Generator):
            start[:] = random.standard_normal(start.shape).astype(np.float32)
        elif dtype == np.float32:
            random.standard_normal(dtype=np.float32, out=start)
        else:
            start[:] = random.standard_normal(start.shape, np.float32)
        start *= np.float32(0.1 / math.sqrt(self.factors))
        return start

    def fit(
        self,
        user_items: Any,
        show_progress: bool = True,
        callback: Callable[[int, float, float], Any] | None = None,
    ) -> "AlternatingLeastSquares":
        """Factorise the interactions, from a random start.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_users, n_items), or Interactions
            Any scipy format; duplicates are summed. It is not modified.
        show_progress : bool
            Show a progress bar.
        callback : function, optional
            Called as ``callback(iteration, seconds, loss)`` after each sweep: its number from 0, its duration, and
            the objective after it.

        Returns
        -------
        self

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, at the end of the half-sweep that was running: the model is usable then, trained as far as it
            came. The same holds for an exception in the callback.
        ValueError, TypeError
            A parameter, or the matrix, is not valid.
        alscore.solvers.NotPositiveDefiniteError, FloatingPointError
            A row cannot be solved; factors from before are kept.
        """
        from tqdm import tqdm

        objective, dtype, solver = self._checked()
        matrix = canonical_csr(getattr(user_items, "matrix", user_items), dtype=dtype)
        users = Side.of("user", objective, matrix, self.factors, self.num_threads)
        items = users.transposed("item")
        X, Y = zero_factors(matrix.shape[0], self.factors, dtype), self._first_factors(matrix.shape[1], dtype)

        wants_loss = self.calculate_training_loss or self.tol is not None or callback is not None
        shares = np.zeros(len(Y)) if wants_loss else None
        loss = previous_loss = math.inf
        losses: list[float] = []
        stopped_by: BaseException | None = None
        with (
            _threads.one_blas_thread(),
            _deferred_interrupt() as interrupted,
            tqdm(total=self.iterations, disable=not show_progress, unit="sweep") as progress,
        ):
            for iteration in range(self.iterations):
                start = time.perf_counter()
                users.update(solver, Y, X)
                if interrupted():
                    break
                if iteration == 0:
                    Y[:] = 0  # a random start is nothing that a solver should go on from
                has_shares = items.update(solver, X, Y, shares)
                if wants_loss:
                    previous_loss, loss = loss, self._loss(users, items, X, Y, shares if has_shares else None)
                    losses.append(loss)
                    progress.set_postfix(loss=f"{loss:.6g}", refresh=False)
                progress.update()
                if callback is not None:
                    try:
                        callback(iteration, time.perf_counter() - start, loss)
                    except BaseException as error:
                        stopped_by = error
                        break
                converged = self.tol is not None and previous_loss - loss < self.tol * abs(previous_loss)
                if converged or interrupted():
                    break
            if not solvers.keeps_basis(solver):
                X, Y = self._canonical(X, Y, users.num_threads)
            self.user_factors, self.item_factors, self.training_loss = X, Y, losses
            if interrupted():
                stopped_by = KeyboardInterrupt()
        if stopped_by is not None:
            raise stopped_by
        return self

    @staticmethod
    def _loss(users: Side, items: Side, X: np.ndarray, Y: np.ndarray, item_shares: np.ndarray | None) -> float:
        if item_shares is not None:
            return float(item_shares.sum()) + penalty(X, users.regularization)
        return users.objective.loss(
            users.indptr,
            users.indices,
            users.strength,
            X,
            Y,
            users.regularization,
            items.regularization,
            users.num_threads,
        )

    @staticmethod
    def _canonical(X: np.ndarray, Y: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Both sides rotated so that Y'Y is diagonal, descending, with each column's largest number positive."""
        rotation = _principal_axes(_sweep.gram(Y, threads))[1].astype(Y.dtype)
        for factors in (X, Y):
            _sweep.rotate(factors, rotation, threads)
        signs = np.where(-Y.min(axis=0, initial=0) > Y.max(axis=0, initial=0), -1, 1).astype(Y.dtype)
        for factors in (X, Y):
            factors *= signs
        return X, Y

    def _fitted(self) -> tuple[np.ndarray, np.ndarray]:
        if self.user_factors is None or self.item_factors is None:
            raise NotFittedError(f"this {type(self).__name__} has no factors yet: call fit first")
        return self.user_factors, self.item_factors

    def _rows_of(self, user_items: Any, n_rows: int) -> Any:
        """`user_items` as a canonical matrix with one row for each of n_rows users."""
        _, Y = self._fitted()
        rows = getattr(user_items, "matrix", user_items)
        if sparse.issparse(rows) and rows.ndim == 1:  # what csr_array[userid] gives for one id
            rows = rows.reshape((1, -1))
        matrix = canonical_csr(rows, dtype=Y.dtype)
        if matrix.shape != (n_rows, len(Y)):
            raise ValueError(
                f"user_items has shape {matrix.shape}, but must have {(n_rows, len(Y))}: one row for each "
                "id in userid, e.g. user_items[userid], and one column for each item"
            )
        return matrix

    def _fold_in(self, user_items: Any) -> np.ndarray:
        """Factors of the users whose rows these are, solved exactly on the item factors as they stand."""
        _, Y = self._fitted()
        solver = solvers.resolve(self.solver)
        rows = Side.of("user", self._objective(), user_items, Y.shape[1], self.num_threads)
        out = np.zeros((user_items.shape[0], Y.shape[1]), Y.dtype)
        with _threads.one_blas_thread():
            gram = _sweep.gram(Y, rows.num_threads)
            if solvers.keeps_basis(solver):
                rows.solve(solver, Y, gram, out)
                return out
            energy, rotation = _principal_axes(gram)
            scale = np.sqrt(np.diag(gram))
            rounding = 32 * np.finfo(Y.dtype).eps * np.outer(scale, scale) + 1e-14 * energy.max(initial=0)
            if np.all(np.abs(gram - np.diag(np.diag(gram))) <= rounding):
                rows.solve(solvers.resolve(solvers.Cholesky()), Y, np.diag(gram).copy(), out)
                return out
            # factors from elsewhere, not in the canonical basis: there and back
            rotation = rotation.astype(Y.dtype)
            rotated = Y.copy()
            _sweep.rotate(rotated, rotation, rows.num_threads)
            rows.solve(solvers.resolve(solvers.Cholesky()), rotated, energy, out)
            _sweep.rotate(out, np.ascontiguousarray(rotation.T), rows.num_threads)
        return out

    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Any = None,
        recalculate_user: bool = False,
        items: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The N items with the highest scores ``x_u . y_i`` for one user or several.

        Parameters
        ----------
        userid : int or int array (n,)
        user_items : sparse matrix, shape (n, n_items)
            One row for each id, as ``user_items[userid]`` gives (for one id, of one dimension too): what is already
            liked, and what `recalculate_user` solves from. May be None where neither is wanted.
        N : int
        filter_already_liked_items : bool
            Leave out the items that stand in the user's row.
        filter_items : int array, optional
            Items never to return.
        recalculate_user : bool
            Solve the users from their rows instead of using `user_factors`; the ids are then labels only.
        items : int array, optional
            The only items to consider.

        Returns
        -------
        ids : int32 array (N,), or (n, N) for an array of ids
            Best first; of equal scores the lower id first. -1 where fewer than N items are left.
        scores : array of the same shape, dtype of the factors
            -inf where the id is -1.

        Raises
        ------
        IndexError
            An id is out of range.
        ValueError
            `user_items` does not have the shape above.
        """
        X, Y = self._fitted()
        many = np.ndim(userid) > 0
        if recalculate_user:
            users = retrieval.codes(userid, np.iinfo(np.int64).max, "userid")
        else:
            users = retrieval.codes(userid, len(X), "userid")
        rows = None
        if filter_already_liked_items or recalculate_user:
            if user_items is None:
                raise ValueError(
                    "user_items is needed to filter what a user already liked, and to recalculate users; "
                    "pass the users' rows, or filter_already_liked_items=False"
                )
            rows = self._rows_of(user_items, len(users))
        ids, scores = retrieval.top_n(
            self._fold_in(rows) if recalculate_user else X[users],
            Y,
            N,
            exclude=rows if filter_already_liked_items else None,
            allow=items,
            deny=filter_items,
            num_threads=self.num_threads,
        )
        return (ids, scores) if many else (ids[0], scores[0])

    def similar_items(
        self, itemid: Any, N: int = 10, *, filter_items: Any = None, items: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The N items whose factors have the highest cosine with those of one item or several, itself included.

        Parameters and returned arrays are as for `recommend`.
        """
        return self._similar(self._fitted()[1], itemid, "itemid", N, filter_items, items)

    def similar_users(
        self, userid: Any, N: int = 10, *, filter_users: Any = None, users: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The N users whose factors have the highest cosine with those of one user or several, itself included.

        Parameters and returned arrays are as for `recommend`.
        """
        return self._similar(self._fitted()[0], userid, "userid", N, filter_users, users)

    def _similar(
        self, factors: np.ndarray, ids: Any, name: str, n: int, deny: Any, allow: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        queries = retrieval.codes(ids, len(factors), name)
        unit = retrieval.normalized(factors)
        found, scores = retrieval.top_n(unit[queries], unit, n, allow=allow, deny=deny, num_threads=self.num_threads)
        return (found, scores) if np.ndim(ids) > 0 else (found[0], scores[0])

    def save(self, path: Any) -> None:
        """Write parameters and factors to one file without pickle: see `alscore.load`."""
        from alscore import persistence

        persistence.save(self, path)

    @classmethod
    def load(cls, path: Any) -> "AlternatingLeastSquares":
        """The model that `save` wrote to `path`."""
        from alscore import persistence

        model = persistence.load(path)
        if not isinstance(model, cls):
            raise TypeError(f"{path} holds a {type(model).__name__}, not a {cls.__name__}: open it with alscore.load")
        return model
