"""ALS as jobs of Apache Spark, for interactions that do not fit one machine.

Install ``alscore[spark]`` with pip on the driver and on all executors, and Java 17.

>>> from alscore.spark import ALS
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

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
_RENAMED = {"first_factors": "initial_factors"}  # old name: new name

__all__ = list(_HOMES)

if TYPE_CHECKING:  # the same names, in the form that type checkers treat as public
    from alscore.spark.blocks import initial_factors as initial_factors
    from alscore.spark.estimator import ALS as ALS
    from alscore.spark.estimator import ALSModel as ALSModel


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(f"{__name__}.{name} is now {new}, and its old name will go", DeprecationWarning, stacklevel=2)
        name = new
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
