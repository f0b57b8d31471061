"""Distributed top-N against brute force, with any numbers of blocks."""

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("pyspark")

from pyspark.sql import functions, types

from alscore.spark import ranking
from alscore.spark.factor_table import FactorTable

RANK = 5
LONG, STRING = types.LongType(), types.StringType()


def factor_table(spark, ids, factors, n_blocks, pieces=1, id_type=None):
    """A table of factors in which each block has some pieces."""
    block_id_type = STRING if isinstance(ids[0], str) else LONG
    schema = (
        types.StructType()
        .add("block", types.IntegerType())
        .add("ids", types.ArrayType(block_id_type))
        .add("factors", types.BinaryType())
    )
    block = np.arange(len(ids)) % n_blocks
    rows = [
        (b, [ids[at] for at in some], factors[some].tobytes())
        for b in range(n_blocks)
        for some in np.array_split(np.flatnonzero(block == b), pieces)
    ]
    return FactorTable(spark.createDataFrame(rows, schema), id_type or block_id_type, RANK, n_blocks)


def brute_force(queries, X, candidates, Y, n):
    """For each query the n best (candidate, score). Ties: lower id first."""
    by_id = np.array(sorted(range(len(candidates)), key=lambda at: candidates[at]))
    scores = X.astype(np.float64) @ Y[by_id].T.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return {query: [(candidates[by_id[at]], scores[row, at]) for at in order[row]] for row, query in enumerate(queries)}


def results(frame):
    """The result of `recommend_all`, in the form of `brute_force`."""
    rows = frame.collect()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: [(best[0], best[1]) for best in row[1]] for row in rows}


def recommend(spark, factors, n, query_blocks=3, candidate_blocks=2, pieces=1, candidate_type=None):
    queries, X, candidates, Y = factors
    return ranking.recommend_all(
        factor_table(spark, queries, X, query_blocks, pieces),
        factor_table(spark, candidates, Y, candidate_blocks, pieces, candidate_type),
        n,
        ("user", "item"),
    )


@pytest.fixture(scope="module")
def whole():
    """40 queries and 90 candidates. Their factors are small integers: products are exact, and many are equal."""
    rng = np.random.default_rng(0)
    X, Y = (rng.integers(-2, 3, (rows, RANK)).astype(np.float32) for rows in (40, 90))
    queries = (rng.permutation(40) + 2**33).tolist()
    candidates = (rng.permutation(90) - 45).tolist()
    return queries, X, candidates, Y


@pytest.mark.parametrize(("query_blocks", "candidate_blocks", "pieces"), [(1, 1, 1), (3, 2, 1), (7, 5, 2)])
def test_ties_and_any_number_of_blocks(spark, whole, query_blocks, candidate_blocks, pieces):
    recommended = recommend(spark, whole, 7, query_blocks, candidate_blocks, pieces)
    assert results(recommended) == brute_force(*whole, 7)


def test_candidates_in_many_chunks_and_results_in_many_batches(whole):
    queries, X, candidates, Y = whole

    def new_search():
        return ranking.Search(7, RANK, ("user", "item"), 1, chunk_bytes=3 * RANK * 4, batch_recommendations=50)

    for ids in (candidates, [f"item {at}" for at in candidates]):
        rows = [
            batch
            for name, side, factors in (("queries", queries, X), ("candidates", ids, Y))
            for batch in arrow_rows(name, side, factors, 2)
        ]
        batches = list(ranking.search_batches(iter(rows), new_search))
        assert {batch.num_rows for batch in batches} == {50 // 7, 40 % (50 // 7)}
        recommended = {}
        for batch in batches:
            for user, best in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                recommended[user] = [(one["item"], one["rating"]) for one in best]
        assert recommended == brute_force(queries, X, ids, Y, 7)


def arrow_rows(side, ids, factors, pieces):
    """Rows of one key as a task gets them, each in a batch of its own."""
    for some in np.array_split(np.arange(len(ids)), pieces):
        own = pa.array([[ids[at] for at in some]])
        other = pa.nulls(1, own.type)
        columns = [pa.array([0]), *((own, other) if side == "queries" else (other, own))]
        yield pa.RecordBatch.from_arrays(
            [*columns, pa.array([factors[some].tobytes()])], ["key", "queries", "candidates", "factors"]
        )


def test_strings_and_integers(spark, whole):
    queries, X, candidates, Y = whole
    named = queries, X, [f"künstler {at}" for at in candidates], Y
    assert results(recommend(spark, named, 4)) == brute_force(*named, 4)
    users = [f"{at:x}" for at in queries], X, candidates, Y
    recommended = recommend(spark, users, 4, candidate_type=types.IntegerType())
    assert results(recommended) == brute_force(*users, 4)
    assert recommended.dtypes == [("user", "string"), ("recommendations", "array<struct<item:int,rating:float>>")]


def test_real_numbers_and_fewer_candidates_than_asked_for(spark):
    rng = np.random.default_rng(1)
    X, Y = (rng.standard_normal((rows, RANK)).astype(np.float32) for rows in (30, 20))
    factors = [*range(30)], X, [*range(20)], Y
    recommended, expected = results(recommend(spark, factors, 50)), brute_force(*factors, 50)
    assert sorted(recommended) == sorted(expected)
    for user in range(30):
        items, scores = zip(*recommended[user], strict=True)
        expected_items, expected_scores = zip(*expected[user], strict=True)
        assert items == expected_items
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_without_queries_or_without_candidates_the_result_is_empty(spark, whole):
    queries, X, candidates, Y = whole
    queries, candidates = factor_table(spark, queries, X, 2), factor_table(spark, candidates, Y, 2)
    nothing = candidates._replace(pieces=candidates.pieces.limit(0))
    for one_side, other_side in ((queries, nothing), (nothing, candidates)):
        assert ranking.recommend_all(one_side, other_side, 3, ("user", "item")).collect() == []


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_a_wrong_number_of_recommendations_is_refused(spark, whole, n):
    with pytest.raises(ValueError, match="the number of recommendations must be an integer of at least 1, not"):
        recommend(spark, whole, n)


@pytest.mark.parametrize("n", [1, 3, 17])
def test_each_key_has_a_partition_of_its_own(spark, n):
    keys = ranking._keys(spark, n)
    frame = spark.createDataFrame([(key,) for key in keys], "key int").repartition(n, "key")
    partitions = {
        row.key: row.partition for row in frame.withColumn("partition", functions.spark_partition_id()).collect()
    }
    assert [partitions[key] for key in keys] == list(range(n))
