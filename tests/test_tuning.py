"""The scorer against plain Python on oracle fold-ins, against scikit-learn's metric, and inside its searches."""

import math
import pickle

import numpy as np
import pytest
import sklearn.exceptions
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.metrics import ndcg_score
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.utils.validation import check_is_fitted

from alscore import AlternatingLeastSquares, Interactions, NotFittedError, testing
from alscore.tuning import ranking_scorer

MODEL = AlternatingLeastSquares(factors=8, iterations=3, num_threads=1, dtype=np.float64, random_state=0)


class Recorder:
    """A fitted model that keeps the rows which it is asked to fold in."""

    def __init__(self, model):
        self.model = model

    def recommend(self, userid, user_items, **options):
        self.rest = user_items.toarray()
        return self.model.recommend(userid, user_items, **options)


@pytest.fixture(scope="module")
def ratings(plays):
    """`plays` of which a fifth are dislikes, with users of every small number of entries."""
    dense = plays.toarray()
    rng = np.random.default_rng(1)
    dense *= np.where(rng.random(dense.shape) < 0.2, -1, 1)
    for user in range(10, 20):
        dense[user, np.flatnonzero(dense[user])[user - 10 :]] = 0
    return dense


@pytest.fixture(scope="module")
def recorder(ratings):
    return Recorder(clone(MODEL).fit(sparse.csr_array(ratings[100:]), show_progress=False))


def user_scores(metric, ranked, hidden, k):
    """The definitions as they are written, for one user."""
    gains = [1 / math.log2(place + 1) for place in range(1, k + 1)]
    hits = [item in hidden for item in ranked]
    if metric == "recall":
        return sum(hits) / len(hidden)
    if metric == "precision":
        return sum(hits) / k
    return sum(gain for gain, hit in zip(gains, hits, strict=True) if hit) / sum(gains[: len(hidden)])


@pytest.mark.parametrize("k", [1, 10, 150])  # 150: more than items
@pytest.mark.parametrize("metric", ["ndcg", "recall", "precision"])
def test_score_equals_plain_python_on_oracle_fold_ins(ratings, recorder, metric, k):
    test = ratings[:100]
    score = ranking_scorer(metric, k=k, held_out=0.3)(recorder, sparse.csr_array(test))
    rest, Y = recorder.rest, recorder.model.item_factors
    X = testing.half_sweep(rest, Y, regularization=MODEL.regularization)
    ranked, _ = testing.top_n(X @ Y.T, k, rest != 0)
    hidden = [set(np.flatnonzero(row)) for row in test - rest]
    expected = [
        user_scores(metric, items.tolist(), hits, k) for items, hits in zip(ranked, hidden, strict=True) if hits
    ]
    assert 50 < len(expected) < 100
    assert 0 < score == pytest.approx(np.mean(expected), rel=1e-9)


def test_ndcg_equals_scikit_learns(ratings, recorder):
    test = ratings[:100]
    score = ranking_scorer("ndcg", k=7)(recorder, sparse.csr_array(test))
    rest, Y = recorder.rest, recorder.model.item_factors
    predicted = np.where(rest != 0, -1e9, testing.half_sweep(rest, Y, regularization=MODEL.regularization) @ Y.T)
    hidden = test - rest > 0
    judged = hidden.any(axis=1)
    assert score == pytest.approx(ndcg_score(hidden[judged], predicted[judged], k=7), rel=1e-9)
    default = recorder.model.score(sparse.csr_array(test))  # hides the same
    assert default == pytest.approx(ndcg_score(hidden[judged], predicted[judged], k=10), rel=1e-9)


@pytest.mark.parametrize("held_out", [0.01, 0.2, 0.5, 1 - 2**-53])
def test_a_share_of_what_is_liked_is_hidden(ratings, recorder, held_out):
    ranking_scorer(held_out=held_out)(recorder, sparse.csr_array(ratings))
    hidden = ratings != recorder.rest
    assert (recorder.rest[hidden] == 0).all()
    assert (ratings[hidden] > 0).all()
    for n_hidden, n_liked in zip(hidden.sum(axis=1), (ratings > 0).sum(axis=1), strict=True):
        assert n_hidden == (0 if n_liked < 2 else min(max(1, math.floor(held_out * n_liked)), n_liked - 1))


def test_the_seed_decides_what_is_hidden(ratings, recorder):
    def hidden(seed):
        ranking_scorer(random_state=seed)(recorder, sparse.csr_array(ratings))
        return ratings != recorder.rest

    assert (hidden(0) == hidden(0)).all()
    assert (hidden(0) != hidden(1)).any()
    # every item of a user has the same chance: 6 of 30 in each of 300 draws
    row = np.pad(np.ones((1, 30)), ((0, 0), (0, ratings.shape[1] - 30)))
    draws = np.zeros(30)
    for seed in range(300):
        ranking_scorer(random_state=seed)(recorder, sparse.csr_array(row))
        draws += (row != recorder.rest)[0, :30]
    assert draws.sum() == 300 * 6
    assert stats.chisquare(draws).pvalue > 1e-4


@pytest.fixture(scope="module")
def tastes():
    """Each of 160 users has 8 of the 12 items of one of 8 kinds, and 2 others: 8 factors tell the kinds apart."""
    rng = np.random.default_rng(0)
    dense = np.zeros((160, 96))
    for user, row in enumerate(dense):
        row[rng.choice(96, 2, replace=False)] = 1
        row[12 * (user % 8) + rng.choice(12, 8, replace=False)] = 1
    return Interactions(sparse.csr_array(dense), [f"user {code}" for code in range(160)])


def search(X, scoring=None, **options):
    grid = {"factors": [1, 8], "regularization": [0.1, 1e5]}
    model = AlternatingLeastSquares(iterations=5, alpha=10, num_threads=1, random_state=0)
    found = GridSearchCV(model, grid, scoring=scoring, cv=3, error_score="raise", **options)
    return found.fit(X, show_progress=False)


@pytest.mark.parametrize("form", ["Interactions", "csr_array", "csr_matrix", "coo_array"])
def test_grid_search_finds_the_structure(tastes, form):
    found = search(tastes if form == "Interactions" else getattr(sparse, form)(tastes.matrix.toarray()))
    assert found.best_params_ == {"factors": 8, "regularization": 0.1}
    assert found.best_score_ > 0.5  # by chance: 2 hidden of 88 items
    assert found.cv_results_["mean_test_score"][0] < 0.4
    refit = clone(found.best_estimator_).fit(tastes, show_progress=False)
    np.testing.assert_array_equal(found.best_estimator_.item_factors, refit.item_factors)


def test_grid_search_without_scoring_is_by_the_default_scorer(tastes):
    found, wanted = search(tastes), search(tastes, scoring=ranking_scorer())
    np.testing.assert_array_equal(found.cv_results_["mean_test_score"], wanted.cv_results_["mean_test_score"])


def test_grid_search_in_processes_gives_the_same(tastes):
    alone, together = search(tastes, n_jobs=1), search(tastes, n_jobs=2)
    np.testing.assert_array_equal(alone.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(alone.best_estimator_.user_factors, together.best_estimator_.user_factors)


def test_randomized_search(tastes):
    space = {"factors": [4, 8], "alpha": stats.loguniform(1, 100)}
    found = RandomizedSearchCV(MODEL, space, n_iter=3, scoring=ranking_scorer("recall"), cv=2, random_state=0)
    found.fit(tastes, show_progress=False)
    assert found.best_score_ > 0.5
    assert MODEL.item_factors is None  # clones were fitted


def test_unfitted_model(tastes):
    with pytest.raises(NotFittedError, match="call fit first"):
        ranking_scorer()(clone(MODEL), tastes)
    with pytest.raises(NotFittedError, match="call fit first"):
        MODEL.score(tastes)


def test_scikit_learn_knows_what_is_fitted(tastes):
    model = clone(MODEL)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(model)
    check_is_fitted(model.fit(tastes, show_progress=False))
    check_is_fitted(pickle.loads(pickle.dumps(model)))
    model.user_factors = None
    with pytest.raises(sklearn.exceptions.NotFittedError):
        check_is_fitted(model)


@pytest.mark.parametrize("row", [[0, 0, 0], [0, 3, 0], [-1, 3, -1]])
def test_users_too_short_to_judge(row):
    plays = sparse.csr_array(np.array([row, row]))
    with pytest.raises(ValueError, match="no user with two positive entries"):
        ranking_scorer()(clone(MODEL).fit(plays, show_progress=False), plays)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": "auc"}, "metric must be one of 'ndcg', 'recall', 'precision', not 'auc'"),
        ({"k": 0}, "k must be an integer >= 1, not 0"),
        ({"k": 2.5}, "k must be an integer >= 1, not 2.5"),
        ({"held_out": 0}, "held_out must be above 0 and below 1, not 0"),
        ({"held_out": 1.0}, "held_out must be above 0 and below 1, not 1.0"),
        ({"held_out": math.nan}, "held_out must be above 0 and below 1, not nan"),
        ({"random_state": None}, "random_state must be an integer >= 0, not None"),
        ({"random_state": -1}, "random_state must be an integer >= 0, not -1"),
    ],
)
def test_parameters_are_checked_at_once(parameters, message):
    with pytest.raises(ValueError, match=message):
        ranking_scorer(**parameters)
