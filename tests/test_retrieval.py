"""Ranking: recommend and the similar ones, against stable sorting of dense scores."""

import numpy as np
import pytest
from scipy import sparse

from alscore.retrieval import top_n
from alscore.testing import top_n as oracle_top_n


def whole_numbers(shape, dtype, seed=0):
    """Factors whose products are exact in any precision, and often equal."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(dtype)


# top_n: 70 queries are several blocks, 2500 factors several tiles


@pytest.mark.parametrize("n", [1, 10, 100, 2500, 2600])
def test_top_n_breaks_ties_by_the_lower_id(n, dtype):
    queries, factors = whole_numbers((70, 3), dtype), whole_numbers((2500, 3), dtype, seed=1)
    ids, scores = top_n(queries, factors, n, num_threads=2)
    expected_ids, expected_scores = oracle_top_n(queries @ factors.T, n)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)
    assert ids.dtype == np.int32
    assert scores.dtype == dtype


@pytest.mark.parametrize("n", [7, 2500])
def test_top_n_leaves_out_what_it_must(n, dtype):
    rng = np.random.default_rng(0)
    queries, factors = whole_numbers((70, 3), dtype), whole_numbers((2500, 3), dtype, seed=1)
    excluded = rng.random((70, 2500)) < 0.05
    excluded[3] = True
    exclude = sparse.csr_array(excluded[:, ::-1])
    exclude.indices = 2499 - exclude.indices  # mirrored back, with columns that descend in each row
    allow, deny = rng.permutation(2500)[:900], rng.permutation(2500)[:500]
    ids, scores = top_n(queries, factors, n, exclude=exclude, allow=allow, deny=deny, num_threads=2)
    banned = ~np.isin(np.arange(2500), allow) | np.isin(np.arange(2500), deny)
    expected_ids, expected_scores = oracle_top_n(queries @ factors.T, n, excluded | banned)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)


def test_top_n_has_the_same_bits_for_any_number_of_threads(dtype, little_work_in_parallel):
    rng = np.random.default_rng(0)
    queries, factors = (rng.standard_normal((n, 9)).astype(dtype) for n in (300, 2500))
    one, two, five = (top_n(queries, factors, 10, num_threads=threads) for threads in (1, 2, 5))
    for other in (two, five):
        assert [array.tobytes() for array in other] == [array.tobytes() for array in one]


def test_top_n_refuses_exclusions_of_another_shape():
    with pytest.raises(ValueError, match="exclude has shape"):
        top_n(np.ones((1, 2)), np.ones((3, 2)), 1, exclude=sparse.csr_array((3, 1)))


@pytest.mark.parametrize("n", [0, -1, 2.5, True, None])
def test_top_n_refuses_a_wrong_number(n):
    with pytest.raises(ValueError, match="N must be an integer >= 1"):
        top_n(np.ones((1, 2)), np.ones((3, 2)), n)
