"""Other strengths for the same entries: what is done to play counts before they are factorised.

Every function takes `user_items`, a scipy sparse matrix (n_users, n_items) in any format or an Interactions, and does
not modify it. A matrix gives a canonical csr_array (see `alscore.interactions.canonical_csr`): float64 if it was that,
else float32; an Interactions gives one with the same labels, timestamps and report. The entries stay the same, and of
a canonical matrix their indices are shared: a value whose weight that dtype cannot hold, or only as 0, which would be
no entry, is a ValueError. Weights are computed in float64.

In the formulas r_ui is the value of user u and item i, and w_ui its weight. `AlternatingLeastSquares` makes a
confidence of that, as it does of any value: 1 + alpha w_ui, or with ``confidence="raw"`` alpha w_ui.
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
from alscore.interactions import Interactions, replaced


def log(user_items: Any, epsilon: float = 1.0) -> Any:
    """Let each further play count for less: ``w_ui = sign(r_ui) log(1 + |r_ui| / epsilon)``.

    Hu, Koren, Volinsky (2008), equation 6; ``confidence="log"`` of `AlternatingLeastSquares` does the same.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
        Dislikes (values below 0) stay dislikes.
    epsilon : float
        Above 0, in the unit of the values: about where weights stop growing in proportion.

    Returns
    -------
    As `user_items`; the head of this module says more.

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
    """Okapi BM25: counts saturate, and those of long documents and of frequent terms weigh less.

    With items as documents d and users as terms t, ::

        w_ui = r_ui (k1 + 1) / (r_ui + k1 (1 - b + b length_d / average)) * idf_t
        idf_t = log(N / (1 + n_t))

    where length_d is the sum of the document's values, average its mean over all N documents, and n_t the number of
    documents that have an entry of the term.

    Robertson, Zaragoza (2009), The Probabilistic Relevance Framework: BM25 and Beyond, equation 3.15, in the form
    with the factor k1 + 1, and with the idf of `implicit`, whose function takes documents × terms. Its
    ``bm25_weight(item_users, K1, B)`` is ``bm25(item_users.T, K1, B).T`` here, with the same defaults, and its
    ``bm25_weight(user_items, K1, B)`` is ``bm25(user_items, K1, B, documents="users")``.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    k1 : float
        At least 0, in the unit of the values: the larger it is, the later they saturate. Texts, whose counts are small,
        take 1.2 to 2.
    b : float
        From 0 to 1: how much the length of a document counts.
    documents : {"items", "users"}
        Which of the two are documents. ``"items"`` damps popular items and users who have many; ``"users"`` damps
        users with many plays, and items that many have.

    Returns
    -------
    As `user_items`; the head of this module says more.

    Raises
    ------
    ValueError
        Dislikes (values below 0), which no document has; or a term in all documents or all but one, whose idf is not
        above 0.
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

    Salton, Buckley (1988), Term-weighting approaches in automatic text retrieval, with the square root that Lucene's
    classic similarity has; `implicit` has that too: its ``tfidf_weight(item_users)`` is ``tfidf(item_users.T).T`` here,
    and its ``tfidf_weight(user_items)`` is ``tfidf(user_items, documents="users")``.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    documents : {"items", "users"}
        Which of the two are documents, so that the other ones are terms. ``"items"`` damps users who have many items,
        ``"users"`` damps popular items.

    Returns
    -------
    As `user_items`; the head of this module says more.

    Raises
    ------
    ValueError
        As by `bm25`.
    """
    matrix = matrix_of(user_items)
    weights = np.sqrt(_counts(matrix, "tfidf")) * _documents(matrix, documents)[2]
    return _weighted(user_items, matrix, weights, "scale the values")


def normalize(user_items: Any, norm: str = "l2", axis: str = "users") -> Any:
    """Give each user, or each item, the same norm: ``w_ui = r_ui / norm_u``.

    The vector space model of Salton, Wong, Yang (1975): with "l2" the inner product of two users, or of two items, is
    their cosine.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
        Dislikes (values below 0) stay dislikes, and count with their absolute values.
    norm : {"l2", "l1", "max"}
        What becomes 1: the root of the sum of squares, the sum of absolute values, or the largest of these.
    axis : {"users", "items"}
        Whose norms, those of rows or of columns. Those without entries stay so.

    Returns
    -------
    As `user_items`; the head of this module says more.
    """
    require(norm in ("l2", "l1", "max"), "norm", "'l2', 'l1' or 'max'", norm)
    require(axis in ("users", "items"), "axis", "'users' or 'items'", axis)
    matrix = matrix_of(user_items)
    codes = entry_rows(matrix) if axis == "users" else matrix.indices
    largest = np.zeros(matrix.shape[axis == "items"])
    np.maximum.at(largest, codes, np.abs(matrix.data))
    weights = matrix.data / largest[codes]  # before squares, which float64 might not hold
    if norm == "l1":
        weights /= np.bincount(codes, np.abs(weights))[codes]
    elif norm == "l2":
        weights /= np.sqrt(np.bincount(codes, weights**2))[codes]
    return _weighted(user_items, matrix, weights, f"clip the values: those of one of the {axis} are too far apart")


def clip(user_items: Any, lower: float = 0.0, upper: float = math.inf) -> Any:
    """Bring values that are out of bounds to them: ``w_ui = sign(r_ui) min(max(|r_ui|, lower), upper)``.

    Known as winsorising (Dixon 1960). ``clip(user_items, 1, 1)`` leaves only who has what.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
        Dislikes (values below 0) stay dislikes: of them the absolute values are clipped.
    lower, upper : float
        In the unit of the values; 0 <= lower <= upper, 0 < upper.

    Returns
    -------
    As `user_items`; the head of this module says more.
    """
    require(0 <= lower < math.inf, "lower", "finite and at least 0", lower)
    require(upper >= lower and upper > 0, "upper", f"above 0 and at least lower, which is {lower!r}", upper)
    matrix = matrix_of(user_items)
    weights = np.copysign(np.clip(np.abs(matrix.data, dtype=np.float64), lower, upper), matrix.data)
    return _weighted(user_items, matrix, weights, "choose other bounds")


def time_decay(user_items: Any, half_life: float, timestamps: npt.ArrayLike | None = None, now: Any = None) -> Any:
    """Let what is long ago count for less: ``w_ui = r_ui 2**(-(now - t_ui) / half_life)``.

    Ding, Li (2005), Time weight collaborative filtering, whose decay is exp(-λ t) with λ = log(2) / half_life. An
    entry that has decayed to nothing is still one, of the least normal number: with ``confidence="linear"`` it has a
    confidence of 1. To have only what is recent take a part of `alscore.splits.time_split`.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
        Dislikes (values below 0) stay dislikes, and decay like likes.
    half_life : float
        Seconds after which an entry counts half, such as ``30 * 86400``.
    timestamps : int array of length nnz, optional
        t_ui, seconds since 1970, one for each entry in the order of `data` of a matrix in canonical form. Default:
        those of the Interactions.
    now : int, str or datetime, optional
        Seconds since 1970, or what `numpy.datetime64` takes, such as "2009-05-01", in UTC; none of the timestamps is
        later. Default: the latest of them.

    Returns
    -------
    As `user_items`; the head of this module says more.

    Raises
    ------
    ValueError, TypeError
        There are no timestamps, not one for each entry, not whole numbers, or later than `now`.
    """
    require(0 < half_life < math.inf, "half_life", "a finite number of seconds above 0", half_life)
    matrix = matrix_of(user_items)
    timestamps = timestamps_of(user_items, matrix, timestamps)
    now = timestamps.max(initial=np.iinfo(np.int64).min) if now is None else seconds_of(now, "now")
    later = np.flatnonzero(timestamps > now)
    if later.size:
        raise ValueError(
            f"timestamps: {timestamps[later[0]]} at row {row_of_entry(matrix.indptr, later[0])} is later than now, which is "
            f"{now}; give a later now, or leave such entries out"
        )
    weights = np.abs(matrix.data) * np.exp2((timestamps - np.float64(now)) / half_life)
    weights = np.copysign(np.maximum(weights, np.finfo(matrix.dtype).tiny), matrix.data)
    return _weighted(user_items, matrix, weights, "choose another half_life")


def _counts(matrix: sparse.csr_array, name: str) -> Doubles:
    """Return the values, float64, if there is none below 0."""
    below = np.flatnonzero(matrix.data < 0)
    if below.size:
        raise ValueError(
            f"user_items holds {matrix.data[below[0]]} at row {row_of_entry(matrix.indptr, below[0])}; {name} is defined for "
            f"counts: leave out the values below 0, or choose log, normalize or clip, which keep the sign"
        )
    counts: Doubles = matrix.data.astype(np.float64)
    return counts


def _documents(matrix: sparse.csr_array, documents: str) -> tuple[Ints, int, Doubles]:
    """Return (the document of each entry, the number of documents, the idf of each entry's term)."""
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
    """Return the entries of `matrix`, canonical and made of `user_items`, with other values."""
    with np.errstate(over="ignore", under="ignore"):
        values = weights.astype(matrix.dtype, copy=False)
    lost = np.flatnonzero((values == 0) | ~np.isfinite(values))
    if lost.size:
        at = lost[0]
        raise ValueError(
            f"user_items: {matrix.data[at]} at row {row_of_entry(matrix.indptr, at)} would weigh {weights[at]:g}, which "
            f"{matrix.dtype} rounds to {values[at]}; {remedy}"
        )
    weighted = from_canonical(values, matrix.indices, matrix.indptr, matrix.shape)
    return replaced(user_items, matrix=weighted) if isinstance(user_items, Interactions) else weighted
