"""The habits that scikit-learn expects of an estimator, without importing it."""

import inspect
from typing import Any, Self


class Estimator:
    """Base class: the constructor's parameters are attributes of the same names."""

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        return {name: p.default for name, p in inspect.signature(cls).parameters.items()}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's parameters by name.

        Parameters
        ----------
        deep : bool
            There for scikit-learn; changes nothing.

        Returns
        -------
        dict
        """
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Set constructor parameters by name; they count from the next call on.

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
            There is no parameter of this name; none is set then.
        """
        unknown = params.keys() - self._defaults().keys()
        if unknown:
            raise ValueError(
                f"{', '.join(map(repr, sorted(unknown)))} is not a parameter; there are: {', '.join(self._defaults())}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """The score that scikit-learn's searches take without `scoring`: NDCG@10 on users folded in.

        Parameters
        ----------
        X : sparse matrix, shape (n_users, n_items), or Interactions
            Of users whom the model need not know.
        y : None
            There for scikit-learn.

        Returns
        -------
        float
            That of ``alscore.tuning.ranking_scorer()``, where more is said; so are the errors raised.
        """
        from alscore.metrics.validation import ranking_scorer  # late: it takes time to import

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
        from sklearn.utils import InputTags, Tags, TargetTags  # only scikit-learn, from 1.6 on, asks for them

        return Tags(estimator_type=None, target_tags=TargetTags(required=False), input_tags=InputTags(sparse=True))
