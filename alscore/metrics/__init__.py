"""How good rankings are: each metric's formula, its source, and where the literature means something else by its name.

In the formulas a user has R > 0 test items T, the entries of the test row above 0, and g_i is the value of item i
there. rel_j is 1 where the j-th ranked item is in T, else 0; items that a user has already are not ranked. A figure for
many users is the mean of theirs, but for `coverage` and `gini`, which are about all rankings together.

`alscore.evaluate` computes them from a model, several at a time. Those at a cut-off k equal trec_eval's where its
measure is named. The functions ``..._at_k`` are for who moves here from `implicit`: its names, arguments and values.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from alscore._core import ranking
from alscore._data.canonical import canonical_csr, entry_rows
from alscore._support.arrays import Doubles, Int32s, Ints
from alscore._support.checks import require_integer
from alscore._support.threads import resolve_threads
from alscore.metrics.rankings import (
    Judged,
    checked_scores,
    judgeable,
    overlap,
    ranked_batches,
    ranked_ids,
    refuse_overlap,
    relevant,
    rows,
)

Definition = Callable[[Judged, int], Doubles]
AT_K: dict[str, Definition] = {}

_SECTIONS = """
Parameters
----------
ranked : int array, shape (n, m)
    For each user distinct item codes, best first; -1 is a place without an item. Places beyond m count as such.
test : sparse matrix, shape (n, n_items), or Interactions
    For each user a row, whose entries above 0 are the test items.
k : int
    Places to look at, at least 1.

Returns
-------
float64 array, shape (n,)
    NaN for users without test items, who cannot be judged.

Raises
------
TypeError
    `ranked` does not hold integers, or `test` is no sparse matrix.
ValueError
    A code is out of range or twice in a row, shapes do not fit each other, or `k` is below 1.
"""


def _at_k(definition: Definition) -> Callable[[Any, Any, int], Doubles]:
    """Put a definition into AT_K; return the function of rankings and test rows."""
    AT_K[definition.__name__] = definition

    def metric(ranked: Any, test: Any, k: int) -> Doubles:
        require_integer(k, "k", 1)
        test = relevant(test)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = definition(Judged(ranked_ids(ranked, *test.shape), test), k)
        values[np.diff(test.indptr) == 0] = np.nan
        return values

    metric.__name__ = metric.__qualname__ = definition.__name__
    metric.__doc__ = f"{inspect.cleandoc(definition.__doc__ or '')}\n{_SECTIONS}"
    return metric


@_at_k
def precision(judged: Judged, k: int) -> Doubles:
    """Hits over places: ``sum_{j<=k} rel_j / k``; trec_eval's P_k, also where fewer than k items can be ranked.

    `implicit` calls another quotient precision: see `ranking_metrics_at_k`.

    >>> from scipy import sparse
    >>> from alscore import metrics
    >>> metrics.precision([[3, 1, 0, 2]], sparse.csr_array([[1, 0, 0, 1]]), k=2)  # of 3 and 1 one is relevant
    array([0.5])
    """
    return judged.n_hits(k) / k


@_at_k
def normalized_precision(judged: Judged, k: int) -> Doubles:
    """Hits over the most hits that are possible: ``sum_{j<=k} rel_j / min(k, R)``.

    Liang et al. (2018) and who follows them call this recall.
    """
    return judged.n_hits(k) / np.minimum(judged.n_relevant, k)


@_at_k
def recall(judged: Judged, k: int) -> Doubles:
    """Hits over test items: ``sum_{j<=k} rel_j / R``; trec_eval's recall_k.

    Liang et al. (2018) call `normalized_precision` so.
    """
    return judged.n_hits(k) / judged.n_relevant


@_at_k
def hit_rate(judged: Judged, k: int) -> Doubles:
    """1 where any of the first k is a test item, else 0; trec_eval's success_k.

    With one test item a user it is the same as recall.
    """
    return (judged.n_hits(k) > 0).astype(np.float64)


@_at_k
def map(judged: Judged, k: int) -> Doubles:
    """Average precision: ``sum_{j<=k} rel_j (sum_{i<=j} rel_i / j) / R``; trec_eval's map_cut_k.

    Others, `implicit` among them, divide by min(k, R).
    """
    precisions = judged.cumulated[:, :k] / np.arange(1, judged.ids.shape[1] + 1)[:k]
    average: Doubles = (precisions * judged.hits[:, :k]).sum(axis=1) / judged.n_relevant
    return average


@_at_k
def mrr(judged: Judged, k: int) -> Doubles:
    """Reciprocal of the place of the first test item, 0 if it is not among the first k; trec_eval's recip_rank.

    trec_eval looks at the whole ranking.
    """
    hits = judged.hits[:, :k]
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0)


@_at_k
def ndcg(judged: Judged, k: int) -> Doubles:
    """``sum_{j<=k} rel_j / log2(j + 1)  /  sum_{j<=min(k,R)} 1 / log2(j + 1)`` (Järvelin and Kekäläinen 2002).

    trec_eval's ndcg_cut_k of test values that are all 1. They first discounted from the second place on, by log2(j);
    and some divide by the sum over all k places even where R is less.
    """
    ideal: Doubles = np.append(0, np.cumsum(_discounts(k)))[np.minimum(judged.n_relevant, k)]
    gained: Doubles = (judged.hits[:, :k] * _discounts(k)[: judged.ids.shape[1]]).sum(axis=1)
    return gained / ideal


@_at_k
def ndcg_graded(judged: Judged, k: int) -> Doubles:
    """``sum_{j<=k} gain_j / log2(j + 1)``, gain_j = g of the j-th item or 0, over the same of the best order of T.

    trec_eval's ndcg_cut_k, and scikit-learn's ndcg_score where no scores are equal. Burges et al. (2005) take 2^g - 1
    for g, which is no use where values are counts: transform them before.
    """
    gained: Doubles = (judged.gains[:, :k] * _discounts(k)[: judged.ids.shape[1]]).sum(axis=1)
    values, rows, places = judged.ideal
    counted = places < k
    best = values[counted] * _discounts(k)[places[counted]]
    return gained / np.bincount(rows[counted], best, minlength=len(gained))


def auc(scores: Any, test: Any, seen: Any = None) -> Doubles:
    """Share of the pairs of a test item and another, neither of them seen, in which the test item scores higher.

    Equal scores count half (Mann and Whitney 1947; scikit-learn's roc_auc_score). Where no other item is left it is 1.
    The AUC of `implicit` is another: see `AUC_at_k`. Rendle et al. (2009, BPR) count equal scores as wrong.

    Parameters
    ----------
    scores : float array, shape (n, n_items)
    test : sparse matrix, shape (n, n_items), or Interactions
        For each user a row, whose entries above 0 are the test items.
    seen : sparse matrix, shape (n, n_items), or Interactions, optional
        Items of a row are not ranked; none of them is in `test`.

    Returns
    -------
    float64 array, shape (n,)
        NaN for users without test items, who cannot be judged.

    Raises
    ------
    TypeError
        `test` or `seen` is no sparse matrix.
    ValueError
        A score is NaN, an item is both in `test` and `seen`, or shapes do not fit each other.
    """
    test, seen, places = _placed(scores, test, seen)
    return area_under_curve(places, test, seen)


def mpr(scores: Any, test: Any, seen: Any = None) -> Doubles:
    """Percentile rank of the test items, 0 for the first of all and 1 for the last: ``sum_i g_i rank_i / sum_i g_i``.

    Lower is better, and 0.5 what chance gives. Equal scores share the mean of their ranks; the only item has rank 0.
    This is for each user. Hu, Koren and Volinsky (2008) weigh the entries of all users together, in per cent: 100 times
    ``np.average(mpr(scores, test), weights=test.sum(axis=1))``, as the mean that `alscore.evaluate` reports.

    Parameters
    ----------
    scores, test, seen
        As for `auc`, and so are the errors raised.

    Returns
    -------
    float64 array, shape (n,)
        NaN for users without test items, who cannot be judged.
    """
    test, seen, places = _placed(scores, test, seen)
    return percentile_rank(places, test, seen)


def area_under_curve(places: Doubles, test: sparse.csr_array, seen: sparse.csr_array) -> Doubles:
    """AUC from how many items stand above each test item."""
    R = np.diff(test.indptr)
    others = test.shape[1] - np.diff(seen.indptr) - R
    above = np.bincount(entry_rows(test), places, minlength=len(R)) - R * (R - 1) / 2  # without other test items
    return np.where(R == 0, np.nan, 1 - above / np.maximum(R * others, 1))


def percentile_rank(places: Doubles, test: sparse.csr_array, seen: sparse.csr_array) -> Doubles:
    """MPR from how many items stand above each test item."""
    rows = entry_rows(test)
    ranks = places / np.maximum(test.shape[1] - np.diff(seen.indptr) - 1, 1)[rows]
    weighted, weights = (np.bincount(rows, each, minlength=test.shape[0]) for each in (test.data * ranks, test.data))
    means = np.full(len(weights), np.nan)
    np.divide(weighted, weights, out=means, where=weights > 0)
    return means


def coverage(ranked: Any, n_items: int, k: int) -> float:
    """Share of all items that at least one user gets among the first k: catalogue coverage (Ge et al. 2010).

    Parameters
    ----------
    ranked : int array, shape (n, m)
        As for `precision`.
    n_items : int
    k : int

    Returns
    -------
    float
        From 0 to 1.
    """
    return covered(_counts(ranked, n_items, k))


def gini(ranked: Any, n_items: int, k: int) -> float:
    """Gini index of how often the items are among the first k: 0 if all are equally often, near 1 if always the same.

    ``sum_j (2j - n - 1) c_j / (n sum_j c_j)`` with the counts c of all n items in ascending order, those of 0 too. Some
    leave these out, or report 1 - gini.

    Parameters
    ----------
    ranked, n_items, k
        As for `coverage`.

    Returns
    -------
    float
        NaN if nothing is ranked.
    """
    return concentration(_counts(ranked, n_items, k))


def covered(counts: Ints) -> float:
    """Coverage from how often each item is recommended."""
    return float(np.count_nonzero(counts) / len(counts))


def concentration(counts: Ints) -> float:
    """Gini index of how often each item is recommended."""
    n, total = len(counts), counts.sum()
    return float(np.sort(counts) @ np.arange(1 - n, n, 2.0) / (n * total)) if total else np.nan


def novelty(ranked: Any, train: Any, k: int) -> Doubles:
    """Mean self-information ``log2(n_users / n_i)`` of the first k items, which n_i users have (Zhou et al. 2010).

    An item that nobody has counts as if one user had it. Others take the share of entries instead of users.

    Parameters
    ----------
    ranked : int array, shape (n, m)
        As for `precision`.
    train : sparse matrix, shape (n_users, n_items), or Interactions
        Of all users; who has an item has an entry above 0.
    k : int

    Returns
    -------
    float64 array, shape (n,)
        Bits; 0 for an empty ranking.
    """
    require_integer(k, "k", 1)
    train = relevant(train, "train")
    ids = ranked_ids(ranked, None, train.shape[1])
    return mean_of_ranked(ids, self_information(train), k)


def diversity(ranked: Any, train: Any, k: int) -> Doubles:
    """Mean of 1 - cosine over all pairs of the first k items: intra-list diversity (Smyth and McClave 2001).

    Two items are as similar as the sets of users who have them: cosine ``n_ij / sqrt(n_i n_j)``, 0 where one has none.
    This is so for every model alike; others take features of the items, or factors. It takes longer than other metrics:
    time is proportional to the entries of all ranked items.

    Parameters
    ----------
    ranked, train, k
        As for `novelty`.

    Returns
    -------
    float64 array, shape (n,)
        From 0 to 1; 0 for a ranking of less than two items.
    """
    require_integer(k, "k", 1)
    train = relevant(train, "train")
    ids = ranked_ids(ranked, None, train.shape[1])
    return unlikeness(ids, similarities(ids, transposed(train), 1), k)


def self_information(train: sparse.csr_array) -> Doubles:
    """log2(n_users / n_i) of every item."""
    n_users, n_items = train.shape
    information: Doubles = np.log2(n_users / np.maximum(np.bincount(train.indices, minlength=n_items), 1))
    return information


def mean_of_ranked(ids: Ints, of_item: Doubles, k: int) -> Doubles:
    """Mean of what the first k items have, 0 if there are none."""
    ids = ids[:, :k]
    means: Doubles = (of_item[ids] * (ids >= 0)).sum(axis=1) / np.maximum((ids >= 0).sum(axis=1), 1)
    return means


def transposed(matrix: sparse.csr_array) -> sparse.csr_array:
    """Its columns as rows, canonical."""
    return canonical_csr(matrix.T, matrix.dtype)


def similarities(ids: Int32s, item_users: sparse.csr_array, num_threads: int) -> Doubles:
    """Sum of the cosines of each ranked item to those before it."""
    return ranking.similarities(ids, item_users.indptr, item_users.indices, item_users.shape[1], num_threads)


def unlikeness(ids: Ints, similarities: Doubles, k: int) -> Doubles:
    """Intra-list diversity from the cosines to the items before."""
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
    """What ``implicit.evaluation.ranking_metrics_at_k`` computes, several times as fast; `alscore.evaluate` does more.

    Every entry of a test row but 0 is a test item, even below 0, and even if it is in the train row, so that it is not
    ranked. Users without test items do not count. Equal scores rank by the lower code, in `implicit` by chance.

    Parameters
    ----------
    model : object
        As for `alscore.evaluate`.
    train_user_items, test_user_items : sparse matrix, shape (n_users, n_items), or Interactions
    K : int
        Length of the rankings.
    show_progress : bool
    num_threads : int
        0 takes all CPUs of this process.

    Returns
    -------
    dict
        With sums over the users u, of R_u test items, and means over them: ::

            precision = sum_u sum_{j<=K} rel_uj  /  sum_u min(K, R_u)
            map = mean_u  sum_{j<=K} rel_uj (sum_{i<=j} rel_ui / j) / min(K, R_u)
            ndcg = mean_u of `ndcg`
            auc = mean_u  (a_u + (h_u + R_u) / 2 * (n_items - R_u - m_u)) / (R_u (n_items - R_u))

        The first K places have h_u hits and m_u misses, with a_u pairs of a hit above a miss. So in this AUC the items
        beyond K have no order, and those of the train row are among them. Of a user who has all items in test it is 1.

    Raises
    ------
    As `alscore.evaluate`, but for overlapping parts.
    """
    require_integer(K, "K", 1)
    train = canonical_csr(getattr(train_user_items, "matrix", train_user_items), np.float32, "train_user_items")
    test = canonical_csr(getattr(test_user_items, "matrix", test_user_items), np.float64, "test_user_items")
    users = judgeable(train, test)
    hits, possible, average_precision, gained, area = 0, 0, 0.0, 0.0, 0.0
    for batch in ranked_batches(model, train, users, K, num_threads=num_threads, show_progress=show_progress):
        judged = Judged(batch.ids, rows(test, users[batch.at]), resolve_threads(num_threads, batch.ids.size))
        R, h = judged.n_relevant, judged.cumulated[:, -1]
        most, others = np.minimum(R, K), test.shape[1] - R
        above = (judged.cumulated * ~judged.hits).sum(axis=1)
        hits, possible = hits + h.sum(), possible + most.sum()
        average_precision += (AT_K["map"](judged, K) * R / most).sum()
        gained += AT_K["ndcg"](judged, K).sum()
        pairs = above + (h + R) / 2 * (others - (judged.ids.shape[1] - h))
        area += np.where(others == 0, 1, pairs / np.maximum(R * others, 1)).sum()
    sums = {"precision": hits / possible * len(users), "map": average_precision, "ndcg": gained, "auc": area}
    return {name: float(value / len(users)) for name, value in sums.items()}


def precision_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """The precision of `ranking_metrics_at_k`.

    Parameters
    ----------
    model, train_user_items, test_user_items, K, show_progress, num_threads
        As for `ranking_metrics_at_k`.

    Returns
    -------
    float
    """
    metrics = ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress, num_threads)
    return metrics["precision"]


def mean_average_precision_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """The mean average precision of `ranking_metrics_at_k`.

    Parameters
    ----------
    model, train_user_items, test_user_items, K, show_progress, num_threads
        As for `ranking_metrics_at_k`.

    Returns
    -------
    float
    """
    metrics = ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress, num_threads)
    return metrics["map"]


def ndcg_at_k(
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """The NDCG of `ranking_metrics_at_k`.

    Parameters
    ----------
    model, train_user_items, test_user_items, K, show_progress, num_threads
        As for `ranking_metrics_at_k`.

    Returns
    -------
    float
    """
    metrics = ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress, num_threads)
    return metrics["ndcg"]


def AUC_at_k(  # noqa: N802
    model: Any,
    train_user_items: Any,
    test_user_items: Any,
    K: int = 10,
    show_progress: bool = True,
    num_threads: int = 1,
) -> float:
    """The truncated AUC of `ranking_metrics_at_k`.

    Parameters
    ----------
    model, train_user_items, test_user_items, K, show_progress, num_threads
        As for `ranking_metrics_at_k`.

    Returns
    -------
    float
    """
    metrics = ranking_metrics_at_k(model, train_user_items, test_user_items, K, show_progress, num_threads)
    return metrics["auc"]


def _counts(ranked: Any, n_items: int, k: int) -> Ints:
    require_integer(k, "k", 1)
    return counts(ranked_ids(ranked, None, n_items), n_items, k)


def counts(ids: Ints, n_items: int, k: int) -> Ints:
    """How often each item is among the first k, int64 (n_items,)."""
    return np.bincount(ids[:, :k].ravel() + 1, minlength=n_items + 1)[1:]


def _discounts(k: int) -> Doubles:
    return 1 / np.log2(np.arange(2, k + 2))


def _placed(scores: Any, test: Any, seen: Any) -> tuple[sparse.csr_array, sparse.csr_array, Doubles]:
    """Both matrices, canonical, and how many items stand above each test item."""
    test = relevant(test)
    scores = checked_scores(scores, test.shape)
    seen = sparse.csr_array(test.shape) if seen is None else getattr(seen, "matrix", seen)
    seen = canonical_csr(seen, np.float64, "seen")
    if seen.shape != test.shape:
        raise ValueError(f"seen has shape {seen.shape}, but test {test.shape}: both must have a row for each user")
    refuse_overlap(test, overlap(test, seen), "leave it out of one of them")
    return test, seen, ranking.places(scores, seen.indptr, seen.indices, test.indptr, test.indices, 1)
