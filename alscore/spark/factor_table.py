"""Factors as a table of Spark: blocks of ids and of the bytes of their rows."""

from functools import partial
from typing import Any, NamedTuple

from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession, functions, types

from alscore.spark import tasks
from alscore.spark.inputs import id_type


class FactorTable(NamedTuple):
    """The factors of users or of items.

    Attributes
    ----------
    blocks : DataFrame
        "block", "ids" and "factors", the bytes of float32: a block may lie in many rows.
    kind : DataType
        Of the column of ids as it was given.
    """

    blocks: DataFrame
    kind: types.DataType

    @classmethod
    def of(cls, spark: SparkSession, rows: "RDD[Any]", kind: types.DataType) -> "FactorTable":
        return cls(spark.createDataFrame(rows, block_schema(kind), verifySchema=False), kind)

    def rows(self, rank: int) -> DataFrame:
        """A row (id, features) for each."""
        schema = f"id {id_type(self.kind)}, features array<float>"
        table = self.blocks.mapInArrow(partial(tasks.unpacked, rank), schema)
        return table.withColumn("id", functions.col("id").cast(self.kind))


def block_schema(kind: types.DataType) -> str:
    return f"block int, ids array<{id_type(kind)}>, factors binary"
