"""Exact top-N for everybody as one distributed job: a task holds a block of queries, and all candidates stream by."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession, functions, types

from alscore._support.arrays import Floats, Int32s
from alscore._support.checks import require_integer
from alscore.retrieval import Candidates, top_n
from alscore.spark import tasks
from alscore.spark.inputs import quoted

_CHUNK_BYTES = 1 << 26  # of candidates searched at once: the more of them, the sooner their norms end a search
_BATCH_ANSWERS = 1 << 18  # recommendations in one Arrow batch


def recommend_all(
    queries: DataFrame,
    candidates: DataFrame,
    n: int,
    *,
    rank: int,
    query: types.StructField,
    candidate: types.StructField,
    query_blocks: int,
) -> DataFrame:
    """For every query the n candidates of the largest inner product; of equal ones the lower id first.

    The same rows whatever the blocks and partitions are. A task holds the queries of one block, their answers and
    64 MB of candidates, however many there are; the candidates are shuffled once to each block of queries.

    Parameters
    ----------
    queries, candidates : DataFrame
        Blocks of factors: "block" (int), "ids" (array<bigint> or array<string>) and "factors" (binary: float32, `rank`
        numbers for each id). A block may lie in many rows, or none.
    n : int
        At least 1.
    rank : int
        Number of factors.
    query, candidate : StructField
        Name and type of the columns of ids in the answer.
    query_blocks : int
        Blocks of queries are numbered from 0 to below this.

    Returns
    -------
    DataFrame
        As `pyspark.ml.recommendation.ALSModel.recommendForAllUsers` gives it: the query, and "recommendations", an
        array of structs of the candidate and "rating" (float), best first; shorter where there are fewer candidates.

    Raises
    ------
    ValueError
        `n` is not an integer of at least 1.
    """
    require_integer(n, "the number of recommendations", 1)
    keys = functions.lit(_keys(queries.sparkSession, query_blocks))
    nobody, nothing = (functions.lit(None).cast(side.schema["ids"].dataType) for side in (queries, candidates))
    rows = _rows(queries, keys[functions.col("block")], functions.col("ids"), nothing).union(
        _rows(candidates, functions.explode(keys), nobody, functions.col("ids"))
    )
    rows = rows.repartition(query_blocks, "key").sortWithinPartitions("key", functions.col("queries").isNull())
    names = query.name, candidate.name

    def answer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _answer(batches, n, rank, names, tasks.num_threads())

    ids = [cast(types.ArrayType, side.schema["ids"].dataType).elementType for side in (queries, candidates)]
    wanted = _schema(names, [query.dataType, candidate.dataType])
    found = rows.mapInArrow(answer, _schema(names, ids))
    return found.select(*(functions.col(quoted(field.name)).cast(field.dataType) for field in wanted))


def _rows(side: DataFrame, key: Column, queries: Column, candidates: Column) -> DataFrame:
    return side.select(key.alias("key"), queries.alias("queries"), candidates.alias("candidates"), "factors")


def _schema(names: tuple[str, str], of: list[types.DataType]) -> types.StructType:
    best = types.StructType().add(names[1], of[1]).add("rating", types.FloatType())
    return types.StructType().add(names[0], of[0]).add("recommendations", types.ArrayType(best))


def _keys(spark: SparkSession, n: int) -> list[int]:
    """Numbers that `repartition` puts into partitions of their own, the i-th of n into the i-th."""
    keys: dict[int, int] = {}
    tried = 4 * n
    while len(keys) < n:
        tried *= 2
        ((partitions,),) = spark.sql(f"SELECT transform(sequence(1, {tried}), key -> pmod(hash(key), {n}))").collect()
        keys = dict(zip(reversed(partitions), range(tried, 0, -1), strict=True))
    return [keys[partition] for partition in range(n)]


def _answer(
    batches: Iterable[pa.RecordBatch], n: int, rank: int, names: tuple[str, str], num_threads: int
) -> Iterator[pa.RecordBatch]:
    """The answers to each key's queries, all of which come before its candidates."""
    search, current = Search(n, rank, num_threads), None
    for batch in batches:
        for row in range(batch.num_rows):
            key, queries, candidates, factors = (column[row] for column in batch.columns)
            if key != current and current is not None:
                yield from search.answers(names)
                search = Search(n, rank, num_threads)
            current = key
            if queries.is_valid:
                search.queries.add(queries.values, factors)
            else:
                search.add_candidates(candidates.values, factors)
    yield from search.answers(names)


class _Block:
    """Ids and factors that come in pieces."""

    def __init__(self, rank: int) -> None:
        self.rank, self.size = rank, 0
        self._ids: list[pa.Array] = []
        self._factors: list[Floats] = []

    def add(self, ids: pa.Array, factors: pa.BinaryScalar) -> None:
        rows = np.frombuffer(factors.as_buffer(), np.float32).reshape(-1, self.rank)
        if len(rows):
            self._ids.append(ids)
            self._factors.append(rows)
            self.size += rows.nbytes

    @property
    def whole(self) -> tuple[pa.Array, Floats]:
        if len(self._ids) > 1:
            self._ids, self._factors = [pa.concat_arrays(self._ids)], [np.concatenate(self._factors)]
        return self._ids[0], self._factors[0]


class Search:
    """The n best candidates of each query, while the candidates come in pieces; of each piece nothing else is kept."""

    def __init__(self, n: int, rank: int, num_threads: int) -> None:
        self.n, self.rank, self.num_threads = n, rank, num_threads
        self.queries, self._candidates = _Block(rank), _Block(rank)
        self._best: tuple[pa.Array, Int32s, Floats] | None = None

    def add_candidates(self, ids: pa.Array, factors: pa.BinaryScalar) -> None:
        if not self.queries.size:
            return
        self._candidates.add(ids, factors)
        if self._candidates.size >= _CHUNK_BYTES:
            self._search()

    def _search(self) -> None:
        ids, factors = self._candidates.whole
        self._candidates = _Block(self.rank)
        order = pc.sort_indices(ids)  # so that of equals the first is the one with the lower id
        candidates = Candidates(factors[order.to_numpy()], num_threads=self.num_threads)
        best = top_n(self.queries.whole[1], candidates, min(self.n, len(ids)), num_threads=self.num_threads)
        self._best = _merged(self._best, (ids.take(order), *best), self.n)

    def answers(self, names: tuple[str, str]) -> Iterator[pa.RecordBatch]:
        """A row for each query, as `recommend_all` describes them."""
        if self._candidates.size:
            self._search()
        if self._best is None:
            return
        queries, (candidates, places, scores) = self.queries.whole[0], self._best
        step = max(1, _BATCH_ANSWERS // self.n)
        for first in range(0, len(queries), step):
            some = slice(first, first + step)
            found = places[some] >= 0
            best = pa.StructArray.from_arrays(
                [candidates.take(pa.array(places[some][found])), pa.array(scores[some][found])],
                [names[1], "rating"],
            )
            ends = np.append(0, found.sum(axis=1).cumsum()).astype(np.int32)
            lists = pa.ListArray.from_arrays(ends, best)
            yield pa.RecordBatch.from_arrays([queries[some], lists], [names[0], "recommendations"])


def _merged(a: Any, b: tuple[pa.Array, Int32s, Floats], n: int) -> tuple[pa.Array, Int32s, Floats]:
    """The n best of both, of each query: the ids among which they are, their places there (or -1), their scores."""
    if a is None:
        return b
    ids = pa.concat_arrays([a[0], b[0]])
    places = np.hstack([a[1], np.where(b[1] < 0, -1, b[1] + len(a[0]))])
    scores = np.hstack([a[2], b[2]])
    kept = np.unique(places[places >= 0])
    ids = ids.take(pa.array(kept))
    order = pc.sort_indices(ids)
    new_place = np.empty(len(a[0]) + len(b[0]) + 1, np.int32)  # the last for what is missing, which has place -1
    new_place[kept[order.to_numpy()]] = np.arange(len(kept))
    new_place[-1] = -1
    places = new_place[places]
    best = np.lexsort((places, -scores), axis=1)[:, :n]
    return ids.take(order), np.take_along_axis(places, best, 1), np.take_along_axis(scores, best, 1)
