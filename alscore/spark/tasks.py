"""What runs in the Python workers of Spark: records in, records out.

A task reads all that it gets: a worker that does not ends with its task, and the next one starts anew, which takes
longer than a half-sweep of a million ratings. For the same reason this module imports as little as it can.
"""

import dataclasses
import functools
import gc
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext

from alscore._core import sweeps
from alscore._support.arrays import Floats
from alscore._support.threads import one_blas_thread
from alscore.solvers.objective import Objective
from alscore.spark import blocks
from alscore.spark.blocks import Block, Failure, Report, Rows, Solved, Step

SIDES = ("user", "item")
_CHUNK = 1 << 21  # ratings that are split at a time
_PART = 1 << 14  # rows of a factor matrix that go into one row of a table
_MOST = 1 << 30  # bytes of ratings or factors: Spark sends less than 2 GiB at once, in which factors may be twice


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


def other(side: str) -> str:
    return SIDES[side == "user"]


@functools.cache
def _settled() -> None:
    """Once in each worker: keep what is imported out of the garbage collections with which PySpark ends each task.

    Without, each takes 50 ms.
    """
    gc.collect()
    gc.freeze()


def num_threads() -> int:
    """As many as Spark gives the task."""
    context = TaskContext.get()
    return 1 if context is None else context.cpus()


def cut(layout: Layout, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Ratings as chunks (block, side, Arrow stream): each in one for the block of its user and one for its item's."""
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
    return bytes(sink.getvalue())


def total(records: Iterable[tuple[int, Report | Failure]]) -> Iterator[Report | Failure]:
    """What the driver gets of a half-sweep."""
    _settled()
    yield blocks.total(report for _, report in records)


def build(
    layout: Layout,
    side: str,
    objective: Objective,
    rank: int,
    number: int,
    chunks: Iterable[tuple[int, tuple[str, bytes]]],
) -> Iterator[tuple[int, Block | Failure]]:
    """A block of its chunks; or a failure, which `start` and `solve` pass on."""
    batches = [batch for _, (of, chunk) in chunks if of == side for batch in pa.ipc.open_stream(chunk)]
    if batches:
        try:
            block = Block.of(batches, objective, layout.size(other(side)))
            for what, nbytes in (("factors", 4 * rank * len(block.ids)), ("ratings", block.nbytes)):
                if nbytes >= _MOST:
                    raise ValueError(
                        f"{side} block {number} has {nbytes:,} bytes of {what}, and less than {_MOST:,} can be sent at "
                        "once: raise numUserBlocks and numItemBlocks"
                    )
            yield number, block
        except ValueError as error:
            yield layout.reports, Failure(number, error)


def start(
    layout: Layout, rank: int, seed: int, nonnegative: bool, number: int, records: Iterable[tuple[int, Block | Failure]]
) -> Iterator[tuple[int, Rows | Report | Failure]]:
    """The random start of a block of items."""
    _settled()
    for _, block in records:
        if isinstance(block, Failure):
            yield layout.reports, block
            continue
        factors = blocks.first_factors(block.ids, rank, seed, nonnegative)
        yield layout.reports, blocks.gram_of(number, factors, num_threads())
        yield from _messages("item", number, block, factors)


def _messages(side: str, number: int, block: Block, factors: Floats) -> Iterator[tuple[int, Rows]]:
    for receiver, rows in block.messages(factors):
        yield receiver, Rows(number, rows)


def solve(
    layout: Layout, step: Step, number: int, records: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, Rows | Solved | Report | Failure]]:
    _settled()
    block, previous = None, None
    rows: list[Rows] = []
    for _, record in records:
        if isinstance(record, Block):
            block = record
        elif isinstance(record, Rows):
            rows.append(record)
        elif isinstance(record, Failure):
            yield layout.reports, record
        elif isinstance(record, Solved) and record.side == step.side:
            previous = record
        elif isinstance(record, Solved):  # to where it will be looked for after the next shuffle
            yield number, record
    if block is None:
        return
    factors, report = blocks.half_sweep(step, number, block, rows, previous, num_threads())
    yield layout.reports, report
    if factors is None:
        return
    if step.keeps:
        yield number, Solved(step.side, block.ids, factors)
    if step.sends:
        yield from _messages(step.side, number, block, factors)


def _solved(side: str, rotation: Floats | None, records: Iterable[tuple[int, Any]]) -> Iterator[Solved]:
    """A block's factors after the last half-sweep, in another basis."""
    for _, record in records:
        if isinstance(record, Solved) and record.side == side:
            factors = np.array(record.factors)
            if rotation is not None:
                with one_blas_thread():
                    sweeps.rotate(factors, rotation, num_threads())
            yield Solved(side, record.ids, factors)


def extremes(rotation: Floats | None, records: Iterable[tuple[int, Any]]) -> Iterator[tuple[Floats, Floats]]:
    """The least and the largest number in each column of a block of item factors."""
    for _, _, factors in _solved("item", rotation, records):
        yield factors.min(axis=0), factors.max(axis=0)


def table(
    side: str, rotation: Floats | None, number: int, records: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, list[Any], bytearray]]:
    for _, ids, factors in _solved(side, rotation, records):
        for part in pieces(ids, factors):
            yield number, *part


def pieces(ids: pa.Array, factors: Floats) -> Iterator[tuple[list[Any], bytearray]]:
    """Ids and factors as rows of a table of blocks hold them, some to each row."""
    for first in range(0, len(ids), _PART):
        part = slice(first, first + _PART)
        yield ids[part].to_pylist(), bytearray(factors[part].tobytes())


def unpacked(rank: int, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Blocks of factors as rows (id, features)."""
    for batch in batches:
        for ids, factors in zip(batch["ids"], batch["factors"], strict=True):
            numbers = pa.array(np.frombuffer(factors.as_buffer(), np.float32))
            bounds = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * rank)
            for first in range(0, len(ids), _PART):
                features = pa.ListArray.from_arrays(bounds[first : first + _PART + 1], numbers)
                yield pa.record_batch([ids.values[first : first + _PART], features], ["id", "features"])


def packed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows (block, id, features) as blocks of factors, many for each."""
    for batch in batches:
        block = batch["block"].to_numpy()
        order = np.argsort(block, kind="stable")
        rows = batch.take(pa.array(order))
        starts = np.flatnonzero(np.diff(block[order], prepend=-1))
        bounds = pa.array(np.append(starts, len(order)).astype(np.int32))
        features = rows["features"].flatten().to_numpy().reshape(len(order), -1)
        packed = [features[a:b].tobytes() for a, b in zip(starts, bounds.to_pylist()[1:], strict=True)]
        yield pa.record_batch(
            [
                rows["block"].take(pa.array(starts)),
                pa.ListArray.from_arrays(bounds, rows["id"]),
                pa.array(packed, pa.binary()),
            ],
            ["block", "ids", "factors"],
        )
