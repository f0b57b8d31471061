"""Recommendations and similar users and items from two factor matrices, however they were trained."""

from typing import Any

import numpy as np

from alscore import retrieval
from alscore._data.canonical import CanonicalRows
from alscore._support.arrays import Floats, Int32s
from alscore.retrieval.factors import ANY_ID, Factors, NotFittedError, checked_rows


class FactorModel:
    """Base class: user and item factors, whose inner products are scores.

    Subclasses have an attribute `num_threads` and a method `_fold_in`.

    Attributes
    ----------
    user_factors : array (n_users, k), float32 or float64
    item_factors : array (n_items, k), of the same dtype
        None before training. Read-only. An array that is assigned is copied, unless it is read-only already. While the
        two do not fit each other, their use raises a ValueError.
    """

    num_threads: int
    _both: tuple[Factors | None, Factors | None] = (None, None)  # one attribute, so that both change at once

    @property
    def user_factors(self) -> Floats | Any:  # Any, not None: else every user has to exclude None for a type checker
        users, _ = self._both
        return None if users is None else users.array

    @user_factors.setter
    def user_factors(self, array: Any) -> None:
        self._both = None if array is None else Factors(array, "user_factors"), self._both[1]

    @property
    def item_factors(self) -> Floats | Any:
        _, items = self._both
        return None if items is None else items.array

    @item_factors.setter
    def item_factors(self, array: Any) -> None:
        self._both = self._both[0], None if array is None else Factors(array, "item_factors")

    def _fitted(self) -> tuple[Factors, Factors]:
        users, items = self._both
        if users is None or items is None:
            missing = "factors" if users is items else "user_factors" if users is None else "item_factors"
            raise NotFittedError(f"this {type(self).__name__} has no {missing} yet: call fit first, or assign them")
        X, Y = users.array, items.array
        if X.shape[1] != Y.shape[1] or X.dtype != Y.dtype:
            raise ValueError(
                f"user_factors {X.dtype} {X.shape} and item_factors {Y.dtype} {Y.shape} do not fit: "
                "assign both with the same number of columns and dtype"
            )
        return users, items

    def __sklearn_is_fitted__(self) -> bool:
        return None not in self._both

    def _fold_in(self, side: str, rows: CanonicalRows, fixed: Factors) -> Floats:
        """Solve the factors of canonical `rows` of a side, "user" or "item", exactly on the fixed side."""
        raise NotImplementedError(f"{type(self).__name__} cannot solve {side}s from their rows")

    def recommend(
        self,
        userid: Any,
        user_items: Any,
        N: int = 10,
        filter_already_liked_items: bool = True,
        filter_items: Any = None,
        recalculate_user: bool = False,
        items: Any = None,
    ) -> tuple[Int32s, Floats]:
        """Return the N items with the highest scores ``x_u . y_i``, for one user or several.

        Parameters
        ----------
        userid : int or int array (n,)
        user_items : sparse matrix, shape (n, n_items), or Interactions
            One row for each id, such as ``user_items[userid]``; for one id also a row of one dimension. The rows say
            what each user already likes, and `recalculate_user` solves from them. May be None if neither is set.
        N : int
        filter_already_liked_items : bool
            Leave out the items in the user's row.
        filter_items : int array, optional
            Items never to return.
        recalculate_user : bool
            Solve the users from their rows instead of using `user_factors`. The ids need not be in the model then.
        items : int array, optional
            The only items to consider.

        Returns
        -------
        ids : int32 array (N,), or (n, N) for an array of ids
            Best first. Ties: lower id first. -1 where fewer than N items are left.
        scores : array of the same shape, dtype of the factors
            -inf where the id is -1.

        Raises
        ------
        NotFittedError
            The model has no factors.
        IndexError
            An id is out of range.
        ValueError
            `user_items` does not have the shape above.
        """
        known_users, known_items = self._fitted()
        ids = retrieval.checked_ids(userid, ANY_ID if recalculate_user else len(known_users.array), "userid")
        rows = None
        if filter_already_liked_items or recalculate_user:
            if user_items is None:
                raise ValueError(
                    "user_items is needed to filter what a user already liked, and to recalculate users; "
                    "pass the users' rows, or filter_already_liked_items=False"
                )
            rows = checked_rows(user_items, "user_items", "userid", len(ids), known_items)
        if rows is not None and recalculate_user:
            queries = self._fold_in("user", rows, known_items)
        else:
            queries = known_users.array[ids]
        result = retrieval.top_n(
            queries,
            known_items.candidates(self.num_threads),
            N,
            exclude=rows if filter_already_liked_items else None,
            allow=items,
            deny=filter_items,
            num_threads=self.num_threads,
        )
        return _one_or_many(userid, result)

    def similar_items(
        self,
        itemid: Any,
        N: int = 10,
        recalculate_item: bool = False,
        item_users: Any = None,
        filter_items: Any = None,
        items: Any = None,
    ) -> tuple[Int32s, Floats]:
        """Return the N items whose factors have the highest cosine with those of an item. The item itself is included.

        Parameters
        ----------
        itemid : int or int array (n,)
        N : int
        recalculate_item : bool
            Solve the items from `item_users` instead of using `item_factors`. The ids need not be in the model then.
        item_users : sparse matrix, shape (n, n_users), optional
            For `recalculate_item`: one row for each id.
        filter_items, items
            Same as for `recommend`.

        Returns
        -------
        ids, scores
            Same as for `recommend`.

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Same errors as `recommend`.
        """
        known_users, known_items = self._fitted()
        ids = retrieval.checked_ids(itemid, ANY_ID if recalculate_item else len(known_items.array), "itemid")
        if recalculate_item:
            if item_users is None:
                raise ValueError("item_users is needed to recalculate items: pass the items' rows")
            rows = checked_rows(item_users, "item_users", "itemid", len(ids), known_users)
            queries = self._fold_in("item", rows, known_users)
        else:
            queries = known_items.array[ids]
        candidates = known_items.candidates(self.num_threads, unit=True)
        result = retrieval.top_n(queries, candidates, N, allow=items, deny=filter_items, num_threads=self.num_threads)
        return _one_or_many(itemid, result)

    def similar_users(
        self, userid: Any, N: int = 10, filter_users: Any = None, users: Any = None
    ) -> tuple[Int32s, Floats]:
        """Return the N users whose factors have the highest cosine with those of a user. The user itself is included.

        Parameters
        ----------
        userid : int or int array (n,)
        N : int
        filter_users, users : int array, optional
            Users never to return, and the only ones to consider.

        Returns
        -------
        ids, scores
            Same as for `recommend`.

        Raises
        ------
        NotFittedError, IndexError, ValueError
            Same errors as `recommend`.
        """
        known_users, _ = self._fitted()
        queries = known_users.array[retrieval.checked_ids(userid, len(known_users.array), "userid")]
        candidates = known_users.candidates(self.num_threads, unit=True)
        result = retrieval.top_n(queries, candidates, N, allow=users, deny=filter_users, num_threads=self.num_threads)
        return _one_or_many(userid, result)


def _one_or_many(query: Any, result: tuple[Int32s, Floats]) -> tuple[Int32s, Floats]:
    ids, scores = result
    return (ids, scores) if np.ndim(query) > 0 else (ids[0], scores[0])
