"""Scores of a model on held-out entries: after each sweep of a training, in a search, and for scikit-learn."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from scipy import sparse

from alscore import splits
from alscore._data.user_items import matrix_of
from alscore._support.checks import require, require_integer
from alscore.interactions import Interactions
from alscore.metrics import AT_K
from alscore.metrics.evaluation import check_labels, evaluate
from alscore.metrics.rankings import HeldOut


def validator(validation: Any, metric: str = "ndcg@10") -> "Validator":
    """Return a function that scores a model on held-out entries.

    Parameters
    ----------
    validation : (train, test), Split or UserSplit
        Sparse matrices or Interactions. The users of (train, test) and of a Split are those that the model is trained
        on. The users of a UserSplit are new to the model: it folds them in.
    metric : str
        A metric of `alscore.evaluate` for which higher is better, and a cut-off: "ndcg@10".

    Returns
    -------
    Validator
        A function from a model with `user_factors` and `item_factors` to the mean of the metric over the users with
        test items. Same errors as `alscore.evaluate`.

    Raises
    ------
    TypeError
        `validation` is none of the forms above.
    ValueError
        The parts differ in shape or labels, or have an entry in common. There is no test item. The metric is unknown
        or has no cut-off.
    """
    name, k = parsed(metric)
    new_users = isinstance(validation, splits.UserSplit)
    if not new_users and not (isinstance(validation, tuple) and len(validation) == 2):
        raise TypeError(f"validation must be (train, test), a Split or a UserSplit, not {type(validation).__name__}")
    known, test = (validation.fold_in, validation.test) if new_users else validation
    check_labels(known, test, "the parts of validation", ("users", "items"))
    held_out = HeldOut.of(known, test)
    held_out.refuse_overlap("leave them out of one part")
    return Validator(known, held_out.train, held_out.test, name, k, new_users)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Validator:
    """A function that scores a model on held-out entries. `validator` makes it.

    Attributes
    ----------
    known : sparse matrix or Interactions, shape (n_users, n_items)
        The train or fold-in part, as it was given.
    train, test : csr_array, shape (n_users, n_items)
        `known` and the test items, canonical.
    metric : str
    k : int
    new_users : bool
        Whether the model folds the users in.
    """

    known: Any
    train: sparse.csr_array
    test: sparse.csr_array
    metric: str
    k: int
    new_users: bool

    def __call__(self, model: Any) -> float:
        return _mean(model, self.train, self.test, self.metric, self.k, self.new_users)

    def refuse(self, user_items: Any) -> None:
        """Raise an error if a model that this function scores must not be trained on `user_items`.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_users, n_items), or Interactions

        Raises
        ------
        ValueError
            `user_items` has other users or items than the validation data, or has a held-out entry. With
            `new_users`, only the items must be the same. If both are Interactions, no user may be in both.
        """
        matrix, first = matrix_of(user_items), int(self.new_users)  # new users need not be as many
        if matrix.shape[first:] != self.train.shape[first:]:
            raise ValueError(
                f"user_items has shape {matrix.shape} and the parts of validation {self.train.shape}: take all of them "
                "from one split"
            )
        check_labels(user_items, self.known, "user_items and validation", ("users", "items")[first:])
        if self.new_users and isinstance(user_items, Interactions) and isinstance(self.known, Interactions):
            known = self.known.users[self.known.users.isin(user_items.users)]
            if len(known):
                raise ValueError(f"validation is by new users, but {known[0]!r} is trained on: train without them")
        if not self.new_users:
            HeldOut(matrix, self.test).refuse_overlap("train without the held-out entries of validation")


def parsed(metric: str) -> tuple[str, int]:
    """Return name and cut-off of a metric such as "ndcg@10". ValueError if no metric with a cut-off has the name."""
    name, _, k = str(metric).partition("@")
    valid = name in AT_K and k.isdecimal() and int(k) > 0
    require(valid, "metric", f"one of {', '.join(AT_K)} and a cut-off of at least 1, such as 'ndcg@10'", metric)
    return name, int(k)


def _mean(model: Any, train: Any, test: Any, metric: str, k: int, new_users: bool) -> float:
    evaluation = evaluate(
        model,
        train,
        test,
        k=(k,),
        metrics=(metric,),
        new_users=new_users,
        num_threads=getattr(model, "num_threads", 0),
        show_progress=False,
    )
    return evaluation[f"{metric}@{k}"]


def ranking_scorer(
    metric: str = "ndcg", k: int = 10, held_out: float = 0.2, random_state: int = 0
) -> Callable[..., float]:
    """Return a scorer for ``GridSearchCV(scoring=...)`` and scikit-learn's other searches.

    These searches split the rows, so a model is scored on users that it was not trained on (strong generalisation:
    Liang et al. 2018). For each of these users a share of the items is held out. The user is folded in, exactly, from
    the other items, and all items except these are ranked::

        model, scorer = AlternatingLeastSquares(num_threads=1), ranking_scorer("ndcg", k=10)
        search = GridSearchCV(model, {"factors": [32, 64], "alpha": [1, 10]}, scoring=scorer, n_jobs=-1)
        search.fit(interactions, show_progress=False)
        search.best_params_, search.best_estimator_

    A random search is ``RandomizedSearchCV(model, {"alpha": scipy.stats.loguniform(1, 100)}, scoring=scorer)``.
    Without `scoring`, the searches use the model's method `score`, which uses ``ranking_scorer()``.

    Parameters
    ----------
    metric : str
        "ndcg", "recall", "precision" or another metric of `alscore.evaluate` that has a cut-off and for which higher is
        better.
    k : int
        Length of the ranking, at least 1.
    held_out : float
        Share of each user's items to hold out, above 0 and below 1. The number is rounded down; at least one item is
        held out and at least one is kept. Dislikes (values below 0) are never held out.
    random_state : int
        Seed, >= 0. The same seed holds out the same items of the same rows, so all candidates of a search are scored
        on the same data.

    Returns
    -------
    function ``(estimator, X, y=None) -> float``
        The mean over the users who like at least two items; the other users have no items to hold out. `X` is a scipy
        sparse matrix (n_users, n_items) or Interactions. `estimator` is a fitted model with the item ids of `X`. The
        function raises a ValueError if there is no such user, and a NotFittedError.

    Raises
    ------
    ValueError
        A parameter is out of range, or the metric is unknown or has no cut-off.
    """
    parsed(f"{metric}@{k}")
    require_integer(random_state, "random_state", 0)
    require(0 < held_out < 1, "held_out", "above 0 and below 1", held_out)
    return functools.partial(_score, metric=metric, k=k, held_out=held_out, random_state=random_state)


def _score(estimator: Any, X: Any, y: Any = None, *, metric: str, k: int, held_out: float, random_state: int) -> float:
    fold_in, test = splits.hide_share(X, held_out, random_state)
    return _mean(estimator, fold_in, test, metric, k, new_users=True)
