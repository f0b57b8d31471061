"""The methods that scikit-learn expects of an estimator. `score` ranks held-out entries: hence the place.

This module does not import scikit-learn.
"""

import inspect
from typing import Any, Self


class Estimator:
    """Base class. Each parameter of the constructor is an attribute of the same name."""

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        return {name: p.default for name, p in inspect.signature(cls).parameters.items()}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters by name.

        Parameters
        ----------
        deep : bool
            Ignored; scikit-learn passes it.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Set constructor parameters by name. They take effect from the next call of a method.

        Parameters
        ----------
        **params
            New values.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            A name is not a parameter. Then no parameter is set.
        """
        unknown = params.keys() - self._defaults().keys()
        if unknown:
            raise ValueError(
                f"unknown parameters: {', '.join(map(repr, sorted(unknown)))}; {type(self).__name__} has "
                f"{', '.join(self._defaults())}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """Return NDCG@10 on users that are folded in. scikit-learn's searches use it if `scoring` is None.

        Parameters
        ----------
        X : sparse matrix, shape (n_users, n_items), or Interactions
            Rows of users. The model need not be trained on them.
        y : None
            Ignored; scikit-learn passes it.

        Returns
        -------
        float
            Higher is better. See `alscore.tuning.ranking_scorer`, whose defaults are used.

        Raises
        ------
        ValueError, NotFittedError
            Same errors as the function that ``alscore.tuning.ranking_scorer()`` returns.
        """
        from alscore.metrics.validation import ranking_scorer  # here: it imports pandas

        return ranking_scorer()(self, X)

    def __repr__(self) -> str:
        defaults = self._defaults()
        shown = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name] and not (type(value) is type(defaults[name]) and value == defaults[name])
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags  # here: only scikit-learn, from 1.6 on, calls this

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags(sparse=True))
