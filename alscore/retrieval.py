"""From factors to ranked ids: exact top-N by inner product and by cosine."""

from typing import Any

import numpy as np

from alscore import _threads, _topk
from alscore.interactions import canonical_csr


def codes(ids: Any, size: int, name: str) -> np.ndarray:
    """`ids` as an int64 array of one dimension, verified to lie in [0, size).

    Raises
    ------
    TypeError
        They are not integers.
    IndexError
        One is out of range; negative ids do not count from the end.
    """
    array = np.atleast_1d(np.asarray(ids))
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integer ids, not {array.dtype}; look labels up first, or use Recommender")
    if array.ndim != 1:
        raise ValueError(f"{name} must be one id or a one-dimensional array of ids, not of shape {array.shape}")
    outside = np.flatnonzero((array < 0) | (array >= size))
    if outside.size:
        raise IndexError(f"{name} {array[outside[0]]} (position {outside[0]}) is outside of [0, {size})")
    return array.astype(np.int64, copy=False)


class Candidates:
    """Factors made ready to be searched many times.

    Parameters
    ----------
    factors : float array, shape (n_factors, k)
        float32 or float64; not copied, and not to be modified as long as this is used.
    unit : bool
        Search by cosine instead of inner product.
    """

    def __init__(self, factors: np.ndarray, unit: bool = False) -> None:
        self.factors = np.ascontiguousarray(factors)
        self.unit = unit

    def __len__(self) -> int:
        return len(self.factors)


def top_n(
    queries: np.ndarray,
    factors: "np.ndarray | Candidates",
    n: int,
    *,
    exclude: Any = None,
    allow: Any = None,
    deny: Any = None,
    num_threads: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The n factors with the largest inner product, for each query; of equal ones the lower code first.

    Parameters
    ----------
    queries : float array, shape (n_queries, k)
    factors : Candidates, or float array, shape (n_factors, k)
        Of the same dtype, float32 or float64. An array that will be searched again is better made `Candidates` once.
    n : int
        At least 1; any number, larger than n_factors too.
    exclude : sparse matrix, shape (n_queries, n_factors), optional
        The entries of row q are left out of the answer to query q.
    allow, deny : int array, optional
        Codes of the only factors to consider, and of those never to return.
    num_threads : int
        0 takes all CPUs of this process.

    Returns
    -------
    ids : int32 array, shape (n_queries, n)
    scores : array like `factors`, shape (n_queries, n)
        Where fewer than n factors can be returned, the last places hold id -1 and score -inf.
    """
    if isinstance(factors, Candidates):
        if factors.unit:
            queries, factors = normalized(queries), normalized(factors.factors)
        else:
            factors = factors.factors
    if isinstance(n, bool) or not hasattr(n, "__index__") or n < 1:
        raise ValueError(f"N must be an integer >= 1, not {n!r}")
    if exclude is not None:
        exclude = canonical_csr(exclude, dtype=factors.dtype, name="exclude")
        if exclude.shape != (len(queries), len(factors)):
            raise ValueError(
                f"exclude has shape {exclude.shape}, but must have {(len(queries), len(factors))}: "
                "one row for each query, one column for each factor"
            )
    banned = None
    if allow is not None or deny is not None:
        banned = np.zeros(len(factors), np.uint8)
        if allow is not None:
            banned[:] = 1
            banned[codes(allow, len(factors), "items to return")] = 0
        if deny is not None:
            banned[codes(deny, len(factors), "items to filter")] = 1
    found = min(int(n), len(factors))
    ids = np.full((len(queries), n), -1, np.int32)
    scores = np.full((len(queries), n), -np.inf, factors.dtype)
    best_ids, best_scores = (ids, scores) if found == n else (ids[:, :found].copy(), scores[:, :found].copy())
    with _threads.one_blas_thread():
        _topk.top_n(
            np.ascontiguousarray(queries, factors.dtype),
            np.ascontiguousarray(factors),
            None if exclude is None else exclude.indptr,
            None if exclude is None else exclude.indices,
            banned,
            best_ids,
            best_scores,
            _threads.resolve(num_threads, len(queries) * factors.size),
        )
    ids[:, :found], scores[:, :found] = best_ids, best_scores
    return ids, scores


def normalized(factors: np.ndarray) -> np.ndarray:
    """`factors` with rows of length 1, so that inner products are cosines; zero rows stay zero."""
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    return np.divide(factors, norms, out=np.zeros_like(factors), where=norms > 0)
