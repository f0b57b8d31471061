"""Reader for the Last.fm data set of 360,000 users (Òscar Celma, 2010; doi:10.5281/zenodo.6090214)."""

import os
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse

from alscore._support.arrays import Floats, Ints
from alscore._support.checks import require
from alscore.datasets._delimited import OPTIONAL_TEXT, POSITIVE, Field, FileFormat, Lines, data_file, like
from alscore.datasets._label_coder import LabelCoder
from alscore.interactions import Interactions

PLAYS_FILE = "usersha1-artmbid-artname-plays.tsv"
SHA1 = Field("is not a SHA-1", like("^[0-9A-Fa-f]{40}$"))
_FIELDS: dict[str, Field | None] = {"user": SHA1, "mbid": OPTIONAL_TEXT, "name": OPTIONAL_TEXT, "plays": POSITIVE}
_BY_NAME = FileFormat(PLAYS_FILE, _FIELDS, any_of=("name", "mbid"), as_item=True, rare_fallback=True)
_BY_MBID = _BY_NAME._replace(any_of=("mbid", "name"), rare_fallback=False)
PLAYS_FORMATS = {"name": _BY_NAME, "mbid": _BY_MBID}


def lastfm_360k(path: str | os.PathLike[str], items: str = "name", errors: str = "report") -> Interactions:
    """Read the plays of Last.fm 360K: ``user SHA-1 TAB artist MBID TAB artist name TAB plays``.

    Lines end with LF or CRLF. All other characters in a name are text and stay unchanged, quotes and CR included.
    Lines of the same user and artist are summed. Memory grows with the number of lines (12 bytes each) and of distinct
    labels, not with the bytes of the file.

    Parameters
    ----------
    path : str or path
        The original archive (``.tar.gz``, read in place), the plays file (plain or gzipped), or a folder that
        holds it at any depth.
    items : {"name", "mbid"}
        The label of an artist: the name (the MBID where the name is empty), or the MusicBrainz identifier (the name
        where the MBID is empty).
    errors : {"report", "raise"}
        Leave out the lines that are not valid plays and list them in `Interactions.report`, or raise a ValueError.

    Returns
    -------
    Interactions
        The labels are strings in ascending order, the values are plays. `report.rejected` lists each rejected line
        with its number and the reason.

    Raises
    ------
    FileNotFoundError
        `path` does not exist.
    ValueError
        `path` is not a regular file, the plays file is not in the archive or folder, the file has no valid line, the
        archive is damaged, a line is longer than 12 MiB, there are more than 2**31 - 1 labels, or a line is not valid
        and ``errors="raise"``.
    """
    require(items in PLAYS_FORMATS, "items", "'name' or 'mbid'", items)
    return read_plays(Lines(path, PLAYS_FORMATS[items], errors))


def read_plays(lines: Lines, **limits: int) -> Interactions:
    """Return the Interactions of the plays in `lines`. `limits` are arguments of `LabelCoder`."""
    users, artists = (LabelCoder(f"{lines.path}: {name}", **limits) for name in ("users", "artists"))
    plays = array("f")
    for table in lines:
        users.add(table["user"].combine_chunks())
        artists.add(table["item"].combine_chunks())
        plays.frombytes(table["plays"].to_numpy().astype(np.float32).view(np.uint8))
    with ThreadPoolExecutor() as pool:
        (rows, row_labels), (columns, column_labels) = pool.map(LabelCoder.sorted, (users, artists))
    pa.default_memory_pool().release_unused()  # Arrow's unused memory can be larger than the matrix
    matrix = _csr(rows, columns, np.frombuffer(plays, np.float32), (len(row_labels), len(column_labels)))
    interactions = Interactions(matrix, row_labels.to_pandas(), column_labels.to_pandas())
    interactions.report = lines.report(interactions.nnz)
    return interactions


def plays_file(path: str | os.PathLike[str]) -> Path:
    """Return the file that `lastfm_360k` reads: `path`, or the plays file in the folder `path`."""
    return data_file(path, PLAYS_FILE)


def _csr(rows: Ints, columns: Ints, plays: Floats, shape: tuple[int, int]) -> sparse.csr_array:
    """Return a matrix with ascending columns in each row. It may share memory with `columns` and `plays`."""
    if (rows[:-1] <= rows[1:]).all():  # the original file is in the order of users: no entry has to move
        starts = np.searchsorted(rows, np.arange(shape[0] + 1, dtype=rows.dtype))
        narrow = np.int32 if rows.size <= np.iinfo(np.int32).max else np.int64  # scipy casts columns to the same dtype
        matrix = sparse.csr_array((plays, columns, starts.astype(narrow)), shape)
    else:
        entries = sparse.coo_array((plays, (rows, columns)), shape)
        entries.has_canonical_format = True  # else tocsr sums repeats, in float32
        matrix = entries.tocsr()
    matrix.sort_indices()
    return matrix
