"""Exact top-N search: the ids of the largest inner products or cosines."""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alscore._core import kernel_table, topk
from alscore._data.canonical import MAX_LENGTH, CanonicalRows, canonical_rows
from alscore._support.arrays import Doubles, Floats, Int32s, Int64s, Ints
from alscore._support.checks import require_integer
from alscore._support.moved import renamed
from alscore._support.threads import resolve_threads

PACKED_BYTES = 1 << 25  # bytes of the copy of the first candidates in the layout of the kernels: memory against speed
# Number of queries from which it pays to sort the candidates by norm, measured with 292,385 candidates of 128 factors.
WORTH_ORDERING = 16


def checked_ids(ids: Any, size: int, name: str) -> Int64s:
    """Return `ids` as an int64 array of one dimension, verified to lie in [0, size).

    Raises
    ------
    TypeError
        The ids are not integers.
    ValueError
        The array has more than one dimension.
    IndexError
        An id is out of range. Negative ids do not count from the end.
    """
    array = np.atleast_1d(np.asarray(ids))
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integer ids, not {array.dtype}; look labels up first, or use Recommender")
    if array.ndim != 1:
        raise ValueError(f"{name} must be one id or a one-dimensional array of ids, not of shape {array.shape}")
    outside = (array < 0) | (array >= size)
    if outside.any():
        at = outside.argmax()
        if array[at] < 0 and size >= MAX_LENGTH:  # then `size` is not that of a model
            raise IndexError(f"{name} {array[at]} (position {at}): ids must be at least 0")
        raise IndexError(f"{name} {array[at]} (position {at}) is outside of [0, {size})")
    return array.astype(np.int64, copy=False)


class Candidates:
    """Factors prepared for many searches.

    The preparation costs about as much as ten queries that score all factors. It takes memory for four numbers a row,
    and up to `packed_bytes` for a copy of the first rows in the layout of the kernels.

    Parameters
    ----------
    factors : float array, shape (n_candidates, k)
        float32 or float64. Not copied if contiguous. It must not be modified while this object is in use.
    unit : bool
        Search by cosine instead of inner product. The cosine is 0 for a row of zeros, and for a row whose norm, or the
        inverse of its norm, is out of the range of the dtype.
    ordered : bool
        Sort the factors by descending norm. A search then ends where no norm can reach the n-th best score any more.
        Otherwise, and by cosine, every row is scored. `ordered` does not change the bits of the results.
    num_threads : int
        Number of threads of the preparation. 0 takes all CPUs of this process.
    packed_bytes : int
        Bytes of the copy of the first rows. A larger copy makes searches that score many rows faster.
    """

    def __init__(
        self,
        factors: Floats,
        unit: bool = False,
        *,
        ordered: bool = True,
        num_threads: int = 0,
        packed_bytes: int = PACKED_BYTES,
    ) -> None:
        factors = np.ascontiguousarray(factors)
        if factors.ndim != 2 or factors.shape[1] < 1 or factors.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"factors must be float32 or float64 of shape (n, k), k >= 1, not {factors.dtype} {factors.shape}"
            )
        self.factors, self.unit = factors, unit
        self.scored = 1 / 32 if ordered and not unit else 1.0  # share of trained factors that a search scores
        self.scale: Floats | None = None
        self.packed: Floats | None = None
        self.isa = kernel_table.isa()  # the kernel set whose panels `packed` has
        threads = resolve_threads(num_threads, factors.size)
        norm = topk.norms(factors, threads) if unit or ordered else np.ones(len(factors))
        if unit:
            self.scale = _inverse(norm, factors.dtype)
            with np.errstate(invalid="ignore"):
                norm *= self.scale
        if ordered:
            # by cosine all norms are 1 or 0: the order in memory is the fastest
            self.order = np.argsort(norm < 0.5 if unit else -norm, kind="stable").astype(np.int32)
            self.norm = norm
            self._keep(self.order)
            head = min(len(factors), packed_bytes // (factors.itemsize * max(1, factors.shape[1])))
            self.packed = topk.pack(factors, self.order, self.scale, head, threads)
        else:
            self.order = np.arange(len(factors), dtype=np.int32)
            self.norm = np.full(len(factors), np.inf)

    @property
    def panels(self) -> Floats | None:
        """The packed rows, or None if they are in the layout of another kernel set than the one in use."""
        return self.packed if self.isa == kernel_table.isa() else None

    def _keep(self, positions: Ints) -> None:
        self.norm = self.norm[positions]
        if self.scale is not None:
            self.scale = self.scale[positions]

    def _among(self, banned: NDArray[np.uint8]) -> "Candidates":
        """Return the candidates that are not banned."""
        fewer = copy.copy(self)
        left = np.flatnonzero(banned[self.order] == 0)
        fewer.order, fewer.packed = self.order[left], None
        fewer._keep(left)
        return fewer


def top_n(
    queries: Floats,
    factors: Floats | Candidates,
    n: int,
    *,
    exclude: Any = None,
    allow: Any = None,
    deny: Any = None,
    num_threads: int = 0,
) -> tuple[Int32s, Floats]:
    """Find for each query the n candidates with the largest inner product (or cosine). Ties: lower id first.

    The search is exact: a candidate that is not scored cannot be among the n best. A score does not depend on the other
    queries of the call, on the number of threads, or on the excluded candidates.

    Parameters
    ----------
    queries : float array, shape (n_queries, k)
    factors : Candidates, or float array, shape (n_candidates, k)
        float32 or float64. For several searches of the same array, make `Candidates` of it once.
    n : int
        Number of results for each query, at least 1. May be larger than n_candidates.
    exclude : sparse matrix, shape (n_queries, n_candidates), optional
        The entries of row q are not returned for query q.
    allow, deny : int array, optional
        Ids of the only candidates to consider, and ids never to return.
    num_threads : int
        Number of threads. 0 takes all CPUs of this process.

    Returns
    -------
    ids : int32 array, shape (n_queries, n)
    scores : array, shape (n_queries, n), dtype of the factors
        Descending. Where there are fewer than n results, the last places hold id -1 and score -inf. A product that
        overflows to -inf, or to NaN, is not returned.

    Raises
    ------
    ValueError
        `n` is below 1, or shapes do not fit each other.
    IndexError
        An id in `allow` or `deny` is out of range.
    """
    require_integer(n, "N", 1, 2**31 - 1)
    if not isinstance(factors, Candidates):
        factors = Candidates(factors, ordered=len(queries) >= WORTH_ORDERING, num_threads=num_threads)
    size, dtype = factors.factors.shape, factors.factors.dtype
    queries = np.ascontiguousarray(queries, dtype)
    if queries.ndim != 2 or queries.shape[1] != size[1]:
        raise ValueError(f"queries have shape {queries.shape}, but must have (n_queries, {size[1]}), as the factors")
    banned = None
    if exclude is not None:
        if not isinstance(exclude, CanonicalRows):
            exclude = canonical_rows(exclude, dtype, "exclude")
        if exclude.shape != (len(queries), size[0]):
            raise ValueError(
                f"exclude has shape {exclude.shape}, but must have {(len(queries), size[0])}: "
                "one row for each query, one column for each candidate"
            )
    if allow is not None or deny is not None:
        banned = np.full(size[0], allow is not None, np.uint8)
        if allow is not None:
            banned[checked_ids(allow, size[0], "ids to return")] = 0
        if deny is not None:
            banned[checked_ids(deny, size[0], "ids to filter")] = 1
        if 2 * np.count_nonzero(banned) > len(banned):
            factors, banned = factors._among(banned), None
    norm = topk.norms(queries, 1)
    if factors.unit:
        inverse = _inverse(norm, dtype)
        with np.errstate(invalid="ignore"):
            queries, norm = queries * inverse[:, None], norm * inverse
    ids, scores = topk.search(
        queries,
        norm,
        factors,
        exclude,
        banned,
        min(int(n), size[0]),
        resolve_threads(num_threads, len(queries) * len(factors.order) * size[1] * factors.scored),
    )
    if n > size[0]:
        beyond = ((0, 0), (0, int(n) - size[0]))
        ids, scores = np.pad(ids, beyond, constant_values=-1), np.pad(scores, beyond, constant_values=-np.inf)
    return ids, scores


def _inverse(norm: Doubles, dtype: np.dtype) -> Floats:
    """Return 1 / norm, or 0 where `dtype` cannot hold it: so short a vector counts as zero."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1 / norm
    return np.where(inverse < np.finfo(dtype).max, inverse, 0).astype(dtype)


__getattr__ = renamed(__name__, {"codes": "checked_ids"})
