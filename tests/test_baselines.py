"""Baselines against dense numpy, and against the same methods in `implicit`."""

import numpy as np
import pytest
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from scipy import sparse

from alscore import Interactions, NotFittedError, baselines, weighting
from alscore.baselines import EASE, ItemKNN, MostPopular

BASELINES = [MostPopular(), ItemKNN(5), ItemKNN(5, "bm25"), EASE(30.0)]


@pytest.fixture
def others(plays):
    """Rows of users that no baseline was fitted to. Row 3 is empty."""
    rng = np.random.default_rng(1)
    counts = np.where(rng.random((7, plays.shape[1])) < 0.2, rng.integers(1, 20, (7, plays.shape[1])), 0)
    counts[3] = 0
    return sparse.csr_array(counts.astype(np.float32))


def neighbours(similarity, k):
    """Keep the k largest entries above 0 of each row, without the diagonal. Ties: lower id first."""
    kept = np.zeros_like(similarity)
    for item, row in enumerate(similarity):
        candidates = [j for j in range(len(row)) if j != item and row[j] > 0]
        best = sorted(candidates, key=lambda j: (-row[j], j))[:k]
        kept[item, best] = row[best]
    return kept


def cosine(X):
    norms = np.linalg.norm(X, axis=0)
    unit = X / np.where(norms > 0, norms, 1)
    return unit.T @ unit


def bm25(X, k1, b):
    length = X.sum(axis=0)
    idf = np.log(X.shape[1] / (1 + np.count_nonzero(X, axis=1)))
    W = X * (k1 + 1) / (X + k1 * (1 - b + b * length / length.mean())) * idf[:, None]
    return W.T @ W


def test_most_popular_counts_users_and_no_dislikes():
    plays = sparse.csr_array([[5, 0, -1], [1, 2, 0]])
    scores = MostPopular().fit(plays).scores(plays[[0, 0, 1]])
    np.testing.assert_array_equal(scores, [[2, 1, 0]] * 3)


@pytest.mark.parametrize("k", [1, 7, 119, 1000])
def test_cosine_neighbours(plays, others, k):
    X = plays.toarray().astype(np.float64)
    expected = others.toarray() @ neighbours(cosine(X), k)
    scores = ItemKNN(k).fit(plays, show_progress=False).scores(others)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (100, 0.2)])
def test_bm25_neighbours(plays, others, k1, b):
    expected = others.toarray() @ neighbours(bm25(plays.toarray().astype(np.float64), k1, b), 7)
    scores = ItemKNN(7, "bm25", k1, b).fit(plays, show_progress=False).scores(others)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_ties_keep_the_neighbour_with_the_lower_id():
    plays = sparse.csr_array(np.ones((2, 6)))
    weights = ItemKNN(2).fit(plays, show_progress=False).item_weights.toarray()
    assert [np.flatnonzero(row).tolist() for row in weights] == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


def test_neighbours_of_several_blocks_are_those_of_one(plays):
    whole = ItemKNN(9).fit(plays, show_progress=False).item_weights
    unit_columns = weighting.normalize(plays.astype(np.float64), "l2", axis="items")
    blocks = baselines._neighbours(unit_columns, 9, False, block_items=7)
    assert whole.nnz > 0
    np.testing.assert_array_equal(blocks.toarray(), whole.toarray())


@pytest.mark.filterwarnings("ignore:Method expects CSR input")  # `implicit` warns of a matrix that its own fit makes
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ItemKNN(10), CosineRecommender(K=11, num_threads=1)),
        (ItemKNN(119, "bm25"), BM25Recommender(K=120, num_threads=1)),
    ],
)
def test_similarities_are_those_of_implicit(plays, ours, theirs):
    # `implicit` computes 0 / 0 for an item without users
    some = sparse.csr_matrix(plays[:, np.diff(plays.tocsc().indptr) > 0])
    theirs.fit(some, show_progress=False)
    expected = theirs.similarity.toarray()
    np.fill_diagonal(expected, 0)
    weights = ours.fit(some, show_progress=False).item_weights.toarray()
    np.testing.assert_allclose(weights, expected, rtol=1e-5)  # `implicit` computes bm25 in float32


def test_ease_is_the_closed_form_of_its_paper(plays, others):
    X = plays.toarray().astype(np.float64)
    P = np.linalg.inv(X.T @ X + 30 * np.eye(X.shape[1]))
    B = P / -np.diag(P)
    np.fill_diagonal(B, 0)
    model = EASE(30).fit(plays, show_progress=False)
    np.testing.assert_allclose(model.item_weights, B, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.scores(others), others.toarray() @ B, rtol=1e-9, atol=1e-9)


def test_ease_is_the_least_squares_solution_of_each_item(plays):
    """Ridge regression of item j on the other items, without the closed form."""
    X, ridge = np.log1p(plays.toarray().astype(np.float64)), 3.0
    B = EASE(ridge).fit(weighting.log(plays.astype(np.float64)), show_progress=False).item_weights
    for j in (0, 5, 119):
        rest = np.delete(X, j, axis=1)
        expected = np.linalg.solve(rest.T @ rest + ridge * np.eye(rest.shape[1]), rest.T @ X[:, j])
        np.testing.assert_allclose(np.delete(B[:, j], j), expected, rtol=1e-9, atol=1e-12)


def test_ease_names_the_memory_it_needs():
    plays = sparse.csr_array((np.ones(1), ([0], [0])), shape=(1, 2_000_000))
    with pytest.raises(MemoryError, match=r"2,000,000\*\*2 numbers, which take 29,802.3 GiB.*ItemKNN"):
        EASE(1).fit(plays, show_progress=False)


@pytest.mark.parametrize("model", BASELINES, ids=repr)
def test_interactions_give_the_scores_of_their_matrix(plays, others, model):
    labelled = Interactions.from_arrays(*plays.nonzero(), plays.data)
    expected = model.fit(labelled.matrix, show_progress=False).scores(labelled.matrix[:9])
    scores = model.fit(labelled, show_progress=False).scores(labelled)
    np.testing.assert_array_equal(scores[:9], expected)
    assert scores.dtype == np.float64


@pytest.mark.parametrize("model", BASELINES, ids=repr)
def test_scores_of_no_rows_and_of_an_empty_row(plays, others, model):
    model.fit(plays, show_progress=False)
    assert model.scores(others[:0]).shape == (0, 120)
    if not isinstance(model, MostPopular):
        assert not model.scores(others)[3].any()


@pytest.mark.parametrize("model", BASELINES, ids=repr)
def test_rows_that_cannot_be_scored_are_refused(plays, others, model):
    unfitted = type(model)(**model.get_params())
    with pytest.raises(NotFittedError, match=f"{type(model).__name__} is not fitted: call fit"):
        unfitted.scores(others)
    model.fit(plays, show_progress=False)
    with pytest.raises(ValueError, match=r"user_items has 119 columns.*fitted to 120 items: pass rows"):
        model.scores(others[:, :119])
    with pytest.raises(TypeError, match="user_items must be a scipy sparse matrix"):
        model.fit(plays.toarray(), show_progress=False)
    wrong = others.copy()
    wrong.data[0] = np.nan
    with pytest.raises(ValueError, match="row 0"):
        model.scores(wrong)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ItemKNN(0), "k must be an integer of at least 1, not 0"),
        (ItemKNN(2.5), "k must be an integer"),
        (ItemKNN(5, "jaccard"), "similarity must be 'cosine' or 'bm25', not 'jaccard'"),
        (ItemKNN(5, "bm25", k1=-1), "k1 must be"),
        (EASE(0), "regularization must be finite and above 0, not 0"),
        (EASE(float("nan")), "regularization must be"),
    ],
)
def test_parameters_out_of_range(plays, model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(plays, show_progress=False)


def test_a_regularization_that_is_too_small_is_refused():
    equal = sparse.csr_array(np.full((3, 2), 1e6))
    with pytest.raises(ValueError, match=r"regularization=1e-09 is too small beside the values.*Choose a larger one"):
        EASE(1e-9).fit(equal, show_progress=False)


@pytest.mark.parametrize("model", BASELINES, ids=repr)
def test_a_matrix_without_items_is_refused(model):
    with pytest.raises(ValueError, match=r"user_items has no items \(shape "):
        model.fit(sparse.csr_array((3, 0)), show_progress=False)


@pytest.mark.parametrize("model", BASELINES[1:], ids=repr)
def test_progress_counts_items(plays, capsys, model):
    model.fit(plays)
    assert "120/120" in capsys.readouterr().err
    model.fit(plays, show_progress=False)
    assert not capsys.readouterr().err


def test_the_repr_shows_the_parameters():
    assert [repr(model) for model in BASELINES] == [
        "MostPopular()",
        "ItemKNN(k=5)",
        "ItemKNN(k=5, similarity='bm25')",
        "EASE(regularization=30.0)",
    ]
