"""ALS as a job on Apache Spark, for interactions that do not fit one machine: ``pip install 'alscore[spark]'``, Java 17.

>>> from alscore.spark import ALS
"""

try:
    import pyspark  # noqa: F401
except ImportError as error:
    raise ImportError("alscore.spark needs pyspark 4: pip install 'alscore[spark]', and Java 17") from error

from alscore.spark.blocks import first_factors
from alscore.spark.estimator import ALS, ALSModel

__all__ = ["ALS", "ALSModel", "first_factors"]
