"""Rows that come after training: their factors, and why an item is recommended."""

import dataclasses
from typing import Any, Self

import numpy as np

from alscore import solvers
from alscore._data.canonical import MAX_CODE, CanonicalRows
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


def _check_one(name: str, value: Any, size: int) -> None:
    if np.ndim(value) > 0:
        raise TypeError(f"{name} must be one id, not an array")
    checked_ids(value, size, name)


def _distinct(ids: Any, name: str) -> Int64s:
    """`ids` as an array, verified to name nobody twice."""
    found = checked_ids(ids, MAX_CODE, name)
    values, counts = np.unique(found, return_counts=True)
    if len(values) < len(found):
        raise ValueError(f"{name} holds {values[counts > 1][:10].tolist()} more than once: give each id one row")
    return found


def _updated(known: Factors, ids: Ints, solved: Floats) -> Factors:
    """`known` with the rows `ids` replaced, and as many rows more as that takes."""
    updated = resized(known.array, max(len(known.array), ids.max(initial=-1) + 1))
    updated[ids] = solved
    return Factors(frozen(updated), known.name)
