"""Parts to train on and to test on, of a matrix or an Interactions.

Every function takes `user_items`, a scipy sparse matrix (n_users, n_items) in any format or an Interactions, and gives
the parts in that form: canonical csr_arrays (see `alscore.interactions.canonical_csr`), float64 if the matrix was that,
else float32; or Interactions with labels and timestamps. Users and items keep their codes, so all parts have the shape
of `user_items`; only `user_split` puts different users into different parts. Each entry is in just one part, unless
users are dropped.

A split depends on the entries and on `random_state` alone: not on the order in which entries came, nor on the platform
or the version of numpy. Where a share of something is asked for, that number is rounded down.

Dislikes (values below 0) are nothing that a recommender should find again. They are neither drawn nor counted, and stay
where the model is trained or folded in; only a cut in time, after which nothing may be known, treats all entries alike.

A validation part comes from splitting the training part again::

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
        In the form of what was split.
    """

    train: Any
    test: Any


class UserSplit(NamedTuple):
    """Users to train on, and other users to be recommended to; all parts have all of the items.

    Attributes
    ----------
    train : sparse matrix, shape (n_train_users, n_items), or Interactions
    fold_in, test : sparse matrix, shape (n_test_users, n_items), or Interactions
        Of the same users: what the model is told of them, and what it should find.
    train_users, test_users : int64 array
        Codes in what was split of the rows of these parts, ascending.
    """

    train: Any
    fold_in: Any
    test: Any
    train_users: Ints
    test_users: Ints


def random_split(user_items: Any, test: float = 0.2, random_state: int = 0) -> Split:
    """Draw likes at random, whosever they are.

    Users with few may be left with none to train on; `leave_k_out` leaves some to each.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    test : float or int
        The share of all likes to test on, above 0 and below 1, or their number, at least 1.
    random_state : int
        At least 0.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        No like would be left in one of the parts.
    """
    bits = _random_bits(random_state)
    matrix = matrix_of(user_items)
    likes = np.flatnonzero(matrix.data > 0)
    drawn = likes[_draw(bits, likes.size, _some(test, "test", likes.size, "entries above 0"))]
    return _split(user_items, matrix, _mask(matrix.nnz, drawn))


def leave_k_out(user_items: Any, k: float = 1, too_few: str = "train", random_state: int = 0) -> Split:
    """Draw k likes of each user at random.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    k : int or float
        The number of likes of each user to test on, at least 1, or their share, above 0 and below 1.
    too_few : {"train", "drop", "error"}
        What to do with users who have no more than k likes, or so few that the share is less than one: train on all
        that they have, leave it out of both parts, or raise a ValueError.
    random_state : int
        At least 0.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        As above, or all users have too few.

    Examples
    --------
    >>> from alscore import datasets, splits
    >>> train, test = splits.leave_k_out(datasets.synthetic(500, 300, seed=0), 5)
    >>> train, test
    (<Interactions: 500 users × 300 items, 21,820 entries>, <Interactions: 500 users × 300 items, 2,500 entries>)
    """
    bits = _random_bits(random_state)
    matrix = matrix_of(user_items)
    n_test = _how_many_of_each(matrix, k, too_few)
    return _split(user_items, matrix, _last(matrix, _random_keys(matrix, bits), n_test), _kept(n_test, too_few))


def leave_last_k_out(
    user_items: Any, k: float = 1, too_few: str = "train", timestamps: npt.ArrayLike | None = None
) -> Split:
    """Take the latest k likes of each user; of those at one time the higher item code counts as the later.

    The training part still has what other users did after that, and later dislikes; after `time_split` it has not.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    k, too_few
        As for `leave_k_out`.
    timestamps : int array of length nnz, optional
        Seconds since 1970, one for each entry in the order of `data` of a matrix in canonical form. Default: those of
        the Interactions.

    Returns
    -------
    Split

    Raises
    ------
    ValueError, TypeError
        As by `leave_k_out`; there are no timestamps, not one for each entry, or not whole numbers.
    """
    matrix = matrix_of(user_items)
    seconds = timestamps_of(user_items, matrix, timestamps)
    n_test = _how_many_of_each(matrix, k, too_few)
    return _split(user_items, matrix, _last(matrix, _time_keys(matrix, seconds), n_test), _kept(n_test, too_few))


def time_split(user_items: Any, test: float = 0.2, at: Any = None, timestamps: npt.ArrayLike | None = None) -> Split:
    """Train on what was before an instant, and test on what was then or later, dislikes included.

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    test : float or int
        The share of the entries to test on, above 0 and below 1, or their number, at least 1: the latest ones, and all
        others of the same second as the first of them.
    at : int, str or datetime, optional
        The instant, instead of `test`: seconds since 1970, or what `numpy.datetime64` takes, such as "2009-05-01", in
        UTC.
    timestamps
        As for `leave_last_k_out`.

    Returns
    -------
    Split

    Raises
    ------
    ValueError, TypeError
        No entry would be left in one of the parts; there are no timestamps, not one for each entry, or not whole
        numbers.
    """
    matrix = matrix_of(user_items)
    seconds = timestamps_of(user_items, matrix, timestamps)
    if at is None:
        first = matrix.nnz - _some(test, "test", matrix.nnz, "entries")
        at = np.partition(seconds, first)[first]
    at = seconds_of(at, "at")
    in_test = seconds >= at
    if in_test.all() or not in_test.any():
        span = f"run from {seconds.min()} to {seconds.max()}" if seconds.size else "are none"
        raise ValueError(f"at={at} leaves one of the parts empty: timestamps {span}; choose an instant between")
    return _split(user_items, matrix, in_test)


def user_split(
    user_items: Any, test: float = 0.1, k: float = 0.2, too_few: str = "train", random_state: int = 0
) -> UserSplit:
    """Draw users at random who are not trained on, and k likes of each of these to find from the others.

    Known as strong generalisation: Marlin (2004), Liang et al. (2018), Rendle et al. (2021). These take 10,000 users,
    and a fifth of the items of each, ``test=10_000, k=0.2``, once for the test and once more for the validation::

        train, fold_in, test, *_ = user_split(plays, test=10_000)
        train, validation_fold_in, validation, *_ = user_split(train, test=10_000, random_state=1)

    Parameters
    ----------
    user_items : sparse matrix, shape (n_users, n_items), or Interactions
    test : float or int
        The share of the users to test on, above 0 and below 1, or their number, at least 1.
    k : int or float
        The number of likes of each of them to find, at least 1, or their share, above 0 and below 1. The other likes
        and all dislikes are to be folded in.
    too_few : {"train", "drop", "error"}
        What to do with users who have no more than k likes, or so few that the share is less than one: train on them
        all, leave them out of all parts and do not count them, or raise a ValueError.
    random_state : int
        At least 0.

    Returns
    -------
    UserSplit

    Raises
    ------
    ValueError
        As above, or there are not so many users with enough.
    """
    bits = _random_bits(random_state)
    matrix = matrix_of(user_items)
    n_test = _how_many_of_each(matrix, k, too_few)
    enough, kept = np.flatnonzero(n_test), _kept(n_test, too_few)
    number = _some(test, "test", int(kept.sum()), "users")
    if number > enough.size:
        raise ValueError(f"test={test!r} asks for {number} users, but k={k!r} leaves {enough.size} with enough likes")
    is_test = _mask(matrix.shape[0], enough[_draw(bits, enough.size, number)])
    is_train = kept & ~is_test
    found = _last(matrix, _random_keys(matrix, bits), np.where(is_test, n_test, 0))
    rows = entry_rows(matrix)
    return UserSplit(
        part_of(user_items, matrix, is_train[rows], is_train),
        part_of(user_items, matrix, is_test[rows] & ~found, is_test),
        part_of(user_items, matrix, found, is_test),
        np.flatnonzero(is_train),
        np.flatnonzero(is_test),
    )


def hide_share(X: Any, share: float, random_state: int = 0) -> Split:
    """Draw a share of each user's likes, at least one of two: what a score of a few users needs (see `ranking_scorer`).

    Parameters
    ----------
    X : sparse matrix, shape (n_users, n_items), or Interactions
    share : float
        Above 0 and below 1; rounded down, but at least one like is drawn and at least one stays. Of a user with less
        than two likes none is drawn.
    random_state : int
        At least 0.

    Returns
    -------
    Split

    Raises
    ------
    ValueError
        `share` is not as above, or no user has two likes.
    """
    require(0 < share < 1, "share", "above 0 and below 1", share)
    bits = _random_bits(random_state)
    matrix = matrix_of(X)
    _, n_likes = _likes(matrix)
    n_hidden = np.where(n_likes < 2, 0, np.clip(_share_of(n_likes, share), 1, n_likes - 1))
    if not n_hidden.any():
        raise ValueError("X has no user with two positive entries, one to fold in and one to find again")
    return _split(X, matrix, _last(matrix, _random_keys(matrix, bits), n_hidden))


def _random_bits(random_state: int) -> np.random.PCG64:
    """Return a stream of random bits: of numpy's it promises only that this one stays as it is."""
    require_integer(random_state, "random_state", 0)
    return np.random.PCG64(random_state)


def _number(value: float, name: str, available: Ints) -> Int64s:
    """Return what a number or a share of each of `available` comes to; 0 where that is none or leaves none."""
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
    # its last digits are rounding: 0.29 * 100 is 28.999999999999996
    return np.floor(share * available * (1 + 4 * np.finfo(float).eps)).astype(np.int64)


def _some(value: float, name: str, available: int, what: str) -> int:
    """Return what a number or a share of `available` comes to, if that is some and leaves some."""
    number = int(_number(value, name, np.array(available)))
    if not number:
        raise ValueError(f"{name}={value!r} of {available} {what} leaves one of the parts empty")
    return number


def _how_many_of_each(matrix: sparse.csr_array, k: float, too_few: str) -> Int64s:
    """Return how many likes of each user to test on, 0 where there are too few."""
    require(too_few in ("train", "drop", "error"), "too_few", "'train', 'drop' or 'error'", too_few)
    number = _number(k, "k", _likes(matrix)[1])
    if not number.size:
        raise ValueError("user_items has no users to split")
    short = np.flatnonzero(number == 0)
    if short.size == number.size or (short.size and too_few == "error"):
        raise ValueError(
            f"user_items: {short.size} of {number.size} users have too few entries above 0 for k={k!r}, at rows "
            f"{first_few(short)}; choose a smaller k, or leave such users out"
        )
    return number


def _kept(n_test: Ints, too_few: str) -> Bools:
    """Return a mask of the users who are in the parts."""
    return n_test > 0 if too_few == "drop" else np.ones(n_test.size, bool)


def _likes(matrix: sparse.csr_array) -> tuple[Ints, Ints]:
    """Return (the positions of the entries above 0, their number in each row)."""
    likes = np.flatnonzero(matrix.data > 0)
    return likes, np.diff(np.searchsorted(likes, matrix.indptr))


def _draw(bits: np.random.PCG64, size: int, number: int) -> Ints:
    """Return `number` of the integers below `size`, at random, ascending."""
    keys = bits.random_raw(size)
    # should two keys be equal, there may be one too many
    return np.flatnonzero(keys <= np.partition(keys, number - 1)[number - 1])[:number]


def _key_bits(matrix: sparse.csr_array) -> int:
    """Return how many of 64 bits a row number leaves."""
    n_rows: int = matrix.shape[0]
    return 64 - n_rows.bit_length()


def _random_keys(matrix: sparse.csr_array, bits: np.random.PCG64) -> Ints:
    """Return a random number for each entry."""
    keys: Ints = bits.random_raw(matrix.nnz)
    return keys >> (64 - _key_bits(matrix))


def _time_keys(matrix: sparse.csr_array, seconds: Ints) -> Ints:
    """Return numbers that ascend with the entries' times."""
    span = int(seconds.max()) - int(seconds.min())
    if span.bit_length() > _key_bits(matrix):
        raise ValueError(f"timestamps span {span} seconds, more than for {matrix.shape[0]} users can be sorted")
    keys: Ints = (seconds - seconds.min()).astype(np.uint64)
    return keys


def _last(matrix: sparse.csr_array, keys: Ints, n_test: Ints) -> Bools:
    """Return a mask of the entries that are the last `n_test` of their users' likes, by keys of `_key_bits` each."""
    likes, n_likes = _likes(matrix)
    rows = entry_rows(matrix)[likes].astype(np.uint64)
    # Rows ascend already, so a stable sort only merges within them: 12 times faster than lexsort. Of equal keys
    # the order is that of the items.
    order = np.argsort(rows << _key_bits(matrix) | keys[likes], kind="stable")
    is_last = np.arange(likes.size) >= np.repeat(np.cumsum(n_likes) - n_test, n_likes)
    return _mask(matrix.nnz, likes[order[is_last]])


def _mask(size: int, positions: Ints) -> Bools:
    mask = np.zeros(size, bool)
    mask[positions] = True
    return mask


def _split(user_items: Any, matrix: sparse.csr_array, test: Bools, kept: Bools | None = None) -> Split:
    """Split by a mask of entries; where given, by one of users too: the others' entries are in neither part."""
    train = ~test if kept is None else ~test & kept[entry_rows(matrix)]
    return Split(part_of(user_items, matrix, train), part_of(user_items, matrix, test))
