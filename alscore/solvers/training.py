"""The state of a training: both sides, their present factors, and its sweeps."""

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from alscore import solvers
from alscore._support.arrays import Doubles, Floats
from alscore.solvers.fold_in import FoldIn
from alscore.solvers.half_sweeps import Side, to_canonical_basis, zero_factors
from alscore.solvers.loss import loss, penalty


def never() -> bool:
    """The default of `Training.sweep`: nothing stops a sweep."""
    return False


class Training:
    """Alternating least squares from given factors, one sweep at a time.

    While it runs, limit BLAS to one thread: see `alscore._support.threads.one_blas_thread`.

    Parameters
    ----------
    users, items : Side
        `items` is `users` transposed.
    X, Y : float arrays (n_users, k), (n_items, k)
        Initial factors. Training changes them in place.
    solver : object
        As `alscore.solvers.resolve` returns it.
    random_start : bool
        Y is random. The first half-sweep solves the users on it, then Y becomes 0, so that no solver of the items
        continues from random factors.
    wants_loss : bool
        Whether to compute the objective after each sweep.

    Attributes
    ----------
    losses : list of float
        The objective after each sweep, if `wants_loss`.
    """

    def __init__(
        self,
        users: Side,
        items: Side,
        X: Floats,
        Y: Floats,
        solver: Any,
        *,
        random_start: bool = False,
        wants_loss: bool = False,
    ) -> None:
        self.users, self.items, self.X, self.Y, self.solver = users, items, X, Y, solver
        self.losses: list[float] = []
        self._random_start = random_start
        self._item_losses: Doubles | None = np.zeros(len(Y)) if wants_loss else None

    @classmethod
    def afresh(cls, users: Side, initial: Floats, solver: Any, wants_loss: bool = False) -> Self:
        """Start from random item factors (n_items, k)."""
        X = zero_factors(len(users.order), initial.shape[1], initial.dtype)
        return cls(users, users.transposed("item"), X, initial, solver, random_start=True, wants_loss=wants_loss)

    @classmethod
    def continued(
        cls,
        users: Side,
        known: tuple[Floats, Floats],
        solver: Any,
        fold_in: Callable[[], FoldIn],
        initial: Callable[[int], Floats] | None,
        wants_loss: bool = False,
    ) -> Self:
        """Continue from known factors.

        New users are solved exactly on the known item factors, then new items on the factors of all users.

        Parameters
        ----------
        users : Side
            The rows of all users. Known users and items come first.
        known : (X, Y)
            The known factors. They are copied.
        solver : object
        fold_in : function
            Returns a FoldIn of the known item factors. Called only where there are new users.
        initial : function, optional
            Returns initial factors for a number of items. Items with factors of 0 get them if all their
            users have factors of 0 too; otherwise the sweeps would leave both at 0. None if no sweep follows.
        wants_loss : bool
        """
        items, (n_users, n_items) = users.transposed("item"), map(len, known)
        X, Y = resized(known[0], len(users.order)), resized(known[1], len(items.order))
        if len(X) > n_users:
            X[n_users:] = fold_in().solve(users.part(n_users, n_items), solver)
        if len(Y) > n_items:
            Y[n_items:] = FoldIn(X, users.num_threads).solve(items.part(n_items, len(X)), solver)
        lost = (np.diff(items.indptr) > 0) & ~Y.any(axis=1)
        if initial is not None and lost.any():
            entry_has_user = np.repeat(X.any(axis=1), np.diff(users.indptr))
            lost &= np.bincount(users.indices, entry_has_user, len(Y)) == 0
            if lost.any():
                Y[lost] = initial(int(lost.sum()))
        return cls(users, items, X, Y, solver, wants_loss=wants_loss)

    def restart(self) -> None:
        """Treat Y as random initial factors: the next sweep solves the users on Y, then sets Y to 0."""
        self._random_start = True

    def solve_users(self) -> None:
        """Half a sweep: the users on the item factors."""
        self.users.update(self.solver, self.Y, self.X)

    def solve_items(self) -> None:
        """The other half: the items on the user factors, and the objective after it."""
        if self._random_start:
            self.Y[:] = 0
            self._random_start = False
        has_losses = self.items.update(self.solver, self.X, self.Y, self._item_losses)
        if self._item_losses is None:
            return
        if has_losses:
            self.losses.append(float(self._item_losses.sum()) + penalty(self.X, self.users.regularization))
        else:
            self.losses.append(loss(self.users, self.items.regularization, self.X, self.Y))

    def sweep(self, stops: Callable[[], bool] = never) -> bool:
        """Solve the users, then the items, unless ``stops()`` in between. Return whether the sweep is complete."""
        self.solve_users()
        if stops():
            return False
        self.solve_items()
        return True

    def converged(self, tol: float | None) -> bool:
        """Whether the last sweep lowered the objective by less than the fraction `tol`. None: never."""
        if tol is None or len(self.losses) < 2:
            return False
        before, now = self.losses[-2:]
        return before - now < tol * abs(before)

    def finished(self) -> tuple[Floats, Floats]:
        """Return X and Y in the basis of a fitted model. They are rotated in place: training ends here."""
        if not solvers.keeps_basis(self.solver):
            to_canonical_basis(self.X, self.Y, self.users.num_threads)
        return self.X, self.Y

    def so_far(self) -> tuple[Floats, Floats]:
        """Return copies of X and Y in the basis of a fitted model. Training can go on."""
        X, Y = (resized(factors, len(factors)) for factors in (self.X, self.Y))
        return Training(self.users, self.items, X, Y, self.solver).finished()


def initial_factors(n: int, k: int, dtype: np.dtype, random_state: Any, nonnegative: bool = False) -> Floats:
    """Return random factors (n, k), normal with standard deviation 0.1 / sqrt(k) (Rendle et al. 2021).

    They are drawn in float32, so that both precisions have the same initial factors.

    Parameters
    ----------
    n, k : int
    dtype : numpy dtype
    random_state : None, int, numpy Generator or RandomState
    nonnegative : bool
        Take the absolute values.
    """
    random = random_state
    if not isinstance(random, (np.random.Generator, np.random.RandomState)):
        try:
            random = np.random.default_rng(random)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"random_state must be None, an integer >= 0, a Generator or a RandomState, not {random!r}"
            ) from error
    initial = zero_factors(n, k, dtype)
    if not isinstance(random, np.random.Generator):
        initial[:] = random.standard_normal(initial.shape).astype(np.float32)
    elif dtype == np.float32:
        random.standard_normal(dtype=np.float32, out=initial)
    else:
        initial[:] = random.standard_normal(initial.shape, np.float32)
    initial *= np.float32(0.1 / math.sqrt(k))
    return np.abs(initial, out=initial) if nonnegative else initial


def resized(factors: Floats, n: int) -> Floats:
    """Return a copy with `n` rows, at least as many as now. New rows are 0."""
    copied = zero_factors(n, factors.shape[1], factors.dtype)
    copied[: len(factors)] = factors
    return copied
