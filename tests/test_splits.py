"""Splits against slow splits in plain Python. Parts are disjoint, complete, of the right size and reproducible."""

import datetime
import hashlib
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from alscore import Interactions, splits
from alscore._data.canonical import canonical_csr
from alscore.splits import hide_share, leave_k_out, leave_last_k_out, random_split, time_split, user_split

QUICK = settings(max_examples=150, deadline=None)
# With likes, dislikes, empty rows and empty columns. One user always has two likes.
matrices = hnp.arrays(np.int8, st.tuples(st.integers(2, 8), st.integers(2, 7)), elements=st.integers(-2, 3)).map(
    lambda r: np.where(np.arange(r.size).reshape(r.shape) < 2, 1, r)
)
seeds = st.integers(0, 2**70)
# Text, because the float 0.29 is not 29 / 100.
amounts = st.sampled_from(["1", "2", "3", "0.2", "0.29", "0.5", "0.57", "0.7", "0.99"])


def number(amount):
    return float(amount) if "." in amount else int(amount)


def held_out(amount, available):
    """The number held out of `available`: 0 if the share is less than one, or if that would be all."""
    n = Fraction(amount) if Fraction(amount) >= 1 else int(Fraction(amount) * available)
    return int(n) if n < available else 0


def raw_bits(random_state):
    """Yield the numbers of the generator, one by one."""
    stream = np.random.PCG64(random_state)
    while True:
        yield int(stream.random_raw())


def cells(matrix):
    """Return the (user, item) of each entry, by user and then by item."""
    return list(zip(*np.nonzero(matrix.toarray() if sparse.issparse(matrix) else matrix), strict=True))


def last_of_each(whole, keys, n_test):
    """Return the (user, item) of the last `n_test` likes of each user. `keys`: one for each entry."""
    key = dict(zip(cells(whole), keys, strict=False))
    chosen = set()
    for user, n in enumerate(n_test):
        likes = [(user, item) for item in np.flatnonzero(whole[user] > 0)]
        chosen |= set(sorted(likes, key=key.get)[len(likes) - n :])
    return chosen


def assert_parts(parts, whole):
    """Assert that each entry of `whole` (dense) is in one part with its value, and that all parts are canonical."""
    for part in parts:
        assert isinstance(part, sparse.csr_array)
        assert (part.indptr.dtype, part.indices.dtype, part.dtype) == (np.int64, np.int32, np.float32)
        assert np.shares_memory(canonical_csr(part).indices, part.indices) or not part.nnz, "not canonical"
        assert part.shape == whole.shape
    np.testing.assert_array_equal(sum(part.toarray() for part in parts), whole)
    assert sum(part.nnz for part in parts) == np.count_nonzero(whole)


@given(matrices, seeds, st.data())
@QUICK
def test_random_split(whole, random_state, data):
    n_likes = np.count_nonzero(whole > 0)
    amount = data.draw(amounts.filter(lambda amount: held_out(amount, n_likes)))
    train, test = random_split(sparse.csr_array(whole), number(amount), random_state)
    assert_parts((train, test), whole)
    assert test.nnz == held_out(amount, n_likes)
    assert (test.data > 0).all()

    keys = dict(zip(cells(whole > 0), raw_bits(random_state), strict=False))
    assert set(cells(test)) == set(sorted(keys, key=keys.get)[: test.nnz])


@given(matrices, amounts, st.sampled_from(["train", "drop"]), seeds)
@QUICK
def test_leave_k_out(whole, amount, too_few, random_state):
    n_test = [held_out(amount, n) for n in (whole > 0).sum(axis=1)]
    if not any(n_test):
        with pytest.raises(ValueError, match="users have too few entries above 0 for k="):
            leave_k_out(sparse.csr_array(whole), number(amount), too_few, random_state)
        return
    train, test = leave_k_out(sparse.csr_array(whole), number(amount), too_few, random_state)
    assert set(cells(test)) == last_of_each(whole, raw_bits(random_state), n_test)
    np.testing.assert_array_equal(np.diff(test.indptr), n_test)
    if too_few == "drop":
        whole = np.where(np.array(n_test)[:, None] > 0, whole, 0)
    assert_parts((train, test), whole)


@given(matrices, amounts, st.data())
@QUICK
def test_leave_last_k_out(whole, amount, data):
    matrix = canonical_csr(sparse.csr_array(whole))
    timestamps = data.draw(hnp.arrays(np.int64, matrix.nnz, elements=st.integers(-3, 3)))
    n_test = [held_out(amount, n) for n in (whole > 0).sum(axis=1)]
    if not any(n_test):
        with pytest.raises(ValueError, match="users have too few entries above 0 for k="):
            leave_last_k_out(matrix, number(amount), timestamps=timestamps)
        return
    train, test = leave_last_k_out(matrix, number(amount), timestamps=timestamps)
    assert_parts((train, test), whole)
    assert set(cells(test)) == last_of_each(whole, zip(timestamps, range(matrix.nnz), strict=True), n_test)


@given(matrices, st.data())
@QUICK
def test_time_split(whole, data):
    matrix = canonical_csr(sparse.csr_array(whole))
    timestamps = data.draw(hnp.arrays(np.int64, matrix.nnz, elements=st.integers(-3, 3)))
    amount = data.draw(amounts.filter(lambda amount: held_out(amount, matrix.nnz)))
    at = sorted(timestamps)[-held_out(amount, matrix.nnz)]
    if at == min(timestamps):
        for arguments in ({"test": number(amount)}, {"at": at}, {"at": 4}):
            with pytest.raises(ValueError, match="one of the parts empty: timestamps run from"):
                time_split(matrix, timestamps=timestamps, **arguments)
        return
    for train, test in (
        time_split(matrix, number(amount), timestamps=timestamps),
        time_split(matrix, at=at, timestamps=timestamps),
    ):
        assert_parts((train, test), whole)
        later = np.zeros(whole.shape, bool)
        later[whole.nonzero()] = timestamps >= at
        np.testing.assert_array_equal(test.toarray(), np.where(later, whole, 0))


@given(matrices, amounts, amounts, st.sampled_from(["train", "drop"]), seeds)
@QUICK
def test_user_split(whole, amount, amount_of_users, too_few, random_state):
    n_test = np.array([held_out(amount, n) for n in (whole > 0).sum(axis=1)])
    enough = np.flatnonzero(n_test)
    n_users = held_out(amount_of_users, len(enough) if too_few == "drop" else len(whole))
    call = sparse.csr_array(whole), number(amount_of_users), number(amount), too_few, random_state
    if not 0 < n_users <= len(enough):
        with pytest.raises(ValueError, match=r"too few entries|leaves one of the parts empty|asks for \d users"):
            user_split(*call)
        return
    train, fold_in, test, train_users, test_users = user_split(*call)
    bits = raw_bits(random_state)
    keys = dict(zip(enough, [next(bits) for _ in enough], strict=True))
    assert list(test_users) == sorted(sorted(keys, key=keys.get)[:n_users])
    rest = enough if too_few == "drop" else np.arange(len(whole))
    np.testing.assert_array_equal(train_users, np.setdiff1d(rest, test_users))
    assert_parts((train,), whole[train_users])
    assert_parts((fold_in, test), whole[test_users])
    n_test[np.setdiff1d(np.arange(len(whole)), test_users)] = 0
    assert {(test_users[row], item) for row, item in cells(test)} == last_of_each(whole, bits, n_test)


# The users like five, four, one and no items.
GOLDEN = sparse.csr_array([[1, 2, 3, 4, 5, -1], [0, 6, 7, -1, 8, 9], [0, 1, -1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])


def test_golden_splits():
    """Computed from PCG64 in plain Python: the test fails on a platform or a numpy that draws differently."""
    assert cells(random_split(GOLDEN, 0.4).test) == [(0, 1), (0, 2), (0, 3), (1, 5)]
    assert cells(leave_k_out(GOLDEN, 2, random_state=1).test) == [(0, 1), (0, 3), (1, 1), (1, 5)]
    split = user_split(GOLDEN, 1, 0.5, random_state=2)
    assert (split.train_users.tolist(), split.test_users.tolist()) == ([1, 2, 3], [0])
    assert cells(split.fold_in) == [(0, 1), (0, 2), (0, 4), (0, 5)]
    assert cells(split.test) == [(0, 0), (0, 3)]


@pytest.mark.parametrize(
    ("split", "sha256"),
    [
        (lambda r: random_split(r, 0.2, 10), "e3469fe236b5e2ae"),
        (lambda r: leave_k_out(r, 2, random_state=10), "ca2e65f3c5a2157b"),
        (lambda r: user_split(r, 50, random_state=10), "7c3b6f8e956cbb09"),
    ],
)
def test_digests_of_larger_splits(split, sha256):
    """Digests of the (user, item) of all held-out entries, computed from PCG64 in plain Python too."""
    users, items = np.ogrid[:300, :40]
    entries, likes = (7 * users + 11 * items + users * items) % 5 < 2, (3 * users + items) % 4 > 0
    parts = split(sparse.csr_array(np.where(entries, np.where(likes, 1, -1), 0)))
    rows = getattr(parts, "test_users", np.arange(300))
    cells_of_test = np.array([(rows[row], item) for row, item in cells(parts.test)], "<i4")
    assert hashlib.sha256(cells_of_test.tobytes()).hexdigest()[:16] == sha256


def test_users_with_too_few_are_trained_on_or_dropped():
    train, fold_in, test, train_users, test_users = user_split(GOLDEN, 1, 4, random_state=2)
    assert (train_users.tolist(), test_users.tolist()) == ([1, 2, 3], [0])
    assert (fold_in.nnz, test.nnz, train.nnz) == (2, 4, 7)
    train, fold_in, test, train_users, test_users = user_split(GOLDEN, 1, 3, "drop", random_state=2)
    assert (train_users.tolist(), test_users.tolist()) == ([1], [0])
    assert (fold_in.nnz, test.nnz, train.nnz) == (3, 3, 5)
    train, test = leave_k_out(GOLDEN, 3)
    assert (np.diff(train.indptr).tolist(), np.diff(test.indptr).tolist()) == ([3, 2, 2, 0], [3, 3, 0, 0])
    train, test = leave_k_out(GOLDEN, 3, "drop")
    assert (np.diff(train.indptr).tolist(), np.diff(test.indptr).tolist()) == ([3, 2, 0, 0], [3, 3, 0, 0])


@pytest.mark.parametrize("percent", range(1, 100))
@pytest.mark.parametrize("split", [random_split, leave_k_out, hide_share])
def test_shares_are_decimal(split, percent):
    """The float 0.29 * 100 is 28.999999999999996."""
    assert split(sparse.csr_array(np.ones((1, 100))), percent / 100).test.nnz == percent


def drawn(user_items, random_state=3):
    """Return the bytes of the parts of all random splits."""
    parts = (
        *random_split(user_items, 0.3, random_state),
        *leave_k_out(user_items, 2, random_state=random_state),
        *user_split(user_items, 0.3, random_state=random_state)[:3],
    )
    return [b"".join(array.tobytes() for array in (part.data, part.indices, part.indptr)) for part in parts]


def test_the_order_of_entries_and_the_format_do_not_matter(plays):
    rng = np.random.default_rng(5)
    users, items = plays.nonzero()
    order = rng.permutation(plays.nnz)
    shuffled = sparse.coo_array((plays.data[order], (users[order], items[order])), shape=plays.shape)
    for other in (shuffled, sparse.csc_array(plays), plays.astype(np.int64)):
        assert drawn(other) == drawn(plays)
    assert not set(drawn(plays)) & set(drawn(plays, random_state=4))


def test_the_values_do_not_matter(plays):
    other = plays.copy()
    other.data[:] = 1
    for a, b in zip(leave_k_out(plays), leave_k_out(other), strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)


def test_all_likes_are_drawn_equally_often():
    """Each of 5 items should be drawn for 8,000 of 20,000 users; 5 standard deviations are 346."""
    matrix = sparse.csr_array(np.ones((20_000, 5), np.int8))
    by_item = np.bincount(leave_k_out(matrix, 2).test.indices)
    np.testing.assert_allclose(by_item, 8_000, atol=346)
    _, _, test, _, test_users = user_split(matrix, 0.4, 2)
    np.testing.assert_allclose(np.bincount(test.indices), 3_200, atol=220)
    by_block = [np.count_nonzero(test_users // 4_000 == block) for block in range(5)]
    np.testing.assert_allclose(by_block, 1_600, atol=155)
    matrix = sparse.csr_array(np.ones((5, 20_000), np.int8))
    np.testing.assert_allclose(np.diff(random_split(matrix, 0.4).test.indptr), 8_000, atol=346)


def test_equal_keys_do_not_change_the_size():
    class Constant:
        def random_raw(self, size):
            return np.zeros(size, np.uint64)

    assert splits._draw(Constant(), 12, 5).tolist() == [0, 1, 2, 3, 4]
    matrix = canonical_csr(sparse.csr_array(np.ones((3, 4), np.int8)))
    held_out = splits._last(matrix, splits._random_keys(matrix, Constant()), np.array([2, 2, 2]))
    assert held_out.tolist() == [False, False, True, True] * 3


def test_last_k_equals_pandas():
    rng = np.random.default_rng(2)
    matrix = canonical_csr(sparse.csr_array(rng.random((200, 100)) * (rng.random((200, 100)) < 0.2)))
    table = Interactions(matrix).to_pandas().assign(time=rng.integers(0, 50, matrix.nnz))
    test = leave_last_k_out(matrix, 3, timestamps=table["time"].to_numpy()).test
    expected = table.sort_values(["user", "time", "item"]).groupby("user").tail(3).sort_values(["user", "item"])
    pd.testing.assert_frame_equal(Interactions(test).to_pandas(), expected.drop(columns="time").reset_index(drop=True))


def test_interactions_keep_ids_labels_and_timestamps():
    users, items = zip(*((user, item) for user in ("ann", "bob", "cid") for item in "vwxyz"), strict=True)
    plays = Interactions.from_arrays(users, items, range(1, 16))
    plays.timestamps = np.arange(1000, 1015)
    for train, test in (
        random_split(plays),
        leave_k_out(plays),
        leave_last_k_out(plays),
        time_split(plays),
        random_split(random_split(plays).train),
    ):
        for part in (train, test):
            assert isinstance(part, Interactions)
            assert (list(part.users), list(part.items)) == (list(plays.users), list(plays.items))
            np.testing.assert_array_equal(part.timestamps, part.matrix.data + 999)
            assert part.report is None
    assert time_split(plays).test.matrix.data.tolist() == [13, 14, 15]
    assert leave_last_k_out(plays).test.matrix.data.tolist() == [5, 10, 15]
    assert (plays.nnz, len(plays.timestamps), plays.report.kept) == (15, 15, 15)

    train, fold_in, test, train_users, test_users = user_split(plays, test=1)
    for part, ids in ((train, train_users), (fold_in, test_users), (test, test_users)):
        assert (list(part.users), list(part.items)) == (list(plays.users[ids]), list(plays.items))
        np.testing.assert_array_equal(part.timestamps, part.matrix.data + 999)
    assert (train.nnz, fold_in.nnz, test.nnz) == (10, 4, 1)


def test_float64_stays():
    matrix = sparse.csr_array(np.full((2, 2), 1 / 3))
    for part in (*random_split(matrix, 1), *user_split(matrix, 1, 1)[:3]):
        assert part.dtype == np.float64
        assert (part.data == 1 / 3).all()


@pytest.mark.parametrize(
    "at",
    [
        1241136000,
        np.int32(1241136000),
        "2009-05-01",
        "2009-05-01T00:00",
        "2009-05",
        "2009-05-01T00:00:00Z",
        "2009-04-30 22:00-02:00",
        datetime.datetime(2009, 5, 1, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=3))),
        pd.Timestamp("2009-04-30 20:00", tz="US/Eastern"),
        datetime.datetime(2009, 5, 1),
        datetime.date(2009, 5, 1),
        pd.Timestamp("2009-05-01"),
    ],
)
def test_instants(at):
    matrix = sparse.csr_array(np.array([[1, 2, 3]]))
    train, test = time_split(matrix, at=at, timestamps=[1241136001, 1241135999, 1241136000])
    assert (train.toarray().tolist(), test.toarray().tolist()) == ([[0, 2, 0]], [[1, 0, 3]])


MATRIX = sparse.csr_array(np.array([[1, 0, 0, -1], [1, 1, 1, 1], [0, 0, 0, 0]]))
AMOUNT = "must be an integer of at least 1, or a share above 0 and below 1, not"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_split(MATRIX, 5), "test=5 of 5 entries above 0 .* choose a number from 1 to 4, or a share"),
        (lambda: random_split(MATRIX, 0.1), "test=0.1 of 5 entries above 0 leaves one of the parts empty"),
        (lambda: random_split(-MATRIX, 1), "test=1 of 1 entries above 0 leaves .* empty; at least 2 are needed"),
        (lambda: random_split(sparse.csr_array((3, 4))), "test=0.2 of 0 entries"),
        *((lambda test=test: random_split(MATRIX, test), f"test {AMOUNT}") for test in (0, 1.0, -1, 1.5, "1", True)),
        (lambda: random_split(MATRIX, np.nan), f"test {AMOUNT} nan"),
        *((lambda state=state: random_split(MATRIX, 1, state), "random_state must be an") for state in (-1, 1.5, None)),
        (lambda: leave_k_out(MATRIX, 0), f"k {AMOUNT} 0"),
        (lambda: leave_k_out(MATRIX, too_few="keep"), "too_few must be 'train', 'drop' or 'error', not 'keep'"),
        (lambda: leave_k_out(MATRIX, 1, "error"), "2 of 3 users have too few entries above 0 for k=1, at rows 0, 2"),
        (lambda: leave_k_out(MATRIX, 4), "3 of 3 users have too few entries above 0 for k=4, at rows 0, 1, 2"),
        (lambda: leave_k_out(sparse.csr_array((0, 4))), "user_items has no users to split"),
        (lambda: leave_last_k_out(MATRIX), "user_items has no timestamps; give timestamps="),
        (lambda: leave_last_k_out(MATRIX, timestamps=[1]), "timestamps has shape"),
        (lambda: leave_last_k_out(MATRIX, 1, "error", range(6)), "2 of 3 users"),
        (lambda: leave_last_k_out(MATRIX, timestamps=[0, 0, 0, 0, 0, 2**62]), "timestamps span 4611686018427387904 s"),
        (lambda: leave_last_k_out(MATRIX.tocsc(), timestamps=range(6)), "user_items must be in canonical form"),
        (lambda: time_split(MATRIX), "user_items has no timestamps; give timestamps="),
        (lambda: time_split(MATRIX, 6, timestamps=range(6)), "test=6 of 6 entries leaves one of the parts empty"),
        (lambda: time_split(MATRIX, at=6, timestamps=range(6)), "at=6 leaves .* run from 0 to 5; choose a time"),
        (lambda: time_split(MATRIX, at="May", timestamps=range(6)), "at must be whole seconds since 1970"),
        (lambda: user_split(MATRIX, 0, 1), f"test {AMOUNT} 0"),
        (lambda: user_split(MATRIX, 1, 1.0), f"k {AMOUNT} 1.0"),
        (lambda: user_split(MATRIX, 2, 1), "test=2 asks for 2 users, but only 1 users have enough .* for k=1; lower"),
        (lambda: user_split(MATRIX, 3, 1), "test=3 of 3 users leaves one of the parts empty"),
        (lambda: user_split(MATRIX, 1, 1, "drop"), "test=1 of 1 users leaves one of the parts empty"),
        (lambda: user_split(MATRIX, 1, 1, "error"), "2 of 3 users have too few"),
        (lambda: random_split(MATRIX * np.inf), "user_items holds"),
        *(
            (lambda share=share: hide_share(MATRIX, share), "share must be above 0 and below 1, not")
            for share in (0, 1, 5, -1, np.nan)
        ),
    ],
)
def test_bad_values_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("call", [random_split, leave_k_out, leave_last_k_out, time_split, user_split])
def test_dense_arrays_are_refused(call):
    with pytest.raises(TypeError, match="user_items must be a scipy sparse matrix, not ndarray"):
        call(np.eye(3))
