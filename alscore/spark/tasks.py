"""What runs in the Python workers of Spark: each task gets records and yields records.

A task reads all of its records. Spark stops a worker whose task leaves records unread, and to start another one takes
longer than a half-sweep of a million ratings. For the same reason this module imports as little as it can.

A record is a pair: the number of the partition that it goes to, and what goes there.
"""

import dataclasses
import functools
import gc
import itertools
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
from alscore.spark.blocks import Block, BlockSummary, Failure, KeptFactors, Message, Step

SIDES = ("user", "item")

# Ratings that a task collects before it splits them by block. More make fewer chunks, fewer need less memory.
_SPLIT_RATINGS = 1 << 21
# Rows of factors in one row of a factor table.
_PIECE_ROWS = 1 << 14
# Bytes of a block's ratings, or of its factors. Spark sends less than 2 GiB at once, which may hold the factors twice.
_MAX_BLOCK_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class BlockCounts:
    """Numbers of blocks of users and of items. A block of either side lies in the partition of its number.

    Attributes
    ----------
    user, item : int
    """

    user: int
    item: int

    @property
    def summary_partition(self) -> int:
        """The last partition. It has no blocks: it takes the summaries of all blocks."""
        return max(self.user, self.item)

    def of(self, side: str) -> int:
        return self.user if side == "user" else self.item


def opposite(side: str) -> str:
    return SIDES[side == "user"]


@functools.cache
def _freeze_imports() -> None:
    """Once in each worker: exempt the imported modules from garbage collection.

    PySpark collects garbage at the end of each task. With these modules a collection takes 50 ms.
    """
    gc.collect()
    gc.freeze()


def num_threads() -> int:
    """Return the number of threads that Spark gives the task."""
    context = TaskContext.get()
    return 1 if context is None else context.cpus()


def split_ratings(counts: BlockCounts, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Split ratings into chunks (block, side, Arrow stream).

    Each rating goes into two chunks: one for the block of its user, one for the block of its item.
    """
    collected, size = [], 0
    for batch in batches:
        collected.append(batch)
        size += len(batch)
        if size >= _SPLIT_RATINGS:
            yield _chunks(counts, collected)
            collected, size = [], 0
    if size:
        yield _chunks(counts, collected)


def _chunks(counts: BlockCounts, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Split ratings into a record batch with a row (block, side, Arrow stream) for each block of each side."""
    users, items, values = (column.combine_chunks() for column in pa.Table.from_batches(batches).columns)
    chunks = [
        (block, side, _stream(batch))
        for side, rows, columns in (("user", users, items), ("item", items, users))
        for block, batch in blocks.ratings_by_block(rows, columns, values, counts.of(side))
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


def summarize(records: Iterable[tuple[int, BlockSummary | Failure]]) -> Iterator[BlockSummary | Failure]:
    """Sum the summaries in the last partition: what the driver gets of a half-sweep."""
    _freeze_imports()
    yield blocks.sum_summaries(summary for _, summary in records)


def build(
    counts: BlockCounts,
    side: str,
    objective: Objective,
    rank: int,
    number: int,
    records: Iterable[tuple[int, tuple[str, bytes]]],
    max_bytes: int = _MAX_BLOCK_BYTES,
) -> Iterator[tuple[int, Block | Failure]]:
    """Build a block of one side from its chunks.

    Yield the block for its own partition, or a failure, which `initial_messages` and `solve` pass on. A block of
    `max_bytes` or more, of ratings or of factors, is a failure.
    """
    batches = [batch for _, (of, chunk) in records if of == side for batch in pa.ipc.open_stream(chunk)]
    if batches:
        try:
            block = Block.of(batches, objective, counts.of(opposite(side)))
            for content, nbytes in (("factors", 4 * rank * len(block.ids)), ("ratings", block.nbytes)):
                if nbytes >= max_bytes:
                    raise ValueError(
                        f"{side} block {number} has {nbytes:,} bytes of {content}, and Spark can send less than "
                        f"{max_bytes:,} at once: raise numUserBlocks and numItemBlocks"
                    )
            yield number, block
        except ValueError as error:
            yield counts.summary_partition, Failure(number, error)


def initial_messages(
    counts: BlockCounts,
    rank: int,
    seed: int,
    nonnegative: bool,
    number: int,
    records: Iterable[tuple[int, Block | Failure]],
) -> Iterator[tuple[int, Message | BlockSummary | Failure]]:
    """Draw the initial factors of a block of items, and send them to the blocks of users."""
    _freeze_imports()
    for _, block in records:
        if isinstance(block, Failure):
            yield counts.summary_partition, block
            continue
        factors = blocks.initial_factors(block.ids, rank, seed, nonnegative)
        yield counts.summary_partition, blocks.summary_of(number, factors, num_threads())
        yield from _messages(number, block, factors)


def _messages(number: int, block: Block, factors: Floats) -> Iterator[tuple[int, Message]]:
    for receiver, sent in block.sent(factors):
        yield receiver, Message(number, sent)


def solve(
    counts: BlockCounts, step: Step, number: int, records: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, Message | KeptFactors | BlockSummary | Failure]]:
    """Solve a block with the messages in its partition, and send what the next half-sweeps need."""
    _freeze_imports()
    block, previous = None, None
    messages: list[Message] = []
    for _, record in records:
        if isinstance(record, Block):
            block = record
        elif isinstance(record, Message):
            messages.append(record)
        elif isinstance(record, Failure):
            yield counts.summary_partition, record
        elif isinstance(record, KeptFactors) and record.side == step.side:
            previous = record
        elif isinstance(record, KeptFactors):  # of the opposite side: the next half-sweep reads them from this shuffle
            yield number, record
    if block is None:
        return
    factors, result = blocks.solve_block(step, number, block, messages, previous, num_threads())
    yield counts.summary_partition, result
    if factors is None:
        return
    if step.keeps:
        yield number, KeptFactors(step.side, block.ids, factors)
    if step.sends:
        yield from _messages(number, block, factors)


def _rotated(side: str, rotation: Floats | None, records: Iterable[tuple[int, Any]]) -> Iterator[KeptFactors]:
    """Yield the factors of a block after the last half-sweep, rotated."""
    for _, record in records:
        if isinstance(record, KeptFactors) and record.side == side:
            factors = np.array(record.factors)
            if rotation is not None:
                with one_blas_thread():
                    sweeps.rotate(factors, rotation, num_threads())
            yield KeptFactors(side, record.ids, factors)


def extremes(rotation: Floats | None, records: Iterable[tuple[int, Any]]) -> Iterator[tuple[Floats, Floats]]:
    """Yield the least and the largest number in each column of a block of item factors."""
    for _, _, factors in _rotated("item", rotation, records):
        yield factors.min(axis=0), factors.max(axis=0)


def table_rows(
    side: str, rotation: Floats | None, number: int, records: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, list[Any], bytearray]]:
    """Yield the rows (block, ids, factors) that a block adds to the factor table of its side."""
    for _, ids, factors in _rotated(side, rotation, records):
        for piece in pieces(ids, factors):
            yield number, *piece


def pieces(ids: pa.Array, factors: Floats) -> Iterator[tuple[list[Any], bytearray]]:
    """Cut ids and factors into pieces, one for each row of a factor table."""
    for first in range(0, len(ids), _PIECE_ROWS):
        rows = slice(first, first + _PIECE_ROWS)
        yield ids[rows].to_pylist(), bytearray(factors[rows].tobytes())


def unpacked(rank: int, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Turn rows of a factor table into rows (id, features)."""
    for batch in batches:
        for ids, factors in zip(batch["ids"], batch["factors"], strict=True):
            numbers = pa.array(np.frombuffer(factors.as_buffer(), np.float32))
            bounds = pa.array(np.arange(len(ids) + 1, dtype=np.int32) * rank)
            for first in range(0, len(ids), _PIECE_ROWS):
                features = pa.ListArray.from_arrays(bounds[first : first + _PIECE_ROWS + 1], numbers)
                yield pa.record_batch([ids.values[first : first + _PIECE_ROWS], features], ["id", "features"])


def packed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Turn rows (block, id, features) into rows of a factor table, several for each block."""
    for batch in batches:
        block = batch["block"].to_numpy()
        order = np.argsort(block, kind="stable")
        rows = batch.take(pa.array(order))
        starts = np.flatnonzero(np.diff(block[order], prepend=-1))
        bounds = np.append(starts, len(order))
        features = rows["features"].flatten().to_numpy().reshape(len(order), -1)
        factors = [features[first:end].tobytes() for first, end in itertools.pairwise(bounds)]
        yield pa.record_batch(
            [
                rows["block"].take(pa.array(starts)),
                pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), rows["id"]),
                pa.array(factors, pa.binary()),
            ],
            ["block", "ids", "factors"],
        )
