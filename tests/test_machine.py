"""The peaks of the machine and the needs of a sweep: what is timed and counted. How fast it is does not matter here."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from alscore._core import probe
from alscore.bench import machine

WIDTHS = [width for width in (16, 32, 64) if probe.fma_flops(width)]
CHAINS = probe.fma_flops(16) // (2 * 4)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("multiplier", "addend"), [(0.5, 1.0), (-1.0, 3.0), (2.0, 0.5)])
def test_fma_steps_every_lane(width, threads, multiplier, addend):
    """Against the closed form of x = m x + a; all numbers are exact in float32."""
    steps, start = 7, np.arange(CHAINS)
    end = multiplier**steps * start + addend * (1 - multiplier**steps) / (1 - multiplier)
    seconds, total = probe.fma(width, steps, multiplier, addend, threads)
    assert total == threads * (width / 4) * end.sum()
    assert seconds > 0


@pytest.mark.parametrize("width", WIDTHS)
def test_fma_flops_are_two_for_each_lane_and_step(width):
    """Adding 1 in every step counts the lanes."""
    before, after = (probe.fma(width, steps, 1.0, 1.0, 1)[1] for steps in (10, 11))
    assert probe.fma_flops(width) == 2 * (after - before)


def test_fma_refuses():
    assert probe.fma_flops(24) == 0
    with pytest.raises(ValueError, match="no vectors of 24 bytes"):
        probe.fma(24, 1, 1.0, 1.0, 1)
    with pytest.raises(ValueError, match="not -1 and 1"):
        probe.fma(16, -1, 1.0, 1.0, 1)
    with pytest.raises(ValueError, match="not 1 and 0"):
        probe.fma(16, 1, 1.0, 1.0, 0)


@pytest.mark.parametrize("k", [1, 15, 16, 17, 64, 100])
@pytest.mark.parametrize("ahead", [0, 3, 1000, 2**63 - 1])
def test_gather_reads_every_number_of_every_row(k, ahead):
    rng = np.random.default_rng(k)
    table = rng.integers(2**32, size=(50, k), dtype=np.uint32)
    rows = rng.integers(50, size=201, dtype=np.int32)
    for threads in (1, 2, 3, 250):
        assert probe.gather(table, rows, ahead, threads)[1] == table[rows].sum(dtype=np.uint32)


def test_gather_refuses():
    table, rows = np.ones((5, 2), np.uint32), np.arange(5, dtype=np.int32)
    for wrong in (rows + np.int32(1), rows - np.int32(1)):
        with pytest.raises(ValueError, match="rows must be from 0 to 4, not"):
            probe.gather(table, wrong, 0, 1)
    for wrong in ((table[:, :0], rows, 0, 1), (table, rows[:0], 0, 1), (table, rows, -1, 1), (table, rows, 0, 0)):
        with pytest.raises(ValueError, match="must not be empty, ahead must be at least 0 and num_threads 1"):
            probe.gather(*wrong)


def scripted(seconds):
    """Return a function that takes these seconds in turn, and the list of the arguments of its calls."""
    calls, reports = [], iter(seconds)

    def run(*arguments):
        calls.append(arguments)
        return next(reports), 0

    return run, calls


def test_fma_peak_is_that_of_the_fastest_run():
    run, calls = scripted([3.0, 2.0, 4.0, 5.0])
    flops = {16: 8, 32: 16, 64: 0}
    peak = machine.fma_peak(threads=3, seconds=10, probe=SimpleNamespace(fma=run, fma_flops=flops.get))
    assert [(width, threads) for width, *_, threads in calls] == [(16, 3), (16, 3), (32, 3), (32, 3)]
    assert peak == 3 * calls[2][1] * 16 / 4.0


def test_gather_bandwidth_reads_each_row_once_and_is_that_of_the_fastest_run():
    run, calls = scripted([5.0, 4.0, 3.0, 1.0, 2.0])
    bandwidth = machine.gather_bandwidth(16, threads=2, rows=1000, seconds=1, probe=SimpleNamespace(gather=run))
    assert bandwidth == 1000 * 16 * 4 / 1.0
    assert len({ahead for _, _, ahead, _ in calls}) == 5
    for table, rows, _, threads in calls:
        assert table.shape == (1000, 16)
        assert table.ctypes.data % 64 == 0
        assert threads == 2
        np.testing.assert_array_equal(np.sort(rows), np.arange(1000))
        assert not np.array_equal(rows, np.arange(1000))


def test_measures_of_this_machine():
    assert 0 < machine.fma_peak(1, seconds=1e-3) < math.inf
    assert 0 < machine.gather_bandwidth(8, 1, rows=1000, seconds=1e-3) < math.inf


@pytest.mark.parametrize(("cache_bytes", "table_bytes"), [({}, 2**28), ({"L1": 1, "L3": 2**26}, 2**29)])
def test_gathered_table_is_beyond_the_caches(cache_bytes, table_bytes):
    assert table_bytes <= machine.rows_beyond_cache(100, cache_bytes) * 400 < table_bytes + 400
    assert machine.rows_beyond_cache(2**31 - 1, cache_bytes) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: machine.fma_peak(-1), "num_threads must be an integer from 0 .* not -1"),
        (lambda: machine.fma_peak(1, seconds=0), "seconds must be above 0"),
        (lambda: machine.fma_peak(1, seconds=math.nan), "seconds must be above 0"),
        (lambda: machine.gather_bandwidth(0, rows=1), "k must be an integer from 1 to 2,147,483,647, not 0"),
        (lambda: machine.gather_bandwidth(1.5, rows=1), "k must be an integer from 1 .* not 1.5"),
        (lambda: machine.gather_bandwidth(1, rows=0), "rows must be an integer from 1 .* not 0"),
        (lambda: machine.gather_bandwidth(1, rows=2**31), "rows must be an integer from 1 .* not 2147483648"),
        (lambda: machine.gather_bandwidth(1, 5000, rows=1), "num_threads must be .* not 5000"),
        (lambda: machine.gather_bandwidth(1, 1, rows=1, seconds=math.inf), "seconds must be above 0 and finite"),
        (lambda: machine.sweep_flops([1], [1], 0), "k must be an integer from 1 .* not 0"),
        (lambda: machine.sweep_flops([1.5], [1], 4), "user_entries must be a one-dimensional array of integers"),
        (lambda: machine.sweep_flops([1], [[1]], 4), r"item_entries must be .* not int64 of shape \(1, 1\)"),
        (lambda: machine.sweep_flops([1], [3, -2], 4), "item_entries must be at least 0, not -2 at row 1"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def counted_row(B, v):
    """Solve (I + B'B) w = B'v number by number, as in a textbook; return w and the number of FLOPs."""
    n, k = B.shape
    flops = 0
    dual = n <= k
    R = B.T if dual else B  # R'R is the matrix of the system, minus I
    M, m = R.shape
    rhs = v.copy() if dual else np.zeros(k)
    for j in range(n):
        for i in range(k):
            flops += 2  # the scaling of this number from both sides, which B already has
            if not dual:
                rhs[i] += B[j, i] * v[j]
                flops += 2
    L = np.eye(m)
    for i in range(m):
        for j in range(i + 1):
            for p in range(M):
                L[i, j] += R[p, i] * R[p, j]
                flops += 2
    for p in range(m):
        L[p, p] = math.sqrt(L[p, p])
        flops += 1
        for i in range(p + 1, m):
            L[i, p] /= L[p, p]
            flops += 1
        for i in range(p + 1, m):
            for j in range(p + 1, i + 1):
                L[i, j] -= L[i, p] * L[j, p]
                flops += 2
    s = rhs
    for i in range(m):
        for j in range(i):
            s[i] -= L[i, j] * s[j]
            flops += 2
        s[i] /= L[i, i]
        flops += 1
    for i in reversed(range(m)):
        for j in range(i + 1, m):
            s[i] -= L[j, i] * s[j]
            flops += 2
        s[i] /= L[i, i]
        flops += 1
    if not dual:
        return s, flops
    w = np.zeros(k)
    for j in range(n):
        for i in range(k):
            w[i] += B[j, i] * s[j]
            flops += 2
    return w, flops


@pytest.mark.parametrize("k", [1, 3, 6])
def test_sweep_flops_are_those_of_an_algorithm_that_solves_the_rows(k):
    rng = np.random.default_rng(k)
    sides = np.array([0, 1, 2, 5, 6, 7]), np.array([3, 9, 9, 0], np.int32)
    expected = 0
    for n_rows, entries in ((6, sides[0]), (4, sides[1])):
        for n in entries:
            B, v = rng.standard_normal((n, k)), rng.standard_normal(n)
            w, flops = counted_row(B, v)
            np.testing.assert_allclose(w, np.linalg.solve(np.eye(k) + B.T @ B, B.T @ v), atol=1e-12)
            expected += flops
        expected += sum(2 for _ in range(n_rows) for i in range(k) for _ in range(i + 1))  # Gram matrix, one triangle
        expected += sum(2 for _ in range(n_rows) for _ in range(k) for _ in range(k))  # rotation
    assert machine.sweep_flops(*sides, k) == pytest.approx(expected, rel=1e-12)


def test_sweep_flops_beyond_32_bits():
    assert machine.sweep_flops([3, 400], [5], np.int8(100)) == machine.sweep_flops([3, 400], [5], 100)
    assert machine.sweep_flops(np.array([2**31 - 1], np.int32), [0], 2) > 6 * 2**31


def test_gather_bytes():
    """20 entries, a row of 3 numbers of 4 bytes for each, in both halves of the sweep."""
    assert machine.gather_bytes(np.int32(20), 3) == 2 * 20 * 3 * np.dtype(np.float32).itemsize


def test_description(isa):
    description = machine.describe()
    assert description["isa"] == isa
    assert description["numpy"] == np.__version__
    assert description["cpu"]
    assert description["cpus"] >= 1
    assert description["memory_bytes"] > 2**20
    assert all(size > 0 for size in description["caches"].values())
