"""The estimator: its parameters, training, and what training's arithmetic gives afterwards."""

import copy
import dataclasses
import math
import numbers
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from alscore import solvers
from alscore._data.canonical import CanonicalRows, canonical_csr
from alscore._data.container import Parts
from alscore._support.arrays import Doubles, Floats, Int64s, Ints
from alscore._support.checks import require_integer
from alscore._support.interrupts import deferred_interrupt
from alscore._support.threads import one_blas_thread
from alscore.metrics.estimator import Estimator
from alscore.retrieval import checked_ids
from alscore.retrieval.explain import UserWeights, user_row
from alscore.retrieval.factor_model import FactorModel
from alscore.retrieval.factors import ANY_ID, Factors, checked_rows, frozen
from alscore.solvers.fold_in import FoldIn
from alscore.solvers.half_sweeps import Side, alternate, to_canonical_basis, zero_factors
from alscore.solvers.loss import loss, penalty
from alscore.solvers.objective import Objective


class AlternatingLeastSquares(Estimator, FactorModel):
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
        say) gets a ridge besides, 16 eps of the largest energy in float32 and 1e-12 of it in float64, so that rows stay
        near 0 there even with 0.
    alpha : float
        Scale of the confidence.
    iterations : int
        Sweeps (users, then items) at most.
    solver : str or object
        "cholesky" (exact), "cg" (a few steps of conjugate gradient), "auto" (exact, but for long rows of many factors),
        "nonnegative" (exact among factors >= 0), the name of an installed plug-in, or an object: see `alscore.solvers`.
    dtype : numpy dtype
        float32 or float64: of the factors and of all arithmetic on rows. Gram matrices, rotations and the loss are
        computed in float64 always.
    confidence : {"linear", "log", "raw"}
        c = 1 + α abs(r);  1 + α log(1 + abs(r) / ε);  or α abs(r), where the values are confidences already.
    unobserved_weight : float
        α0, the confidence where there is no entry.
    regularization_exponent : float
        ν: λ_u = λ (n_u + α0 n_items)**ν for a user of n_u entries, and likewise for items (Rendle et al. 2021).
    regularization_count : {"all", "entries"}
        "entries" counts these alone: λ_u = λ n_u**ν (Zhou et al. 2008), with ν = 1 the objective of Spark's MLlib.
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
    warm_start : bool
        A second `fit` goes on from the factors there are, as `partial_fit` does, instead of starting afresh.

    Attributes
    ----------
    user_factors : array (n_users, factors)
    item_factors : array (n_items, factors)
        None before `fit`. In the canonical basis: ``item_factors.T @ item_factors`` is diagonal and descends along it,
        and the number of largest magnitude in each column of `item_factors` is positive. (A solver that asks for the
        original basis keeps it.) They are read-only. Factors from elsewhere can be assigned, in any basis: they are
        copied, unless the array is read-only already.
    training_loss : list of float
        The objective after each sweep of the last `fit` or `partial_fit`, if that computed it.
    validation_scores : list of float
        The score after each sweep of the last `fit`, if that had a `validation`.

    Examples
    --------
    >>> from alscore import AlternatingLeastSquares, datasets
    >>> user_items = datasets.synthetic(500, 300, seed=0).matrix
    >>> model = AlternatingLeastSquares(factors=16, random_state=0).fit(user_items, show_progress=False)
    >>> ids, scores = model.recommend([7, 8], user_items[[7, 8]], N=5)
    >>> ids.shape, scores.dtype
    ((2, 5), dtype('float32'))
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
        warm_start: bool = False,
        regularization_count: str = "all",
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
        self.warm_start = warm_start
        self.regularization_count = regularization_count
        self.training_loss: list[float] = []
        self.validation_scores: list[float] = []

    def _objective(self) -> Objective:
        return Objective(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Objective)})

    def _checked(self, iterations: Any, show_progress: Any) -> tuple[Objective, np.dtype, Any]:
        if np.ndim(show_progress) > 0:  # scikit-learn passes y in this place
            raise TypeError("show_progress must be True or False, not an array: there is no y to fit")
        require_integer(self.factors, "factors", 1)
        require_integer(iterations, "iterations", 0)
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            dtype = np.dtype(object)
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, not {self.dtype!r}")
        if self.tol is not None and not (isinstance(self.tol, numbers.Real) and 0 <= self.tol < 1):
            raise ValueError(f"tol must be None, or at least 0 and below 1, not {self.tol!r}")
        return self._objective(), dtype, solvers.resolve(self.solver)

    def _first_factors(self, n_items: int, dtype: np.dtype) -> Floats:
        """Normal with standard deviation 0.1 / sqrt(k) (Rendle et al. 2021): the same start in both precisions.

        The absolute values where `solver` finds non-negative factors.
        """
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
        return np.abs(start, out=start) if solvers.is_nonnegative(solvers.resolve(self.solver)) else start

    def fit(
        self,
        user_items: Any,
        show_progress: bool = True,
        callback: Callable[[int, float, float], Any] | None = None,
        *,
        validation: Any = None,
    ) -> Self:
        """Factorise the interactions, from a random start unless `warm_start` is set.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_users, n_items), or Interactions
            Any scipy format; duplicates are summed. It is not modified.
        show_progress : bool
            Show a progress bar.
        callback : function, optional
            Called as ``callback(iteration, seconds, loss)`` after each sweep: its number from 0, its duration, and
            the objective after it.
        validation : (train, test), Split, UserSplit or function, optional
            Judge the model after each sweep, and keep the best one, of equal ones the first: by NDCG@10 on held-out
            interactions (see `alscore.tuning.validator`, which makes other metrics too), or by a function from an
            AlternatingLeastSquares, fitted as far as training came, to a finite number, of which higher is better. ::

                split = splits.leave_k_out(plays, 0.2)
                model.fit(split.train, validation=split)

            Where it has the users of `user_items`, none of these may have an item that is held out.

        Returns
        -------
        self

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, at the end of the half-sweep that was running: the model is usable then, trained as far as it
            came, or the best one so far. The same holds for an exception in `callback` or `validation`.
        ValueError, TypeError
            A parameter, the matrix or `validation` is not valid, or they do not belong together; factors from before
            are kept.
        alscore.solvers.NotPositiveDefiniteError, FloatingPointError
            A row cannot be solved; factors from before are kept.
        """
        judge = None if validation is None else _judge(validation, user_items)
        if self.warm_start and self._both != (None, None):
            return self._go_on(user_items, self.iterations, show_progress, callback, judge)
        objective, dtype, solver = self._checked(self.iterations, show_progress)
        matrix = canonical_csr(getattr(user_items, "matrix", user_items), dtype)
        users = Side.of("user", objective, matrix, self.factors, self.num_threads)
        items = users.transposed("item")
        X, Y = zero_factors(matrix.shape[0], self.factors, dtype), self._first_factors(matrix.shape[1], dtype)
        return self._train(
            users, items, X, Y, solver, self.iterations, show_progress, callback, judge, random_start=True
        )

    def partial_fit(
        self,
        user_items: Any,
        iterations: int = 1,
        show_progress: bool = True,
        callback: Callable[[int, float, float], Any] | None = None,
    ) -> Self:
        """Go on from the factors there are, with all the interactions as they are now.

        New users are solved exactly on the current item factors, then new items on the factors of all users; the sweeps
        over everything start from there. After them users are solved once more: one sweep and this come nearer to what
        a new fit finds than the half-sweep costs.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_users, n_items), or Interactions
            Old interactions and new ones. At least as many rows and columns as the model has users and items: these
            come first, in their order, and new ones after them.
        iterations : int
            Sweeps at most; with 0 only what is new gets factors.
        show_progress, callback
            As for `fit`, and so are the errors raised.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            There are no factors to go on from.
        ValueError
            `user_items` has fewer rows or columns than the model has users and items, or the parameters `factors` and
            `dtype` are not those of the factors.
        """
        return self._go_on(user_items, iterations, show_progress, callback, users_last=iterations != 0)

    def _go_on(
        self,
        user_items: Any,
        iterations: int,
        show_progress: bool,
        callback: Callable[[int, float, float], Any] | None,
        judge: Callable[[Any], float] | None = None,
        users_last: bool = False,
    ) -> Self:
        known_users, known_items = self._fitted()
        objective, dtype, solver = self._checked(iterations, show_progress)
        n_users, (n_items, k) = len(known_users.array), known_items.array.shape
        if (k, known_items.array.dtype) != (self.factors, dtype):
            raise ValueError(
                f"the model has k = {k} factors of {known_items.array.dtype} to go on from, but factors={self.factors} "
                f"and dtype is {dtype}: set them to what the model has, or fit afresh with warm_start=False"
            )
        matrix = canonical_csr(getattr(user_items, "matrix", user_items), dtype)
        if matrix.shape[0] < n_users or matrix.shape[1] < n_items:
            raise ValueError(
                f"user_items has shape {matrix.shape}, less than the {(n_users, n_items)} of the model: pass the "
                "interactions of all users and items, the model's first and in their order"
            )
        users = Side.of("user", objective, matrix, k, self.num_threads)
        items = users.transposed("item")
        X, Y = _grown(known_users.array, matrix.shape[0]), _grown(known_items.array, matrix.shape[1])
        if len(X) > n_users:
            X[n_users:] = known_items.fold_in(self.num_threads).solve(users.part(n_users, n_items), solver)
        if len(Y) > n_items:
            Y[n_items:] = FoldIn(X, self.num_threads).solve(items.part(n_items, len(X)), solver)
        lost = (np.diff(items.indptr) > 0) & ~Y.any(axis=1)
        if iterations and lost.any():  # those that only have users of factors 0, who only have those, would stay 0
            lost &= np.bincount(matrix.indices, np.repeat(X.any(axis=1), np.diff(matrix.indptr)), len(Y)) == 0
            Y[lost] = self._first_factors(int(lost.sum()), dtype)
        return self._train(
            users, items, X, Y, solver, iterations, show_progress, callback, judge, users_last=users_last
        )

    def _train(
        self,
        users: Side,
        items: Side,
        X: Floats,
        Y: Floats,
        solver: Any,
        iterations: int,
        show_progress: bool,
        callback: Callable[[int, float, float], Any] | None,
        judge: Callable[[Any], float] | None,
        *,
        random_start: bool = False,
        users_last: bool = False,
    ) -> Self:
        """Sweep from X and Y, which it takes over; with `users_last`, half a sweep more; keep what `judge` prefers."""
        from tqdm import tqdm

        wants_loss = self.calculate_training_loss or self.tol is not None or callback is not None
        shares = np.zeros(len(Y)) if wants_loss else None
        half_sweeps = alternate(solver, users, items, X, Y, random_start, shares)
        loss = previous_loss = math.inf
        losses: list[float] = []
        scores: list[float] = []
        shown: dict[str, str] = {}
        best: tuple[Factors, Factors] | None = None
        stopped_by: BaseException | None = None
        with (
            one_blas_thread(),
            deferred_interrupt() as interrupted,
            tqdm(total=iterations, disable=not show_progress, unit="sweep") as progress,
        ):
            for iteration in range(iterations):
                start = time.perf_counter()
                next(half_sweeps)
                if interrupted():
                    break
                has_shares = next(half_sweeps)
                if wants_loss:
                    previous_loss, loss = loss, _loss(users, items, X, Y, shares if has_shares else None)
                    losses.append(loss)
                    shown["loss"] = f"{loss:.6g}"
                seconds = time.perf_counter() - start
                try:
                    if judge is not None:
                        # Judged is what would be returned: a copy, since training goes on in the original.
                        candidate = copy.copy(self)
                        candidate._both = _final(_grown(X, len(X)), _grown(Y, len(Y)), solver, users.num_threads)
                        score = judge(candidate)
                        if best is None or score > max(scores):
                            best = candidate._both
                        scores.append(score)
                        shown["validation"] = f"{score:.4f}"
                    progress.set_postfix(shown, refresh=False)
                    progress.update()
                    if callback is not None:
                        callback(iteration, seconds, loss)
                except BaseException as error:
                    stopped_by = error
                    break
                converged = self.tol is not None and previous_loss - loss < self.tol * abs(previous_loss)
                if converged or interrupted():
                    break
            if users_last and stopped_by is None and not interrupted():
                next(half_sweeps)
            self._both = best or _final(X, Y, solver, users.num_threads)
            self.training_loss, self.validation_scores = losses, scores
            if interrupted():
                stopped_by = KeyboardInterrupt()
        if stopped_by is not None:
            raise stopped_by
        return self

    def _parts(self) -> tuple[str, dict[str, Any], dict[str, Floats]]:
        return "AlternatingLeastSquares", _params_to_json(self.get_params()), self._factors_by_name()

    @classmethod
    def _restored(cls, parts: Parts) -> Self:
        model = cls(**_params_from_json(parts.params))
        model._take_factors(parts)
        return model

    def _fold_in(self, side: str, rows: CanonicalRows, fixed: Factors) -> Floats:
        solver = solvers.resolve(self.solver)
        problem = Side.of(side, self._objective(), rows, fixed.array.shape[1], self.num_threads)
        return fixed.fold_in(self.num_threads).solve(problem, solver)

    def recalculate_user(self, userid: Any, user_items: Any) -> Floats:
        """Factors of one user or several, known or new, solved from their rows; nothing is stored.

        The solution is exact on the current item factors, whatever `solver` is. (Only one that keeps the original
        basis, as "nonnegative" does, is used itself.)

        Parameters
        ----------
        userid : int or int array (n,)
            Labels only.
        user_items : sparse matrix, shape (n, n_items), or Interactions
            One row for each id.

        Returns
        -------
        array (k,), or (n, k) for an array of ids

        Raises
        ------
        NotFittedError
            There are no factors yet.
        ValueError
            `user_items` does not have the shape above.
        alscore.solvers.NotPositiveDefiniteError, FloatingPointError
            A row cannot be solved.
        """
        _, items = self._fitted()
        rows = checked_rows(user_items, "user_items", "userid", len(checked_ids(userid, ANY_ID, "userid")), items)
        X = self._fold_in("user", rows, items)
        return X if np.ndim(userid) > 0 else X[0]

    def recalculate_item(self, itemid: Any, item_users: Any) -> Floats:
        """Factors of one item or several, known or new, solved from their rows on the current user factors.

        Parameters
        ----------
        itemid : int or int array (n,)
            Labels only.
        item_users : sparse matrix, shape (n, n_users)
            One row for each id.

        Returns
        -------
        array (k,), or (n, k) for an array of ids
            See `recalculate_user`, for the errors raised too.
        """
        users, _ = self._fitted()
        rows = checked_rows(item_users, "item_users", "itemid", len(checked_ids(itemid, ANY_ID, "itemid")), users)
        Y = self._fold_in("item", rows, users)
        return Y if np.ndim(itemid) > 0 else Y[0]

    def partial_fit_users(self, userids: Any, user_items: Any) -> Self:
        """Solve some users from their rows on the current item factors, and keep the result.

        Every call copies the factors of all users, so it is better to give many at once.

        Parameters
        ----------
        userids : int array (n,)
            No id twice. Ids from the number of users on make the model grow; users between that are not given get
            factors of 0.
        user_items : sparse matrix, shape (n, n_items), or Interactions
            One row for each id: all that is known of the user, not only what is new.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            There are no factors yet.
        IndexError
            An id is negative, or larger than any model's.
        ValueError
            An id comes twice, or `user_items` does not have the shape above.
        alscore.solvers.NotPositiveDefiniteError, FloatingPointError
            A row cannot be solved; nothing is changed then.
        """
        users, items = self._fitted()
        ids = _distinct(userids, "userids")
        solved = self._fold_in("user", checked_rows(user_items, "user_items", "userids", len(ids), items), items)
        self._both = _updated(users, ids, solved), items
        return self

    def partial_fit_items(self, itemids: Any, item_users: Any) -> Self:
        """Solve some items from their rows on the current user factors, and keep the result.

        Parameters
        ----------
        itemids : int array (n,)
        item_users : sparse matrix, shape (n, n_users)
            One row for each id: all that is known of the item.
            For the rest see `partial_fit_users`, for the errors raised too.

        Returns
        -------
        self
        """
        users, items = self._fitted()
        ids = _distinct(itemids, "itemids")
        solved = self._fold_in("item", checked_rows(item_users, "item_users", "itemids", len(ids), users), users)
        self._both = users, _updated(items, ids, solved)
        return self

    def explain(
        self, userid: int, user_items: Any, itemid: int, user_weights: UserWeights | None = None, N: int = 10
    ) -> tuple[float, list[tuple[int, float]], UserWeights]:
        """Why this item would be recommended: its score as a sum over the items that the user chose.

        With x_u solved exactly from the user's row, the score is ``sum_j c_uj y_i' W y_j`` over the items j of positive
        strength, where W is the inverse of the user's system (Hu, Koren, Volinsky 2008, section 5). Items that the user
        rejected change W, but add nothing themselves. All is computed in float64, whatever `solver` is; one that solves
        another problem than least squares gives other scores.

        Parameters
        ----------
        userid : int
        user_items : sparse matrix, shape (1, n_items) or (n_users, n_items), or Interactions
            The user's row, or the rows of all users, of which row `userid` is taken. Not read where `user_weights` is
            given.
        itemid : int
        user_weights : UserWeights, optional
            What an earlier call for the same user returned: this one is faster then.
        N : int
            How many contributions to list.

        Returns
        -------
        score : float
            Of the item for this user, as from ``recommend(..., recalculate_user=True)``.
        contributions : list of (itemid, contribution)
            The N largest, descending; of equal ones the lower id first. All of them together sum to the score.
        user_weights : UserWeights
            To be passed on for another item of the same user.

        Raises
        ------
        NotFittedError
            There are no factors yet.
        IndexError
            An id is out of range.
        ValueError
            `user_items` does not have the shape above, or `user_weights` are of another user, or of another model.
        alscore.solvers.NotPositiveDefiniteError
            The user's system has no unique solution.
        """
        _, items = self._fitted()
        require_integer(N, "N", 1)
        _check_one("userid", userid, ANY_ID)
        _check_one("itemid", itemid, len(items.array))
        objective = self._objective()
        if user_weights is None:
            row = user_row(user_items, userid, items)
            user_weights = UserWeights.of(userid, row, objective, items.fold_in(self.num_threads))
        elif not isinstance(user_weights, UserWeights):
            raise TypeError(f"user_weights must be what explain returned for this user, not {user_weights!r}")
        elif not user_weights.belong_to(userid, objective, items.array):
            raise ValueError(
                "user_weights are of another user, other item factors or other parameters: leave them out here"
            )
        contributions = user_weights.contributions(itemid)
        best = np.argsort(-contributions, kind="stable")[:N]
        listed = zip(user_weights.liked[best].tolist(), contributions[best].tolist(), strict=True)
        return float(contributions.sum()), list(listed), user_weights


def _params_to_json(params: dict[str, Any]) -> dict[str, Any]:
    seed = params["random_state"]
    return params | {
        "dtype": np.dtype(params["dtype"]).name,
        "solver": solvers.to_json(params["solver"]),
        "random_state": seed if isinstance(seed, int | np.integer) else None,
    }


def _params_from_json(params: dict[str, Any]) -> dict[str, Any]:
    return params | {"dtype": np.dtype(params["dtype"]).type, "solver": solvers.from_json(params["solver"])}


_MOST = 2**31 - 1  # users or items of a model, whose ids are int32


def _check_one(name: str, value: Any, size: int) -> None:
    if np.ndim(value) > 0:
        raise TypeError(f"{name} must be one id, not an array")
    checked_ids(value, size, name)


def _distinct(ids: Any, name: str) -> Int64s:
    """`ids` as an array, verified to name nobody twice."""
    found = checked_ids(ids, _MOST, name)
    values, counts = np.unique(found, return_counts=True)
    if len(values) < len(found):
        raise ValueError(f"{name} holds {values[counts > 1][:10].tolist()} more than once: give each id one row")
    return found


def _grown(factors: Floats, n: int) -> Floats:
    """A copy with `n` rows, the new ones 0."""
    grown = zero_factors(n, factors.shape[1], factors.dtype)
    grown[: len(factors)] = factors
    return grown


def _updated(known: Factors, ids: Ints, solved: Floats) -> Factors:
    """`known` with the rows `ids` replaced, and as many rows more as that takes."""
    updated = _grown(known.array, max(len(known.array), ids.max(initial=-1) + 1))
    updated[ids] = solved
    return Factors(frozen(updated), known.name)


def _final(X: Floats, Y: Floats, solver: Any, num_threads: int) -> tuple[Factors, Factors]:
    """X and Y, which it takes over, in the basis and form that a fitted model has them in."""
    if not solvers.keeps_basis(solver):
        to_canonical_basis(X, Y, num_threads)
    return Factors(frozen(X), "user_factors"), Factors(frozen(Y), "item_factors")


def _judge(validation: Any, user_items: Any) -> Callable[[Any], float]:
    """`validation`, or what it stands for, as a function that returns nothing but finite numbers."""
    from alscore.metrics.validation import Validator, validator  # late: it takes time to import

    if not callable(validation):
        validation = validator(validation)
    if isinstance(validation, Validator):
        validation.refuse(user_items)

    def judge(model: Any) -> float:
        score = validation(model)
        if not (isinstance(score, numbers.Real) and math.isfinite(score)):
            raise ValueError(f"validation must return a finite number, not {score!r}")
        return float(score)

    return judge


def _loss(users: Side, items: Side, X: Floats, Y: Floats, item_shares: Doubles | None) -> float:
    if item_shares is not None:
        return float(item_shares.sum()) + penalty(X, users.regularization)
    return loss(users, items.regularization, X, Y)
