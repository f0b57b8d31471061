"""Reader for the Last.fm data set of 360,000 users (Òscar Celma, 2010; doi:10.5281/zenodo.6090214)."""

import os
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import sparse

from alscore._support.arrays import Floats, Ints
from alscore._support.checks import require
from alscore.datasets._delimited import OPTIONAL_TEXT, POSITIVE, Field, Layout, Lines, data_file, like
from alscore.datasets._label_coder import LabelCoder
from alscore.interactions import Interactions

PLAYS_FILE = "usersha1-artmbid-artname-plays.tsv"
SHA1 = Field("a SHA-1", like("^[0-9A-Fa-f]{40}$"))
_FIELDS: dict[str, Field | None] = {"user": SHA1, "mbid": OPTIONAL_TEXT, "name": OPTIONAL_TEXT, "plays": POSITIVE}
_BY_NAME = Layout(PLAYS_FILE, _FIELDS, required=("name", "mbid"), as_item=True, spare="mbid")
_BY_MBID = _BY_NAME._replace(required=("mbid", "name"), spare="")
_LAYOUTS = {"name": _BY_NAME, "mbid": _BY_MBID}


def lastfm_360k(path: str | os.PathLike[str], items: str = "name", errors: str = "report") -> Interactions:
    """Read the plays file of Last.fm 360K: ``user SHA-1 TAB artist MBID TAB artist name TAB plays``.

    Lines end with LF (or CRLF); all else in a name, quotes and CR included, is text and kept to the letter.
    Repeats of a user and item are summed. No line is lost silently: see `Interactions.report`. Memory grows with
    the lines (12 bytes each) and the distinct labels, not with the bytes of the file.

    Parameters
    ----------
    path : str or path
        The original archive (``.tar.gz``, read in place), the plays file (plain or gzipped), or a folder that
        holds it at any depth.
    items : {"name", "mbid"}
        What identifies an artist: the name (the MBID where the name is empty), or the MusicBrainz identifier
        (the name where there is none).
    errors : {"report", "raise"}
        What to do about lines that are no valid play: leave them out and list them in `report`, or refuse the file.

    Returns
    -------
    Interactions
        Labels are strings in ascending order, values are plays. `report.rejected` lists each line that is no
        valid play, with its number and the reason.

    Raises
    ------
    FileNotFoundError
        There is no such path.
    ValueError
        No regular file, no plays file in the archive or folder, no valid line in the file, a damaged archive, a line
        of more than 12 MiB, more than 2**31 - 1 labels, or an invalid line with ``errors="raise"``.
    """
    import pyarrow as pa

    require(items in _LAYOUTS, "items", "'name' or 'mbid'", items)
    lines = Lines(path, _LAYOUTS[items], errors)
    users, artists, plays = LabelCoder(f"{path}: users"), LabelCoder(f"{path}: artists"), array("f")
    for table in lines:
        users.add(table["user"].combine_chunks())
        artists.add(table["item"].combine_chunks())
        plays.frombytes(table["plays"].to_numpy().astype(np.float32).view(np.uint8))
    with ThreadPoolExecutor() as pool:
        (rows, row_labels), (columns, column_labels) = pool.map(LabelCoder.sorted, (users, artists))
    pa.default_memory_pool().release_unused()  # which may be more than the matrix takes
    matrix = _csr(rows, columns, np.frombuffer(plays, np.float32), (len(row_labels), len(column_labels)))
    interactions = Interactions(matrix, row_labels.to_pandas(), column_labels.to_pandas())
    interactions.report = lines.report(interactions.nnz)
    return interactions


def plays_file(path: str | os.PathLike[str]) -> Path:
    """Return the file that `lastfm_360k` reads for `path`: itself, or the plays file in that folder."""
    return data_file(path, PLAYS_FILE)


def _csr(rows: Ints, columns: Ints, plays: Floats, shape: tuple[int, int]) -> sparse.csr_array:
    """Return the entries by rows and, in each, by ascending columns; `columns` and `plays` may become part of it."""
    if (rows[:-1] <= rows[1:]).all():  # the original is in order of users, so that nothing has to move
        starts = np.searchsorted(rows, np.arange(shape[0] + 1, dtype=rows.dtype))
        narrow = np.int32 if rows.size <= np.iinfo(np.int32).max else np.int64  # scipy brings columns to the same
        matrix = sparse.csr_array((plays, columns, starts.astype(narrow)), shape)
    else:
        entries = sparse.coo_array((plays, (rows, columns)), shape)
        entries.has_canonical_format = True  # else tocsr sums repeats, in float32
        matrix = entries.tocsr()
    matrix.sort_indices()
    return matrix
