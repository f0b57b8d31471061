"""calculate_loss against the dense objective."""

import numpy as np
import pytest
from scipy import sparse

from alscore import Interactions, calculate_loss
from alscore.testing import loss, tolerance

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
    """(200, 90) interactions with dislikes and empty rows, and factors."""
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
    # r / epsilon is beyond float32, its logarithm is not
    user_items, X, Y = np.array([[1e30, 0.0]]), np.ones((1, 2), np.float32), np.ones((2, 2), np.float32)
    parameters = {"regularization": 0.1, "confidence": "log", "epsilon": 1e-10}
    value = calculate_loss(sparse.csr_array(user_items), X, Y, **parameters)
    assert value == pytest.approx(loss(user_items, X, Y, **parameters), rel=tolerance("loss", np.float32))


def test_transposed_matrix_is_refused(problem):
    user_items, X, Y = problem
    with pytest.raises(ValueError, match=r"user_items \(90, 200\), user_factors \(200, 7\)"):
        calculate_loss(sparse.csr_array(user_items.T), X, Y, 0.1)


@pytest.mark.parametrize("wrong", ["other factors", "other dtype", "integers", "one dimension"])
def test_factors_that_do_not_fit_are_refused(problem, wrong):
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
