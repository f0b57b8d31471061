"""Tables become Interactions, or an error names what is wrong. Interactions are split, joined and converted."""

import csv
import datetime
import gzip
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from alscore import AlternatingLeastSquares, Recommender, statistics
from alscore._data.canonical import from_canonical, row_of_entry
from alscore._data.labels import Labels
from alscore.interactions import Interactions, copy_with


def test_labels_default_to_ids():
    interactions = Interactions(sparse.csr_array(np.array([[0, 2, 0], [1, 0, 0]])))
    assert list(interactions.users) == [0, 1]
    assert list(interactions.items) == [0, 1, 2]
    assert interactions.shape == (interactions.n_users, interactions.n_items) == (2, 3)
    assert interactions.nnz == 2
    assert repr(interactions) == "<Interactions: 2 users × 3 items, 2 entries>"


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (["a"], "users has 1 labels, but the matrix has 2 users"),
        (["a", "a"], "users: label 'a' at position 1 is not unique"),
        (["b", "a", "c", "a"], "users: label 'a' at position 3 is not unique"),
        ([1, "a", 1, 2], "users: label 1 at position 2 is not unique"),
        (["a", None], "users: label .* at position 1 is missing"),
        (pd.Categorical([None, "a", "b"], ["a", "b"]), "users: label nan at position 0 is missing"),
        (pd.array([None, 1, 2], "Int64"), "users: label .* at position 0 is missing"),
    ],
)
def test_bad_labels_are_refused(users, message):
    n_users = 2 if len(users) == 1 else len(users)
    with pytest.raises(ValueError, match=message):
        Interactions(sparse.csr_array(np.eye(n_users)), users=users)


def test_labels_need_not_ascend():
    for users in (["b", "a", "c"], [1, "a", 2], pd.Categorical(["x", "z", "y"])):
        assert list(Interactions(sparse.csr_array(np.eye(3)), users=users).users) == list(users)


def test_more_labels_than_ids_are_refused():
    known = Labels(pd.Index([1, 2, 3]), "users")
    with pytest.raises(ValueError, match="users: 4 labels, but at most 3 are supported"):
        known.joined(pd.Index([3, 4]), max_labels=3)
    joined, ids = known.joined(pd.Index([3]), max_labels=3)
    assert (joined.tolist(), ids.tolist()) == ([1, 2, 3], [2])
    with pytest.raises(ValueError, match="items: 4 labels, but at most 3 are supported"):
        Labels.factorized([1, 2, 3, 4], "items", max_labels=3)
    assert Labels.factorized([1, 2, 3, 1], "items", max_labels=3)[1].index.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="at most 2,147,483,647 rows and columns are supported"):
        Interactions(sparse.coo_array((2**31, 1)))


TABLE = pd.DataFrame({"who": ["b", "a", "b", "c", "b"], "what": [30, 10, 30, 20, 10], "n": [5, 1, 2, 7, 9]})


def entries(interactions):
    """Return the values by (user, item), read directly from the arrays."""
    matrix = interactions.matrix
    return {
        (user, interactions.items[matrix.indices[at]]): matrix.data[at]
        for row, user in enumerate(interactions.users)
        for at in range(matrix.indptr[row], matrix.indptr[row + 1])
    }


def assert_accounted_for(interactions, read):
    report = interactions.report
    assert report.read == read
    assert report.kept == interactions.nnz
    assert report.read == report.kept + report.merged + len(report.rejected)


@pytest.mark.parametrize(("duplicates", "value"), [("sum", 7), ("max", 5), ("last", 2)])
def test_duplicates(duplicates, value):
    interactions = Interactions.from_pandas(TABLE, "who", "what", "n", duplicates=duplicates)
    assert entries(interactions) == {("a", 10): 1, ("b", 10): 9, ("b", 30): value, ("c", 20): 7}
    assert list(interactions.users) == ["a", "b", "c"]
    assert list(interactions.items) == [10, 20, 30]
    assert interactions.report.merged == 1
    assert_accounted_for(interactions, 5)


def test_duplicates_can_be_an_error():
    with pytest.raises(ValueError, match=r"1 rows have a \(who, what\) that comes again .* positions 0;"):
        Interactions.from_pandas(TABLE, "who", "what", "n", duplicates="error")
    interactions = Interactions.from_pandas(TABLE[1:], "who", "what", "n", duplicates="error")
    assert interactions.nnz == 4


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(-2, 2)), max_size=30),
    st.sampled_from(["sum", "max", "last"]),
)
@settings(max_examples=40, deadline=None)
def test_duplicates_against_pandas(rows, duplicates):
    df = pd.DataFrame(rows, columns=["u", "i", "v"], dtype=np.int64)
    expected = df.groupby(["u", "i"])["v"].agg(duplicates)
    interactions = Interactions.from_pandas(df, "u", "i", "v", duplicates=duplicates)
    assert entries(interactions) == expected[expected != 0].to_dict()
    assert_accounted_for(interactions, len(df))


def test_without_values_each_row_counts_one():
    interactions = Interactions.from_pandas(TABLE, user="who", item="what")
    assert entries(interactions) == {("a", 10): 1, ("b", 10): 1, ("b", 30): 2, ("c", 20): 1}


def test_ids_do_not_depend_on_the_order_of_the_rows():
    one = Interactions.from_pandas(TABLE, "who", "what", "n")
    other = Interactions.from_pandas(TABLE[::-1], "who", "what", "n")
    assert one.users.equals(other.users)
    assert one.items.equals(other.items)
    np.testing.assert_array_equal(one.matrix.toarray(), other.matrix.toarray())


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([3, 1, 3], [1, 3]),
        (np.array([2**40, -1, 2**40]), [-1, 2**40]),
        (np.array([1.5, 0.5, 1.5]), [0.5, 1.5]),
        (["b", "", "b"], ["", "b"]),
        (pd.array(["ß", "z", "ß"], dtype="string"), ["z", "ß"]),
        (pd.Categorical(["x", "w", "x"], categories=["x", "unused", "w"]), ["w", "x"]),
        (pd.Categorical([9, 8, 9], categories=[9, 8, 7], ordered=True), [8, 9]),
        (pd.to_datetime(["2021", "2020", "2021"]), [pd.Timestamp("2020"), pd.Timestamp("2021")]),
        (pd.array([5, 4, 5], dtype="Int64"), [4, 5]),
        ([("b", 1), ("a", 2), ("b", 1)], [("a", 2), ("b", 1)]),
        (pd.Series([2, 1, 2], index=[7, 7, 7]), [1, 2]),
    ],
)
def test_kinds_of_labels(labels, expected):
    interactions = Interactions.from_arrays(labels, labels, [1, 2, 4])
    assert list(interactions.users) == list(interactions.items) == expected
    np.testing.assert_array_equal(interactions.matrix.toarray(), [[2, 0], [0, 5]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [([1, "1"], "items: .*bring the labels to one type"), ([[1], [2]], "items: .*labels must be hashable")],
)
def test_labels_that_do_not_sort_or_hash_are_refused(labels, message):
    with pytest.raises(TypeError, match=message):
        Interactions.from_arrays([1, 2], labels)


FAULTY = pd.DataFrame(
    {
        "who": ["a", None, "b", "b", "d", "e", "f", "g"],
        "what": ["x", "x", np.nan, "y", "y", "y", "y", "x"],
        "n": [1, 2, 3, np.nan, np.inf, 1e300, 0, -1],
    }
)


def test_bad_rows_can_be_dropped_and_are_reported():
    interactions = Interactions.from_pandas(FAULTY, "who", "what", "n", errors="report")
    assert entries(interactions) == {("a", "x"): 1, ("g", "x"): -1}
    assert list(interactions.users) == ["a", "g"]
    assert list(interactions.items) == ["x"]
    assert list(interactions.report.rejected.itertuples(index=False, name=None)) == [
        (1, "who: missing label"),
        (2, "what: missing label"),
        (3, "n: not a finite float32 number"),
        (4, "n: not a finite float32 number"),
        (5, "n: not a finite float32 number"),
        (6, "n: zero, not observed"),
    ]
    assert_accounted_for(interactions, 8)
    text = str(interactions.report)
    assert "8 read, 2 kept, 0 merged, 6 rejected" in text
    assert "3 × n: not a finite float32 number: 3, 4, 5" in text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 1], "who: missing label in 1 of 2 rows, at positions 1;"),
        ([2, 0], "what: missing label in 1 of 2 rows, at positions 0;"),
        ([0, 3, 4], "n: not a finite float32 number in 2 of 3 rows, at positions 1, 2;"),
    ],
)
def test_bad_rows_are_refused_by_default(rows, message):
    with pytest.raises(ValueError, match=message + ".*errors='report'"):
        Interactions.from_pandas(FAULTY.iloc[rows], "who", "what", "n")


@pytest.mark.parametrize(
    "values",
    [
        ["1", "x", "3"],
        np.array([1, 1j, 3]),
        [1, None, 3],
        [1, "2", 3],
        pd.array([1, None, 3], dtype="Int64"),
        pd.Categorical(["x", "y", "z"]),
        pd.to_datetime(["2020", "2021", "2022"]),
        [1, 1e-50, 3],
        [1, 1e39, 3],
    ],
)
def test_values_that_are_not_numbers_are_refused(values):
    with pytest.raises(ValueError, match="values: not a finite float32 number"):
        Interactions.from_arrays([1, 2, 3], [1, 2, 3], values)


@pytest.mark.parametrize(
    "values",
    [
        [True, False, True],
        np.uint8([1, 0, 1]),
        pd.array([1, 0, 1], "Int64"),
        [Decimal(1), Decimal(0), Decimal(1)],
        np.array([1, -0.0, True], object),
    ],
)
def test_kinds_of_values_and_zeros(values):
    interactions = Interactions.from_arrays([1, 2, 3], [1, 2, 3], values)
    assert entries(interactions) == {(1, 1): 1, (3, 3): 1}
    assert interactions.report.rejected["number"].tolist() == [1]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"item='artist' is not a column; the table has \['who', "):
        Interactions.from_pandas(TABLE, "who", "artist")
    with pytest.raises(ValueError, match="duplicates must be"):
        Interactions.from_pandas(TABLE, "who", "what", duplicates="mean")
    with pytest.raises(ValueError, match="errors must be"):
        Interactions.from_pandas(TABLE, "who", "what", errors="ignore")
    with pytest.raises(ValueError, match="users, items, values and timestamps must have equal lengths, not 2, 1, 2"):
        Interactions.from_arrays([1, 2], [1])
    with pytest.raises(ValueError, match="must have equal lengths, not 2, 2, 2 and 3"):
        Interactions.from_arrays([1, 2], [1, 2], timestamps=[1, 2, 3])


def test_an_empty_table():
    interactions = Interactions.from_arrays([], [], [])
    assert interactions.shape == (0, 0)
    assert_accounted_for(interactions, 0)


def test_to_pandas_round_trip():
    table = Interactions.from_pandas(TABLE, "who", "what", "n").to_pandas("who", "what", "n")
    assert list(table.itertuples(index=False, name=None)) == [("a", 10, 1), ("b", 10, 9), ("b", 30, 7), ("c", 20, 7)]
    again = Interactions.from_pandas(table, "who", "what", "n").to_pandas("who", "what", "n")
    pd.testing.assert_frame_equal(again, table)


def test_real_play_counts_of_hetrec(shared_data):
    path = shared_data / "hetrec2011-lastfm-2k" / "user_artists.dat.gz"
    with gzip.open(path, "rt", newline="") as file:
        expected = {
            (int(user), int(artist)): int(plays) for user, artist, plays in list(csv.reader(file, "excel-tab"))[1:]
        }
    interactions = Interactions.from_pandas(pd.read_csv(path, sep="\t"), "userID", "artistID", "weight")
    assert interactions.shape == (1892, 17632)
    assert entries(interactions) == expected


def test_rows_equal_dense_rows():
    dense = np.random.default_rng(0).integers(-1, 3, (9, 6)).astype(float)
    dense[4] = 0
    interactions = Interactions(sparse.csr_array(dense))
    for codes in ([3], [8, 4, 0, 8], [], [4]):
        rows = interactions.rows(codes)
        np.testing.assert_array_equal(rows.toarray(), dense[codes])
        assert (rows.indptr.dtype, rows.indices.dtype, rows.data.dtype) == (np.int64, np.int32, np.float32)
        assert rows.has_canonical_format
    for wrong in (-1, 9):
        with pytest.raises(ValueError, match=rf"codes: row index {wrong} at position 1 is outside of \[0, 9\)"):
            interactions.rows([0, wrong])
    with pytest.raises(TypeError, match="codes has row indices of dtype float64; convert them to integers"):
        interactions.rows([0.5])


LETTERS = Interactions(sparse.csr_array(np.arange(20).reshape(5, 4) % 3), list("abcde"), [10, 11, 12, 13])


@pytest.mark.parametrize(
    "codes",
    [
        [3, 0],
        np.array([4], np.uint8),
        slice(1, None, 2),
        slice(0, 0),
        [],
        2,
        -1,
        np.array([True, False, True, True, False]),
        [False] * 5,
        pd.Series([1, 2]),
    ],
)
def test_users_can_be_taken_by_id(assert_canonical, codes):
    part = LETTERS[codes]
    expected = np.atleast_1d(np.arange(5)[codes])
    assert isinstance(part, Interactions)
    assert_canonical(part.matrix)
    np.testing.assert_array_equal(part.matrix.toarray(), LETTERS.matrix.toarray()[expected])
    assert part.users.tolist() == ["abcde"[user] for user in expected]
    assert part.items.equals(LETTERS.items)
    assert len(part) == part.n_users == len(expected)
    assert part.report is None


@pytest.mark.parametrize("codes", [5, [0, -6], [True, False], "a", [0.5], np.array([0.0]), (0, 1), [[0, 1]], None])
def test_ids_out_of_range_are_refused(codes):
    with pytest.raises(IndexError):
        LETTERS[codes]


def test_part_keeps_some_entries_and_users():
    users = np.array([True, False, True, False, True])
    kept = (STAMPED.matrix.data == 2) & users[np.repeat(np.arange(5), np.diff(STAMPED.matrix.indptr))]
    part = STAMPED._part(kept, users)
    assert entries(part) == {pair: 2 for pair, value in entries(STAMPED).items() if value == 2 and pair[0] in "ace"}
    assert times(part) == {pair: time for pair, time in times(STAMPED).items() if pair in entries(part)}
    assert (part.users.tolist(), part.items.tolist()) == (["a", "c", "e"], [10, 11, 12, 13])
    assert part.report is None


def test_a_repeated_id_is_refused():
    with pytest.raises(ValueError, match=r"codes: user 'b' comes again at position 3; .* rows\(codes\)"):
        LETTERS[[1, 4, 0, 1, 4]]


def test_interactions_are_neither_iterated_over_nor_made_dense():
    with pytest.raises(TypeError, match="'Interactions' object is not iterable"):
        list(LETTERS)
    for call in (np.asarray, np.array, np.sum, lambda x: np.asarray(x, np.float32), lambda x: x + np.ones(4)):
        with pytest.raises(TypeError, match=r"take interactions\.matrix, a scipy.*or a table by .*to_pandas"):
            call(LETTERS)


def test_interactions_without_users_are_false():
    assert LETTERS
    assert not LETTERS[[]]
    assert Interactions(sparse.csr_array((2, 3)))


def test_scikit_learn_splits_users():
    model_selection, utils = pytest.importorskip("sklearn.model_selection"), pytest.importorskip("sklearn.utils")
    tested = []
    for train, test in model_selection.KFold(3).split(LETTERS):
        parts = [utils._safe_indexing(LETTERS, codes) for codes in (train, test)]
        tested += parts[1].users.tolist()
        assert sorted(parts[0].users.append(parts[1].users)) == list("abcde")
        assert entries(parts[0]) | entries(parts[1]) == entries(LETTERS)
    assert tested == list("abcde")


def table(rows):
    return pd.DataFrame(rows, columns=["user", "item", "value"]).astype({"value": np.float32})


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([-2, 0.5, 1, 2])), max_size=25)


@given(ROWS, ROWS)
@settings(max_examples=60, deadline=None)
def test_add_against_pandas(assert_canonical, first, second):
    one, other = (Interactions.from_pandas(table(rows), "user", "item", "value") for rows in (first, second))
    both = one.add(other)
    expected = pd.concat([one.to_pandas(), other.to_pandas()]).groupby(["user", "item"])["value"].sum()
    assert entries(both) == expected[expected != 0].to_dict()
    assert_canonical(both.matrix)
    for kind in ("users", "items"):
        known, others, labels = (getattr(part, kind).tolist() for part in (one, other, both))
        assert labels == known + [label for label in others if label not in known]
    assert both.report is None


def test_add_leaves_both_parts_alone():
    one, other = LETTERS[[0, 1, 2]], LETTERS[[4, 1]]
    before = [(entries(part), part.users.tolist()) for part in (one, other)]
    both = one.add(other)
    assert both.users.tolist() == ["a", "b", "c", "e"]
    np.testing.assert_array_equal(both.matrix.toarray(), LETTERS.matrix.toarray()[[0, 1, 2, 4]] * [[1], [2], [1], [1]])
    assert [(entries(part), part.users.tolist()) for part in (one, other)] == before
    everything = LETTERS.add(LETTERS[[]]), LETTERS[[]].add(LETTERS)
    assert all(entries(part) == entries(LETTERS) and part.users.equals(LETTERS.users) for part in everything)


@pytest.mark.parametrize(
    ("known", "others", "expected"),
    [
        (["b", "a"], ["c", "b"], ["b", "a", "c"]),
        (pd.Index(["b", "a"], dtype=object), pd.Index(["c", "b"], dtype="string"), ["b", "a", "c"]),
        (np.array([5, 3], np.int8), [300, 5], [5, 3, 300]),
        (pd.array([5, 3], "Int64"), [4, 5], [5, 3, 4]),
        (None, None, [0, 1]),
        (None, [1, 2], [0, 1, 2]),
        ([1.5, 2.5], [2.5, 0.5], [1.5, 2.5, 0.5]),
        ([("a", 1), ("b", 2)], [("b", 2), ("a", 2)], [("a", 1), ("b", 2), ("a", 2)]),
        (["b", "a"], pd.CategoricalIndex(["c", "b"]), ["b", "a", "c"]),
        (
            pd.date_range("2024", periods=2).as_unit("s"),
            pd.date_range("2024-01-02", periods=2),
            list(pd.date_range("2024", periods=3)),
        ),
        (
            pd.date_range("2024", periods=2, tz="Asia/Tokyo"),
            pd.date_range("2024-01-02", periods=2, tz="Asia/Tokyo"),
            list(pd.date_range("2024", periods=3, tz="Asia/Tokyo")),
        ),
    ],
)
def test_add_joins_labels_of_one_type(known, others, expected):
    one, other = (Interactions(sparse.csr_array(np.eye(2)), items=labels) for labels in (known, others))
    both = one.add(other)
    assert both.items.tolist() == expected
    assert both.matrix.sum() == 4


def test_add_keeps_categories():
    ordered = pd.CategoricalIndex(["m", "s"], categories=["xs", "s", "m"], ordered=True)
    one = Interactions(sparse.csr_array(np.eye(2)), ordered)
    for others in (["l", "s"], pd.CategoricalIndex(["l", "s"], categories=["s", "l", "xl"])):
        both = one.add(Interactions(sparse.csr_array(np.eye(2)), others))
        expected = pd.CategoricalIndex(["m", "s", "l"], categories=["xs", "s", "m", "l"], ordered=True)
        pd.testing.assert_index_equal(both.users, expected)
        assert entries(both) == {("m", 0): 1, ("s", 1): 2, ("l", 0): 1}


@pytest.mark.parametrize(
    ("known", "others"),
    [
        (["a", "b"], [1, 2]),
        ([1, 2], ["a", "1"]),
        ([1, 2], [1.0, 2.5]),
        ([1, 2], [1.0, 2.0]),
        ([True, False], [1, 2]),
        (np.array([1, 2]), np.array([1, 2**63], np.uint64)),
        (pd.CategoricalIndex(["a", "b"]), pd.CategoricalIndex([1, 2])),
        (pd.date_range("2024", periods=2), pd.date_range("2024", periods=2, tz="UTC")),
        (pd.date_range("2024", periods=2), ["2024-01-01", "2024-01-02"]),
    ],
)
def test_add_refuses_labels_of_another_type(known, others):
    one, other = (Interactions(sparse.csr_array(np.eye(2)), items=labels) for labels in (known, others))
    with pytest.raises(TypeError, match=r"items: labels of type .* cannot be added to those of type .*; bring them"):
        one.add(other)


def test_add_refuses_other_things():
    with pytest.raises(TypeError, match=r"other must be alscore.Interactions, not DataFrame"):
        LETTERS.add(LETTERS.to_pandas())
    huge = Interactions(sparse.csr_array(np.diag([1, 3e38])))
    with pytest.raises(ValueError, match=r"the sum of both holds inf at row 1"):
        huge.add(huge)


# ---- timestamps

STAMPED = Interactions(LETTERS.matrix, LETTERS.users, LETTERS.items, timestamps=np.arange(LETTERS.nnz) * 10 - 30)


def times(interactions):
    """Return the times by (user, item), read directly from the arrays."""
    matrix = interactions.matrix
    assert interactions.timestamps.dtype == np.int64
    assert interactions.timestamps.shape == matrix.data.shape
    return {
        (user, interactions.items[matrix.indices[at]]): interactions.timestamps[at]
        for row, user in enumerate(interactions.users)
        for at in range(matrix.indptr[row], matrix.indptr[row + 1])
    }


def test_timestamps_follow_the_entries():
    matrix = sparse.csr_array(np.array([[0, 5, 6], [7, 0, 0]]))
    interactions = Interactions(matrix, ["a", "b"], timestamps=np.uint32([3, 1, 2]))
    assert times(interactions) == {("a", 1): 3, ("a", 2): 1, ("b", 0): 2}
    assert Interactions(matrix).timestamps is None


UNSORTED = sparse.csr_array((np.ones(2), np.array([1, 0]), np.array([0, 2])), shape=(1, 2))


@pytest.mark.parametrize(
    ("matrix", "timestamps", "error", "message"),
    [
        (np.eye(2), [1], ValueError, r"timestamps has shape \(1,\); give one for each of the 2 entries"),
        (np.eye(2), [[1, 2]], ValueError, r"timestamps has shape \(1, 2\)"),
        (np.eye(2), [1.0, 2.0], TypeError, "timestamps are float64; convert them to whole seconds"),
        (np.eye(2), np.array([1, 2], "datetime64[s]"), TypeError, r"timestamps are datetime64\[s\]; convert them"),
        (UNSORTED, [1, 2], ValueError, "matrix must be in canonical form, since timestamps follow the order"),
        (sparse.coo_array(np.eye(2)), [1, 2], ValueError, "matrix must be in canonical form"),
        (sparse.csr_array(([1, 0, 2], [0, 1, 1], [0, 2, 3])), [1, 2], ValueError, "matrix must be in canonical form"),
        (sparse.csr_array(([1, 3, 2], [0, 0, 1], [0, 2, 3])), [1, 2], ValueError, "matrix must be in canonical form"),
    ],
)
def test_timestamps_of_other_entries_are_refused(matrix, timestamps, error, message):
    with pytest.raises(error, match=message):
        Interactions(matrix if sparse.issparse(matrix) else sparse.csr_array(matrix), timestamps=timestamps)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(-2, 2), st.integers(-3, 3)), min_size=1, max_size=30
    ),
    st.sampled_from(["sum", "max", "last"]),
)
@settings(max_examples=100, deadline=None)
def test_timestamps_against_pandas(rows, duplicates):
    df = pd.DataFrame(rows, columns=["u", "i", "v", "t"], dtype=np.int64)
    interactions = Interactions.from_pandas(df, "u", "i", "v", "t", duplicates=duplicates)
    counted = df[df["v"] != 0] if duplicates == "sum" else df  # value 0 means "not observed"
    pairs = counted.sort_values("t", kind="stable").groupby(["u", "i"])
    expected = pairs["v"].agg(duplicates)
    assert entries(interactions) == expected[expected != 0].to_dict()
    assert times(interactions) == pairs["t"].max()[expected != 0].to_dict()
    assert_accounted_for(interactions, len(df))


def test_last_takes_the_latest_and_then_the_row_furthest_down():
    table = pd.DataFrame({"u": 1, "i": [1, 1, 1, 2, 2], "v": [1, 2, 3, 4, 5], "t": [5, 9, 9, 8, 7]})
    interactions = Interactions.from_pandas(table, "u", "i", "v", "t", duplicates="last")
    assert entries(interactions) == {(1, 1): 3, (1, 2): 4}
    assert times(interactions) == {(1, 1): 9, (1, 2): 8}
    without = Interactions.from_pandas(table, "u", "i", "v", duplicates="last")
    assert entries(without) == {(1, 1): 3, (1, 2): 5}
    with pytest.raises(ValueError, match=r"3 rows have .* comes again below, at positions 0, 1, 3"):
        Interactions.from_pandas(table, "u", "i", "v", "t", duplicates="error")


@pytest.mark.parametrize("unit", ["D", "h", "m", "s", "ms", "us", "ns", "ps"])
def test_datetimes_of_any_unit(unit):
    days = np.array(["1969-12-31", "1970-01-01", "1970-01-02"], f"datetime64[{unit}]")
    interactions = Interactions.from_arrays([1, 2, 3], [1, 1, 1], timestamps=days)
    assert interactions.timestamps.tolist() == [-86400, 0, 86400]


@pytest.mark.parametrize(
    ("timestamps", "expected"),
    [
        ([3, -2], [3, -2]),
        (np.array([3, 2**40]), [3, 2**40]),
        (np.uint8([3, 2]), [3, 2]),
        (pd.array([3, 2**62 + 1], "Int64"), [3, 2**62 + 1]),
        (pd.Series([3.0, -1e12]), [3, -(10**12)]),
        (pd.date_range("1970", periods=2, tz="UTC"), [0, 86400]),
        (pd.date_range("1970", periods=2, tz="Asia/Tokyo"), [-9 * 3600, 15 * 3600]),
        (pd.Series(pd.date_range("1970", periods=2, tz="Asia/Tokyo")).astype("timestamp[us, tz=Asia/Tokyo][pyarrow]"),
         [-9 * 3600, 15 * 3600]),
        (pd.Series([7, 8], dtype="int64[pyarrow]"), [7, 8]),
        ([pd.Timestamp("1970-01-01 00:00:01.9"), pd.Timestamp("1969-12-31 23:59:58.1")], [1, -2]),
        (np.array([datetime.datetime(1970, 1, 2), datetime.datetime(1970, 1, 1)], object), [86400, 0]),
        (np.array([1_999, -1], "datetime64[ms]"), [1, -1]),
    ],
)  # fmt: skip
def test_kinds_of_timestamps(timestamps, expected):
    interactions = Interactions.from_arrays([1, 2], [1, 1], timestamps=timestamps)
    assert interactions.timestamps.tolist() == expected


@pytest.mark.parametrize(
    "timestamps",
    [
        [1, None, 3],
        [1, 2.5, 3],
        [1, np.inf, 3],
        [1, 1e19, 3],
        [1, 2.0**63, 3],
        np.array([1, 2**63, 3], np.uint64),
        pd.array([1, None, 3], "Int64"),
        pd.to_datetime(["1970", None, "1970"]),
        pd.to_datetime(["1970", None, "1970"]).tz_localize("Asia/Tokyo"),
        pd.array([1, None, 3], "timestamp[s][pyarrow]"),
        np.array([1, 2**50, 3], "datetime64[D]"),
        np.array([1, -(2**61), 3], "datetime64[h]"),
    ],
)
def test_times_that_are_missing_or_out_of_range_are_bad_rows(timestamps):
    with pytest.raises(ValueError, match=r"timestamps: missing, or not whole seconds .* 1 of 3 rows, at positions 1;"):
        Interactions.from_arrays([1, 2, 3], [1, 1, 1], timestamps=timestamps)
    interactions = Interactions.from_arrays([1, 2, 3], [1, 1, 1], timestamps=timestamps, errors="report")
    assert interactions.users.tolist() == [1, 3]
    assert interactions.report.rejected["number"].tolist() == [1]
    assert_accounted_for(interactions, 3)


@pytest.mark.parametrize("timestamps", [["2009", "2010"], [True, False], [datetime.date(2009, 5, 1)] * 2, [1j, 2]])
def test_timestamps_of_another_type_are_refused(timestamps):
    with pytest.raises(TypeError, match=r"timestamps: times of type .*; convert them to .* pandas.to_datetime"):
        Interactions.from_arrays([1, 2], [1, 1], timestamps=timestamps)


def test_users_keep_their_times():
    for codes in ([3, 0], slice(None, None, -2), [], 4):
        part = STAMPED[codes]
        assert times(part) == {pair: time for pair, time in times(STAMPED).items() if pair[0] in part.users}
        assert entries(part) == {pair: value for pair, value in entries(LETTERS).items() if pair[0] in part.users}
    parts = [STAMPED[:2], STAMPED[2:]]
    assert times(parts[0]) | times(parts[1]) == times(STAMPED)


def test_input_timestamps_are_not_modified():
    timestamps = np.array([5, 9, 7])
    interactions = Interactions.from_arrays([1, 1, 1], [1, 1, 2], [2, 1, 3], timestamps, duplicates="max")
    assert times(interactions) == {(1, 1): 9, (1, 2): 7}
    assert timestamps.tolist() == [5, 9, 7]


STAMPED_ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([-2, 0.5, 1, 2]), st.integers(-9, 9)), max_size=25
)


@given(STAMPED_ROWS, STAMPED_ROWS)
@settings(max_examples=60, deadline=None)
def test_add_with_timestamps_against_pandas(assert_canonical, first, second):
    names = ["user", "item", "value", "timestamp"]
    one, other = (
        Interactions.from_pandas(pd.DataFrame(rows, columns=names).astype(float), *names) for rows in (first, second)
    )
    both = one.add(other)
    pairs = pd.concat([one.to_pandas(), other.to_pandas()]).groupby(["user", "item"])
    expected = pairs["value"].sum()
    assert entries(both) == expected[expected != 0].to_dict()
    assert times(both) == pairs["timestamp"].max()[expected != 0].to_dict()
    assert_canonical(both.matrix)
    without = one.add(Interactions(other.matrix, other.users, other.items))
    assert without.timestamps is None
    assert entries(without) == entries(both)
    assert without.users.equals(both.users)
    assert without.items.equals(both.items)


def test_to_pandas_with_timestamps_round_trip():
    table = STAMPED.to_pandas("who", "what", "n", "when")
    assert list(table.columns) == ["who", "what", "n", "when"]
    again = Interactions.from_pandas(table, "who", "what", "n", "when")
    assert times(again) == times(STAMPED)
    assert entries(again) == entries(STAMPED)


def test_partial_fit_takes_a_table_with_times():
    model = AlternatingLeastSquares(factors=2, iterations=1, num_threads=1, random_state=0)
    recommender = Recommender(model).fit(STAMPED, show_progress=False)
    new = pd.DataFrame({"user": ["a", "z"], "item": [10, 11], "value": [1, 2], "timestamp": [500, 600]})
    recommender.partial_fit(new, show_progress=False)
    assert times(recommender.interactions) == times(STAMPED) | {("a", 10): 500, ("z", 11): 600}


def test_positions_beyond_32_bits():
    """The arrays of this matrix repeat one number in memory."""
    nnz = 2**31 + 7
    data, indices, timestamps = (
        np.broadcast_to(np.array(n, dtype), nnz) for n, dtype in ((2, "f4"), (3, "i4"), (4, "i8"))
    )
    matrix = from_canonical(data, indices, np.array([0, nnz - 1, nnz]), (2, 5))
    huge = copy_with(Interactions(sparse.csr_array((2, 5))), matrix=matrix, timestamps=timestamps)
    assert huge.nnz == nnz
    assert entries(huge[[1]]) == {(1, 3): 2}
    assert times(huge[[1]]) == {(1, 3): 4}
    assert row_of_entry(matrix.indptr, [2**31 - 1, nnz - 2, nnz - 1]).tolist() == [0, 0, 1]


# ---- methods that call other modules


def test_methods_of_statistics():
    assert entries(STAMPED.filter(min_user=2, min_item=3)) == entries(statistics.filter(STAMPED, 2, 3))
    assert entries(STAMPED.filter(k_core=2)) == entries(statistics.filter(STAMPED, k_core=2))
    pd.testing.assert_frame_equal(STAMPED.summary(top=2), statistics.summary(STAMPED, top=2))
    pytest.importorskip("matplotlib")
    line, expected = (figure.axes[0].lines[0] for figure in (STAMPED.plot(), statistics.plot(STAMPED)))
    np.testing.assert_array_equal(line.get_xydata(), expected.get_xydata())
