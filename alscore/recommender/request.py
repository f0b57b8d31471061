"""One request for recommendations: verified once, then answered for some of its users at a time."""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from alscore._data.label_columns import labels_to_arrow
from alscore._support.arrays import Bools, Floats, Int64s, Ints
from alscore._support.checks import require_integer
from alscore.als import AlternatingLeastSquares
from alscore.interactions import Interactions


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """The verified arguments of `Recommender.recommend`.

    Attributes
    ----------
    model : AlternatingLeastSquares
    plays : Interactions
        The entries of the users. The columns are the item ids of the model.
    items : pandas.Index
        The labels of the model's items.
    ids : int array (n,)
        The users to recommend to: rows of `plays`.
    n : int64 array (n,)
        Number of items for each of them.
    allow, deny : int array, optional
        Ids of the only items to consider, and of items never to recommend.
    filter_already_liked_items, scores : bool
    """

    model: AlternatingLeastSquares
    plays: Interactions
    items: "pd.Index[Any]"
    ids: Ints
    n: Int64s
    allow: Ints | None
    deny: Ints | None
    filter_already_liked_items: bool
    scores: bool

    def result(self, part: slice = slice(None)) -> pd.DataFrame:
        """Return the recommendations for some of the users."""
        users, (X, Y) = self.ids[part], self.model._fitted()
        n = self.n[part] * X.array[users].any(axis=1)
        items, scores = np.full(n.sum(), -1), np.empty(n.sum(), Y.array.dtype)
        # Users with similar n are searched together: a search returns the largest n for every row.
        _, magnitude = np.frexp(n)
        for group in np.unique(magnitude[n > 0]):
            in_group = magnitude == group
            result = self._search(users[in_group], n[in_group].max(), Y.array)
            kept = np.arange(result[0].shape[1]) < n[in_group, None]
            places = np.repeat(in_group, n)
            items[places], scores[places] = (array[kept] for array in result)
        rows, kept = np.repeat(np.arange(len(n)), n), items >= 0
        labels = self.plays.users.take(users)
        return table_of(
            ("user", "item"), labels, self.items, rows[kept], items[kept], scores[kept] if self.scores else None
        )

    def _search(self, users: Ints, n: int, factors: Floats) -> tuple[Ints, Floats]:
        def search(some: Ints, deny: Ints | None) -> tuple[Ints, Floats]:
            return self.model.recommend(
                users[some],
                self.plays.rows(users[some]) if self.filter_already_liked_items else None,
                N=n,
                filter_already_liked_items=self.filter_already_liked_items,
                filter_items=deny,
                items=self.allow,
            )

        return search_known(search, len(users), factors, self.deny)

    def batches(self, size: int) -> Iterator[pd.DataFrame]:
        """Return the recommendations for `size` users at a time."""
        size = number(size, "batch_size")
        return (self.result(slice(start, start + size)) for start in range(0, len(self.ids), size))

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of every batch."""
        schema = pa.Schema.from_pandas(self.result(slice(0)), preserve_index=False)
        # A batch may have no rows, and labels of dtype object do not tell their type.
        for place, labels in enumerate((self.plays.users, self.items)):
            field = schema.field(place)
            kind = labels_to_arrow(labels, f"{field.name}s").schema.types[0]
            schema = schema.set(place, field.with_type(kind))
        return schema


def search_known(
    search: Callable[[Any, Ints | None], tuple[Ints, Floats]], n_queries: int, factors: Floats, deny: Ints | None
) -> tuple[Ints, Floats]:
    """Return the ids and scores of ``search(queries, deny)``, without candidates whose factors are all 0.

    Nothing is known of such candidates, yet their score of 0 is better than any score below 0. To look for them takes
    as long as many searches, so the function looks for them only where a result has a score of 0.
    """
    ids, scores = search(slice(n_queries), deny)
    again = np.flatnonzero((scores == 0).any(axis=1))
    if again.size:
        unknown = np.flatnonzero(~factors.any(axis=1))
        ids[again], scores[again] = search(again, unknown if deny is None else np.concatenate([unknown, deny]))
    return ids, scores


def number(n: Any, name: str = "n") -> int:
    """Return `n` as an int, verified to be at least 1."""
    whole = int(operator.index(n))
    require_integer(whole, name, 1)
    return whole


def number_for_each(n: Any, users: "pd.Index[Any]", known: Bools, most: int) -> Int64s:
    """Return the number of items for each of the `users` that are `known` (a mask), at most `most`: int64."""
    if isinstance(n, Mapping | pd.Series):
        n, users = pd.Series(n), users[known]
        if not n.index.is_unique:
            raise ValueError(f"n has several numbers for user {n.index[n.index.duplicated()][0]!r}; give one for each")
        places = n.index.to_flat_index().get_indexer(users)
        if (places < 0).any():
            without = users[int(places.argmin())]
            raise ValueError(f"n has no number for user {without!r}; give one for each user asked for, 0 for none")
        n = n.to_numpy()[places]
    elif np.ndim(n) == 0:
        return np.full(np.count_nonzero(known), min(number(n), most))
    else:
        n = np.asarray(n)
        if n.shape != known.shape:
            raise ValueError(f"n has shape {n.shape} for {len(users)} users; give one number for each, or one for all")
        n = n[known]
    if n.size and n.dtype.kind not in "iu":
        raise TypeError(f"n must be integers, not {n.dtype}")
    if n.min(initial=0) < 0:
        raise ValueError(f"n must be at least 0 for each user, not {n.min()}")
    numbers: Int64s = np.minimum(n, most).astype(np.int64)
    return numbers


def table_of(
    names: tuple[str, str],
    queries: "pd.Index[Any]",
    candidates: "pd.Index[Any]",
    rows: Ints,
    ids: Ints,
    scores: Floats | None,
) -> pd.DataFrame:
    """Return results as a table with a row for each id of `ids`. `rows` (ascending) holds the query of each."""
    columns: dict[str, Any] = {names[0]: queries.take(rows), names[1]: candidates.take(ids)}
    if scores is not None:
        columns["score"] = scores
    return pd.DataFrame(columns | {"rank": np.arange(len(rows)) - np.searchsorted(rows, rows) + 1})
