"""top_n against stable sorting of dense scores, and against a search that scores every candidate."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from alscore import retrieval
from alscore._core import kernel_table
from alscore._data.canonical import CanonicalRows
from alscore._support import threads
from alscore.retrieval import top_n
from alscore.testing import exact_top_n, tolerance


def whole_numbers(shape, dtype, seed=0):
    """Factors whose products are exact in any precision, and often equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtype)


def bits(results):
    return [array.tobytes() for array in results]


@st.composite
def searches(draw, largest_exponent):
    """Queries, factors with norms far apart, n, what to leave out, as arguments of top_n; and the same as a mask.

    Each row is small whole numbers times a power of two: products are exact unless they overflow, and often equal.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    k, n_queries, n_factors = draw(st.integers(1, 200)), draw(st.integers(1, 40)), draw(st.integers(1, 1500))
    exponent = draw(st.integers(0, largest_exponent)) * (1 if dtype == np.float32 else 8)
    queries, factors = (
        rng.integers(-2, 3, (n, k)) * np.ldexp(1.0, rng.integers(-exponent, exponent + 1, (n, 1)))
        for n in (n_queries, n_factors)
    )
    factors[rng.random(n_factors) < 0.1] = 0
    excluded = rng.random((n_queries, n_factors)) < draw(st.sampled_from([0, 0.05, 0.9]))
    shares = [draw(st.none() | st.sampled_from([0, 0.01, 0.5, 1])) for _ in range(2)]
    some = [None if share is None else np.flatnonzero(rng.random(n_factors) < share) for share in shares]
    banned = np.zeros(n_factors, bool) if some[0] is None else ~np.isin(np.arange(n_factors), some[0])
    if some[1] is not None:
        banned[some[1]] = True
    arguments = {
        "n": draw(st.integers(1, 20) | st.integers(1, n_factors + 3)),
        "exclude": sparse.csr_array(excluded),
        "allow": some[0],
        "deny": some[1],
        "num_threads": draw(st.integers(1, 3)),
    }
    return queries.astype(dtype), factors.astype(dtype), arguments, excluded | banned


@pytest.fixture(scope="module", autouse=True)
def _threads_for_little_work():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "_LEAST_WORK", 0)
        yield


def Candidates(factors, unit=False, **options):  # noqa: N802
    """Candidates of which only the first are packed: a search reads packed panels and gathers others."""
    return retrieval.Candidates(factors, unit, packed_bytes=1 << 14, **options)


@settings(max_examples=150, deadline=None)
@given(search=searches(60))
def test_top_n_equals_sorting_all_scores(search):
    queries, factors, arguments, left_out = search
    expected = exact_top_n(queries.astype(np.float64) @ factors.T.astype(np.float64), arguments["n"], left_out)
    for ordered in (True, False):
        results = top_n(queries, Candidates(factors, ordered=ordered), **arguments)
        np.testing.assert_array_equal(results[0], expected[0])
        np.testing.assert_array_equal(results[1], expected[1])


@settings(max_examples=100, deadline=None)
@given(search=searches(126), unit=st.booleans())
def test_top_n_is_the_same_to_the_bit_whether_or_not_all_are_scored(search, unit):
    # norms up to the largest numbers: products overflow to either infinity, and to NaN
    queries, factors, arguments, _ = search
    pruned, whole = (top_n(queries, Candidates(factors, unit, ordered=ordered), **arguments) for ordered in (1, 0))
    assert bits(pruned) == bits(whole)


@pytest.mark.parametrize("k", [1, 7, 200])
@pytest.mark.parametrize("spread", [0, 1e-9, 1e-6])
def test_norms_that_rounding_puts_in_another_order_than_products(isa, dtype, k, spread):
    """Nearly parallel vectors: products differ from the product of the norms by little more than rounding."""
    rng = np.random.default_rng(k)
    spread = spread if dtype == np.float32 else spread * 1e-9
    direction = rng.standard_normal(k)
    factors = direction * (1 + spread * rng.standard_normal((1500, 1)))
    factors = np.nextafter(factors.astype(dtype), rng.choice([-9, 9], factors.shape).astype(dtype))
    queries = (direction * rng.uniform(0.1, 10, (20, 1))).astype(dtype)
    pruned, whole = (top_n(queries, Candidates(factors, ordered=ordered), 3) for ordered in (True, False))
    assert bits(pruned) == bits(whole)


def test_products_that_underflow_have_large_rounding_errors(isa, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    factors = np.repeat(np.array([[1, 1], [3, 0]], dtype) * tiny, 480, axis=0)
    ids, scores = top_n(np.array([[0.6, 0.6]], dtype), Candidates(factors), 2)  # 1.2 and 1.8: both round to 2
    np.testing.assert_array_equal(ids, [[0, 1]])
    np.testing.assert_array_equal(scores, [[2 * tiny] * 2])


def test_the_smallest_norms():
    tiny = 5e-324
    factors = np.repeat([[2 * tiny, 0], [tiny, tiny]], 480, axis=0)
    queries = np.array([[0.6e300, 1.0e300]])
    ids, scores = top_n(queries, Candidates(factors), 2)
    np.testing.assert_array_equal(ids, [[480, 481]])
    np.testing.assert_allclose(scores, 1.6e300 * tiny)


@pytest.mark.parametrize("unit", [False, True])
def test_scores_that_are_not_finite_are_not_returned(isa, dtype, unit):
    factors = np.random.default_rng(0).standard_normal((400, 5)).astype(dtype)
    factors[::7, 1] = np.nan
    factors[3::7, :2] = np.inf, -np.inf
    queries = np.random.default_rng(1).standard_normal((9, 5)).astype(dtype)
    queries[4] = np.nan
    ids, scores = top_n(queries, Candidates(factors, unit), 400)
    wrong = np.arange(400) % 7
    assert np.isin(ids, np.flatnonzero(wrong == 0)).sum() == 0
    assert not np.isnan(scores).any()
    assert (ids[4] == -1).all()
    finite = [np.flatnonzero((wrong != 0) & (wrong != 3))]
    assert all(np.isin(finite, row).all() for row in np.delete(ids, 4, axis=0))


@pytest.mark.parametrize("unit", [False, True])
def test_top_n_with_rounding(isa, dtype, unit):
    rng = np.random.default_rng(0)
    queries, factors = rng.standard_normal((70, 50)), rng.standard_normal((2500, 50)) * rng.pareto(1, (2500, 1))
    queries, factors = queries.astype(dtype), factors.astype(dtype)
    norms = [np.linalg.norm(rows.astype(np.float64), axis=1) for rows in (queries, factors)]
    scores = queries.astype(np.float64) @ factors.T.astype(np.float64)
    if unit:
        scores /= np.outer(*norms)
    ids, computed = top_n(queries, Candidates(factors, unit), 40, num_threads=2)
    assert bits((ids, computed)) == bits(top_n(queries, Candidates(factors, unit, ordered=False), 40, num_threads=1))
    room = tolerance("score", dtype) * (1 if unit else norms[0][:, None] * norms[1][ids])
    assert (abs(computed - np.take_along_axis(scores, ids.astype(int), 1)) <= room).all()
    np.testing.assert_allclose(computed, exact_top_n(scores, 40)[1], atol=np.max(room))


@pytest.mark.parametrize("n", [1, 10, 100, 2500, 2600])
def test_top_n_breaks_ties_by_the_lower_id(isa, n, dtype):
    queries, factors = whole_numbers((70, 3), dtype), whole_numbers((2500, 3), dtype, seed=1)
    ids, scores = top_n(queries, factors, n, num_threads=2)
    expected_ids, expected_scores = exact_top_n(queries @ factors.T, n)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)
    assert ids.dtype == np.int32
    assert scores.dtype == dtype


def test_exclusions_in_any_order(dtype):
    queries, factors = whole_numbers((70, 3), dtype), whole_numbers((2500, 3), dtype, seed=1)
    excluded = np.random.default_rng(0).random((70, 2500)) < 0.05
    excluded[3] = True
    exclude = sparse.csr_array(excluded[:, ::-1])
    exclude.indices = 2499 - exclude.indices  # mirrored back, with columns that descend in each row
    results = top_n(queries, factors, 2500, exclude=exclude)
    np.testing.assert_array_equal(results, exact_top_n(queries @ factors.T, 2500, excluded))


def test_a_query_has_the_same_scores_alone_and_among_others(isa, dtype):
    rng = np.random.default_rng(0)
    queries, factors = (rng.standard_normal((n, 9)).astype(dtype) for n in (300, 2500))
    candidates = Candidates(factors)
    together = top_n(queries, candidates, 10, num_threads=1)
    for n_threads in (2, 5):
        assert bits(top_n(queries, candidates, 10, num_threads=n_threads)) == bits(together)
    for query, ids, scores in zip(queries[:20], *together, strict=False):
        for n_threads in (1, 5):
            assert bits(top_n(query[None], candidates, 10, num_threads=n_threads)) == bits((ids, scores))
        assert bits(top_n(query[None], factors, 10, num_threads=1)) == bits((ids, scores))


def test_candidates_outlive_a_change_of_the_kernel_set(dtype):
    queries, factors = whole_numbers((9, 40), dtype), whole_numbers((700, 40), dtype, seed=1)
    expected = exact_top_n(queries @ factors.T, 20)
    before, made = kernel_table.isa(), {}
    try:
        for isa in kernel_table.available():
            kernel_table.use(isa)
            made[isa] = Candidates(factors)
        for isa in kernel_table.available():
            kernel_table.use(isa)
            for candidates in made.values():
                np.testing.assert_array_equal(top_n(queries, candidates, 20), expected)
    finally:
        kernel_table.use(before)


def test_results_hold_no_more_memory_than_they_show():
    queries, factors = whole_numbers((1, 3), np.float32), whole_numbers((5000, 3), np.float32)
    for array in top_n(queries, factors, 10, num_threads=16):
        assert array.base is None or array.base.nbytes == array.nbytes


@pytest.mark.parametrize("indptr", [[0, 2**40], [-5, 1], [1, 0]])
def test_exclusions_outside_of_their_indices_are_refused(indptr):
    row = CanonicalRows(np.ones(1, np.float32), np.zeros(1, np.int32), np.array(indptr), (1, 100))
    with pytest.raises(ValueError, match="exclude_indptr points outside"):
        top_n(np.ones((1, 4), np.float32), np.ones((100, 4), np.float32), 3, exclude=row)


def test_many_python_threads_at_once():
    rng = np.random.default_rng(0)
    queries, factors = (rng.standard_normal((n, 16), np.float32) for n in (200, 3000))
    candidates = Candidates(factors)
    expected = bits(top_n(queries, candidates, 20, num_threads=1))
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda _: bits(top_n(queries, candidates, 20, num_threads=2)), range(40))
        assert all(each == expected for each in results)


def test_products_that_overflow_are_equal(dtype):
    half = np.ldexp(dtype.type(1), np.finfo(dtype).maxexp // 2)
    factors = np.full((1000, 2), 4 * half, dtype)
    factors[[3, 999]] = half
    ids, scores = top_n(np.array([[half, 0]]), Candidates(factors), 5)
    np.testing.assert_array_equal(ids, [[0, 1, 2, 3, 4]])
    assert np.isposinf(scores).all()


def test_cosines_of_zeros_and_of_the_smallest_numbers(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    factors = np.array([[1, 0], [0, 0], [-1, 0], [tiny, 0]], dtype)
    ids, scores = top_n(factors, Candidates(factors, unit=True), 4)
    np.testing.assert_array_equal(ids, [[0, 1, 3, 2], [0, 1, 2, 3], [2, 1, 3, 0], [0, 1, 2, 3]])
    np.testing.assert_array_equal(scores, [[1, 0, 0, -1], [0] * 4, [1, 0, 0, -1], [0] * 4])


@pytest.mark.parametrize("shape", [(0, 3), (5, 3)])
def test_no_queries_and_no_factors(shape):
    ids, scores = top_n(np.ones((2, 3)), np.ones(shape), 2, allow=[])
    np.testing.assert_array_equal(ids, [[-1, -1]] * 2)
    np.testing.assert_array_equal(scores, [[-np.inf] * 2] * 2)
    assert top_n(np.ones((0, 3)), np.ones(shape), 2)[0].shape == (0, 2)


def test_exclusions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="exclude has shape"):
        top_n(np.ones((1, 2)), np.ones((3, 2)), 1, exclude=sparse.csr_array((3, 1)))


@pytest.mark.parametrize("n", [0, -1, 2.5, True, None, 2**31])
def test_a_wrong_n_is_refused(n):
    with pytest.raises(ValueError, match="N must be an integer from 1 to 2,147,483,647"):
        top_n(np.ones((1, 2)), np.ones((3, 2)), n)


@pytest.mark.parametrize("queries", [np.ones((1, 3)), np.ones(2)])
def test_queries_of_another_length_are_refused(queries):
    with pytest.raises(ValueError, match=r"queries have shape .* must have \(n_queries, 2\)"):
        top_n(queries, np.ones((3, 2)), 1)


@pytest.mark.parametrize("factors", [np.ones(3), np.ones((3, 0)), np.ones((3, 2), int), np.ones((3, 2), "f2")])
def test_factors_that_cannot_be_searched(factors):
    with pytest.raises(ValueError, match="factors must be float32 or float64 of shape"):
        Candidates(factors)


@pytest.mark.parametrize("argument", ["allow", "deny"])
def test_ids_out_of_range_are_refused(argument):
    with pytest.raises(IndexError, match=r"ids to (return|filter) 3 \(position 1\) is outside of \[0, 3\)"):
        top_n(np.ones((1, 2)), np.ones((3, 2)), 1, **{argument: [0, 3]})
