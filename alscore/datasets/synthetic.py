"""Play counts with the shape of Last.fm 360K, made rather than downloaded, and a writer for that format."""

import contextlib
import gzip
import hashlib
import itertools
import os
import re
import uuid
from pathlib import Path
from typing import BinaryIO

import numpy as np
from scipy import sparse

from alscore._support.arrays import Doubles, Ints
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

# Listeners fall with an artist's rank r as (r + OFFSET)**-EXPONENT (Zipf-Mandelbrot). Fitted to Last.fm 360K:
# at full size the first artist has about 20 % of the users, the 7,900th 128 listeners, the median one or two.
_OFFSET, _EXPONENT, _TOP_SHARE = 135, 1.55, 0.2
_CROSSING = 0.1  # share of all users at which half of an artist's listeners come from outside of the genre
_DRAWS = 96  # per user, enough for about 49 different artists
_USERS_AT_ONCE = 1 << 14


def synthetic(n_users: int, n_items: int, seed: int = 0) -> Interactions:
    """Make play counts that look like Last.fm 360K and have known tastes in them.

    A user likes one to three of up to 20 genres and plays about 49 artists, mostly of those genres; the more
    popular an artist, the more listeners come from elsewhere too. Popularity follows a Zipf-Mandelbrot law,
    plays a log-normal one (mean about 200). The full size, 358,868 × 292,385, has 17.5 million entries.

    Parameters
    ----------
    n_users, n_items : int
        Shape, at least 1 × 1. Every user has an artist; rare artists may lack a listener.
    seed : int
        The same seed gives the same data on every platform.

    Returns
    -------
    Interactions
        Users are 40 hexadecimal digits; items read like "velvet harbor (dream pop #12)", the 12th most
        popular of its genre. Both ascend. Values are whole numbers from 1 to 100,000.

    Raises
    ------
    ValueError
        A size below 1, or beyond 2**31 - 1.
    """
    for name, size in (("n_users", n_users), ("n_items", n_items)):
        if not 1 <= size < 2**31:
            raise ValueError(f"{name} must be from 1 to 2**31 - 1, not {size}")
    rng = np.random.Generator(np.random.PCG64(seed))
    n_genres = min(len(_GENRES), 1 + n_items // 100)
    genre, labels = _artists(n_items, n_genres, rng)
    by_label = sorted(range(n_items), key=labels.__getitem__)
    code = np.empty(n_items, np.int64)
    code[by_label] = np.arange(n_items)

    # One cumulative table to draw from: a segment for the fans of each genre, then one for everybody. Whole
    # numbers, so that the last bit of a power does not decide what is drawn.
    share = _TOP_SHARE * (_OFFSET / (np.arange(n_items) + _OFFSET)) ** _EXPONENT
    crossing = share / (share + _CROSSING)
    by_genre = np.argsort(genre, kind="stable")
    weight = np.rint(2.0**40 * np.concatenate([(share * (1 - crossing))[by_genre], share * crossing]))
    cumulative = np.cumsum(weight.astype(np.int64))
    codes = np.concatenate([code[by_genre], code])
    ends = cumulative[np.append(np.cumsum(np.bincount(genre)), 2 * n_items) - 1]
    starts = np.append(0, ends[:-1])

    counts, indices, plays = [], [], []
    for first in range(0, n_users, _USERS_AT_ONCE):
        n = min(_USERS_AT_ONCE, n_users - first)
        likes = rng.integers(1, 4, size=(n, 1))
        tastes = np.searchsorted(ends, (rng.random((n, 3)) * ends[-2]).astype(np.int64), side="right")
        taste = np.take_along_axis(tastes, (likes * rng.random((n, _DRAWS)) ** 2).astype(np.intp), axis=1)
        segment = np.where(rng.random((n, _DRAWS)) * ends[-1] < ends[-2], taste, n_genres)
        at = starts[segment] + (rng.random((n, _DRAWS)) * (ends - starts)[segment]).astype(np.int64)
        wanted = np.maximum(np.rint(rng.laplace(48.8, 4, size=(n, 1))), 1)
        index, count = _distinct(codes[np.searchsorted(cumulative, at, side="right")], wanted)
        log_plays = np.repeat(rng.normal(4.54, 0.8, size=n), count) + rng.normal(0, 0.9, size=index.size)
        counts.append(count)
        indices.append(index.astype(np.int32))
        plays.append(np.clip(np.rint(np.exp(log_plays)), 1, 100_000).astype(np.float32))

    indptr = np.append(0, np.cumsum(np.concatenate(counts)))
    matrix = sparse.csr_array((np.concatenate(plays), np.concatenate(indices), indptr), (n_users, n_items))
    users = sorted(hashlib.sha1(f"{seed} {user}".encode()).hexdigest() for user in range(n_users))
    return Interactions(matrix, users, [labels[rank] for rank in by_label])


def _artists(n_items: int, n_genres: int, rng: np.random.Generator) -> tuple[Doubles, list[str]]:
    """Return the genres and labels of artists by falling popularity, each genre once in every `n_genres`."""
    rounds = np.tile(np.arange(n_genres), (-(-n_items // n_genres), 1))
    genre = rng.permuted(rounds, axis=1).ravel()[:n_items]
    adjective, noun = rng.integers(len(_ADJECTIVES), size=n_items), rng.integers(len(_NOUNS), size=n_items)
    return genre, [
        f"{_ADJECTIVES[a]} {_NOUNS[b]} ({_GENRES[c]} #{rank // n_genres + 1})"
        for rank, (a, b, c) in enumerate(zip(adjective, noun, genre, strict=True))
    ]


def _distinct(drawn: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """Take from each row the first `wanted` different codes.

    Return (the codes, ascending within each row, flat; how many each row has).
    """
    n_draws = drawn.shape[1]
    drawn, draw = np.divmod(np.sort(drawn * n_draws + np.arange(n_draws), axis=1), n_draws)
    is_new = np.ones(drawn.shape, bool)
    is_new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    new_by_draw = np.empty(drawn.shape, bool)
    np.put_along_axis(new_by_draw, draw, is_new, axis=1)
    taken = is_new & np.take_along_axis(new_by_draw.cumsum(axis=1) <= wanted, draw, axis=1)
    return drawn[taken], taken.sum(axis=1)


def write_lastfm_360k(interactions: Interactions, path: str | os.PathLike[str]) -> None:
    """Write interactions in the form of Last.fm 360K's plays file: user SHA-1, artist MBID, artist, plays.

    Fields are separated by TAB, lines end with LF, quotes are text; by user, then plays descending. User
    labels that are not 40 hexadecimal digits are replaced by their SHA-1. MBIDs are made up from the names,
    and empty for one artist in a hundred. Users and items without an entry leave no trace in this format.

    Parameters
    ----------
    interactions : Interactions
        Plays must be whole numbers from 1 to 10**18 - 1.
    path : str or path
        A name that ends in ``.gz`` is compressed. The file appears whole or not at all.

    Raises
    ------
    ValueError
        An item label that is empty or holds TAB or LF, or a value that is no play count.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    matrix = interactions.matrix
    wrong = np.flatnonzero((matrix.data < 1) | (matrix.data >= 1e18) | (matrix.data != np.rint(matrix.data)))
    if wrong.size:
        row = np.searchsorted(matrix.indptr, wrong[0], side="right") - 1
        raise ValueError(
            f"interactions holds {matrix.data[wrong[0]]} at row {row}; plays must be whole "
            f"numbers from 1 to 10**18 - 1, so round or remove it"
        )
    names = [str(label) for label in interactions.items]
    for row, name in enumerate(names):
        if not name or "\t" in name or "\n" in name:
            raise ValueError(
                f"interactions.items: label {name!r} at position {row} is empty or holds TAB or "
                f"LF, which this format cannot express; rename it"
            )
    text = pa.large_string()
    users = pa.array([_sha1(str(label)) + "\t" for label in interactions.users], text)
    items = pa.array([_mbid(name) + "\t" + name + "\t" for name in names], text)

    # users in groups of about a million entries
    bounds = np.searchsorted(matrix.indptr, np.arange(0, matrix.nnz, 2**20))
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


def _sha1(label: str) -> str:
    """Return `label` if it is 40 hexadecimal digits, else its SHA-1."""
    return label if re.fullmatch("[0-9A-Fa-f]{40}", label) else hashlib.sha1(label.encode()).hexdigest()


def _mbid(name: str) -> str:
    """Return an MBID (a UUID) made from `name`, or none for one name in a hundred."""
    mbid = uuid.uuid5(uuid.NAMESPACE_DNS, name)
    return str(mbid) if mbid.int % 100 else ""
