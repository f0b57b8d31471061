"""Splits of a matrix or an Interactions into training, fold-in and held-out parts.

Every function takes `user_items`: a scipy sparse matrix (n_users, n_items) in any format, or an Interactions. The parts
have the same form. Parts of a matrix are canonical csr_arrays (see `alscore.interactions.canonical_csr`), float64 if
the matrix is float64, else float32. Parts of an Interactions are Interactions with labels and timestamps. Users and
items keep their ids, so all parts have the shape of `user_items`. The exception is `user_split`, which puts different
users into different parts. Each entry is in exactly one part, except the entries of users that are dropped.

A split depends only on the entries and on `random_state`. It does not depend on the order of the entries, the platform
or the version of numpy. A share is converted to a number and rounded down.

A like is an entry above 0, a dislike is an entry below 0. A recommender should not find dislikes. They are therefore
not drawn and not counted: they stay in the part that the model is trained on or folded in from. `time_split` alone
treats all entries alike, since nothing after the cut may be known.

For a validation part, split the training part again::

    train, test = random_split(plays, test=0.2)
    train, validation = random_split(train, test=0.1, random_state=1)
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from alscore._data.canonical import entry_rows
from alscore._data.user_items import matrix_of, part_of, seconds_of, timestamps_of
from alscore._support.arrays import Bools, Int64s, Ints
from alscore._support.checks import first_few, require, require_integer


class Split(NamedTuple):
    """Two parts with the same users and items.

    Attributes
    ----------
    train, test : sparse matrix, shape (n_users, n_items), or Interactions
        In the form of `user_items`.
    """

    train: Any
    test: Any


class UserSplit(NamedTuple):
    """Users to train on, and other users to test on. All parts have all items.

    Attributes
    ----------
    train : sparse matrix, shape (n_train_users, n_items), or Interactions
    fold_in, test : sparse matrix, shape (n_test_users, n_items), or Interactions
        Entries of the same users: the model is given those of `fold_in`, and those of `test` are held out.
    train_users, test_users : int64 array
        For each row of these parts, its row number (id) in `user_items`; ascending.
    """

    train: Any
    fold_in: Any
    test: Any
    train_users: Ints
    test_users: Ints


def random_split(user_items: Any, test: float = 0.2, random_state: int = 0) -> Split:
    """Draw held-out likes at random from all users together.

    A user with few likes may have none left to train on; `leave_k_out` leaves some to each user.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    test : float or int
        Held-out likes: a share of all likes, above 0 and below 1, or their number, at least 1.
    random_state : int
        Seed, at least 0. The same seed gives the same split.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        An argument is not as described, or one of the parts would have no like.
    """
    bits = _random_bits(random_state)
    matrix = matrix_of(user_items)
    likes = np.flatnonzero(matrix.data > 0)
    drawn = likes[_draw(bits, likes.size, _n_test(test, "test", likes.size, "entries above 0"))]
    return _split(user_items, matrix, _mask(matrix.nnz, drawn))


def leave_k_out(user_items: Any, k: float = 1, too_few: str = "train", random_state: int = 0) -> Split:
    """Draw k held-out likes of each user at random.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    k : int or float
        Held-out likes of each user: their number, at least 1, or a share, above 0 and below 1.
    too_few : {"train", "drop", "error"}
        What to do with users with too few likes: at most k, or so few that the share is less than one like. "train"
        puts all their entries into the training part, "drop" into neither part, and "error" raises a ValueError.
    random_state : int
        Seed, at least 0. The same seed gives the same split.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        An argument is not as described, all users have too few likes, or some have with ``too_few="error"``.

    Examples
    --------
    >>> from alscore import datasets, splits
    >>> train, test = splits.leave_k_out(datasets.synthetic(500, 300, seed=0), 5)
    >>> train, test
    (<Interactions: 500 users × 300 items, 21,820 entries>, <Interactions: 500 users × 300 items, 2,500 entries>)
    """
    bits = _random_bits(random_state)
    matrix = matrix_of(user_items)
    n_test = _n_test_by_user(matrix, k, too_few)
    return _split(user_items, matrix, _last(matrix, _random_keys(matrix, bits), n_test), _is_kept(n_test, too_few))


def leave_last_k_out(
    user_items: Any, k: float = 1, too_few: str = "train", timestamps: npt.ArrayLike | None = None
) -> Split:
    """Hold out the latest k likes of each user. Ties: the higher item id counts as later.

    The training part still has later entries of other users, and later dislikes. `time_split` avoids both.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    k, too_few
        Same as for `leave_k_out`.
    timestamps : int array of length nnz, optional
        Seconds since 1970, one for each entry, in the order of `data` of a matrix in canonical form. Default: the
        timestamps of the Interactions.

    Returns
    -------
    Split

    Raises
    ------
    ValueError, TypeError
        Same errors as `leave_k_out`. Also: there are no timestamps, not one for each entry, or not whole numbers.
    """
    matrix = matrix_of(user_items)
    seconds = timestamps_of(user_items, matrix, timestamps)
    n_test = _n_test_by_user(matrix, k, too_few)
    return _split(user_items, matrix, _last(matrix, _time_keys(matrix, seconds), n_test), _is_kept(n_test, too_few))


def time_split(user_items: Any, test: float = 0.2, at: Any = None, timestamps: npt.ArrayLike | None = None) -> Split:
    """Train on the entries before an instant, and hold out the entries from then on, dislikes included.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    test : float or int
        Held-out entries, the latest ones: a share of all entries, above 0 and below 1, or their number, at least 1.
        Entries in the same second as the earliest of them are held out too.
    at : int, str or datetime, optional
        The instant, instead of `test`: seconds since 1970, or anything that `numpy.datetime64` takes, such as
        "2009-05-01", in UTC.
    timestamps
        Same as for `leave_last_k_out`.

    Returns
    -------
    Split

    Raises
    ------
    ValueError, TypeError
        An argument is not as described, or one of the parts would have no entry. Also: there are no timestamps, not one
        for each entry, or not whole numbers.
    """
    matrix = matrix_of(user_items)
    seconds = timestamps_of(user_items, matrix, timestamps)
    if at is None:
        first = matrix.nnz - _n_test(test, "test", matrix.nnz, "entries")
        at = np.partition(seconds, first)[first]
    at = seconds_of(at, "at")
    in_test = seconds >= at
    if in_test.all() or not in_test.any():
        if not seconds.size:
            raise ValueError("user_items has no entries to split")
        raise ValueError(
            f"at={at} leaves one of the parts empty: timestamps run from {seconds.min()} to {seconds.max()}; choose a "
            "time between them"
        )
    return _split(user_items, matrix, in_test)


def user_split(
    user_items: Any, test: float = 0.1, k: float = 0.2, too_few: str = "train", random_state: int = 0
) -> UserSplit:
    """Draw users at random to test on, and k held-out likes of each of them. Their other entries are for fold-in.

    This is known as strong generalisation: Marlin (2004), Liang et al. (2018), Rendle et al. (2021). These authors take
    10,000 users and a fifth of the items of each, once for the test and once more for validation::

        train, fold_in, test, *_ = user_split(plays, test=10_000, k=0.2)
        train, validation_fold_in, validation, *_ = user_split(train, test=10_000, k=0.2, random_state=1)

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    test : float or int
        Users to test on: a share of all users, above 0 and below 1, or their number, at least 1.
    k : int or float
        Held-out likes of each of these users: their number, at least 1, or a share, above 0 and below 1. The other
        likes and all dislikes are in the fold-in part.
    too_few : {"train", "drop", "error"}
        What to do with users with too few likes: at most k, or so few that the share is less than one like. "train"
        puts them into the training part, "drop" into no part and does not count them, "error" raises a ValueError.
    random_state : int
        Seed, at least 0. The same seed gives the same split.

    Returns
    -------
    UserSplit

    Raises
    ------
    ValueError
        An argument is not as described, too few users have enough likes, or some have too few with
        ``too_few="error"``.
    """
    bits = _random_bits(random_state)
    matrix = matrix_of(user_items)
    n_test = _n_test_by_user(matrix, k, too_few)
    enough, kept = np.flatnonzero(n_test), _is_kept(n_test, too_few)
    number = _n_test(test, "test", int(kept.sum()), "users")
    if number > enough.size:
        raise ValueError(
            f"test={test!r} asks for {number} users, but only {enough.size} users have enough entries above 0 for "
            f"k={k!r}; lower test or change k"
        )
    is_test = _mask(matrix.shape[0], enough[_draw(bits, enough.size, number)])
    is_train = kept & ~is_test
    held_out = _last(matrix, _random_keys(matrix, bits), np.where(is_test, n_test, 0))
    rows = entry_rows(matrix)
    return UserSplit(
        part_of(user_items, matrix, is_train[rows], is_train),
        part_of(user_items, matrix, is_test[rows] & ~held_out, is_test),
        part_of(user_items, matrix, held_out, is_test),
        np.flatnonzero(is_train),
        np.flatnonzero(is_test),
    )


def hide_share(X: Any, share: float, random_state: int = 0) -> Split:
    """Draw a held-out share of the likes of each user with at least two likes.

    `alscore.tuning.ranking_scorer` uses it, since a score of a few users needs held-out likes of each of them.

    Parameters
    ----------
    X : sparse matrix, shape (n_users, n_items), or Interactions
    share : float
        Above 0 and below 1. The number is rounded down, but at least one like is drawn and at least one stays. A user
        with fewer than two likes keeps all entries.
    random_state : int
        Seed, at least 0. The same seed gives the same split.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        An argument is not as described, or no user has two likes.
    """
    require(0 < share < 1, "share", "above 0 and below 1", share)
    bits = _random_bits(random_state)
    matrix = matrix_of(X)
    _, n_likes = _likes(matrix)
    n_test = np.where(n_likes < 2, 0, np.clip(_share_of(n_likes, share), 1, n_likes - 1))
    if not n_test.any():
        raise ValueError("X has no user with two positive entries, one to fold in and one to hold out")
    return _split(X, matrix, _last(matrix, _random_keys(matrix, bits), n_test))


def _random_bits(random_state: int) -> np.random.PCG64:
    """Return a stream of random bits. numpy guarantees that it never changes, unlike the distributions made from it."""
    require_integer(random_state, "random_state", 0)
    return np.random.PCG64(random_state)


def _n_test_of_each(value: float, name: str, available: Ints) -> Int64s:
    """Convert `value`, a number or a share, to a number for each of `available`.

    0 where it would take all or none of them.
    """
    is_number = hasattr(value, "__index__") and not isinstance(value, bool)
    require(
        value >= 1 if is_number else isinstance(value, float | np.floating) and 0 < value < 1,
        name,
        "an integer of at least 1, or a share above 0 and below 1",
        value,
    )
    number = min(value, 2**62) if is_number else _share_of(available, value)
    return np.where(number < available, number, 0).astype(np.int64)


def _share_of(available: Ints, share: float) -> Int64s:
    """Return a share of each of `available`, rounded down."""
    # The factor undoes rounding errors: 0.29 * 100 is 28.999999999999996.
    return np.floor(share * available * (1 + 4 * np.finfo(float).eps)).astype(np.int64)


def _n_test(value: float, name: str, available: int, what: str) -> int:
    """Convert `value`, a number or a share, to a number of `what`. Raise if it takes all or none of `available`."""
    number = int(_n_test_of_each(value, name, np.array(available)))
    if not number:
        remedy = f"choose a number from 1 to {available - 1}, or a share" if available > 1 else "at least 2 are needed"
        raise ValueError(f"{name}={value!r} of {available} {what} leaves one of the parts empty; {remedy}")
    return number


def _n_test_by_user(matrix: sparse.csr_array, k: float, too_few: str) -> Int64s:
    """Return the number of held-out likes of each user; 0 for a user with too few likes."""
    require(too_few in ("train", "drop", "error"), "too_few", "'train', 'drop' or 'error'", too_few)
    number = _n_test_of_each(k, "k", _likes(matrix)[1])
    if not number.size:
        raise ValueError("user_items has no users to split")
    short = np.flatnonzero(number == 0)
    if short.size == number.size or (short.size and too_few == "error"):
        raise ValueError(
            f"user_items: {short.size} of {number.size} users have too few entries above 0 for k={k!r}, at rows "
            f"{first_few(short)}; choose another k, or leave such users out"
        )
    return number


def _is_kept(n_test: Ints, too_few: str) -> Bools:
    """Return a mask of the users that are in a part."""
    return n_test > 0 if too_few == "drop" else np.ones(n_test.size, bool)


def _likes(matrix: sparse.csr_array) -> tuple[Ints, Ints]:
    """Return the positions of the likes, and the number of likes in each row."""
    likes = np.flatnonzero(matrix.data > 0)
    return likes, np.diff(np.searchsorted(likes, matrix.indptr))


def _draw(bits: np.random.PCG64, size: int, number: int) -> Ints:
    """Return `number` of the integers below `size`, at random, ascending."""
    keys = bits.random_raw(size)
    # If keys are equal there may be too many: take the first ones.
    return np.flatnonzero(keys <= np.partition(keys, number - 1)[number - 1])[:number]


def _key_bits(matrix: sparse.csr_array) -> int:
    """Return how many of 64 bits are left for a key after those of the row number."""
    n_rows: int = matrix.shape[0]
    return 64 - n_rows.bit_length()


def _random_keys(matrix: sparse.csr_array, bits: np.random.PCG64) -> Ints:
    """Return a random key of `_key_bits` for each entry."""
    keys: Ints = bits.random_raw(matrix.nnz)
    return keys >> (64 - _key_bits(matrix))


def _time_keys(matrix: sparse.csr_array, seconds: Ints) -> Ints:
    """Return a key of `_key_bits` for each entry that ascends with its time."""
    span = int(seconds.max()) - int(seconds.min())
    if span.bit_length() > _key_bits(matrix):
        raise ValueError(
            f"timestamps span {span} seconds, too many to sort for {matrix.shape[0]} users; give whole seconds since "
            "1970, not milli-, micro- or nanoseconds"
        )
    keys: Ints = (seconds - seconds.min()).astype(np.uint64)
    return keys


def _last(matrix: sparse.csr_array, keys: Ints, n_test: Ints) -> Bools:
    """Return a mask of the entries that are the last `n_test` likes of their user in the order of `keys`."""
    likes, n_likes = _likes(matrix)
    rows = entry_rows(matrix)[likes].astype(np.uint64)
    # Rows ascend already, so a stable sort only merges within rows: 12 times faster than lexsort. Ties: item order.
    order = np.argsort(rows << _key_bits(matrix) | keys[likes], kind="stable")
    is_last = np.arange(likes.size) >= np.repeat(np.cumsum(n_likes) - n_test, n_likes)
    return _mask(matrix.nnz, likes[order[is_last]])


def _mask(size: int, positions: Ints) -> Bools:
    mask = np.zeros(size, bool)
    mask[positions] = True
    return mask


def _split(user_items: Any, matrix: sparse.csr_array, test: Bools, kept: Bools | None = None) -> Split:
    """Split by a mask of held-out entries. `kept` is a mask of users; the entries of other users are in no part."""
    train = ~test if kept is None else ~test & kept[entry_rows(matrix)]
    return Split(part_of(user_items, matrix, train), part_of(user_items, matrix, test))
