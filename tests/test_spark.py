"""ALS on Spark has the factors of the single machine, with any blocks, and after the loss of an executor."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions, Recommender
from alscore.bench import on_spark
from alscore.solvers.objective import Objective
from alscore.spark import inputs
from alscore.testing import tolerance

try:
    import pyspark  # noqa: F401

    on_spark.require_java()
except (ImportError, RuntimeError) as error:
    if {"CI", "ALSCORE_REQUIRE_SPARK"} & os.environ.keys():
        raise
    pytest.skip(str(error), allow_module_level=True)

from pyspark.ml import Pipeline, recommendation
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.feature import SQLTransformer
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder
from pyspark.sql import SparkSession

import alscore.spark
from alscore.spark import ALS, ALSModel, blocks, estimator, initial_factors, tasks
from alscore.spark.blocks import Block, BlockSummary, Failure, ratings_by_block
from alscore.spark.jobs import SparkTraining

RANK, SEED = 6, 3


def session(master, folder):
    os.environ["PYSPARK_PYTHON"] = sys.executable
    return (
        SparkSession.builder.master(master)
        .appName("alscore tests")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
        .config("spark.local.dir", str(folder))
        .config("spark.log.level", "ERROR")
        .config("spark.network.timeout", "900s")  # a machine that is busy for minutes must not fail a test
        .config("spark.shuffle.io.maxRetries", "1")  # do not wait long for an executor that was killed
        .config("spark.shuffle.io.retryWait", "1s")
        .getOrCreate()
    )


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    spark = session("local[2]", tmp_path_factory.mktemp("spark"))
    yield spark
    spark.stop()


@pytest.fixture
def checkpoints(spark, tmp_path):
    """Let Spark write checkpoints during a test; their folder."""
    spark.sparkContext.setCheckpointDir(str(tmp_path))
    (folder,) = tmp_path.iterdir()
    yield folder
    spark.sparkContext._jsc.sc().setCheckpointDir(None)


def entries(matrix, user=int, item=int):
    coo = sparse.coo_array(matrix)
    return [(user(u), item(i), float(r)) for u, i, r in zip(coo.row, coo.col, coo.data, strict=True)]


@pytest.fixture(scope="module")
def ratings(plays):
    """Plays, without the users and items that have none. Every seventh value is negative."""
    matrix = sparse.csr_array(plays.toarray()[plays.sum(axis=1) > 0][:, plays.sum(axis=0) > 0])
    matrix.data[::7] *= -1
    return matrix


@pytest.fixture(scope="module")
def table(spark, ratings):
    return spark.createDataFrame(entries(ratings), "user int, item int, rating float").repartition(3).cache()


def small(als_class=ALS, **parameters):
    """An estimator that fits quickly."""
    defaults = {"rank": RANK, "maxIter": 2, "seed": SEED, "alpha": 0.5, "numUserBlocks": 2, "numItemBlocks": 2}
    return als_class(**{**defaults, **parameters})


def als_training_by(training_class):
    """A subclass of ALS that trains with a subclass of SparkTraining."""

    class WithTraining(ALS):
        _training_class = training_class

    return WithTraining


def single_machine(ratings, item_ids, iterations=2, **parameters):
    """A fit on the single machine, from the initial factors of Spark."""

    class FromIds(AlternatingLeastSquares):
        def _initial_factors(self, n_items, dtype, solver):
            return initial_factors(item_ids, self.factors, SEED, self.solver == "nonnegative").astype(dtype)

    defaults = {"alpha": 0.5, "regularization_exponent": 1.0, "regularization_count": "entries", "solver": "cholesky"}
    model = FromIds(RANK, 0.1, iterations=iterations, calculate_training_loss=True, **{**defaults, **parameters})
    return model.fit(ratings, show_progress=False)


def factors_of(table):
    rows = sorted(table.collect())
    return [row.id for row in rows], np.array([row.features for row in rows], np.float32)


def assert_same_fit(model, expected):
    (_, X), (_, Y) = factors_of(model.userFactors), factors_of(model.itemFactors)
    scores = expected.user_factors @ expected.item_factors.T
    assert np.linalg.norm(X @ Y.T - scores) <= tolerance("fit", np.float32) * np.linalg.norm(scores)
    for factors, expected_factors in ((X, expected.user_factors), (Y, expected.item_factors)):
        # eigenvectors of nearly equal eigenvalues turn a little
        assert factors == pytest.approx(expected_factors, abs=1e-3 * float(np.abs(expected_factors).max()))


@pytest.mark.parametrize(
    "parameters",
    [
        {"solver": "cholesky"},
        {"solver": "cg", "confidence": "log", "epsilon": 2.0},
        {"solver": "nonnegative", "unobserved_weight": 0.5},
        {"solver": "auto", "regularization_count": "all", "regularization_exponent": 0.5},
    ],
    ids=lambda parameters: parameters["solver"],
)
def test_factors_are_those_of_the_single_machine(table, ratings, parameters):
    model = small(calculate_training_loss=True, numUserBlocks=3, **parameters).fit(table)
    expected = single_machine(ratings, np.arange(ratings.shape[1]), **parameters)
    assert_same_fit(model, expected)
    assert model.training_loss == pytest.approx(expected.training_loss, rel=1e-5)
    assert factors_of(model.userFactors)[0] == list(range(ratings.shape[0]))


@pytest.fixture(scope="module")
def model(table):
    return small().fit(table)


def bits(model):
    return [factors_of(side)[1].tobytes() for side in (model.userFactors, model.itemFactors)]


def test_partitions_change_no_bit_and_numbers_of_blocks_change_only_rounding(table, ratings, model):
    assert bits(small().fit(table.repartition(5))) == bits(model)
    expected = single_machine(ratings, np.arange(ratings.shape[1]))
    assert_same_fit(model, expected)
    assert_same_fit(small(numUserBlocks=5, numItemBlocks=1).fit(table), expected)


def test_string_and_long_ids_repeats_zeros_and_blocks_without_rows(spark):
    """Six users in eight blocks, an item with a third of all plays, repeated pairs, and pairs that sum to 0."""
    rows = [("ann", 2**40 + 1, 1.0), ("ann", -5, 2.0), ("bob", 2**40 + 1, 3.0), ("bob", 7, 0.0), ("cat", -5, 4.0)]
    rows += [("ann", -5, 3.0), ("dän", 2**40 + 1, 1.5), ("dän", 9, 2.0), ("eve", 2**40 + 1, 2.0), ("eve", -5, -2.0)]
    rows += [("fay", 9, 1.0), ("fay", 9, -1.0)]
    table = spark.createDataFrame(rows, "user string, item bigint, rating double")
    model = small(numUserBlocks=8, numItemBlocks=2).fit(table)
    items = sorted([2**40 + 1, -5, 9])
    users = sorted(["ann", "bob", "cat", "dän", "eve", "fay"])
    dense = np.zeros((6, 3), np.float32)
    for user, item, rating in rows:
        if rating:
            dense[users.index(user), items.index(item)] += rating
    expected = single_machine(sparse.csr_array(dense), np.array(items))
    assert_same_fit(model, expected)
    assert factors_of(model.userFactors)[0] == users
    assert factors_of(model.itemFactors)[0] == items
    assert not factors_of(model.userFactors)[1][users.index("fay")].any()
    assert dict(model.userFactors.dtypes)["id"] == "string"
    assert dict(model.itemFactors.dtypes)["id"] == "bigint"


def test_code_of_the_guide_moves_a_model_of_mllib(spark):
    guide = (Path(__file__).parents[1] / "docs" / "migrating-from-spark.md").read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "als_model" in part)
    dense = np.random.default_rng(1).integers(0, 3, (40, 30)) + np.eye(40, 30)
    table = spark.createDataFrame(entries(dense), "user int, artist int, plays float").coalesce(1).cache()
    columns = {"userCol": "user", "itemCol": "artist", "ratingCol": "plays"}
    als_model = recommendation.ALS(rank=4, maxIter=2, implicitPrefs=True, seed=1, **columns).fit(table)
    names = {"als_model": als_model, "ratings": table.toArrow().to_pandas(), "model": AlternatingLeastSquares(4)}
    names |= {"Interactions": Interactions, "Recommender": Recommender}
    exec(compile(block, "guide", "exec"), names)
    result = names["recommender"].recommend(5, n=3, filter_already_liked_items=False)
    (expected,) = (row.recommendations for row in als_model.recommendForAllUsers(3).collect() if row.user == 5)
    assert result["item"].tolist() == [best.artist for best in expected]
    assert result["score"].tolist() == pytest.approx([best.rating for best in expected], rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "schema", "message"),
    [
        ([(1, 2, 1.0), (None, 2, 1.0)], "user int, item int, rating float", "column 'user' has missing ids in 1 of 2"),
        ([(1, 2, 1.0), (1, None, 1.0)], "user int, item int, rating float", "column 'item' has missing ids in 1 of 2"),
        ([(1, 2, None)], "user int, item int, rating float", "column 'rating' has missing ratings in 1 of 1"),
        (
            [(1, 2, float("nan")), (1, 3, float("inf"))],
            "user int, item int, rating float",
            "'rating' has NaN .* in 2 of 2",
        ),
        ([(1, 2, 1e38)], "user int, item int, rating double", "'rating' has ratings whose confidence overflows"),
        ([(1, 2, 1e-60)], "user int, item int, rating double", "'rating' has ratings that float32 rounds to 0"),
        ([(1, 2, 8e37), (1, 2, 8e37)], "user int, item int, rating double", "ratingCol: the ratings of one user and"),
        ([(1, 2, 0.0)], "user int, item int, rating float", "nothing to train on: the table has 1 rows"),
        ([], "user int, item int, rating float", "nothing to train on: the table has 0 rows"),
        ([(1, 2)], "user int, item int", "ratingCol: there is no column 'rating' among"),
        ([(1, 2, 1.0)], "user int, song int, rating float", "itemCol: there is no column 'item' among"),
        ([(1.5, 2, 1.0)], "user double, item int, rating float", "userCol: column 'user' is double; ids must be"),
        ([(1, 2, "3")], "user int, item int, rating string", "ratingCol: column 'rating' is string; ratings must be"),
    ],
    ids=lambda value: value if isinstance(value, str) and "int" not in value else "",
)
def test_an_error_about_a_table_names_the_column(spark, rows, schema, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small(alpha=1.0).fit(spark.createDataFrame(rows, schema))


def test_ids_that_are_not_valid_utf8_are_refused(spark):
    table = spark.createDataFrame([(b"a", 2, 1.0), (b"\xff", 2, 1.0)], "user binary, item int, rating float")
    with pytest.raises(ValueError, match="column 'user' has ids that are not valid UTF-8 in 1 of 2 rows"):
        small().fit(table.withColumn("user", table["user"].cast("string")))


@pytest.mark.parametrize("parameters", [{"itemCol": "user"}, {"ratingCol": "item"}])
def test_a_column_with_two_roles_is_refused(table, parameters):
    with pytest.raises(ValueError, match=r"must be three columns, not 'user', '(user|item)' and '(rating|item)'"):
        small(**parameters).fit(table)


def cached_rdds(spark):
    return set(spark.sparkContext._jsc.getPersistentRDDs())


def test_fit_computes_the_table_twice_and_leaves_only_the_factors_cached(spark, ratings):
    rows = spark.createDataFrame(entries(ratings), "user int, item int, rating float")
    computed = spark.sparkContext.accumulator(0)

    def counted(batches):
        for batch in batches:
            computed.add(batch.num_rows)
            yield batch

    before = cached_rdds(spark)
    model = small().fit(rows.mapInArrow(counted, rows.schema))
    assert computed.value == 2 * ratings.nnz
    assert len(cached_rdds(spark) - before) == 2
    assert model.userFactors.count() == ratings.shape[0]


def test_a_fit_that_fails_leaves_nothing_cached(spark):
    before = cached_rdds(spark)
    rows = spark.createDataFrame([(1, 2, 8e37), (1, 2, 8e37)], "user int, item int, rating double")
    with pytest.raises(ValueError, match="ratingCol: the ratings of one user and"):
        small(alpha=1.0).fit(rows)
    assert cached_rdds(spark) <= before


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rank": 0}, "rank must be an integer of at least 1, not 0"),
        ({"maxIter": 0}, "maxIter must be"),
        ({"regParam": -1.0}, "regParam must be at least 0"),
        ({"regParam": float("inf")}, "regParam must be at least 0 and finite, not inf"),
        ({"numUserBlocks": -1}, "numUserBlocks must be"),
        ({"seed": 2**63}, "seed must be an integer of 64 bits"),
        ({"implicitPrefs": False}, "implicitPrefs must be True"),
        ({"confidence": "squared"}, "confidence must be one of"),
        ({"coldStartStrategy": "zero"}, "coldStartStrategy must be 'nan' or 'drop'"),
        ({"nonnegative": True, "solver": "cg"}, "nonnegative=True and solver='cg' exclude each other"),
        ({"solver": "magic"}, "no solver is named 'magic'"),
        ({"intermediateStorageLevel": "SHELF"}, "'SHELF' is not a storage level"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_error_about_a_parameter_names_it(table, parameters, message):
    with pytest.raises(ValueError, match=message):
        small(**parameters).fit(table)


def test_an_error_about_a_row_names_its_id(spark):
    table = spark.createDataFrame(
        [("ann", 1, 0.1), ("bob", 2, 0.1), ("bob", 1, 0.2)], "user string, item int, rating float"
    )
    with pytest.raises(ArithmeticError, match=r"user '(ann|bob)': the system is not positive definite"):
        small(confidence="raw", unobserved_weight=1e6, regParam=0.0, rank=2).fit(table)


def test_transform_scores_pairs_and_gives_nan_for_unknown_ids(spark, table, model):
    (_, X), (_, Y) = factors_of(model.userFactors), factors_of(model.itemFactors)
    pairs = spark.createDataFrame(
        [(0, 1, "a"), (3, 2, "b"), (10**6, 1, "c"), (1, None, "d")], "user int, item int, note string"
    )
    rows = {row.note: row for row in model.transform(pairs).collect()}
    assert model.transform(pairs).columns == ["user", "item", "note", "prediction"]
    assert [rows["a"].prediction, rows["b"].prediction] == pytest.approx([X[0] @ Y[1], X[3] @ Y[2]], rel=1e-4, abs=1e-6)
    assert np.isnan([rows["c"].prediction, rows["d"].prediction]).all()
    dropping = model.copy().setColdStartStrategy("drop").setPredictionCol("score")
    assert {row.note for row in dropping.transform(pairs).collect()} == {"a", "b"}
    assert dropping.transform(pairs).columns[-1] == "score"
    for name in ("note", "Note"):  # the same to Spark
        with pytest.raises(ValueError, match="predictionCol: the table has a column 'note' already: drop it, or set"):
            model.copy().setPredictionCol(name).transform(pairs)


def test_an_error_about_the_type_of_ids_names_the_column(spark, model):
    for value, kind in (("1", "string"), (1.5, "double")):
        pairs = spark.createDataFrame([(value, 1)], f"user {kind}, item int")
        for method in (model.transform, lambda pairs: model.recommendForUserSubset(pairs, 2)):
            with pytest.raises(TypeError, match=f"userCol: column 'user' is {kind}.*cast it"):
                method(pairs)


def test_columns_may_have_any_name(table, model):
    names = {"user": "a.b `c`", "item": "song name", "rating": "n.plays"}
    odd = dict(zip(("userCol", "itemCol", "ratingCol"), names.values(), strict=True))
    renamed = table.withColumnsRenamed(names)
    fitted = small(**odd, predictionCol="the.score", coldStartStrategy="drop").fit(renamed)
    assert bits(fitted) == bits(model)
    assert fitted.transform(renamed).columns == [*names.values(), "the.score"]
    assert fitted.transform(renamed).count() == table.count()
    (row,) = fitted.recommendForUserSubset(renamed.limit(1), 2).collect()
    assert row.__fields__ == ["a.b `c`", "recommendations"]
    assert row.recommendations[0].__fields__ == ["song name", "rating"]
    assert fitted.to_local(renamed).interactions.nnz == table.count()


def test_setters_and_getters_are_named_as_in_mllib():
    als = ALS(solver="cg").setRank(7).setNumBlocks(3).setUnobserved_weight(0.5)
    assert [als.getRank(), als.getNumUserBlocks(), als.getNumItemBlocks()] == [7, 3, 3]
    assert [als.getSolver(), als.getUnobserved_weight()] == ["cg", 0.5]
    assert als.getSeed() == 0  # in every process


def test_recommendations_have_the_highest_scores(spark, model):
    (users, X), (_, Y) = factors_of(model.userFactors), factors_of(model.itemFactors)
    scores = X @ Y.T
    results = {row.user: row.recommendations for row in model.recommendForAllUsers(4).collect()}
    assert sorted(results) == users
    for user in (users[0], users[-1]):
        highest = pytest.approx(np.sort(scores[user])[:-5:-1], rel=1e-4)
        assert [each.rating for each in results[user]] == highest
        assert scores[user][[each.item for each in results[user]]] == highest
    some = spark.createDataFrame([(5,), (5,), (10**6,)], "item int")
    (row,) = model.recommendForItemSubset(some, 3).collect()
    assert row.item == 5
    assert [each.rating for each in row.recommendations] == pytest.approx(np.sort(scores[:, 5])[:-4:-1], rel=1e-4)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # CrossValidator leaves threads running
def test_a_pipeline_can_be_cross_validated_saved_and_loaded(table, tmp_path):
    rename = SQLTransformer(statement="SELECT user AS listener, item, abs(rating) AS rating FROM __THIS__")
    als = small(userCol="listener", coldStartStrategy="drop", calculate_training_loss=True)
    pipeline = Pipeline(stages=[rename, als])
    search = CrossValidator(
        estimator=pipeline,
        estimatorParamMaps=ParamGridBuilder().addGrid(als.rank, [1, 3]).build(),
        evaluator=RegressionEvaluator(labelCol="rating", metricName="rmse"),
        numFolds=2,
        seed=1,
    ).fit(table)
    assert np.isfinite(search.avgMetrics).all()
    assert len(set(search.avgMetrics)) == 2
    fitted = search.bestModel
    assert fitted.stages[1].uid == als.uid
    search.write().overwrite().save(str(tmp_path / "model"))
    loaded = CrossValidatorModel.load(str(tmp_path / "model")).bestModel
    assert isinstance(loaded.stages[1], ALSModel)
    assert loaded.stages[1].uid == fitted.stages[1].uid
    assert loaded.stages[1].rank == fitted.stages[1].rank in (1, 3)
    assert loaded.stages[1].training_loss == fitted.stages[1].training_loss != []
    assert bits(loaded.stages[1]) == bits(fitted.stages[1])
    assert loaded.stages[1].getUserCol() == "listener"
    assert loaded.transform(table).count() == table.count()
    als.write().overwrite().save(str(tmp_path / "estimator"))
    assert ALS.load(str(tmp_path / "estimator")).getUserCol() == "listener"


def test_to_a_single_machine_and_back(spark, table, ratings, model):
    local = model.to_local(table)
    assert isinstance(local, Recommender)
    assert (local.interactions.matrix != ratings).nnz == 0
    assert list(local.interactions.users) == list(range(ratings.shape[0]))
    assert local.model.user_factors.tobytes() == factors_of(model.userFactors)[1].tobytes()
    assert local.model.regularization_count == "entries"
    assert len(local.recommend([0], n=3)) == 3
    assert model.to_local().interactions.nnz == 0
    assert bits(ALSModel.from_local(spark, local)) == bits(model)
    with pytest.raises(ValueError, match="column 'user' has ids that the model was not fitted on, such as 9999"):
        model.to_local(spark.createDataFrame([(9999, 1, 1.0)], "user int, item int, rating float"))
    named = Recommender(local.model, Interactions(ratings, items=[("a", i) for i in range(ratings.shape[1])]))
    with pytest.raises(TypeError, match=r"items have labels such as \('a', 0\)"):
        ALSModel.from_local(spark, named)


def test_checkpoints_change_no_bit_and_end_the_lineage_and_only_the_last_one_stays(table, checkpoints):
    lineages = []

    class Watched(SparkTraining):
        def finished(self):
            lineages.append(self.sent.toDebugString().count(b"PythonRDD"))
            return super().finished()

    als_class = als_training_by(Watched)
    without = small(als_class, maxIter=3, solver="cg", checkpointInterval=-1).fit(table)
    assert not list(checkpoints.iterdir())
    assert bits(small(als_class, maxIter=3, solver="cg", checkpointInterval=1).fit(table)) == bits(without)
    assert len(list(checkpoints.iterdir())) == 1
    assert lineages[1] < lineages[0] / 3


def test_workers_with_another_version_are_an_error(table, monkeypatch):
    monkeypatch.setattr(inputs, "__version__", "99.1")
    with pytest.raises(RuntimeError, match=r"Python workers have alscore \d.*, the driver has 99.1: install"):
        small().fit(table)


KILLED = """
import os, signal, sys
import numpy as np
from pyspark.sql import SparkSession
sys.path.insert(0, {tests!r})
from test_spark import als_training_by, factors_of, session, small
from alscore.spark.jobs import SparkTraining
from pathlib import Path

spark = session("local-cluster[2,1,1024]", Path({folder!r}))
table = spark.read.parquet({table!r})

def executor(numbers):
    list(numbers)
    daemon = os.getppid()
    return [int(open(f"/proc/{{daemon}}/stat").read().rsplit(")", 1)[1].split()[1])]

class Killing(SparkTraining):
    killed = []

    def _half_sweep(self, *args, **kwargs):
        if self.half_sweeps == 3:
            executors = set(spark.sparkContext.parallelize(range(8), 8).mapPartitions(executor).collect())
            self.killed.append(min(executors))
            os.kill(self.killed[-1], signal.SIGKILL)
        return super()._half_sweep(*args, **kwargs)

factors = {{}}
for name in ("without", "with"):
    model = small(als_training_by(Killing), maxIter=2, checkpointInterval=1).fit(table)
    factors[name] = [factors_of(side)[1] for side in (model.userFactors, model.itemFactors)]
    spark.sparkContext.setCheckpointDir({folder!r} + "/checkpoints")
assert len(set(Killing.killed)) == 2
np.savez({out!r}, **{{name + side: part for name in factors for side, part in zip("XY", factors[name])}})
spark.stop()
"""


def test_an_executor_killed_during_a_fit_changes_no_bit(table, model, tmp_path):
    """It is killed when both sides have factors: once without checkpoints, once after a checkpoint."""
    table.write.parquet(str(tmp_path / "ratings"))
    names = {
        "folder": tmp_path,
        "table": tmp_path / "ratings",
        "out": tmp_path / "out.npz",
        "tests": Path(__file__).parent,
    }
    code = KILLED.format(**{name: str(path) for name, path in names.items()})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    expected = bits(model)
    with np.load(tmp_path / "out.npz") as saved:
        for checkpoints in ("without", "with"):
            assert [saved[f"{checkpoints}{side}"].tobytes() for side in "XY"] == expected


@pytest.mark.parametrize(
    ("n_ratings", "n_blocks"), [(5, 1), (199_999, 1), (200_000, 2), (10**8, 2), (10**8 + 1, 3), (10**9, 20)]
)
def test_there_is_a_block_for_each_task_unless_blocks_would_be_too_small_or_too_large(spark, n_ratings, n_blocks):
    assert estimator._n_blocks(spark, n_ratings) == n_blocks


def test_a_block_that_spark_cannot_send_is_refused():
    counts = tasks.BlockCounts(1, 1)
    ratings = pa.record_batch([pa.array([1]), pa.array([2]), pa.array([1.0])], ["user", "item", "rating"])
    (chunks,) = tasks.split_ratings(counts, [ratings])
    records = [(0, (row["side"], row["chunk"])) for row in chunks.to_pylist()]

    def build(side, rank, **limit):
        ((partition, built),) = tasks.build(counts, side, Objective(0.1), rank, 0, records, **limit)
        return partition, built

    partition, block = build("user", rank=1)
    assert (partition, block.ids.to_pylist()) == (0, [1])
    partition, failure = build("user", rank=1, max_bytes=50)
    assert partition == counts.summary_partition == 1
    with pytest.raises(ValueError, match=r"user block 0 has \d+ bytes of ratings, and Spark can send less than 50 at"):
        raise failure.error
    partition, failure = build("item", rank=100, max_bytes=50)
    assert partition == 1
    with pytest.raises(ValueError, match=r"item block 0 has 400 bytes of factors, .* less than 50 at once: raise num"):
        raise failure.error


def test_summaries_are_summed_in_the_order_of_their_blocks():
    summaries = [
        BlockSummary(block, 10**block, np.full((2, 2), 0.1 * (block + 1)), 0.1 * (block + 1)) for block in range(5)
    ]
    assert sum(summary.loss for summary in summaries) != sum(summary.loss for summary in summaries[::-1])
    total, backwards = blocks.sum_summaries(summaries), blocks.sum_summaries(summaries[::-1])
    assert (total.n_rows, total.loss) == (11_111, pytest.approx(1.5))
    assert total.gram == pytest.approx(np.full((2, 2), 1.5))
    assert (backwards.gram.tobytes(), backwards.loss) == (total.gram.tobytes(), total.loss)
    first, second = Failure(7, ValueError("7")), Failure(8, ValueError("8"))
    assert blocks.sum_summaries([second, *summaries, first]) is first
    with pytest.raises(RuntimeError, match="no block has any rows: the table of ratings has changed"):
        raise blocks.sum_summaries([]).error


@pytest.mark.parametrize("label", [int, str])
def test_blocks_send_each_other_the_factors_of_their_entries(label):
    """If blocks send ids instead of factors, the entries of all blocks are the ratings."""
    rng = np.random.default_rng(2)
    dense = np.where(rng.random((50, 20)) < 0.2, rng.integers(1, 9, (50, 20)), 0)
    users, items, values = (np.repeat(part, 2) for part in (*np.nonzero(dense), dense[dense != 0]))
    user_ids, item_ids = (pa.array([label(i) for i in ids]) for ids in (users, items))
    n_blocks, ratings = {"user": 3, "item": 2}, pa.array(values / 2, pa.float32())
    built = {
        side: {
            number: Block.of([batch], Objective(0.1), n_blocks[opposite])
            for number, batch in ratings_by_block(rows, columns, ratings, n_blocks[side])
        }
        for side, opposite, rows, columns in (
            ("user", "item", user_ids, item_ids),
            ("item", "user", item_ids, user_ids),
        )
    }
    for side, opposite in (("user", "item"), ("item", "user")):
        entries_of_blocks = np.zeros(dense.shape if side == "user" else dense.shape[::-1])
        for number, block in built[side].items():
            column_ids = np.full(block.column_bounds[-1], -1)
            for source, sender in built[opposite].items():
                ids = np.array([int(i) for i in sender.ids.to_pylist()])
                for receiver, sent in sender.sent(ids):
                    if receiver == number:
                        column_ids[block.column_bounds[source] : block.column_bounds[source + 1]] = sent
            rows = np.repeat([int(i) for i in block.ids.to_pylist()], np.diff(block.indptr))
            entries_of_blocks[rows, column_ids[block.indices]] += block.strength
        assert np.array_equal(entries_of_blocks if side == "user" else entries_of_blocks.T, dense)


def test_the_initial_factors_of_an_item_depend_only_on_its_id_and_the_seed():
    ids = np.arange(20_000) - 100
    initial = initial_factors(ids, 5, seed=1)
    assert np.array_equal(initial_factors(ids[7:9], 5, seed=1), initial[7:9])
    assert np.array_equal(initial_factors(pa.array(ids.astype(np.int32)[7:9]), 5, seed=1), initial[7:9])
    assert not np.array_equal(initial_factors(ids, 5, seed=2), initial)
    scaled = initial * np.sqrt(5)
    assert abs(scaled.mean()) < 0.02
    assert abs(np.cov(scaled.T) - np.eye(5)).max() < 0.05
    assert abs((scaled**4).mean() - 3) < 0.1
    assert initial_factors(["a", "b"], 4, seed=1).shape == (2, 4)
    assert np.array_equal(initial_factors(ids, 5, seed=1, nonnegative=True), abs(initial))


def test_the_old_name_of_initial_factors_warns():
    with pytest.warns(DeprecationWarning, match="alscore.spark.first_factors is now initial_factors") as caught:
        assert alscore.spark.first_factors is initial_factors
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(alscore.spark, "nothing")  # noqa: B009


def test_without_pyspark_the_error_names_the_remedy(run_python):
    result = run_python("import sys; sys.modules['pyspark'] = None; import alscore.spark")
    assert "ImportError: alscore.spark needs pyspark 4: pip install 'alscore[spark]', and Java 17" in result.stderr


def test_code_of_the_page_about_many_machines_runs(table, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "many-machines.md").read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "alscore.spark" in part)
    for shown, used in (
        ('"recommendations"', f"{str(tmp_path / 'recommendations')!r}"),
        ('"als-model"', f"{str(tmp_path / 'model')!r}"),
        ("rank=64, maxIter=10", "rank=4, maxIter=1"),
    ):
        assert block.count(shown) == 1
        block = block.replace(shown, used)
    names = {"df": table.withColumnsRenamed({"item": "artist", "rating": "plays"})}
    exec(compile(block, "many-machines.md", "exec"), names)
    assert (tmp_path / "recommendations" / "_SUCCESS").exists()
    assert bits(ALSModel.load(str(tmp_path / "model"))) == bits(names["model"])
    assert len(names["recommender"].recommend([0], n=2)) == 2
