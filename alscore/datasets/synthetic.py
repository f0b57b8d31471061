"""Synthetic play counts with the shape of Last.fm 360K, and a writer for the format of its plays file."""

import contextlib
import gzip
import hashlib
import itertools
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from alscore._support.arrays import Floats, Int32s, Int64s, Ints
from alscore._support.files import atomic_writer
from alscore.interactions import Interactions

_GENRES = (
    "ambient",
    "black metal",
    "bluegrass",
    "bossa nova",
    "classical",
    "country",
    "disco",
    "dream pop",
    "drum and bass",
    "dub",
    "flamenco",
    "folk",
    "funk",
    "hip-hop",
    "jazz",
    "punk",
    "reggae",
    "synthpop",
    "techno",
    "thrash metal",
)
_ADJECTIVES = (
    "amber",
    "broken",
    "burning",
    "crystal",
    "distant",
    "electric",
    "frozen",
    "gentle",
    "golden",
    "hollow",
    "lonely",
    "lunar",
    "midnight",
    "paper",
    "quiet",
    "restless",
    "scarlet",
    "silver",
    "velvet",
    "wandering",
)
_NOUNS = (
    "anchors",
    "birds",
    "canyon",
    "choir",
    "echoes",
    "engines",
    "foxes",
    "garden",
    "harbor",
    "horses",
    "lanterns",
    "mirrors",
    "orchard",
    "pilots",
    "radio",
    "rivers",
    "sparrows",
    "strangers",
    "tides",
    "wolves",
)

# An artist's number of listeners falls with its popularity rank r as (r + OFFSET)**-EXPONENT (Zipf-Mandelbrot). Fitted
# to Last.fm 360K: at full size the first artist has about 20 % of the users, the 7,900th 128 listeners, the median one
# or two.
_OFFSET, _EXPONENT, _TOP_SHARE = 135, 1.55, 0.2
_CROSSING_SHARE = 0.1  # share of all users at which half of an artist's listeners are not fans of its genre
_DRAWS = 96  # draws per user, enough for about 49 different artists
_USERS_PER_BLOCK = 1 << 14  # users drawn at a time, which limits memory; another number gives other data
_ENTRIES_PER_BLOCK = 1 << 20  # entries written at a time, about; limits memory


def synthetic(n_users: int, n_items: int, seed: int = 0) -> Interactions:
    """Make play counts that look like Last.fm 360K. Their users have known tastes.

    A user likes one to three of up to 20 genres and plays about 49 artists, mostly of these genres. The more popular
    an artist is, the more listeners it has outside its genre. Popularity follows a Zipf-Mandelbrot law. Plays follow a
    log-normal law with a mean of about 200. The full size, 358,868 × 292,385, has 17.5 million entries.

    Parameters
    ----------
    n_users, n_items : int
        Number of users and of items, >= 1. Every user has an entry; a rare item may have no entry.
    seed : int
        Seed of the random numbers. The same seed gives the same data on every platform.

    Returns
    -------
    Interactions
        Users are 40 hexadecimal digits. Items read like "velvet harbor (dream pop #12)", the 12th most popular artist
        of its genre. Both are in ascending order. The values are whole numbers from 1 to 100,000.

    Raises
    ------
    ValueError
        `n_users` or `n_items` is below 1 or above 2**31 - 1.
    """
    for name, size in (("n_users", n_users), ("n_items", n_items)):
        if not 1 <= size < 2**31:
            raise ValueError(f"{name} must be from 1 to 2**31 - 1, not {size}")
    rng = np.random.Generator(np.random.PCG64(seed))
    genres, labels = _artists(n_items, rng)
    by_label = sorted(range(n_items), key=labels.__getitem__)
    ids = np.empty(n_items, np.int64)
    ids[by_label] = np.arange(n_items)
    pool = _pool(genres, ids)
    blocks = [
        _draw_entries(min(_USERS_PER_BLOCK, n_users - first), pool, rng)
        for first in range(0, n_users, _USERS_PER_BLOCK)
    ]
    counts, indices, plays = map(np.concatenate, zip(*blocks, strict=True))
    matrix = sparse.csr_array((plays, indices, np.append(0, np.cumsum(counts))), (n_users, n_items))
    users = sorted(hashlib.sha1(f"{seed} {user}".encode()).hexdigest() for user in range(n_users))
    return Interactions(matrix, users, [labels[rank] for rank in by_label])


def _artists(n_items: int, rng: np.random.Generator) -> tuple[Ints, list[str]]:
    """Return the genres and the labels of artists by falling popularity, each genre once in every round."""
    n_genres = min(len(_GENRES), 1 + n_items // 100)
    rounds = np.tile(np.arange(n_genres), (-(-n_items // n_genres), 1))
    genres = rng.permuted(rounds, axis=1).ravel()[:n_items]
    adjectives, nouns = rng.integers(len(_ADJECTIVES), size=n_items), rng.integers(len(_NOUNS), size=n_items)
    return genres, [
        f"{_ADJECTIVES[a]} {_NOUNS[b]} ({_GENRES[c]} #{rank // n_genres + 1})"
        for rank, (a, b, c) in enumerate(zip(adjectives, nouns, genres, strict=True))
    ]


class _Pool(NamedTuple):
    """Items to draw from, each with a weight: a segment for the fans of each genre, then a segment for all users.

    Attributes
    ----------
    ids : int array, length 2 * n_items
        The items of all segments.
    cumulative : int array, length 2 * n_items
        The sums of their weights. Whole numbers: the last bit of a power must not decide what is drawn.
    starts, ends : int array, length n_genres + 1
        The sums before and after each segment.
    """

    ids: Int64s
    cumulative: Int64s
    starts: Int64s
    ends: Int64s


def _pool(genres: Ints, ids: Int64s) -> _Pool:
    """Return the pool of items, whose genres and ids are given by falling popularity."""
    n_items = len(genres)
    share = _TOP_SHARE * (_OFFSET / (np.arange(n_items) + _OFFSET)) ** _EXPONENT
    crossing = share / (share + _CROSSING_SHARE)
    by_genre = np.argsort(genres, kind="stable")
    weights = np.rint(2.0**40 * np.concatenate([(share * (1 - crossing))[by_genre], share * crossing]))
    cumulative = np.cumsum(weights.astype(np.int64))
    ends = cumulative[np.append(np.cumsum(np.bincount(genres)), 2 * n_items) - 1]
    return _Pool(np.concatenate([ids[by_genre], ids]), cumulative, np.append(0, ends[:-1]), ends)


def _draw_entries(n_users: int, pool: _Pool, rng: np.random.Generator) -> tuple[Ints, Int32s, Floats]:
    """Return (the number of entries of each user; the items of all entries, by user and ascending; their plays)."""
    starts, ends = pool.starts, pool.ends
    shape = n_users, _DRAWS
    n_liked = rng.integers(1, 4, size=(n_users, 1))
    liked = np.searchsorted(ends, (rng.random((n_users, 3)) * ends[-2]).astype(np.int64), side="right")
    genre = np.take_along_axis(liked, (n_liked * rng.random(shape) ** 2).astype(np.intp), axis=1)
    segment = np.where(rng.random(shape) * ends[-1] < ends[-2], genre, len(ends) - 1)
    at = starts[segment] + (rng.random(shape) * (ends - starts)[segment]).astype(np.int64)
    most = np.maximum(np.rint(rng.laplace(48.8, 4, size=(n_users, 1))), 1)
    items, counts = _first_distinct(pool.ids[np.searchsorted(pool.cumulative, at, side="right")], most)
    log_plays = np.repeat(rng.normal(4.54, 0.8, size=n_users), counts) + rng.normal(0, 0.9, size=items.size)
    plays = np.clip(np.rint(np.exp(log_plays)), 1, 100_000).astype(np.float32)
    return counts, items.astype(np.int32), plays


def _first_distinct(drawn: Ints, most: Floats) -> tuple[Ints, Ints]:
    """Take from each row the first `most` different ids.

    Return (the ids of all rows, ascending in each row; the number of ids in each row).
    """
    n_draws = drawn.shape[1]
    drawn, draw = np.divmod(np.sort(drawn * n_draws + np.arange(n_draws), axis=1), n_draws)
    is_new = np.ones(drawn.shape, bool)
    is_new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    new_by_draw = np.empty(drawn.shape, bool)
    np.put_along_axis(new_by_draw, draw, is_new, axis=1)
    taken = is_new & np.take_along_axis(new_by_draw.cumsum(axis=1) <= most, draw, axis=1)
    return drawn[taken], taken.sum(axis=1)


def write_lastfm_360k(interactions: Interactions, path: str | os.PathLike[str]) -> None:
    """Write interactions in the format of Last.fm 360K's plays file: user SHA-1, artist MBID, artist, plays.

    Fields are separated by TAB, lines end with LF, and quotes are text. Lines are ordered by user, then by falling
    plays. A user label that is not 40 hexadecimal digits is replaced by its SHA-1. MBIDs are made up from the names;
    one artist in a hundred has an empty MBID. Users and items without an entry do not appear in the file.

    Parameters
    ----------
    interactions : Interactions
        The values are plays: whole numbers from 1 to 10**18 - 1.
    path : str or path
        The file to write. A name that ends in ``.gz`` is compressed. The file appears only when it is complete.

    Raises
    ------
    ValueError
        An item label is empty or contains TAB or LF, or a value is not a number of plays.
    """
    matrix = interactions.matrix
    names = [str(label) for label in interactions.items]
    _check_plays(matrix)
    _check_names(names)
    text = pa.large_string()
    users = pa.array([_sha1(str(label)) + "\t" for label in interactions.users], text)
    items = pa.array([_mbid(name) + "\t" + name + "\t" for name in names], text)

    bounds = np.searchsorted(matrix.indptr, np.arange(0, matrix.nnz, _ENTRIES_PER_BLOCK))
    bounds = np.unique(np.append(bounds, interactions.n_users))
    with contextlib.ExitStack() as files:
        out: BinaryIO | gzip.GzipFile = files.enter_context(atomic_writer(path))
        if Path(path).suffix == ".gz":
            out = files.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=out, mtime=0))
        for first, end in itertools.pairwise(bounds):
            entries = slice(matrix.indptr[first], matrix.indptr[end])
            user = np.repeat(np.arange(first, end), np.diff(matrix.indptr[first : end + 1]))
            order = np.lexsort((-matrix.data[entries], user))
            item, plays = matrix.indices[entries][order], matrix.data[entries][order].astype(np.int64)
            lines = pc.binary_join_element_wise(
                users.take(pa.array(user)),
                items.take(pa.array(item)),
                pa.array(plays).cast(text),
                *pa.array(["\n", ""], text),
            )
            out.write(lines.buffers()[2])


def _check_plays(matrix: sparse.csr_array) -> None:
    wrong = np.flatnonzero((matrix.data < 1) | (matrix.data >= 1e18) | (matrix.data != np.rint(matrix.data)))
    if wrong.size:
        row = np.searchsorted(matrix.indptr, wrong[0], side="right") - 1
        raise ValueError(
            f"interactions holds {matrix.data[wrong[0]]} at row {row}; plays must be whole "
            "numbers from 1 to 10**18 - 1, so round or remove it"
        )


def _check_names(names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        if not name or "\t" in name or "\n" in name:
            raise ValueError(
                f"interactions.items: label {name!r} at position {at} is empty or holds TAB or LF, which this format "
                "cannot express; rename it"
            )


def _sha1(label: str) -> str:
    """Return `label` if it is 40 hexadecimal digits, else its SHA-1."""
    return label if re.fullmatch("[0-9A-Fa-f]{40}", label) else hashlib.sha1(label.encode()).hexdigest()


def _mbid(name: str) -> str:
    """Return an MBID (a UUID) made from `name`; empty for one name in a hundred."""
    mbid = uuid.uuid5(uuid.NAMESPACE_DNS, name)
    return str(mbid) if mbid.int % 100 else ""
