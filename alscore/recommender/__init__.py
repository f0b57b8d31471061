"""Labels in, labels out: a model together with the users, the items and the entries that it was fitted on."""

import copy
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from tqdm import tqdm

from alscore._data import container
from alscore._data.canonical import renumbered
from alscore._data.labels import Labels, as_index
from alscore._data.labels import UnknownLabelError as UnknownLabelError
from alscore._support.arrays import Floats, Ints
from alscore._support.files import atomic_writer
from alscore.als import AlternatingLeastSquares
from alscore.interactions import Interactions
from alscore.recommender.request import Request, number, number_for_each, search_known, table_of
from alscore.retrieval.factors import NotFittedError


class Recommender:
    """A model that speaks in labels.

    Other threads may ask for results while one thread trains. Each result comes from one model and its own labels.

    Parameters
    ----------
    model : AlternatingLeastSquares, optional
        Default: ``AlternatingLeastSquares()``. It is not modified: `fit` trains a copy, and the copy becomes `model`
        when it is trained.
    interactions : Interactions, optional
        The interactions that `model` was fitted on, if it was fitted elsewhere.

    Attributes
    ----------
    model : AlternatingLeastSquares
        The given model, or after `fit` the trained copy.
    interactions : Interactions or None
        The interactions that the model was fitted on: the labels, and the items of each user. None before `fit`. If the
        model or the interactions are replaced and do not fit each other, their use raises a ValueError.

    Raises
    ------
    TypeError
        `interactions` is not an Interactions.
    ValueError
        The numbers of users and items in `interactions` differ from those of the model.
    NotFittedError
        There are `interactions`, but the model has no factors.

    Examples
    --------
    >>> from alscore import AlternatingLeastSquares, Recommender, datasets
    >>> plays = datasets.synthetic(500, 300, seed=0)
    >>> recommender = Recommender(AlternatingLeastSquares(factors=16)).fit(plays, show_progress=False)
    >>> table = recommender.recommend(plays.users[:2], n=5, deny=plays.items[:50])
    >>> list(table), len(table)
    (['user', 'item', 'score', 'rank'], 10)
    """

    _known: tuple[AlternatingLeastSquares, Interactions | None]  # one attribute, so that both change at once

    def __init__(self, model: AlternatingLeastSquares | None = None, interactions: Interactions | None = None) -> None:
        self._known = AlternatingLeastSquares() if model is None else model, interactions
        if interactions is not None:
            _check_interactions(interactions)
            self._fitted()

    _is_recommender = True  # `alscore.evaluate` takes its model and labels

    @property
    def model(self) -> AlternatingLeastSquares:
        return self._known[0]

    @property
    def interactions(self) -> Interactions | None:
        return self._known[1]

    def __repr__(self) -> str:
        return f"Recommender({self.model!r})"

    def fit(self, interactions: Interactions, **kwargs: Any) -> Self:
        """Fit the model, and keep the interactions.

        Parameters
        ----------
        interactions : Interactions
        **kwargs
            Passed on to `AlternatingLeastSquares.fit`: `show_progress`, `callback`, `validation`.

        Returns
        -------
        Recommender
            This object.

        Raises
        ------
        TypeError
            `interactions` is not an Interactions.
        ValueError
            The model has ``warm_start=True``, but its users and items do not come first in `interactions`.
        KeyboardInterrupt, ValueError, ArithmeticError
            Same errors as `AlternatingLeastSquares.fit`. After Ctrl-C the model trained so far is kept.
        """
        _check_interactions(interactions)
        model, known = self._known
        if model.warm_start and known is not None:
            for kind in ("users", "items"):
                before = getattr(known, kind)
                if not getattr(interactions, kind)[: len(before)].equals(before):
                    raise ValueError(
                        f"{kind}: with warm_start=True, interactions must start with the {kind} of the last fit, in "
                        "the same order; use Interactions.add, or give the new plays to partial_fit"
                    )
        model = copy.copy(model)
        return self._train(model, model.fit, interactions, **kwargs)

    def partial_fit(self, interactions: Interactions | pd.DataFrame, iterations: int = 1, **kwargs: Any) -> Self:
        """Continue training with new entries, from the present factors.

        Parameters
        ----------
        interactions : Interactions, or DataFrame as for `recommend`
            The new entries only. They may have new users and items. `Interactions.add` joins them to the old entries.
        iterations : int
            Number of sweeps over all entries.
        **kwargs
            Passed on to `AlternatingLeastSquares.partial_fit`: `show_progress`, `callback`.

        Returns
        -------
        Recommender
            This object.

        Raises
        ------
        NotFittedError
            `fit` was not called yet.
        TypeError
            The labels have another type than those fitted.
        KeyboardInterrupt, ValueError, ArithmeticError
            Same errors as `fit`. If the model was not trained, the new entries are not kept either.
        """
        model, known = self._fitted()
        plays = known.add(_as_interactions(interactions))
        return self._train(model, model.partial_fit, plays, iterations=iterations, **kwargs)

    def _train(
        self, model: AlternatingLeastSquares, train: Callable[..., Any], interactions: Interactions, **kwargs: Any
    ) -> Self:
        """Train `model`, to which no other thread has access, and use it from then on."""
        before = model.user_factors
        try:
            train(interactions, **kwargs)
        finally:
            # An interrupted model has new factors, and is usable. A model that refused to start has the old ones.
            if model.user_factors is not before:
                self._known = model, interactions
        return self

    def recommend(
        self,
        users: Any = None,
        n: Any = 10,
        on_unknown: str = "raise",
        *,
        interactions: Interactions | pd.DataFrame | None = None,
        allow: Any = None,
        deny: Any = None,
        filter_already_liked_items: bool = True,
        scores: bool = True,
    ) -> pd.DataFrame:
        """Recommend to each user the items of the highest scores that the user does not have yet.

        Users and items without entries have factors of 0: such users get no items, and such items are never returned.

        Parameters
        ----------
        users : label or sequence of labels, optional
            A repeated user gets a result each time. Default: all users, in the order of their ids. For many users
            `recommend_iter` and `recommend_all` take less memory.
        n : int, sequence of int, or mapping or Series from user to int
            Number of items for each user. A sequence has a number for each of `users`, which may be 0. A user who has
            nearly all items may get fewer.
        on_unknown : {"raise", "skip"}
            Whether users and items that the model does not know are an error, or left out. Holds for all arguments.
        interactions : Interactions or DataFrame, optional
            Recommend to the users of these entries instead of the fitted users: new users, or known users with newer
            entries. Their factors are solved exactly on the item factors (fold-in), and these entries count as already
            liked. A table has columns `user`, `item` and optionally `value` (default: 1 for each row) and `timestamp`;
            `Interactions.from_pandas` reads it.
        allow : label or sequence of labels, optional
            The only items to consider.
        deny : label or sequence of labels, optional
            Items never to recommend.
        filter_already_liked_items : bool
            Leave out the items that the user has.
        scores : bool
            Whether the table has the column `score`.

        Returns
        -------
        pandas.DataFrame
            A row for each recommendation, with the users in the order of the call: `user` and `item` (dtypes as
            fitted), `score` (dtype of the factors, descending for each user) and `rank` (int64, from 1).

        Raises
        ------
        UnknownLabelError
            The model does not know a user or an item, with ``on_unknown="raise"``.
        ValueError
            `n` is below 1, or is below 0, missing or repeated for one user; another `on_unknown`; a table with other
            columns; the numbers of users and items of the model differ from those of the labels.
        TypeError
            `n` is not an integer, `interactions` has another type, or labels come in a table or in an array of several
            dimensions.
        NotFittedError
            `fit` was not called yet.
        """
        return self._request(
            users, n, on_unknown, interactions, allow, deny, filter_already_liked_items, scores
        ).result()

    def recommend_iter(
        self, users: Any = None, n: Any = 10, *, batch_size: int = 10_000, **options: Any
    ) -> Iterator[pd.DataFrame]:
        """Recommend to many users, one batch of users at a time.

        Parameters
        ----------
        users, n, **options
            Same as for `recommend`. They are verified at once, before the first batch.
        batch_size : int
            Number of users in a batch. A batch takes about 100 bytes for each recommendation.

        Returns
        -------
        iterator of pandas.DataFrame
            The parts of the table that `recommend` returns. The index of each part starts from 0. All parts come from
            the model at the time of the call, also if it is trained further meanwhile.

        Raises
        ------
        UnknownLabelError, ValueError, TypeError, NotFittedError
            Same errors as `recommend`, or `batch_size` is below 1.
        """
        return self._bound_request(users, n, **options).batches(batch_size)

    def recommend_all(
        self,
        path: str | os.PathLike[str],
        users: Any = None,
        n: Any = 10,
        *,
        batch_size: int = 10_000,
        show_progress: bool = True,
        **options: Any,
    ) -> int:
        """Write recommendations for all users to a Parquet file.

        Parameters
        ----------
        path : str or path
            The file. It is replaced once the new file is complete; a run that fails leaves the old file.
        users, n, **options
            Same as for `recommend`.
        batch_size : int
            Number of users in a batch. Only one batch is in memory at a time; it becomes one row group.
        show_progress : bool
            Show a progress bar.

        Returns
        -------
        int
            Number of rows written. pandas reads the table that `recommend` returns, with the types of the labels that
            Parquet has. (Categories make a large file, since each row group repeats all of them.)

        Raises
        ------
        UnknownLabelError, ValueError, TypeError, NotFittedError
            Same errors as `recommend`, or Parquet cannot hold the labels.
        OSError
            The file cannot be written.
        """
        request = self._bound_request(users, n, **options)
        batches, schema, n_rows = request.batches(batch_size), request.schema(), 0
        with (
            atomic_writer(path) as file,
            parquet.ParquetWriter(file, schema) as writer,
            tqdm(total=len(request.ids), disable=not show_progress, unit="user") as progress,
        ):
            for batch in batches:
                writer.write_table(pa.Table.from_pandas(batch, schema, preserve_index=False))
                n_rows += len(batch)
                progress.update(min(batch_size, len(request.ids) - int(progress.n)))
        return n_rows

    def similar_items(
        self, items: Any, n: int = 10, on_unknown: str = "raise", *, allow: Any = None, deny: Any = None
    ) -> pd.DataFrame:
        """Find the items whose factors have the highest cosine with those of an item. The item itself is left out.

        Items without entries have no neighbours and are never returned.

        Parameters
        ----------
        items : label or sequence of labels
        n : int
            Number of neighbours for each item.
        on_unknown, allow, deny
            Same as for `recommend`.

        Returns
        -------
        pandas.DataFrame
            A row for each neighbour, with the items in the order of the call: `item` and `similar_item` (dtype as
            fitted), `score` (the cosine, dtype of the factors, descending for each item) and `rank` (int64, from 1).

        Raises
        ------
        UnknownLabelError, ValueError, NotFittedError
            Same errors as `recommend`.
        """
        return self._similar("item", items, n, on_unknown, allow, deny)

    def similar_users(
        self, users: Any, n: int = 10, on_unknown: str = "raise", *, allow: Any = None, deny: Any = None
    ) -> pd.DataFrame:
        """Find the users whose factors have the highest cosine with those of a user. The user itself is left out.

        Users without entries have no neighbours and are never returned.

        Parameters
        ----------
        users : label or sequence of labels
        n : int
            Number of neighbours for each user.
        on_unknown : {"raise", "skip"}
            Whether users that the model does not know are an error, or left out.
        allow, deny : label or sequence of labels, optional
            The only users to consider, and users never to return.

        Returns
        -------
        pandas.DataFrame
            Same as for `similar_items`, with the columns `user`, `similar_user`, `score` and `rank`.

        Raises
        ------
        UnknownLabelError, ValueError, NotFittedError
            Same errors as `recommend`.
        """
        return self._similar("user", users, n, on_unknown, allow, deny)

    def _similar(
        self, side: Literal["user", "item"], labels: Any, n: int, on_unknown: str, allow: Any, deny: Any
    ) -> pd.DataFrame:
        n = number(n)
        model, interactions = self._fitted()
        index, factors = getattr(interactions, f"{side}s"), getattr(model, f"{side}_factors")
        known = Labels(index, f"{side}s")
        queries = known.ids(labels, on_unknown)
        queries = queries[factors[queries].any(axis=1)]
        allow, deny = _ids_or_none(known, on_unknown, allow=allow, deny=deny)

        def search(some: Ints, deny: Ints | None) -> tuple[Ints, Floats]:
            similar: Callable[..., tuple[Ints, Floats]] = getattr(model, f"similar_{side}s")
            return similar(queries[some], N=min(n, len(index)) + 1, **{f"{side}s": allow, f"filter_{side}s": deny})

        ids, scores = search_known(search, len(queries), factors, deny)
        # The query itself may come after others of the same direction, or not at all: remove it, then keep n.
        kept = (ids >= 0) & (ids != queries[:, None])
        kept &= np.cumsum(kept, axis=1) <= n
        rows, _ = np.nonzero(kept)
        return table_of((side, f"similar_{side}"), index.take(queries), index, rows, ids[kept], scores[kept])

    def fold_in(self, interactions: Interactions | pd.DataFrame, on_unknown: str = "raise") -> pd.DataFrame:
        """Solve the factors of users from their entries, exactly, on the present item factors.

        The model does not change.

        Parameters
        ----------
        interactions : Interactions, or DataFrame as for `recommend`
            The entries of any users.
        on_unknown : {"raise", "skip"}
            Whether items that the model does not know are an error, or left out.

        Returns
        -------
        pandas.DataFrame, shape (n_users, k), dtype of the factors
            A row for each user, in the order of `interactions.users`. Users without known items have zeros. `to_numpy`
            returns the array behind the table without a copy.

        Raises
        ------
        UnknownLabelError, ValueError, TypeError, NotFittedError
            Same errors as `recommend`.
        """
        model, known = self._fitted()
        plays = _by_known_items(known, interactions, on_unknown)
        factors = model.recalculate_user(np.arange(len(plays)), plays.matrix)
        return pd.DataFrame(factors, index=plays.users.rename("user"), copy=False)

    def explain(
        self,
        user: Any,
        item: Any,
        n: int = 10,
        on_unknown: str = "raise",
        *,
        interactions: Interactions | pd.DataFrame | None = None,
    ) -> pd.DataFrame:
        """Return the contribution of each item that a user likes to the score of an item (Hu, Koren, Volinsky 2008).

        Parameters
        ----------
        user, item : label
        n : int
            Number of contributions to return.
        on_unknown : {"raise", "skip"}
            Whether items in `interactions` that the model does not know are an error, or left out.
        interactions : Interactions or DataFrame, optional
            Entries to explain from, instead of the fitted ones. Same as for `recommend`; `user` is one of their users.

        Returns
        -------
        pandas.DataFrame
            A row for each of the `n` largest contributions: `item` (dtype as fitted) and `contribution` (float64,
            descending; negative contributions lower the score). ``attrs["score"]`` of the table is the sum over all
            items of the user: the score of `item` for factors that are exact for these entries.

        Raises
        ------
        UnknownLabelError
            The user or the item is unknown, or as for `recommend`.
        ValueError, TypeError, NotFittedError
            Same errors as `recommend`.
        """
        n = number(n)
        for name, label in (("user", user), ("item", item)):
            if not pd.api.types.is_hashable(label):
                raise TypeError(f"{name} must be one label, not a {type(label).__name__}; ask for one at a time")
        model, known = self._fitted()
        plays = known if interactions is None else _by_known_items(known, interactions, on_unknown)
        (user,) = Labels(plays.users, "users").ids([user], "raise")
        (item,) = Labels(known.items, "items").ids([item], "raise")
        score, contributions, _ = model.explain(user, plays.rows([user]), item, N=n)
        ids, values = np.array(contributions).reshape(-1, 2).T
        table = pd.DataFrame({"item": known.items.take(ids.astype(np.int64)), "contribution": values})
        table.attrs["score"] = score
        return table

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the model, the labels and the entries to one file.

        Parameters
        ----------
        file : str, path or binary file object
            Same as for `alscore.persistence.save`.

        Raises
        ------
        ValueError
            The numbers of users and items of the model differ from those of the labels.
        ValueError, TypeError
            Same errors as `alscore.persistence.save`.
        """
        self._write(file)

    def _write(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        model, interactions = self._known if self.interactions is None else self._fitted()
        if not isinstance(model, AlternatingLeastSquares):
            raise TypeError(f"can save a Recommender of an AlternatingLeastSquares, not {type(model).__name__}")
        _, params, arrays = model._parts()
        labels: dict[str, Callable[[Any], None]] = {}
        if interactions is not None:
            entries, labels = interactions._parts()
            arrays = {**arrays, **entries}
        container.write(file, "Recommender", params, arrays, labels)

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> Self:
        """Read the Recommender that `save` wrote.

        Parameters
        ----------
        file : str, path or seekable binary file object
            Same as for `alscore.load`.

        Returns
        -------
        Recommender

        Raises
        ------
        TypeError
            The file holds something else, such as a model without labels.
        FormatError, OSError
            Same as for `alscore.load`.
        """
        return container.read(
            file,
            {cls.__name__: cls._restored},
            lambda kind: TypeError(f"{file} holds a {kind}, not a {cls.__name__}: open it with alscore.load"),
        )

    @classmethod
    def _restored(cls, parts: container.Parts) -> Self:
        model = AlternatingLeastSquares._restored(parts)
        if container.MATRIX[0] not in parts:
            return cls(model)
        users, items = model._fitted()
        return cls(model, Interactions._restored(parts, (len(users.array), len(items.array))))

    def _fitted(self) -> tuple[AlternatingLeastSquares, Interactions]:
        """Return a copy of the present model, and its interactions, verified to fit each other."""
        model, interactions = self._known
        if interactions is None:
            raise NotFittedError("this Recommender has no interactions yet: call fit first")
        model = copy.copy(model)
        for side, factors in zip(("user", "item"), model._fitted(), strict=True):
            labels = getattr(interactions, f"{side}s")
            if len(labels) != len(factors.array):
                raise ValueError(
                    f"there are {len(factors.array)} {side} factors for {len(labels)} {side} labels: "
                    "fit the Recommender, not its model alone"
                )
        return model, interactions

    def _bound_request(self, *args: Any, **options: Any) -> Request:
        """Return the request that `recommend` makes of these arguments and its defaults."""
        bound = inspect.signature(self.recommend).bind(*args, **options)
        bound.apply_defaults()
        return self._request(**bound.arguments)

    def _request(
        self,
        users: Any,
        n: Any,
        on_unknown: str,
        interactions: Any,
        allow: Any,
        deny: Any,
        filter_already_liked_items: bool,
        scores: bool,
    ) -> Request:
        model, plays = self._fitted()
        items = plays.items
        if interactions is not None:
            plays = _by_known_items(plays, interactions, on_unknown)
            model.user_factors = model.recalculate_user(np.arange(len(plays)), plays.matrix)
        users = plays.users if users is None else as_index(users, "users")
        ids = Labels(plays.users, "users").find(users, on_unknown)
        known = ids >= 0
        allow, deny = _ids_or_none(Labels(items, "items"), on_unknown, allow=allow, deny=deny)
        n = number_for_each(n, users, known, len(items))
        return Request(model, plays, items, ids[known], n, allow, deny, filter_already_liked_items, scores)


def _check_interactions(interactions: Any) -> None:
    if not isinstance(interactions, Interactions):
        raise TypeError(
            f"interactions must be alscore.Interactions, not {type(interactions).__name__}; "
            f"make one with Interactions.from_pandas or Interactions(matrix, users, items)"
        )


def _by_known_items(known: Interactions, interactions: Any, on_unknown: str) -> Interactions:
    """Return interactions with their own users and, as columns, the items of `known`."""
    plays = _as_interactions(interactions)
    columns = Labels(known.items, "items").find(plays.items, on_unknown)
    matrix = renumbered(plays.matrix, np.arange(len(plays)), columns, (len(plays), known.n_items))
    return Interactions(matrix, plays.users)


def _as_interactions(interactions: Any) -> Interactions:
    if isinstance(interactions, Interactions):
        return interactions
    if not isinstance(interactions, pd.DataFrame):
        raise TypeError(
            f"interactions must be alscore.Interactions, or a pandas.DataFrame with columns user, item and perhaps "
            f"value and timestamp, not {type(interactions).__name__}"
        )
    # Any other column could hold the values.
    if other := set(interactions.columns) - {"user", "item", "value", "timestamp"}:
        raise ValueError(
            f"interactions has columns other than user, item, value and timestamp: "
            f"{', '.join(sorted(map(str, other)))}; choose with Interactions.from_pandas"
        )
    value, timestamp = (name if name in interactions else None for name in ("value", "timestamp"))
    return Interactions.from_pandas(interactions, "user", "item", value, timestamp)


def _ids_or_none(known: Labels, on_unknown: str, **lists: Any) -> Iterator[Ints | None]:
    """Look up the labels of each argument in `lists`. None stays None."""
    return (None if labels is None else known.ids(labels, on_unknown, argument=name) for name, labels in lists.items())
