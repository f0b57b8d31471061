"""Factors as a DataFrame whose rows are pieces of blocks: ids, and the bytes of their factors."""

from functools import partial
from typing import Any, NamedTuple, Self

from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession, functions, types

from alscore.spark import tasks
from alscore.spark.inputs import block_id_type


class FactorTable(NamedTuple):
    """The factors of users or of items.

    Attributes
    ----------
    pieces : DataFrame
        Columns "block" (int), "ids" (array<bigint> or array<string>) and "factors" (binary: float32, `rank` numbers for
        each id). A block may lie in several rows or in none.
    id_type : DataType
        Type of the column of ids that the caller gave.
    rank : int
        Number of factors.
    n_blocks : int
        Number of blocks. They are numbered from 0.
    """

    pieces: DataFrame
    id_type: types.DataType
    rank: int
    n_blocks: int

    @classmethod
    def of(cls, spark: SparkSession, pieces: RDD[Any], id_type: types.DataType, rank: int, n_blocks: int) -> Self:
        """Make a table of records (block, ids, factors)."""
        return cls(spark.createDataFrame(pieces, _schema(id_type), verifySchema=False), id_type, rank, n_blocks)

    def unpacked(self) -> DataFrame:
        """Return a row (id, features) for each id."""
        schema = f"id {block_id_type(self.id_type)}, features array<float>"
        rows = self.pieces.mapInArrow(partial(tasks.unpacked, self.rank), schema)
        return rows.withColumn("id", functions.col("id").cast(self.id_type))

    def subset(self, ids: DataFrame) -> Self:
        """Return the factors of some ids: `ids` has one column "id", distinct and of the type that blocks use."""
        rows = self.unpacked()
        rows = rows.withColumn("id", rows["id"].cast(block_id_type(self.id_type))).join(ids, "id", "left_semi")
        block = functions.pmod(functions.xxhash64("id"), functions.lit(self.n_blocks)).cast("int")
        packed = rows.select(block.alias("block"), "id", "features").mapInArrow(tasks.packed, _schema(self.id_type))
        return self._replace(pieces=packed)


class FittedFactors(NamedTuple):
    """What a model on Spark consists of.

    Attributes
    ----------
    user, item : FactorTable
    parameters : dict
        Parameters of the fit, by their names in `alscore.AlternatingLeastSquares`.
    """

    user: FactorTable
    item: FactorTable
    parameters: dict[str, Any]

    def of(self, side: str) -> FactorTable:
        return self.user if side == "user" else self.item


def _schema(id_type: types.DataType) -> str:
    return f"block int, ids array<{block_id_type(id_type)}>, factors binary"
