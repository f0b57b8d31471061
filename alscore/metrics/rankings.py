"""Held-out data, and the rankings that a model of any kind gives for their users, in batches."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tqdm import tqdm

from alscore import retrieval
from alscore._core import ranking, topk
from alscore._data.canonical import canonical_csr, entry_rows, row_of_entry
from alscore._data.user_items import matrix_of, part_of
from alscore._support.arrays import Bools, Doubles, Floats, Int32s, Int64s, Ints
from alscore._support.threads import one_blas_thread, resolve_threads
from alscore.retrieval.factors import Factors, NotFittedError

_BATCH_USERS = 4096  # users of a batch whose scores are never in memory all at once
_BATCH_SCORES = 1 << 24  # scores of a batch whose scores are in memory: 128 MB in float64
_PRODUCT_ITEMS = 1 << 14  # items of one matrix product of scores: fixed, since bits must not depend on the threads


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """A train matrix and the test items that a model must rank high.

    Attributes
    ----------
    train : scipy.sparse.csr_array, shape (n_users, n_items)
        Canonical.
    test : scipy.sparse.csr_array, shape (n_users, n_items)
        Canonical, float64. Its entries are the test items.
    n_dropped : int
        Number of test entries that `without_overlap` left out.
    """

    train: sparse.csr_array
    test: sparse.csr_array
    n_dropped: int = 0

    @classmethod
    def of(cls, train: Any, test: Any) -> "HeldOut":
        """Return the verified parts: matrices or Interactions. The test items are the entries of `test` above 0."""
        return cls(matrix_of(train, "train"), positive_entries(test)).verified()

    def verified(self) -> "HeldOut":
        """Return self. Raise a ValueError if the shapes differ or no user has test items."""
        if self.train.shape != self.test.shape:
            raise ValueError(
                f"test has shape {self.test.shape} and train {self.train.shape}, but both must have the same users and "
                "items: give the smaller one a larger shape, or take both from one split"
            )
        if not self.users.size:
            raise ValueError("test has no entry above 0, so no user can be evaluated")
        return self

    @functools.cached_property
    def users(self) -> Int64s:
        """Row numbers of the users with test items, ascending."""
        users: Int64s = np.flatnonzero(np.diff(self.test.indptr))
        return users

    @functools.cached_property
    def overlapping(self) -> Bools:
        """Mask of the entries of `test` that are entries of `train` too."""
        return overlap(self.test, self.train)

    def refuse_overlap(self, remedy: str) -> None:
        """Raise a ValueError, which ends with `remedy`, if `train` and `test` have an entry in common."""
        if self.overlapping.any():
            entry = self.overlapping.argmax()
            raise ValueError(
                f"item {self.test.indices[entry]} of user {row_of_entry(self.test.indptr, entry)} is in both parts, "
                f"so no ranking can contain it ({np.count_nonzero(self.overlapping):,} such entries): {remedy}"
            )

    def without_overlap(self) -> "HeldOut":
        """Return the parts without the test entries that are in `train`, verified."""
        if not self.overlapping.any():
            return self
        test = part_of(self.test, self.test, ~self.overlapping)
        return HeldOut(self.train, test, int(np.count_nonzero(self.overlapping))).verified()


class RankingOptions(NamedTuple):
    """Options of `ranked_batches`.

    Attributes
    ----------
    new_users, num_threads, show_progress
        Same as for `alscore.evaluate`.
    batch_users : int
        Users of a batch whose scores are not in memory.
    batch_scores : int
        Scores of a batch whose scores are in memory. A batch has at least one user.
    """

    new_users: bool = False
    num_threads: int = 0
    show_progress: bool = True
    batch_users: int = _BATCH_USERS
    batch_scores: int = _BATCH_SCORES


class Batch(NamedTuple):
    """Rankings of some users.

    Attributes
    ----------
    at : slice
        Positions of these users in `HeldOut.users`.
    seen : scipy.sparse.csr_array, shape (n, n_items)
        Their rows of train, canonical.
    ids : int32 array, shape (n, min(depth, n_items))
        Ranked item ids, best first, without the items of `seen`; -1 where no item is left.
    scores : float array, shape (n, n_items), or None
        None unless the scores were asked for.
    """

    at: slice
    seen: sparse.csr_array
    ids: Int32s
    scores: Floats | None


class RankedHits:
    """Rankings, and the places in them that hold test items.

    Parameters
    ----------
    ids : int32 array, shape (n, m)
        From `ranked_batches` or `ranked_ids`.
    test : scipy.sparse.csr_array, shape (n, n_items)
        Test rows of the same users, canonical, as in `HeldOut.test`.
    num_threads : int
        At least 1.
    """

    def __init__(self, ids: Int32s, test: sparse.csr_array, num_threads: int = 1) -> None:
        self.ids, self.test = ids, test
        self.n_test_items: Ints = np.diff(test.indptr)
        starts = np.arange(0, ids.size + 1, ids.shape[1])
        entries = ranking.find(starts, ids.ravel(), test.indptr, test.indices, num_threads)
        self.entries = entries.reshape(ids.shape)
        self.hits = self.entries >= 0

    def n_hits(self, k: int) -> Int64s:
        """Return the number of test items among the first k of each ranking."""
        counts: Int64s = np.count_nonzero(self.hits[:, :k], axis=1)
        return counts

    @functools.cached_property
    def cumulative_hits(self) -> Ints:
        """Number of test items among the first j, for j = 1, 2, …"""
        return np.cumsum(self.hits, axis=1)

    @functools.cached_property
    def gains(self) -> Doubles:
        """Test value of the item in each place; 0 for items that are not test items."""
        return np.where(self.hits, np.append(self.test.data, 0)[self.entries], 0)

    @functools.cached_property
    def ideal(self) -> tuple[Doubles, Int32s, Ints]:
        """The test items in the best order: their values, rows, and places, which count from 0."""
        rows = entry_rows(self.test)
        order = np.lexsort((-self.test.data, rows))
        return self.test.data[order], rows, np.arange(rows.size) - self.test.indptr[rows]


def ranked_batches(
    model: Any, held_out: HeldOut, depth: int, options: RankingOptions, *, with_scores: bool = False
) -> Iterator[Batch]:
    """Rank `depth` items for each user with test items. `model` is as for `alscore.evaluate`.

    Memory does not grow with the number of users.
    """
    train, users = held_out.train, held_out.users
    n_items = train.shape[1]
    depth = min(depth, n_items)
    ranker: _FactorRanker | _ScoreRanker
    if hasattr(model, "item_factors"):
        ranker = _FactorRanker(model, train.shape, options, with_scores)
    elif hasattr(model, "scores") or callable(model):
        ranker = _ScoreRanker(model, options.num_threads, with_scores)
    else:
        raise TypeError(
            f"model must have user_factors and item_factors, or a method scores(user_items), or be a function of row "
            f"numbers, not {type(model).__name__}"
        )
    start = 0
    with progress_bar(len(users), options.show_progress, "user") as progress:
        while start < len(users):
            n = max(1, options.batch_scores // n_items) if ranker.scores_in_memory else options.batch_users
            part = users[start : start + n]
            seen = take_rows(train, part)
            ids, scores = ranker.rank(part, seen, depth)
            yield Batch(slice(start, start + len(part)), seen, ids, scores)
            start += len(part)
            progress.update(len(part))


def progress_bar(total: int, show_progress: bool, unit: str) -> Any:
    """Return a progress bar that appears after two seconds."""
    return tqdm(total=total, disable=not show_progress, delay=2, unit=unit)


class _FactorRanker:
    """Ranks for a model with factors: by a search for the largest inner products."""

    def __init__(self, model: Any, shape: tuple[int, int], options: RankingOptions, with_scores: bool) -> None:
        self.scores_in_memory, self.num_threads = with_scores, options.num_threads
        self.fold_in: Callable[..., Any] | None = None
        n_users, n_items = shape
        if options.new_users:
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
            bound = topk.norms(X, 1) * max(1, candidates.norm.max())  # no score of the user is larger
        wrong = ~((bound <= np.finfo(self.items.array.dtype).max) & np.isfinite(X).all(axis=1))
        if wrong.any():
            raise ValueError(
                f"user {users[wrong.argmax()]} may have scores that are NaN or infinite in {self.items.array.dtype}: "
                "train the model anew, or scale its factors down"
            )
        ids, _ = retrieval.top_n(X, candidates, depth, exclude=seen, num_threads=self.num_threads)
        return ids, self._scores(X) if self.scores_in_memory else None

    def _scores(self, X: Floats) -> Floats:
        Y = self.items.array
        X, scores = X.astype(Y.dtype, copy=False), np.empty((len(X), len(Y)), Y.dtype)

        def score(start: int) -> None:
            stop = start + _PRODUCT_ITEMS
            np.matmul(X, Y[start:stop].T, out=scores[:, start:stop])

        with one_blas_thread(), ThreadPoolExecutor(resolve_threads(self.num_threads)) as pool:
            list(pool.map(score, range(0, len(Y), _PRODUCT_ITEMS)))
        return scores


class _ScoreRanker:
    """Ranks for a model with a method `scores`, or for a function to scores or to ids."""

    def __init__(self, model: Any, num_threads: int, with_scores: bool) -> None:
        self.model, self.num_threads, self.with_scores = model, num_threads, with_scores
        self.scores_in_memory = True  # until the function returns ids

    def rank(self, users: Ints, seen: sparse.csr_array, depth: int) -> tuple[Int32s, Floats | None]:
        if hasattr(self.model, "scores"):
            result = np.asarray(self.model.scores(_plain(seen)))
            if result.dtype.kind in "iu":
                result = result.astype(np.float64)
        else:
            result = np.asarray(self.model(users))
        if result.dtype.kind in "iu":
            self.scores_in_memory = False
            return self._checked_ids(result, users, seen, depth), None
        scores = checked_scores(result, seen.shape, users)
        threads = resolve_threads(self.num_threads, scores.size)
        ids = topk.best(scores, seen.indptr, seen.indices, depth, threads)
        return ids, scores if self.with_scores else None

    def _checked_ids(self, result: NDArray[Any], users: Ints, seen: sparse.csr_array, depth: int) -> Int32s:
        hint = "; integers are ids: give scores as floats" if result.shape == seen.shape else ""
        if self.with_scores:
            raise ValueError(f"auc and mpr need the scores of all items, but the model gives ids{hint}")
        try:
            ids = ranked_ids(result, len(users), seen.shape[1], users)
        except ValueError as error:
            raise ValueError(f"{error}{hint}") from None
        if ids.shape[1] < depth:
            raise ValueError(f"the model ranks {ids.shape[1]} items, but k needs {depth}: return rankings of {depth}")
        ids = np.ascontiguousarray(ids[:, :depth])
        seen_again = RankedHits(ids, seen).hits
        if seen_again.any():
            row, place = np.argwhere(seen_again)[0]
            raise ValueError(
                f"the ranking of user {users[row]} has item {ids[row, place]}, which is in the row of train: leave out "
                f"the items of that row{hint}"
            )
        return ids


def _plain(matrix: sparse.csr_array) -> sparse.csr_matrix:
    """Return a csr_matrix with both index arrays in one dtype: some packages refuse a csr_array."""
    return sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), matrix.shape)


def _factors(model: Any, name: str, size: int, of: str) -> Factors:
    array = getattr(model, name, None)
    if array is None:
        raise NotFittedError(f"the model has no {name}: fit it first")
    if len(array) != size:
        raise ValueError(f"{name} has {len(array)} rows, but train and test have {size} {of}")
    return Factors(array, name)


def take_rows(matrix: sparse.csr_array, rows: Ints) -> sparse.csr_array:
    """Return some rows of a canonical matrix, canonical."""
    # The constructor gives both index arrays one dtype. Otherwise scipy would copy them whole to take a few rows.
    return canonical_csr(
        sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), matrix.shape)[rows], matrix.dtype
    )


def positive_entries(user_items: Any, name: str = "test") -> sparse.csr_array:
    """Return the entries above 0, canonical, in float64."""
    matrix = matrix_of(user_items, name, np.float64)
    if matrix.nnz and matrix.data.min() < 0:
        matrix = matrix.copy()
        matrix.data[matrix.data < 0] = 0
        matrix = canonical_csr(matrix, np.float64, name)
    return matrix


relevant = positive_entries  # its former name, which `alscore.rankings` still has


def overlap(test: sparse.csr_array, train: sparse.csr_array) -> Bools:
    """Return the mask of the entries of `test` that are entries of `train` too."""
    return ranking.find(test.indptr, test.indices, train.indptr, train.indices, 1) >= 0


def checked_scores(scores: Any, shape: tuple[int, int], users: Ints | None = None) -> Floats:
    """Return `scores` in float32 or float64, C-contiguous, verified. Messages name the rows by `users`."""
    given = np.asarray(scores)
    if given.shape != shape or given.dtype.kind != "f":
        raise ValueError(f"scores must be real numbers of shape {shape}, not {given.dtype} of shape {given.shape}")
    checked: Floats = np.ascontiguousarray(given, np.float32 if given.itemsize <= 4 else np.float64)
    wrong = np.isnan(checked.min(axis=1))  # the minimum of a row with a NaN is NaN
    if wrong.any():
        row = wrong.argmax()
        raise ValueError(f"user {row if users is None else users[row]} has a score that is NaN: correct the model")
    return checked


def ranked_ids(ranked: Any, n_users: int | None, n_items: int, users: Ints | None = None) -> Int32s:
    """Return `ranked` as an int32 array (n_users, m), verified. Messages name the rows by `users`."""
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
