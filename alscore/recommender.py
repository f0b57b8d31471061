"""Labels in, labels out: a model together with the users, the items and the plays that it was fitted on."""

import copy
import dataclasses
import inspect
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

import numpy as np

from alscore._data import container
from alscore._data.canonical import recoded
from alscore._data.labels import Labels, as_index
from alscore._data.labels import UnknownLabelError as UnknownLabelError
from alscore._support.arrays import Bools, Floats, Int64s, Ints
from alscore._support.checks import require_integer
from alscore.als import AlternatingLeastSquares
from alscore.interactions import Interactions
from alscore.retrieval.factors import NotFittedError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Recommender:
    """A model that speaks in labels.

    Any number of threads may ask while one learns: each answer is that of one model with the labels of its own data.

    Parameters
    ----------
    model : AlternatingLeastSquares, optional
        Default: ``AlternatingLeastSquares()``. It is not modified: what learns is a copy, which becomes `model` when it
        is done.
    interactions : Interactions, optional
        What `model` was fitted on, where that was done elsewhere.

    Attributes
    ----------
    model : AlternatingLeastSquares
        The one given, or since `fit` the one that was learnt.
    interactions : Interactions or None
        What the model was fitted on: the labels, and what each user has played. None before. While a model or
        interactions set from outside do not fit the other, using them raises a ValueError.

    Raises
    ------
    TypeError
        `interactions` is not an Interactions, which has the labels.
    ValueError
        `interactions` has not as many users and items as the model.
    NotFittedError
        There are `interactions`, but a model without factors.

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

    @property
    def model(self) -> AlternatingLeastSquares:
        return self._known[0]

    @property
    def interactions(self) -> Interactions | None:
        return self._known[1]

    def __repr__(self) -> str:
        return f"Recommender({self.model!r})"

    def fit(self, interactions: Interactions, **kwargs: Any) -> Self:
        """Fit the model and keep the labels and the plays.

        Parameters
        ----------
        interactions : Interactions
        **kwargs
            Passed on to the model's `fit`, such as `show_progress`, `callback` and `validation`.

        Returns
        -------
        Recommender
            Itself.

        Raises
        ------
        TypeError
            `interactions` is not an Interactions, which has the labels.
        ValueError
            The model has ``warm_start=True``, but its users and items do not come first in `interactions`.
        KeyboardInterrupt, ValueError, ArithmeticError
            As for the model's `fit`; after Ctrl-C what has been learnt by then can be used.
        """
        _check_interactions(interactions)
        model, known = self._known
        if model.warm_start and known is not None:
            for kind in ("users", "items"):
                before = getattr(known, kind)
                if not getattr(interactions, kind)[: len(before)].equals(before):
                    raise ValueError(
                        f"{kind}: with warm_start=True those fitted before must come first, in their order; "
                        f"take what Interactions.add returns, or give new plays to partial_fit"
                    )
        model = copy.copy(model)
        return self._train(model, model.fit, interactions, **kwargs)

    def partial_fit(self, interactions: "Interactions | pd.DataFrame", iterations: int = 1, **kwargs: Any) -> Self:
        """Learn from new plays, going on from the factors that there are.

        Parameters
        ----------
        interactions : Interactions, or DataFrame as for `recommend`
            The new plays only, of new users and items too: they are added to what there is (`Interactions.add`).
        iterations : int
            Sweeps over all of the plays.
        **kwargs
            Passed on to the model's `partial_fit`, such as `show_progress` and `callback`.

        Returns
        -------
        Recommender
            Itself.

        Raises
        ------
        NotFittedError
            `fit` was not called yet.
        TypeError
            Labels of another type than those fitted.
        KeyboardInterrupt, ValueError, ArithmeticError
            As for `fit`. Where the model has learnt nothing, the new plays are not kept either.
        """
        model, known = self._fitted()
        plays = known.add(_as_interactions(interactions))
        return self._train(model, model.partial_fit, plays, iterations=iterations, **kwargs)

    def _train(
        self, model: AlternatingLeastSquares, train: Callable[..., Any], interactions: Interactions, **kwargs: Any
    ) -> Self:
        """Let `model` learn, which nobody else has, and answer from it afterwards."""
        before = model.user_factors
        try:
            train(interactions, **kwargs)
        finally:
            # An interrupted model is new and usable too; one that refused to start is what it was.
            if model.user_factors is not before:
                self._known = model, interactions
        return self

    def recommend(
        self,
        users: Any = None,
        n: Any = 10,
        on_unknown: str = "raise",
        *,
        interactions: "Interactions | pd.DataFrame | None" = None,
        allow: Any = None,
        deny: Any = None,
        filter_already_liked_items: bool = True,
        scores: bool = True,
    ) -> "pd.DataFrame":
        """Find the items that each user is likeliest to want, of those not played yet.

        Parameters
        ----------
        users : label or sequence of labels, optional
            A repeated user is answered each time. Default: all, in the order of their codes; where they are many,
            `recommend_iter` and `recommend_all` take less memory.
        n : int, sequence of int, or mapping or Series from user to int
            Items for each user; a sequence has a number for each of `users`, which may be 0. Fewer come where the user
            has played nearly everything, and none where the user has played nothing: then the factors are 0, and no
            item is better than another. For the same reason items that nobody played never come.
        on_unknown : {"raise", "skip"}
            What to do about users and items that the model has not seen, in any of the arguments.
        interactions : Interactions or DataFrame, optional
            Answer to the users of these plays instead of those fitted: people whom the model never saw, or what others
            have played since. Their factors are solved exactly on the items' factors (fold-in), and these plays count
            as already liked. A table has columns `user`, `item` and perhaps `value` (else each row counts 1) and
            `timestamp`, with what `Interactions.from_pandas` makes of them.
        allow : label or sequence of labels, optional
            The only items to consider.
        deny : label or sequence of labels, optional
            Items never to recommend.
        filter_already_liked_items : bool
            Leave out what the user has played.
        scores : bool
            Whether to return them.

        Returns
        -------
        pandas.DataFrame
            A row for each recommendation, users in the order asked: `user` and `item` (dtypes as fitted),
            `score` (the factors' dtype, descending for each user) and `rank` (int64, from 1).

        Raises
        ------
        UnknownLabelError
            Users or items that the model has not seen, with ``on_unknown="raise"``.
        ValueError
            `n` below 1, or for one user below 0, not given or given twice; another `on_unknown`; a table with other
            columns; a model whose factors are not as many as the labels.
        TypeError
            `n` that are not integers, `interactions` of another type, or labels in a table or an array that has not
            one dimension.
        NotFittedError
            `fit` was not called yet.
        """
        return self._request(
            users, n, on_unknown, interactions, allow, deny, filter_already_liked_items, scores
        ).answer()

    def recommend_iter(
        self, users: Any = None, n: Any = 10, *, batch_size: int = 10_000, **options: Any
    ) -> "Iterator[pd.DataFrame]":
        """Recommend to many users, a batch of them at a time.

        Parameters
        ----------
        users, n, **options
            As for `recommend`. They are verified at once, before the first batch.
        batch_size : int
            Users in a batch. What a batch takes grows with it: about 100 bytes for each recommendation.

        Returns
        -------
        iterator of pandas.DataFrame
            Together they are what `recommend` returns, but for the index, which starts from 0 in each. The model as
            it was at the call answers, whatever it learns in between.

        Raises
        ------
        UnknownLabelError, ValueError, TypeError, NotFittedError
            As for `recommend`; `batch_size` below 1.
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
            Replaced once the new file is whole; a run that ends early leaves what was there.
        users, n, **options
            As for `recommend`.
        batch_size : int
            Users in a batch, which becomes a row group: no more than one is held in memory, as for `recommend_iter`.
        show_progress : bool
            Show a progress bar.

        Returns
        -------
        int
            Number of rows written. pandas reads them as `recommend` returns them, with the labels' types as far as
            Parquet has them. (Labels that are categories make a large file: each row group repeats all of them.)

        Raises
        ------
        UnknownLabelError, ValueError, TypeError, NotFittedError
            As for `recommend`, and labels that Parquet cannot hold.
        OSError
            The file cannot be written.
        """
        import pyarrow as pa
        from pyarrow import parquet
        from tqdm import tqdm

        from alscore._support.files import atomic_writer

        request = self._bound_request(users, n, **options)
        batches, schema, n_rows = request.batches(batch_size), request.schema(), 0
        with (
            atomic_writer(path) as file,
            parquet.ParquetWriter(file, schema) as writer,
            tqdm(total=len(request.codes), disable=not show_progress, unit="user") as progress,
        ):
            for batch in batches:
                writer.write_table(pa.Table.from_pandas(batch, schema, preserve_index=False))
                n_rows += len(batch)
                progress.update(min(batch_size, len(request.codes) - int(progress.n)))
        return n_rows

    def similar_items(
        self, items: Any, n: int = 10, on_unknown: str = "raise", *, allow: Any = None, deny: Any = None
    ) -> "pd.DataFrame":
        """Find the items whose factors point most nearly the same way (cosine), leaving out the item itself.

        Parameters
        ----------
        items : label or sequence of labels
        n : int
            Neighbours for each. An item that nobody played is like no other: it has none, and is none.
        on_unknown, allow, deny
            As for `recommend`.

        Returns
        -------
        pandas.DataFrame
            A row for each neighbour, items in the order asked: `item` and `similar_item` (dtype as fitted),
            `score` (the factors' dtype, descending for each item) and `rank` (int64, from 1).

        Raises
        ------
        UnknownLabelError, ValueError, NotFittedError
            As for `recommend`.
        """
        return self._similar("item", items, n, on_unknown, allow, deny)

    def similar_users(
        self, users: Any, n: int = 10, on_unknown: str = "raise", *, allow: Any = None, deny: Any = None
    ) -> "pd.DataFrame":
        """Find the users whose factors point most nearly the same way (cosine), leaving out the user itself.

        Parameters
        ----------
        users : label or sequence of labels
        n : int
            Neighbours for each. A user who played nothing is like no other: it has none, and is none.
        on_unknown : {"raise", "skip"}
            What to do about users that the model has not seen.
        allow, deny : label or sequence of labels, optional
            The only users to consider, and users never to return.

        Returns
        -------
        pandas.DataFrame
            As for `similar_items`: `user`, `similar_user`, `score` and `rank`.

        Raises
        ------
        UnknownLabelError, ValueError, NotFittedError
            As for `recommend`.
        """
        return self._similar("user", users, n, on_unknown, allow, deny)

    def _similar(
        self, kind: Literal["user", "item"], labels: Any, n: int, on_unknown: str, allow: Any, deny: Any
    ) -> "pd.DataFrame":
        n = _check_n(n)
        model, interactions = self._fitted()
        index, factors = getattr(interactions, f"{kind}s"), getattr(model, f"{kind}_factors")
        known = Labels(index, f"{kind}s")
        codes = known.ids(labels, on_unknown)
        codes = codes[factors[codes].any(axis=1)]
        allow, deny = _ids_or_none(known, on_unknown, allow=allow, deny=deny)

        def search(some: Ints, deny: Ints | None) -> tuple[Ints, Floats]:
            ask: Callable[..., tuple[Ints, Floats]] = getattr(model, f"similar_{kind}s")
            return ask(codes[some], N=min(n, len(index)) + 1, **{f"{kind}s": allow, f"filter_{kind}s": deny})

        ids, scores = _search(search, len(codes), factors, deny)
        # Where others point exactly the same way, the one asked for may come after them, or not at all.
        wanted = (ids >= 0) & (ids != codes[:, None])
        wanted &= np.cumsum(wanted, axis=1) <= n
        rows, _ = np.nonzero(wanted)
        return _tidy((kind, f"similar_{kind}"), index.take(codes), index, rows, ids[wanted], scores[wanted])

    def fold_in(self, interactions: "Interactions | pd.DataFrame", on_unknown: str = "raise") -> "pd.DataFrame":
        """Solve the factors of users from their plays, exactly, on the items' factors as they stand.

        Parameters
        ----------
        interactions : Interactions, or DataFrame as for `recommend`
            Of any users. The model stays as it is.
        on_unknown : {"raise", "skip"}
            What to do about items that the model has not seen.

        Returns
        -------
        pandas.DataFrame, n_users rows and k columns of the factors' dtype
            By user, in the order of `interactions.users`; 0 for those without plays of known items. One array is
            behind it, which `to_numpy` returns without a copy.

        Raises
        ------
        UnknownLabelError, ValueError, TypeError, NotFittedError
            As for `recommend`.
        """
        import pandas as pd

        model, known = self._fitted()
        plays = _plays(known, interactions, on_unknown)
        factors = model.recalculate_user(np.arange(len(plays)), plays.matrix)
        return pd.DataFrame(factors, index=plays.users.rename("user"), copy=False)

    def explain(
        self,
        user: Any,
        item: Any,
        n: int = 10,
        on_unknown: str = "raise",
        *,
        interactions: "Interactions | pd.DataFrame | None" = None,
    ) -> "pd.DataFrame":
        """Say how much each item that a user likes adds to the score of an item (Hu, Koren, Volinsky 2008, section 5).

        Parameters
        ----------
        user, item : label
        n : int
            Items to return.
        on_unknown : {"raise", "skip"}
            What to do about items in `interactions` that the model has not seen.
        interactions : Interactions or DataFrame, optional
            Plays to explain from instead of those fitted, as for `recommend`; `user` is one of their users.

        Returns
        -------
        pandas.DataFrame
            A row for each of the `n` items that add most: `item` (dtype as fitted) and `contribution` (float64,
            descending, below 0 for what speaks against). Its ``attrs["score"]`` is the sum over all of the user's
            items: the score of `item` for factors that are exact for these plays.

        Raises
        ------
        UnknownLabelError
            The user or the item; and as for `recommend`.
        ValueError, TypeError, NotFittedError
            As for `recommend`.
        """
        import pandas as pd

        n = _check_n(n)
        for name, label in (("user", user), ("item", item)):
            if not pd.api.types.is_hashable(label):
                raise TypeError(f"{name} must be one label, not a {type(label).__name__}; ask for one at a time")
        model, known = self._fitted()
        plays = known if interactions is None else _plays(known, interactions, on_unknown)
        (user,) = Labels(plays.users, "users").ids([user], "raise")
        (item,) = Labels(known.items, "items").ids([item], "raise")
        score, contributions, _ = model.explain(user, plays.rows([user]), item, N=n)
        ids, values = np.array(contributions).reshape(-1, 2).T
        table = pd.DataFrame({"item": known.items.take(ids.astype(np.int64)), "contribution": values})
        table.attrs["score"] = score
        return table

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the model, the labels and the plays to one file.

        Parameters
        ----------
        file : str, path or binary file object
            As for `alscore.persistence.save`.

        Raises
        ------
        ValueError
            The model's factors are not as many as the labels; and as for `alscore.persistence.save`.
        """
        model, interactions = self._known if self.interactions is None else self._fitted()
        if not isinstance(model, AlternatingLeastSquares):
            raise TypeError(f"can save a Recommender of an AlternatingLeastSquares, not {type(model).__name__}")
        _, params, arrays = model._parts()
        labels: dict[str, pd.Index] = {}
        if interactions is not None:
            plays, labels = interactions._parts()
            arrays = {**arrays, **plays}
        container.write(file, "Recommender", params, arrays, labels)

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        file : str, path or seekable binary file object
            As for `alscore.load`.

        Returns
        -------
        Recommender

        Raises
        ------
        TypeError
            The file holds a model without labels.
        """
        return container.read(
            file,
            {"Recommender": cls._restored},
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
        """A copy of the model as it is now, and its interactions, verified to fit it."""
        model, interactions = self._known
        if interactions is None:
            raise NotFittedError("this Recommender has no interactions yet: call fit first")
        model = copy.copy(model)
        for kind, factors in zip(("user", "item"), model._fitted(), strict=True):
            labels = getattr(interactions, f"{kind}s")
            if len(labels) != len(factors.array):
                raise ValueError(
                    f"there are {len(factors.array)} {kind} factors for {len(labels)} {kind} labels: "
                    "fit the Recommender, not its model alone"
                )
        return model, interactions

    def _bound_request(self, *args: Any, **options: Any) -> "_Request":
        """What `recommend` makes of these arguments, with its defaults."""
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
    ) -> "_Request":
        model, plays = self._fitted()
        items = plays.items
        if interactions is not None:
            plays = _plays(plays, interactions, on_unknown)
            model.user_factors = model.recalculate_user(np.arange(len(plays)), plays.matrix)
        users = plays.users if users is None else as_index(users, "users")
        codes = Labels(plays.users, "users").find(users, on_unknown)
        known = codes >= 0
        allow, deny = _ids_or_none(Labels(items, "items"), on_unknown, allow=allow, deny=deny)
        n = _n_each(n, users, known, len(items))
        return _Request(model, plays, items, codes[known], n, allow, deny, filter_already_liked_items, scores)


@dataclasses.dataclass(frozen=True, eq=False)
class _Request:
    """What `Recommender.recommend` was asked, verified; to be answered for some of the users at a time."""

    model: AlternatingLeastSquares
    plays: Interactions
    items: "pd.Index"
    codes: Ints
    n: Ints
    allow: Ints | None
    deny: Ints | None
    filter_already_liked_items: bool
    scores: bool

    def answer(self, part: slice = slice(None)) -> "pd.DataFrame":
        codes, (X, Y) = self.codes[part], self.model._fitted()
        n = self.n[part] * X.array[codes].any(axis=1)
        ids, scores = np.full(n.sum(), -1), np.empty(n.sum(), Y.array.dtype)
        # Those who get nearly as many are searched together: one who gets many more would make all as wide.
        _, width = np.frexp(n)
        for group in np.unique(width[n > 0]):
            mine = width == group
            found = self._search(codes[mine], n[mine].max(), Y.array)
            wanted = np.arange(found[0].shape[1]) < n[mine, None]
            places = np.repeat(mine, n)
            ids[places], scores[places] = (array[wanted] for array in found)
        rows, wanted = np.repeat(np.arange(len(n)), n), ids >= 0
        users, kept = self.plays.users.take(codes), scores[wanted] if self.scores else None
        return _tidy(("user", "item"), users, self.items, rows[wanted], ids[wanted], kept)

    def _search(self, codes: Ints, n: int, factors: Floats) -> tuple[Ints, Floats]:
        def search(some: Ints, deny: Ints | None) -> tuple[Ints, Floats]:
            return self.model.recommend(
                codes[some],
                self.plays.rows(codes[some]) if self.filter_already_liked_items else None,
                N=n,
                filter_already_liked_items=self.filter_already_liked_items,
                filter_items=deny,
                items=self.allow,
            )

        return _search(search, len(codes), factors, self.deny)

    def batches(self, size: int) -> "Iterator[pd.DataFrame]":
        size = int(operator.index(size))
        require_integer(size, "batch_size", 1)
        return (self.answer(slice(start, start + size)) for start in range(0, len(self.codes), size))

    def schema(self) -> "pa.Schema":
        """Return the Arrow schema of every answer."""
        import pyarrow as pa

        schema = pa.Schema.from_pandas(self.answer(slice(0)), preserve_index=False)
        # An answer may be without rows, or its labels tell too little, where their dtype is object.
        for place, labels in enumerate((self.plays.users, self.items)):
            field = schema.field(place)
            schema = schema.set(
                place, field.with_type(container.labels_to_arrow(labels, f"{field.name}s").schema.types[0])
            )
        return schema


def _search(
    search: Callable[[Any, Ints | None], tuple[Ints, Floats]],
    n_queries: int,
    factors: Floats,
    deny: Ints | None,
) -> tuple[Ints, Floats]:
    """Ids and scores that ``search(queries, deny)`` finds among `factors`, without those that are all 0.

    Nothing is known of these, and their score of 0 is better than any below it. Looking for them takes as long as many
    searches do, so it is left until an answer may have one.
    """
    ids, scores = search(slice(n_queries), deny)
    again = np.flatnonzero((scores == 0).any(axis=1))
    if again.size:
        unknown = np.flatnonzero(~factors.any(axis=1))
        ids[again], scores[again] = search(again, unknown if deny is None else np.concatenate([unknown, deny]))
    return ids, scores


def _check_interactions(interactions: Any) -> None:
    if not isinstance(interactions, Interactions):
        raise TypeError(
            f"interactions must be alscore.Interactions, not {type(interactions).__name__}; "
            f"make one with Interactions.from_pandas or Interactions(matrix, users, items)"
        )


def _check_n(n: int) -> int:
    n = int(operator.index(n))
    require_integer(n, "n", 1)
    return n


def _n_each(n: Any, users: "pd.Index", known: Bools, most: int) -> Int64s:
    """Return the number of items for each of the `users` that are `known` (a mask), but at most `most`: int64."""
    import pandas as pd

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
        return np.full(np.count_nonzero(known), min(_check_n(n), most))
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


def _plays(known: Interactions, interactions: Any, on_unknown: str) -> Interactions:
    """Return plays with their own users and, by code, the items of `known`."""
    plays = _as_interactions(interactions)
    columns = Labels(known.items, "items").find(plays.items, on_unknown)
    matrix = recoded(plays.matrix, np.arange(len(plays)), columns, (len(plays), known.n_items))
    return Interactions(matrix, plays.users)


def _as_interactions(interactions: Any) -> Interactions:
    import pandas as pd

    if isinstance(interactions, Interactions):
        return interactions
    if not isinstance(interactions, pd.DataFrame):
        raise TypeError(
            f"interactions must be alscore.Interactions, or a pandas.DataFrame with columns user, item and perhaps "
            f"value and timestamp, not {type(interactions).__name__}"
        )
    # Any other column could hold the strengths.
    if other := set(interactions.columns) - {"user", "item", "value", "timestamp"}:
        raise ValueError(
            f"interactions has columns other than user, item, value and timestamp: "
            f"{', '.join(sorted(map(str, other)))}; choose with Interactions.from_pandas"
        )
    value, timestamp = (name if name in interactions else None for name in ("value", "timestamp"))
    return Interactions.from_pandas(interactions, "user", "item", value, timestamp)


def _tidy(
    names: tuple[str, str],
    asked: "pd.Index",
    index: "pd.Index",
    rows: Ints,
    ids: Ints,
    scores: Floats | None,
) -> "pd.DataFrame":
    """Return `ids` and `scores`, found for the ascending `rows` of `asked`, as a table."""
    import pandas as pd

    columns: dict[str, Any] = {names[0]: asked.take(rows), names[1]: index.take(ids)}
    if scores is not None:
        columns["score"] = scores
    return pd.DataFrame(columns | {"rank": np.arange(len(rows)) - np.searchsorted(rows, rows) + 1})


def _ids_or_none(known: Labels, on_unknown: str, **lists: Any) -> Iterator[Ints | None]:
    """Look up the labels of each argument in `lists`; None stays None."""
    return (None if labels is None else known.ids(labels, on_unknown, argument=name) for name, labels in lists.items())
