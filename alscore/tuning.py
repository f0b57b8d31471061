"""A score for scikit-learn's searches over parameters: how well hidden items of unseen users are ranked."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from alscore.interactions import canonical_csr


def ranking_scorer(
    metric: str = "ndcg", k: int = 10, held_out: float = 0.2, random_state: int = 0
) -> Callable[..., float]:
    """Make a scorer for ``GridSearchCV(scoring=...)`` and its kin.

    They split the rows, so a model is judged on users that it never saw (strong generalisation: Liang et al. 2018).
    Of each such user a share of the items is hidden, the user is folded in exactly on the rest, and the items not
    among the rest are ranked::

        model, scorer = AlternatingLeastSquares(num_threads=1), ranking_scorer("ndcg", k=10)
        search = GridSearchCV(model, {"factors": [32, 64], "alpha": [1, 10]}, scoring=scorer, n_jobs=-1)
        search.fit(interactions, show_progress=False)
        search.best_params_, search.best_estimator_

    and at random, ``RandomizedSearchCV(model, {"alpha": scipy.stats.loguniform(1, 100)}, scoring=scorer)``.
    Without `scoring` they take the model's method `score`, which is the scorer made by ``ranking_scorer()``.

    Parameters
    ----------
    metric : {"ndcg", "recall", "precision"}
        With H the user's hidden items, and rel_j 1 where the j-th ranked item is among them, else 0: ::

            ndcg = sum_{j<=k} rel_j / log2(j + 1)  /  sum_{j<=min(k,|H|)} 1 / log2(j + 1)
            recall = sum_{j<=k} rel_j / |H|
            precision = sum_{j<=k} rel_j / k
    k : int
        Length of the ranking, at least 1.
    held_out : float
        Share to hide of each user's items, above 0 and below 1: rounded down, but at least one, and at least one stays.
        Dislikes (values below 0) stay all.
    random_state : int
        The same hides the same items of the same rows, so that all candidates of a search are judged alike.

    Returns
    -------
    function ``(estimator, X, y=None) -> float``
        The mean over the users who like at least two items; the others cannot be judged. `X` is a scipy sparse matrix
        (n_users, n_items) or an Interactions, `estimator` a fitted model with the item codes of `X`. It raises
        ValueError if there is no such user, and NotFittedError.

    Raises
    ------
    ValueError
        A parameter is not as above.
    """
    if metric not in _METRICS:
        raise ValueError(f"metric must be one of {', '.join(map(repr, _METRICS))}, not {metric!r}")
    for name, value, least in (("k", k, 1), ("random_state", random_state, 0)):
        if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, not {value!r}")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be above 0 and below 1, not {held_out!r}")
    return functools.partial(_score, metric=metric, k=k, held_out=held_out, random_state=random_state)


def _score(estimator: Any, X: Any, y: Any = None, *, metric: str, k: int, held_out: float, random_state: int) -> float:
    rest, hidden = _hide(canonical_csr(getattr(X, "matrix", X), np.float64, "X"), held_out, random_state)
    n_users, n_items = rest.shape
    ranked, _ = estimator.recommend(np.arange(n_users), rest, N=k, recalculate_user=True)
    cells = np.arange(n_users)[:, None] * n_items + ranked
    relevant = np.isin(cells, hidden) & (ranked >= 0)
    n_hidden = np.bincount(hidden // n_items, minlength=n_users)
    judged = n_hidden > 0
    return float(_METRICS[metric](relevant[judged], n_hidden[judged]).mean())


def _hide(matrix: sparse.csr_array, held_out: float, random_state: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Split a canonical matrix into what stays of each user, and the cells (user * n_items + item) that are hidden."""
    n_users, n_items = matrix.shape
    users = np.repeat(np.arange(n_users), np.diff(matrix.indptr))
    liked = np.flatnonzero(matrix.data > 0)
    n_liked = np.bincount(users[liked], minlength=n_users)
    n_hidden = np.where(n_liked < 2, 0, np.clip((held_out * n_liked).astype(np.int64), 1, n_liked - 1))
    if not n_hidden.any():
        raise ValueError("X has no user with two positive entries, one to fold in and one to find again")
    shuffled = liked[np.lexsort((np.random.default_rng(random_state).random(liked.size), users[liked]))]
    place = np.arange(liked.size) - np.repeat(np.cumsum(n_liked) - n_liked, n_liked)
    hidden = shuffled[place < np.repeat(n_hidden, n_liked)]
    rest = matrix.copy()
    rest.data[hidden] = 0
    return rest, users[hidden] * n_items + matrix.indices[hidden]


def _ndcg(relevant: np.ndarray, n_hidden: np.ndarray) -> np.ndarray:
    gains = 1 / np.log2(np.arange(2, relevant.shape[1] + 2))
    return relevant @ gains / np.cumsum(gains)[np.minimum(n_hidden, len(gains)) - 1]


def _recall(relevant: np.ndarray, n_hidden: np.ndarray) -> np.ndarray:
    return relevant.sum(axis=1) / n_hidden


def _precision(relevant: np.ndarray, n_hidden: np.ndarray) -> np.ndarray:
    return relevant.mean(axis=1)


# from which ranked items are among the hidden, bool (n_users, k), and how many are hidden, (n_users,)
_METRICS = {"ndcg": _ndcg, "recall": _recall, "precision": _precision}
