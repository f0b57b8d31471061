"""Exact top-N for all queries as one job: a task holds a block of queries, and all candidates stream by."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession, functions, types

from alscore._support.arrays import Floats, Int32s
from alscore._support.checks import require_integer
from alscore.retrieval import Candidates, top_n
from alscore.spark import tasks
from alscore.spark.factor_table import FactorTable
from alscore.spark.inputs import quoted

# Bytes of candidates' factors that are searched at once. More need more memory, and their norms end a search sooner.
_CANDIDATE_CHUNK_BYTES = 1 << 26
# Recommendations in one Arrow batch of results.
_BATCH_RECOMMENDATIONS = 1 << 18


def recommend_all(queries: FactorTable, candidates: FactorTable, n: int, names: tuple[str, str]) -> DataFrame:
    """Return for every query the n candidates with the largest inner products. Ties: lower id first.

    The rows do not depend on blocks or partitions. A task holds the queries of one block, their results and 64 MB of
    candidates, however many candidates there are. The candidates are shuffled once to each block of queries.

    Parameters
    ----------
    queries, candidates : FactorTable
    n : int
        Candidates for each query, at least 1.
    names : tuple of str
        Names of the columns of the queries' and of the candidates' ids in the result.

    Returns
    -------
    DataFrame
        The columns of `pyspark.ml.recommendation.ALSModel.recommendForAllUsers`: the query, and "recommendations", an
        array of structs of the candidate and "rating" (float), best first. The array is shorter where there are fewer
        candidates.

    Raises
    ------
    ValueError
        `n` is not an integer of at least 1.
    """
    require_integer(n, "the number of recommendations", 1)
    keys = functions.lit(_keys(queries.pieces.sparkSession, queries.n_blocks))
    id_types = [_block_id_type(side) for side in (queries, candidates)]
    no_query, no_candidate = (functions.lit(None).cast(types.ArrayType(id_type)) for id_type in id_types)
    rows = _rows(queries, keys[functions.col("block")], functions.col("ids"), no_candidate).union(
        _rows(candidates, functions.explode(keys), no_query, functions.col("ids"))
    )
    rows = rows.repartition(queries.n_blocks, "key").sortWithinPartitions("key", functions.col("queries").isNull())
    rank = queries.rank

    def search(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return search_batches(batches, lambda: Search(n, rank, names, tasks.num_threads()))

    results = rows.mapInArrow(search, _schema(names, id_types))
    fields = _schema(names, [queries.id_type, candidates.id_type])
    return results.select(*(functions.col(quoted(field.name)).cast(field.dataType) for field in fields))


def _block_id_type(table: FactorTable) -> types.DataType:
    return cast(types.ArrayType, table.pieces.schema["ids"].dataType).elementType


def _rows(table: FactorTable, key: Column, queries: Column, candidates: Column) -> DataFrame:
    return table.pieces.select(key.alias("key"), queries.alias("queries"), candidates.alias("candidates"), "factors")


def _schema(names: tuple[str, str], id_types: list[types.DataType]) -> types.StructType:
    recommendation = types.StructType().add(names[1], id_types[1]).add("rating", types.FloatType())
    return types.StructType().add(names[0], id_types[0]).add("recommendations", types.ArrayType(recommendation))


def _keys(spark: SparkSession, n: int) -> list[int]:
    """Return n keys: `repartition` puts the i-th of them into the i-th of n partitions."""
    keys: dict[int, int] = {}
    n_tried = 4 * n
    while len(keys) < n:
        n_tried *= 2
        query = f"SELECT transform(sequence(1, {n_tried}), key -> pmod(hash(key), {n}))"
        ((partitions,),) = spark.sql(query).collect()
        keys = dict(zip(reversed(partitions), range(n_tried, 0, -1), strict=True))
    return [keys[partition] for partition in range(n)]


class _Pieces:
    """Ids and factors that arrive in pieces."""

    def __init__(self, rank: int) -> None:
        self.rank, self.nbytes = rank, 0
        self._ids: list[pa.Array] = []
        self._factors: list[Floats] = []

    def add(self, ids: pa.Array, factors: pa.BinaryScalar) -> None:
        rows = np.frombuffer(factors.as_buffer(), np.float32).reshape(-1, self.rank)
        if len(rows):
            self._ids.append(ids)
            self._factors.append(rows)
            self.nbytes += rows.nbytes

    @property
    def whole(self) -> tuple[pa.Array, Floats]:
        if len(self._ids) > 1:
            self._ids, self._factors = [pa.concat_arrays(self._ids)], [np.concatenate(self._factors)]
        return self._ids[0], self._factors[0]


class _Best(NamedTuple):
    """The best candidates of each query so far.

    Attributes
    ----------
    ids : pyarrow.Array
        Ids of candidates, ascending.
    places : int32 array (queries, at most n)
        Positions in `ids`, best first. -1: there is no further candidate.
    scores : float32 array, as `places`
    """

    ids: pa.Array
    places: Int32s
    scores: Floats


class Search:
    """The n best candidates of each query, while the candidates arrive in pieces. Only the best are kept.

    Parameters
    ----------
    n : int
        Candidates for each query.
    rank : int
        Number of factors.
    names : tuple of str
        As for `recommend_all`.
    num_threads : int
    chunk_bytes : int
        Bytes of candidates' factors to collect before they are searched.
    batch_recommendations : int
        Recommendations in one batch of results. A batch has at least one query.
    """

    def __init__(
        self,
        n: int,
        rank: int,
        names: tuple[str, str],
        num_threads: int,
        *,
        chunk_bytes: int = _CANDIDATE_CHUNK_BYTES,
        batch_recommendations: int = _BATCH_RECOMMENDATIONS,
    ) -> None:
        self.n, self.rank, self.names, self.num_threads = n, rank, names, num_threads
        self._chunk_bytes, self._batch_queries = chunk_bytes, max(1, batch_recommendations // n)
        self.queries, self._candidates = _Pieces(rank), _Pieces(rank)
        self._best: _Best | None = None

    def add_candidates(self, ids: pa.Array, factors: pa.BinaryScalar) -> None:
        if not self.queries.nbytes:
            return
        self._candidates.add(ids, factors)
        if self._candidates.nbytes >= self._chunk_bytes:
            self._search()

    def _search(self) -> None:
        ids, factors = self._candidates.whole
        self._candidates = _Pieces(self.rank)
        order = pc.sort_indices(ids)  # with ascending ids, the first candidate of a tie is the one with the lower id
        candidates = Candidates(factors[order.to_numpy()], num_threads=self.num_threads)
        places, scores = top_n(self.queries.whole[1], candidates, min(self.n, len(ids)), num_threads=self.num_threads)
        best = _Best(ids.take(order), places, scores)
        self._best = best if self._best is None else _merged(self._best, best, self.n)

    def results(self) -> Iterator[pa.RecordBatch]:
        """Yield a row for each query, as `recommend_all` describes them."""
        if self._candidates.nbytes:
            self._search()
        if self._best is None:
            return
        queries, (candidates, places, scores) = self.queries.whole[0], self._best
        for first in range(0, len(queries), self._batch_queries):
            batch = slice(first, first + self._batch_queries)
            exists = places[batch] >= 0
            recommendations = pa.StructArray.from_arrays(
                [candidates.take(pa.array(places[batch][exists])), pa.array(scores[batch][exists])],
                [self.names[1], "rating"],
            )
            ends = np.append(0, exists.sum(axis=1).cumsum()).astype(np.int32)
            lists = pa.ListArray.from_arrays(ends, recommendations)
            yield pa.RecordBatch.from_arrays([queries[batch], lists], [self.names[0], "recommendations"])


def search_batches(batches: Iterable[pa.RecordBatch], new_search: Callable[[], Search]) -> Iterator[pa.RecordBatch]:
    """Yield the results for each key's queries. In `batches` all queries of a key come before its candidates."""
    search, current_key = new_search(), None
    for batch in batches:
        for row in range(batch.num_rows):
            key, queries, candidates, factors = (column[row] for column in batch.columns)
            if key != current_key and current_key is not None:
                yield from search.results()
                search = new_search()
            current_key = key
            if queries.is_valid:
                search.queries.add(queries.values, factors)
            else:
                search.add_candidates(candidates.values, factors)
    yield from search.results()


def _merged(a: _Best, b: _Best, n: int) -> _Best:
    """Return the n best candidates of each query from both."""
    ids = pa.concat_arrays([a.ids, b.ids])
    places = np.hstack([a.places, np.where(b.places < 0, -1, b.places + len(a.ids))])
    scores = np.hstack([a.scores, b.scores])
    kept = np.unique(places[places >= 0])
    ids = ids.take(pa.array(kept))
    order = pc.sort_indices(ids)
    new_places = np.empty(len(a.ids) + len(b.ids) + 1, np.int32)  # the last one is for place -1: no candidate
    new_places[kept[order.to_numpy()]] = np.arange(len(kept))
    new_places[-1] = -1
    places = new_places[places]
    best = np.lexsort((places, -scores), axis=1)[:, :n]
    return _Best(ids.take(order), np.take_along_axis(places, best, 1), np.take_along_axis(scores, best, 1))
