"""The parameters: MLlib's by the names of pyspark.ml.recommendation.ALS, and alscore's own by alscore's names."""

import dataclasses
import math
from typing import Any

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.recommendation import _ALSModelParams, _ALSParams  # MLlib's own names, getters and descriptions

from alscore._support.checks import require, require_integer
from alscore.solvers.objective import Objective

# The parameters of AlternatingLeastSquares that a fit on Spark has, and those of them that MLlib names otherwise.
LOCAL_PARAMETERS = (
    *("factors", "iterations", "regularization", "alpha", "solver", "confidence", "epsilon"),
    *("unobserved_weight", "regularization_exponent", "regularization_count"),
)
_MLLIB_NAMES = {"factors": "rank", "iterations": "maxIter", "regularization": "regParam"}


def _own(name: str, doc: str, converter: Any) -> Any:
    return Param(Params._dummy(), name, doc, typeConverter=converter)


class ALSModelParams(_ALSModelParams):
    """Parameters of a fitted model."""

    ratingCol = _own("ratingCol", "column name for ratings", TypeConverters.toString)  # noqa: N815

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(userCol="user", itemCol="item", ratingCol="rating", coldStartStrategy="nan")

    def _value(self, name: str) -> Any:
        return self.getOrDefault(name)


class ALSParams(_ALSParams, ALSModelParams):
    """Parameters of a fit."""

    solver = _own("solver", "name of the solver", TypeConverters.toString)
    confidence = _own("confidence", "how confidence grows with a rating: linear, log or raw", TypeConverters.toString)
    epsilon = _own("epsilon", "ε of the log confidence", TypeConverters.toFloat)
    unobserved_weight = _own("unobserved_weight", "confidence of a pair without a rating", TypeConverters.toFloat)
    regularization_exponent = _own(
        "regularization_exponent", "power of a row's size by which regParam is multiplied", TypeConverters.toFloat
    )
    regularization_count = _own(
        "regularization_count", "what a row's size counts: entries, or all", TypeConverters.toString
    )
    calculate_training_loss = _own(
        "calculate_training_loss", "whether to compute the objective after each iteration", TypeConverters.toBoolean
    )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._setDefault(
            implicitPrefs=True,
            seed=0,  # pyspark's default is another one in each process
            numUserBlocks=0,
            numItemBlocks=0,
            intermediateStorageLevel="MEMORY_AND_DISK",
            solver="cholesky",
            confidence="linear",
            epsilon=1.0,
            unobserved_weight=1.0,
            regularization_exponent=1.0,
            regularization_count="entries",
            calculate_training_loss=False,
        )

    def _solver(self) -> str:
        return "nonnegative" if self._value("nonnegative") else self._value("solver")

    def _local_parameters(self) -> dict[str, Any]:
        """Return these parameters by their names in `alscore.AlternatingLeastSquares`."""
        values = {name: self._value(_MLLIB_NAMES.get(name, name)) for name in LOCAL_PARAMETERS}
        return {**values, "solver": self._solver()}

    def _checked_objective(self) -> Objective:
        """Verify all parameters, and return the objective."""
        if not self._value("implicitPrefs"):
            raise ValueError(
                "implicitPrefs must be True: alscore factorises implicit feedback. To predict ratings, use "
                "pyspark.ml.recommendation.ALS"
            )
        for name, least in (("rank", 1), ("maxIter", 1), ("numUserBlocks", 0), ("numItemBlocks", 0)):
            require_integer(self._value(name), name, least)
        for name, allowed, holds in (
            ("seed", "an integer of 64 bits", lambda seed: -(2**63) <= seed < 2**63),
            ("regParam", "at least 0 and finite", lambda value: 0 <= value < math.inf),
            ("coldStartStrategy", "'nan' or 'drop'", lambda strategy: strategy.lower() in ("nan", "drop")),
        ):
            require(holds(self._value(name)), name, allowed, self._value(name))
        if self._value("nonnegative") and self._value("solver") not in ("nonnegative", "cholesky"):
            raise ValueError(
                f"nonnegative=True and solver={self._value('solver')!r} exclude each other; leave out one of them"
            )
        local = self._local_parameters()
        return Objective(**{field.name: local[field.name] for field in dataclasses.fields(Objective)})


def with_accessors(cls: type) -> type:
    """Add a setter and a getter for each parameter of a class, named as in MLlib: setSolver, getSolver."""

    def setter(name: str) -> Any:
        def set_value(self: Any, value: Any) -> Any:
            return self._set(**{name: value})

        set_value.__doc__ = f"Set the parameter `{name}`, and return self."
        return set_value

    def getter(name: str) -> Any:
        def value(self: Any) -> Any:
            return self.getOrDefault(name)

        value.__doc__ = f"Get the parameter `{name}`."
        return value

    for name in [name for name in dir(cls) if isinstance(getattr(cls, name), Param)]:
        setattr(cls, f"set{name[0].upper()}{name[1:]}", setter(name))
        setattr(cls, f"get{name[0].upper()}{name[1:]}", getter(name))
    return cls
