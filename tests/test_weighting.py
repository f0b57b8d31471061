"""Every transform against its formula on dense arrays in float64. Errors name what is wrong."""

import math

import numpy as np
import pytest
from implicit.nearest_neighbours import bm25_weight, tfidf_weight
from scipy import sparse
from sklearn.preprocessing import normalize as sklearn_normalize

from alscore import Interactions, weighting
from alscore._data.canonical import canonical_csr

# Relative tolerance of weights: one rounding of float32, or a few of float64.
RTOL = {"float32": 1e-6, "float64": 1e-13}


def log(r, epsilon=1.0):
    return np.sign(r) * np.log(1 + abs(r) / epsilon)


def idf(r):
    """`r` is documents × terms."""
    return np.log(len(r) / (1 + (r != 0).sum(axis=0)))


def bm25(r, k1=100.0, b=0.8):
    """`r` is documents × terms."""
    length = r.sum(axis=1, keepdims=True)
    return r * (k1 + 1) / (r + k1 * (1 - b + b * length / length.mean()) + (r == 0)) * idf(r)


def tfidf(r):
    """`r` is documents × terms."""
    return np.sqrt(r) * idf(r)


def normalize(r, norm="l2"):
    """Rows get norm 1."""
    norms = np.linalg.norm(r, {"l2": 2, "l1": 1, "max": np.inf}[norm], axis=1, keepdims=True)
    return r / np.where(norms == 0, 1, norms)


def clip(r, lower=0.0, upper=math.inf):
    return np.sign(r) * np.minimum(np.maximum(abs(r), lower), upper)


# By name: the call, and its formula for users × items.
KEEP_SIGNS = {
    "log": (weighting.log, log),
    "log, epsilon": (lambda m: weighting.log(m, 0.1), lambda r: log(r, 0.1)),
    "l2": (weighting.normalize, normalize),
    "l1": (lambda m: weighting.normalize(m, "l1"), lambda r: normalize(r, "l1")),
    "max": (lambda m: weighting.normalize(m, "max"), lambda r: normalize(r, "max")),
    "l2, items": (lambda m: weighting.normalize(m, axis="items"), lambda r: normalize(r.T).T),
    "l1, items": (lambda m: weighting.normalize(m, "l1", "items"), lambda r: normalize(r.T, "l1").T),
    "max, items": (lambda m: weighting.normalize(m, "max", "items"), lambda r: normalize(r.T, "max").T),
    "clip": (lambda m: weighting.clip(m, 2, 30), lambda r: clip(r, 2, 30)),
    "clip above": (lambda m: weighting.clip(m, upper=30), lambda r: clip(r, upper=30)),
    "signs alone": (lambda m: weighting.clip(m, 1, 1), np.sign),
}
OF_COUNTS = {
    "bm25": (weighting.bm25, lambda r: bm25(r.T).T),
    "bm25, k1, b": (lambda m: weighting.bm25(m, 1.2, 0.75), lambda r: bm25(r.T, 1.2, 0.75).T),
    "bm25, any length": (lambda m: weighting.bm25(m, b=0), lambda r: bm25(r.T, b=0).T),
    "bm25, saturated": (lambda m: weighting.bm25(m, k1=0), lambda r: bm25(r.T, k1=0).T),
    "bm25, users": (lambda m: weighting.bm25(m, documents="users"), bm25),
    "tfidf": (weighting.tfidf, lambda r: tfidf(r.T).T),
    "tfidf, users": (lambda m: weighting.tfidf(m, "users"), tfidf),
}
ALL = KEEP_SIGNS | OF_COUNTS


@pytest.fixture(scope="module")
def ratings(plays):
    """`plays`, where a fifth of the entries are dislikes."""
    rng = np.random.default_rng(1)
    return sparse.csr_array(plays.toarray() * np.where(rng.random(plays.shape) < 0.2, -1, 1))


def assert_weights(weighted, expected, dtype):
    assert isinstance(weighted, sparse.csr_array)
    assert (weighted.indptr.dtype, weighted.indices.dtype, weighted.data.dtype) == (np.int64, np.int32, dtype)
    again = canonical_csr(weighted, dtype)
    assert np.shares_memory(again.indices, weighted.indices), "not canonical"
    np.testing.assert_allclose(weighted.toarray(), expected, rtol=RTOL[dtype.name])


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize("name", ALL)
def test_weights_equal_the_formula(plays, name, format, dtype):
    call, formula = ALL[name]
    weighted = call(plays.astype(dtype).asformat(format))
    assert_weights(weighted, formula(plays.toarray().astype(np.float64)), dtype)


@pytest.mark.parametrize("name", KEEP_SIGNS)
def test_dislikes_stay_dislikes(ratings, name, dtype):
    call, formula = KEEP_SIGNS[name]
    for matrix in (ratings, ratings.T):
        assert_weights(call(matrix.astype(dtype)), formula(matrix.toarray().astype(np.float64)), dtype)


@pytest.mark.parametrize("name", OF_COUNTS)
def test_functions_of_counts_refuse_dislikes(ratings, name):
    row = np.flatnonzero((ratings.toarray() < 0).any(axis=1))[0]
    with pytest.raises(ValueError, match=rf"user_items holds -\d.* at row {row}; {name.split(',')[0]} is defined for"):
        OF_COUNTS[name][0](ratings)


@pytest.mark.parametrize(
    ("call", "peer", "options"),
    [
        (weighting.bm25, bm25_weight, {}),
        (weighting.bm25, bm25_weight, {"k1": 1.2, "b": 0.75}),
        (weighting.tfidf, tfidf_weight, {}),
    ],
)
def test_equal_to_implicit(plays, call, peer, options):
    item_users = plays.T.astype(np.float64)
    expected = peer(item_users, **{name.upper(): value for name, value in options.items()}).toarray()
    np.testing.assert_allclose(call(item_users.T, **options).T.toarray(), expected, rtol=1e-8)
    np.testing.assert_allclose(call(item_users, documents="users", **options).toarray(), expected, rtol=1e-8)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_equal_to_scikit_learn(plays, norm):
    matrix = plays.astype(np.float64)
    for axis, its_axis in (("users", 1), ("items", 0)):
        expected = sklearn_normalize(matrix.toarray(), norm, axis=its_axis)
        np.testing.assert_allclose(weighting.normalize(matrix, norm, axis).toarray(), expected, rtol=1e-13)


def test_time_decay_halves_with_every_half_life():
    matrix = sparse.csr_array(np.array([[8.0, 0, 8], [0, -8, 8]]))
    weighted = weighting.time_decay(matrix, 10, timestamps=[100, 90, 80, 95])
    np.testing.assert_allclose(weighted.toarray(), [[8, 0, 4], [0, -2, 8 / math.sqrt(2)]], rtol=1e-15)


@pytest.mark.parametrize("now", [1241136000, np.int64(1241136000), "2009-05-01", np.datetime64("2009-05-01", "ns")])
def test_time_decay_since_an_instant(now):
    day = 86400
    matrix = sparse.csr_array(np.array([[8.0, 8]]))
    weighted = weighting.time_decay(matrix, 30 * day, [1241136000 - 90 * day, 1241136000 - 15 * day], now)
    np.testing.assert_allclose(weighted.toarray(), [[1, 8 / math.sqrt(2)]], rtol=1e-15)


def test_interactions_keep_labels_report_and_timestamps():
    plays = Interactions.from_arrays(["ann", "bob", "ann"], ["x", "x", "y"], [3, 1, 7])
    plays.timestamps = np.array([0, 5, 10])
    before = plays.matrix.toarray()
    for weighted in (weighting.log(plays), weighting.time_decay(plays, 5)):
        assert isinstance(weighted, Interactions)
        assert (list(weighted.users), list(weighted.items)) == (["ann", "bob"], ["x", "y"])
        assert weighted.report is plays.report
        assert weighted.timestamps is plays.timestamps
        assert weighted.matrix.dtype == np.float32
    np.testing.assert_allclose(weighting.log(plays).matrix.toarray(), np.log1p(before), rtol=1e-6)
    np.testing.assert_allclose(weighting.time_decay(plays, 5).matrix.toarray(), [[0.75, 3.5], [1, 0]], rtol=1e-6)
    np.testing.assert_array_equal(plays.matrix.toarray(), before)


@pytest.mark.parametrize("format", ["csr", "csc"])
@pytest.mark.parametrize("name", ALL)
def test_input_is_not_modified(plays, name, format):
    matrix = plays.asformat(format).copy()
    before = [array.copy() for array in (matrix.data, matrix.indices, matrix.indptr)]
    weighted = ALL[name][0](matrix)
    weighted.data[:] = 0
    for array, original in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(array, original)


def test_repeats_are_summed_before_they_are_weighted():
    matrix = sparse.coo_array(([1, 2, 4], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    np.testing.assert_allclose(weighting.log(matrix).toarray(), [[0, np.log(4)], [np.log(5), 0]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 3)])
@pytest.mark.parametrize("name", ALL)
def test_without_entries(name, shape):
    assert ALL[name][0](sparse.csr_array(shape)).shape == shape


def test_time_decay_without_entries():
    assert weighting.time_decay(sparse.csr_array((2, 3)), 5, np.zeros(0, np.int64)).nnz == 0


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_norms_of_extreme_values(norm):
    matrix = sparse.csr_array(np.diag([1e200, 1e-200]) * 3)
    np.testing.assert_allclose(weighting.normalize(matrix, norm).toarray(), np.eye(2), rtol=1e-15)


def test_values_of_one_user_that_are_too_far_apart_are_refused():
    matrix = sparse.csr_array(np.array([[0, 1], [1e-30, 1e30]], np.float32))
    assert weighting.normalize(matrix.astype(np.float64)).nnz == 3
    with pytest.raises(ValueError, match=r"e-30 at row 1 would weigh 1e-60, .* clip the values: those of one of the"):
        weighting.normalize(matrix)


@pytest.mark.parametrize("call", [weighting.bm25, weighting.tfidf])
def test_a_term_of_all_documents_or_all_but_one_is_refused(call):
    matrix = sparse.csr_array([[0, 1, 0, 1], [0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    assert call(matrix[[0, 2, 3]]).nnz == 4
    with pytest.raises(ValueError, match=r"user 1 has entries with 3 of the 4 items, .* leave that user out"):
        call(matrix)
    with pytest.raises(ValueError, match=r"item 3 has entries with 3 of the 4 users, .* leave that item out"):
        call(matrix, documents="users")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: weighting.log(m, 1e60), "2.0 at row 1 would weigh 2e-60, .* 0.0; choose an epsilon"),
        (lambda m: weighting.clip(m, upper=1e-50), "2.0 at row 1 would weigh 1e-50, .* 0.0; choose other bounds"),
        (lambda m: weighting.clip(m, lower=1e50), r"2.0 at row 1 would weigh 1e\+50, .* inf; choose other bounds"),
    ],
)
def test_no_entry_vanishes(call, message):
    matrix = sparse.csr_array(np.array([[0, 0, 0], [2, 0, 0], [0, 3, 4]], np.float32))
    with pytest.raises(ValueError, match=message):
        call(matrix)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_very_old_entry_weighs_the_smallest_normal_number(dtype):
    matrix = sparse.csr_array(np.array([[2, -3, 4]], dtype))
    decayed = weighting.time_decay(matrix, 1, [0, 10**6, 10**6 + 10**5])
    assert decayed.data.tolist() == [np.finfo(dtype).tiny, -np.finfo(dtype).tiny, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: weighting.log(m, 0), "epsilon must be finite and above 0, not 0"),
        (lambda m: weighting.log(m, math.nan), "epsilon must be finite and above 0, not nan"),
        (lambda m: weighting.bm25(m, k1=-1), "k1 must be finite and at least 0, not -1"),
        (lambda m: weighting.bm25(m, k1=math.inf), "k1 must be finite"),
        (lambda m: weighting.bm25(m, b=1.1), "b must be from 0 to 1, not 1.1"),
        (lambda m: weighting.bm25(m, documents="rows"), "documents must be 'items' or 'users', not 'rows'"),
        (lambda m: weighting.tfidf(m, "rows"), "documents must be 'items' or 'users', not 'rows'"),
        (lambda m: weighting.normalize(m, "l3"), "norm must be 'l2', 'l1' or 'max', not 'l3'"),
        (lambda m: weighting.normalize(m, axis=1), "axis must be 'users' or 'items', not 1"),
        (lambda m: weighting.clip(m, -1), "lower must be finite and at least 0, not -1"),
        (lambda m: weighting.clip(m, 0, 0), "upper must be above 0 and at least lower, which is 0, not 0"),
        (lambda m: weighting.clip(m, 3, 2), "upper must be above 0 and at least lower, which is 3, not 2"),
        (lambda m: weighting.clip(m, 1, math.nan), "upper must be above 0"),
        (lambda m: weighting.time_decay(m, 0, [1, 2]), "half_life must be a finite number of seconds above 0, not 0"),
        (lambda m: weighting.time_decay(m, 5), "user_items has no timestamps"),
        (lambda m: weighting.time_decay(m, 5, [1]), r"timestamps has shape \(1,\); give one for each of the 2 entries"),
        (lambda m: weighting.time_decay(m, 5, [1, 9], now=8), "timestamps: 9 at row 1 is later than now, which is 8"),
        (lambda m: weighting.time_decay(m, 5, [1, 2], now="noon"), "now must be .* not 'noon'"),
        (lambda m: weighting.time_decay(m, 5, [1, 2], now=2.5), "now must be .* not 2.5"),
        (lambda m: weighting.time_decay(m, 5, [1, 2], now=np.datetime64("NaT", "s")), "now must be an instant"),
        (lambda m: weighting.time_decay(m.tocoo(), 5, [1, 2]), "user_items must be in canonical form"),
        (lambda m: weighting.log(m * math.nan), "user_items holds nan at row 0"),
    ],
)
def test_bad_values_are_refused_by_name(call, message):
    matrix = sparse.csr_array(np.array([[3.0, 0, 0, 0, 0], [0, 4, 0, 0, 0]]))
    with pytest.raises(ValueError, match=message):
        call(matrix)


def test_timestamps_of_an_unsorted_matrix_are_refused():
    matrix = sparse.csr_array((np.float32([1, 2]), np.int32([1, 0]), np.int32([0, 2])), shape=(1, 2))
    with pytest.raises(ValueError, match="user_items must be in canonical form"):
        weighting.time_decay(matrix, 5, [1, 2])


@pytest.mark.parametrize("timestamps", [[0.5, 1.0], ["2009", "2010"], np.array(["2009", "2010"], "datetime64[s]")])
def test_timestamps_that_are_not_integers_are_refused(timestamps):
    with pytest.raises(TypeError, match=r"timestamps are .*; convert them to whole seconds since 1970"):
        weighting.time_decay(sparse.csr_array(np.eye(2)), 5, timestamps)


@pytest.mark.parametrize("call", [weighting.log, weighting.bm25, weighting.tfidf, weighting.normalize, weighting.clip])
def test_dense_arrays_are_refused(call):
    with pytest.raises(TypeError, match="user_items must be a scipy sparse matrix, not ndarray"):
        call(np.eye(3))
