"""ALS as jobs of Apache Spark, for interactions that do not fit one machine.

Install ``alscore[spark]`` with pip on the driver and on all executors, and Java 17.

>>> from alscore.spark import ALS
"""

from typing import TYPE_CHECKING

from alscore._support.moved import renamed

try:
    import pyspark  # noqa: F401
except ImportError as error:
    raise ImportError("alscore.spark needs pyspark 4: pip install 'alscore[spark]', and Java 17") from error

# The module of each public name. Names are imported on first use: executors need only alscore.spark.tasks.
_HOMES = {
    "ALS": "alscore.spark.estimator",
    "ALSModel": "alscore.spark.estimator",
    "initial_factors": "alscore.spark.blocks",
}

__all__ = list(_HOMES)

if TYPE_CHECKING:  # the same names, in the form that type checkers treat as public
    from alscore.spark.blocks import initial_factors as initial_factors
    from alscore.spark.estimator import ALS as ALS
    from alscore.spark.estimator import ALSModel as ALSModel


__getattr__ = renamed(__name__, {"first_factors": "initial_factors"}, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
