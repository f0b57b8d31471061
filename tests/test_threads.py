"""Threads: how many, with BLAS on one of them, and after a fork."""

import concurrent.futures
import contextlib
import threading
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from alscore import AlternatingLeastSquares
from alscore._support import threads


def blas_threads():
    """Return the number of threads of each BLAS. A BLAS on OpenMP is left out: its number differs between callers."""
    return {
        library["num_threads"]
        for library in threadpool_info()
        if library["user_api"] == "blas" and library["threading_layer"] != "openmp"
    }


@pytest.fixture
def two_blas_threads():
    """Two BLAS threads, so that a test sees both the limit of one thread and its end."""
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("max 100000", 5), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 5), (OSError, 5)],
)
def test_available_cpus_obey_affinity_and_quota(monkeypatch, tmp_path, quota, cpus):
    if quota is not OSError:
        (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda process: {0, 1, 4, 5, 9}, raising=False)
    assert threads.available_cpus(tmp_path / "cpu.max") == cpus


def test_resolve():
    assert threads.resolve_threads(0) == threads.available_cpus()
    assert threads.resolve_threads(np.int16(3)) == 3


def test_little_work_gets_one_thread():
    assert threads.resolve_threads(3, work=1000) == 1
    assert threads.resolve_threads(3, work=1e9) == 3


@pytest.mark.parametrize("wrong", [-1, 2.0, "2", True, None, 3_000_000_000])
def test_resolve_refuses(wrong):
    with pytest.raises(ValueError, match="num_threads must be an integer from 0"):
        threads.resolve_threads(wrong)


def test_the_blas_that_numpy_ships_is_controlled():
    shipped = {str(path) for path in (Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas*")}
    if not shipped:
        pytest.skip("this numpy comes without a BLAS of its own")
    assert shipped <= {library["filepath"] for library in threadpool_info()}


def test_blas_runs_on_one_thread_during_fit_only(plays, two_blas_threads):
    during = []
    model = AlternatingLeastSquares(factors=2, iterations=1, num_threads=1)
    model.fit(plays, show_progress=False, callback=lambda *arguments: during.append(blas_threads()))
    assert during == [{1}]
    assert blas_threads() == {2}


def test_blas_limit_ends_with_an_error(two_blas_threads):
    with pytest.raises(ZeroDivisionError), threads.one_blas_thread():
        1 / 0  # noqa: B018
    assert blas_threads() == {2}


def test_blas_limit_lasts_until_the_last_of_several_threads_leaves(two_blas_threads):
    mine, others = contextlib.ExitStack(), contextlib.ExitStack()
    mine.enter_context(threads.one_blas_thread())
    thread = threading.Thread(target=others.enter_context, args=[threads.one_blas_thread()])
    thread.start()
    thread.join()
    mine.close()
    assert blas_threads() == {1}
    others.close()
    assert blas_threads() == {2}


def test_blas_limit_holds_whichever_thread_enters_first_and_leaves_last(two_blas_threads):
    """This thread controls OpenBLAS for threadpoolctl. A second thread sets the limit, a third one lifts it."""
    limit = contextlib.ExitStack()
    with concurrent.futures.ThreadPoolExecutor(1) as first, concurrent.futures.ThreadPoolExecutor(1) as last:
        first.submit(limit.enter_context, threads.one_blas_thread()).result()
        assert blas_threads() == {1}
        last.submit(limit.close).result()
        assert blas_threads() == {2}


def test_two_fits_at_once_have_the_bits_of_one(plays, two_blas_threads, little_work_in_parallel):
    models = [AlternatingLeastSquares(factors=8, num_threads=2, random_state=0) for _ in range(3)]
    during = []
    arguments = [plays, False, lambda *arguments: during.append(blas_threads())]
    threads = [threading.Thread(target=model.fit, args=arguments) for model in models[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    models[2].fit(plays, show_progress=False)
    assert len({model.user_factors.tobytes() for model in models}) == 1
    assert during == [{1}] * 2 * models[0].iterations
    assert blas_threads() == {2}


FORK = """
import os, traceback, warnings
import numpy as np
from scipy import sparse
from alscore import AlternatingLeastSquares
from alscore._support import threads

threads._LEAST_WORK = 0  # otherwise so little work would run on one thread

def in_child(check):
    child = os.fork()
    if child == 0:
        try:
            check()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def before_parallel_work():
    with warnings.catch_warnings(action="error"):
        assert threads.resolve_threads(2) == 2

in_child(before_parallel_work)

plays = sparse.csr_array(np.random.default_rng(0).random((400, 300)) < 0.05)
model = AlternatingLeastSquares(factors=8, iterations=2, num_threads=2, random_state=0)
bits = model.fit(plays, show_progress=False).user_factors.tobytes()

def after_parallel_work():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert model.fit(plays, show_progress=False).user_factors.tobytes() == bits
        model.recommend([0, 1], plays[:2])
    assert {warning.category for warning in caught} == {RuntimeWarning}
    assert "forked" in str(caught[0].message) and caught[0].filename == "<string>", caught[0]

in_child(after_parallel_work)
print("done")
"""


def test_child_forked_after_parallel_work_runs_on_one_thread(run_python):
    result = run_python(FORK)
    assert result.stdout == "done\n", result.stderr
