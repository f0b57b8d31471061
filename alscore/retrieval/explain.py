"""Explanations: a score as a sum of contributions of the user's items (Hu, Koren, Volinsky 2008, section 5)."""

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg
from scipy import sparse

from alscore import retrieval
from alscore._data.canonical import CanonicalRows, canonical_csr
from alscore._support.arrays import Doubles, Floats, Ints
from alscore._support.threads import one_blas_thread
from alscore.retrieval.factors import Factors, checked_rows
from alscore.solvers import NotPositiveDefiniteError
from alscore.solvers.fold_in import FoldIn
from alscore.solvers.half_sweeps import with_ridge
from alscore.solvers.objective import Objective


@dataclasses.dataclass(frozen=True, eq=False)
class UserWeights:
    """The factorised system of one user's row, for further calls of `AlternatingLeastSquares.explain`."""

    userid: int
    objective: Objective
    fold_in: FoldIn
    liked: Ints
    weighted: Doubles  # confidence times item factors, one row for each item liked
    system: Any

    @classmethod
    def of(cls, userid: int, row: CanonicalRows, objective: Objective, fold_in: FoldIn) -> "UserWeights":
        """Factorise the system that `FoldIn.solve` would solve for a canonical float64 row."""
        Y = fold_in.factors[row.indices].astype(np.float64)
        strength, (base, scale, unobserved) = objective.strength(row.data), objective.weights
        confidence = base + scale * np.abs(strength)
        liked = strength > 0
        eigenvalues = with_ridge(unobserved * fold_in.eigenvalues, fold_in.factors.dtype)
        eigenvalues += objective.row_regularization(np.diff(row.indptr), row.shape[1])
        with one_blas_thread():
            A = (fold_in.axes * eigenvalues) @ fold_in.axes.T + Y.T @ ((confidence - unobserved)[:, None] * Y)
            try:
                system = scipy.linalg.cho_factor(A, overwrite_a=True)
            except scipy.linalg.LinAlgError as error:
                raise NotPositiveDefiniteError(
                    f"user {userid}: the system is not positive definite; raise regularization, or set "
                    "unobserved_weight below the confidence of the entries"
                ) from error
        return cls(userid, objective, fold_in, row.indices[liked], confidence[liked, None] * Y[liked], system)

    def belong_to(self, userid: int, objective: Objective, item_factors: Floats) -> bool:
        """Whether this system belongs to the user, the parameters and the item factors."""
        same_factors = self.fold_in.factors is item_factors
        return same_factors and (self.userid, self.objective) == (userid, objective)

    def contributions(self, itemid: int) -> Doubles:
        """Return the contribution of each item of `liked` to the score of an item."""
        weighted_item = scipy.linalg.cho_solve(self.system, self.fold_in.factors[itemid].astype(np.float64))
        # Not BLAS: equal rows must give equal sums.
        contributions: Doubles = (self.weighted * weighted_item).sum(axis=1)
        return contributions


def user_row(user_items: Any, userid: int, items: Factors) -> CanonicalRows:
    """Return the canonical float64 row of one user, from the rows of all users or from this row alone."""
    rows = getattr(user_items, "matrix", user_items)
    if sparse.issparse(rows) and rows.ndim == 2 and rows.shape[0] != 1:
        retrieval.checked_ids(userid, rows.shape[0], "userid")
        if rows.format == "csr":  # take the row out first: verifying all rows would take long
            entries = slice(*rows.indptr[userid : userid + 2])
            data, indices = rows.data[entries], rows.indices[entries]
            rows = sparse.csr_array((data, indices, [0, len(data)]), shape=(1, rows.shape[1]))
        else:
            rows = canonical_csr(rows, np.float64, "user_items")[[userid]]
    return checked_rows(rows, "user_items", "userid", 1, items, np.float64)
