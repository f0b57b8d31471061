"""Ranking: recommend and the similar ones, against stable sorting of dense scores."""

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions
from alscore.retrieval import top_n
from alscore.testing import half_sweep, row_errors, tolerance
from alscore.testing import top_n as oracle_top_n


@pytest.fixture(scope="module")
def model(plays):
    model = AlternatingLeastSquares(factors=8, iterations=3, num_threads=1, random_state=0)
    return model.fit(plays, show_progress=False)


def whole_numbers(shape, dtype, seed=0):
    """Factors whose products are exact in any precision, and often equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtype)


# top_n: 70 queries are several blocks, 2500 factors several tiles


@pytest.mark.parametrize("n", [1, 10, 100, 2500, 2600])
def test_top_n_breaks_ties_by_the_lower_id(n, dtype):
    queries, factors = whole_numbers((70, 3), dtype), whole_numbers((2500, 3), dtype, seed=1)
    ids, scores = top_n(queries, factors, n, num_threads=2)
    expected_ids, expected_scores = oracle_top_n(queries @ factors.T, n)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)
    assert ids.dtype == np.int32
    assert scores.dtype == dtype


@pytest.mark.parametrize("n", [7, 2500])
def test_top_n_leaves_out_what_it_must(n, dtype):
    rng = np.random.default_rng(0)
    queries, factors = whole_numbers((70, 3), dtype), whole_numbers((2500, 3), dtype, seed=1)
    excluded = rng.random((70, 2500)) < 0.05
    excluded[3] = True
    exclude = sparse.csr_array(excluded[:, ::-1])
    exclude.indices = 2499 - exclude.indices  # mirrored back, with columns that descend in each row
    allow, deny = rng.permutation(2500)[:900], rng.permutation(2500)[:500]
    ids, scores = top_n(queries, factors, n, exclude=exclude, allow=allow, deny=deny, num_threads=2)
    banned = ~np.isin(np.arange(2500), allow) | np.isin(np.arange(2500), deny)
    expected_ids, expected_scores = oracle_top_n(queries @ factors.T, n, excluded | banned)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)


def test_top_n_has_the_same_bits_for_any_number_of_threads(dtype, little_work_in_parallel):
    rng = np.random.default_rng(0)
    queries, factors = (rng.standard_normal((n, 9)).astype(dtype) for n in (300, 2500))
    one, two, five = (top_n(queries, factors, 10, num_threads=threads) for threads in (1, 2, 5))
    for other in (two, five):
        assert [array.tobytes() for array in other] == [array.tobytes() for array in one]


def test_top_n_refuses_exclusions_of_another_shape():
    with pytest.raises(ValueError, match="exclude has shape"):
        top_n(np.ones((1, 2)), np.ones((3, 2)), 1, exclude=sparse.csr_array((3, 1)))


@pytest.mark.parametrize("n", [0, -1, 2.5, True, None])
def test_top_n_refuses_a_wrong_number(n):
    with pytest.raises(ValueError, match="N must be an integer >= 1"):
        top_n(np.ones((1, 2)), np.ones((3, 2)), n)


# recommend


def expected(model, users, n, excluded=False):
    scores = model.user_factors[users].astype(np.float64) @ model.item_factors.T.astype(np.float64)
    return oracle_top_n(scores, n, excluded)


def assert_ranking(found, wanted):
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_allclose(found[1], wanted[1], atol=tolerance("score", np.float32))


@pytest.mark.parametrize("filter_liked", [True, False])
def test_recommend_many(model, plays, filter_liked):
    users = np.array([4, 250, 4, 0])
    found = model.recommend(users, plays[users], N=12, filter_already_liked_items=filter_liked)
    assert_ranking(found, expected(model, users, 12, (plays[users].toarray() != 0) & filter_liked))


def test_recommend_one(model, plays):
    ids, scores = model.recommend(4, plays[[4]], N=12)
    assert ids.shape == scores.shape == (12,)
    assert_ranking((ids[None], scores[None]), expected(model, [4], 12, plays[[4]].toarray() != 0))


def test_recommend_without_rows(model):
    assert_ranking(model.recommend([4, 9], None, N=5, filter_already_liked_items=False), expected(model, [4, 9], 5))


def test_recommend_from_interactions(model, plays):
    found = model.recommend(np.arange(300), Interactions(plays), N=5)
    assert_ranking(found, expected(model, np.arange(300), 5, plays.toarray() != 0))


def test_recommend_leaves_out_and_chooses_items(model, plays):
    items, filter_items = np.arange(0, 120, 3), [0, 6, 12, 13]
    found = model.recommend([4, 9], plays[[4, 9]], N=12, items=items, filter_items=filter_items)
    banned = ~np.isin(np.arange(120), items) | np.isin(np.arange(120), filter_items)
    assert_ranking(found, expected(model, [4, 9], 12, (plays[[4, 9]].toarray() != 0) | banned))


def test_missing_places_are_marked(model, plays):
    played = plays[[4]].toarray()[0] != 0
    ids, scores = model.recommend(4, plays[[4]], N=130)
    found = np.count_nonzero(~played)
    assert sorted(ids[:found]) == list(np.flatnonzero(~played))
    assert (ids[found:] == -1).all()
    assert (scores[found:] == -np.inf).all()


@pytest.mark.parametrize("allowed", [[], [5], np.array([], np.int64)])
def test_few_items_to_choose_from(model, allowed):
    ids, _ = model.recommend(4, None, N=3, filter_already_liked_items=False, items=allowed)
    assert list(ids) == [*allowed, -1, -1, -1][:3]


def test_no_users_to_recommend_to(model, plays):
    ids, scores = model.recommend([], plays[:0], N=3)
    assert ids.shape == scores.shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64])
def test_ids_of_any_integer_type(model, plays, dtype):
    found = model.recommend(np.array([4, 9], dtype), plays[[4, 9]])
    assert_ranking(found, model.recommend([4, 9], plays[[4, 9]]))


@pytest.mark.parametrize("user", [300, -1, 2**40])
def test_user_out_of_range(model, plays, user):
    with pytest.raises(IndexError, match=rf"userid {user} \(position 1\) is outside of \[0, 300\)"):
        model.recommend([0, user], plays[[0, 1]])


@pytest.mark.parametrize("argument", ["items", "filter_items"])
@pytest.mark.parametrize("item", [120, -1])
def test_item_out_of_range(model, plays, argument, item):
    with pytest.raises(IndexError, match=rf"items to (return|filter) {item} "):
        model.recommend(0, plays[[0]], **{argument: [item]})


@pytest.mark.parametrize("user", [1.0, "u1", [1.5], ["u1"], None, True])
def test_ids_that_are_no_integers(model, plays, user):
    with pytest.raises(TypeError, match=r"userid must be integer ids.*Recommender"):
        model.recommend(user, plays[[0]])


def test_ids_of_two_dimensions(model, plays):
    with pytest.raises(ValueError, match="one-dimensional array of ids"):
        model.recommend([[1, 2]], plays[[0]])


@pytest.mark.parametrize("rows", ["transposed", "all users", "one column less"])
def test_rows_of_the_wrong_shape(model, plays, rows):
    matrix = {"transposed": plays.T, "all users": plays, "one column less": plays[[4], :119]}[rows]
    with pytest.raises(ValueError, match=r"user_items has shape .* but must have \(1, 120\)"):
        model.recommend(4, matrix)


@pytest.mark.parametrize("arguments", [{}, {"filter_already_liked_items": False, "recalculate_user": True}])
def test_rows_that_are_missing(model, arguments):
    with pytest.raises(ValueError, match="user_items is needed"):
        model.recommend(4, None, **arguments)


# Fold-in


@pytest.mark.parametrize(
    "parameters",
    [{}, {"alpha": 10.0, "unobserved_weight": 0.5, "regularization_exponent": 0.5}, {"confidence": "log"}],
)
def test_recalculated_users_are_solved_exactly(plays, parameters, dtype, solver):
    model = AlternatingLeastSquares(8, iterations=2, dtype=dtype, solver=solver, num_threads=1, **parameters)
    model.fit(plays, show_progress=False)
    rng = np.random.default_rng(1)
    new = rng.integers(-1, 20, (6, 120)) * (rng.random((6, 120)) < 0.2)
    new[2] = 0
    X = half_sweep(new, model.item_factors, **{"regularization": model.regularization, **parameters})
    scores = X @ model.item_factors.T.astype(np.float64)
    # ids of users whom the model never saw are labels only
    found_ids, found_scores = model.recommend(
        np.arange(1000, 1006), sparse.csr_array(new), N=120, recalculate_user=True, filter_already_liked_items=False
    )
    found = np.take_along_axis(found_scores, np.argsort(found_ids, axis=1), axis=1)
    assert row_errors(found, scores).max() <= tolerance("fold-in", dtype)
    ids, _ = model.recommend(np.arange(6), sparse.csr_array(new), N=3, recalculate_user=True)
    np.testing.assert_array_equal(ids, oracle_top_n(scores, 3, new != 0)[0])


def test_recalculated_users_on_factors_in_another_basis(plays):
    model = AlternatingLeastSquares(8, iterations=2, num_threads=1, random_state=0).fit(plays, show_progress=False)
    expected = model.recommend([0, 5], plays[[0, 5]], recalculate_user=True)[1]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))[0].astype(np.float32)
    model.item_factors = model.item_factors @ turn
    np.testing.assert_allclose(model.recommend([0, 5], plays[[0, 5]], recalculate_user=True)[1], expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 2000.0])
def test_recalculated_users_on_weak_correlated_factors(plays, scale, dtype):
    rng = np.random.default_rng(2)
    model = AlternatingLeastSquares(3, iterations=1, num_threads=1, dtype=dtype).fit(plays, show_progress=False)
    axes = np.linalg.qr(rng.standard_normal((plays.shape[1], 3)))[0] * [scale, 3, 3]
    axes[:, 2] += 2 * axes[:, 1]
    model.item_factors = axes.astype(dtype)
    x = half_sweep(plays[[0, 7]].toarray(), model.item_factors, regularization=0.01)
    options = {"N": plays.shape[1], "recalculate_user": True, "filter_already_liked_items": False}
    ids, scores = model.recommend([0, 7], plays[[0, 7]], **options)
    oracle = np.take_along_axis(x @ model.item_factors.T.astype(np.float64), ids.astype(int), axis=1)
    assert row_errors(scores, oracle).max() <= tolerance("fold-in", dtype)


def test_row_of_one_dimension_is_taken_for_one_user(plays):
    model = AlternatingLeastSquares(8, iterations=2, num_threads=1, random_state=0).fit(plays, show_progress=False)
    expected = model.recommend(4, sparse.csr_array(plays)[[4]])
    for row in (sparse.csr_matrix(plays)[4], sparse.coo_array(plays[[4]].toarray()[0])):
        np.testing.assert_array_equal(model.recommend(4, row), expected)


# Similar items and users


def cosines(factors):
    norms = np.linalg.norm(factors.astype(np.float64), axis=1, keepdims=True)
    unit = factors / np.where(norms > 0, norms, 1)
    return unit @ unit.T


@pytest.mark.parametrize("side", ["item", "user"])
def test_similar_equals_cosine(model, side):
    factors = getattr(model, f"{side}_factors")
    ids = np.array([3, 11, 3])
    found_ids, found_scores = getattr(model, f"similar_{side}s")(ids, N=8)
    wanted_ids, wanted_scores = oracle_top_n(cosines(factors)[ids], 8)
    np.testing.assert_array_equal(found_ids, wanted_ids)
    np.testing.assert_allclose(found_scores, wanted_scores, atol=tolerance("score", np.float32))
    assert list(found_ids[:, 0]) == [3, 11, 3]


@pytest.mark.parametrize("side", ["item", "user"])
def test_similar_to_one_among_chosen(model, side):
    choice = {f"{side}s": [1, 2, 3, 9], f"filter_{side}s": [2]}
    ids, scores = getattr(model, f"similar_{side}s")(3, N=4, **choice)
    among = cosines(getattr(model, f"{side}_factors"))[3, [1, 3, 9]]
    assert list(ids) == [*np.array([1, 3, 9])[np.argsort(-among)], -1]
    assert scores[-1] == -np.inf


def test_zero_factors_are_similar_to_nothing(model):
    # nobody played item 5, and users 0 and 7 played nothing
    assert not model.item_factors[5].any()
    _, scores = model.similar_items(5, N=120)
    assert not scores.any()
    _, scores = model.similar_users([0, 7], N=300)
    assert not scores.any()


@pytest.mark.parametrize(("side", "size"), [("item", 120), ("user", 300)])
def test_similar_to_an_unknown_id(model, side, size):
    with pytest.raises(IndexError, match=rf"{side}id {size} "):
        getattr(model, f"similar_{side}s")(size)
