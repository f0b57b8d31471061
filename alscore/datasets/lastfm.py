"""Reader for the Last.fm data set of 360,000 users (Òscar Celma, 2010; doi:10.5281/zenodo.6090214)."""

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from alscore._threads import available_cpus
from alscore.datasets._archives import DAMAGE, open_data
from alscore.datasets._labels import Coded, LabelCoder
from alscore.interactions import Interactions, Report

if TYPE_CHECKING:
    import pyarrow as pa

PLAYS_FILE = "usersha1-artmbid-artname-plays.tsv"
_COLUMNS = "user", "mbid", "name", "plays"
_BLOCK = 12 << 20  # bytes parsed at a time: a longer line is none
_PIECE = 1 << 18  # bytes read at a time: for longer ones tarfile would have new memory from the system each time
_FEW = 1 << 16  # bytes of lines that Python splits when one of them is broken
_MOST_THREADS = 4  # joining what they have parsed keeps up with no more
_BOM = b"\xef\xbb\xbf"
_FAULTS = np.array(
    [
        "",
        "not 4 fields",
        "not UTF-8",
        "user is not a SHA-1",
        "neither artist name nor MBID",
        "plays is zero",
        "plays is not a positive integer",
    ],
    object,
)
_FIELDS, _UTF8, _USER, _ARTIST, _ZERO, _PLAYS = range(1, len(_FAULTS))
_Columns = dict[str, "pa.DictionaryArray"]  # of _COLUMNS all, or all but the one that is not needed


class _Part(NamedTuple):
    """Some lines, judged: of the valid ones users, artists and float32 plays; of each line its index in _FAULTS."""

    users: Coded
    artists: Coded
    plays: np.ndarray
    faults: np.ndarray


class _LineTooLongError(ValueError):
    """There is no end of line within a block."""


def lastfm_360k(path: str | os.PathLike[str], items: str = "name", errors: str = "report") -> Interactions:
    """Read the plays file of Last.fm 360K: ``user SHA-1 TAB artist MBID TAB artist name TAB plays``.

    Lines end with LF (or CRLF); all else in a name, quotes and CR included, is text and kept to the letter.
    Repeats of a user and item are summed. No line is lost silently: see `Interactions.report`. Memory grows with
    the entries and the distinct labels, not with the bytes of the file.

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
        of more than 12 MB, more than 2**31 - 1 labels, or an invalid line with ``errors="raise"``.
    """
    import pandas as pd
    import pyarrow as pa

    for name, value, choices in (("items", items, ("name", "mbid")), ("errors", errors, ("report", "raise"))):
        if value not in choices:
            raise ValueError(f"{name} must be {choices[0]!r} or {choices[1]!r}, not {value!r}")
    path = plays_file(path)
    users, artists = LabelCoder(f"{path}: users"), LabelCoder(f"{path}: artists")
    plays, judged = array("f"), bytearray()

    def add(part: _Part) -> None:
        users.add(*part.users)
        artists.add(*part.artists)
        plays.frombytes(part.plays.view(np.uint8))
        judged.extend(part.faults)

    try:
        with open_data(path, PLAYS_FILE) as stream:
            _parse_all(stream, items, add)
    except (*DAMAGE, _LineTooLongError) as error:
        raise ValueError(f"{path} is damaged after line {len(judged):,} ({error}); obtain it again") from error
    faults = np.frombuffer(judged, np.int8)
    lost = np.flatnonzero(faults)
    if not faults.size:
        raise ValueError(f"{path} is empty; it should have lines of user TAB MBID TAB artist TAB plays")
    if lost.size == faults.size:
        raise ValueError(
            f"{path} holds no valid line (user TAB MBID TAB artist TAB plays); line 1: {_FAULTS[faults[0]]}"
        )
    if lost.size and errors == "raise":
        raise ValueError(
            f"{path}, line {lost[0] + 1:,}: {_FAULTS[faults[lost[0]]]} ({lost.size:,} such lines in all); correct "
            f"them, or leave them out with errors='report'"
        )
    rejected = pd.DataFrame({"number": lost + 1, "reason": _FAULTS[faults[lost]]})
    with ThreadPoolExecutor() as pool:
        (rows, row_labels), (columns, column_labels) = pool.map(LabelCoder.sorted, (users, artists))
    pa.default_memory_pool().release_unused()  # which may be more than the matrix takes
    matrix = _csr(rows, columns, np.frombuffer(plays, np.float32), (len(row_labels), len(column_labels)))
    interactions = Interactions(matrix, row_labels.to_pandas(), column_labels.to_pandas())
    merged = faults.size - interactions.nnz - lost.size
    interactions.report = Report(faults.size, interactions.nnz, merged, rejected)
    return interactions


def plays_file(path: str | os.PathLike[str]) -> Path:
    """Return the file that `lastfm_360k` reads for `path`: itself, or the plays file in that folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    found = sorted(path.rglob(PLAYS_FILE)) or sorted(path.rglob(PLAYS_FILE + ".gz"))
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} files named {PLAYS_FILE}; give the path of one")
    return found[0]


def _parse_all(stream: IO[bytes], items: str, add: Callable[[_Part], None]) -> None:
    """Parse a stream in threads, block by block, while the next block is read; `add` the parts in order."""
    threads = min(available_cpus(), _MOST_THREADS)
    blocks = _blocks(stream, threads + 2)  # one is read, and of up to threads + 1 the parts are not added yet
    running: deque[Future[list[_Part]]] = deque()

    def add_next() -> None:
        for part in running.popleft().result():
            add(part)

    with ThreadPoolExecutor(threads + 1) as pool:
        upcoming = pool.submit(next, blocks, None)
        try:
            while block := upcoming.result():
                upcoming = pool.submit(next, blocks, None)
                running.append(pool.submit(_parse, block, items))
                if len(running) > threads:
                    add_next()
        finally:  # also to tell how far a file is good
            while running:
                add_next()


def _blocks(stream: IO[bytes], n_buffers: int) -> Iterator[memoryview]:
    """Yield the stream, without a byte order mark, in blocks of whole lines, of which `n_buffers` exist at a time."""
    rest = stream.read(3).removeprefix(_BOM)
    for buffer in cycle([bytearray(_BLOCK) for _ in range(n_buffers)]):
        view, end = memoryview(buffer), len(rest)
        view[:end] = rest
        while size := stream.readinto(view[end : end + _PIECE]):
            end += size
        if end == len(rest):
            break
        whole = buffer.rfind(b"\n", 0, end) + 1
        if not whole and end == _BLOCK:
            raise _LineTooLongError(f"the next line has more than {_BLOCK:,} bytes")
        rest = bytes(view[whole:end])
        if whole:
            yield view[:whole]
    if rest:
        yield memoryview(rest)


def _parse(block: memoryview, items: str) -> list[_Part]:
    """Judge the lines of a block."""
    columns = _read_csv(block, items)
    if columns is not None:
        return [_judge(columns, items)]
    middle = bytes(block).find(b"\n", len(block) // 2) + 1
    if len(block) > _FEW and 0 < middle < len(block):
        return _parse(block[:middle], items) + _parse(block[middle:], items)
    columns, broken = _split(bytes(block))
    part = _judge(columns, items)
    broken[broken == 0] = part.faults
    return [part._replace(faults=broken)]


def _read_csv(block: memoryview, items: str) -> _Columns | None:
    """Return the columns of a block, a blank line as four empty fields, or None if Python has to split its lines."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    data = pa.py_buffer(block)
    text = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(block)])), data])

    def read(*fields: str) -> _Columns:
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(column_names=_COLUMNS, block_size=len(block), use_threads=False),
            csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(
                column_types=dict.fromkeys(_COLUMNS, pa.dictionary(pa.int32(), pa.large_string())),
                include_columns=fields,
                null_values=[],
                check_utf8=False,
            ),
        )
        return {name: table[name].combine_chunks() for name in fields}

    try:
        text.validate(full=True)  # as UTF-8, at once and not field by field
        # To arrow a lone CR ends a line, and what looks like a byte order mark is none of the text.
        if block[:3] == _BOM or pc.match_substring_regex(text, r"\r([^\n]|$)")[0].as_py():
            return None
        if items == "name":
            columns = read("user", "name", "plays")
            if not pc.any(pc.equal(columns["name"].dictionary, "")).as_py():
                return columns
        return read(*_COLUMNS)
    except pa.ArrowInvalid:  # not UTF-8, or a line that is neither blank nor of 4 fields
        return None


def _split(block: bytes) -> tuple[_Columns, np.ndarray]:
    """Return the columns of the lines that have them, and for each line its index in _FAULTS."""
    import pyarrow as pa

    lines = block.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    broken = np.zeros(len(lines), np.int8)
    rows = []
    for at, line in enumerate(lines):
        fields = line.split(b"\t") if line else [line] * 4
        if len(fields) != 4:
            broken[at] = _FIELDS
            continue
        try:
            rows.append([field.decode() for field in fields])
        except UnicodeDecodeError:
            broken[at] = _UTF8
    columns = ([row[at] for row in rows] for at in range(4))
    texts = (pa.array(column, pa.large_string()).dictionary_encode() for column in columns)
    return dict(zip(_COLUMNS, texts, strict=True)), broken


def _judge(columns: _Columns, items: str) -> _Part:
    """Judge lines by the distinct values in their columns: where those are all good, no line needs a look."""
    import pyarrow as pa
    import pyarrow.compute as pc

    (user, users), (artist, artists), (count, counts) = (_coded(columns[name]) for name in ("user", items, "plays"))
    faults = np.zeros(len(user), np.int8)

    def mark(fault: int, wrong: np.ndarray, codes: np.ndarray) -> None:
        if wrong.any():
            faults[wrong[codes]] = fault

    numeric = pc.match_substring_regex(counts, "^[0-9]{1,18}$")
    plays = pc.if_else(numeric, counts, "-1").cast(pa.int64()).to_numpy()
    mark(_PLAYS, plays < 0, count)
    mark(_ZERO, plays == 0, count)
    nameless = _mask(pc.equal(artists, ""))
    if nameless.any():
        other, others = _coded(columns["mbid" if items == "name" else "name"])
        artist = np.where(nameless[artist], len(artists) + other, artist)
        artists = pa.concat_arrays([artists, others])
        mark(_ARTIST, _mask(pc.equal(artists, "")), artist)
    mark(_USER, ~_mask(pc.match_substring_regex(users, "^[0-9A-Fa-f]{40}$")), user)
    if faults.any():
        valid = faults == 0
        user, artist, count = user[valid], artist[valid], count[valid]
    return _Part(_in_use(user, users), _in_use(artist, artists), plays.astype(np.float32)[count], faults)


def _coded(column: "pa.DictionaryArray") -> Coded:
    return column.indices.to_numpy(), column.dictionary


def _mask(booleans: "pa.BooleanArray") -> np.ndarray:
    return booleans.to_numpy(zero_copy_only=False)


def _csr(rows: np.ndarray, columns: np.ndarray, plays: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """Return the entries by rows and, in each, by ascending columns; `columns` and `plays` may become part of it."""
    if (rows[:-1] <= rows[1:]).all():  # the original is in order of users, so that nothing has to move
        starts = np.searchsorted(rows, np.arange(shape[0] + 1))
        narrow = np.int32 if rows.size <= np.iinfo(np.int32).max else np.int64  # scipy brings columns to the same
        matrix = sparse.csr_array((plays, columns, starts.astype(narrow)), shape)
    else:
        entries = sparse.coo_array((plays, (rows, columns)), shape)
        entries.has_canonical_format = True  # else tocsr sums repeats, in float32
        matrix = entries.tocsr()
    matrix.sort_indices()
    return matrix


def _in_use(codes: np.ndarray, labels: "pa.Array") -> Coded:
    """Leave out the labels without a code."""
    import pyarrow as pa

    used = np.zeros(len(labels), bool)
    used[codes] = True
    if used.all():
        return codes, labels
    return (np.cumsum(used, dtype=np.int32) - np.int32(1))[codes], labels.filter(pa.array(used))
