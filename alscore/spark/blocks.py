"""What a block of users or of items holds and computes: numpy and Arrow alone, nothing of Spark.

A block has the users whose ids hash to it, or the items. From the ratings of its rows alone it knows both ends of what
blocks send each other: the factors of its rows that another block needs are those of the rows with an entry in that
block, and what it gets are the factors of the columns that its entries name, by block, and by id in each.
"""

import dataclasses
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

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashes(ids: Any) -> Hashes:
    """A uint64 for each id, integer or string, the same wherever and whenever it is computed.

    Parameters
    ----------
    ids : pyarrow.Array or array_like
        Integers that int64 can hold, or strings.
    """
    ids = ids if isinstance(ids, pa.Array) else pa.array(ids)
    if pa.types.is_integer(ids.type):
        return _mixed(ids.cast(pa.int64()).to_numpy().view(np.uint64))
    from pandas.util import hash_array

    return hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)


def _mixed(numbers: Hashes) -> Hashes:
    """Each uint64 by the finaliser of SplitMix64 (Steele, Lea, Flood 2014), in which every bit depends on all."""
    mixed = numbers + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def first_factors(ids: Any, rank: int, seed: int, nonnegative: bool = False) -> Floats:
    """The factors that training starts from: of each item they depend on `seed` and its id alone.

    Normal with standard deviation 1 / sqrt(rank): rows are about as long as MLlib's, 1. From a tenth of it, as
    `AlternatingLeastSquares` starts, the objective with λ n_u falls more slowly: on synthetic plays at a tenth of
    Last.fm's shape, rank 64, it was 1.46 times as high after 3 iterations, and 1.27 times after 10.

    Parameters
    ----------
    ids : pyarrow.Array or array_like
        Integers or strings.
    rank : int
    seed : int
    nonnegative : bool
        Take the absolute values.

    Returns
    -------
    float32 array, shape (len(ids), rank)
    """
    (seed_hash,) = hashes([seed])
    seeds = _mixed(hashes(ids) ^ seed_hash)
    start = zero_factors(len(seeds), rank, np.dtype(np.float32))
    counters = np.arange(1, (rank + 1) // 2 + 1, dtype=np.uint64) * _GOLDEN
    for first in range(0, len(seeds), 4096):
        part = slice(first, first + 4096)
        bits = _mixed(seeds[part, None] + counters)
        # Box and Muller (1958)
        radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) * 2.0**-32))
        angle = (bits & np.uint64(0xFFFFFFFF)) * (2 * math.pi * 2.0**-32)
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        start[part] = pairs.reshape(len(bits), -1)[:, :rank] / math.sqrt(rank)
    return np.abs(start, out=start) if nonnegative else start


def split(rows: pa.Array, columns: pa.Array, values: pa.Array, n_blocks: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Ratings by the block of their row: (block, (row id, column id, value))."""
    encoded = rows.dictionary_encode()
    order, bounds = _grouped(_blocks_of(encoded.dictionary, n_blocks)[encoded.indices.to_numpy()], n_blocks)
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
        The entries of each row. Columns are positions in what the other side's blocks send.
    received : int64 array, one for each block of the other side and one more
        The columns of block c are ``received[c]:received[c + 1]``.
    links : int32 array
        Rows whose factors the other side's blocks need, ascending for each.
    link_bounds : int64 array, as `received`
        The rows that block c needs are ``links[link_bounds[c]:link_bounds[c + 1]]``.
    """

    ids: pa.Array
    indptr: Int64s
    indices: Int32s
    strength: Floats
    received: Int64s
    links: Int32s
    link_bounds: Int64s

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, field.name).nbytes for field in dataclasses.fields(self))

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch], objective: Objective, n_other: int) -> "Block":
        """The block that has these ratings; those of one pair are summed."""
        table = pa.Table.from_batches(batches)
        rows, ids = _ascending(table["row"])
        columns, received = _by_block(table["column"], n_other)
        rows, columns, values = _summed(rows, columns, table["value"].to_numpy(), received[-1])
        used = np.zeros(received[-1], bool)  # not those whose ratings sum to 0
        used[columns] = True
        used_before = np.append(0, np.cumsum(used))
        columns, received = used_before[columns], used_before[received]
        # rows ascend, and columns in each row: so do the pairs of a row and a block that it has entries in
        pairs = rows * n_other + np.repeat(np.arange(n_other), np.diff(received))[columns]
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        order, link_bounds = _grouped(pairs % n_other, n_other)
        try:
            strength = objective.strength(values)
        except ValueError as error:
            raise ValueError(
                "ratingCol: the ratings of one user and item sum to more than float32 can hold a confidence for: scale "
                "the ratings or alpha down"
            ) from error
        return cls(
            ids,
            np.searchsorted(rows, np.arange(len(ids) + 1)),
            columns.astype(np.int32),
            strength,
            received,
            (pairs[order] // n_other).astype(np.int32),
            link_bounds,
        )

    def messages(self, factors: Floats) -> Iterator[tuple[int, Floats]]:
        """(block of the other side, the factors that it needs of this one's)."""
        for number, (first, end) in enumerate(zip(self.link_bounds[:-1], self.link_bounds[1:], strict=True)):
            if end > first:
                yield number, factors[self.links[first:end]]


def _ascending(ids: pa.ChunkedArray) -> tuple[Int64s, pa.Array]:
    """(positions, ids that ascend, each once)"""
    encoded = ids.dictionary_encode().combine_chunks()  # all strings at once may be more than an array holds, 2 GB
    order = pc.sort_indices(encoded.dictionary)
    return _inverse(order.to_numpy())[encoded.indices.to_numpy()], encoded.dictionary.take(order)


def _by_block(ids: pa.ChunkedArray, n_blocks: int) -> tuple[Int64s, Int64s]:
    """(positions of `ids`, each once, by block and by id in it; where each block begins)"""
    positions, ascending = _ascending(ids)
    order, bounds = _grouped(_blocks_of(ascending, n_blocks), n_blocks)
    return _inverse(order)[positions], bounds


def _blocks_of(ids: pa.Array, n_blocks: int) -> Int32s:
    """The block of each id."""
    return (hashes(ids) % np.uint64(n_blocks)).astype(np.int32)


def _grouped(group: Ints, n_groups: int) -> tuple[Int64s, Int64s]:
    """(positions by their group, and in each as they were; where each group begins, and the end)"""
    group = group.astype(np.min_scalar_type(n_groups))  # of one byte or two they are sorted by radix
    order = np.argsort(group, kind="stable")
    return order, np.append(0, np.cumsum(np.bincount(group, minlength=n_groups)))


def _inverse(order: Ints) -> Int64s:
    """Where each position is in `order`."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places


def _summed(rows: Int64s, columns: Int64s, values: Floats, n_columns: int) -> tuple[Int64s, Int64s, Floats]:
    """Entries by row and column, each pair once, in float64 summed by size, since they come in any order."""
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


class Rows(NamedTuple):
    """Factors on their way to a block of the other side."""

    source: int
    factors: Floats


class Solved(NamedTuple):
    """A block's factors, on their way to itself."""

    side: str
    ids: pa.Array
    factors: Floats


class Report(NamedTuple):
    """What a block tells of a half-sweep: nothing that grows with its rows."""

    block: int
    n_rows: int
    gram: Doubles
    loss: float = 0.0


class Failure(NamedTuple):
    """What it tells instead, for the driver to raise."""

    block: int
    error: Exception


@dataclasses.dataclass(frozen=True)
class Step:
    """One half-sweep as the driver sends it to the blocks of a side.

    Attributes
    ----------
    side : str
        What messages call a row.
    objective : Objective
    solver : str
    rank : int
    n_columns : int
        Rows of the other side, in all of its blocks.
    gram : float64 array (rank,), or (rank, rank)
        Of the other side: its eigenvalues, or all of it for a solver that keeps the basis.
    rotation : float32 array (rank, rank), or None
        From the basis in which the other side's factors come, to that of the eigenvectors.
    own_rotation : float32 array (rank, rank), or None
        To the same from the basis of this side's factors.
    wants_loss : bool
        Whether to compute a share of the objective: see `half_sweep`.
    sends, keeps : bool
        Whether the other side will need the factors, and whether this one will.
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


def total(reports: Iterable[Report | Failure]) -> Report | Failure:
    """The sum of the reports, in the order of their blocks and so always the same; or the first failure in it."""
    ordered = sorted(reports, key=lambda report: report.block)
    if not ordered:
        return Failure(0, RuntimeError("no block has any rows: the ratings changed meanwhile"))
    for report in ordered:
        if isinstance(report, Failure):
            return report
    _, n_rows, grams, losses = zip(*ordered, strict=True)
    return Report(0, sum(n_rows), np.sum(grams, axis=0), sum(losses))


def gram_of(number: int, factors: Floats, num_threads: int) -> Report:
    with one_blas_thread():
        return Report(number, len(factors), sweeps.gram(factors, num_threads))


def half_sweep(
    step: Step, number: int, block: Block, arrived: list[Rows], previous: Solved | None, num_threads: int
) -> tuple[Floats | None, Report | Failure]:
    """Solve the rows of a block on the factors that arrived.

    Returns the factors, None where a row cannot be solved, and the report or the failure. The loss is the block's share
    of the penalty where the rows are users, and of all the rest of the objective where they are items.
    """
    dtype = np.dtype(np.float32)
    fixed, out = zero_factors(block.received[-1], step.rank, dtype), zero_factors(len(block.ids), step.rank, dtype)
    counts = np.diff(block.received)
    if {rows.source: len(rows.factors) for rows in arrived} != {int(c): int(counts[c]) for c in np.flatnonzero(counts)}:
        raise RuntimeError(
            f"{step.side} block {number} did not get the factors it needs: the ratings changed meanwhile"
        )
    for rows in arrived:
        fixed[block.received[rows.source] : block.received[rows.source + 1]] = rows.factors
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
        shares = np.zeros(len(out)) if step.wants_loss and step.side == "item" else None
        try:
            has_shares = side.solve(solver, fixed, step.gram, out, shares)
        except (solvers.NotPositiveDefiniteError, FloatingPointError) as error:
            return None, Failure(number, type(error)(_with_id(str(error), block.ids)))
        gram = sweeps.gram(out, num_threads)
        loss = 0.0
        if step.wants_loss and step.side == "user":
            loss = penalty(out, side.regularization)
        elif shares is not None and has_shares:
            loss = float(shares.sum())
        elif step.wants_loss:
            fixed_gram = step.gram if step.gram.ndim == 2 else np.diag(step.gram)
            loss = errors(side, out, fixed, gram, fixed_gram) + penalty(out, side.regularization)
    return out, Report(number, len(out), gram, loss)


def _with_id(message: str, ids: pa.Array) -> str:
    """A message about a row of a block, with the row's id instead of its number."""
    return re.sub(r"row (\d+)", lambda row: repr(ids[int(row[1])].as_py()), message, count=1)
