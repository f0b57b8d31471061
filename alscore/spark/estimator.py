"""The estimator and the model, with the interface of pyspark.ml."""

from collections.abc import Iterable
from typing import Any

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

from alscore.recommender import Recommender
from alscore.solvers.objective import Objective
from alscore.spark import local
from alscore.spark.factor_table import FactorTable, FittedFactors
from alscore.spark.inputs import (
    Columns,
    check_workers,
    checked_ratings,
    classic_session,
    column,
    id_column,
)
from alscore.spark.jobs import Settings, SparkTraining, train
from alscore.spark.params import ALSModelParams, ALSParams, with_accessors
from alscore.spark.ranking import recommend_all
from alscore.spark.tasks import BlockCounts, opposite

_MIN_BLOCK_RATINGS = 100_000  # ratings of a block: fewer take less time to solve than a task takes to start
_MAX_BLOCK_RATINGS = 50_000_000  # ratings of a block: 400 MB of indices and strengths


@with_accessors
class ALS(Estimator["ALSModel"], ALSParams, DefaultParamsReadable["ALS"], DefaultParamsWritable):
    """Matrix factorisation of implicit feedback by alternating least squares, as jobs of Spark.

    It replaces `pyspark.ml.recommendation.ALS` with ``implicitPrefs=True``. The parameters have the same names and
    defaults. The objective is the same, with λ n_u, except that n_u counts all ratings of a user: MLlib counts only
    those above 0. A rating below 0 means that the user rejects the item. A rating of 0 is the same as no rating. The
    ratings of the same pair are summed.

    Up to rounding, the factors are those of `alscore.AlternatingLeastSquares` from the same initial factors. They
    depend on the ratings and the parameters. Their last bits depend on the numbers of blocks too, but not on
    partitions, threads or executors.

    Spark computes the table twice: once to verify it, once to build the blocks. Cache a table that is slow to compute,
    or whose rows are not the same each time.

    A half-sweep is one job. If Spark loses an executor, it computes again what this executor sent in earlier
    half-sweeps. With ``SparkContext.setCheckpointDir`` these are at most `checkpointInterval` iterations, without it
    all of them. Spark also builds the lost blocks of ratings again from the table.

    Parameters
    ----------
    rank : int
        Number of factors.
    maxIter : int
        Number of iterations, at least 1.
    regParam : float
        λ.
    numUserBlocks, numItemBlocks : int
        Numbers of blocks of users and of items. 0, the default: the number of tasks that Spark runs at once, but at
        most one block for each 100,000 ratings, and at least one for each 50 million.
    implicitPrefs : bool
        Must be True, the default.
    alpha : float
        Scale of the confidence.
    userCol, itemCol : str
        Names of the columns of ids: integers of up to 64 bits, or strings.
    ratingCol : str
        Name of the column of ratings, which are numbers. Empty: each row counts 1.
    nonnegative : bool
        Whether all factors must be at least 0. True is the same as ``solver="nonnegative"``.
    checkpointInterval : int
        Iterations from one checkpoint to the next, if the SparkContext has a folder for checkpoints. -1: never.
    seed : int
        Seed of the initial item factors: see `alscore.spark.initial_factors`. The default is 0.
    coldStartStrategy : {"nan", "drop"}
        What `transform` does with users and items that were not fitted: their score is NaN, or their row is left out.
    intermediateStorageLevel, finalStorageLevel : str
        How Spark keeps the blocks of ratings during `fit`, and the factors after it.
    blockSize : int
        Accepted because MLlib has it; not used.
    predictionCol : str
        Name of the column of scores that `transform` adds.
    solver : str
        "cholesky" (exact), "cg", "auto", "nonnegative", or the name of a plug-in that all executors have.
    confidence : {"linear", "log", "raw"}
    epsilon, unobserved_weight, regularization_exponent : float
    regularization_count : {"entries", "all"}
        Same as for `alscore.AlternatingLeastSquares`, which describes the objective.
    calculate_training_loss : bool
        Whether to compute the objective after each iteration, for `ALSModel.training_loss`.

    Examples
    --------
    >>> from alscore.spark import ALS
    >>> model = ALS(rank=64, userCol="user", itemCol="artist", ratingCol="plays").fit(df)  # doctest: +SKIP
    >>> model.recommendForAllUsers(10).write.parquet("recommendations")  # doctest: +SKIP
    """

    _input_kwargs: dict[str, Any]  # set by keyword_only
    _training_class = SparkTraining  # tests use subclasses

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
            The estimator itself.
        """
        return self._set(numUserBlocks=value, numItemBlocks=value)

    def _fit(self, dataset: DataFrame) -> "ALSModel":
        objective = self._checked_objective()
        spark = classic_session(dataset)
        check_workers(spark)
        columns = Columns(self._value("userCol"), self._value("itemCol"), self._value("ratingCol"))
        ratings = checked_ratings(dataset, columns, self._value("alpha"))
        counts = BlockCounts(
            *(self._value(name) or _n_blocks(spark, ratings.size) for name in ("numUserBlocks", "numItemBlocks"))
        )
        settings = self._settings(objective, counts)
        trained = train(ratings.table, settings, self._training_class)
        fitted = FittedFactors(
            FactorTable.of(spark, trained.user, ratings.user_type, settings.rank, counts.user),
            FactorTable.of(spark, trained.item, ratings.item_type, settings.rank, counts.item),
            self._local_parameters(),
        )
        model = ALSModel(fitted, trained.losses)
        model._resetUid(self.uid)
        return self._copyValues(model)

    def _settings(self, objective: Objective, block_counts: BlockCounts) -> Settings:
        return Settings(
            objective=objective,
            solver=self._solver(),
            rank=self._value("rank"),
            iterations=self._value("maxIter"),
            seed=self._value("seed"),
            block_counts=block_counts,
            checkpoint_interval=self._value("checkpointInterval"),
            wants_loss=self._value("calculate_training_loss"),
            ratings_level=_storage_level(self._value("intermediateStorageLevel")),
            factors_level=_storage_level(self._value("finalStorageLevel")),
        )


def _n_blocks(spark: SparkSession, n_ratings: int) -> int:
    """Return the default number of blocks of a side."""
    context = spark.sparkContext
    tasks_at_once = context.defaultParallelism // int(context.getConf().get("spark.task.cpus", "1"))
    return max(1, min(tasks_at_once, n_ratings // _MIN_BLOCK_RATINGS), -(-n_ratings // _MAX_BLOCK_RATINGS))


def _storage_level(name: str) -> StorageLevel:
    level = getattr(StorageLevel, name, None)
    if not isinstance(level, StorageLevel) or name == "NONE":
        raise ValueError(f"{name!r} is not a storage level: use MEMORY_AND_DISK or another one of pyspark.StorageLevel")
    return level


@with_accessors
class ALSModel(Model, ALSModelParams, MLReadable["ALSModel"], MLWritable):
    """A fitted model: factors of users and of items, on Spark.

    `ALS.fit`, `ALSModel.from_local` and `ALSModel.load` make models.

    Attributes
    ----------
    rank : int
        Number of factors.
    userFactors, itemFactors : DataFrame
        Columns "id" and "features", an array of `rank` floats. The factors are in the canonical basis, as those of
        `alscore.AlternatingLeastSquares`.
    training_loss : list of float
        The objective after each iteration, if ``calculate_training_loss`` was set.
    """

    def __init__(self, fitted: FittedFactors, training_loss: Iterable[float] = ()) -> None:
        super().__init__()
        self._fitted = fitted
        self.training_loss = list(training_loss)

    @property
    def rank(self) -> int:
        return self._fitted.user.rank

    @property
    def userFactors(self) -> DataFrame:
        return self._fitted.user.unpacked()

    @property
    def itemFactors(self) -> DataFrame:
        return self._fitted.item.unpacked()

    def _transform(self, dataset: DataFrame) -> DataFrame:
        name = self._value("predictionCol")
        case_sensitive = dataset.sparkSession.conf.get("spark.sql.caseSensitive") == "true"
        for existing in dataset.columns:
            if existing == name or (existing.lower() == name.lower() and not case_sensitive):
                raise ValueError(
                    f"predictionCol: the table has a column {existing!r} already: drop it, or set predictionCol"
                )
        users = self.userFactors.toDF("__user_id", "__user_features")
        items = self.itemFactors.toDF("__item_id", "__item_features")
        user_ids, item_ids = self._ids("user", dataset), self._ids("item", dataset)
        joined = dataset.join(users, user_ids == users["__user_id"], "left")
        joined = joined.join(items, item_ids == items["__item_id"], "left")
        products = "zip_with(__user_features, __item_features, (x, y) -> cast(x as double) * y)"
        score = functions.expr(f"cast(aggregate({products}, 0D, (sum, product) -> sum + product) as float)")
        scored = joined.withColumn(name, functions.coalesce(score, functions.lit(float("nan")).cast("float")))
        scored = scored.drop("__user_id", "__user_features", "__item_id", "__item_features")
        if self._value("coldStartStrategy").lower() == "drop":
            scored = scored.where(~functions.isnan(column(scored, name)))
        return scored

    def _ids(self, side: str, dataset: DataFrame) -> Column:
        """Return the column of the users' or of the items' ids of a table."""
        param = f"{side}Col"
        return id_column(dataset, param, self._value(param), self._fitted.of(side).id_type)

    def recommendForAllUsers(self, numItems: int) -> DataFrame:
        """Return for every user the items with the highest scores, including those that the user already has.

        Parameters
        ----------
        numItems : int
            Items for each user, at least 1.

        Returns
        -------
        DataFrame
            A row for each user: the id, and "recommendations", an array of structs of the item and "rating", the score.
            Best first; ties: lower id first.

        Raises
        ------
        ValueError
            `numItems` is not an integer of at least 1.
        """
        return self._recommended("user", self._fitted.user, numItems)

    def recommendForAllItems(self, numUsers: int) -> DataFrame:
        """Return for every item the users with the highest scores. Same errors as `recommendForAllUsers`.

        Parameters
        ----------
        numUsers : int
            Users for each item, at least 1.

        Returns
        -------
        DataFrame
            Same as from `recommendForAllUsers`, with users and items exchanged.
        """
        return self._recommended("item", self._fitted.item, numUsers)

    def recommendForUserSubset(self, dataset: DataFrame, numItems: int) -> DataFrame:
        """Return the items with the highest scores for some of the users.

        Parameters
        ----------
        dataset : DataFrame
            Users in the column `userCol`. The result has each of them once, without users that were not fitted.
        numItems : int
            Items for each user, at least 1.

        Returns
        -------
        DataFrame
            Same as from `recommendForAllUsers`.

        Raises
        ------
        ValueError
            There is no column `userCol`, or `numItems` is not an integer of at least 1.
        TypeError
            The ids have another type than those that the model was fitted on.
        """
        return self._recommended("user", self._subset("user", dataset), numItems)

    def recommendForItemSubset(self, dataset: DataFrame, numUsers: int) -> DataFrame:
        """Return the users with the highest scores for some of the items. Same errors as `recommendForUserSubset`.

        Parameters
        ----------
        dataset : DataFrame
            Items in the column `itemCol`. The result has each of them once, without items that were not fitted.
        numUsers : int
            Users for each item, at least 1.

        Returns
        -------
        DataFrame
            Same as from `recommendForAllItems`.
        """
        return self._recommended("item", self._subset("item", dataset), numUsers)

    def _recommended(self, side: str, queries: FactorTable, n: int) -> DataFrame:
        names = self._value(f"{side}Col"), self._value(f"{opposite(side)}Col")
        return recommend_all(queries, self._fitted.of(opposite(side)), n, names)

    def _subset(self, side: str, dataset: DataFrame) -> FactorTable:
        """Return the factors of those users or items that are in a table."""
        return self._fitted.of(side).subset(dataset.select(self._ids(side, dataset).alias("id")).distinct())

    def to_local(self, ratings: DataFrame | None = None) -> Recommender:
        """Return the model as a Recommender in the driver's memory, which must hold all factors and ratings.

        Parameters
        ----------
        ratings : DataFrame, optional
            The table that the model was fitted on, with the same columns. Recommendations leave out the items that a
            user has in it. Without it, the Recommender has no interactions: where that matters, give the interactions
            with each request, or ``filter_already_liked_items=False``.

        Returns
        -------
        alscore.Recommender
            Users and items are in ascending order of their ids. `Recommender.model` is an AlternatingLeastSquares.

        Raises
        ------
        ValueError
            `ratings` has users or items that were not fitted, or `ALS` would not fit it.
        TypeError
            `ratings` has columns of types that `ALS` would not fit.
        """
        columns = Columns(self._value("userCol"), self._value("itemCol"), self._value("ratingCol"))
        return local.to_local(self._fitted, ratings, columns)

    @classmethod
    def from_local(cls, spark: SparkSession, recommender: Recommender) -> "ALSModel":
        """Return a fitted Recommender as a model on Spark.

        Parameters
        ----------
        spark : SparkSession
        recommender : alscore.Recommender
            Its labels must be integers or strings. float64 factors become float32.

        Returns
        -------
        ALSModel

        Raises
        ------
        TypeError
            The labels have another type, or the solver is an object instead of a name.
        """
        return cls(local.from_local(spark, recommender))

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
        users, items, parameters = self.model._fitted
        extra = {
            "userType": users.id_type.simpleString(),
            "itemType": items.id_type.simpleString(),
            "blocks": [users.n_blocks, items.n_blocks],
            "parameters": parameters,
            "trainingLoss": self.model.training_loss,
        }
        DefaultParamsWriter.saveMetadata(self.model, path, self.sparkSession, extraMetadata=extra)
        users.pieces.write.parquet(f"{path}/userFactors")
        items.pieces.write.parquet(f"{path}/itemFactors")


class _ModelReader(MLReader[ALSModel]):
    def load(self, path: str) -> ALSModel:
        spark, expected = self.sparkSession, f"{ALSModel.__module__}.{ALSModel.__name__}"
        metadata = DefaultParamsReader.loadMetadata(path, spark, expected)
        parameters = metadata["parameters"]
        users, items = (
            FactorTable(
                spark.read.parquet(f"{path}/{side}Factors"),
                types.DataType.fromDDL(metadata[f"{side}Type"]),
                int(parameters["factors"]),
                n_blocks,
            )
            for side, n_blocks in zip(("user", "item"), metadata["blocks"], strict=True)
        )
        model = ALSModel(FittedFactors(users, items, parameters), metadata["trainingLoss"])
        model._resetUid(metadata["uid"])
        DefaultParamsReader.getAndSetParams(model, metadata)
        return model
