"""Reader for the Last.fm data set of 360,000 users (Òscar Celma, 2010; doi:10.5281/zenodo.6090214)."""

import contextlib
import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from alscore.interactions import Interactions

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PLAYS_FILE = "usersha1-artmbid-artname-plays.tsv"
_BLOCK = 1 << 24  # bytes read at a time
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
_Coded = tuple[np.ndarray, "pa.Array"]  # int32 codes, and the labels that they number


def lastfm_360k(path: str | os.PathLike[str], items: str = "name") -> Interactions:
    """Read the plays file of Last.fm 360K: ``user SHA-1 TAB artist MBID TAB artist name TAB plays``.

    Lines end with LF (or CRLF); all else in a name, quotes and CR included, is text and kept to the letter.
    Repeats of a user and item are summed. No line is lost silently: see `Interactions.report`.

    Parameters
    ----------
    path : str or path
        The original archive (``.tar.gz``, read in place), the plays file (plain or gzipped), or a folder that
        holds it at any depth.
    items : {"name", "mbid"}
        What identifies an artist: the name (the MBID where the name is empty), or the MusicBrainz identifier
        (the name where there is none).

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
        No plays file in the archive or folder, no valid line in the file, or a damaged archive.
    """
    import pandas as pd

    if items not in ("name", "mbid"):
        raise ValueError(f"items must be 'name' or 'mbid', not {items!r}")
    parts: list[tuple[_Coded, _Coded, np.ndarray, np.ndarray]] = []
    try:
        with _open(plays_file(path)) as stream:
            parts.extend(_parse(block, items) for block in _blocks(stream))
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.ReadError) as error:
        after = sum(len(part[-1]) for part in parts)
        raise ValueError(f"{path} is damaged after line {after:,} ({error}); obtain it again") from error
    if not parts:
        raise ValueError(f"{path} is empty; it should have lines of user TAB MBID TAB artist TAB plays")
    users, artists, plays, judged = zip(*parts, strict=True)
    faults = np.concatenate(judged)
    lost = np.flatnonzero(faults)
    if lost.size == faults.size:
        raise ValueError(
            f"{path} holds no valid line (user TAB MBID TAB artist TAB plays); line 1: {_FAULTS[faults[0]]}"
        )
    rejected = pd.DataFrame({"number": lost + 1, "reason": _FAULTS[faults[lost]]})
    return Interactions._from_codes(
        *_unify(users), *_unify(artists), np.concatenate(plays), ("user", "artist", "plays"), rejected, faults.size
    )


def plays_file(path: str | os.PathLike[str]) -> Path:
    """Return the file that `lastfm_360k` reads for `path`: itself, or the plays file in that folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    found = sorted(path.rglob(PLAYS_FILE)) or sorted(path.rglob(PLAYS_FILE + ".gz"))
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} files named {PLAYS_FILE}; give the path of one")
    return found[0]


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Yield the plays in an archive or file as a binary stream."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path, "r|*") as archive:
            named = (archive.extractfile(m) for m in archive if m.isfile() and Path(m.name).name == PLAYS_FILE)
            plays = next(named, None)
            if plays is None:
                raise ValueError(
                    f"{path} is an archive without {PLAYS_FILE}; the original is lastfm-dataset-360K.tar.gz"
                )
            yield plays
    else:
        with path.open("rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if gzipped else path.open("rb") as stream:
            yield stream


def _blocks(stream: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """Yield the stream in blocks of whole lines."""
    rest = b""
    while block := stream.read(_BLOCK):
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
        else:
            rest += block
    if rest:
        yield rest


def _parse(block: bytes, items: str) -> tuple[_Coded, _Coded, np.ndarray, np.ndarray]:
    """Split a block into lines and judge each.

    Return (users, artists, plays, faults): of the valid lines, users, artists and float32 plays; of every line, the
    index into _FAULTS.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    # To arrow a lone CR ends a line, so hide it behind bytes that UTF-8 never has.
    mark = b"\r"
    if mark in block:
        block, mark = block.replace(b"\r\n", b"\n"), b"\xff"
        while mark in block:
            mark += b"\xff"
        block = block.replace(b"\r", mark)

    faults = np.zeros(block.count(b"\n") + (not block.endswith(b"\n")), np.int8)
    try:
        table = _read_csv(block)
    except pa.ArrowInvalid:  # the one thing that stops arrow: a line that is neither blank nor of 4 fields
        lines = block.splitlines()
        faults[[line.count(b"\t") != 3 and line != b"" for line in lines]] = _FIELDS
        table = _read_csv(b"".join(lines[at] + b"\n" for at in np.flatnonzero(faults == 0)))
    columns = [column.combine_chunks() for column in table.columns]
    user, mbid, name, count = (column.indices.to_numpy() for column in columns)
    users, mbids, names = (_decode(column.dictionary, mark) for column in columns[:3])
    counts = np.array(
        [int(text) if re.fullmatch(rb"[0-9]{1,18}", text) else -1 for text in columns[3].dictionary.to_pylist()],
        np.int64,
    )

    fault = np.where(counts > 0, 0, np.where(counts == 0, _ZERO, _PLAYS)).astype(np.int8)[count]
    fault[_mask(pc.equal(mbids, ""))[mbid] & _mask(pc.equal(names, ""))[name]] = _ARTIST
    fault[~_mask(pc.match_substring_regex(users, "^[0-9A-Fa-f]{40}$"))[user]] = _USER
    for codes, labels in ((user, users), (mbid, mbids), (name, names)):
        fault[_mask(labels.is_null())[codes]] = _UTF8
    valid = fault == 0

    artist, artists, other, others = name, names, mbid, mbids
    if items == "mbid":
        artist, artists, other, others = mbid, mbids, name, names
    missing = valid & _mask(pc.equal(artists, ""))[artist]
    needed, substitute = np.unique(other[missing], return_inverse=True)
    artist = artist.copy()
    artist[missing] = len(artists) + substitute
    artists = pa.concat_arrays([artists, others.take(pa.array(needed))])

    faults[faults == 0] = fault
    return (user[valid], users), (artist[valid], artists), counts[count[valid]].astype(np.float32), faults


def _read_csv(block: bytes) -> "pa.Table":
    """Return the table of a block of lines, blank ones as four empty fields.

    Columns are binary and dictionary-encoded, so no value stops arrow, and checks run over distinct values.
    """
    import pyarrow as pa
    from pyarrow import csv

    columns = dict.fromkeys(("user", "mbid", "name", "plays"), pa.dictionary(pa.int32(), pa.binary()))
    if not block:
        return pa.schema(columns).empty_table()
    return csv.read_csv(
        pa.BufferReader(block),
        csv.ReadOptions(column_names=list(columns), block_size=len(block)),
        csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False),
        csv.ConvertOptions(column_types=columns, null_values=[]),
    )


def _decode(labels: "pa.Array", mark: bytes) -> "pa.Array":
    """Return binary labels as text, null where they are not UTF-8, with CR for every `mark`."""
    import pyarrow as pa

    if mark == b"\r":
        with contextlib.suppress(pa.ArrowInvalid):
            return labels.cast(pa.large_string())
    texts = []
    for label in labels.to_pylist():
        try:
            texts.append(label.replace(mark, b"\r").decode())
        except UnicodeDecodeError:
            texts.append(None)
    return pa.array(texts, pa.large_string())


def _mask(booleans: "pa.Array") -> np.ndarray:
    """Return an arrow array of booleans as numpy, null as False."""
    return booleans.fill_null(False).to_numpy(zero_copy_only=False)


def _unify(parts: Iterable[_Coded]) -> tuple[np.ndarray, "pd.Index"]:
    """Join (codes, labels) of all blocks: return codes into one pandas Index of distinct labels."""
    import pandas as pd
    import pyarrow as pa

    labels = pa.concat_arrays([labels for _, labels in parts]).fill_null("").dictionary_encode()
    starts = np.cumsum([0] + [len(labels) for _, labels in parts])
    unified = labels.indices.to_numpy()
    codes = [unified[start:][codes] for start, (codes, _) in zip(starts, parts, strict=False)]
    return np.concatenate(codes), pd.Index(labels.dictionary.to_pandas())
