"""What a table of ratings must be. One aggregation on Spark verifies it before anything is built from it."""

from typing import Any, NamedTuple

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession, functions, types

from alscore._support.version import __version__

_INTEGERS = (types.ByteType, types.ShortType, types.IntegerType, types.LongType)
_FLOAT_MAX = float(np.finfo(np.float32).max)
_FLOAT_LEAST = 2.0**-149  # the least float32 above 0; half of it rounds to 0


class Columns(NamedTuple):
    """Names of the columns of a table of ratings. With an empty `rating` every row counts 1."""

    user: str
    item: str
    rating: str


class Ratings(NamedTuple):
    """A verified table of ratings, in the form that training takes.

    Attributes
    ----------
    table : DataFrame
        Columns "user" and "item" (each bigint or string) and "rating" (float, none of them 0).
    user_type, item_type : DataType
        Types of the columns of ids that the caller gave.
    size : int
        Number of rows.
    """

    table: DataFrame
    user_type: types.DataType
    item_type: types.DataType
    size: int


def classic_session(dataset: DataFrame) -> SparkSession:
    """Return the session of a table. Raise a TypeError if it is a session of Spark Connect."""
    spark = dataset.sparkSession
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise TypeError(
            "alscore.spark runs jobs that Spark Connect does not offer: run it on the driver, with a session from "
            "SparkSession.builder.master(...).getOrCreate()"
        )
    return spark


def check_workers(spark: SparkSession) -> None:
    """Raise a RuntimeError unless the Python workers of the executors have this version of alscore."""
    context = spark.sparkContext

    def versions(numbers: Any) -> list[str]:  # sent by value: it must also run on workers without alscore
        list(numbers)
        try:
            import importlib

            return [importlib.import_module("alscore").__version__]  # also of a version with other modules
        except ImportError as error:
            import sys

            return [f"none ({sys.executable}: {error})"]

    n_tasks = max(1, context.defaultParallelism)
    installed = set(context.parallelize(range(n_tasks), n_tasks).mapPartitions(versions).collect())
    if installed != {__version__}:
        raise RuntimeError(
            f"Spark's Python workers have alscore {', '.join(sorted(installed))}, the driver has {__version__}: "
            "install the driver's version on every executor, and set PYSPARK_PYTHON to the Python that has it"
        )


def checked_ratings(dataset: DataFrame, columns: Columns, alpha: float) -> Ratings:
    """Verify a table of ratings.

    Parameters
    ----------
    dataset : DataFrame
    columns : Columns
    alpha : float
        Scale of the confidence.

    Raises
    ------
    ValueError
        A column is missing or has two roles. An id is missing or is not valid UTF-8. A rating is missing, is not finite
        or does not fit float32. All ratings are 0, or there are none.
    TypeError
        A column of ids has neither integers nor strings, or the column of ratings does not have numbers.
    """
    user, item, rating = columns
    named = [name for name in columns if name]
    if len(set(named)) < len(named):
        raise ValueError(f"userCol, itemCol and ratingCol must be three columns, not {user!r}, {item!r} and {rating!r}")
    user_type, item_type = _id_type(dataset, "userCol", user), _id_type(dataset, "itemCol", item)
    values = functions.lit(1.0)
    if rating:
        rating_type = _type(dataset, "ratingCol", rating)
        if not isinstance(rating_type, types.NumericType):
            raise TypeError(
                f"ratingCol: column {rating!r} is {rating_type.simpleString()}; ratings must be numbers: cast it"
            )
        values = column(dataset, rating).cast("double")
    users, items = _cast_ids(dataset, user, user_type), _cast_ids(dataset, item, item_type)
    faults = _id_faults([(user, users), (item, items)], dataset.schema) + _rating_faults(rating, values, alpha)
    size = _verify(dataset, rating, values, faults)
    table = dataset.select(users.alias("user"), items.alias("item"), values.cast("float").alias("rating"))
    return Ratings(table.where("rating != 0"), user_type, item_type, size)


def block_id_type(id_type: types.DataType) -> str:
    """Return the type by which blocks hold ids of this type."""
    return "string" if isinstance(id_type, types.StringType) else "bigint"


def id_column(dataset: DataFrame, param: str, name: str, fitted_type: types.DataType) -> Column:
    """Return a column of ids as blocks have them. Raise a TypeError unless it can hold ids of the fitted type.

    Parameters
    ----------
    dataset : DataFrame
    param : str
        The parameter that names the column, for messages.
    name : str
        Name of the column.
    fitted_type : DataType
        Type of the ids that the model was fitted on.
    """
    id_type = _id_type(dataset, param, name)
    if block_id_type(id_type) != block_id_type(fitted_type):
        raise TypeError(
            f"{param}: column {name!r} is {id_type.simpleString()}, and the model was fitted on ids of type "
            f"{fitted_type.simpleString()}: cast it"
        )
    return _cast_ids(dataset, name, fitted_type)


def column(dataset: DataFrame, name: str) -> Column:
    """Return the column of this name. The name may contain dots, spaces and backticks."""
    return dataset[quoted(name)]


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _cast_ids(dataset: DataFrame, name: str, id_type: types.DataType) -> Column:
    return column(dataset, name).cast(block_id_type(id_type))


def _id_type(dataset: DataFrame, param: str, name: str) -> types.DataType:
    id_type = _type(dataset, param, name)
    if not isinstance(id_type, (*_INTEGERS, types.StringType)):
        raise TypeError(
            f"{param}: column {name!r} is {id_type.simpleString()}; ids must be integers or strings: cast it"
        )
    return id_type


def _type(dataset: DataFrame, param: str, name: str) -> types.DataType:
    if name not in dataset.columns:
        raise ValueError(f"{param}: there is no column {name!r} among {dataset.columns}; set {param}")
    return dataset.schema[name].dataType


class _Fault(NamedTuple):
    """A reason not to train on a row: which column has what, for which rows, and what to do about it."""

    column: str
    content: str
    condition: Column
    remedy: str


def _id_faults(sides: list[tuple[str, Column]], schema: types.StructType) -> list[_Fault]:
    leave_out = "leave these rows out: .dropna(subset=[...])"
    missing = [_Fault(name, "missing ids", ids.isNull(), leave_out) for name, ids in sides]
    invalid = [
        _Fault(name, "ids that are not valid UTF-8", ~functions.is_valid_utf8(ids), "correct them")
        for name, ids in sides
        if isinstance(schema[name].dataType, types.StringType)
    ]
    return missing + invalid


def _rating_faults(name: str, values: Column, alpha: float) -> list[_Fault]:
    finite = ~functions.isnan(values) & (functions.abs(values) < functions.lit(float("inf")))
    size = functions.abs(values)
    overflows = finite & ((size > _FLOAT_MAX) | (size * alpha >= _FLOAT_MAX / 4))
    vanishes = (size > 0) & (size <= _FLOAT_LEAST / 2)
    return [
        _Fault(name, "missing ratings", values.isNull(), "leave these rows out, or fill them: .fillna(...)"),
        _Fault(name, "NaN or infinite ratings", ~finite, "correct them, or leave these rows out"),
        _Fault(name, "ratings whose confidence overflows float32", overflows, "scale the ratings or alpha down"),
        _Fault(name, "ratings that float32 rounds to 0", vanishes, "scale them up"),
    ]


def _verify(dataset: DataFrame, rating: str, values: Column, faults: list[_Fault]) -> int:
    """Count the faults in one pass, and raise a ValueError about the first. Return the number of usable ratings."""
    counts = [functions.count_if(fault.condition).alias(f"fault_{i}") for i, fault in enumerate(faults)]
    usable, rows = functions.count_if(values != 0).alias("usable"), functions.count("*").alias("rows")
    counted = dataset.agg(usable, rows, *counts).collect()[0]
    for i, fault in enumerate(faults):
        if counted[f"fault_{i}"]:
            raise ValueError(
                f"column {fault.column!r} has {fault.content} in {counted[f'fault_{i}']:,} of {counted['rows']:,} "
                f"rows: {fault.remedy}"
            )
    if not counted["usable"]:
        other_than_0 = f" and no rating other than 0 in column {rating!r}" if rating else ""
        raise ValueError(f"there is nothing to train on: the table has {counted['rows']:,} rows{other_than_0}")
    return int(counted["usable"])
