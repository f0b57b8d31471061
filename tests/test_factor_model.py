"""Models of two factor matrices: results against a stable sort of dense scores, and the arrays that a model keeps."""

import copy
import pickle
import threading

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions, NotFittedError
from alscore.testing import exact_half_sweep, exact_top_n, tolerance


@pytest.fixture(scope="module")
def model(plays):
    model = AlternatingLeastSquares(factors=8, iterations=3, num_threads=1, random_state=0)
    return model.fit(plays, show_progress=False)


def with_factors(X, Y):
    model = AlternatingLeastSquares(num_threads=1)
    model.user_factors, model.item_factors = X, Y
    return model


def random_factors(n, k=4, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal((n, k)).astype(dtype)


# recommend


def expected(model, users, n, excluded=False):
    scores = model.user_factors[users].astype(np.float64) @ model.item_factors.T.astype(np.float64)
    return exact_top_n(scores, n, excluded)


def assert_ranking(result, expected):
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_allclose(result[1], expected[1], atol=tolerance("score", np.float32))


@pytest.mark.parametrize("filter_liked", [True, False])
def test_recommend_many(model, plays, filter_liked):
    users = np.array([4, 250, 4, 0])
    result = model.recommend(users, plays[users], N=12, filter_already_liked_items=filter_liked)
    assert_ranking(result, expected(model, users, 12, (plays[users].toarray() != 0) & filter_liked))


def test_recommend_one(model, plays):
    ids, scores = model.recommend(4, plays[[4]], N=12)
    assert ids.shape == scores.shape == (12,)
    assert_ranking((ids[None], scores[None]), expected(model, [4], 12, plays[[4]].toarray() != 0))


def test_recommend_without_rows(model):
    assert_ranking(model.recommend([4, 9], None, N=5, filter_already_liked_items=False), expected(model, [4, 9], 5))


def test_recommend_from_interactions(model, plays):
    result = model.recommend(np.arange(300), Interactions(plays), N=5)
    assert_ranking(result, expected(model, np.arange(300), 5, plays.toarray() != 0))


def test_recommend_leaves_out_and_chooses_items(model, plays):
    items, filter_items = np.arange(0, 120, 3), [0, 6, 12, 13]
    result = model.recommend([4, 9], plays[[4, 9]], N=12, items=items, filter_items=filter_items)
    banned = ~np.isin(np.arange(120), items) | np.isin(np.arange(120), filter_items)
    assert_ranking(result, expected(model, [4, 9], 12, (plays[[4, 9]].toarray() != 0) | banned))


def test_missing_places_are_marked(model, plays):
    played = plays[[4]].toarray()[0] != 0
    ids, scores = model.recommend(4, plays[[4]], N=130)
    left = np.count_nonzero(~played)
    assert 0 < left < 120
    assert sorted(ids[:left]) == list(np.flatnonzero(~played))
    assert (ids[left:] == -1).all()
    assert (scores[left:] == -np.inf).all()


@pytest.mark.parametrize("allowed", [[], [5], np.array([], np.int64)])
def test_few_items_to_choose_from(model, allowed):
    ids, _ = model.recommend(4, None, N=3, filter_already_liked_items=False, items=allowed)
    assert list(ids) == [*allowed, -1, -1, -1][:3]


def test_no_users_to_recommend_to(model, plays):
    ids, scores = model.recommend([], plays[:0], N=3)
    assert ids.shape == scores.shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64])
def test_ids_of_any_integer_type(model, plays, dtype):
    result = model.recommend(np.array([4, 9], dtype), plays[[4, 9]])
    assert_ranking(result, model.recommend([4, 9], plays[[4, 9]]))


@pytest.mark.parametrize("user", [300, -1, 2**40])
def test_user_out_of_range(model, plays, user):
    with pytest.raises(IndexError, match=rf"userid {user} \(position 1\) is outside of \[0, 300\)"):
        model.recommend([0, user], plays[[0, 1]])


@pytest.mark.parametrize("argument", ["items", "filter_items"])
@pytest.mark.parametrize("item", [120, -1])
def test_item_out_of_range(model, plays, argument, item):
    with pytest.raises(IndexError, match=rf"ids to (return|filter) {item} "):
        model.recommend(0, plays[[0]], **{argument: [item]})


@pytest.mark.parametrize("user", [1.0, "u1", [1.5], ["u1"], None, True])
def test_ids_that_are_not_integers_are_refused(model, plays, user):
    with pytest.raises(TypeError, match=r"userid must be integer ids.*Recommender"):
        model.recommend(user, plays[[0]])


def test_ids_of_two_dimensions_are_refused(model, plays):
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


@pytest.mark.parametrize("filter_liked", [True, False])
def test_recommend_to_recalculated_users(model, plays, filter_liked):
    """Their ids are not in the model: only their number counts."""
    rng = np.random.default_rng(1)
    new = rng.integers(-1, 20, (6, 120)) * (rng.random((6, 120)) < 0.2)
    new[2] = 0
    ids = np.arange(1000, 1006)
    result = model.recommend(ids, sparse.csr_array(new), 12, filter_liked, filter_items=[8], recalculate_user=True)
    scores = exact_half_sweep(new, model.item_factors, regularization=0.01) @ model.item_factors.T.astype(np.float64)
    assert_ranking(result, exact_top_n(scores, 12, ((new != 0) & filter_liked) | (np.arange(120) == 8)))


def test_row_of_one_dimension_is_the_row_of_one_user(model, plays):
    expected = model.recommend(4, plays[[4]])
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
    result = getattr(model, f"similar_{side}s")(ids, N=8)
    assert_ranking(result, exact_top_n(cosines(factors)[ids], 8))
    assert list(result[0][:, 0]) == [3, 11, 3]


@pytest.mark.parametrize("side", ["item", "user"])
def test_similar_to_one_among_chosen(model, side):
    choice = {f"{side}s": [1, 2, 3, 9], f"filter_{side}s": [2]}
    ids, scores = getattr(model, f"similar_{side}s")(3, N=4, **choice)
    among = cosines(getattr(model, f"{side}_factors"))[3, [1, 3, 9]]
    assert list(ids) == [*np.array([1, 3, 9])[np.argsort(-among)], -1]
    assert scores[-1] == -np.inf


def test_cosines_of_zero_factors_are_0(model):
    """Item 5 and the users 0 and 7 have no entries. All their cosines tie, so the lower id comes first."""
    assert not model.item_factors[5].any()
    ids, scores = model.similar_items(5, N=120)
    np.testing.assert_array_equal(ids, np.arange(120))
    np.testing.assert_array_equal(scores, np.zeros(120))
    assert not model.user_factors[[0, 7]].any()
    ids, scores = model.similar_users([0, 7], N=300)
    np.testing.assert_array_equal(ids, [np.arange(300)] * 2)
    np.testing.assert_array_equal(scores, np.zeros((2, 300)))
    ids, scores = model.similar_items(3, N=120)  # as a candidate, too
    assert scores[ids == 5] == 0


@pytest.mark.parametrize(("side", "size"), [("item", 120), ("user", 300)])
def test_similar_to_an_unknown_id(model, side, size):
    with pytest.raises(IndexError, match=rf"{side}id {size} "):
        getattr(model, f"similar_{side}s")(size)


def test_similar_to_recalculated_items(model, plays):
    rows = sparse.csr_array(np.random.default_rng(1).integers(0, 2, (2, 300)))
    ids_by_model, scores_by_model = model.similar_items(
        [1000, 1001], N=6, recalculate_item=True, item_users=rows, filter_items=[3]
    )
    queries = exact_half_sweep(rows.toarray(), model.user_factors, regularization=model.regularization)
    Y = model.item_factors.astype(np.float64)
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.where(Y.any(axis=1), np.linalg.norm(Y, axis=1), 1)
    ids, scores = exact_top_n(queries @ Y.T / norms, 6, np.arange(120) == 3)
    np.testing.assert_array_equal(ids_by_model, ids)
    np.testing.assert_allclose(scores_by_model, scores, atol=tolerance("half-sweep", np.float32))
    one, many = (model.similar_items(ids, 6, True, rows[[1]], filter_items=[3]) for ids in (7, [7]))
    np.testing.assert_array_equal(one[0], many[0][0])
    np.testing.assert_array_equal(one[1], many[1][0])


def test_recalculated_items_need_rows(model):
    with pytest.raises(ValueError, match="item_users is needed"):
        model.similar_items(3, recalculate_item=True)


@pytest.mark.parametrize("argument", ["users", "filter_users"])
def test_users_to_choose_from_out_of_range(model, argument):
    with pytest.raises(IndexError, match=r"ids to (return|filter) 300 \(position 1\) is outside of \[0, 300\)"):
        model.similar_users(0, **{argument: [299, 300]})


# Factors


def test_factors_and_the_memory_behind_them_are_read_only(model, plays):
    assigned = with_factors(random_factors(300, 8), random_factors(120, 8))
    updated = copy.copy(model).partial_fit_users([300], plays[[4]]).partial_fit_items([3], sparse.csr_array((1, 301)))
    for each in (model, assigned, updated):
        for factors in (each.user_factors, each.item_factors):
            with pytest.raises(ValueError, match="read-only"):
                factors[0, 0] = 1
            memory = factors
            while isinstance(memory, np.ndarray):
                assert not memory.flags.writeable
                memory = memory.base


def test_assigned_factors_are_copied_unless_they_are_read_only():
    X, Y = random_factors(6), random_factors(5, seed=1)
    Y.flags.writeable = False
    model = with_factors(X, Y)
    expected = X.copy()
    X[:] = 0
    np.testing.assert_array_equal(model.user_factors, expected)
    assert model.item_factors is Y
    # The copy begins with a cache line: each row lies in as few lines as possible.
    assert model.user_factors.ctypes.data % 64 == 0


def test_a_read_only_view_of_a_writable_array_is_copied():
    X, Y = random_factors(6), random_factors(5, seed=1)
    view, expected = Y[:], Y.copy()
    view.flags.writeable = False
    model = with_factors(X, view)
    Y[:] = 0
    np.testing.assert_array_equal(model.item_factors, expected)


@pytest.mark.parametrize("layout", ["Fortran", "every second row", "read-only and Fortran"])
def test_factors_of_any_layout(layout):
    X = {
        "Fortran": np.asfortranarray(random_factors(6)),
        "every second row": random_factors(12)[::2],
        "read-only and Fortran": np.asfortranarray(random_factors(6)),
    }[layout]
    X.flags.writeable = "read-only" not in layout
    Y = random_factors(5, seed=1)
    result = with_factors(X, Y).recommend(np.arange(6), None, 5, filter_already_liked_items=False)
    assert_ranking(result, exact_top_n(X @ Y.T, 5))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(3), np.zeros((2, 3, 4)), np.zeros((3, 0)), np.zeros((3, 4), np.int64), np.zeros((3, 4), ">f4"), "text"],
    ids=["vector", "cube", "no columns", "integers", "bytes swapped", "text"],
)
@pytest.mark.parametrize("name", ["user_factors", "item_factors"])
def test_an_array_that_cannot_be_factors_is_refused(name, wrong):
    model = with_factors(random_factors(6), random_factors(5))
    before = getattr(model, name)
    with pytest.raises(ValueError, match=f"{name} must be a float32 or float64 array"):
        setattr(model, name, wrong)
    assert getattr(model, name) is before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_factors_that_are_not_finite_name_the_row(value):
    X = random_factors(6)
    X[4, 1] = value
    with pytest.raises(ValueError, match="user_factors must be finite, but row 4 is not"):
        with_factors(X, random_factors(5))


@pytest.mark.parametrize("other", [random_factors(5, k=3), random_factors(5, dtype=np.float64)])
def test_factors_that_do_not_fit_each_other(other):
    model = with_factors(random_factors(6), other)
    with pytest.raises(ValueError, match=r"user_factors float32 \(6, 4\) and item_factors .* do not fit"):
        model.recommend(0, None, filter_already_liked_items=False)
    model.user_factors = random_factors(6, other.shape[1], other.dtype)
    ids, _ = model.recommend(0, None, 5, filter_already_liked_items=False)
    assert sorted(ids) == [0, 1, 2, 3, 4]


def results(model, rows):
    """Return results that use everything a model prepares and keeps: candidates of both sides, and the fold-in."""
    users, items = np.arange(len(model.user_factors)), np.arange(len(model.item_factors))
    return [
        *model.recommend(users, rows, N=9),
        *model.similar_items(items, N=9),
        *model.similar_users(users, N=9),
        model.recalculate_user(users, rows),
        model.recalculate_item(items, rows.T),
    ]


def assert_same_results(result, expected):
    for one, other in zip(result, expected, strict=True):
        assert one.tobytes() == other.tobytes()


def test_replaced_factors_have_no_effect_on_later_results(plays):
    model = with_factors(random_factors(300, 8), random_factors(120, 8))
    X, Y = random_factors(300, 8, seed=1), random_factors(120, 8, seed=2)
    results(model, plays)
    model.item_factors = Y
    assert_same_results(results(model, plays), results(with_factors(model.user_factors, Y), plays))
    model.user_factors = X
    assert_same_results(results(model, plays), results(with_factors(X, Y), plays))


def test_eight_threads_get_the_results_of_one(model, plays, little_work_in_parallel):
    expected = results(pickle.loads(pickle.dumps(model)), plays)
    model = copy.copy(model).set_params(num_threads=2)
    for _ in range(3):
        # A pickle holds nothing that was prepared: all threads prepare it at the same time.
        shared = pickle.loads(pickle.dumps(model))
        start, by_thread = threading.Barrier(8), []

        def search(shared=shared, start=start, by_thread=by_thread):
            start.wait()
            by_thread.append(results(shared, plays))

        threads = [threading.Thread(target=search) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(by_thread) == 8
        for result in by_thread:
            assert_same_results(result, expected)


def test_both_sides_change_at_once(model, plays):
    """A thread that searches while another trains gets a result of the model before, or of the model after."""
    changing = copy.deepcopy(model).set_params(num_threads=1)
    known, stop = {results(changing, plays)[1].tobytes()}, threading.Event()
    seen = set()

    def search():
        while True:
            seen.add(changing.recommend(np.arange(300), plays, N=9)[1].tobytes())
            if stop.is_set():
                return

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for seed in range(10):
            changing.set_params(random_state=seed, iterations=1).fit(plays, show_progress=False)
            known.add(changing.recommend(np.arange(300), plays, N=9)[1].tobytes())
    finally:
        stop.set()
        thread.join()
    assert seen <= known


def test_candidates_and_fold_in_are_prepared_once(plays):
    model = with_factors(random_factors(300, 8), random_factors(120, 8))
    prepared = []
    for _ in range(2):
        results(model, plays)
        sides = [(side._fold_in, *(side.candidates(1, unit=unit) for unit in (False, True))) for side in model._both]
        prepared.append([each for side in sides for each in side])
        assert all(fold_in.factors is side.array for side, (fold_in, *_) in zip(model._both, sides, strict=True))
    assert all(first is second for first, second in zip(*prepared, strict=True))
    assert len(set(map(id, prepared[0]))) == 6


def test_candidates_are_sorted_by_descending_norm(model):
    """By cosine all norms are 1 or 0, and the candidates keep their order, with those of norm 0 at the end."""
    for side in model._both:
        norms = np.linalg.norm(side.array.astype(np.float64), axis=1)
        candidates, by_cosine = side.candidates(1), side.candidates(1, unit=True)
        assert (np.diff(candidates.norm) <= 0).all()
        assert sorted(candidates.order) == list(range(len(norms)))
        np.testing.assert_allclose(candidates.norm, norms[candidates.order], rtol=1e-6)
        zeros = np.flatnonzero(norms == 0)
        assert 0 < len(zeros) < len(norms)
        np.testing.assert_array_equal(by_cosine.order, [*np.flatnonzero(norms), *zeros])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_factors_read_only(model, plays, protocol):
    restored = pickle.loads(pickle.dumps(model, protocol))
    assert_same_results(results(restored, plays), results(model, plays))
    for factors in (restored.user_factors, restored.item_factors):
        assert not factors.flags.writeable


def test_a_pickle_holds_nothing_that_is_prepared_from_factors(model, plays):
    fresh = with_factors(model.user_factors, model.item_factors)
    before = len(pickle.dumps(fresh))
    results(fresh, plays)
    assert len(pickle.dumps(fresh)) == before


def test_copies_are_independent(model, plays):
    before = model.item_factors
    for copied in (copy.copy(model), copy.deepcopy(model)):
        assert copied.item_factors is before  # read-only, so copies can share them
        assert_same_results(results(copied, plays), results(model, plays))
        copied.item_factors = 2 * before
        assert model.item_factors is before


# Before fit


def calls(rows):
    return {
        "recommend": (0, rows),
        "similar_items": (0,),
        "similar_users": (0,),
        "recalculate_user": (0, rows),
        "recalculate_item": (0, rows),
        "partial_fit_users": ([0], rows),
        "partial_fit_items": ([0], rows),
        "partial_fit": (rows,),
        "explain": (0, rows, 0),
    }


@pytest.mark.parametrize("name", calls(None))
@pytest.mark.parametrize("missing", ["factors", "user_factors", "item_factors"])
def test_use_before_fit(plays, name, missing):
    model = with_factors(
        None if missing != "item_factors" else random_factors(300),
        None if missing != "user_factors" else random_factors(120),
    )
    with pytest.raises(NotFittedError, match=f"AlternatingLeastSquares has no {missing} yet: call fit first"):
        getattr(model, name)(*calls(plays[[0]])[name])
    assert issubclass(NotFittedError, ValueError)
    assert issubclass(NotFittedError, AttributeError)
