"""Explanations, against the inverse of the user's dense system in float64."""

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions, NotPositiveDefiniteError
from alscore.testing import dense_problem, tolerance

USER = 4


@pytest.fixture(scope="module")
def tastes():
    """Likes and dislikes of 40 users for 30 items."""
    rng = np.random.default_rng(0)
    tastes = rng.integers(1, 20, (40, 30)) * rng.choice([1, 1, -1], (40, 30)) * (rng.random((40, 30)) < 0.4)
    assert (tastes[USER] > 0).sum() > 5
    assert (tastes[USER] < 0).sum() > 1
    return tastes


def fit(tastes, **parameters):
    parameters = {"factors": 5, "iterations": 3, "num_threads": 1, "random_state": 0, **parameters}
    return AlternatingLeastSquares(**parameters).fit(sparse.csr_array(tastes), show_progress=False)


def contributions(row, item_factors, itemid, **parameters):
    """Oracle: c_j y_i' W y_j for every item j that the user likes, 0 for the others."""
    Y = item_factors.astype(np.float64)
    c, p, regularization = (array[0] for array in dense_problem(row[None], **parameters))
    W = np.linalg.inv(Y.T @ (c[:, None] * Y) + regularization * np.eye(Y.shape[1]))
    return Y[itemid] @ W @ Y.T * c * p


@pytest.mark.parametrize("turned", [False, True])
def test_contributions_equal_the_dense_ones_and_sum_to_the_score(tastes, objective, turned, dtype):
    model = fit(tastes, dtype=dtype, **objective)
    if turned:
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0].astype(dtype)
        model.user_factors, model.item_factors = model.user_factors @ turn, model.item_factors @ turn
    row = sparse.csr_array(tastes[[USER]])
    scores = model.item_factors.astype(np.float64) @ model.recalculate_user(USER, row)
    for itemid in (0, 17):
        expected = contributions(tastes[USER], model.item_factors, itemid, **objective)
        score, listed, _ = model.explain(USER, row, itemid, N=30)
        slack = {"rtol": tolerance("half-sweep", dtype), "atol": tolerance("half-sweep", dtype) * abs(expected).max()}
        assert [item for item, _ in listed] == sorted(np.flatnonzero(tastes[USER] > 0), key=lambda i: -expected[i])
        np.testing.assert_allclose([value for _, value in listed], [expected[item] for item, _ in listed], **slack)
        assert score == pytest.approx(sum(value for _, value in listed), rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(score, scores[itemid], **slack)


def test_score_is_that_of_recommend(tastes):
    model = fit(tastes)
    row = sparse.csr_array(tastes[[USER]])
    ids, scores = model.recommend(USER, row, N=8, recalculate_user=True)
    explained = [model.explain(USER, row, itemid)[0] for itemid in ids]
    np.testing.assert_allclose(explained, scores, rtol=1e-4)


def test_more_factors_than_items(tastes):
    """Here the ridge of directions whose eigenvalue is 0 matters."""
    model = fit(tastes, factors=50, regularization=0.0, solver="cholesky", dtype=np.float64)
    row = sparse.csr_array(tastes[[USER]])
    scores = model.item_factors @ model.recalculate_user(USER, row)
    explained = [model.explain(USER, row, itemid)[0] for itemid in range(30)]
    np.testing.assert_allclose(explained, scores, rtol=1e-6, atol=1e-8)


def test_the_largest_contributions_are_listed_ties_lower_id_first(tastes):
    tastes = tastes.copy()
    tastes[USER] = 0
    tastes[USER, [3, 8, 20, 25]] = 7
    model = fit(tastes)
    factors = model.item_factors.copy()
    factors[[3, 20]] = factors[25]
    model.item_factors = factors
    _, listed, _ = model.explain(USER, sparse.csr_array(tastes[[USER]]), 25, N=2)
    assert [item for item, _ in listed] == [3, 20]
    assert all(type(item) is int and type(value) is float for item, value in listed)


@pytest.mark.parametrize("n", [1, 7, 200, 999])
def test_many_ties_are_listed_with_the_lower_id_first(n):
    rng = np.random.default_rng(0)
    model = AlternatingLeastSquares(num_threads=1)
    model.user_factors = np.ones((1, 3))
    model.item_factors = rng.standard_normal((4, 3))[rng.integers(4, size=300)]
    row = np.full((1, 300), 2.0)
    expected = contributions(row[0], model.item_factors, 17, regularization=0.01)
    _, listed, _ = model.explain(0, sparse.csr_array(row), 17, N=n)
    order = np.argsort(-expected.round(9), kind="stable")[:n]
    assert [item for item, _ in listed] == order.tolist()
    np.testing.assert_allclose([value for _, value in listed], expected[order], rtol=1e-9)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "matrix", "Interactions"])
def test_the_row_of_the_user_is_taken_from_the_rows_of_all_users(tastes, form):
    model, rows = fit(tastes), sparse.csr_array(tastes)
    given = {"matrix": sparse.csr_matrix, "Interactions": Interactions}.get(form, lambda m: m.asformat(form))(rows)
    assert model.explain(USER, given, 9)[:2] == model.explain(USER, rows[[USER]], 9)[:2]


def test_user_without_entries(tastes):
    assert fit(tastes).explain(USER, sparse.csr_array((1, 30)), 9)[:2] == (0.0, [])


def test_user_weights_explain_other_items_for_the_same_user(tastes):
    model, rows = fit(tastes), sparse.csr_array(tastes)
    *_, weights = model.explain(USER, rows, 9)
    score, listed, again = model.explain(USER, None, 10, user_weights=weights, N=3)
    assert (score, listed) == model.explain(USER, rows, 10, N=3)[:2]
    assert again is weights


def test_user_weights_of_another_user_or_model_are_refused(tastes):
    model, rows = fit(tastes), sparse.csr_array(tastes)
    *_, weights = model.explain(USER, rows, 9)
    with pytest.raises(ValueError, match="user_weights are of another user"):
        model.explain(USER + 1, rows, 9, weights)
    with pytest.raises(ValueError, match="other item factors"):
        fit(tastes).explain(USER, rows, 9, weights)
    with pytest.raises(ValueError, match="other parameters"):
        model.set_params(alpha=2.0).explain(USER, rows, 9, weights)
    with pytest.raises(TypeError, match="user_weights must be the third result of explain"):
        model.explain(USER, rows, 9, np.ones(5))


@pytest.mark.parametrize("user", [40, -1])
def test_user_out_of_range(tastes, user):
    with pytest.raises(IndexError, match=f"userid {user} "):
        fit(tastes).explain(user, sparse.csr_array(tastes), 9)


@pytest.mark.parametrize("item", [30, -1])
def test_item_out_of_range(tastes, item):
    with pytest.raises(IndexError, match=f"itemid {item} "):
        fit(tastes).explain(USER, sparse.csr_array(tastes), item)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([USER], 9), TypeError, "userid must be one id"),
        ((USER, [9]), TypeError, "itemid must be one id"),
        (("u1", 9), TypeError, "userid must be integer ids"),
    ],
)
def test_an_argument_that_is_not_an_id_is_refused(tastes, arguments, error, message):
    userid, itemid = arguments
    with pytest.raises(error, match=message):
        fit(tastes).explain(userid, sparse.csr_array(tastes), itemid)


def test_wrong_rows_and_wrong_numbers_are_refused(tastes):
    model, rows = fit(tastes), sparse.csr_array(tastes)
    with pytest.raises(ValueError, match=r"user_items has shape \(1, 29\)"):
        model.explain(USER, rows[:, :29], 9)
    with pytest.raises(TypeError, match="user_items must be a scipy sparse matrix"):
        model.explain(USER, tastes, 9)
    with pytest.raises(ValueError, match="N must be an integer of at least 1"):
        model.explain(USER, rows, 9, N=0)
    rows.indices[rows.indptr[USER]] = 30
    with pytest.raises(ValueError, match="30"):
        model.explain(USER, rows, 9)


def test_system_without_a_solution(tastes):
    model = fit(tastes).set_params(confidence="raw", alpha=1e-9, unobserved_weight=50.0, regularization=1e-9)
    with pytest.raises(NotPositiveDefiniteError, match=r"user 4: .*raise regularization"):
        model.explain(USER, sparse.csr_array(np.ones((1, 30))), 9)
