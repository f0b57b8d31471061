"""Plain and exact recommenders without factors, to compare a model's metrics with.

Each baseline is fitted to the rows of users. Then it scores all items for rows of these users or of others.
`alscore.evaluate` evaluates it like a model. Values are used as they are. To use other values, pass
``weighting.clip(plays, 1, 1)`` (every entry counts 1) or ``weighting.log(plays)`` to `fit` and to `scores`.

In the formulas X is the matrix of values and r_ui the value of user u and item i. All arithmetic is in float64.
"""

import math
import os
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from scipy import linalg, sparse
from tqdm import tqdm

from alscore import weighting
from alscore._data.user_items import matrix_of
from alscore._support.arrays import Doubles
from alscore._support.checks import require, require_integer
from alscore.metrics.estimator import Estimator
from alscore.retrieval.factors import NotFittedError

_BLOCK_ITEMS = 256  # items whose inner products with all items are in memory at a time


class _Baseline(Estimator):
    """Base class. `_learn` takes a canonical matrix; then `_scores` takes canonical rows of the same items."""

    _n_items: int | None = None

    def _learn(self, matrix: sparse.csr_array, show_progress: bool) -> None:
        raise NotImplementedError

    def _scores(self, rows: sparse.csr_array) -> Doubles:
        raise NotImplementedError

    def fit(self, user_items: Any, show_progress: bool = True) -> Self:
        """Fit the baseline to rows of users.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_users, n_items), or Interactions
        show_progress : bool
            Show a progress bar, except for `MostPopular`, which takes no time.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            A parameter or the matrix is not valid, or the matrix has no items.
        """
        matrix = matrix_of(user_items, dtype=np.float64)
        if not matrix.shape[1]:
            raise ValueError(f"user_items has no items (shape {matrix.shape})")
        self._learn(matrix, show_progress)
        self._n_items = matrix.shape[1]
        return self

    def scores(self, user_items: Any) -> Doubles:
        """Return the scores of all items for rows of users. They need not be the users of `fit`.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_rows, n_items), or Interactions

        Returns
        -------
        float64 array (n_rows, n_items)

        Raises
        ------
        NotFittedError
            `fit` was not called.
        ValueError
            `user_items` does not have as many items as the matrix given to `fit`.
        """
        name = type(self).__name__
        if self._n_items is None:
            raise NotFittedError(f"this {name} is not fitted: call fit first")
        rows = matrix_of(user_items, dtype=np.float64)
        if rows.shape[1] != self._n_items:
            raise ValueError(
                f"user_items has {rows.shape[1]} columns, but this {name} was fitted to {self._n_items} items: pass "
                "rows with a column for each of them, in their order"
            )
        return self._scores(rows)


class MostPopular(_Baseline):
    """Popularity, the same for all users: the score of an item is the number of users whose value of it is above 0.

    Attributes
    ----------
    popularity : float64 array (n_items,)
        The scores. Set by `fit`.
    """

    def _learn(self, matrix: sparse.csr_array, show_progress: bool) -> None:
        counts = np.bincount(matrix.indices[matrix.data > 0], minlength=matrix.shape[1])
        self.popularity = counts.astype(np.float64)

    def _scores(self, rows: sparse.csr_array) -> Doubles:
        return np.tile(self.popularity, (rows.shape[0], 1))


class ItemKNN(_Baseline):
    """Items that are similar to the items of the user: ``score_ui = sum_j r_uj s_ji``
    over the items j that have i as a neighbour.

    The neighbours of item j are the k other items with the largest similarity s_ji above 0 (ties: lower id first). With
    x_i the column of item i: ::

        cosine   s_ji = x_j . x_i / (|x_j| |x_i|)
        bm25     s_ji = w_j . w_i, w the columns of alscore.weighting.bm25(user_items, k1, b)

    Parameters
    ----------
    k : int
        Number of neighbours of an item, at least 1.
    similarity : {"cosine", "bm25"}
    k1, b : float
        Parameters of "bm25": see `alscore.weighting.bm25` for their ranges.

    Attributes
    ----------
    item_weights : csr_array (n_items, n_items), float64
        s_ji at [j, i] if i is a neighbour of j. Set by `fit`.

    Notes
    -----
    The method is that of Sarwar, Karypis, Konstan, Riedl (2001). They use the neighbours of the item to score; this
    class uses the neighbours of the user's items, as Deshpande, Karypis (2004) do. `implicit`'s CosineRecommender and
    BM25Recommender count an item among its own neighbours. So their ``K=k + 1`` has the neighbours of ``k`` here, and
    they also score an item by its own value.
    """

    def __init__(self, k: int, similarity: str = "cosine", k1: float = 1.2, b: float = 0.75) -> None:
        self.k = k
        self.similarity = similarity
        self.k1 = k1
        self.b = b

    def _learn(self, matrix: sparse.csr_array, show_progress: bool) -> None:
        require_integer(self.k, "k", 1)
        require(self.similarity in ("cosine", "bm25"), "similarity", "'cosine' or 'bm25'", self.similarity)
        if self.similarity == "cosine":
            weights = weighting.normalize(matrix, "l2", axis="items")
        else:
            weights = weighting.bm25(matrix, self.k1, self.b)
        self.item_weights = _neighbours(weights, self.k, show_progress)

    def _scores(self, rows: sparse.csr_array) -> Doubles:
        scores: Doubles = (rows @ self.item_weights).toarray()
        return scores


class EASE(_Baseline):
    """Linear autoencoder in closed form: EASE^R of Steck (2019).

    B is a matrix of item weights: ::

        minimise |X - X B|**2 + λ |B|**2  with diag(B) = 0
        B_ij = -P_ij / P_jj  with  P = (X'X + λ I)**-1

    Parameters
    ----------
    regularization : float
        λ, above 0, in the unit of squared values.

    Attributes
    ----------
    item_weights : float64 array (n_items, n_items)
        B. Set by `fit`.

    Notes
    -----
    Memory is 8 n_items**2 bytes, and time is proportional to n_items**3. `fit` raises a MemoryError if the machine has
    less memory.
    """

    def __init__(self, regularization: float) -> None:
        self.regularization = regularization

    def _learn(self, matrix: sparse.csr_array, show_progress: bool) -> None:
        require(0 < self.regularization < math.inf, "regularization", "finite and above 0", self.regularization)
        n_items = matrix.shape[1]
        needed, installed = 8 * n_items**2, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > installed:  # the system might grant the memory, and kill the process when it is used
            raise MemoryError(
                f"EASE inverts a matrix of n_items**2 = {n_items:,}**2 numbers, which take {needed / 2**30:,.1f} GiB, "
                f"but this machine has {installed / 2**30:,.1f}: leave out rare items, or use ItemKNN"
            )
        inverse = np.empty((n_items, n_items))
        for first, block in _inner_products(matrix, show_progress):
            inverse[first : first + block.shape[0]] = block.toarray()
        inverse[np.diag_indices(n_items)] += self.regularization
        try:  # the transpose is the same matrix, in the order in which LAPACK can work in place
            factor, _ = linalg.cho_factor(inverse.T, overwrite_a=True, check_finite=False)
        except linalg.LinAlgError as error:
            raise ValueError(
                f"regularization={self.regularization!r} is too small beside the values: X'X + λ I has no inverse in "
                "float64. Choose a larger one"
            ) from error
        inverse = linalg.lapack.dpotri(factor, overwrite_c=True)[0].T
        for row in range(1, n_items):  # dpotri computes one triangle
            inverse[row - 1, row:] = inverse[row:, row - 1]
        inverse /= -inverse.diagonal()
        np.fill_diagonal(inverse, 0)
        self.item_weights = inverse

    def _scores(self, rows: sparse.csr_array) -> Doubles:
        scores: Doubles = rows @ self.item_weights
        return scores


def _inner_products(
    matrix: sparse.csr_array, show_progress: bool, block_items: int = _BLOCK_ITEMS
) -> Iterator[tuple[int, sparse.csr_array]]:
    """Yield the rows of ``matrix.T @ matrix`` in blocks: (the first item, csr_array (items of the block, n_items))."""
    item_users = matrix.T.tocsr()
    with tqdm(total=matrix.shape[1], disable=not show_progress, unit="item") as progress:
        for first in range(0, matrix.shape[1], block_items):
            yield first, item_users[first : first + block_items] @ matrix
            progress.update(min(block_items, matrix.shape[1] - first))


def _neighbours(
    matrix: sparse.csr_array, k: int, show_progress: bool, block_items: int = _BLOCK_ITEMS
) -> sparse.csr_array:
    """Return, for each column of `matrix`, its k largest inner products above 0 with other columns."""
    blocks = [_nearest(first, block, k) for first, block in _inner_products(matrix, show_progress, block_items)]
    return sparse.vstack(blocks, format="csr")


def _nearest(first: int, block: sparse.csr_array, k: int) -> sparse.csr_array:
    """Return the k largest entries above 0 of each row, without the entry of item ``first + row`` itself."""
    entries = block.tocoo()
    candidates = (entries.data > 0) & (entries.col != entries.row + first)
    rows, columns, values = entries.row[candidates], entries.col[candidates], entries.data[candidates]
    order = np.lexsort((columns, -values, rows))
    sizes = np.bincount(rows, minlength=block.shape[0])
    place = np.arange(rows.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = order[place < k]
    return sparse.csr_array((values[kept], (rows[kept], columns[kept])), shape=block.shape)
