"""The estimator and the model of pyspark.ml."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pyspark import StorageLevel, keyword_only
from pyspark.ml import Estimator, Model
from pyspark.ml.util import (
    DefaultParamsReadable,
    DefaultParamsReader,
    DefaultParamsWritable,
    DefaultParamsWriter,
    MLReadable,
    MLReader,
    MLWritable,
    MLWriter,
)
from pyspark.sql import Column, DataFrame, SparkSession, functions, types

from alscore.spark import tasks
from alscore.spark.factor_table import FactorTable, block_schema
from alscore.spark.inputs import check_workers, checked, classic_session, id_type, ids, named
from alscore.spark.jobs import Settings, train
from alscore.spark.params import ALSModelParams, ALSParams, with_accessors
from alscore.spark.ranking import recommend_all
from alscore.spark.tasks import Layout

if TYPE_CHECKING:
    from alscore.recommender import Recommender

_LEAST_RATINGS = 100_000  # of a block: fewer take less time to solve than a task takes to start
_MOST_RATINGS = 50_000_000  # 400 MB


@with_accessors
class ALS(Estimator["ALSModel"], ALSParams, DefaultParamsReadable["ALS"], DefaultParamsWritable):
    """Matrix factorisation of implicit feedback by alternating least squares on Spark, as on a single machine.

    Takes the place of `pyspark.ml.recommendation.ALS` with ``implicitPrefs=True``: parameters have the same names and
    defaults, and the objective is the same, λ n_u included, but that n_u counts all ratings of a user, and MLlib's
    counts those above 0 alone. Where a rating is below 0 the user rejected the item; a rating of 0 is the same as none;
    those of one pair are summed.

    The factors are those of `alscore.AlternatingLeastSquares` from the same start, but for rounding. They depend on the
    ratings, the parameters, and in their last bits on the numbers of blocks, not on partitions, threads or executors.

    The table is computed twice, to verify it and to build the blocks: cache one that is costly, or whose rows come out
    otherwise each time.

    A half-sweep is one job. A lost executor takes with it what it had sent in the half-sweeps before, and Spark
    computes that anew: with ``SparkContext.setCheckpointDir`` for at most `checkpointInterval` iterations, without it
    for all of them. The blocks of ratings that it held are built anew from the table.

    Parameters
    ----------
    rank : int
        Factors.
    maxIter : int
        Iterations, at least 1.
    regParam : float
        λ.
    numUserBlocks, numItemBlocks : int
        Into how many blocks to divide users and items. 0, the default, takes as many as Spark runs tasks at once, but
        no more than one for each 100,000 ratings, and no less than one for each 50 million.
    implicitPrefs : bool
        True, which is the default; there is no other way here.
    alpha : float
        Scale of the confidence.
    userCol, itemCol : str
        Columns of ids: integers of up to 64 bits, or strings.
    ratingCol : str
        Column of numbers; empty to count each row as 1.
    nonnegative : bool
        Factors of at least 0: the same as ``solver="nonnegative"``.
    checkpointInterval : int
        Iterations from one checkpoint to the next, where the SparkContext has a folder for them; -1 for never.
    seed : int
        Of the first item factors: see `alscore.spark.first_factors`. 0 if not set.
    coldStartStrategy : {"nan", "drop"}
        What `transform` does about users and items that were not fitted.
    intermediateStorageLevel, finalStorageLevel : str
        How Spark keeps the blocks of ratings during `fit`, and the factors after it.
    blockSize : int
        Taken for MLlib's sake; not used.
    predictionCol : str
    solver : str
        "cholesky" (exact), "cg", "auto", "nonnegative", or the name of a plug-in that all executors have.
    confidence : {"linear", "log", "raw"}
    epsilon, unobserved_weight, regularization_exponent : float
    regularization_count : {"entries", "all"}
        As for `alscore.AlternatingLeastSquares`, which describes the objective.
    calculate_training_loss : bool
        Compute the objective after each iteration: `ALSModel.training_loss`.

    Examples
    --------
    >>> from alscore.spark import ALS
    >>> model = ALS(rank=64, userCol="user", itemCol="artist", ratingCol="plays").fit(df)  # doctest: +SKIP
    >>> model.recommendForAllUsers(10).write.parquet("recommendations")  # doctest: +SKIP
    """

    _input_kwargs: dict[str, Any]  # set by keyword_only

    @keyword_only
    def __init__(
        self,
        *,
        rank: int = 10,
        maxIter: int = 10,
        regParam: float = 0.1,
        numUserBlocks: int = 0,
        numItemBlocks: int = 0,
        implicitPrefs: bool = True,
        alpha: float = 1.0,
        userCol: str = "user",
        itemCol: str = "item",
        seed: int | None = None,
        ratingCol: str = "rating",
        nonnegative: bool = False,
        checkpointInterval: int = 10,
        intermediateStorageLevel: str = "MEMORY_AND_DISK",
        finalStorageLevel: str = "MEMORY_AND_DISK",
        coldStartStrategy: str = "nan",
        blockSize: int = 4096,
        predictionCol: str = "prediction",
        solver: str = "cholesky",
        confidence: str = "linear",
        epsilon: float = 1.0,
        unobserved_weight: float = 1.0,
        regularization_exponent: float = 1.0,
        regularization_count: str = "entries",
        calculate_training_loss: bool = False,
    ) -> None:
        super().__init__()
        self._set(**self._input_kwargs)

    @keyword_only
    def setParams(self, **kwargs: Any) -> "ALS":
        """Set parameters by name, and return self."""
        return self._set(**self._input_kwargs)

    def setNumBlocks(self, value: int) -> "ALS":
        """Set both `numUserBlocks` and `numItemBlocks`.

        Parameters
        ----------
        value : int

        Returns
        -------
        ALS
            Itself.
        """
        return self._set(numUserBlocks=value, numItemBlocks=value)

    def _fit(self, dataset: DataFrame) -> "ALSModel":
        objective = self._checked_objective()
        spark = classic_session(dataset)
        check_workers(spark)
        user, item, rating = (self._value(name) for name in ("userCol", "itemCol", "ratingCol"))
        ratings = checked(dataset, user, item, rating, self._value("alpha"))
        layout = Layout(
            *(self._value(name) or _blocks(spark, ratings.size) for name in ("numUserBlocks", "numItemBlocks"))
        )
        settings = Settings(
            objective,
            self._solver(),
            self._value("rank"),
            self._value("maxIter"),
            self._value("seed"),
            layout,
            self._value("checkpointInterval"),
            self._value("calculate_training_loss"),
            _level(self._value("intermediateStorageLevel")),
            _level(self._value("finalStorageLevel")),
        )
        trained = train(ratings.table, settings)
        users = FactorTable.of(spark, trained.user, ratings.user.dataType)
        items = FactorTable.of(spark, trained.item, ratings.item.dataType)
        model = ALSModel(users, items, layout, self._local_parameters(), trained.losses)
        model._resetUid(self.uid)
        return self._copyValues(model)


def _blocks(spark: SparkSession, count: int) -> int:
    context = spark.sparkContext
    at_once = context.defaultParallelism // int(context.getConf().get("spark.task.cpus", "1"))
    return max(1, min(at_once, count // _LEAST_RATINGS), -(-count // _MOST_RATINGS))


def _level(name: str) -> StorageLevel:
    level = getattr(StorageLevel, name, None)
    if not isinstance(level, StorageLevel) or name == "NONE":
        raise ValueError(f"{name!r} is no storage level: take MEMORY_AND_DISK, or another one of pyspark.StorageLevel")
    return level


@with_accessors
class ALSModel(Model, ALSModelParams, MLReadable["ALSModel"], MLWritable):
    """What `ALS` fits: factors of users and of items, on Spark.

    Attributes
    ----------
    rank : int
    userFactors, itemFactors : DataFrame
        "id" and "features", an array of `rank` floats; in the canonical basis of the single-machine package.
    training_loss : list of float
        The objective after each iteration, if ``calculate_training_loss`` was set.
    """

    def __init__(
        self,
        users: FactorTable,
        items: FactorTable,
        layout: Layout,
        parameters: dict[str, Any],
        training_loss: Iterable[float] = (),
    ) -> None:
        super().__init__()
        self._users, self._items, self._layout, self._parameters = users, items, layout, parameters
        self.training_loss = list(training_loss)

    @property
    def rank(self) -> int:
        return int(self._parameters["factors"])

    @property
    def userFactors(self) -> DataFrame:
        return self._users.rows(self.rank)

    @property
    def itemFactors(self) -> DataFrame:
        return self._items.rows(self.rank)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        name = self._value("predictionCol")
        exact = dataset.sparkSession.conf.get("spark.sql.caseSensitive") == "true"
        for column in dataset.columns:
            if column == name or (column.lower() == name.lower() and not exact):
                raise ValueError(
                    f"predictionCol: the table has a column {column!r} already: drop it, or set predictionCol"
                )
        users = self.userFactors.toDF("__user_id", "__user_features")
        items = self.itemFactors.toDF("__item_id", "__item_features")
        user, item = (self._ids(side, dataset) for side in ("user", "item"))
        found = dataset.join(users, user == users["__user_id"], "left")
        found = found.join(items, item == items["__item_id"], "left")
        products = "zip_with(__user_features, __item_features, (x, y) -> cast(x as double) * y)"
        score = functions.expr(f"cast(aggregate({products}, 0D, (sum, product) -> sum + product) as float)")
        found = found.withColumn(name, functions.coalesce(score, functions.lit(float("nan")).cast("float")))
        found = found.drop("__user_id", "__user_features", "__item_id", "__item_features")
        if self._value("coldStartStrategy").lower() == "drop":
            found = found.where(~functions.isnan(named(found, name)))
        return found

    def _columns(self) -> tuple[str, str, str]:
        return self._value("userCol"), self._value("itemCol"), self._value("ratingCol")

    def _ids(self, side: str, dataset: DataFrame) -> Column:
        """The users' or items' column of a table."""
        param = f"{side}Col"
        return ids(dataset, param, self._value(param), self._table(side).kind)

    def _table(self, side: str) -> FactorTable:
        return self._users if side == "user" else self._items

    def recommendForAllUsers(self, numItems: int) -> DataFrame:
        """The items of the highest scores for every user, those that the user has already among them.

        Parameters
        ----------
        numItems : int

        Returns
        -------
        DataFrame
            A row for each user: the id, and "recommendations", structs of the item and "rating", the score. Best first;
            of equal scores the lower id.
        """
        return self._recommended("user", self._users.blocks, numItems)

    def recommendForAllItems(self, numUsers: int) -> DataFrame:
        """The users of the highest scores for every item.

        Parameters
        ----------
        numUsers : int

        Returns
        -------
        DataFrame
            As from `recommendForAllUsers`, with the two sides exchanged.
        """
        return self._recommended("item", self._items.blocks, numUsers)

    def recommendForUserSubset(self, dataset: DataFrame, numItems: int) -> DataFrame:
        """As `recommendForAllUsers`, for some of the users.

        Parameters
        ----------
        dataset : DataFrame
            With the users in column `userCol`; those not fitted are left out.
        numItems : int

        Returns
        -------
        DataFrame
            As from `recommendForAllUsers`.
        """
        return self._recommended("user", self._subset("user", dataset), numItems)

    def recommendForItemSubset(self, dataset: DataFrame, numUsers: int) -> DataFrame:
        """As `recommendForAllItems`, for some of the items.

        Parameters
        ----------
        dataset : DataFrame
            With the items in column `itemCol`; those not fitted are left out.
        numUsers : int

        Returns
        -------
        DataFrame
            As from `recommendForAllItems`.
        """
        return self._recommended("item", self._subset("item", dataset), numUsers)

    def _recommended(self, side: str, queries: DataFrame, n: int) -> DataFrame:
        query, candidate = (
            types.StructField(self._value(f"{each}Col"), self._table(each).kind) for each in (side, tasks.other(side))
        )
        return recommend_all(
            queries,
            self._table(tasks.other(side)).blocks,
            n,
            rank=self.rank,
            query=query,
            candidate=candidate,
            query_blocks=self._layout.size(side),
        )

    def _subset(self, side: str, dataset: DataFrame) -> DataFrame:
        """Blocks of the factors of those that are in a table."""
        table = self._table(side)
        wanted = dataset.select(self._ids(side, dataset).alias("id")).distinct()
        rows = table.rows(self.rank)
        rows = rows.withColumn("id", rows["id"].cast(id_type(table.kind))).join(wanted, "id", "left_semi")
        block = functions.pmod(functions.xxhash64("id"), functions.lit(self._layout.size(side))).cast("int")
        return rows.select(block.alias("block"), "id", "features").mapInArrow(tasks.packed, block_schema(table.kind))

    def to_local(self, ratings: DataFrame | None = None) -> "Recommender":
        """The model of the single-machine package, with its labels: everything must fit the driver's memory.

        Parameters
        ----------
        ratings : DataFrame, optional
            What the model was fitted on, with the same columns: what users have already, which recommendations leave
            out. Without it, nobody has anything: pass plays with each request, or
            ``filter_already_liked_items=False``, where that matters.

        Returns
        -------
        alscore.Recommender
            Users and items in ascending order of their ids; `model` is the AlternatingLeastSquares.

        Raises
        ------
        ValueError
            `ratings` has users or items that were not fitted, or is otherwise no table that `ALS` would fit.
        """
        from alscore.spark.local import to_local

        return to_local(self._users, self._items, self._parameters, ratings, self._columns())

    @classmethod
    def from_local(cls, spark: SparkSession, recommender: "Recommender") -> "ALSModel":
        """A fitted Recommender of the single-machine package, as a model on Spark.

        Parameters
        ----------
        spark : SparkSession
        recommender : alscore.Recommender
            With labels that are integers or strings. Factors of float64 become float32.

        Returns
        -------
        ALSModel

        Raises
        ------
        TypeError
            Labels of another type, or a solver that is an object: it needs a name.
        """
        from alscore.spark.local import from_local

        return cls(*from_local(spark, recommender))

    def write(self) -> "_ModelWriter":
        return _ModelWriter(self)

    @classmethod
    def read(cls) -> "_ModelReader":
        return _ModelReader()


class _ModelWriter(MLWriter):
    def __init__(self, model: ALSModel) -> None:
        super().__init__()
        self.model = model

    def saveImpl(self, path: str) -> None:
        model = self.model
        extra = {
            "userType": model._users.kind.simpleString(),
            "itemType": model._items.kind.simpleString(),
            "blocks": [model._layout.user, model._layout.item],
            "parameters": model._parameters,
            "trainingLoss": model.training_loss,
        }
        DefaultParamsWriter.saveMetadata(model, path, self.sparkSession, extraMetadata=extra)
        model._users.blocks.write.parquet(f"{path}/userFactors")
        model._items.blocks.write.parquet(f"{path}/itemFactors")


class _ModelReader(MLReader[ALSModel]):
    def load(self, path: str) -> ALSModel:
        spark, expected = self.sparkSession, f"{ALSModel.__module__}.{ALSModel.__name__}"
        metadata = DefaultParamsReader.loadMetadata(path, spark, expected)
        users, items = (
            FactorTable(spark.read.parquet(f"{path}/{side}Factors"), types.DataType.fromDDL(metadata[f"{side}Type"]))
            for side in ("user", "item")
        )
        layout = Layout(*metadata["blocks"])
        model = ALSModel(users, items, layout, metadata["parameters"], metadata["trainingLoss"])
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model
