"""The Last.fm 360K reader: to the letter, and no line lost without a word."""

import gzip
import io
import os
import re
import tarfile
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alscore.datasets import _labels, lastfm, lastfm_360k

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
            fields = line.split(b"\t") if line else [b""] * 4
            if len(fields) != 4:
                raise ValueError("not 4 fields")
            try:
                user, mbid, name, count = (text.decode() for text in fields)
            except UnicodeDecodeError as error:
                raise ValueError("not UTF-8") from error
            if len(user) != 40 or set(user) - set("0123456789abcdefABCDEF"):
                raise ValueError("user is not a SHA-1")
            if not mbid and not name:
                raise ValueError("neither artist name nor MBID")
            if not count or set(count) - set("0123456789") or len(count) > 18:
                raise ValueError("plays is not a positive integer")
            if int(count) == 0:
                raise ValueError("plays is zero")
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


@pytest.fixture(scope="module")
def real(shared_data):
    return gzip.decompress((shared_data / "lastfm-360k-first10000" / f"{PLAYS}.gz").read_bytes())


def tar_gz(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


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
def test_real_lines_in_small_blocks(read, real, monkeypatch, threads):
    monkeypatch.setattr(lastfm, "_BLOCK", 1000)
    monkeypatch.setattr(_labels, "_MANY", 10)
    monkeypatch.setattr(lastfm, "available_cpus", lambda: threads)
    check(read(real), real)


def test_real_lines_with_a_broken_one_here_and_there(read, real):
    lines = real.split(b"\n")
    broken = {0: b"", 3_000: b"?", 3_001: ANN.encode() + b"\tm\tn\t0", 9_000: b"\xff\t\t\t", 9_001: b"a\rb"}
    for at, line in broken.items():
        lines.insert(at, line)
    raw = b"\n".join(lines)
    interactions = read(raw)
    check(interactions, raw)
    assert list(interactions.report.rejected["number"]) == [at + 1 for at in broken]
    with pytest.raises(ValueError, match=r"plays\.tsv, line 1: user is not a SHA-1 \(5 such lines in all\); correct"):
        read(raw, errors="raise")
    with pytest.raises(ValueError, match=r"line 3,000: not 4 fields \(4 such"):
        read(raw[1:], errors="raise")
    check(read(real, errors="raise"), real)


def test_every_container_reads_the_same(tmp_path):
    (tmp_path / "plain.tsv").write_bytes(GOOD)
    (tmp_path / "zipped.tsv.gz").write_bytes(gzip.compress(GOOD))
    (tmp_path / "unpacked" / "lastfm-dataset-360K").mkdir(parents=True)
    (tmp_path / "unpacked" / "lastfm-dataset-360K" / PLAYS).write_bytes(GOOD)
    (tmp_path / "gzipped_folder").mkdir()
    (tmp_path / "gzipped_folder" / f"{PLAYS}.gz").write_bytes(gzip.compress(GOOD))
    tar_gz(
        tmp_path / "lastfm-dataset-360K.tar.gz",
        {
            "lastfm-dataset-360K/README.txt": b"about",
            "lastfm-dataset-360K/usersha1-profile.tsv": b"a\tb\n",
            f"lastfm-dataset-360K/{PLAYS}": GOOD,
            "lastfm-dataset-360K/mbox_sha1sum.py": b"pass",
        },
    )
    for name in ("plain.tsv", "zipped.tsv.gz", "unpacked", "gzipped_folder", "lastfm-dataset-360K.tar.gz"):
        check(lastfm_360k(tmp_path / name), GOOD)
        check(lastfm_360k(str(tmp_path / name)), GOOD)


@pytest.mark.parametrize(
    "line",
    [
        b"sep 20, 2008\tm\tn\t1",
        ANN.encode() + b"\t\t\t5",
        ANN.encode() + b"\tm\tn\t0",
        ANN.encode() + b"\tm\tn\t-5",
        ANN.encode() + b"\tm\tn\t3.7",
        ANN.encode() + b"\tm\tn\tNaN",
        ANN.encode() + b"\tm\tn\t1e309",
        ANN.encode() + b"\tm\tn\t" + b"9" * 5000,
        ANN.encode() + b"\tm\tn\t ",
        ANN.encode() + b"\tm\tn\t",
        ANN.encode() + b"\tm\tn",
        ANN.encode() + b"\tm\tn\t1\t",
        b"",
        b"\t\t\t",
        b"?",
        b"\xff\t\xfe\t",
        ANN.encode() + b"\tm\t\xff\t1",
        ANN.encode() + b"\t\xc3\t\xc3\xa9\t1",
        b"\xff" * 40 + b"\tm\tn\t1",
        ANN[1:].encode() + b"\tm\tn\t1",
        b"g" + ANN[1:].encode() + b"\tm\tn\t1",
        ANN.encode() + b"\tm\tn\t1\r2",
        ANN.encode() + b"\tm\t\xed\xa0\x80\t1",
        ANN.encode() + b"\tm\tn\xff\r\t1",
        ANN.encode() + b"\tm\tn\t1\xff",
        b"\xef\xbb\xbf" + ANN.encode() + b"\tm\tn\t1",
        ANN.encode() + b"\tm\tn\t+1",
        ANN.encode() + b"\tm\tn\t 1",
        ANN.encode() + b"\tm\tn\t0x1f",
        ANN.encode() + "\tm\tn\t٣".encode(),
    ],
)
def test_each_bad_line_is_reported(read, line):
    for raw in (GOOD + line + b"\n" + GOOD, b"\xef\xbb\xbf" + line + b"\n" + GOOD, GOOD + line + b"\n"):
        interactions = read(raw)
        check(interactions, raw)
        assert len(interactions.report.rejected) == 1


@pytest.mark.parametrize(
    "name",
    [
        "null",
        "NaN",
        "n/a",
        "",
        "2",
        " mala rodriguez",
        '"',
        '""',
        '"a',
        "'",
        "\\",
        "a\rb",
        "\r\r",
        "a\r",
        "é\r",
        "\x00",
        "x" * 10_000_000,
        "\ufeff",
    ],
)
def test_names_are_kept_to_the_letter(read, name):
    raw = f"{ANN}\tmbid\t{name}\t1\n".encode() + GOOD
    interactions = read(raw)
    check(interactions, raw)
    assert (name or "mbid") in set(interactions.items)


def test_line_ends(read):
    crlf = GOOD.replace(b"\n", b"\r\n")
    for raw in (crlf, GOOD.rstrip(b"\n"), crlf + GOOD, GOOD + b"\n\n", b"\xef\xbb\xbf" + GOOD):
        check(read(raw), raw)
    assert set(read(crlf).items) == {"radiohead", 'the "weird" band'}


def test_repeats_are_summed_also_across_blocks(read, monkeypatch):
    monkeypatch.setattr(lastfm, "_BLOCK", 200)
    interactions = read(GOOD * 50)
    check(interactions, GOOD * 50)
    assert (interactions.report.kept, interactions.report.merged) == (2, 98)
    np.testing.assert_array_equal(interactions.matrix.data, [150, 350])
    in_order = b"".join(line * 20 for line in sorted(GOOD.splitlines(keepends=True)))
    check(read(in_order), in_order)


def test_mbid_or_name_identifies_the_artist(read):
    rows = "m1 one 1", "m1 uno 2", " one 4", "m2  8", "m3 one 16"
    raw = "".join(f"{ANN}\t{row}\n".replace(" ", "\t") for row in rows).encode()
    by_name, by_mbid = read(raw), read(raw, items="mbid")
    assert dict(zip(by_name.items, by_name.matrix.data, strict=True)) == {"m2": 8, "one": 21, "uno": 2}
    assert dict(zip(by_mbid.items, by_mbid.matrix.data, strict=True)) == {"m1": 3, "m2": 8, "m3": 16, "one": 4}


REPLACEMENTS = [b"", b"\t", b"\n", b"\n\n\n", b"\r", b"\r\n", b'"', b"\xff", b"\xff\xff", b"\xc3", b"\x00", b"0", b"-"]


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.sampled_from(REPLACEMENTS)), max_size=12),
    st.sampled_from([1000, 3000, 1 << 24]),
    st.sampled_from(["name", "mbid"]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_lines(read, mutations, block, items):
    raw = (GOOD * 3 + f"{BOB}\tm2\tbjörk\t12\n{ANN}\t\tmúm\t4\n".encode()) * 4
    for at, length, replacement in mutations:
        at %= len(raw)
        raw = raw[:at] + replacement + raw[at + length :]
    raw = GOOD + raw  # the first lines stay valid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lastfm, "_BLOCK", max(block, 1 + max(map(len, raw.split(b"\n")))))
        patch.setattr(lastfm, "_FEW", 100)
        check(read(raw, items=items), raw, items)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"user,artist,plays\n1,2,3\n", "holds no valid line.*line 1: not 4 fields"),
        (bytes(range(256)) * 20, "holds no valid line"),
        (b"\n", "holds no valid line"),
        (gzip.compress(b""), "is empty"),
        (gzip.compress(GOOD * 9)[:-12], "damaged after line"),
        (gzip.compress(GOOD * 9)[:60] + bytes(40), "damaged after line"),
        (gzip.compress(GOOD) + b"x" * 9, "damaged after line 0"),
        (GOOD * 999 + b"x" * 99_999, r"damaged after line 1,998 \(the next line has more than 9,999 bytes\)"),
    ],
)
def test_a_file_without_plays_is_refused(read, raw, message, monkeypatch):
    monkeypatch.setattr(lastfm, "_BLOCK", 9_999)
    with pytest.raises(ValueError, match=r"plays\.tsv.*" + message):
        read(raw)


def test_a_truncated_archive_is_refused(tmp_path):
    content = np.random.default_rng(0).bytes(200_000).hex().encode()  # does not compress into one gzip block
    whole = tar_gz(tmp_path / "whole.tar.gz", {PLAYS: GOOD + content}).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.tar\.gz is damaged after line 0"):
        lastfm_360k(tmp_path / "cut.tar.gz")


def test_a_damaged_file_is_good_up_to_a_line(tmp_path, real, monkeypatch):
    monkeypatch.setattr(lastfm, "_BLOCK", 10_000)
    lines = real.splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines])
    cut = gzip.compress(real)[:-50_000]
    (tmp_path / "plays.tsv.gz").write_bytes(cut)
    with pytest.raises(ValueError, match=r"plays\.tsv\.gz is damaged after line [0-9,]+ ") as error:
        lastfm_360k(tmp_path / "plays.tsv.gz")
    told = int(re.search("line ([0-9,]+)", str(error.value))[1].replace(",", ""))
    good = len(zlib.decompressobj(31).decompress(cut))
    assert good - 200_000 < ends[told - 1] <= good


def test_more_labels_than_codes(read, monkeypatch):
    monkeypatch.setattr(_labels, "_MOST", 3)
    raw = "".join(f"{ANN}\tm\tartist {number}\t1\n" for number in range(4)).encode()
    assert read(raw[: raw.rfind(b"artist 3") - len(ANN) - 3]).shape == (1, 3)
    with pytest.raises(ValueError, match=r"plays\.tsv: artists: more labels than the 3 that int32 codes tell apart"):
        read(raw)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(ValueError, match=f"{path} is not a regular file"):
            lastfm_360k(path)


def test_where_there_is_no_plays_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        lastfm_360k(tmp_path / "nowhere.tsv")
    with pytest.raises(ValueError, match=f"holds 0 files named {re.escape(PLAYS)}"):
        lastfm_360k(tmp_path)
    with pytest.raises(ValueError, match=f"is an archive without {re.escape(PLAYS)}"):
        lastfm_360k(tar_gz(tmp_path / "other.tar.gz", {"readme.txt": b"hello"}))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / PLAYS).write_bytes(GOOD)
    with pytest.raises(ValueError, match="holds 2 files"):
        lastfm_360k(tmp_path)
    with pytest.raises(ValueError, match="items must be 'name' or 'mbid', not 'artist'"):
        lastfm_360k(tmp_path / "one", items="artist")
    with pytest.raises(ValueError, match="errors must be 'report' or 'raise', not 'drop'"):
        lastfm_360k(tmp_path / "one", errors="drop")
