"""ALS as a job on Apache Spark, for interactions that do not fit one machine.

It needs ``pip install 'alscore[spark]'`` on the driver and on all executors, and Java 17.

>>> from alscore.spark import ALS
"""

import importlib
from typing import TYPE_CHECKING, Any

try:
    import pyspark  # noqa: F401
except ImportError as error:
    raise ImportError("alscore.spark needs pyspark 4: pip install 'alscore[spark]', and Java 17") from error

# Imported on first use: executors need no more than alscore.spark.tasks.
_HOMES = {
    "ALS": "alscore.spark.estimator",
    "ALSModel": "alscore.spark.estimator",
    "first_factors": "alscore.spark.blocks",
}

__all__ = list(_HOMES)

if TYPE_CHECKING:
    from alscore.spark.blocks import first_factors as first_factors
    from alscore.spark.estimator import ALS as ALS
    from alscore.spark.estimator import ALSModel as ALSModel


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'alscore.spark' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
