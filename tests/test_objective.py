"""calculate_loss against the dense objective, and the parts of an Objective against their formulas."""

import numpy as np
import pytest
from scipy import sparse

from alscore import Interactions, calculate_loss
from alscore._data.canonical import canonical_csr
from alscore.solvers.half_sweeps import Side
from alscore.solvers.loss import errors, penalty
from alscore.solvers.objective import Objective
from alscore.testing import dense_problem, loss, tolerance

PARAMETERS = [
    {"regularization": 0.0, "unobserved_weight": 1.0},
    {"regularization": 0.5, "alpha": 40.0},
    {"regularization": 0.1, "confidence": "log", "alpha": 3.0, "epsilon": 0.01},
    {"regularization": 0.1, "confidence": "raw", "alpha": 0.2},
    {"regularization": 0.1, "unobserved_weight": 0.0, "regularization_exponent": 1.0},
    {"regularization": 0.01, "unobserved_weight": 0.3, "regularization_exponent": 0.6},
    {"regularization": 0.1, "regularization_exponent": 1.0, "regularization_count": "entries"},
]


@pytest.fixture
def problem(dtype):
    """(200, 90) values with dislikes, an empty row and an empty column, and random factors."""
    rng = np.random.default_rng(0)
    user_items = rng.integers(-4, 30, (200, 90)) * (rng.random((200, 90)) < 0.2)
    user_items[3] = user_items[:, 4] = 0
    return (user_items, *(rng.standard_normal((n, 7)).astype(dtype) for n in (200, 90)))


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_loss_equals_the_dense_objective(problem, dtype, parameters, isa):
    user_items, X, Y = problem
    value = calculate_loss(sparse.coo_array(user_items), X, Y, **parameters)
    assert value == pytest.approx(loss(user_items, X, Y, **parameters), rel=tolerance("loss", dtype))


def test_loss_has_the_same_bits_for_any_number_of_threads(problem, isa, little_work_in_parallel):
    user_items, X, Y = problem
    one, two, five = (
        calculate_loss(sparse.csr_array(user_items), X, Y, 0.1, num_threads=threads) for threads in (1, 2, 5)
    )
    assert one == two == five


def test_loss_of_interactions_and_factors_in_any_layout(problem):
    user_items, X, Y = problem
    interactions = Interactions(sparse.csr_array(user_items))
    value = calculate_loss(interactions, np.asfortranarray(X), Y[::-1][::-1], 0.1)
    assert value == calculate_loss(sparse.csr_array(user_items), X, Y, 0.1)


def test_loss_by_hand():
    # c = 1 + 2 * 3 and score 2: 7 * (1 - 2)^2; the other item: 1 * (0 - 6)^2; 0.5 * (1 + 4 + 36)
    X, Y = np.array([[1.0]]), np.array([[2.0], [6.0]])
    value = calculate_loss(sparse.csr_array([[3.0, 0.0]]), X, Y, 0.5, alpha=2.0)
    assert value == pytest.approx(7 + 36 + 20.5, rel=1e-15)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (3, 2)])
def test_loss_without_entries(shape):
    X, Y = np.ones((shape[0], 2)), np.ones((shape[1], 2))
    expected = loss(np.zeros(shape), X, Y, regularization=0.5)
    assert calculate_loss(sparse.csr_array(shape), X, Y, 0.5) == pytest.approx(expected)


def test_log_confidence_of_extreme_ratio():
    # r / epsilon is beyond the range of float32, but its logarithm is not.
    user_items, X, Y = np.array([[1e30, 0.0]]), np.ones((1, 2), np.float32), np.ones((2, 2), np.float32)
    parameters = {"regularization": 0.1, "confidence": "log", "epsilon": 1e-10}
    value = calculate_loss(sparse.csr_array(user_items), X, Y, **parameters)
    assert value == pytest.approx(loss(user_items, X, Y, **parameters), rel=tolerance("loss", np.float32))


def test_transposed_matrix_is_refused(problem):
    user_items, X, Y = problem
    with pytest.raises(ValueError, match=r"user_items \(90, 200\), user_factors \(200, 7\)"):
        calculate_loss(sparse.csr_array(user_items.T), X, Y, 0.1)


@pytest.mark.parametrize("wrong", ["other factors", "other dtype", "integers", "one dimension"])
def test_factors_that_do_not_fit_each_other_are_refused(problem, wrong):
    user_items, X, Y = problem
    Y = {
        "other factors": Y[:, :5],
        "other dtype": Y.astype(np.float32 if Y.dtype == np.float64 else np.float64),
        "integers": Y.astype(np.int64),
        "one dimension": Y[:, 0],
    }[wrong]
    with pytest.raises(ValueError, match="item_factors"):
        calculate_loss(sparse.csr_array(user_items), X, Y, 0.1)


def test_wrong_parameter_is_named(problem):
    user_items, X, Y = problem
    with pytest.raises(ValueError, match="regularization must be at least 0, not -1"):
        calculate_loss(sparse.csr_array(user_items), X, Y, -1)


# Parts of the objective


def test_penalty_of_float32_factors_is_summed_in_float64(problem):
    _, X, _ = problem
    regularization = np.random.default_rng(1).random(len(X))
    for given in (regularization, regularization[:1]):
        expected = (given * (X.astype(np.float64) ** 2).sum(axis=1)).sum()
        assert penalty(X, given) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_errors_need_only_the_columns_with_entries(problem, dtype, parameters):
    """The Gram matrix of all columns gives the sum over the pairs without an entry."""
    user_items, X, Y = problem
    user_items = user_items.copy()
    user_items[:, 50:] = 0
    expected = loss(user_items, X, Y, **parameters)
    for matrix, factors in ((user_items.T, Y), (user_items, X)):
        lam = dense_problem(matrix, **parameters)[2]
        expected -= lam @ (factors.astype(np.float64) ** 2).sum(axis=1)
    matrix = canonical_csr(sparse.csr_array(user_items), dtype)
    rows = Side.of("user", Objective(**parameters), matrix, 7, 1)
    grams = (X.astype(np.float64).T @ X, Y.astype(np.float64).T @ Y)
    for columns in (Y, np.ascontiguousarray(Y[:50])):
        assert errors(rows, X, columns, *grams) == pytest.approx(expected, rel=tolerance("loss", dtype))


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_strength_and_weights_give_the_confidence(problem, parameters, dtype):
    values = np.unique(problem[0]).astype(dtype)
    values, before = values[values != 0], values[values != 0]
    objective = Objective(**parameters)
    strength, (base, scale, unobserved) = objective.strength(values), objective.weights
    assert strength.dtype == dtype
    np.testing.assert_array_equal(np.sign(strength), np.sign(values))
    np.testing.assert_array_equal(values, before)
    (confidence,), _, _ = dense_problem(values[None], **parameters)
    np.testing.assert_allclose(base + scale * abs(strength), confidence, rtol=4 * np.finfo(dtype).eps)
    assert unobserved == parameters.get("unobserved_weight", 1.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_confidence_is_a_quarter_of_the_range(sign, dtype):
    """Sums of a few confidences must not overflow. A negative value counts by its magnitude."""
    quarter = float(np.finfo(dtype).max) / 4
    objective = Objective(0.1, alpha=2.0)
    below, above = (np.array([1, sign * share * quarter / 2], dtype) for share in (0.99, 1.01))
    np.testing.assert_array_equal(objective.strength(below), below)
    with pytest.raises(ValueError, match=f"alpha times the largest value does not fit {dtype}"):
        objective.strength(above)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_row_regularization_equals_that_of_the_dense_problem(problem, parameters):
    user_items, _, _ = problem
    objective = Objective(**parameters)
    for matrix in (user_items, user_items.T):
        lam = objective.row_regularization(np.count_nonzero(matrix, axis=1), matrix.shape[1])
        assert len(lam) == (len(matrix) if objective.regularization_exponent else 1)
        expected = dense_problem(matrix, **parameters)[2]
        np.testing.assert_allclose(np.broadcast_to(lam, len(matrix)), expected, rtol=1e-12)


@pytest.mark.parametrize("exponent", [-2.0, 0.5])
def test_row_regularization_of_rows_of_size_0_is_0(exponent):
    objective = Objective(0.1, unobserved_weight=0.0, regularization_exponent=exponent)
    lam = objective.row_regularization(np.array([0, 10]), 5)
    np.testing.assert_allclose(lam, [0, 0.1 * 10**exponent], rtol=1e-14)


def test_row_regularization_that_overflows_is_refused():
    objective = Objective(0.1, unobserved_weight=0.0, regularization_exponent=400.0)
    message = r"regularization_exponent=400\.0 makes a row's regularization infinite"
    with np.errstate(over="ignore"), pytest.raises(ValueError, match=message):
        objective.row_regularization(np.array([0, 10]), 5)


def test_no_regularization_is_one_number_with_any_exponent():
    objective = Objective(0.0, regularization_exponent=400.0)
    assert objective.row_regularization(np.array([0, 10]), 5).tolist() == [0.0]
