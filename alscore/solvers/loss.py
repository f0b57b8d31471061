"""The value of the objective for given factors."""

from typing import Any

import numpy as np

from alscore._core import sweeps
from alscore._data.user_items import matrix_of
from alscore._support.arrays import Doubles, Floats
from alscore._support.threads import one_blas_thread
from alscore.solvers.half_sweeps import Side
from alscore.solvers.objective import Objective


def penalty(factors: Floats, regularization: Doubles) -> float:
    """Return the sum over the rows of regularization[u] |x_u|^2."""
    squares = np.einsum("uf,uf->u", factors, factors, dtype=np.float64)
    return float((squares * regularization).sum())


def errors(rows: Side, X: Floats, Y: Floats, X_gram: Doubles, Y_gram: Doubles) -> float:
    """Return the objective without its penalty, over the rows X of one side and all columns Y.

    Y may lack columns without entries: the two Gram matrices give the sum over the pairs that are not observed.
    """
    objective = rows.objective
    observed = sweeps.observed_losses(
        rows.indptr, rows.indices, rows.strength, X, Y, objective.weights, rows.num_threads
    )
    return float(observed.sum() + objective.unobserved_weight * (X_gram * Y_gram).sum())


def loss(users: Side, item_regularization: Doubles, X: Floats, Y: Floats) -> float:
    """Return the objective for user factors X and item factors Y."""
    grams = sweeps.gram(X, users.num_threads), sweeps.gram(Y, users.num_threads)
    return errors(users, X, Y, *grams) + penalty(X, users.regularization) + penalty(Y, item_regularization)


def calculate_loss(
    user_items: Any,
    user_factors: Floats,
    item_factors: Floats,
    regularization: float,
    alpha: float = 1.0,
    confidence: str = "linear",
    epsilon: float = 1.0,
    unobserved_weight: float = 1.0,
    regularization_exponent: float = 0.0,
    regularization_count: str = "all",
    num_threads: int = 0,
) -> float:
    """Compute the objective that `AlternatingLeastSquares` minimises, in float64.

    It is the sum of ``c_ui (p_ui - x_u . y_i)**2`` over all users u and items i, observed or not, plus the sums of
    ``λ_u |x_u|**2`` over the users and of ``λ_i |y_i|**2`` over the items (Hu, Koren, Volinsky 2008, equation 3). It
    is not divided by a number of entries. The cost is O(nnz k + (n_users + n_items) k**2).

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    user_factors : array (n_users, k), float32 or float64
    item_factors : array (n_items, k) of the same dtype
    regularization, alpha, confidence, epsilon, unobserved_weight
    regularization_exponent, regularization_count, num_threads
        Same as for `AlternatingLeastSquares`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        A parameter is not valid, or shapes or dtypes do not fit each other.

    Examples
    --------
    A user likes the first of two items: c = 1 + 3 there, and c = 1 elsewhere. The factors have one number:

    >>> import numpy as np
    >>> from scipy import sparse
    >>> from alscore import calculate_loss
    >>> calculate_loss(sparse.csr_array([[3.0, 0.0]]), np.array([[1.0]]), np.array([[0.5], [2.0]]), regularization=0.0)
    5.0
    """
    objective = Objective(
        regularization, alpha, confidence, epsilon, unobserved_weight, regularization_exponent, regularization_count
    )
    X, Y = np.ascontiguousarray(user_factors), np.ascontiguousarray(item_factors)
    if X.dtype != Y.dtype or X.dtype not in (np.float32, np.float64):
        raise ValueError(f"user_factors are {X.dtype}, item_factors {Y.dtype}: both must be float32, or both float64")
    matrix = matrix_of(user_items, dtype=X.dtype)
    if X.ndim != 2 or Y.ndim != 2 or X.shape[1] != Y.shape[1] or matrix.shape != (len(X), len(Y)):
        raise ValueError(
            f"user_items {matrix.shape}, user_factors {X.shape} and item_factors {Y.shape} do not fit: "
            "they must be (users, items), (users, factors) and (items, factors)"
        )
    item_entries = np.bincount(matrix.indices, minlength=len(Y))
    with one_blas_thread():
        users = Side.of("user", objective, matrix, X.shape[1], num_threads)
        return loss(users, objective.row_regularization(item_entries, len(X)), X, Y)
