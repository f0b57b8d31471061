"""What a table of ratings must be, verified on Spark by one aggregation, before anything is built from it."""

from typing import Any, NamedTuple

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession, functions, types

from alscore._support.version import __version__

_INTEGERS = (types.ByteType, types.ShortType, types.IntegerType, types.LongType)
_FLOAT_MAX = float(np.finfo(np.float32).max)
_FLOAT_LEAST = 2.0**-149  # below half of it a float32 is 0


class Ratings(NamedTuple):
    """Ratings as training takes them: users, items (bigint or string) and float ratings, none of them 0.

    Attributes
    ----------
    table : DataFrame
    user, item : StructField
        Name and type of the columns of ids as they were given.
    size : int
        Rows.
    """

    table: DataFrame
    user: types.StructField
    item: types.StructField
    size: int


def classic_session(dataset: DataFrame) -> SparkSession:
    """The session of a table, verified to be one whose driver this process is."""
    spark = dataset.sparkSession
    if type(spark).__module__.startswith("pyspark.sql.connect"):
        raise TypeError(
            "alscore.spark trains by jobs that Spark Connect does not offer: run it on the driver, with a session that "
            "SparkSession.builder.master(...).getOrCreate() gives"
        )
    return spark


def check_workers(spark: SparkSession) -> None:
    """Verify that the Python workers of the executors have this version of alscore."""
    context = spark.sparkContext

    def versions(numbers: Any) -> list[str]:  # sent by value, so that it runs where alscore is missing too
        list(numbers)
        try:
            from alscore._support.version import __version__ as theirs

            return [theirs]
        except ImportError as error:
            import sys

            return [f"none ({sys.executable}: {error})"]

    tasks = max(1, context.defaultParallelism)
    found = set(context.parallelize(range(tasks), tasks).mapPartitions(versions).collect())
    if found != {__version__}:
        raise RuntimeError(
            f"Spark's Python workers have alscore {', '.join(sorted(found))}, the driver has {__version__}: "
            "install the driver's on every executor, and set PYSPARK_PYTHON to the Python that has it"
        )


def checked(dataset: DataFrame, user: str, item: str, rating: str, alpha: float) -> Ratings:
    """Verify a table of ratings.

    Parameters
    ----------
    dataset : DataFrame
    user, item, rating : str
        Names of the columns. With an empty `rating` every row counts 1.
    alpha : float
        Scale of the confidence.

    Raises
    ------
    ValueError
        A column is missing, or named for two of them; there are ids that are missing or no valid UTF-8, or ratings that
        are missing, not finite, or beyond what float32 holds; or there is no rating but 0.
    TypeError
        A column of another type than integers or strings (ids), or numbers (ratings).
    """
    names = [name for name in (user, item, rating) if name]
    if len(set(names)) < len(names):
        raise ValueError(f"userCol, itemCol and ratingCol must be three columns, not {user!r}, {item!r} and {rating!r}")
    users, items = _id_field(dataset, "userCol", user), _id_field(dataset, "itemCol", item)
    values = functions.lit(1.0)
    if rating:
        kind = _field(dataset, "ratingCol", rating).dataType
        if not isinstance(kind, types.NumericType):
            raise TypeError(f"ratingCol: column {rating!r} is {kind.simpleString()}; ratings must be numbers: cast it")
        values = named(dataset, rating).cast("double")
    user_ids, item_ids = (_cast(dataset, field.name, field.dataType) for field in (users, items))
    size = _verify(dataset, [(user, user_ids), (item, item_ids), (rating, values)], alpha)
    table = dataset.select(user_ids.alias("user"), item_ids.alias("item"), values.cast("float").alias("rating"))
    table = table.where("rating != 0")
    return Ratings(table, users, items, size)


def id_type(kind: types.DataType) -> str:
    """The type that blocks have for ids of this type."""
    return "string" if isinstance(kind, types.StringType) else "bigint"


def ids(dataset: DataFrame, param: str, name: str, kind: types.DataType) -> Column:
    """A column of ids in the type that blocks have for ids of type `kind`, verified to be such ids."""
    found = _id_field(dataset, param, name).dataType
    if id_type(found) != id_type(kind):
        raise TypeError(
            f"{param}: column {name!r} is {found.simpleString()}, and the model was fitted on ids of type "
            f"{kind.simpleString()}: cast it"
        )
    return _cast(dataset, name, kind)


def _cast(dataset: DataFrame, name: str, kind: types.DataType) -> Column:
    return named(dataset, name).cast(id_type(kind))


def named(dataset: DataFrame, name: str) -> Column:
    """The column of this name, which may have dots, spaces and backticks."""
    return dataset[quoted(name)]


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _id_field(dataset: DataFrame, param: str, name: str) -> types.StructField:
    field = _field(dataset, param, name)
    if not isinstance(field.dataType, (*_INTEGERS, types.StringType)):
        raise TypeError(
            f"{param}: column {name!r} is {field.dataType.simpleString()}; ids must be integers or strings: cast it"
        )
    return field


def _field(dataset: DataFrame, param: str, name: str) -> types.StructField:
    if name not in dataset.columns:
        raise ValueError(f"{param}: there is no column {name!r} among {dataset.columns}; set {param}")
    return dataset.schema[name]


def _verify(dataset: DataFrame, columns: list[tuple[str, Column]], alpha: float) -> int:
    """Count what cannot be trained on, in one pass; return the number of ratings that can."""
    *sides, (rating, values) = columns
    finite = ~functions.isnan(values) & (functions.abs(values) < functions.lit(float("inf")))
    size = functions.abs(values)
    faults = [
        *((name, "missing ids", of.isNull(), "leave these rows out: .dropna(subset=[...])") for name, of in sides),
        *(
            (name, "ids that are not valid UTF-8", ~functions.is_valid_utf8(of), "correct them")
            for name, of in sides
            if isinstance(dataset.schema[name].dataType, types.StringType)
        ),
        (rating, "missing ratings", values.isNull(), "leave these rows out, or fill them: .fillna(...)"),
        (rating, "NaN or infinite ratings", ~finite, "correct them, or leave these rows out"),
        (
            rating,
            "ratings whose confidence overflows float32",
            finite & ((size > _FLOAT_MAX) | (size * alpha >= _FLOAT_MAX / 4)),
            "scale the ratings or alpha down",
        ),
        (rating, "ratings that float32 rounds to 0", (size > 0) & (size <= _FLOAT_LEAST / 2), "scale them up"),
    ]
    counts = [functions.count_if(fault).alias(f"fault_{i}") for i, (_, _, fault, _) in enumerate(faults)]
    found = dataset.agg(
        functions.count_if(values != 0).alias("usable"), functions.count("*").alias("rows"), *counts
    ).collect()[0]
    for i, (name, what, _, remedy) in enumerate(faults):
        if found[f"fault_{i}"]:
            raise ValueError(
                f"column {name!r} has {what} in {found[f'fault_{i}']:,} of {found['rows']:,} rows: {remedy}"
            )
    if not found["usable"]:
        raise ValueError(
            f"there is nothing to train on: the table has {found['rows']:,} rows, none with a rating other than "
            f"0 in column {rating!r}"
        )
    return int(found["usable"])
