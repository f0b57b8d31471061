"""Distributed top-N against brute force, whatever the blocks."""

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("pyspark")

from pyspark.sql import functions, types

from alscore.spark import ranking

RANK = 5
LONG, STRING = types.LongType(), types.StringType()


def blocks(spark, ids, factors, n_blocks, pieces=1):
    """Factor blocks of some ids, each block in some rows."""
    kind = STRING if isinstance(ids[0], str) else LONG
    schema = (
        types.StructType()
        .add("block", types.IntegerType())
        .add("ids", types.ArrayType(kind))
        .add("factors", types.BinaryType())
    )
    block = np.arange(len(ids)) % n_blocks
    rows = [
        (b, [ids[at] for at in some], factors[some].tobytes())
        for b in range(n_blocks)
        for some in np.array_split(np.flatnonzero(block == b), pieces)
    ]
    return spark.createDataFrame(rows, schema)


def brute_force(queries, X, candidates, Y, n):
    """For each query the n best (candidate, score), of equal ones the lower id first."""
    by_id = np.array(sorted(range(len(candidates)), key=lambda at: candidates[at]))
    scores = X.astype(np.float64) @ Y[by_id].T.astype(np.float64)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return {query: [(candidates[by_id[at]], scores[row, at]) for at in order[row]] for row, query in enumerate(queries)}


def answers(frame):
    rows = frame.collect()
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: [(best[0], best[1]) for best in row[1]] for row in rows}


def ask(spark, queries, X, candidates, Y, n, query_blocks=3, candidate_blocks=2, pieces=1, query=LONG, candidate=LONG):
    return ranking.recommend_all(
        blocks(spark, queries, X, query_blocks, pieces), blocks(spark, candidates, Y, candidate_blocks, pieces), n,
        rank=RANK, query=types.StructField("user", query), query_blocks=query_blocks,
        candidate=types.StructField("item", candidate),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole():
    """Factors of 40 queries and 90 candidates, small whole numbers: products are exact, and many are equal."""
    rng = np.random.default_rng(0)
    X, Y = (rng.integers(-2, 3, (rows, RANK)).astype(np.float32) for rows in (40, 90))
    queries = (rng.permutation(40) + 2**33).tolist()
    candidates = (rng.permutation(90) - 45).tolist()
    return queries, X, candidates, Y


@pytest.mark.parametrize(("query_blocks", "candidate_blocks", "pieces"), [(1, 1, 1), (3, 2, 1), (7, 5, 2)])
def test_ties_and_any_number_of_blocks(spark, whole, query_blocks, candidate_blocks, pieces):
    found = ask(spark, *whole, 7, query_blocks, candidate_blocks, pieces)
    assert answers(found) == brute_force(*whole, 7)


def test_candidates_in_many_chunks(spark, whole, monkeypatch):
    """The workers import the module anew and know of no other size of a chunk: the task itself is asked."""
    queries, X, candidates, Y = whole
    monkeypatch.setattr(ranking, "_CHUNK_BYTES", 3 * RANK * 4)
    monkeypatch.setattr(ranking, "_BATCH_ANSWERS", 50)
    for ids in (candidates, [f"item {at}" for at in candidates]):
        rows = [
            batch
            for name, side, factors in (("queries", queries, X), ("candidates", ids, Y))
            for batch in arrow_rows(name, side, factors, 2)
        ]
        found = {}
        for batch in ranking._answer(iter(rows), 7, RANK, ("user", "item"), 1):
            for user, best in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                found[user] = [(one["item"], one["rating"]) for one in best]
        assert found == brute_force(queries, X, ids, Y, 7)


def arrow_rows(side, ids, factors, pieces):
    """Rows as a task gets them, for one key, in batches of their own."""
    for some in np.array_split(np.arange(len(ids)), pieces):
        own = pa.array([[ids[at] for at in some]])
        other = pa.nulls(1, own.type)
        columns = [pa.array([0]), *((own, other) if side == "queries" else (other, own))]
        yield pa.RecordBatch.from_arrays(
            [*columns, pa.array([factors[some].tobytes()])], ["key", "queries", "candidates", "factors"]
        )


def test_strings_and_integers(spark, whole):
    queries, X, candidates, Y = whole
    names = [f"künstler {at}" for at in candidates]
    found = ask(spark, queries, X, names, Y, 4, candidate=STRING)
    assert answers(found) == brute_force(queries, X, names, Y, 4)
    users = [f"{at:x}" for at in queries]
    found = ask(spark, users, X, candidates, Y, 4, query=STRING, candidate=types.IntegerType())
    assert answers(found) == brute_force(users, X, candidates, Y, 4)
    assert found.dtypes == [("user", "string"), ("recommendations", "array<struct<item:int,rating:float>>")]


def test_real_numbers_and_more_than_there_are(spark):
    rng = np.random.default_rng(1)
    X, Y = (rng.standard_normal((rows, RANK)).astype(np.float32) for rows in (30, 20))
    found = answers(ask(spark, [*range(30)], X, [*range(20)], Y, 50))
    wanted = brute_force([*range(30)], X, [*range(20)], Y, 50)
    for user in range(30):
        assert [item for item, _ in found[user]] == [item for item, _ in wanted[user]]
        np.testing.assert_allclose([s for _, s in found[user]], [s for _, s in wanted[user]], atol=1e-5)


def test_nobody_to_ask_and_nothing_to_find(spark, whole):
    queries, X, candidates, Y = whole
    nothing = blocks(spark, candidates, Y, 2).limit(0)
    columns = {"rank": RANK, "query": types.StructField("user", LONG), "candidate": types.StructField("item", LONG)}
    for asked, searched in ((blocks(spark, queries, X, 2), nothing), (nothing, blocks(spark, candidates, Y, 2))):
        assert ranking.recommend_all(asked, searched, 3, query_blocks=2, **columns).collect() == []


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_wrong_number(spark, whole, n):
    with pytest.raises(ValueError, match="the number of recommendations must be an integer of at least 1, not"):
        ask(spark, *whole, n)


@pytest.mark.parametrize("n", [1, 3, 17])
def test_each_block_has_a_partition_of_its_own(spark, n):
    keys = ranking._keys(spark, n)
    frame = spark.createDataFrame([(key,) for key in keys], "key int").repartition(n, "key")
    partitions = {
        row.key: row.partition for row in frame.withColumn("partition", functions.spark_partition_id()).collect()
    }
    assert [partitions[key] for key in keys] == list(range(n))
