"""Training as jobs of Spark: each half-sweep is one job with one shuffle and one entry into Python.

Every block has the partition of its number; the last partition takes the summaries. A block addresses its records by
partition. It sends factors to the blocks of the opposite side that need them, its own factors to itself if a later
half-sweep needs them, and a summary of k x k numbers to the last partition.

The job of a half-sweep reads the last partition only. Spark then writes the shuffle of all partitions, and the next
half-sweep reads it: nothing is computed or sent twice, and the driver gets only the sum of the summaries.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from pyspark import RDD, StorageLevel
from pyspark.sql import DataFrame

from alscore import solvers
from alscore._support.arrays import Doubles, Floats
from alscore.solvers.half_sweeps import canonical_signs, principal_axes
from alscore.solvers.objective import Objective
from alscore.spark import tasks
from alscore.spark.blocks import Failure, Step
from alscore.spark.tasks import SIDES, BlockCounts


@dataclasses.dataclass(frozen=True)
class Settings:
    """The verified parameters of a fit.

    Attributes
    ----------
    objective : Objective
    solver : str
        Name of the solver.
    rank : int
        Number of factors.
    iterations : int
        Number of sweeps.
    seed : int
        Seed of the initial item factors.
    block_counts : BlockCounts
    checkpoint_interval : int
        Sweeps from one checkpoint to the next. Below 1: no checkpoints.
    wants_loss : bool
        Whether to compute the objective after each sweep.
    ratings_level, factors_level : StorageLevel
        How Spark keeps the blocks of ratings during the fit, and the factors after it.
    """

    objective: Objective
    solver: str
    rank: int
    iterations: int
    seed: int
    block_counts: BlockCounts
    checkpoint_interval: int
    wants_loss: bool
    ratings_level: StorageLevel
    factors_level: StorageLevel


class Trained(NamedTuple):
    """Factors of both sides as records (block, ids, factors as bytes), and the objective after each sweep."""

    user: RDD[Any]
    item: RDD[Any]
    losses: list[float]


class SparkTraining:
    """Alternating least squares on Spark, one sweep at a time.

    Building one only describes the blocks. Call `start`, then `sweep` as often as the settings say, `finished`, and
    `close` in any case.

    Parameters
    ----------
    ratings : DataFrame
        Three columns in this order: users and items (each bigint or string), and ratings (float, none of them 0).
    settings : Settings

    Attributes
    ----------
    blocks : dict of str to RDD
        The blocks of each side, cached.
    sent : RDD
        What the last half-sweep sent, each record in its partition.
    n_rows : int
        Rows of the side that the last half-sweep solved.
    gram : float64 array (rank, rank)
        Gram matrix of the factors of these rows.
    rotation : float64 array (rank, rank), or None
        From the basis of the factors that the last half-sweep read to the basis of those that it sent. None: the two
        are the same.
    losses : list of float
        The objective after each sweep, if the settings ask for it.
    half_sweeps : int
        Half-sweeps that have begun.
    """

    def __init__(self, ratings: DataFrame, settings: Settings) -> None:
        self.settings, self.block_counts = settings, settings.block_counts
        self.solver = solvers.resolve(settings.solver)
        self.half_sweeps = 0
        self.losses: list[float] = []
        self.rotation: Doubles | None = None
        self.checkpoint: RDD[Any] | None = None
        split = partial(tasks.split_ratings, self.block_counts)
        rows = ratings.mapInArrow(split, "block int, side string, chunk binary").rdd
        chunks = self._scattered(rows.map(lambda row: (row.block, (row.side, row.chunk))))
        self.blocks = {side: self._built(side, chunks) for side in SIDES}

    def _built(self, side: str, chunks: RDD[Any]) -> RDD[Any]:
        build = partial(tasks.build, self.block_counts, side, self.settings.objective, self.settings.rank)
        blocks = self._scattered(chunks.mapPartitionsWithIndex(build))
        return blocks.persist(self.settings.ratings_level)

    def _scattered(self, records: RDD[Any]) -> RDD[Any]:
        """Put each record into its partition."""
        return records.partitionBy(self.block_counts.summary_partition + 1, _as_numbered)

    def start(self) -> None:
        """Build the blocks, and draw the initial item factors."""
        settings, nonnegative = self.settings, solvers.is_nonnegative(self.solver)
        draw = partial(tasks.initial_messages, self.block_counts, settings.rank, settings.seed, nonnegative)
        self._send(self.blocks["item"].mapPartitionsWithIndex(draw))

    def _send(self, records: RDD[Any], checkpoint: bool = False) -> float:
        """Make Spark compute and scatter the records of a side's blocks. Return the sum of their losses."""
        self.sent = self._scattered(records)
        if checkpoint:
            self.sent.checkpoint()
        last = [self.block_counts.summary_partition]
        (total,) = self.sent.context.runJob(self.sent, tasks.summarize, last)
        if isinstance(total, Failure):
            raise total.error
        self.gram, self.n_rows = total.gram, total.n_rows
        return float(total.loss)

    def sweep(self) -> None:
        """Solve the users on the item factors, then the items on the user factors."""
        interval = self.settings.checkpoint_interval
        iteration = self.half_sweeps // 2 + 1
        due = interval > 0 and iteration % interval == 0 and self.sent.context.getCheckpointDir() is not None
        penalty = self._half_sweep("user")
        loss = self._half_sweep("item", checkpoint=due)
        if self.settings.wants_loss:
            self.losses.append(penalty + loss)
        if due:
            _delete_checkpoint(self.checkpoint)
            self.checkpoint = self.sent

    def _half_sweep(self, side: str, checkpoint: bool = False) -> float:
        """Solve one side. Return the sum of its blocks' losses."""
        self.half_sweeps += 1
        left = 2 * self.settings.iterations - self.half_sweeps
        gram, rotation, own_rotation = self.gram, None, None
        if not solvers.keeps_basis(self.solver):
            gram, rotation = principal_axes(gram)
            own_rotation = rotation if self.rotation is None else self.rotation @ rotation
        step = Step(
            side=side,
            objective=self.settings.objective,
            solver=self.settings.solver,
            rank=self.settings.rank,
            n_columns=self.n_rows,
            gram=gram,
            rotation=_single(rotation),
            own_rotation=_single(own_rotation),
            wants_loss=self.settings.wants_loss,
            sends=left > 0,
            keeps=left < 2 or solvers.starts_warm(self.solver),
        )
        self.rotation = rotation
        gathered = self.blocks[side].union(self.sent)
        return self._send(gathered.mapPartitionsWithIndex(partial(tasks.solve, self.block_counts, step)), checkpoint)

    def finished(self) -> Trained:
        """Return the factors of both sides in the canonical basis, cached and computed. Training ends here."""
        rotations: dict[str, Doubles | None] = {"user": None, "item": None}
        if self.rotation is not None:
            rotation = principal_axes(self.gram)[1]
            extremes = self.sent.mapPartitions(partial(tasks.extremes, _single(rotation))).collect()
            lowest = np.min([low for low, _ in extremes], axis=0)
            highest = np.max([high for _, high in extremes], axis=0)
            rotation = rotation * canonical_signs(lowest, highest)
            rotations = {"user": self.rotation @ rotation, "item": rotation}
        tables = {
            side: self.sent.mapPartitionsWithIndex(partial(tasks.table_rows, side, _single(rotations[side]))).persist(
                self.settings.factors_level
            )
            for side in SIDES
        }
        for table in tables.values():
            table.count()
        return Trained(tables["user"], tables["item"], self.losses)

    def close(self) -> None:
        """Free the blocks of ratings."""
        for blocks in self.blocks.values():
            blocks.unpersist()


def train(ratings: DataFrame, settings: Settings, training_class: type[SparkTraining] = SparkTraining) -> Trained:
    """Train on a table of ratings.

    Parameters
    ----------
    ratings : DataFrame
        As for `SparkTraining`.
    settings : Settings
    training_class : type
        `SparkTraining`, or a subclass.

    Raises
    ------
    ValueError
        Sums of ratings overflow, or a block is too large for Spark.
    alscore.solvers.NotPositiveDefiniteError, FloatingPointError
        A row cannot be solved.
    """
    training = training_class(ratings, settings)
    try:
        training.start()
        for _ in range(settings.iterations):
            training.sweep()
        return training.finished()
    finally:
        training.close()


def _as_numbered(partition: int) -> int:
    """Return the partition's own number. Spark compares function objects to see that RDDs are partitioned alike."""
    return partition


def _single(matrix: Doubles | None) -> Floats | None:
    return None if matrix is None else np.ascontiguousarray(matrix, np.float32)


def _delete_checkpoint(rdd: RDD[Any] | None) -> None:
    """Delete the files of a checkpoint that a later one has replaced, as MLlib does."""
    if rdd is None or rdd.getCheckpointFile() is None:
        return
    context: Any = rdd.context
    path = context._jvm.org.apache.hadoop.fs.Path(rdd.getCheckpointFile())
    path.getFileSystem(context._jsc.hadoopConfiguration()).delete(path, True)
