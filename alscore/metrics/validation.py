"""A model judged by held-out interactions: while it trains, in a search, and by scikit-learn."""

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
from alscore.metrics.rankings import judgeable, overlap, refuse_overlap, relevant


def validator(validation: Any, metric: str = "ndcg@10") -> "Validator":
    """Make a function that judges a model by held-out interactions.

    Parameters
    ----------
    validation : (train, test), Split or UserSplit
        Sparse matrices or Interactions. Two parts are of the users that the model is trained on. A UserSplit has users
        that the model does not know: they are folded in.
    metric : str
        A metric of `alscore.evaluate` that is better the higher it is, and a cut-off: "ndcg@10".

    Returns
    -------
    Validator
        A function from a model, which has `user_factors` and `item_factors`, to the mean over the users with anything
        to find. It raises what `alscore.evaluate` raises.

    Raises
    ------
    TypeError
        `validation` is not as above.
    ValueError
        The parts differ in shape or labels, or have an entry in common; there is nothing to find, or no such metric.
    """
    name, k = parsed(metric)
    new_users = isinstance(validation, splits.UserSplit)
    if not new_users and not (isinstance(validation, tuple) and len(validation) == 2):
        raise TypeError(f"validation must be (train, test), a Split or a UserSplit, not {type(validation).__name__}")
    known, hidden = (validation.fold_in, validation.test) if new_users else validation
    check_labels(known, hidden, "the parts of validation", ("users", "items"))
    test = relevant(hidden)
    train = matrix_of(known)
    judgeable(train, test)
    refuse_overlap(test, overlap(test, train), "leave them out of one part")
    return Validator(known, train, test, name, k, new_users)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Validator:
    """What `validator` makes, a function of a model.

    Attributes
    ----------
    known : sparse matrix or Interactions, shape (n_users, n_items)
        What is known of the users, as it was given.
    train, test : csr_array, shape (n_users, n_items)
        The same, and what is to be found, both canonical.
    metric : str
    k : int
    new_users : bool
        Whether the users are to be folded in.
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
        """Refuse what a model must not be trained on, if this is to judge it.

        Parameters
        ----------
        user_items : sparse matrix, shape (n_users, n_items), or Interactions

        Raises
        ------
        ValueError
            It has other users or items, or holds what is to be found.
        """
        matrix, first = matrix_of(user_items), int(self.new_users)  # new users are others than those trained on
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
            refuse_overlap(self.test, overlap(self.test, matrix), "train without what validation holds out")


def parsed(metric: str) -> tuple[str, int]:
    """Name and cut-off of a metric such as "ndcg@10"; ValueError if there is none of that name with a cut-off."""
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
    metric : str
        "ndcg", "recall", "precision" or another metric of `alscore.evaluate` that is better the higher it is.
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
    parsed(f"{metric}@{k}")
    require_integer(random_state, "random_state", 0)
    require(0 < held_out < 1, "held_out", "above 0 and below 1", held_out)
    return functools.partial(_score, metric=metric, k=k, held_out=held_out, random_state=random_state)


def _score(estimator: Any, X: Any, y: Any = None, *, metric: str, k: int, held_out: float, random_state: int) -> float:
    rest, hidden = splits.hide_share(X, held_out, random_state)
    return _mean(estimator, rest, hidden, metric, k, new_users=True)
