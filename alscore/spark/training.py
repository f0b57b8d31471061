"""The alternation as jobs of Spark: one shuffle and one entry into Python for each half-sweep.

Every block has the partition of its number; the last partition takes reports. What a block computes is sent by number: factors to the blocks of the other side that need them, its own
factors to itself where they will be needed again, and a report, of k x k numbers, to the last partition. A job that
reads this last one alone makes Spark write the shuffle of all, from which the next half-sweep reads: nothing is computed
or sent twice, and only reports come to the driver.
"""

import dataclasses
import functools
import gc
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark import RDD, StorageLevel, TaskContext
from pyspark.sql import DataFrame

from alscore import _sweep, _threads, solvers
from alscore.half_sweeps import principal_axes
from alscore.objective import Objective
from alscore.spark import blocks
from alscore.spark.blocks import Block, Report, Rows, Solved, Step

SIDES = ("user", "item")
_CHUNK = 1 << 21  # ratings that are split at a time
_PART = 1 << 14  # rows of a factor matrix that go into one row of a table
_MOST = 1 << 31  # bytes that Spark sends in one piece


@dataclasses.dataclass(frozen=True)
class Layout:
    """Numbers of blocks of users and of items; a block of either lies in the partition of its number.

    Attributes
    ----------
    user, item : int
    """

    user: int
    item: int

    @property
    def reports(self) -> int:
        """The last partition, which has no blocks."""
        return max(self.user, self.item)

    def size(self, side: str) -> int:
        return self.user if side == "user" else self.item

    def scattered(self, records: RDD) -> RDD:
        """`records`, pairs of a partition and what is to go there, in that partition."""
        return records.partitionBy(self.reports + 1, _itself)


def _itself(partition: int) -> int:  # one function object, by which Spark knows that RDDs are partitioned alike
    return partition


def other(side: str) -> str:
    return SIDES[side == "user"]


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


class Trained(NamedTuple):
    """Factors by block, as rows (block, ids, factors as bytes), and the objective after each iteration."""

    user: RDD
    item: RDD
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
    sent : RDD
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
        self.half_sweeps, self.losses, self.penalty = 0, [], 0.0
        self.rotation: np.ndarray | None = None
        self.checkpoint: RDD | None = None
        cut = ratings.mapInArrow(partial(_cut, self.layout), "block int, side string, chunk binary")
        chunks = self.layout.scattered(cut.rdd.map(lambda row: (row.block, (row.side, row.chunk))))
        self.held = {
            side: self.layout.scattered(
                chunks.mapPartitionsWithIndex(partial(_build, self.layout, side, settings.objective))
            ).persist(settings.level)
            for side in SIDES
        }
        self._send("item", self.held["item"].mapPartitionsWithIndex(partial(_start, settings)))

    def _send(self, side: str, records: RDD, checkpoint: bool = False) -> float:
        """Make Spark scatter what the blocks of a side compute; return the sum of their losses."""
        self.sent = self.layout.scattered(records)
        if checkpoint:
            self.sent.checkpoint()
        found = self.sent.context.runJob(self.sent, _values, [self.layout.reports])
        reports: list[Report] = sorted((each for each in found if each.n_rows), key=lambda report: report.block)
        for report in reports:
            if report.failure is not None:
                raise report.failure
        self.gram = np.sum([report.gram for report in reports], axis=0)
        self.n_rows = sum(report.n_rows for report in reports)
        return float(sum(report.loss for report in reports))

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
            keeps=left < 2 or bool(getattr(self.solver, "warm_start", True)),
        )
        self.rotation = rotation
        gathered = self.held[side].union(self.sent)
        return self._send(side, gathered.mapPartitionsWithIndex(partial(_solve, self.layout, step)), checkpoint)

    def finished(self) -> Trained:
        """Both sides' factors in the canonical basis, cached and computed."""
        rotations: dict[str, np.ndarray | None] = {"user": None, "item": None}
        if not solvers.keeps_basis(self.solver):
            rotation = principal_axes(self.gram)[1]
            extremes = self.sent.mapPartitions(partial(_extremes, _single(rotation))).collect()
            lowest, highest = np.min([low for low, _ in extremes], axis=0), np.max([high for _, high in extremes], axis=0)
            rotation = rotation * np.where(-lowest > highest, -1, 1)
            rotations = {"user": self.rotation @ rotation, "item": rotation}
        tables = {
            side: self.sent.mapPartitionsWithIndex(partial(_table, side, _single(rotations[side]))).persist(
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


def _single(matrix: np.ndarray | None) -> np.ndarray | None:
    return None if matrix is None else np.ascontiguousarray(matrix, np.float32)


def _values(records: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    _settled()
    return (record for _, record in records)


def _delete_checkpoint(rdd: RDD | None) -> None:
    """Delete the files of a checkpoint that a later one has replaced, as MLlib does."""
    if rdd is None or rdd.getCheckpointFile() is None:
        return
    context = rdd.context
    path = context._jvm.org.apache.hadoop.fs.Path(rdd.getCheckpointFile())
    path.getFileSystem(context._jsc.hadoopConfiguration()).delete(path, True)


# What follows runs in the Python workers of Spark. Each reads all that it gets: a worker that does not ends with its task,
# and the next one starts anew, which takes longer than a half-sweep of a million ratings.


@functools.cache
def _settled() -> None:
    """Once in each worker: keep what is imported out of the garbage collections with which PySpark ends each task.

    Without, each takes 50 ms.
    """
    gc.collect()
    gc.freeze()


def _num_threads() -> int:
    """As many as Spark gives the task."""
    context = TaskContext.get()
    return 1 if context is None else context.cpus()


def _cut(layout: Layout, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Ratings as chunks (block, side, Arrow stream): every rating in one for a block of users and one for one of items."""
    collected, size = [], 0
    for batch in batches:
        collected.append(batch)
        size += len(batch)
        if size >= _CHUNK:
            yield _chunks(layout, collected)
            collected, size = [], 0
    if size:
        yield _chunks(layout, collected)


def _chunks(layout: Layout, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    users, items, values = (column.combine_chunks() for column in pa.Table.from_batches(batches).columns)
    chunks = [
        (block, side, _stream(batch))
        for side, rows, columns in (("user", users, items), ("item", items, users))
        for block, batch in blocks.split(rows, columns, values, layout.size(side))
    ]
    numbers, sides, streams = zip(*chunks, strict=True)
    return pa.record_batch(
        [pa.array(numbers, pa.int32()), pa.array(sides), pa.array(streams, pa.binary())], ["block", "side", "chunk"]
    )


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _build(
    layout: Layout, side: str, objective: Objective, number: int, chunks: Iterable[tuple[int, tuple[str, bytes]]]
) -> Iterator[tuple[int, Block]]:
    batches = [batch for _, (of, chunk) in chunks if of == side for batch in pa.ipc.open_stream(chunk)]
    if batches:
        yield number, Block.of(batches, objective, layout.size(other(side)))


def _start(settings: Settings, number: int, records: Iterable[tuple[int, Block]]) -> Iterator[tuple[int, Any]]:
    _settled()
    nonnegative = solvers.is_nonnegative(solvers.resolve(settings.solver))
    for _, block in records:
        factors = blocks.first_factors(block.ids, settings.rank, settings.seed, nonnegative)
        yield settings.layout.reports, blocks.gram_of(number, factors, _num_threads())
        yield from _messages("item", number, block, factors)


def _messages(side: str, number: int, block: Block, factors: np.ndarray) -> Iterator[tuple[int, Rows]]:
    for receiver, rows in block.messages(factors):
        if rows.nbytes >= _MOST:
            raise ValueError(
                f"{side} block {number} has {rows.nbytes:,} bytes for one block of the other side, and Spark sends less "
                f"than {_MOST:,} at a time: raise numUserBlocks and numItemBlocks"
            )
        yield receiver, Rows(number, rows)


def _solve(
    layout: Layout, step: Step, number: int, records: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, Rows | Solved | Report]]:
    _settled()
    block, previous, rows = None, None, []
    for _, record in records:
        if isinstance(record, Block):
            block = record
        elif isinstance(record, Rows):
            rows.append(record)
        elif isinstance(record, Solved) and record.side == step.side:
            previous = record
        elif isinstance(record, Solved):  # to where it will be looked for after the next shuffle
            yield number, record
    if block is None:
        return
    factors, report = blocks.half_sweep(step, number, block, rows, previous, _num_threads())
    yield layout.reports, report
    if factors is None:
        return
    if step.keeps:
        yield number, Solved(step.side, block.ids, factors)
    if step.sends:
        yield from _messages(step.side, number, block, factors)


def _solved(side: str, rotation: np.ndarray | None, records: Iterable[tuple[int, Any]]) -> Iterator[Solved]:
    """A block's factors after the last half-sweep, in another basis."""
    for _, record in records:
        if isinstance(record, Solved) and record.side == side:
            factors = np.array(record.factors)
            if rotation is not None:
                with _threads.one_blas_thread():
                    _sweep.rotate(factors, rotation, _num_threads())
            yield Solved(side, record.ids, factors)


def _extremes(rotation: np.ndarray, records: Iterable[tuple[int, Any]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The least and the largest number in each column of a block of item factors."""
    for _, _, factors in _solved("item", rotation, records):
        yield factors.min(axis=0), factors.max(axis=0)


def _table(
    side: str, rotation: np.ndarray | None, number: int, records: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, list, bytearray]]:
    for _, ids, factors in _solved(side, rotation, records):
        for first in range(0, len(ids), _PART):
            part = slice(first, first + _PART)
            yield number, ids[part].to_pylist(), bytearray(factors[part].tobytes())
