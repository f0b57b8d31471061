"""Fixtures shared by every test module."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from threadpoolctl import threadpool_limits

from alscore._core import kernel_table
from alscore._support import threads


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the real data sets. It is not part of the project: outside CI a test is skipped without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        if os.environ.get("ALSCORE_REQUIRE_DATA"):
            pytest.fail("ALSCORE_REQUIRE_DATA is set, but ../shared/data does not exist beside the checkout")
        pytest.skip("real data not available (../shared/data)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread():
    """Oracles multiply small matrices. Threads of BLAS spin there, and take many times longer on a busy machine."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(params=kernel_table.available())
def isa(request):
    """Each kernel set that this processor can run. It is in use during the test."""
    before = kernel_table.isa()
    kernel_table.use(request.param)
    yield request.param
    kernel_table.use(before)


@pytest.fixture
def little_work_in_parallel(monkeypatch):
    """Run on as many threads as the test asks for, although the problem is so small that one thread would do."""
    monkeypatch.setattr(threads, "_LEAST_WORK", 0)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=["cholesky", "cg", "auto"])
def solver(request):
    """Name of each built-in solver."""
    return request.param


OBJECTIVES = {
    "defaults": {"regularization": 0.01},
    "exponent": {"regularization": 0.1, "alpha": 10.0, "unobserved_weight": 0.5, "regularization_exponent": 0.5},
    "entries": {"regularization": 0.1, "regularization_exponent": 1.0, "regularization_count": "entries"},
    "log": {"regularization": 0.01, "confidence": "log", "alpha": 20.0, "epsilon": 0.5},
    "raw": {"regularization": 0.1, "confidence": "raw", "alpha": 2.0, "unobserved_weight": 0.3},
}


@pytest.fixture(params=OBJECTIVES)
def objective(request):
    """Parameters of an objective. Together they use every parameter."""
    return dict(OBJECTIVES[request.param])


@pytest.fixture(scope="session")
def plays():
    """Play counts up to 100 of 300 users and 120 items, popular and rare, with empty rows and an empty column."""
    rng = np.random.default_rng(0)
    shape = (300, 120)
    played = rng.random(shape) < 0.4 * rng.random(shape[1]) ** 2
    counts = np.where(played, np.rint(100 ** rng.random(shape)), 0)
    counts[[0, 7]] = 0
    counts[:, 5] = 0
    matrix = sparse.csr_array(counts.astype(np.float32))
    for array in (matrix.data, matrix.indices, matrix.indptr):
        array.flags.writeable = False
    return matrix


@pytest.fixture(scope="session")
def assert_canonical():
    """Verify that a matrix has the form that the compiled core reads."""

    def check(csr, dtype=np.float32):
        assert isinstance(csr, sparse.csr_array)
        assert (csr.indptr.dtype, csr.indices.dtype, csr.data.dtype) == (np.int64, np.int32, dtype)
        assert csr.indptr[-1] == csr.indices.size == csr.data.size
        assert np.all(csr.data != 0)
        for row in range(csr.shape[0]):
            assert np.all(np.diff(csr.indices[csr.indptr[row] : csr.indptr[row + 1]]) > 0)

    return check


@pytest.fixture
def run_python():
    """Run code in a new interpreter, with `env` added to the environment. Returns its CompletedProcess."""

    def run(code, **env):
        inherited = {name: value for name, value in os.environ.items() if name != "ALSCORE_ISA"}
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**inherited, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def spark():
    """A Spark session on two threads of this process."""
    pytest.importorskip("pyspark")
    from alscore.bench import on_spark

    try:
        on_spark.require_java()
    except RuntimeError as error:
        if {"CI", "ALSCORE_REQUIRE_SPARK"} & os.environ.keys():
            raise
        pytest.skip(str(error))
    with on_spark.session(2, "1g") as session:
        yield session
