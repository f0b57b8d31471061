"""Models that solve rows after training: new users and items, and explanations of a score."""

import dataclasses
from typing import Any, Self

import numpy as np

from alscore import solvers
from alscore._data.canonical import MAX_LENGTH, CanonicalRows
from alscore._support.arrays import Floats, Int64s, Ints
from alscore._support.checks import require_integer
from alscore.retrieval import checked_ids
from alscore.retrieval.explain import UserWeights, user_row
from alscore.retrieval.factor_model import FactorModel
from alscore.retrieval.factors import ANY_ID, Factors, checked_rows, frozen
from alscore.solvers.half_sweeps import Side
from alscore.solvers.objective import Objective
from alscore.solvers.training import resized


class FoldInModel(FactorModel):
    """Base class: a model whose rows are least-squares problems on the factors of the fixed side.

    Subclasses have attributes `solver`, `num_threads`, and the parameters of the `Objective` by their names.
    """

    solver: Any

    def _objective(self) -> Objective:
        return Objective(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Objective)})

    def _fold_in(self, side: str, rows: CanonicalRows, fixed: Factors) -> Floats:
        solver = solvers.resolve(self.solver)
        problem = Side.of(side, self._objective(), rows, fixed.array.shape[1], self.num_threads)
        return fixed.fold_in(self.num_threads).solve(problem, solver)

    def recalculate_user(self, userid: Any, user_items: Any) -> Floats:
        """Solve the factors of one user or several, known or new, from their rows. The model does not change.

        The solution is exact on the present item factors, whatever `solver` is. Only a solver that keeps the original
        basis, such as "nonnegative", is used itself.

        Parameters
        ----------
        userid : int or int array (n,)
            Only the number of ids counts: they need not be in the model.
        user_items : sparse matrix, shape (n, n_items), or Interactions
            One row for each id.

        Returns
        -------
        array (k,), or (n, k) for an array of ids

        Raises
        ------
        NotFittedError
            The model has no factors.
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
        """Solve the factors of one item or several, known or new, from their rows on the present user factors.

        Parameters
        ----------
        itemid : int or int array (n,)
            Only the number of ids counts: they need not be in the model.
        item_users : sparse matrix, shape (n, n_users)
            One row for each id.

        Returns
        -------
        array (k,), or (n, k) for an array of ids

        Raises
        ------
        NotFittedError, ValueError, alscore.solvers.NotPositiveDefiniteError, FloatingPointError
            Same errors as `recalculate_user`.
        """
        users, _ = self._fitted()
        rows = checked_rows(item_users, "item_users", "itemid", len(checked_ids(itemid, ANY_ID, "itemid")), users)
        Y = self._fold_in("item", rows, users)
        return Y if np.ndim(itemid) > 0 else Y[0]

    def partial_fit_users(self, userids: Any, user_items: Any) -> Self:
        """Solve some users from their rows on the present item factors, and store the result in the model.

        Every call copies the factors of all users: one call for many users is faster than many calls.

        Parameters
        ----------
        userids : int array (n,)
            Distinct ids. The model grows to hold the largest id. Users in the gap have factors of 0.
        user_items : sparse matrix, shape (n, n_items), or Interactions
            One row for each id, with all entries of the user, old and new.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            The model has no factors.
        IndexError
            An id is negative, or at least 2**31 - 1.
        ValueError
            An id is repeated, or `user_items` does not have the shape above.
        alscore.solvers.NotPositiveDefiniteError, FloatingPointError
            A row cannot be solved. The model does not change.
        """
        users, items = self._fitted()
        ids = _distinct(userids, "userids")
        solved = self._fold_in("user", checked_rows(user_items, "user_items", "userids", len(ids), items), items)
        self._both = _updated(users, ids, solved), items
        return self

    def partial_fit_items(self, itemids: Any, item_users: Any) -> Self:
        """Solve some items from their rows on the present user factors, and store the result in the model.

        Parameters
        ----------
        itemids : int array (n,)
            Same as `userids` of `partial_fit_users`.
        item_users : sparse matrix, shape (n, n_users)
            One row for each id, with all entries of the item, old and new.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError, IndexError, ValueError, alscore.solvers.NotPositiveDefiniteError, FloatingPointError
            Same errors as `partial_fit_users`.
        """
        users, items = self._fitted()
        ids = _distinct(itemids, "itemids")
        solved = self._fold_in("item", checked_rows(item_users, "item_users", "itemids", len(ids), users), users)
        self._both = users, _updated(items, ids, solved)
        return self

    def explain(
        self, userid: int, user_items: Any, itemid: int, user_weights: UserWeights | None = None, N: int = 10
    ) -> tuple[float, list[tuple[int, float]], UserWeights]:
        """Explain a score: write it as a sum of contributions of the items that the user chose.

        With x_u solved exactly from the user's row, the score is ``sum_j c_uj y_i' W y_j`` over the items j of positive
        strength, where W is the inverse of the user's system (Hu, Koren, Volinsky 2008, section 5). Items that the user
        rejected change W, but have no contribution. The arithmetic is float64 least squares, whatever `solver` is: a
        solver of another problem gives other scores.

        Parameters
        ----------
        userid : int
        user_items : sparse matrix, shape (1, n_items) or (n_users, n_items), or Interactions
            The row of the user, or the rows of all users: row `userid` is taken. Not read if `user_weights` is given.
        itemid : int
        user_weights : UserWeights, optional
            The third result of an earlier call for the same user. It makes this call faster.
        N : int
            Number of contributions to list, at least 1.

        Returns
        -------
        score : float
            The score of the item for this user, as from ``recommend(..., recalculate_user=True)``.
        contributions : list of (itemid, contribution)
            The N largest contributions, descending. Ties: lower id first. All contributions together sum to the score.
        user_weights : UserWeights
            Pass it to the next call for another item of the same user.

        Raises
        ------
        NotFittedError
            The model has no factors.
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
            raise TypeError(f"user_weights must be the third result of explain for this user, not {user_weights!r}")
        elif not user_weights.belong_to(userid, objective, items.array):
            raise ValueError(
                "user_weights are of another user, other item factors or other parameters: leave them out here"
            )
        contributions = user_weights.contributions(itemid)
        best = np.argsort(-contributions, kind="stable")[:N]
        listed = zip(user_weights.liked[best].tolist(), contributions[best].tolist(), strict=True)
        return float(contributions.sum()), list(listed), user_weights


def _check_one(name: str, value: Any, size: int) -> None:
    if np.ndim(value) > 0:
        raise TypeError(f"{name} must be one id, not an array")
    checked_ids(value, size, name)


def _distinct(ids: Any, name: str) -> Int64s:
    """Return `ids` as an array, verified to be distinct."""
    found = checked_ids(ids, MAX_LENGTH, name)
    values, counts = np.unique(found, return_counts=True)
    if len(values) < len(found):
        raise ValueError(f"{name} holds {values[counts > 1][:10].tolist()} more than once: give each id one row")
    return found


def _updated(known: Factors, ids: Ints, solved: Floats) -> Factors:
    """Return a copy of `known` with the rows `ids` replaced, grown to hold the largest id."""
    updated = resized(known.array, max(len(known.array), ids.max(initial=-1) + 1))
    updated[ids] = solved
    return Factors(frozen(updated), known.name)
