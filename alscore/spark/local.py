"""A model from Spark into the driver's memory, and back."""

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, types
from scipy import sparse

from alscore._support.arrays import Floats
from alscore.als import AlternatingLeastSquares
from alscore.interactions import Interactions
from alscore.recommender import Recommender
from alscore.spark.factor_table import FactorTable, FittedFactors
from alscore.spark.inputs import Columns, checked_ratings
from alscore.spark.params import LOCAL_PARAMETERS
from alscore.spark.tasks import pieces


def to_local(fitted: FittedFactors, ratings: DataFrame | None, columns: Columns) -> Recommender:
    """Return the model as a Recommender: see `ALSModel.to_local`."""
    (users, X), (items, Y) = _collected(fitted.user), _collected(fitted.item)
    model = AlternatingLeastSquares(**fitted.parameters)
    model.user_factors, model.item_factors = X, Y
    if ratings is None:
        matrix = sparse.csr_array((len(users), len(items)), dtype=np.float32)
    else:
        matrix = _matrix(checked_ratings(ratings, columns, fitted.parameters["alpha"]).table, columns, users, items)
    return Recommender(model, Interactions(matrix, users, items))


def _collected(table: FactorTable) -> tuple[pd.Index, Floats]:
    """Return (ids in ascending order, their factors)."""
    pieces_of_table = table.pieces.select("ids", "factors").toArrow()
    ids = pd.Index(pieces_of_table["ids"].combine_chunks().flatten().to_numpy(zero_copy_only=False))
    factors = np.concatenate([np.frombuffer(piece.as_buffer(), np.float32) for piece in pieces_of_table["factors"]])
    order = ids.argsort()
    return ids[order], factors.reshape(-1, table.rank)[order]


def _matrix(ratings: DataFrame, columns: Columns, users: pd.Index, items: pd.Index) -> sparse.coo_array:
    """Return verified ratings as a matrix. Raise a ValueError about users and items that were not fitted."""
    table = ratings.toArrow()
    positions = []
    for name, labels, fitted in ((columns.user, table["user"], users), (columns.item, table["item"], items)):
        labels = labels.to_numpy()
        positions.append(fitted.get_indexer(labels))
        unknown = positions[-1] < 0
        if unknown.any():
            raise ValueError(
                f"column {name!r} has ids that the model was not fitted on, such as {labels[unknown][0]}: give the "
                "ratings that it was fitted on"
            )
    return sparse.coo_array((table["rating"].to_numpy(), tuple(positions)), shape=(len(users), len(items)))


def from_local(spark: SparkSession, recommender: Recommender) -> FittedFactors:
    """Return what a model on Spark consists of: see `ALSModel.from_local`."""
    model, interactions = recommender._fitted()
    if not isinstance(model.solver, str):
        raise TypeError(f"the model's solver is {model.solver!r}; on Spark it must be a name: set model.solver")
    return FittedFactors(
        user=_distributed(spark, interactions.users, model.user_factors, "users"),
        item=_distributed(spark, interactions.items, model.item_factors, "items"),
        parameters={name: getattr(model, name) for name in LOCAL_PARAMETERS},
    )


def _distributed(spark: SparkSession, labels: pd.Index, factors: Floats, name: str) -> FactorTable:
    ids, id_type = _ids(labels, name)
    n_blocks = max(1, spark.sparkContext.defaultParallelism)
    numbered = enumerate(pieces(ids, factors.astype(np.float32, copy=False)))
    records = spark.sparkContext.parallelize([(number % n_blocks, *piece) for number, piece in numbered], n_blocks)
    return FactorTable.of(spark, records, id_type, factors.shape[1], n_blocks)


def _ids(labels: pd.Index, name: str) -> tuple[pa.Array, types.DataType]:
    """Return (labels as Spark's ids, the type of these ids)."""
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
