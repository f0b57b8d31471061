"""What a block of users or of items holds and computes, with numpy and Arrow and without Spark.

A block has the users, or the items, whose ids hash to its number. Its own ratings tell it what it exchanges with the
blocks of the opposite side. It sends to each of them the factors of its rows that have a rating there. It receives the
factors of the columns that its ratings name, ordered by the block that sends them and by id within that block.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from alscore import solvers
from alscore._core import sweeps
from alscore._support.arrays import Doubles, Floats, Int32s, Int64s, Ints
from alscore._support.threads import one_blas_thread
from alscore.solvers.half_sweeps import Side, zero_factors
from alscore.solvers.loss import errors, penalty
from alscore.solvers.objective import Objective

Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio: the increment of SplitMix64
_DRAWN_ROWS = 4096  # rows of initial factors that are drawn at once: bounds the temporary arrays


def hashes(ids: Any) -> Hashes:
    """Return a uint64 for each id. It depends on the id alone, not on the machine or the process.

    Parameters
    ----------
    ids : pyarrow.Array or array_like
        Integers in the range of int64, or strings.
    """
    ids = ids if isinstance(ids, pa.Array) else pa.array(ids)
    if pa.types.is_integer(ids.type):
        return _mixed(ids.cast(pa.int64()).to_numpy().view(np.uint64))
    # Imported here: a Python worker of Spark starts faster without pandas, and integer ids do not need it.
    from pandas.util import hash_array

    return hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)


def _mixed(numbers: Hashes) -> Hashes:
    """Apply the finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of a result depends on all bits."""
    mixed = numbers + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def initial_factors(ids: Any, rank: int, seed: int, nonnegative: bool = False) -> Floats:
    """Return the item factors that training on Spark starts from.

    The factors of an item depend only on its id and on `seed`, not on the other items or on the blocks.

    Parameters
    ----------
    ids : pyarrow.Array or array_like
        Ids of the items: integers in the range of int64, or strings.
    rank : int
        Number of factors.
    seed : int
        Seed in the range of int64. The same seed gives the same factors.
    nonnegative : bool
        Take the absolute values.

    Returns
    -------
    float32 array, shape (len(ids), rank)

    Notes
    -----
    The numbers are normal with standard deviation 1 / sqrt(rank). A row's length is then about 1, as in MLlib.
    `AlternatingLeastSquares` starts from a tenth of it. With λ n_u the objective falls more slowly from there: on
    synthetic plays at a tenth of Last.fm's shape, with rank 64, it was 1.46 times as high after 3 iterations, and 1.27
    times after 10.
    """
    (seed_hash,) = hashes([seed])
    seeds = _mixed(hashes(ids) ^ seed_hash)
    initial = zero_factors(len(seeds), rank, np.dtype(np.float32))
    counters = np.arange(1, (rank + 1) // 2 + 1, dtype=np.uint64) * _GOLDEN
    for first in range(0, len(seeds), _DRAWN_ROWS):
        rows = slice(first, first + _DRAWN_ROWS)
        bits = _mixed(seeds[rows, None] + counters)
        # Box and Muller (1958)
        radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32))
        angle = (bits & np.uint64(0xFFFFFFFF)) * (2 * math.pi * 2.0**-32)
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        initial[rows] = pairs.reshape(len(bits), -1)[:, :rank] / math.sqrt(rank)
    return np.abs(initial, out=initial) if nonnegative else initial


def ratings_by_block(
    rows: pa.Array, columns: pa.Array, values: pa.Array, n_blocks: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Split ratings by the block of their row: yield (block number, batch of row id, column id and value)."""
    encoded = rows.dictionary_encode()
    order, bounds = _grouped(_block_numbers(encoded.dictionary, n_blocks)[encoded.indices.to_numpy()], n_blocks)
    batch = pa.record_batch([rows, columns, values], ["row", "column", "value"])
    for number in np.flatnonzero(np.diff(bounds)):
        yield int(number), batch.take(pa.array(order[bounds[number] : bounds[number + 1]]))


@dataclasses.dataclass(frozen=True)
class Block:
    """The rows of one block, in compressed form.

    Attributes
    ----------
    ids : pyarrow.Array
        int64 or string, ascending: one for each row.
    indptr, indices, strength : int64, int32 and float32 arrays
        The entries of each row. The index of a column is its position in what the opposite side's blocks send.
    column_bounds : int64 array (blocks of the opposite side + 1,)
        Block c of the opposite side sends the columns ``column_bounds[c]:column_bounds[c + 1]``.
    sent_rows : int32 array
        The rows whose factors each block of the opposite side needs; ascending for each of these blocks.
    sent_bounds : int64 array (blocks of the opposite side + 1,)
        Block c needs the rows ``sent_rows[sent_bounds[c]:sent_bounds[c + 1]]``.
    """

    ids: pa.Array
    indptr: Int64s
    indices: Int32s
    strength: Floats
    column_bounds: Int64s
    sent_rows: Int32s
    sent_bounds: Int64s

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in dataclasses.fields(self))

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch], objective: Objective, n_opposite: int) -> "Block":
        """Build a block from its ratings. The ratings of the same pair are summed.

        Parameters
        ----------
        batches : iterable of pyarrow.RecordBatch
            As from `ratings_by_block`.
        objective : Objective
        n_opposite : int
            Number of blocks of the opposite side.

        Raises
        ------
        ValueError
            A sum of ratings overflows float32 as a confidence.
        """
        table = pa.Table.from_batches(batches)
        rows, ids = _ascending(table["row"])
        columns, column_bounds = _by_block(table["column"], n_opposite)
        rows, columns, values = _summed(rows, columns, table["value"].to_numpy(), column_bounds[-1])
        used = np.zeros(column_bounds[-1], bool)  # False for columns whose ratings all sum to 0
        used[columns] = True
        used_before = np.append(0, np.cumsum(used))
        columns, column_bounds = used_before[columns], used_before[column_bounds]
        # A pair is a row and a block that sends one of its columns. Rows and each row's columns ascend: so do pairs.
        pairs = rows * n_opposite + np.repeat(np.arange(n_opposite), np.diff(column_bounds))[columns]
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        order, sent_bounds = _grouped(pairs % n_opposite, n_opposite)
        try:
            strength = objective.strength(values)
        except ValueError as error:
            raise ValueError(
                "ratingCol: the ratings of one user and item sum to more than float32 can hold as a confidence: scale "
                "the ratings or alpha down"
            ) from error
        return cls(
            ids,
            np.searchsorted(rows, np.arange(len(ids) + 1)),
            columns.astype(np.int32),
            strength,
            column_bounds,
            (pairs[order] // n_opposite).astype(np.int32),
            sent_bounds,
        )

    def sent(self, factors: Floats) -> Iterator[tuple[int, Floats]]:
        """Yield (number of a block of the opposite side, the rows of `factors` that it needs)."""
        for number, (first, end) in enumerate(itertools.pairwise(self.sent_bounds)):
            if end > first:
                yield number, factors[self.sent_rows[first:end]]


def _ascending(ids: pa.ChunkedArray) -> tuple[Int64s, pa.Array]:
    """Return (the position of each id in the second array, the distinct ids in ascending order)."""
    encoded = ids.dictionary_encode().combine_chunks()  # encoded first: one array holds at most 2 GB of strings
    order = pc.sort_indices(encoded.dictionary)
    return _inverse(order.to_numpy())[encoded.indices.to_numpy()], encoded.dictionary.take(order)


def _by_block(ids: pa.ChunkedArray, n_blocks: int) -> tuple[Int64s, Int64s]:
    """Order the distinct ids by block, and by id in each block.

    Returns (the position of each id in this order, the first position of each block and the end).
    """
    positions, ascending = _ascending(ids)
    order, bounds = _grouped(_block_numbers(ascending, n_blocks), n_blocks)
    return _inverse(order)[positions], bounds


def _block_numbers(ids: pa.Array, n_blocks: int) -> Int32s:
    """Return the number of the block of each id."""
    return (hashes(ids) % np.uint64(n_blocks)).astype(np.int32)


def _grouped(group: Ints, n_groups: int) -> tuple[Int64s, Int64s]:
    """Return (positions ordered by group, stable; the first index of each group in them and the end)."""
    group = group.astype(np.min_scalar_type(n_groups))  # numpy sorts integers of one or two bytes by radix
    order = np.argsort(group, kind="stable")
    return order, np.append(0, np.cumsum(np.bincount(group, minlength=n_groups)))


def _inverse(order: Ints) -> Int64s:
    """Return the inverse of a permutation: the index of each position in `order`."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def _summed(rows: Int64s, columns: Int64s, values: Floats, n_columns: int) -> tuple[Int64s, Int64s, Floats]:
    """Return the entries (rows, columns, values) ordered by row and column, with each pair once and without zeros.

    The values of a pair are summed in float64, in ascending order: the ratings arrive in any order, and the sum must
    not depend on it.
    """
    pairs = rows * n_columns + columns
    order = np.argsort(pairs)
    pairs, values = pairs[order], values[order]
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    if len(starts) < len(pairs):
        values = values[np.lexsort((values, pairs))]
        with np.errstate(over="ignore"):
            values = np.add.reduceat(values, starts, dtype=np.float64).astype(np.float32)
        pairs = pairs[starts]
    stored = values != 0
    pairs, values = pairs[stored], values[stored]
    return pairs // n_columns, pairs % n_columns, values


class Message(NamedTuple):
    """Factors on their way to a block of the opposite side.

    Attributes
    ----------
    source : int
        Number of the block that sends them.
    factors : float32 array (rows that the receiver needs, rank)
    """

    source: int
    factors: Floats


class KeptFactors(NamedTuple):
    """A block's own factors, which it sends to itself through the shuffle for a later half-sweep."""

    side: str
    ids: pa.Array
    factors: Floats


class BlockSummary(NamedTuple):
    """What a block tells the driver about a half-sweep. Its size does not grow with the rows of the block.

    Attributes
    ----------
    block : int
        Number of the block.
    n_rows : int
        Rows of the block.
    gram : float64 array (rank, rank)
        Gram matrix of the block's new factors.
    loss : float
        The block's share of the objective: see `solve_block`.
    """

    block: int
    n_rows: int
    gram: Doubles
    loss: float = 0.0


class Failure(NamedTuple):
    """What a block tells the driver instead of its summary: an error, which the driver raises."""

    block: int
    error: Exception


@dataclasses.dataclass(frozen=True)
class Step:
    """One half-sweep, as the driver sends it to the blocks of a side.

    Attributes
    ----------
    side : str
        The side that is solved: "user" or "item".
    objective : Objective
    solver : str
        Name of the solver.
    rank : int
        Number of factors.
    n_columns : int
        Rows of the fixed side, in all of its blocks.
    gram : float64 array (rank,) or (rank, rank)
        The eigenvalues of the fixed side's Gram matrix, or the whole matrix for a solver that keeps the basis.
    rotation : float32 array (rank, rank), or None
        From the basis of the fixed side's factors as they arrive to the eigenvectors. None: no rotation.
    own_rotation : float32 array (rank, rank), or None
        From the basis of this side's factors to the same eigenvectors.
    wants_loss : bool
        Whether the blocks compute their shares of the objective.
    sends : bool
        Whether the opposite side needs the new factors.
    keeps : bool
        Whether this side needs its new factors again.
    """

    side: str
    objective: Objective
    solver: str
    rank: int
    n_columns: int
    gram: Doubles
    rotation: Floats | None
    own_rotation: Floats | None
    wants_loss: bool
    sends: bool
    keeps: bool


def sum_summaries(summaries: Iterable[BlockSummary | Failure]) -> BlockSummary | Failure:
    """Return the sum of the summaries, or the failure of the lowest block.

    They are added in the order of their blocks: the sum has the same bits in whatever order they arrive.
    """
    ordered = sorted(summaries, key=lambda summary: summary.block)
    if not ordered:
        return Failure(0, RuntimeError("no block has any rows: the table of ratings has changed during the fit"))
    for summary in ordered:
        if isinstance(summary, Failure):
            return summary
    _, n_rows, grams, losses = zip(*ordered, strict=True)
    return BlockSummary(0, sum(n_rows), np.sum(grams, axis=0), sum(losses))


def summary_of(number: int, factors: Floats, num_threads: int) -> BlockSummary:
    """Return the summary of factors that no half-sweep has computed, without a loss."""
    with one_blas_thread():
        return BlockSummary(number, len(factors), sweeps.gram(factors, num_threads))


def solve_block(
    step: Step, number: int, block: Block, messages: list[Message], previous: KeptFactors | None, num_threads: int
) -> tuple[Floats | None, BlockSummary | Failure]:
    """Solve the rows of a block on the factors of the fixed side.

    Parameters
    ----------
    step : Step
    number : int
        Number of the block.
    block : Block
    messages : list of Message
        The factors of the fixed side that this block needs, one message from each block that has some of them.
    previous : KeptFactors, optional
        The block's factors from the half-sweep before, for a solver that starts from them.
    num_threads : int

    Returns
    -------
    factors : float32 array (rows of the block, rank), or None
        None: a row cannot be solved.
    result : BlockSummary or Failure
        With ``step.wants_loss``, the summary's loss is the block's share of the objective. For users it is the penalty
        of their factors, for items all the other terms.

    Raises
    ------
    RuntimeError
        The messages are not those that the block's ratings ask for.
    """
    fixed = _fixed_factors(step, number, block, messages)
    out = zero_factors(len(block.ids), step.rank, fixed.dtype)
    solver = solvers.resolve(step.solver)
    side = Side(
        step.side, step.objective, block.indptr, block.indices, block.strength, int(step.n_columns), num_threads
    )
    with one_blas_thread():
        if previous is not None:
            out[:] = previous.factors
        if step.rotation is not None:
            sweeps.rotate(fixed, step.rotation, num_threads)
        if previous is not None and step.own_rotation is not None:
            sweeps.rotate(out, step.own_rotation, num_threads)
        row_losses = np.zeros(len(out)) if step.wants_loss and step.side == "item" else None
        try:
            has_row_losses = side.solve(solver, fixed, step.gram, out, row_losses)
        except (solvers.NotPositiveDefiniteError, FloatingPointError) as error:
            return None, Failure(number, type(error)(_with_id(str(error), block.ids)))
        gram = sweeps.gram(out, num_threads)
        loss = 0.0
        if step.wants_loss and step.side == "user":
            loss = penalty(out, side.regularization)
        elif row_losses is not None and has_row_losses:
            loss = float(row_losses.sum())
        elif step.wants_loss:
            fixed_gram = step.gram if step.gram.ndim == 2 else np.diag(step.gram)
            loss = errors(side, out, fixed, gram, fixed_gram) + penalty(out, side.regularization)
    return out, BlockSummary(number, len(out), gram, loss)


def _fixed_factors(step: Step, number: int, block: Block, messages: list[Message]) -> Floats:
    """Return the factors of the block's columns: the messages in the order of the blocks that sent them."""
    bounds = block.column_bounds
    counts = np.diff(bounds)
    expected = {int(source): int(counts[source]) for source in np.flatnonzero(counts)}
    if {message.source: len(message.factors) for message in messages} != expected:
        raise RuntimeError(
            f"{step.side} block {number} has not received the factors that it needs: the table of ratings has changed "
            "during the fit. Cache the table"
        )
    fixed = zero_factors(bounds[-1], step.rank, np.dtype(np.float32))
    for message in messages:
        fixed[bounds[message.source] : bounds[message.source + 1]] = message.factors
    return fixed


def _with_id(message: str, ids: pa.Array) -> str:
    """Replace the number of a row of the block, in a message about that row, by the row's id."""
    return re.sub(r"row (\d+)", lambda row: repr(ids[int(row[1])].as_py()), message, count=1)
