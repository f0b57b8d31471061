"""ALS on Spark: the factors of the single machine, whatever the blocks, and what happens to bad tables and executors."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scipy import sparse

from alscore import AlternatingLeastSquares, Interactions, calculate_loss
from alscore.testing import tolerance


def required(condition, reason):
    if not condition and not os.environ.get("CI"):
        pytest.skip(reason, allow_module_level=True)


def has_java():
    java = shutil.which("java", path=os.environ.get("JAVA_HOME", "") + "/bin" + os.pathsep + os.environ["PATH"])
    return java is not None and subprocess.run([java, "-version"], capture_output=True, check=False).returncode == 0


try:
    import pyspark
except ImportError:
    pyspark = None
required(pyspark is not None, "pyspark is not installed: pip install 'alscore[spark]'")
required(has_java(), "there is no Java: Spark needs version 17")

from pyspark.ml import Pipeline, PipelineModel  # noqa: E402
from pyspark.ml.evaluation import RegressionEvaluator  # noqa: E402
from pyspark.ml.recommendation import ALS as MLlibALS  # noqa: E402
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder  # noqa: E402
from pyspark.sql import SparkSession, functions  # noqa: E402

from alscore.objective import Objective  # noqa: E402
from alscore.spark import ALS, ALSModel, first_factors  # noqa: E402
from alscore.spark.blocks import Block, hashes, split  # noqa: E402

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
        .getOrCreate()
    )


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    spark = session("local[2]", tmp_path_factory.mktemp("spark"))
    yield spark
    spark.stop()


def entries(matrix, user=int, item=int):
    coo = sparse.coo_array(matrix)
    return [(user(u), item(i), float(r)) for u, i, r in zip(coo.row, coo.col, coo.data, strict=True)]


@pytest.fixture(scope="module")
def ratings(plays):
    """The plays of users and items that have any."""
    matrix = sparse.csr_array(plays.toarray()[plays.sum(axis=1) > 0][:, plays.sum(axis=0) > 0])
    matrix.data[::7] *= -1
    return matrix


@pytest.fixture(scope="module")
def table(spark, ratings):
    return spark.createDataFrame(entries(ratings), "user int, item int, rating float").repartition(3).cache()


def small(**parameters):
    blocks = {"numUserBlocks": 2, "numItemBlocks": 2}
    return ALS(**{"rank": RANK, "maxIter": 2, "seed": SEED, "alpha": 0.5, **blocks, **parameters})


def single_machine(ratings, item_ids, iterations=2, **parameters):
    """The single machine's fit from the start that Spark's has."""

    class FromIds(AlternatingLeastSquares):
        def _first_factors(self, n_items, dtype):
            return first_factors(item_ids, self.factors, SEED, self.solver == "nonnegative").astype(dtype)

    usual = {"alpha": 0.5, "regularization_exponent": 1.0, "regularization_count": "entries", "solver": "cholesky"}
    model = FromIds(RANK, 0.1, iterations=iterations, calculate_training_loss=True, **{**usual, **parameters})
    return model.fit(ratings, show_progress=False)


def factors_of(table):
    rows = sorted(table.collect())
    return [row.id for row in rows], np.array([row.features for row in rows], np.float32)


def assert_same_fit(model, expected):
    (_, X), (_, Y) = factors_of(model.userFactors), factors_of(model.itemFactors)
    scores = expected.user_factors @ expected.item_factors.T
    assert np.linalg.norm(X @ Y.T - scores) <= tolerance("fit", np.float32) * np.linalg.norm(scores)
    for found, wanted in ((X, expected.user_factors), (Y, expected.item_factors)):
        assert found == pytest.approx(
            wanted, abs=1e-3 * float(np.abs(wanted).max())
        )  # axes of near energies turn a little


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
def test_factors_are_the_single_machines(table, ratings, parameters):
    model = small(calculate_training_loss=True, numUserBlocks=3, **parameters).fit(table)
    expected = single_machine(ratings, np.arange(ratings.shape[1]), **parameters)
    assert_same_fit(model, expected)
    assert model.training_loss == pytest.approx(expected.training_loss, rel=1e-5)
    assert factors_of(model.userFactors)[0] == list(range(ratings.shape[0]))
