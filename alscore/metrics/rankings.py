"""Rankings of any model, in batches of users, and the test rows that judge them."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from alscore import retrieval
from alscore._core import ranking, topk
from alscore._data.canonical import canonical_csr, entry_rows, row_of_entry
from alscore._support.arrays import Bools, Doubles, Floats, Int32s, Int64s, Ints
from alscore._support.threads import one_blas_thread, resolve_threads
from alscore.retrieval.factors import Factors, NotFittedError

_SEARCHED = 4096  # users in a batch whose scores are never in memory
_SCORES = 1 << 24  # in a batch of users whose are: 128 MB in float64
_PRODUCT = 1 << 14  # items whose scores are one matrix product: fixed, so that bits do not depend on threads


class Batch(NamedTuple):
    """Rankings of some users.

    Attributes
    ----------
    at : slice
        Where these users are among those asked for.
    seen : scipy.sparse.csr_array, shape (n, n_items)
        Their rows of train, canonical.
    ids : int32 array, shape (n, min(depth, n_items))
        Best first, without what they have seen; -1 where nothing is left.
    scores : float array, shape (n, n_items), or None
        Only if asked for.
    """

    at: slice
    seen: sparse.csr_array
    ids: Int32s
    scores: Floats | None


class Judged:
    """Rankings, and which of their places hold test items.

    Parameters
    ----------
    ids : int32 array, shape (n, m)
        As from `ranked_batches` or `ranked_ids`.
    test : scipy.sparse.csr_array, shape (n, n_items)
        Their rows of what `relevant` gives.
    """

    def __init__(self, ids: Int32s, test: sparse.csr_array, num_threads: int = 1) -> None:
        self.ids, self.test = ids, test
        self.n_relevant: Ints = np.diff(test.indptr)
        starts = np.arange(0, ids.size + 1, ids.shape[1])
        found = ranking.find(starts, ids.ravel(), test.indptr, test.indices, num_threads)
        self.entries = found.reshape(ids.shape)
        self.hits = self.entries >= 0

    def n_hits(self, k: int) -> Int64s:
        """How many of the first k places hold test items."""
        counts: Int64s = np.count_nonzero(self.hits[:, :k], axis=1)
        return counts

    @functools.cached_property
    def cumulated(self) -> Ints:
        """Test items among the first j, for j = 1, 2, …"""
        return np.cumsum(self.hits, axis=1)

    @functools.cached_property
    def gains(self) -> Doubles:
        """The value in the test row of the item in each place, 0 if it has none."""
        return np.where(self.hits, np.append(self.test.data, 0)[self.entries], 0)

    @functools.cached_property
    def ideal(self) -> tuple[Doubles, Int32s, Ints]:
        """Values, rows, and places from 0 on, of the test items in the best order."""
        rows = entry_rows(self.test)
        order = np.lexsort((-self.test.data, rows))
        return self.test.data[order], rows, np.arange(rows.size) - self.test.indptr[rows]


def ranked_batches(
    model: Any,
    train: sparse.csr_array,
    users: Ints,
    depth: int,
    *,
    with_scores: bool = False,
    new_users: bool = False,
    num_threads: int = 0,
    show_progress: bool = True,
) -> Iterator[Batch]:
    """Rank for `users`, rows of the canonical matrix `train`; the arguments are otherwise as for `alscore.evaluate`.

    Memory does not grow with the number of users.
    """
    from tqdm import tqdm

    n_users, n_items = train.shape
    depth = min(depth, n_items)
    source: _Searched | _Scored
    if hasattr(model, "item_factors"):
        source = _Searched(model, n_users, n_items, with_scores, new_users, num_threads)
    elif hasattr(model, "scores") or callable(model):
        source = _Scored(model, with_scores, num_threads)
    else:
        raise TypeError(
            f"model must have user_factors and item_factors, or a method scores(user_items), or be a function of row "
            f"numbers, not {type(model).__name__}"
        )
    start = 0
    with tqdm(total=len(users), disable=not show_progress, delay=2, unit="user") as progress:
        while start < len(users):
            part = users[start : start + (max(1, _SCORES // n_items) if source.in_memory else _SEARCHED)]
            seen = rows(train, part)
            ids, scores = source.rank(part, seen, depth)
            yield Batch(slice(start, start + len(part)), seen, ids, scores)
            start += len(part)
            progress.update(len(part))


class _Searched:
    """A model with factors."""

    def __init__(
        self, model: Any, n_users: int, n_items: int, with_scores: bool, new_users: bool, num_threads: int
    ) -> None:
        self.in_memory, self.num_threads = with_scores, num_threads
        self.fold_in: Callable[..., Any] | None = None
        if new_users:
            if not hasattr(model, "recalculate_user"):
                raise TypeError(
                    f"new_users=True needs a model with recalculate_user(users, rows), unlike {type(model).__name__}: "
                    "pass a function from row numbers to scores instead"
                )
            self.fold_in = model.recalculate_user
        else:
            self.users = _factors(model, "user_factors", n_users, "users; or pass new_users=True to fold them in")
        self.items = _factors(model, "item_factors", n_items, "items")

    def rank(self, users: Ints, seen: sparse.csr_array, depth: int) -> tuple[Int32s, Floats | None]:
        X = self.users.array[users] if self.fold_in is None else self.fold_in(users, _plain(seen))
        X, candidates = np.ascontiguousarray(X), self.items.candidates(self.num_threads)
        with np.errstate(over="ignore", invalid="ignore"):
            largest = topk.norms(X, 1) * max(1, candidates.norm.max())  # no score of the user is larger
        wrong = ~((largest <= np.finfo(self.items.array.dtype).max) & np.isfinite(X).all(axis=1))
        if wrong.any():
            raise ValueError(
                f"user {users[wrong.argmax()]} may have scores that are NaN or infinite in {self.items.array.dtype}: "
                "train the model anew, or scale its factors down"
            )
        ids, _ = retrieval.top_n(X, candidates, depth, exclude=seen, num_threads=self.num_threads)
        return ids, self._scores(X) if self.in_memory else None

    def _scores(self, X: Floats) -> Floats:
        Y = self.items.array
        X, scores = X.astype(Y.dtype, copy=False), np.empty((len(X), len(Y)), Y.dtype)

        def score(start: int) -> None:
            np.matmul(X, Y[start : start + _PRODUCT].T, out=scores[:, start : start + _PRODUCT])

        with one_blas_thread(), ThreadPoolExecutor(resolve_threads(self.num_threads)) as pool:
            list(pool.map(score, range(0, len(Y), _PRODUCT)))
        return scores


class _Scored:
    """A model that gives scores of all items, or a function to ids."""

    def __init__(self, model: Any, with_scores: bool, num_threads: int) -> None:
        self.model, self.with_scores, self.num_threads = model, with_scores, num_threads
        self.in_memory = True  # until the answers are ids

    def rank(self, users: Ints, seen: sparse.csr_array, depth: int) -> tuple[Int32s, Floats | None]:
        if hasattr(self.model, "scores"):
            answer = np.asarray(self.model.scores(_plain(seen)))
            if answer.dtype.kind in "iu":
                answer = answer.astype(np.float64)
        else:
            answer = np.asarray(self.model(users))
        if answer.dtype.kind in "iu":
            self.in_memory = False
            return self._checked_ids(answer, users, seen, depth), None
        scores = checked_scores(answer, seen.shape, users)
        threads = resolve_threads(self.num_threads, scores.size)
        ids = topk.best(scores, seen.indptr, seen.indices, depth, threads)
        return ids, scores if self.with_scores else None

    def _checked_ids(self, answer: NDArray[Any], users: Ints, seen: sparse.csr_array, depth: int) -> Int32s:
        hint = "; integers are ids: give scores as floats" if answer.shape == seen.shape else ""
        if self.with_scores:
            raise ValueError(f"auc and mpr need the scores of all items, but the model gives ids{hint}")
        try:
            ids = ranked_ids(answer, len(users), seen.shape[1], users)
        except ValueError as error:
            raise ValueError(f"{error}{hint}") from None
        if ids.shape[1] < depth:
            raise ValueError(f"the model ranks {ids.shape[1]} items, but {depth} are looked at: let it rank so many")
        ids = np.ascontiguousarray(ids[:, :depth])
        again = Judged(ids, seen).hits
        if again.any():
            row, place = np.argwhere(again)[0]
            raise ValueError(
                f"the ranking of user {users[row]} has item {ids[row, place]}, which is in the row of train: leave out "
                f"what a user has{hint}"
            )
        return ids


def _plain(matrix: sparse.csr_array) -> sparse.csr_matrix:
    """For other packages: with both index arrays in one dtype, and no array, which some refuse."""
    return sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), matrix.shape)


def _factors(model: Any, name: str, size: int, of: str) -> Factors:
    array = getattr(model, name, None)
    if array is None:
        raise NotFittedError(f"the model has no {name}: fit it first")
    if len(array) != size:
        raise ValueError(f"{name} has {len(array)} rows, but train and test have {size} {of}")
    return Factors(array, name)


def rows(matrix: sparse.csr_array, codes: Ints) -> sparse.csr_array:
    """Some rows of a canonical matrix, canonical."""
    # with both of its index arrays in one dtype scipy does not copy all of them; the constructor sees to that
    return canonical_csr(
        sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), matrix.shape)[codes], matrix.dtype
    )


def relevant(test: Any, name: str = "test") -> sparse.csr_array:
    """The entries above 0, canonical and in float64."""
    matrix = canonical_csr(getattr(test, "matrix", test), np.float64, name)
    if matrix.nnz and matrix.data.min() < 0:
        matrix = matrix.copy()
        matrix.data[matrix.data < 0] = 0
        matrix = canonical_csr(matrix, np.float64, name)
    return matrix


def judgeable(train: sparse.csr_array, test: sparse.csr_array) -> Int64s:
    """Rows of the users with test items, int64, after a look at the shapes."""
    if train.shape != test.shape:
        raise ValueError(
            f"test has shape {test.shape} and train {train.shape}, but both must have the same users and items: "
            "give the smaller one a larger shape, or take both from one split"
        )
    users = np.flatnonzero(np.diff(test.indptr))
    if not users.size:
        raise ValueError("test has no entry above 0, so that no user can be judged")
    return users


def overlap(test: sparse.csr_array, train: sparse.csr_array) -> Bools:
    """Mask of the entries of `test` that are entries of `train` too."""
    return ranking.find(test.indptr, test.indices, train.indptr, train.indices, 1) >= 0


def refuse_overlap(test: sparse.csr_array, shared: Bools, remedy: str) -> None:
    """Raise a ValueError if the mask `shared` names an entry of `test`."""
    if shared.any():
        entry = shared.argmax()
        raise ValueError(
            f"item {test.indices[entry]} of user {row_of_entry(test.indptr, entry)} is in both parts, which no ranking can "
            f"find again ({np.count_nonzero(shared):,} such entries): {remedy}"
        )


def checked_scores(scores: Any, shape: tuple[int, int], users: Ints | None = None) -> Floats:
    """`scores` in float32 or float64, C-contiguous, verified; messages name rows by `users`."""
    given = np.asarray(scores)
    if given.shape != shape or given.dtype.kind != "f":
        raise ValueError(f"scores must be real numbers of shape {shape}, not {given.dtype} of shape {given.shape}")
    checked: Floats = np.ascontiguousarray(given, np.float32 if given.itemsize <= 4 else np.float64)
    wrong = np.isnan(checked.min(axis=1))  # which passes NaN on
    if wrong.any():
        row = wrong.argmax()
        raise ValueError(f"user {row if users is None else users[row]} has a score that is NaN: correct the model")
    return checked


def ranked_ids(ranked: Any, n_users: int | None, n_items: int, users: Ints | None = None) -> Int32s:
    """`ranked` as int32 array (n_users, m), verified; messages name rows by `users`."""
    ids = np.asarray(ranked)
    if ids.dtype.kind not in "iu" or ids.ndim != 2 or ids.shape[1] == 0 or n_users not in (None, len(ids)):
        raise ValueError(
            f"ranked must hold integer ids, a row for each of {'the' if n_users is None else n_users} users and at "
            f"least one column, not {ids.dtype} of shape {ids.shape}"
        )

    def refuse(wrong: Bools, why: str) -> None:
        if wrong.any():
            row = wrong.any(axis=1).argmax()
            user = row if users is None else users[row]
            raise ValueError(f"the ranking of user {user} has id {ids[row, wrong[row].argmax()]} {why}")

    refuse((ids < -1) | (ids >= n_items), f"outside of [0, {n_items}); -1 is a place without an item")
    ids = np.ascontiguousarray(ids, np.int32)
    order = np.argsort(ids, axis=1, kind="stable")
    ascending = np.take_along_axis(ids, order, axis=1)
    repeats = np.zeros(ids.shape, bool)
    same = (ascending[:, 1:] == ascending[:, :-1]) & (ascending[:, 1:] >= 0)
    np.put_along_axis(repeats, order[:, 1:], same, axis=1)
    refuse(repeats, "twice: leave out all places but the first")
    return ids
