"""The objective that training minimises: its parameters, and its value for given factors."""

import dataclasses
import math
from typing import Any

import numpy as np

from alscore._core import sweeps
from alscore._data.canonical import canonical_csr
from alscore._support.arrays import Doubles, Floats, Int32s, Int64s, Ints
from alscore._support.threads import one_blas_thread, resolve_threads

CONFIDENCES = ("linear", "log", "raw")
REGULARIZATION_COUNTS = ("all", "entries")


@dataclasses.dataclass(frozen=True)
class Objective:
    """The parameters of the objective, verified when it is made. `AlternatingLeastSquares` describes them."""

    regularization: float
    alpha: float = 1.0
    confidence: str = "linear"
    epsilon: float = 1.0
    unobserved_weight: float = 1.0
    regularization_exponent: float = 0.0
    regularization_count: str = "all"

    def __post_init__(self) -> None:
        for name in ("regularization", "alpha", "epsilon", "unobserved_weight", "regularization_exponent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}")
        for name in ("regularization", "unobserved_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)!r}")
        for name in ("alpha", "epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}")
        if self.unobserved_weight == 0 and self.regularization == 0:
            raise ValueError(
                "with unobserved_weight=0 a row with few entries has no unique solution: "
                "give regularization a value above 0"
            )
        for name, choices in (("confidence", CONFIDENCES), ("regularization_count", REGULARIZATION_COUNTS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")

    @property
    def weights(self) -> tuple[float, float, float]:
        """(base, scale, unobserved): an entry of strength s has confidence base + scale |s|."""
        return 0.0 if self.confidence == "raw" else 1.0, float(self.alpha), float(self.unobserved_weight)

    def strength(self, values: Floats) -> Floats:
        """The signed numbers that confidence is linear in: `values` themselves, or their logarithms."""
        if self.confidence == "log":
            logarithms = np.log1p(np.abs(values, dtype=np.float64) / self.epsilon)
            values = np.copysign(logarithms, values).astype(values.dtype)
        # a quarter of the range, so that sums of a few confidences do not overflow either
        largest = float(max(values.max(), -values.min())) if values.size else 0.0
        if not float(self.alpha) * largest < float(np.finfo(values.dtype).max) / 4:
            raise ValueError(
                f"alpha times the largest value does not fit {values.dtype}: scale the values or alpha "
                "down, or use dtype=float64"
            )
        return values

    def row_regularization(self, entries: Ints, n_columns: int) -> Doubles:
        """λ n^ν for rows of so many entries, with n as `regularization_count` says; just λ where ν is 0."""
        if self.regularization_exponent == 0 or self.regularization == 0:
            return np.array([self.regularization], np.float64)
        size = entries + (self.unobserved_weight * n_columns if self.regularization_count == "all" else 0)
        # a row of size 0 has no entries, so its factors are 0 whatever its regularization
        scale = np.power(size, self.regularization_exponent, out=np.zeros(len(size)), where=size > 0)
        row_regularization: Doubles = self.regularization * scale
        if not np.isfinite(row_regularization).all():
            raise ValueError(
                f"regularization_exponent={self.regularization_exponent!r} makes a row's regularization infinite: "
                "bring it nearer to 0"
            )
        return row_regularization

    def loss(
        self,
        indptr: Int64s,
        indices: Int32s,
        strength: Floats,
        user_factors: Floats,
        item_factors: Floats,
        user_regularization: Doubles,
        item_regularization: Doubles,
        num_threads: int,
    ) -> float:
        """The objective, for user rows in CSR form."""
        X, Y = user_factors, item_factors
        grams = sweeps.gram(X, num_threads), sweeps.gram(Y, num_threads)
        errors = self.errors(indptr, indices, strength, X, Y, *grams, num_threads)
        return errors + penalty(X, user_regularization) + penalty(Y, item_regularization)

    def errors(
        self,
        indptr: Int64s,
        indices: Int32s,
        strength: Floats,
        rows: Floats,
        columns: Floats,
        rows_gram: Doubles,
        columns_gram: Doubles,
        num_threads: int,
    ) -> float:
        """The objective without its penalty, of these rows and all columns, of which those without entries need not be
        there: what is unobserved is summed through the two Gram matrices.
        """
        observed = sweeps.observed_losses(indptr, indices, strength, rows, columns, self.weights, num_threads).sum()
        return float(observed + self.unobserved_weight * (rows_gram * columns_gram).sum())


def penalty(factors: Floats, regularization: Doubles) -> float:
    """sum over rows of regularization[u] |x_u|^2"""
    squares = np.einsum("uf,uf->u", factors, factors, dtype=np.float64)
    return float((squares * regularization).sum())


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
    """The objective that `AlternatingLeastSquares` minimises, in float64.

    The sum over all users u and items i, observed or not, of ``c_ui (p_ui - x_u . y_i)**2``, plus
    ``λ_u |x_u|**2`` and ``λ_i |y_i|**2`` over users and items (Hu, Koren, Volinsky 2008, equation 3; not
    divided by anything), computed in O(nnz k + (n_users + n_items) k**2).

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    user_factors : array (n_users, k), float32 or float64
    item_factors : array (n_items, k) of the same dtype
    regularization, alpha, confidence, epsilon, unobserved_weight
    regularization_exponent, regularization_count, num_threads
        As for `AlternatingLeastSquares`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        A parameter is not valid, or the shapes or dtypes do not fit each other.

    Examples
    --------
    A user who likes the first of two items, c = 1 + 3 there and 1 elsewhere, and factors of one number:

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
    matrix = canonical_csr(getattr(user_items, "matrix", user_items), dtype=X.dtype)
    if X.ndim != 2 or Y.ndim != 2 or X.shape[1] != Y.shape[1] or matrix.shape != (len(X), len(Y)):
        raise ValueError(
            f"user_items {matrix.shape}, user_factors {X.shape} and item_factors {Y.shape} do not fit: "
            "they must be (users, items), (users, factors) and (items, factors)"
        )
    listeners = np.bincount(matrix.indices, minlength=len(Y))
    with one_blas_thread():
        return objective.loss(
            matrix.indptr,
            matrix.indices,
            objective.strength(matrix.data),
            X,
            Y,
            objective.row_regularization(np.diff(matrix.indptr), len(Y)),
            objective.row_regularization(listeners, len(X)),
            resolve_threads(num_threads, matrix.nnz * X.shape[1]),
        )
