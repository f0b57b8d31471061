"""Other values for the same entries: how to weight play counts before a model is fitted.

Every function takes `user_items`, a scipy sparse matrix (n_users, n_items) in any format or an Interactions, and does
not modify it. From a matrix it returns a canonical csr_array (see `alscore.interactions.canonical_csr`), float64 if the
matrix is float64, else float32. From an Interactions it returns one with the same labels, timestamps and report. The
entries stay the same; the result shares the indices of a canonical matrix. Weights are computed in float64. A weight
that the dtype of the result cannot hold, or rounds to 0, is a ValueError.

In the formulas r_ui is the value of user u and item i, and w_ui the weighted value that replaces it.
`AlternatingLeastSquares` turns w_ui into a confidence like any other value: 1 + alpha w_ui, or alpha w_ui with
``confidence="raw"``.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from alscore._data.canonical import entry_rows, from_canonical, row_of_entry
from alscore._data.user_items import matrix_of, seconds_of, timestamps_of
from alscore._support.arrays import Doubles, Ints
from alscore._support.checks import require
from alscore.interactions import Interactions, copy_with


def log(user_items: Any, epsilon: float = 1.0) -> Any:
    """Logarithm: each further play counts for less. ``w_ui = sign(r_ui) log(1 + |r_ui| / epsilon)``.

    Hu, Koren, Volinsky (2008), equation 6. ``confidence="log"`` of `AlternatingLeastSquares` does the same.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
        Dislikes (values below 0) stay dislikes.
    epsilon : float
        Above 0, in the unit of the values. Weights grow in proportion to values up to about `epsilon`, and more slowly
        beyond it.

    Returns
    -------
    scipy.sparse.csr_array or Interactions
        The same entries with other values. `alscore.weighting` describes the form.

    Raises
    ------
    ValueError
        An argument is not as described, or a weight does not fit the dtype.

    Examples
    --------
    >>> from scipy import sparse
    >>> from alscore import weighting
    >>> weighting.log(sparse.csr_array([[1.0, 0.0, 9.0]])).toarray().round(3).tolist()
    [[0.693, 0.0, 2.303]]
    """
    require(0 < epsilon < math.inf, "epsilon", "finite and above 0", epsilon)
    matrix = matrix_of(user_items)
    weights = np.copysign(np.log1p(np.abs(matrix.data, dtype=np.float64) / epsilon), matrix.data)
    return _weighted(user_items, matrix, weights, "choose an epsilon nearer to the values")


def bm25(user_items: Any, k1: float = 100.0, b: float = 0.8, documents: str = "items") -> Any:
    """Okapi BM25: counts saturate, and counts of long documents and of frequent terms weigh less.

    With items as documents d and users as terms t, ::

        w_ui = r_ui (k1 + 1) / (r_ui + k1 (1 - b + b length_d / average)) * idf_t
        idf_t = log(N / (1 + n_t))

    where length_d is the sum of the values of document d, average is the mean length of all N documents, and n_t is the
    number of documents with an entry of term t.

    Robertson, Zaragoza (2009), The Probabilistic Relevance Framework: BM25 and Beyond, equation 3.15, in the form with
    the factor k1 + 1. The idf is that of `implicit`, whose function takes documents × terms. Its
    ``bm25_weight(item_users, K1, B)`` is ``bm25(item_users.T, K1, B).T`` here, with the same defaults, and its
    ``bm25_weight(user_items, K1, B)`` is ``bm25(user_items, K1, B, documents="users")``.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    k1 : float
        At least 0, in the unit of the values. The larger it is, the later values saturate. For texts, which have small
        counts, 1.2 to 2 is usual.
    b : float
        From 0 to 1: how much the length of a document counts.
    documents : {"items", "users"}
        The side whose members are documents; the members of the other side are terms. ``"items"`` damps popular items,
        and users with many items. ``"users"`` damps users with many plays, and items with many users.

    Returns
    -------
    scipy.sparse.csr_array or Interactions
        The same entries with other values. `alscore.weighting` describes the form.

    Raises
    ------
    ValueError
        An argument is not as described, or a weight does not fit the dtype. There are dislikes (values below 0): BM25
        is defined for counts. A term is in all documents, or in all but one: its idf is not above 0.
    """
    require(0 <= k1 < math.inf, "k1", "finite and at least 0", k1)
    require(0 <= b <= 1, "b", "from 0 to 1", b)
    matrix = matrix_of(user_items)
    counts = _counts(matrix, "bm25")
    document, n_documents, idf = _documents(matrix, documents)
    length = np.bincount(document, counts)
    relative = length[document] * n_documents / length.sum()
    weights = counts * (k1 + 1) / (counts + k1 * (1 - b + b * relative)) * idf
    return _weighted(user_items, matrix, weights, "scale the values, or k1")


def tfidf(user_items: Any, documents: str = "items") -> Any:
    """TF-IDF: ``w_ui = sqrt(r_ui) log(N / (1 + n_t))``, with N and n_t as in `bm25`.

    Salton, Buckley (1988), Term-weighting approaches in automatic text retrieval, with the square root of Lucene's
    classic similarity and of `implicit`. The ``tfidf_weight(item_users)`` of `implicit` is ``tfidf(item_users.T).T``
    here, and its ``tfidf_weight(user_items)`` is ``tfidf(user_items, documents="users")``.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    documents : {"items", "users"}
        The side whose members are documents; the members of the other side are terms. ``"items"`` damps users with many
        items, ``"users"`` damps popular items.

    Returns
    -------
    scipy.sparse.csr_array or Interactions
        The same entries with other values. `alscore.weighting` describes the form.

    Raises
    ------
    ValueError
        Same errors as `bm25`.
    """
    matrix = matrix_of(user_items)
    weights = np.sqrt(_counts(matrix, "tfidf")) * _documents(matrix, documents)[2]
    return _weighted(user_items, matrix, weights, "scale the values")


def normalize(user_items: Any, norm: str = "l2", axis: str = "users") -> Any:
    """Give each user, or each item, the same norm: ``w_ui = r_ui / norm_u``.

    The vector space model of Salton, Wong, Yang (1975). With "l2" the inner product of two users, or of two items, is
    the cosine of their angle.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
        Dislikes (values below 0) stay dislikes, and count with their absolute values.
    norm : {"l2", "l1", "max"}
        The norm that becomes 1: the root of the sum of squares, the sum of absolute values, or the largest absolute
        value.
    axis : {"users", "items"}
        The side whose norms become 1. Users or items without entries remain without entries.

    Returns
    -------
    scipy.sparse.csr_array or Interactions
        The same entries with other values. `alscore.weighting` describes the form.

    Raises
    ------
    ValueError
        An argument is not as described, or a weight does not fit the dtype.
    """
    require(norm in ("l2", "l1", "max"), "norm", "'l2', 'l1' or 'max'", norm)
    require(axis in ("users", "items"), "axis", "'users' or 'items'", axis)
    matrix = matrix_of(user_items)
    ids = entry_rows(matrix) if axis == "users" else matrix.indices
    largest = np.zeros(matrix.shape[axis == "items"])
    np.maximum.at(largest, ids, np.abs(matrix.data))
    weights = matrix.data / largest[ids]  # divide first: float64 might not hold the squares
    if norm == "l1":
        weights /= np.bincount(ids, np.abs(weights))[ids]
    elif norm == "l2":
        weights /= np.sqrt(np.bincount(ids, weights**2))[ids]
    return _weighted(user_items, matrix, weights, f"clip the values: those of one of the {axis} are too far apart")


def clip(user_items: Any, lower: float = 0.0, upper: float = math.inf) -> Any:
    """Limit values to a range: ``w_ui = sign(r_ui) min(max(|r_ui|, lower), upper)``.

    Known as winsorising (Dixon 1960). ``clip(user_items, 1, 1)`` makes every like 1 and every dislike -1.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
        Dislikes (values below 0) stay dislikes: their absolute values are clipped.
    lower, upper : float
        Limits in the unit of the values: 0 <= lower <= upper, 0 < upper.

    Returns
    -------
    scipy.sparse.csr_array or Interactions
        The same entries with other values. `alscore.weighting` describes the form.

    Raises
    ------
    ValueError
        An argument is not as described, or a weight does not fit the dtype.
    """
    require(0 <= lower < math.inf, "lower", "finite and at least 0", lower)
    require(upper >= lower and upper > 0, "upper", f"above 0 and at least lower, which is {lower!r}", upper)
    matrix = matrix_of(user_items)
    weights = np.copysign(np.clip(np.abs(matrix.data, dtype=np.float64), lower, upper), matrix.data)
    return _weighted(user_items, matrix, weights, "choose other bounds")


def time_decay(user_items: Any, half_life: float, timestamps: npt.ArrayLike | None = None, now: Any = None) -> Any:
    """Exponential decay: old entries count for less. ``w_ui = r_ui 2**(-(now - t_ui) / half_life)``.

    Ding, Li (2005), Time weight collaborative filtering. Their decay is exp(-λ t) with λ = log(2) / half_life. A weight
    below the smallest normal number becomes that number, so the entry remains: with ``confidence="linear"`` it has
    a confidence of 1. To use recent entries only, take a part of `alscore.splits.time_split`.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
        Dislikes (values below 0) stay dislikes, and decay like likes.
    half_life : float
        Seconds after which an entry counts half, such as ``30 * 86400``. Above 0.
    timestamps : int array of length nnz, optional
        t_ui: seconds since 1970, one for each entry, in the order of `data` of a matrix in canonical form. Default: the
        timestamps of the Interactions.
    now : int, str or datetime, optional
        Seconds since 1970, or anything that `numpy.datetime64` takes, such as "2009-05-01", in UTC. No timestamp may be
        later. Default: the latest timestamp.

    Returns
    -------
    scipy.sparse.csr_array or Interactions
        The same entries with other values. `alscore.weighting` describes the form.

    Raises
    ------
    ValueError, TypeError
        There are no timestamps, not one for each entry, not whole numbers, or one is later than `now`. An argument is
        not as described, or a weight does not fit the dtype.
    """
    require(0 < half_life < math.inf, "half_life", "a finite number of seconds above 0", half_life)
    matrix = matrix_of(user_items)
    timestamps = timestamps_of(user_items, matrix, timestamps)
    now = timestamps.max(initial=np.iinfo(np.int64).min) if now is None else seconds_of(now, "now")
    later = np.flatnonzero(timestamps > now)
    if later.size:
        at = later[0]
        raise ValueError(
            f"timestamps: {timestamps[at]} at row {row_of_entry(matrix.indptr, at)} is later than now, which is {now}; "
            f"give a later now, or leave such entries out"
        )
    weights = np.abs(matrix.data) * np.exp2((timestamps - np.float64(now)) / half_life)
    weights = np.copysign(np.maximum(weights, np.finfo(matrix.dtype).tiny), matrix.data)
    return _weighted(user_items, matrix, weights, "choose another half_life")


def _counts(matrix: sparse.csr_array, name: str) -> Doubles:
    """Return the values as float64. Refuse values below 0 for the function `name`."""
    below = np.flatnonzero(matrix.data < 0)
    if below.size:
        at, row = below[0], row_of_entry(matrix.indptr, below[0])
        raise ValueError(
            f"user_items holds {matrix.data[at]} at row {row}; {name} is defined for counts: "
            f"leave out the values below 0, or choose log, normalize or clip, which keep the sign"
        )
    counts: Doubles = matrix.data.astype(np.float64)
    return counts


def _documents(matrix: sparse.csr_array, documents: str) -> tuple[Ints, int, Doubles]:
    """Return the document of each entry, the number of documents, and the idf of the term of each entry."""
    require(documents in ("items", "users"), "documents", "'items' or 'users'", documents)
    document, term, n_documents, name = matrix.indices, entry_rows(matrix), matrix.shape[1], "user"
    if documents == "users":
        document, term, n_documents, name = term, document, matrix.shape[0], "item"
    containing = np.bincount(term)[term]
    frequent = np.flatnonzero(containing + 1 >= n_documents)
    if frequent.size:
        at = frequent[0]
        raise ValueError(
            f"user_items: {name} {term[at]} has entries with {containing[at]} of the {n_documents} {documents}, and "
            f"its idf, log(N / (1 + n)), is not above 0; leave that {name} out, or choose other documents"
        )
    return document, n_documents, np.log(n_documents / (1.0 + containing))


def _weighted(user_items: Any, matrix: sparse.csr_array, weights: Doubles, remedy: str) -> Any:
    """Return `user_items` with other values. `matrix` is ``matrix_of(user_items)``; `remedy` ends the error message."""
    with np.errstate(over="ignore", under="ignore"):
        values = weights.astype(matrix.dtype, copy=False)
    lost = np.flatnonzero((values == 0) | ~np.isfinite(values))
    if lost.size:
        at, row = lost[0], row_of_entry(matrix.indptr, lost[0])
        raise ValueError(
            f"user_items: {matrix.data[at]} at row {row} would weigh {weights[at]:g}, which {matrix.dtype} rounds to "
            f"{values[at]}; {remedy}"
        )
    weighted = from_canonical(values, matrix.indices, matrix.indptr, matrix.shape)
    return copy_with(user_items, matrix=weighted) if isinstance(user_items, Interactions) else weighted
