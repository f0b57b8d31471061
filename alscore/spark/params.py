"""The parameters: those of pyspark.ml.recommendation.ALS by its names, and those that alscore adds by alscore's."""

import dataclasses
import math
from typing import Any

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.recommendation import _ALSModelParams, _ALSParams  # MLlib's own names, getters and descriptions

from alscore.solvers.objective import Objective

# Of AlternatingLeastSquares, in its names, and what MLlib calls them.
_MLLIB_NAMES = {"factors": "rank", "iterations": "maxIter", "regularization": "regParam"}
LOCAL_PARAMETERS = (
    *("factors", "iterations", "regularization", "alpha", "solver", "confidence", "epsilon"),
    *("unobserved_weight", "regularization_exponent", "regularization_count"),
)


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
    unobserved_weight = _own("unobserved_weight", "confidence where there is no rating", TypeConverters.toFloat)
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
            seed=0,  # pyspark's own is another one in each process
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
        """These parameters by their names in `alscore.AlternatingLeastSquares`."""
        values = {name: self._value(_MLLIB_NAMES.get(name, name)) for name in LOCAL_PARAMETERS}
        return {**values, "solver": self._solver()}

    def _checked_objective(self) -> Objective:
        """The objective, after all parameters are verified."""
        if not self._value("implicitPrefs"):
            raise ValueError(
                "implicitPrefs must be True: alscore factorises implicit feedback; to predict ratings take "
                "pyspark.ml.recommendation.ALS"
            )
        for name, least in (("rank", 1), ("maxIter", 1), ("numUserBlocks", 0), ("numItemBlocks", 0)):
            if self._value(name) < least:
                raise ValueError(f"{name} must be an integer of at least {least}, not {self._value(name)!r}")
        if not -(2**63) <= self._value("seed") < 2**63:
            raise ValueError(f"seed must be an integer of 64 bits, not {self._value('seed')!r}")
        if not 0 <= self._value("regParam") < math.inf:
            raise ValueError(f"regParam must be at least 0 and finite, not {self._value('regParam')!r}")
        if self._value("coldStartStrategy").lower() not in ("nan", "drop"):
            raise ValueError(f"coldStartStrategy must be 'nan' or 'drop', not {self._value('coldStartStrategy')!r}")
        if self._value("nonnegative") and self._value("solver") not in ("nonnegative", "cholesky"):
            raise ValueError(
                f"nonnegative=True is solver='nonnegative': leave out solver={self._value('solver')!r}, or nonnegative"
            )
        local = self._local_parameters()
        return Objective(**{field.name: local[field.name] for field in dataclasses.fields(Objective)})


def with_accessors(cls: type) -> type:
    """Add to a class of parameters a setter and a getter for each, named as in MLlib: setSolver, getSolver."""

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
