"""From a model on Spark to one in the driver's memory, and back."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, types
from scipy import sparse

from alscore._support.arrays import Floats
from alscore.als import AlternatingLeastSquares
from alscore.interactions import Interactions
from alscore.recommender import Recommender
from alscore.spark.factor_table import FactorTable
from alscore.spark.inputs import checked
from alscore.spark.params import LOCAL_PARAMETERS
from alscore.spark.tasks import Layout, pieces


def to_local(
    user_table: FactorTable,
    item_table: FactorTable,
    parameters: dict[str, Any],
    ratings: DataFrame | None,
    columns: tuple[str, str, str],
) -> Recommender:
    """See `ALSModel.to_local`."""
    (users, X), (items, Y) = (_collected(table.blocks, parameters["factors"]) for table in (user_table, item_table))
    local = AlternatingLeastSquares(**parameters)
    local.user_factors, local.item_factors = X, Y
    shape = len(users), len(items)
    matrix = (
        sparse.csr_array(shape, dtype=np.float32)
        if ratings is None
        else _matrix(ratings, columns, parameters["alpha"], users, items)
    )
    return Recommender(local, Interactions(matrix, users, items))


def _collected(blocks: DataFrame, rank: int) -> tuple[pd.Index, Floats]:
    """(ids that ascend, their factors)"""
    table = blocks.select("ids", "factors").toArrow()
    ids = pd.Index(table["ids"].combine_chunks().flatten().to_numpy(zero_copy_only=False))
    factors = np.concatenate([np.frombuffer(part.as_buffer(), np.float32) for part in table["factors"]])
    order = ids.argsort()
    return ids[order], factors.reshape(-1, rank)[order]


def _matrix(
    ratings: DataFrame, columns: tuple[str, str, str], alpha: float, users: pd.Index, items: pd.Index
) -> sparse.coo_array:
    user, item, rating = columns
    table = checked(ratings, user, item, rating, alpha).table.toArrow()
    codes = []
    for name, column, known in zip((user, item), ("user", "item"), (users, items), strict=True):
        ids = table[column].to_numpy()
        codes.append(known.get_indexer(ids))
        if (codes[-1] < 0).any():
            raise ValueError(
                f"column {name!r} has ids that the model was not fitted on, such as {ids[codes[-1] < 0][0]}: give "
                "the ratings that it was fitted on"
            )
    return sparse.coo_array((table["rating"].to_numpy(), tuple(codes)), shape=(len(users), len(items)))


def from_local(
    spark: SparkSession, recommender: Recommender
) -> tuple[FactorTable, FactorTable, Layout, dict[str, Any]]:
    """The arguments of `ALSModel`: see `ALSModel.from_local`."""
    model, known = recommender._fitted()
    if not isinstance(model.solver, str):
        raise TypeError(f"the model's solver is {model.solver!r}; on Spark it must be a name: set model.solver")
    n_blocks = max(1, spark.sparkContext.defaultParallelism)
    users = _distributed(spark, known.users, model.user_factors, "users", n_blocks)
    items = _distributed(spark, known.items, model.item_factors, "items", n_blocks)
    parameters = {name: getattr(model, name) for name in LOCAL_PARAMETERS}
    return users, items, Layout(n_blocks, n_blocks), parameters


def _distributed(
    spark: SparkSession, labels: "pd.Index[Any]", factors: Floats, name: str, n_blocks: int
) -> FactorTable:
    ids, kind = _ids(labels, name)
    parts = enumerate(pieces(ids, factors.astype(np.float32, copy=False)))
    rows = [(number % n_blocks, *part) for number, part in parts]
    return FactorTable.of(spark, spark.sparkContext.parallelize(rows, n_blocks), kind)


def _ids(labels: "pd.Index[Any]", name: str) -> tuple[pa.Array, types.DataType]:
    """Labels as ids of Spark, and the type of these."""
    try:
        ids = pa.array(np.asarray(labels))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        ids = pa.nulls(0)
    if pa.types.is_integer(ids.type):
        return ids, types.LongType()
    if pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type):
        return ids, types.StringType()
    raise TypeError(
        f"{name} have labels such as {labels[0]!r} ({labels.dtype}); on Spark ids are integers or strings: convert them"
    )
