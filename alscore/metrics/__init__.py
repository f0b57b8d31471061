"""Ranking metrics: the formula and source of each, and other definitions of the same name in the literature.

In the formulas a user has R > 0 test items T, the entries of the test row above 0. g_i is the value of item i in that
row. rel_j is 1 if the j-th ranked item is in T, else 0. Items of the user's train row are not ranked. The figure for
many users is the mean over users. `coverage` and `gini` describe all rankings together.

`alscore.evaluate` computes several metrics of a model at once. Each metric at a cut-off k equals the trec_eval measure
named in its text. The functions ``..._at_k`` have the names, arguments and values of `implicit`, for code that moves
from it.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from alscore._core import ranking
from alscore._data.canonical import canonical_csr, entry_rows
from alscore._data.user_items import matrix_of
from alscore._support.arrays import Doubles, Int32s, Ints
from alscore._support.checks import require_integer
from alscore._support.threads import resolve_threads
from alscore.metrics.rankings import (
    HeldOut,
    RankedHits,
    RankingOptions,
    checked_scores,
    positive_entries,
    ranked_batches,
    ranked_ids,
    take_rows,
)

Definition = Callable[[RankedHits, int], Doubles]
AT_K: dict[str, Definition] = {}  # by name, the metrics at a cut-off that need nothing but rankings and test rows

_SECTIONS = """
Parameters
----------
ranked : int array, shape (n, m)
    For each user distinct item ids, best first; -1 is a place without an item. Places beyond m have no item either.
test : sparse matrix, shape (n, n_items), or Interactions
    For each user a row. Its entries above 0 are the test items.
k : int
    Number of places that count, at least 1.

Returns
-------
float64 array, shape (n,)
    NaN for users without test items.

Raises
------
TypeError
    `test` is not a sparse matrix.
ValueError
    `ranked` does not hold integers, an id is out of range or twice in a row, shapes do not fit each other, or `k` is
    below 1.
"""


def _at_k(definition: Definition) -> Callable[[Any, Any, int], Doubles]:
    """Put a definition into AT_K. Return the public function, which takes rankings and test rows."""
    AT_K[definition.__name__] = definition

    def metric(ranked: Any, test: Any, k: int) -> Doubles:
        require_integer(k, "k", 1)
        test = positive_entries(test)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = definition(RankedHits(ranked_ids(ranked, *test.shape), test), k)
        values[np.diff(test.indptr) == 0] = np.nan
        return values

    metric.__name__ = metric.__qualname__ = definition.__name__
    metric.__doc__ = f"{inspect.cleandoc(definition.__doc__ or '')}\n{_SECTIONS}"
    return metric


@_at_k
def precision(ranked: RankedHits, k: int) -> Doubles:
    """Hits per place: ``sum_{j<=k} rel_j / k``. trec_eval's P_k, also if fewer than k items can be ranked.

    `implicit` has another definition of precision: see `ranking_metrics_at_k`.

    >>> from scipy import sparse
    >>> from alscore import metrics
    >>> metrics.precision([[3, 1, 0, 2]], sparse.csr_array([[1, 0, 0, 1]]), k=2)  # 3 is a test item, 1 is not
    array([0.5])
    """
    return ranked.n_hits(k) / k


@_at_k
def normalized_precision(ranked: RankedHits, k: int) -> Doubles:
    """Hits, divided by the largest possible number of hits: ``sum_{j<=k} rel_j / min(k, R)``.

    Liang et al. (2018), and papers that follow them, call this metric recall.
    """
    return ranked.n_hits(k) / np.minimum(ranked.n_test_items, k)


@_at_k
def recall(ranked: RankedHits, k: int) -> Doubles:
    """Hits per test item: ``sum_{j<=k} rel_j / R``. trec_eval's recall_k.

    Liang et al. (2018) use this name for `normalized_precision`.
    """
    return ranked.n_hits(k) / ranked.n_test_items


@_at_k
def hit_rate(ranked: RankedHits, k: int) -> Doubles:
    """1 if a test item is among the first k, else 0. trec_eval's success_k.

    It equals recall for users with one test item.
    """
    return (ranked.n_hits(k) > 0).astype(np.float64)


@_at_k
def map(ranked: RankedHits, k: int) -> Doubles:
    """Average precision: ``sum_{j<=k} rel_j (sum_{i<=j} rel_i / j) / R``. trec_eval's map_cut_k.

    Other packages, `implicit` among them, divide by min(k, R).
    """
    precisions = ranked.cumulative_hits[:, :k] / np.arange(1, ranked.ids.shape[1] + 1)[:k]
    average: Doubles = (precisions * ranked.hits[:, :k]).sum(axis=1) / ranked.n_test_items
    return average


@_at_k
def mrr(ranked: RankedHits, k: int) -> Doubles:
    """Reciprocal place of the first test item; 0 if no test item is among the first k. trec_eval's recip_rank.

    trec_eval looks at the whole ranking.
    """
    hits = ranked.hits[:, :k]
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0)


@_at_k
def ndcg(ranked: RankedHits, k: int) -> Doubles:
    """``sum_{j<=k} rel_j / log2(j + 1)  /  sum_{j<=min(k,R)} 1 / log2(j + 1)`` (Järvelin and Kekäläinen 2002).

    It equals trec_eval's ndcg_cut_k for test values that are all 1. The first papers discounted by log2(j), from the
    second place on. Some packages divide by the sum over all k places even if R is smaller.
    """
    ideal: Doubles = np.append(0, np.cumsum(_discounts(k)))[np.minimum(ranked.n_test_items, k)]
    gained: Doubles = (ranked.hits[:, :k] * _discounts(k)[: ranked.ids.shape[1]]).sum(axis=1)
    return gained / ideal


@_at_k
def ndcg_graded(ranked: RankedHits, k: int) -> Doubles:
    """``sum_{j<=k} gain_j / log2(j + 1)``, divided by the same sum for the best order of T.

    gain_j is g of the j-th item, or 0 if that item is not in T. The metric equals trec_eval's ndcg_cut_k, and
    scikit-learn's ndcg_score if no two scores are equal. Burges et al. (2005) use the gain 2^g - 1, which overflows for
    counts: transform the values first if you want another gain.
    """
    gained: Doubles = (ranked.gains[:, :k] * _discounts(k)[: ranked.ids.shape[1]]).sum(axis=1)
    values, rows, places = ranked.ideal
    counted = places < k
    best = values[counted] * _discounts(k)[places[counted]]
    return gained / np.bincount(rows[counted], best, minlength=len(gained))


def auc(scores: Any, test: Any, seen: Any = None) -> Doubles:
    """Share of the pairs (test item, other item) in which the test item scores higher. Seen items are in no pair.

    Equal scores count half (Mann and Whitney 1947; scikit-learn's roc_auc_score). The AUC is 1 if there is no other
    item. `implicit` has another AUC: see `AUC_at_k`. Rendle et al. (2009, BPR) count equal scores as wrong.

    Parameters
    ----------
    scores : float array, shape (n, n_items)
    test : sparse matrix, shape (n, n_items), or Interactions
        For each user a row. Its entries above 0 are the test items.
    seen : sparse matrix, shape (n, n_items), or Interactions, optional
        For each user a row of items that are not ranked. None of them may be in `test`.

    Returns
    -------
    float64 array, shape (n,)
        NaN for users without test items.

    Raises
    ------
    TypeError
        `test` or `seen` is not a sparse matrix.
    ValueError
        A score is NaN, an item is in both `test` and `seen`, or shapes do not fit each other.
    """
    held_out, n_above = _items_above(scores, test, seen)
    return area_under_curve(n_above, held_out.test, held_out.train)


def mpr(scores: Any, test: Any, seen: Any = None) -> Doubles:
    """Percentile rank of the test items: ``sum_i g_i rank_i / sum_i g_i``. The best item has rank 0, the worst rank 1.

    Lower is better; random scores give 0.5. Items with equal scores share the mean of their ranks. If there is only one
    item, its rank is 0. Hu, Koren and Volinsky (2008) take the weighted mean over the entries of all users, in per
    cent: 100 times ``np.average(mpr(scores, test), weights=test.sum(axis=1))``. `alscore.evaluate` reports the same
    weighted mean, not in per cent.

    Parameters
    ----------
    scores, test, seen
        Same as for `auc`.

    Returns
    -------
    float64 array, shape (n,)
        NaN for users without test items.

    Raises
    ------
    TypeError, ValueError
        Same errors as `auc`.
    """
    held_out, n_above = _items_above(scores, test, seen)
    return percentile_rank(n_above, held_out.test, held_out.train)


def area_under_curve(n_above: Doubles, test: sparse.csr_array, seen: sparse.csr_array) -> Doubles:
    """Return the AUC of each user. `n_above` is the number of items above each test item."""
    R = np.diff(test.indptr)
    n_others = test.shape[1] - np.diff(seen.indptr) - R
    n_others_above = np.bincount(entry_rows(test), n_above, minlength=len(R)) - R * (R - 1) / 2  # no test items
    return np.where(R == 0, np.nan, 1 - n_others_above / np.maximum(R * n_others, 1))


def percentile_rank(n_above: Doubles, test: sparse.csr_array, seen: sparse.csr_array) -> Doubles:
    """Return the MPR of each user. `n_above` is the number of items above each test item."""
    rows = entry_rows(test)
    ranks = n_above / np.maximum(test.shape[1] - np.diff(seen.indptr) - 1, 1)[rows]
    weighted, weights = (np.bincount(rows, each, minlength=test.shape[0]) for each in (test.data * ranks, test.data))
    means = np.full(len(weights), np.nan)
    np.divide(weighted, weights, out=means, where=weights > 0)
    return means


def coverage(ranked: Any, n_items: int, k: int) -> float:
    """Share of all items that are among the first k of at least one user: catalogue coverage (Ge et al. 2010).

    Parameters
    ----------
    ranked : int array, shape (n, m)
        Same as for `precision`.
    n_items : int
        Number of all items.
    k : int
        Same as for `precision`.

    Returns
    -------
    float
        From 0 to 1.
    """
    return covered(_counts(ranked, n_items, k))


def gini(ranked: Any, n_items: int, k: int) -> float:
    """Gini index of the number of times that each item is among the first k.

    0 means that all items are recommended equally often; near 1 means that a few items fill all rankings.
    ``sum_j (2j - n - 1) c_j / (n sum_j c_j)`` with the counts c of all n items, zeros included, in ascending order.
    Some authors leave out the zeros, or report 1 - gini.

    Parameters
    ----------
    ranked, n_items, k
        Same as for `coverage`.

    Returns
    -------
    float
        NaN if no item is ranked.
    """
    return concentration(_counts(ranked, n_items, k))


def covered(counts: Ints) -> float:
    """Return the coverage. `counts` says how often each item is recommended."""
    return float(np.count_nonzero(counts) / len(counts))


def concentration(counts: Ints) -> float:
    """Return the Gini index. `counts` says how often each item is recommended."""
    n, total = len(counts), counts.sum()
    return float(np.sort(counts) @ np.arange(1 - n, n, 2.0) / (n * total)) if total else np.nan


def novelty(ranked: Any, train: Any, k: int) -> Doubles:
    """Mean self-information ``log2(n_users / n_i)`` of the first k items (Zhou et al. 2010).

    n_i is the number of users who have item i, and at least 1. Other definitions use the share of entries instead of
    the share of users.

    Parameters
    ----------
    ranked : int array, shape (n, m)
        Same as for `precision`.
    train : sparse matrix, shape (n_users, n_items), or Interactions
        Rows of all users. A user has the items of the entries above 0.
    k : int
        Same as for `precision`.

    Returns
    -------
    float64 array, shape (n,)
        In bits; 0 for an empty ranking.
    """
    ids, train = _ids_and_train(ranked, train, k)
    return mean_of_ranked(ids, self_information(train), k)


def diversity(ranked: Any, train: Any, k: int) -> Doubles:
    """Mean of 1 - cosine over all pairs of the first k items: intra-list diversity (Smyth and McClave 2001).

    The cosine compares the sets of users who have the items: ``n_ij / sqrt(n_i n_j)``, or 0 if one of the two
    items has no users. So models of all kinds are measured alike. Other definitions use features or factors of the
    items. This metric takes longer than the others: time is proportional to the train entries of all ranked items.

    Parameters
    ----------
    ranked, train, k
        Same as for `novelty`.

    Returns
    -------
    float64 array, shape (n,)
        From 0 to 1; 0 for a ranking of fewer than two items.
    """
    ids, train = _ids_and_train(ranked, train, k)
    return dissimilarity(ids, similarities(ids, transposed(train), 1), k)


def self_information(train: sparse.csr_array) -> Doubles:
    """Return log2(n_users / n_i) of every item."""
    n_users, n_items = train.shape
    information: Doubles = np.log2(n_users / np.maximum(np.bincount(train.indices, minlength=n_items), 1))
    return information


def mean_of_ranked(ids: Ints, of_item: Doubles, k: int) -> Doubles:
    """Return the mean of `of_item` over the first k items, 0 if there are none."""
    ids = ids[:, :k]
    means: Doubles = (of_item[ids] * (ids >= 0)).sum(axis=1) / np.maximum((ids >= 0).sum(axis=1), 1)
    return means


def transposed(matrix: sparse.csr_array) -> sparse.csr_array:
    """Return the transpose, canonical."""
    return canonical_csr(matrix.T, matrix.dtype)


def similarities(ids: Int32s, item_users: sparse.csr_array, num_threads: int) -> Doubles:
    """Return, for each ranked item, the sum of its cosines to the items before it."""
    return ranking.similarities(ids, item_users.indptr, item_users.indices, item_users.shape[1], num_threads)


def dissimilarity(ids: Ints, similarities: Doubles, k: int) -> Doubles:
    """Return the diversity, from the sum of each item's cosines to the items before it."""
    n = (ids[:, :k] >= 0).sum(axis=1)
    pairs = n * (n - 1) / 2
    return np.where(pairs > 0, 1 - similarities[:, :k].sum(axis=1) / np.maximum(pairs, 1), 0)


def ranking_metrics_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> dict[str, float]:
    """The same figures as ``implicit.evaluation.ranking_metrics_at_k``, several times as fast.

    All entries of a test row other than 0 are test items, also entries below 0, and also items of the train row, which
    cannot be ranked. Users without test items do not count. Ties: lower id first; in `implicit` the order of ties is
    arbitrary. `alscore.evaluate` has more metrics.

    Parameters
    ----------
    model : object
        Same as for `alscore.evaluate`.
    train_user_items, test_user_items : sparse matrix, shape (n_users, n_items), or Interactions
    K : int
        Length of the rankings, at least 1.
    show_progress : bool
        Show a progress bar after two seconds.
    num_threads : int
        0 means all CPUs of this process.

    Returns
    -------
    dict
        User u has R_u test items. Sums and means are over these users: ::

            precision = sum_u sum_{j<=K} rel_uj  /  sum_u min(K, R_u)
            map = mean_u  sum_{j<=K} rel_uj (sum_{i<=j} rel_ui / j) / min(K, R_u)
            ndcg = mean_u of `ndcg`
            auc = mean_u  (a_u + (h_u + R_u) / 2 * (n_items - R_u - m_u)) / (R_u (n_items - R_u))

        The first K places have h_u hits and m_u misses, and a_u pairs of a hit above a miss. So this AUC gives no order
        to the items beyond place K, and the items of the train row are among them. It is 1 for a user whose test items
        are all items.

    Raises
    ------
    TypeError, ValueError, NotFittedError
        Same errors as `alscore.evaluate`, except for items that are in both parts.
    """
    require_integer(K, "K", 1)
    held_out = HeldOut(
        matrix_of(train_user_items, "train_user_items", np.float32),
        matrix_of(test_user_items, "test_user_items", np.float64),
    ).verified()
    users, test = held_out.users, held_out.test
    options = RankingOptions(num_threads=num_threads, show_progress=show_progress)
    hits, possible, average_precision, gained, area = 0, 0, 0.0, 0.0, 0.0
    for batch in ranked_batches(model, held_out, K, options):
        ranked = RankedHits(batch.ids, take_rows(test, users[batch.at]), resolve_threads(num_threads, batch.ids.size))
        R, h = ranked.n_test_items, ranked.cumulative_hits[:, -1]
        most, n_others = np.minimum(R, K), test.shape[1] - R
        above = (ranked.cumulative_hits * ~ranked.hits).sum(axis=1)
        hits, possible = hits + h.sum(), possible + most.sum()
        average_precision += (AT_K["map"](ranked, K) * R / most).sum()
        gained += AT_K["ndcg"](ranked, K).sum()
        pairs = above + (h + R) / 2 * (n_others - (ranked.ids.shape[1] - h))
        area += np.where(n_others == 0, 1, pairs / np.maximum(R * n_others, 1)).sum()
    sums = {"precision": hits / possible * len(users), "map": average_precision, "ndcg": gained, "auc": area}
    return {name: float(value / len(users)) for name, value in sums.items()}


class _MetricAtK(Protocol):
    def __call__(
        self,
        model: Any,
        train_user_items: Any,
        test_user_items: Any,
        K: int = 10,
        show_progress: bool = True,
        num_threads: int = 1,
    ) -> float: ...


def _metric_at_k(function: str, key: str, title: str) -> _MetricAtK:
    """Return a function with the name `function`, for one value of `ranking_metrics_at_k`."""

    def metric(
        model: Any,
        train_user_items: Any,
        test_user_items: Any,
        K: int = 10,
        show_progress: bool = True,
        num_threads: int = 1,
    ) -> float:
        return ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress, num_threads)[key]

    metric.__name__ = metric.__qualname__ = function
    metric.__doc__ = f"""The {title} of `ranking_metrics_at_k`.

Parameters
----------
model, train_user_items, test_user_items, K, show_progress, num_threads
    Same as for `ranking_metrics_at_k`.

Returns
-------
float

Raises
------
TypeError, ValueError, NotFittedError
    Same errors as `ranking_metrics_at_k`.
"""
    return metric


precision_at_k = _metric_at_k("precision_at_k", "precision", "precision")
mean_average_precision_at_k = _metric_at_k("mean_average_precision_at_k", "map", "mean average precision")
ndcg_at_k = _metric_at_k("ndcg_at_k", "ndcg", "NDCG")
AUC_at_k = _metric_at_k("AUC_at_k", "auc", "truncated AUC")


def counts(ids: Ints, n_items: int, k: int) -> Ints:
    """Return how often each item is among the first k: int64 array (n_items,)."""
    return np.bincount(ids[:, :k].ravel() + 1, minlength=n_items + 1)[1:]


def _counts(ranked: Any, n_items: int, k: int) -> Ints:
    require_integer(k, "k", 1)
    return counts(ranked_ids(ranked, None, n_items), n_items, k)


def _ids_and_train(ranked: Any, train: Any, k: int) -> tuple[Int32s, sparse.csr_array]:
    require_integer(k, "k", 1)
    train = positive_entries(train, "train")
    return ranked_ids(ranked, None, train.shape[1]), train


def _discounts(k: int) -> Doubles:
    return 1 / np.log2(np.arange(2, k + 2))


def _items_above(scores: Any, test: Any, seen: Any) -> tuple[HeldOut, Doubles]:
    """Return both matrices (train is `seen`), verified, and the number of items above each test item."""
    test = positive_entries(test)
    scores = checked_scores(scores, test.shape)
    seen = sparse.csr_array(test.shape) if seen is None else getattr(seen, "matrix", seen)
    seen = canonical_csr(seen, np.float64, "seen")
    if seen.shape != test.shape:
        raise ValueError(f"seen has shape {seen.shape}, but test {test.shape}: both must have a row for each user")
    held_out = HeldOut(seen, test)
    held_out.refuse_overlap("leave it out of one of them")
    return held_out, ranking.places(scores, seen.indptr, seen.indices, test.indptr, test.indices, 1)
