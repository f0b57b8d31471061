"""Every sparse matrix is converted to canonical form, or an error names what is wrong with it."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from alscore._data.canonical import canonical_csr, canonical_rows, from_canonical


def dense(rows, columns, values, shape):
    total = np.zeros(shape)
    for row, column, value in zip(rows, columns, values, strict=True):
        total[row, column] += value
    return total


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.int64, np.float32, np.float64, np.longdouble])
def test_every_format_and_dtype(assert_canonical, kind, format, dtype):
    rng = np.random.default_rng(1)
    expected = (rng.integers(1, 100, (7, 5)) * (rng.random((7, 5)) < 0.4)).astype(dtype)
    csr = canonical_csr(kind(expected).asformat(format))
    assert_canonical(csr)
    np.testing.assert_array_equal(csr.toarray(), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("format", ["coo", "csr", "csc"])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(-128, 127)), max_size=40))
@settings(max_examples=25, deadline=None)
def test_duplicates_are_summed_beyond_the_range_of_their_dtype(assert_canonical, format, dtype, entries):
    rows, columns, values = np.array(entries, np.int64).reshape(-1, 3).T
    order = np.argsort(rows if format == "csr" else columns, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order].astype(np.int8)
    matrix = sparse.coo_array((values, (rows, columns)), shape=(4, 5))
    if format == "csr":
        matrix = sparse.csr_array((values, columns, np.searchsorted(rows, np.arange(5))), shape=(4, 5))
    if format == "csc":
        matrix = sparse.csc_array((values, rows, np.searchsorted(columns, np.arange(6))), shape=(4, 5))
    csr = canonical_csr(matrix, dtype=dtype)
    assert_canonical(csr, dtype)
    np.testing.assert_array_equal(csr.toarray(), dense(rows, columns, values, (4, 5)))


def test_a_canonical_matrix_shares_its_buffers():
    csr = canonical_csr(sparse.csr_array(np.eye(3)))
    again = canonical_csr(csr)
    for name in ("indptr", "indices", "data"):
        assert np.shares_memory(getattr(csr, name), getattr(again, name))


@pytest.mark.parametrize("mapped", [False, True])
def test_read_only_and_memory_mapped_input_is_never_modified(assert_canonical, tmp_path, mapped):
    data, indices, indptr = np.array([1.0, 2, 3, 0]), np.array([2, 0, 2, 1]), np.array([0, 3, 4])
    parts = []
    for number, part in enumerate((data, indices, indptr)):
        np.save(tmp_path / f"{number}.npy", part)
        parts.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r" if mapped else None))
        parts[-1].setflags(write=False)
    csr = canonical_csr(sparse.csr_array(tuple(parts), shape=(2, 3)))
    assert_canonical(csr)
    np.testing.assert_array_equal(csr.toarray(), [[2, 0, 4], [0, 0, 0]])
    for part, original in zip(parts, (data, indices, indptr), strict=True):
        np.testing.assert_array_equal(part, original)


def test_unsorted_input_is_not_sorted_in_place():
    matrix = sparse.csr_array((np.float32([1, 2]), np.int32([1, 0]), np.int32([0, 2])), shape=(1, 2))
    np.testing.assert_array_equal(canonical_csr(matrix).toarray(), [[2, 1]])
    np.testing.assert_array_equal(matrix.indices, [1, 0])
    np.testing.assert_array_equal(matrix.data, [1, 2])
    np.testing.assert_array_equal(matrix.indptr, [0, 2])


def test_zeros_negative_zeros_and_cancelling_sums_leave_no_entry(assert_canonical):
    matrix = sparse.coo_array(([0.0, -0.0, 2.5, -2.5, -1.0], ([0, 0, 1, 1, 1], [0, 1, 0, 0, 1])))
    csr = canonical_csr(matrix)
    assert_canonical(csr)
    assert csr.nnz == 1
    assert csr[1, 1] == -1


def test_canonical_csr_works_with_scipy():
    csr = canonical_csr(sparse.csr_array(np.arange(6).reshape(2, 3)))
    np.testing.assert_array_equal(csr.T.tocsr().toarray(), [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(csr @ np.ones(3), [3, 12])
    np.testing.assert_array_equal(csr[[1]].toarray(), [[3, 4, 5]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, 1e-50])
@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
def test_a_value_that_float32_cannot_hold_is_refused(format, value):
    matrix = sparse.coo_array(([1.0, value], ([0, 2], [3, 1])), shape=(4, 4)).asformat(format)
    with pytest.raises(ValueError, match=r"plays holds .* at row 2, .* remove or correct"):
        canonical_csr(matrix, name="plays")
    if 0 < value < np.inf:
        assert canonical_csr(matrix, dtype=np.float64)[2, 1] == value


@pytest.mark.parametrize("n_rows", [1, 50])
def test_repeats_are_summed_in_float64(assert_canonical, n_rows):
    """In float32, 2**24 + 1 is 2**24."""
    values = np.array([2**24, 1, 1, 1, 1, 7], np.float32)
    rows = np.repeat(np.arange(n_rows), values.size)
    columns = np.tile([3, 3, 3, 3, 3, 0], n_rows)
    csr = canonical_csr(sparse.coo_array((np.tile(values, n_rows), (rows, columns)), shape=(n_rows, 4)))
    assert_canonical(csr)
    np.testing.assert_array_equal(csr.toarray(), [[7, 0, 0, 2**24 + 4]] * n_rows)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 2, 0, 3, 1]])
def test_more_entries_than_int32_can_number(assert_canonical, order):
    values, columns = np.arange(1, 6)[order], np.array([0, 1, 1, 2, 2])[order]
    matrix = sparse.csr_array((values, columns, np.array([0, 5])), shape=(1, 3))
    csr = from_canonical(*canonical_rows(matrix, np.float32, "matrix", max_narrow_entries=3))
    assert_canonical(csr)
    assert csr.toarray().tolist() == [[1, 5, 9]]


def test_a_few_repeats_take_little_memory():
    """The result, and no int64 copy of the indices or float64 copy of the values: less than 24 bytes an entry."""
    n_rows, n_columns = 2000, 100
    columns = np.tile(np.arange(n_columns, dtype=np.int32), n_rows)
    columns[1] = 0
    indptr = np.arange(0, columns.size + 1, n_columns, dtype=np.int32)
    matrix = sparse.csr_array((np.ones(columns.size, np.float32), columns, indptr), shape=(n_rows, n_columns))
    tracemalloc.start()
    try:
        csr = canonical_csr(matrix)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert csr.nnz == columns.size - 1
    assert peak < 24 * columns.size


def test_a_sum_that_overflows_is_refused():
    with pytest.raises(ValueError, match=r"holds .* at row 1"):
        canonical_csr(sparse.coo_array(([3e38, 3e38], ([1, 1], [0, 0])), shape=(2, 1)))


def broken(format="csr", **attributes):
    matrix = sparse.csr_array(np.ones((3, 3), np.float32)).asformat(format)
    for name, value in attributes.items():
        setattr(matrix, name, np.array(value))
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (broken(indices=[0, 1, 2, 0, 3, 2, 0, 1, 2]), "column index 3 at row 1"),
        (broken(indices=[0, 1, 2, 0, 1, 2, 0, -1, 2]), "column index -1 at row 2"),
        (broken(indices=[2**32, 1, 2, 0, 1, 2, 0, 1, 2]), "column index 4294967296 at row 0"),
        (broken("csc", indices=[0, 1, 2, 0, 3, 2, 0, 1, 2]), "row index 3 at column 1"),
        (broken("coo", col=[0, 1, 2, 0, 3, 2, 0, 1, 2]), "column index 3 at row 1"),
        (broken("coo", row=[0, 0, 0, 1, 1, 1, 2, -2, 2]), "row index -2"),
        (broken(indptr=[0, 6, 3, 9]), "indptr decreases at row 1"),
        (broken(indptr=[0, 3, 9]), "indptr must start with 0 and have 4 elements"),
        (broken(indptr=[1, 3, 6, 9]), "indptr must start with 0"),
        (broken(indptr=[0, 3, 6, 99]), "points past the 9 stored elements at row 2"),
        (broken(data=np.ones(7, np.float32)), "points past the 7 stored elements at row 2"),
        (sparse.coo_array((2**31, 1)), "at most 2,147,483,647 rows and columns"),
        (sparse.coo_array(np.ones(3)), "two dimensions"),
    ],
)
def test_a_broken_structure_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message) as error:
        canonical_csr(matrix, name="plays")
    assert str(error.value).startswith("plays")


@pytest.mark.parametrize("matrix", [np.eye(2), [[1, 2]], pd.DataFrame([[1]]), None])
def test_a_matrix_that_is_not_sparse_is_refused(matrix):
    with pytest.raises(TypeError, match=r"user_items must be a scipy sparse matrix.*csr_array"):
        canonical_csr(matrix)


@pytest.mark.parametrize("matrix", [sparse.csr_array(np.eye(2, dtype=complex)), broken(indices=[0.5] * 9)])
def test_complex_values_and_float_indices_are_refused(matrix):
    with pytest.raises(TypeError, match=r"user_items has .* convert them"):
        canonical_csr(matrix)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_empty_matrices(assert_canonical, shape):
    csr = canonical_csr(sparse.coo_array(shape))
    assert_canonical(csr)
    assert csr.shape == shape
