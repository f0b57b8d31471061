"""Labels in, labels out: a model together with the users, the items and the plays that it was fitted on."""

import operator
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from alscore.als import AlternatingLeastSquares, NotFittedError
from alscore.interactions import Interactions

if TYPE_CHECKING:
    import pandas as pd


class UnknownLabelError(LookupError):
    """Users or items that were not in the data that the model was fitted on.

    Attributes
    ----------
    labels : pandas.Index
        The unknown ones of those asked for.
    """

    def __init__(self, message: str, labels: "pd.Index") -> None:
        super().__init__(message)
        self.labels = labels


class Recommender:
    """A model that speaks in labels.

    Parameters
    ----------
    model : AlternatingLeastSquares, optional
        Fitted in place. Default: ``AlternatingLeastSquares()``.

    Attributes
    ----------
    model : AlternatingLeastSquares
    interactions : Interactions or None
        What `fit` was given: the labels, and what each user has played. None before.

    Examples
    --------
    >>> recommender = Recommender().fit(interactions)                                         # doctest: +SKIP
    >>> recommender.recommend(["alice", "bob"], n=5)                                          # doctest: +SKIP
    """

    def __init__(self, model: AlternatingLeastSquares | None = None) -> None:
        self.model = AlternatingLeastSquares() if model is None else model
        self.interactions: Interactions | None = None

    def __repr__(self) -> str:
        return f"Recommender({self.model!r})"

    def fit(self, interactions: Interactions, **kwargs: Any) -> Self:
        """Fit the model and keep the labels and the plays.

        Parameters
        ----------
        interactions : Interactions
        **kwargs
            Passed on to the model's `fit`, such as `show_progress` and `callback`.

        Returns
        -------
        Recommender
            Itself.

        Raises
        ------
        TypeError
            `interactions` is not an Interactions, which has the labels.
        KeyboardInterrupt, ValueError, ArithmeticError
            As for the model's `fit`; after Ctrl-C what has been learnt by then can be used.
        """
        if not isinstance(interactions, Interactions):
            raise TypeError(
                f"interactions must be alscore.Interactions, not {type(interactions).__name__}; "
                f"make one with Interactions.from_pandas or Interactions(matrix, users, items)"
            )
        before = self.model.user_factors
        try:
            self.model.fit(interactions, **kwargs)
        finally:
            # An interrupted model is new and usable too; one that refused to start is what it was.
            if self.model.user_factors is not before:
                self.interactions = interactions
        return self

    def recommend(self, users: Any, n: int = 10, on_unknown: str = "raise") -> "pd.DataFrame":
        """Find the items that each user is likeliest to want, of those not played yet.

        Parameters
        ----------
        users : label or sequence of labels
            A repeated user is answered each time.
        n : int
            Items for each user. Fewer come where the user has played nearly everything, and none where the user has
            played nothing: then the factors are 0, and no item is better than another.
        on_unknown : {"raise", "skip"}
            What to do about users that the model has not seen.

        Returns
        -------
        pandas.DataFrame
            A row for each recommendation, users in the order asked: `user` and `item` (dtypes as fitted),
            `score` (the factors' dtype, descending for each user) and `rank` (int64, from 1).

        Raises
        ------
        UnknownLabelError
            Users that the model has not seen, with ``on_unknown="raise"``.
        ValueError
            `n` below 1, or another `on_unknown`.
        NotFittedError
            `fit` was not called yet.
        """
        n = _check_n(n)
        interactions, user_factors, _ = self._fitted()
        codes = _codes(interactions.users, users, "users", on_unknown)
        ids, scores = self.model.recommend(codes, interactions.rows(codes), N=n)
        users = interactions.users.take(codes)
        wanted = (ids >= 0) & user_factors[codes].any(axis=1, keepdims=True)
        return _tidy(("user", "item"), users, interactions.items, ids, scores, wanted)

    def similar_items(self, items: Any, n: int = 10, on_unknown: str = "raise") -> "pd.DataFrame":
        """Find the items whose factors point most nearly the same way (cosine), leaving out the item itself.

        Parameters
        ----------
        items : label or sequence of labels
        n, on_unknown
            As for `recommend`; an item that nobody played is like no other.

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
        n = _check_n(n)
        interactions, _, item_factors = self._fitted()
        codes = _codes(interactions.items, items, "items", on_unknown)
        ids, scores = self.model.similar_items(codes, N=n + 1)
        # Where others point exactly the same way, the item itself may come after them, or not at all.
        wanted = (ids >= 0) & (ids != codes[:, None]) & item_factors[codes].any(axis=1, keepdims=True)
        wanted &= np.cumsum(wanted, axis=1) <= n
        items = interactions.items.take(codes)
        return _tidy(("item", "similar_item"), items, interactions.items, ids, scores, wanted)

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the model, the labels and the plays to one file; see `alscore.persistence.save`."""
        from alscore.persistence import save

        save(self, file)

    def _fitted(self) -> tuple[Interactions, np.ndarray, np.ndarray]:
        X, Y = self.model.user_factors, self.model.item_factors
        if self.interactions is None or X is None or Y is None:
            raise NotFittedError("this Recommender has no interactions yet: call fit first")
        return self.interactions, X, Y


def _check_n(n: int) -> int:
    n = operator.index(n)
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    return n


def _tidy(
    names: tuple[str, str],
    asked: "pd.Index",
    items: "pd.Index",
    ids: np.ndarray,
    scores: np.ndarray,
    wanted: np.ndarray,
) -> "pd.DataFrame":
    """Return the `wanted` places of `ids` and `scores`, each (n_asked, N), as a table with a row for each."""
    import pandas as pd

    return pd.DataFrame(
        {
            names[0]: asked.repeat(wanted.sum(axis=1)),
            names[1]: items.take(ids[wanted]),
            "score": scores[wanted],
            "rank": np.cumsum(wanted, axis=1)[wanted],
        }
    )


def _codes(index: "pd.Index", labels: Any, kind: str, on_unknown: str) -> np.ndarray:
    """Look the labels up: the positions in `index` of those that it has (int64, in the order asked)."""
    import pandas as pd

    if on_unknown not in ("raise", "skip"):
        raise ValueError(f"on_unknown must be 'raise' or 'skip', not {on_unknown!r}")
    labels = pd.Index([labels] if pd.api.types.is_scalar(labels) else labels, tupleize_cols=False)
    codes = index.get_indexer(labels)
    unknown = codes < 0
    if on_unknown == "raise" and unknown.any():
        unknown = labels[unknown].unique()
        raise UnknownLabelError(_explain(index, unknown, kind), unknown)
    return codes[~unknown]


def _explain(index: "pd.Index", unknown: "pd.Index", kind: str) -> str:
    """Say which labels are unknown, and what may have been meant by the first few of them."""
    import pandas as pd

    # to_numpy: of categories, what they stand for
    index, unknown = (pd.Index(labels.to_numpy(), tupleize_cols=False) for labels in (index, unknown))
    hints = [repr(label) for label in unknown[:3]]
    if unknown.inferred_type != index.inferred_type:
        remedy = f"this model's labels are of type {index.inferred_type}, these are {unknown.inferred_type}"
    else:
        remedy = "correct them, or leave them out with on_unknown='skip'"
        for at, near in enumerate(_close_matches(index, unknown[:3])):
            if near:
                hints[at] += f" (did you mean {' or '.join(map(repr, near))}?)"
    more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
    return f"unknown {kind} ({len(unknown):,}): {', '.join(hints)}{more}; {remedy}"


def _close_matches(
    index: "pd.Index", labels: Sequence[str], n_matches: int = 3, cutoff: float = 0.7, n_candidates: int = 1000
) -> list[list[str]]:
    """Return for each of `labels` up to `n_matches` labels in `index` that are spelt alike, case aside.

    difflib alone takes seconds on 10^5 labels. Its own bound on the similarity, from the number of letters in
    common, is computed here for all of them at once, and difflib sees only the best by that.
    """
    if index.inferred_type != "string":
        return [[]] * len(labels)
    import difflib

    import pyarrow as pa
    from pyarrow import compute

    lowered = compute.utf8_lower(pa.array(index))
    length = compute.utf8_length(lowered).to_numpy()
    labels = [label.lower() for label in labels]
    counts = {letter: compute.count_substring(lowered, letter).to_numpy() for letter in set("".join(labels))}
    matches = []
    for label in labels:
        common = sum(np.minimum(counts[letter], label.count(letter)) for letter in set(label))
        best = np.argsort(-2 * common / (length + len(label)), kind="stable")[:n_candidates]
        spelt = dict(zip(lowered.take(pa.array(best)).to_pylist(), index.take(best), strict=True))
        matches.append([spelt[near] for near in difflib.get_close_matches(label, spelt, n_matches, cutoff)])
    return matches
