"""Metrics against trec_eval, scikit-learn and `implicit`; metrics that these lack against counting."""

import inspect
import itertools
import pickle
import re

import implicit.evaluation
import ir_measures
import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares as ImplicitALS
from ir_measures import AP, RR, P, R, Success, nDCG
from scipy import sparse
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score
from threadpoolctl import threadpool_limits

from alscore import AlternatingLeastSquares, metrics, splits
from alscore.metrics.evaluation import METRICS

N_ITEMS = 20
K = (1, 3, 10, 20, 50)


@pytest.fixture(scope="module")
def test():
    """Test items of 40 users, with small whole values. User 0 has all items, user 1 none, user 2 one."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 6, (40, N_ITEMS)) * (rng.random((40, N_ITEMS)) < 0.3)
    values[0], values[1], values[2] = 1, 0, 0
    values[2, 7] = 4
    return sparse.csr_array(values.astype(float))


def rankings(length):
    """Rankings of the 40 users, of all items or some. Some rows have no items in the last places."""
    rng = np.random.default_rng(length)
    ranked = np.array([rng.permutation(N_ITEMS)[:length] for _ in range(40)])
    ranked[::5, length // 2 :] = -1
    return ranked


def adversarial(test):
    """Rankings with each user's test items first, in ascending order of value, and the same rankings backwards."""
    order = np.argsort(np.where(test.toarray() > 0, test.toarray(), 9), axis=1, kind="stable")
    return [order, order[:, ::-1]]


def by_trec_eval(measure, ranked, test):
    names = np.arange(N_ITEMS).astype(str)
    test_items = {
        str(user): {names[item]: int(row[item]) for item in np.flatnonzero(row)}
        for user, row in enumerate(test.toarray())
        if row.any()
    }
    # trec_eval leaves out users with an empty ranking
    run = {
        str(user): {names[item]: -float(place) for place, item in enumerate(row) if item >= 0} or {"none": 0.0}
        for user, row in enumerate(ranked)
    }
    values = np.full(len(ranked), np.nan)
    for each in ir_measures.iter_calc([measure], test_items, run):
        values[int(each.query_id)] = each.value
    return values


@pytest.mark.parametrize("k", K)
@pytest.mark.parametrize(
    ("metric", "measure", "binary"),
    [
        (metrics.precision, P, False),
        (metrics.recall, R, False),
        (metrics.hit_rate, Success, False),
        (metrics.map, AP, False),
        (metrics.mrr, RR, False),
        (metrics.ndcg, nDCG, True),
        (metrics.ndcg_graded, nDCG, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_equals_trec_eval(metric, measure, binary, k, test):
    for ranked in [rankings(20), rankings(7), *adversarial(test)]:
        found = metric(ranked, test, k)
        # RR has no cut-off in trec_eval
        its_measure, its_ranked = (RR, ranked[:, :k]) if measure is RR else (measure @ k, ranked)
        oracle = by_trec_eval(its_measure, its_ranked, (test > 0).astype(int) if binary else test)
        np.testing.assert_allclose(found, oracle, atol=1e-12)


@pytest.mark.parametrize("k", K)
def test_graded_ndcg_equals_scikit_learn(k, test):
    ranked = rankings(20)
    ranked[:] = np.where(ranked < 0, np.arange(N_ITEMS), ranked)
    ranked = np.array([[*dict.fromkeys([*row, *range(N_ITEMS)])] for row in ranked])
    scores = -np.argsort(ranked, axis=1).astype(float)
    values = test.toarray() * 1.7
    for user in np.flatnonzero(values.any(axis=1)):
        oracle = ndcg_score(values[[user]], scores[[user]], k=k)
        assert metrics.ndcg_graded(ranked, sparse.csr_array(values), k)[user] == pytest.approx(oracle)
        oracle = ndcg_score(values[[user]] > 0, scores[[user]], k=k)
        assert metrics.ndcg(ranked, test, k)[user] == pytest.approx(oracle)
        oracle = average_precision_score(values[user] > 0, scores[user])
        assert metrics.map(ranked, test, 20)[user] == pytest.approx(oracle)


def test_normalized_precision_divides_by_the_possible_hits(test):
    ranked = rankings(20)
    for k in K:
        for user, row in enumerate(test.toarray()):
            hits = sum(item >= 0 and row[item] > 0 for item in ranked[user, :k])
            possible = min(k, np.count_nonzero(row))
            oracle = hits / possible if possible else np.nan
            assert metrics.normalized_precision(ranked, test, k)[user] == pytest.approx(oracle, nan_ok=True)


def test_only_values_above_0_count(test):
    with_dislikes = test.toarray()
    with_dislikes[with_dislikes == 0] = -3
    for name in metrics.AT_K:
        metric = getattr(metrics, name)
        np.testing.assert_array_equal(metric(rankings(20), sparse.coo_array(with_dislikes), 5),
                                      metric(rankings(20), test, 5))  # fmt: skip


@pytest.fixture(scope="module", params=["different", "ties", "one value"])
def scored(request, test):
    """Scores, test and seen items. The user whose test items are all items has seen none."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=test.shape)
    if request.param != "different":
        scores = np.round(scores) if request.param == "ties" else np.zeros(test.shape)
    seen = sparse.csr_array((rng.random(test.shape) < 0.2) * (test.toarray() == 0) * 1.0)
    return scores, test, seen


def test_auc_equals_scikit_learn(scored):
    scores, test, seen = scored
    found = metrics.auc(scores, test, seen)
    for user, (row, known) in enumerate(zip(test.toarray() > 0, seen.toarray() > 0, strict=True)):
        if not row.any():
            assert np.isnan(found[user])
        elif (row | known).all():
            assert found[user] == 1
        else:
            assert found[user] == pytest.approx(roc_auc_score(row[~known], scores[user, ~known]))


def test_auc_and_mpr_without_seen_items(scored):
    scores, test, _ = scored
    nothing = sparse.csr_array(test.shape)
    for metric in (metrics.auc, metrics.mpr):
        np.testing.assert_array_equal(metric(scores, test), metric(scores, test, nothing))


def test_percentile_rank_by_counting(scored):
    scores, test, seen = scored
    found = metrics.mpr(scores, test, seen)
    for user, (row, known) in enumerate(zip(test.toarray(), seen.toarray() > 0, strict=True)):
        left = np.flatnonzero(~known)
        ranks = []
        for item in np.flatnonzero(row):
            above = sum(scores[user, other] > scores[user, item] for other in left)
            equal = sum(scores[user, other] == scores[user, item] for other in left) - 1
            ranks.append((above + equal / 2) / (len(left) - 1))
        oracle = np.average(ranks, weights=row[row > 0]) if ranks else np.nan
        assert found[user] == pytest.approx(oracle, nan_ok=True)


def test_the_only_item_has_rank_0():
    assert metrics.mpr(np.ones((1, 1)), sparse.csr_array([[2.0]])) == 0


@pytest.mark.parametrize("k", K)
def test_catalogue_by_counting(k):
    ranked = rankings(20)
    counts = [np.count_nonzero(ranked[:, :k] == item) for item in range(N_ITEMS)]
    assert metrics.coverage(ranked, N_ITEMS, k) == np.count_nonzero(counts) / N_ITEMS
    # the mean absolute difference of all pairs, divided by twice the mean
    differences = [abs(a - b) for a, b in itertools.product(counts, counts)]
    assert metrics.gini(ranked, N_ITEMS, k) == pytest.approx(np.mean(differences) / (2 * np.mean(counts)))


def test_gini_of_extreme_rankings():
    assert metrics.gini(np.arange(10).reshape(2, 5), 10, 5) == pytest.approx(0)
    assert metrics.gini(np.full((100, 1), 3), 10, 1) == pytest.approx(0.9)
    assert np.isnan(metrics.gini(np.full((2, 3), -1), 10, 3))


@pytest.mark.parametrize("k", K)
def test_novelty_and_diversity_by_counting(k):
    rng = np.random.default_rng(3)
    train = (rng.random((30, N_ITEMS)) < 0.3) * 2.0
    train[:, 4] = 0
    ranked = rankings(20)
    ranked[1, 1:] = ranked[2] = -1
    found_novelty = metrics.novelty(ranked, sparse.csr_array(train), k)
    found_diversity = metrics.diversity(ranked, sparse.csr_array(train), k)
    for row, novelty, diversity in zip(ranked, found_novelty, found_diversity, strict=True):
        items = [train[:, item] > 0 for item in row[:k] if item >= 0]
        information = [np.log2(30 / max(users.sum(), 1)) for users in items]
        unlike = [
            1 - (a & b).sum() / np.sqrt(max(a.sum(), 1) * max(b.sum(), 1)) for a, b in itertools.combinations(items, 2)
        ]
        assert novelty == pytest.approx(np.mean(information) if items else 0)
        assert diversity == pytest.approx(np.mean(unlike) if unlike else 0)


@pytest.mark.parametrize(
    ("ranked", "message"),
    [
        ([[1, 2], [3, 20]], r"the ranking of user 1 has id 20 outside of \[0, 20\)"),
        ([[1, -2], [3, 4]], r"the ranking of user 0 has id -2 outside of \[0, 20\)"),
        ([[1, 2], [4, 4]], "the ranking of user 1 has id 4 twice"),
        ([[1.0, 2.0]] * 2, "ranked must hold integer ids, a row for each of 2 users .* not float64"),
        ([1, 2], r"not int64 of shape \(2,\)"),
        ([[1, 2]], r"a row for each of 2 users"),
        (np.empty((2, 0), int), "at least one column"),
    ],
)
def test_wrong_rankings_are_refused(ranked, message, test):
    with pytest.raises(ValueError, match=message):
        metrics.ndcg(ranked, test[:2], 5)


@pytest.mark.parametrize("k", [0, -1, 2.5, True])
def test_wrong_cut_off_is_refused(k, test):
    for call in (
        lambda: metrics.recall(rankings(20), test, k),
        lambda: metrics.gini(rankings(20), N_ITEMS, k),
        lambda: metrics.novelty(rankings(20), test, k),
        lambda: metrics.diversity(rankings(20), test, k),
    ):
        with pytest.raises(ValueError, match="k must be an integer of at least 1"):
            call()


def test_wrong_scores_are_refused(test):
    scores = np.zeros(test.shape)
    scores[3, 2] = np.nan
    with pytest.raises(ValueError, match="user 3 has a score that is NaN"):
        metrics.auc(scores, test)
    with pytest.raises(ValueError, match=r"scores must be real numbers of shape \(40, 20\), not float64"):
        metrics.mpr(scores[:, 1:], test)
    with pytest.raises(ValueError, match=r"seen has shape \(39, 20\), but test \(40, 20\)"):
        metrics.auc(np.zeros(test.shape), test, test[1:])
    with pytest.raises(ValueError, match="item 0 of user 0 is in both parts"):
        metrics.auc(np.zeros(test.shape), test, test)


def test_every_metric_of_evaluate_is_a_function_here():
    assert all(getattr(metrics, name).__doc__ for name in METRICS)


@pytest.fixture(scope="module")
def fitted():
    """A model of `implicit`, train and test. In test, one user has a train item, one has none, one has a dislike."""
    rng = np.random.default_rng(5)
    plays = sparse.csr_array((rng.random((200, 80)) < 0.2) * rng.integers(1, 9, (200, 80)) * 1.0)
    train, test = splits.random_split(plays, 0.3)
    test = test.tolil()
    test[3, train[[3]].indices[0]], test[5] = 2, 0
    test[6, test[[6]].tocsr().indices[0]] = -1
    ours = AlternatingLeastSquares(6, iterations=3, random_state=0).fit(train, show_progress=False)
    with threadpool_limits(1, user_api="blas"):
        theirs = ImplicitALS(6)
    theirs.user_factors, theirs.item_factors = ours.user_factors.copy(), ours.item_factors.copy()
    return theirs, sparse.csr_matrix(train), sparse.csr_matrix(test)


def test_truncated_auc_of_more_places_than_items_is_auc(fitted):
    model, train, test = fitted
    test_items = (test.toarray() > 0) & (train.toarray() == 0)
    # train items come after all others, since they are not ranked
    scores = np.where(train.toarray() != 0, -1e9, model.user_factors @ model.item_factors.T)
    oracle = [roc_auc_score(*user) for user in zip(test_items, scores, strict=True) if user[0].any()]
    for k in (80, 81, 500):
        found = metrics.AUC_at_k(model, train, sparse.csr_array(test_items * 1.0), K=k, show_progress=False)
        assert found == pytest.approx(np.mean(oracle))


def test_truncated_auc_of_a_user_with_all_items_in_test_is_1():
    function = lambda users: np.tile(np.arange(3.0), (len(users), 1))  # noqa: E731
    assert metrics.AUC_at_k(function, sparse.csr_array((2, 3)), sparse.csr_array(np.ones((2, 3))), K=2) == 1


@pytest.mark.parametrize("k", [1, 5, 30])
def test_equals_implicit(fitted, k):
    oracle = implicit.evaluation.ranking_metrics_at_k(*fitted, K=k, show_progress=False)
    found = metrics.ranking_metrics_at_k(*fitted, K=k, show_progress=False)
    assert found == pytest.approx(oracle, abs=1e-12)
    for name, key in (
        ("precision_at_k", "precision"),
        ("mean_average_precision_at_k", "map"),
        ("ndcg_at_k", "ndcg"),
        ("AUC_at_k", "auc"),
    ):
        assert getattr(metrics, name)(*fitted, K=k, show_progress=False) == pytest.approx(oracle[key], abs=1e-12)


@pytest.mark.parametrize("name", ["precision_at_k", "mean_average_precision_at_k", "ndcg_at_k", "AUC_at_k"])
def test_functions_of_one_figure_look_like_implicits(name):
    function = getattr(metrics, name)
    assert list(inspect.signature(function).parameters) == list(
        inspect.signature(metrics.ranking_metrics_at_k).parameters
    )
    assert (function.__module__, function.__name__, function.__qualname__) == ("alscore.metrics", name, name)
    assert re.match(r"The [\w ]+ of `ranking_metrics_at_k`\.\n\nParameters\n-+\n", function.__doc__)
    assert pickle.loads(pickle.dumps(function)) is function
