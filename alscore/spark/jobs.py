"""The alternation as jobs of Spark: one shuffle and one entry into Python for each half-sweep.

Every block has the partition of its number; the last partition takes reports. What a block computes is sent by number:
factors to the blocks of the other side that need them, its own factors to itself where they will be needed again, and a
report, of k x k numbers, to the last partition. A job that reads this last one alone makes Spark write the shuffle of
all, from which the next half-sweep reads: nothing is computed or sent twice, and only the reports' sum comes to the
driver.
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
from alscore.spark.tasks import SIDES, Layout


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a fit is asked for.

    Attributes
    ----------
    objective : Objective
    solver : str
    rank, iterations, seed : int
    layout : Layout
    checkpoint_interval : int
        Iterations; below 1 for never.
    wants_loss : bool
    level, final_level : StorageLevel
        Of the blocks of ratings, and of the factors.
    """

    objective: Objective
    solver: str
    rank: int
    iterations: int
    seed: int
    layout: Layout
    checkpoint_interval: int
    wants_loss: bool
    level: StorageLevel
    final_level: StorageLevel


def _itself(partition: int) -> int:  # one function object, by which Spark knows that RDDs are partitioned alike
    return partition


class Trained(NamedTuple):
    """Factors by block, as rows (block, ids, factors as bytes), and the objective after each iteration."""

    user: "RDD[Any]"
    item: "RDD[Any]"
    losses: list[float]


def train(ratings: DataFrame, settings: Settings) -> Trained:
    """Train on a table of users, items (each bigint or string) and ratings (float, none of them 0), in this order.

    Raises
    ------
    ValueError
        Sums of ratings overflow.
    alscore.solvers.NotPositiveDefiniteError, FloatingPointError
        A row cannot be solved.
    """
    training = _Training(ratings, settings)
    try:
        training.start()
        for _ in range(settings.iterations):
            training.sweep()
        return training.finished()
    finally:
        training.close()


class _Training:
    """A fit as far as it came.

    Attributes
    ----------
    held : dict
        The blocks of each side, cached.
    sent : "RDD[Any]"
        What the last half-sweep sent, scattered.
    gram : float64 array (rank, rank)
        Of the factors that it sent.
    n_rows : int
        How many these are.
    rotation : float64 array (rank, rank), or None
        From the basis of the factors before to that of these.
    """

    def __init__(self, ratings: DataFrame, settings: Settings) -> None:
        self.settings, self.layout = settings, settings.layout
        self.solver = solvers.resolve(settings.solver)
        self.half_sweeps = 0
        self.losses: list[float] = []
        self.rotation: Doubles | None = None
        self.checkpoint: RDD[Any] | None = None
        cut = ratings.mapInArrow(partial(tasks.cut, self.layout), "block int, side string, chunk binary")
        chunks = self._scattered(cut.rdd.map(lambda row: (row.block, (row.side, row.chunk))))
        self.held = {
            side: self._scattered(
                chunks.mapPartitionsWithIndex(
                    partial(tasks.build, self.layout, side, settings.objective, settings.rank)
                )
            ).persist(settings.level)
            for side in SIDES
        }

    def start(self) -> None:
        """Build the blocks, and draw the first item factors."""
        nonnegative = solvers.is_nonnegative(self.solver)
        start = partial(tasks.start, self.layout, self.settings.rank, self.settings.seed, nonnegative)
        self._send("item", self.held["item"].mapPartitionsWithIndex(start))

    def _scattered(self, records: "RDD[Any]") -> "RDD[Any]":
        """`records`, pairs of a partition and what is to go there, in that partition."""
        return records.partitionBy(self.layout.reports + 1, _itself)

    def _send(self, side: str, records: "RDD[Any]", checkpoint: bool = False) -> float:
        """Make Spark scatter what the blocks of a side compute; return the sum of their losses."""
        self.sent = self._scattered(records)
        if checkpoint:
            self.sent.checkpoint()
        (total,) = self.sent.context.runJob(self.sent, tasks.total, [self.layout.reports])
        if isinstance(total, Failure):
            raise total.error
        self.gram, self.n_rows = total.gram, total.n_rows
        return float(total.loss)

    def sweep(self) -> None:
        """One iteration: users on the item factors, then items on the user factors."""
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
        self.half_sweeps += 1
        left = 2 * self.settings.iterations - self.half_sweeps
        gram, rotation, own_rotation = self.gram, None, None
        if not solvers.keeps_basis(self.solver):
            gram, rotation = principal_axes(gram)
            own_rotation = rotation if self.rotation is None else self.rotation @ rotation
        step = Step(
            side,
            self.settings.objective,
            self.settings.solver,
            self.settings.rank,
            self.n_rows,
            gram,
            _single(rotation),
            _single(own_rotation),
            self.settings.wants_loss,
            sends=left > 0,
            keeps=left < 2 or solvers.starts_warm(self.solver),
        )
        self.rotation = rotation
        gathered = self.held[side].union(self.sent)
        return self._send(side, gathered.mapPartitionsWithIndex(partial(tasks.solve, self.layout, step)), checkpoint)

    def finished(self) -> Trained:
        """Both sides' factors in the canonical basis, cached and computed."""
        rotations: dict[str, Doubles | None] = {"user": None, "item": None}
        if self.rotation is not None:
            rotation = principal_axes(self.gram)[1]
            extremes = self.sent.mapPartitions(partial(tasks.extremes, _single(rotation))).collect()
            lowest = np.min([low for low, _ in extremes], axis=0)
            highest = np.max([high for _, high in extremes], axis=0)
            rotation = rotation * canonical_signs(lowest, highest)
            rotations = {"user": self.rotation @ rotation, "item": rotation}
        tables = {
            side: self.sent.mapPartitionsWithIndex(partial(tasks.table, side, _single(rotations[side]))).persist(
                self.settings.final_level
            )
            for side in SIDES
        }
        for table in tables.values():
            table.count()
        return Trained(tables["user"], tables["item"], self.losses)

    def close(self) -> None:
        for blocks_of_side in self.held.values():
            blocks_of_side.unpersist()


def _single(matrix: Doubles | None) -> Floats | None:
    return None if matrix is None else np.ascontiguousarray(matrix, np.float32)


def _delete_checkpoint(rdd: "RDD[Any] | None") -> None:
    """Delete the files of a checkpoint that a later one has replaced, as MLlib does."""
    if rdd is None or rdd.getCheckpointFile() is None:
        return
    context: Any = rdd.context
    path = context._jvm.org.apache.hadoop.fs.Path(rdd.getCheckpointFile())
    path.getFileSystem(context._jsc.hadoopConfiguration()).delete(path, True)
