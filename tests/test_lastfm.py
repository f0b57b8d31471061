"""The reader for Last.fm 360K: real plays and label codes. test_delimited.py tests what all readers share."""

import gzip
import re
import zlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from alscore.datasets import lastfm_360k
from alscore.datasets._delimited import Lines
from alscore.datasets._label_coder import LabelCoder
from alscore.datasets.lastfm import PLAYS_FORMATS, read_plays

PLAYS = "usersha1-artmbid-artname-plays.tsv"
ANN, BOB = "a" * 40, "0123456789" * 4
GOOD = f'{ANN}\tm1\tradiohead\t7\n{BOB}\t\tthe "weird" band\t3\n'.encode()


def by_line(raw, items="name"):
    """Independent reading with str.split: ({(user, artist): plays}, {line number: reason})."""
    plays, rejected = Counter(), {}
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, 1):
        line = line.removesuffix(b"\r") if number < len(lines) or raw.endswith(b"\n") else line
        try:
            try:
                fields = line.decode().split("\t") if line else [""] * 4
            except UnicodeDecodeError as error:
                raise ValueError("not UTF-8") from error
            if len(fields) != 4:
                raise ValueError("not 4 fields")
            user, mbid, name, count = fields
            if not re.fullmatch("[0-9a-fA-F]{40}", user):
                raise ValueError("user is not a SHA-1")
            if not re.fullmatch("[1-9][0-9]{0,17}", count):
                raise ValueError("plays is not a positive integer")
            if not mbid and not name:
                raise ValueError(f"neither {items} nor {'mbid' if items == 'name' else 'name'}")
        except ValueError as error:
            rejected[number] = str(error)
        else:
            plays[user, (name or mbid) if items == "name" else (mbid or name)] += int(count)
    return plays, rejected


def check(interactions, raw, items="name"):
    plays, rejected = by_line(raw, items)
    matrix, users, artists = interactions.matrix, list(interactions.users), list(interactions.items)
    assert users == sorted({user for user, _ in plays})
    assert artists == sorted({artist for _, artist in plays})
    rows = np.repeat(np.arange(len(users)), np.diff(matrix.indptr))
    read = {(users[u], artists[i]): v for u, i, v in zip(rows, matrix.indices, matrix.data, strict=True)}
    assert read == {pair: np.float32(count) for pair, count in plays.items()}
    report = interactions.report
    assert dict(report.rejected.itertuples(index=False, name=None)) == rejected
    assert report.read == raw.count(b"\n") + (not raw.endswith(b"\n"))
    assert report.read == report.kept + report.merged + len(report.rejected)
    assert report.kept == len(plays)


@pytest.fixture
def read(tmp_path):
    """Write bytes to a plays file and read them."""

    def write_and_read(raw, **options):
        path = tmp_path / "plays.tsv"
        path.write_bytes(raw)
        return lastfm_360k(path, **options)

    return write_and_read


@pytest.fixture
def read_in_blocks(tmp_path):
    """Write bytes to a plays file and read them in blocks; `limits` are those of LabelCoder."""

    def write_and_read(raw, block_bytes, threads=None, **limits):
        path = tmp_path / "plays.tsv"
        path.write_bytes(raw)
        lines = Lines(path, PLAYS_FORMATS["name"], "report", block_bytes=block_bytes, threads=threads)
        return read_plays(lines, **limits)

    return write_and_read


@pytest.fixture(scope="module")
def real(shared_data):
    return gzip.decompress((shared_data / "lastfm-360k-first10000" / f"{PLAYS}.gz").read_bytes())


@pytest.mark.parametrize("items", ["name", "mbid"])
def test_real_lines(shared_data, real, items):
    interactions = lastfm_360k(shared_data / "lastfm-360k-first10000", items=items)
    check(interactions, real, items)
    assert interactions.shape == (205, {"name": 5460, "mbid": 5440}[items])
    assert interactions.report.kept == 10_000
    quoted = {
        'marcin "cedyn" czartynski',
        'soil&"pimp" sessions',
        'lee "scratch" perry',
        'lee "scratch" perry & the upsetters',
        'brian "head" welch',
        '"weird al" yankovic',
    }
    if items == "name":
        assert quoted <= set(interactions.items)


@pytest.mark.parametrize("threads", [1, 4])
def test_real_lines_in_small_blocks(read_in_blocks, real, threads):
    check(read_in_blocks(real, 1000, threads, batch=10), real)


def test_real_lines_with_a_broken_one_here_and_there(read, real):
    lines = real.split(b"\n")
    broken = {0: b"", 3_000: b"?", 3_001: ANN.encode() + b"\tm\tn\t0", 9_000: b"\xff\t\t\t", 9_001: b"a\rb"}
    for at, line in broken.items():
        lines.insert(at, line)
    raw = b"\n".join(lines)
    interactions = read(raw)
    check(interactions, raw)
    assert list(interactions.report.rejected["number"]) == [at + 1 for at in broken]
    with pytest.raises(ValueError, match=r"plays\.tsv .*, line 1: user is not a SHA-1; correct"):
        read(raw, errors="raise")
    with pytest.raises(ValueError, match="line 3,000: not 4 fields"):
        read(raw[1:], errors="raise")
    check(read(real, errors="raise"), real)


def test_repeats_are_summed_also_across_blocks(read_in_blocks):
    interactions = read_in_blocks(GOOD * 50, 200)
    check(interactions, GOOD * 50)
    assert (interactions.report.kept, interactions.report.merged) == (2, 98)
    np.testing.assert_array_equal(interactions.matrix.data, [150, 350])
    in_order = b"".join(line * 20 for line in sorted(GOOD.splitlines(keepends=True)))
    check(read_in_blocks(in_order, 200), in_order)


def test_mbid_or_name_identifies_the_artist(read):
    rows = "m1 one 1", "m1 uno 2", " one 4", "m2  8", "m3 one 16"
    raw = "".join(f"{ANN}\t{row}\n".replace(" ", "\t") for row in rows).encode()
    by_name, by_mbid = read(raw), read(raw, items="mbid")
    assert dict(zip(by_name.items, by_name.matrix.data, strict=True)) == {"m2": 8, "one": 21, "uno": 2}
    assert dict(zip(by_mbid.items, by_mbid.matrix.data, strict=True)) == {"m1": 3, "m2": 8, "m3": 16, "one": 4}


def test_a_damaged_file_is_good_up_to_a_line(tmp_path, real):
    lines = real.splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines])
    cut = gzip.compress(real)[:-50_000]
    (tmp_path / "plays.tsv.gz").write_bytes(cut)
    in_blocks = Lines(tmp_path / "plays.tsv.gz", PLAYS_FORMATS["name"], "report", block_bytes=10_000)
    with pytest.raises(ValueError, match=r"plays\.tsv\.gz .*is damaged after line [0-9,]+ ") as error:
        read_plays(in_blocks)
    told = int(re.search("line ([0-9,]+)", str(error.value))[1].replace(",", ""))
    good = len(zlib.decompressobj(31).decompress(cut))
    assert good - 200_000 < ends[told - 1] <= good


def test_more_labels_than_codes(read_in_blocks):
    raw = "".join(f"{ANN}\tm\tartist {number}\t1\n" for number in range(4)).encode()
    assert read_in_blocks(raw[: raw.rfind(ANN.encode())], 1000, max_labels=3).shape == (1, 3)
    with pytest.raises(ValueError, match=r"plays\.tsv: artists: more labels than the 3 that int32 codes tell apart"):
        read_in_blocks(raw, 1000, max_labels=3)


def test_labels_that_come_again_are_not_counted_again(read_in_blocks):
    raw = b"".join(b"%s\tm\tartist %d\t1\n" % (ANN.encode(), number % 3) for number in range(20))
    check(read_in_blocks(raw, 100, max_labels=5), raw)  # 3 labels are known, and a block has up to 2


@pytest.mark.parametrize("batch", [1, 3, 1 << 16])
def test_labels_are_numbered_in_ascending_order(batch):
    rng = np.random.default_rng(0)
    texts = [[f"label {number}" for number in rng.integers(50, size=size)] for size in (1, 30, 0, 7, 200)]
    coder = LabelCoder("labels", batch=batch)
    for block in texts:
        column = pa.array(block, pa.large_string()).dictionary_encode()
        unused = pa.concat_arrays([column.dictionary, pa.array(["unused"], pa.large_string())])
        coder.add(pa.DictionaryArray.from_arrays(column.indices, unused))
    codes, labels = coder.sorted()
    assert codes.dtype == np.int32
    assert labels.to_pylist() == sorted({text for block in texts for text in block})
    assert labels.take(pa.array(codes)).to_pylist() == [text for block in texts for text in block]


def test_items_is_verified(tmp_path):
    with pytest.raises(ValueError, match="items must be 'name' or 'mbid', not 'artist'"):
        lastfm_360k(tmp_path, items="artist")
