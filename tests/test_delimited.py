"""What all readers of delimited text share: text stays unchanged, and every line is read or reported."""

import functools
import gzip
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alscore.datasets import hetrec, lastfm, lastfm_profiles
from alscore.datasets._blocks import BOM, LineTooLongError, blocks
from alscore.datasets._delimited import FileFormat, Lines, read_interactions
from alscore.datasets.lastfm_1k import (
    EVENTS_FORMAT,
    PLAY_COUNT_FORMATS,
    lastfm_1k,
    lastfm_1k_events,
    read_events,
    read_play_counts,
)
from alscore.datasets.movielens import CSV_FORMATS, DAT_FORMATS, movielens, read_ratings

# An independent reader, line by line with str.split and re. It has a function for each field, which returns the value
# or raises the reason why the line is rejected.


def number(text, name):
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise ValueError(f"{name} is not a positive integer")
    return int(text)


def age(text, name):
    if text and not re.fullmatch("-?[0-9]{1,9}", text):
        raise ValueError(f"{name} is not a whole number")
    return int(text) if text else None


def gender(text, name):
    if text not in ("f", "m", ""):
        raise ValueError(f"{name} is not m or f")
    return text or None


def optional(text, name):
    return text or None


def required(text, name):
    if not text:
        raise ValueError(f"{name} is empty")
    return text


def sha1(text, name):
    if not re.fullmatch("[0-9a-fA-F]{40}", text):
        raise ValueError(f"{name} is not a SHA-1")
    return text


def user_1k(text, name):
    if not re.fullmatch("user_[0-9]{6}", text):
        raise ValueError(f"{name} is not user_ and six digits")
    return text


def instant(text, name):
    try:
        if len(text) != 20 or not text.isascii():
            raise ValueError(text)
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise ValueError(f"{name} is not YYYY-MM-DDThh:mm:ssZ") from None


def day(text, name):
    try:
        if not re.fullmatch("[A-Z][a-z][a-z] [0-9]{1,2}, [0-9]{4}", text):
            raise ValueError(text)
        return datetime.strptime(text, "%b %d, %Y")
    except ValueError:
        if text:
            raise ValueError(f"{name} is not a date such as Feb 1, 2007") from None
        return None


def rating(text, name):
    if not re.fullmatch(r"(0|[1-9][0-9]?)(\.[0-9]{1,6})?", text) or not float(text):
        raise ValueError(f"{name} is not a positive decimal number")
    return float(text)


def seconds(text, name):
    if not re.fullmatch("[0-9]{1,15}", text):
        raise ValueError(f"{name} is not whole seconds")
    return int(text)


def milliseconds(text, name):
    if not re.fullmatch("-?[0-9]{1,15}", text):
        raise ValueError(f"{name} is not whole milliseconds")
    return int(text)


def unused(text, name):
    return None


def by_line(case, raw):
    """Return (a tuple of values for each valid line, {line number: reason})."""
    rows, rejected = [], {}
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for at, line in enumerate(lines, 1):
        if at == 1 and case.header:
            continue
        if at < len(lines) or raw.endswith(b"\n"):
            line = line.removesuffix(b"\r")
        try:
            try:
                text = line.decode()
            except UnicodeDecodeError:
                if case.name != "tags":
                    raise ValueError("not UTF-8") from None
                text = line.decode("latin-1")
            fields = text.split(case.delimiter) if text else [""] * len(case.fields)
            if len(fields) != len(case.fields):
                raise ValueError(f"not {len(case.fields)} fields")
            row = [parse(text, name) for text, (name, parse) in zip(fields, case.fields.items(), strict=True)]
            values = dict(zip(case.fields, row, strict=True))
            if case.any_of and not any(values[name] for name in case.any_of):
                raise ValueError(f"neither {' nor '.join(case.any_of)}")
        except ValueError as error:
            rejected[at] = str(error)
        else:
            rows.append(tuple(row))
    return rows, rejected


def entries(interactions):
    """Return {(user, item): (value, timestamp)}."""
    table = interactions.to_pandas()
    times = interactions.timestamps if interactions.timestamps is not None else [None] * len(table)
    pairs = zip(table["user"], table["item"], strict=True)
    return dict(zip(pairs, zip(table["value"], times, strict=True), strict=True))


def entry_rows(table):
    """Return the rows of a pandas or pyarrow table as tuples, with None for what is missing."""
    if isinstance(table, pd.DataFrame):
        if isinstance(table.dtypes.get("timestamp"), pd.DatetimeTZDtype):
            table = table.assign(timestamp=table["timestamp"].dt.tz_convert(None).astype("int64"))
        return [tuple(None if pd.isna(x) else x for x in row) for row in table.itertuples(index=False)]
    return [
        tuple(int(x.timestamp()) if isinstance(x, datetime) else x for x in row.values()) for row in table.to_pylist()
    ]


def counted(artist, other):
    def sums(rows):
        total = {}
        for row in rows:
            pair = row[0], row[artist] or row[other]
            plays, last = total.get(pair, (0, row[1]))
            total[pair] = plays + 1, max(last, row[1])
        return total

    return sums


def summed(rows):
    total = {}
    for user, item, plays in rows:
        total[user, item] = total.get((user, item), 0) + plays
    return {pair: (np.float32(plays), None) for pair, plays in total.items()}


def summed_by(artist, other):
    return lambda rows: summed((row[0], row[artist] or row[other], row[3]) for row in rows)


def latest(rows):
    total = {}
    for user, item, stars, time in sorted(rows, key=lambda row: row[3]):
        total[user, item] = np.float32(stars), time
    return total


class Case(NamedTuple):
    """A data file and its readers: the public one, and the one that takes Lines in blocks of any size."""

    name: str
    file: str
    read: Callable
    file_format: FileFormat
    read_lines: Callable
    header: str
    delimiter: str
    fields: dict
    expected: Callable
    good: str
    any_of: tuple = ()

    def read_in_blocks(self, path, **sizes):
        return self.read_lines(Lines(path, self.file_format, "report", **sizes))


PLAYS = {"user": sha1, "mbid": optional, "name": optional, "plays": number}
EVENT = {"user": user_1k, "timestamp": instant, "artist_id": optional, "artist": optional}
TRACK = {"track_id": optional, "track": optional}
EVENTS_FILE = "userid-timestamp-artid-artname-traid-traname.tsv"
EVENTS = (
    "user_000001\t2009-05-04T23:08:57Z\tm1\tDeep Dish\tt1\tSong\n"
    'user_000001\t2009-05-04T13:54:10Z\t\t坂本 "龍一"\t\tComposition 0919\n'
    "user_000002\t2008-02-29T00:00:00Z\tm1\tDeep Dish\tt1\t\n"
    "user_000001\t2009-05-05T00:00:00Z\tm1\tDeep Dish\tt2\tOther\n"
)
PROFILE = {"user": sha1, "gender": gender, "age": age, "country": optional, "registered": day}
RATING = {"user": number, "item": number, "rating": rating, "timestamp": seconds}
RATINGS = "1,31,2.5,1260759144\n1,1029,3.0,1260759179\n7,31,0.5,851868750\n"


def hetrec_case(table, file, header, fields, good):
    read = functools.partial(hetrec.hetrec_lastfm_2k_table, table=table)
    return Case(table, file, read, hetrec.TABLE_FORMATS[table], hetrec.read_table_of, header, "\t", fields, list, good)


CASES = [
    *(
        Case(
            f"360k {items}",
            "usersha1-artmbid-artname-plays.tsv",
            functools.partial(lastfm.lastfm_360k, items=items),
            lastfm.PLAYS_FORMATS[items],
            lastfm.read_plays,
            "",
            "\t",
            PLAYS,
            summed_by(*map(list(PLAYS).index, any_of)),
            f'{"a" * 40}\tm1\tradiohead\t7\n{"0123456789" * 4}\t\tthe "weird" band\t3\n{"a" * 40}\tm2\t\t1\n',
            any_of,
        )
        for items, any_of in (("name", ("name", "mbid")), ("mbid", ("mbid", "name")))
    ),
    *(
        Case(
            f"1k {items}",
            EVENTS_FILE,
            functools.partial(lastfm_1k, items=items),
            PLAY_COUNT_FORMATS[items],
            read_play_counts,
            "",
            "\t",
            EVENT | dict.fromkeys(TRACK, unused),
            counted(*map(list(EVENT).index, any_of)),
            EVENTS,
            any_of,
        )
        for items, any_of in (("name", ("artist", "artist_id")), ("mbid", ("artist_id", "artist")))
    ),
    Case(
        "1k events",
        EVENTS_FILE,
        lastfm_1k_events,
        EVENTS_FORMAT,
        read_events,
        "",
        "\t",
        EVENT | TRACK,
        list,
        EVENTS,
        ("artist", "artist_id"),
    ),
    Case(
        "360k profiles",
        "usersha1-profile.tsv",
        lastfm_profiles.lastfm_360k_profiles,
        lastfm_profiles.FORMAT_360K,
        lastfm_profiles.read_profiles,
        "",
        "\t",
        PROFILE,
        list,
        f"{'a' * 40}\tf\t22\tGermany\tFeb 1, 2007\n"
        f"{'0123456789' * 4}\t\t\t\t\n"
        f"{'B' * 40}\tm\t-1337\tÅland\tFeb 29, 2008\n",
    ),
    Case(
        "1k profiles",
        "userid-profile.tsv",
        lastfm_profiles.lastfm_1k_profiles,
        lastfm_profiles.FORMAT_1K,
        lastfm_profiles.read_profiles,
        "#id\tgender\tage\tcountry\tregistered\n",
        "\t",
        PROFILE | {"user": user_1k},
        list,
        "user_000001\tm\t\tJapan\tAug 13, 2006\nuser_000002\tf\t25\t\t\n",
    ),
    Case(
        "hetrec",
        "user_artists.dat",
        functools.partial(hetrec.hetrec_lastfm_2k, items="id"),
        hetrec.PLAYS_FORMAT,
        functools.partial(read_interactions, value="plays"),
        "userID\tartistID\tweight\r\n",
        "\t",
        {"user": number, "item": number, "plays": number},
        summed,
        "2\t51\t13883\r\n2\t52\t11690\r\n2\t51\t7\r\n10\t51\t1\r\n",
    ),
    hetrec_case(
        "artists",
        "artists.dat",
        "id\tname\turl\tpictureURL\n",
        {"id": number, "name": required, "url": optional, "picture_url": optional},
        '1\tMALICE MIZER\thttp://a\thttp://b\n2\t"Björk"\thttp://c\t\n3\tNaN\thttp://c\t\n',
    ),
    hetrec_case(
        "tags",
        "tags.dat",
        "tagID\ttagValue\r\n",
        {"id": number, "name": required},
        "1\tmetal\r\n2\tnull\r\n",
    ),
    hetrec_case(
        "friends",
        "user_friends.dat",
        "userID\tfriendID\r\n",
        {"user": number, "friend": number},
        "2\t275\r\n275\t2\r\n",
    ),
    hetrec_case(
        "tag_assignments",
        "user_taggedartists-timestamps.dat",
        "userID\tartistID\ttagID\ttimestamp\r\n",
        {"user": number, "artist": number, "tag": number, "timestamp": milliseconds},
        "2\t52\t13\t1238536800000\r\n2\t52\t15\t-428720400000\r\n",
    ),
    *(
        Case(
            file,
            file,
            functools.partial(movielens, items="id"),
            file_format,
            read_ratings,
            header,
            delimiter,
            RATING,
            latest,
            RATINGS.replace(",", delimiter),
        )
        for file, (file_format, _), header, delimiter in (
            ("ratings.csv", CSV_FORMATS, "userId,movieId,rating,timestamp\n", ","),
            ("ratings.dat", DAT_FORMATS, "", "::"),
        )
    ),
]
every_reader = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def check(case, raw, path, **sizes):
    """Compare a file with the independent reader; return the rejected line numbers.

    The public reader reads it or, if `sizes` are given, the reader of Lines with these sizes.
    """
    rows, rejected = by_line(case, raw)
    result = case.read_in_blocks(path, **sizes) if sizes else case.read(path)
    table, report = result if isinstance(result, tuple) else (None, result.report)
    assert dict(report.rejected.itertuples(index=False, name=None)) == rejected
    assert report.rejected["number"].is_monotonic_increasing
    assert report.rejected["number"].dtype == np.int64
    assert report.read == len(rows) + len(rejected)
    assert report.read == report.kept + report.merged + len(report.rejected)
    if table is None:
        assert entries(result) == case.expected(rows)
        assert report.kept == result.nnz
        for labels in (result.users, result.items):
            assert labels.is_monotonic_increasing
    else:
        assert entry_rows(table) == case.expected(rows)
        assert report.kept == len(table)
    return list(rejected)


SMALL_BLOCKS = {"block_bytes": 1 << 19}  # buffers that take no time to make, larger than most test files


@pytest.fixture
def read(tmp_path):
    """Write bytes to a data file, read it in blocks, and compare with the independent reader."""

    def write_and_check(case, raw, **sizes):
        path = tmp_path / case.file
        path.write_bytes(raw)
        return check(case, raw, path, **(sizes or SMALL_BLOCKS))

    return write_and_check


@pytest.mark.parametrize("block_bytes", [8, 9, 100, 1 << 20])
@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"1234567\n", b"12345678", b"\n\n123\n4567\n" * 9, b"12\n345" * 99, BOM + b"1\n2"]
)
@pytest.mark.parametrize("n_buffers", [1, 3])
def test_blocks_are_whole_lines(raw, block_bytes, n_buffers):
    if raw == b"12345678" and block_bytes == 8:  # without an end of line, as long as a block
        with pytest.raises(LineTooLongError, match="the next line has more than 8 bytes"):
            list(blocks(io.BytesIO(raw), n_buffers, block_bytes))
        return
    copies = [bytes(block) for block in blocks(io.BytesIO(raw), n_buffers, block_bytes)]
    assert b"".join(copies) == raw.removeprefix(BOM)
    assert all(block.endswith(b"\n") for block in copies[:-1])
    assert all(0 < len(block) <= block_bytes for block in copies)


def test_a_block_lasts_until_its_buffer_is_used_again():
    unparsed = blocks(io.BytesIO(b"".join(b"line %02d\n" % number for number in range(9))), n_buffers=3, block_bytes=8)
    first, second, third = next(unparsed), next(unparsed), next(unparsed)
    assert (bytes(first), bytes(second), bytes(third)) == (b"line 00\n", b"line 01\n", b"line 02\n")
    assert bytes(next(unparsed)) == b"line 03\n"
    assert (bytes(second), bytes(third)) == (b"line 01\n", b"line 02\n")


@every_reader
def test_good_lines(read, case, tmp_path):
    head, good = case.header.encode(), case.good.encode()
    lf = (head + good).replace(b"\r\n", b"\n")
    for raw in (head + good, lf, lf.replace(b"\n", b"\r\n"), lf.removesuffix(b"\n"), BOM + lf):
        assert read(case, raw) == []
        assert check(case, raw, tmp_path / case.file) == []


@every_reader
@pytest.mark.parametrize("threads", [1, 4])
def test_blocks_of_one_line(read, case, threads):
    raw = (case.header + case.good).encode()
    longest = max(map(len, raw.splitlines(keepends=True)))
    assert read(case, raw, block_bytes=longest, threads=threads) == []


@pytest.mark.parametrize("case", [case for case in CASES if not case.header], ids=lambda case: case.name)
def test_a_second_byte_order_mark_is_text(read, case):
    assert read(case, BOM * 2 + case.good.encode()) == [1]


@every_reader
def test_every_container_reads_the_same(tmp_path, case):
    raw = (case.header + case.good).encode()
    (tmp_path / "zipped").mkdir()
    (tmp_path / "zipped" / f"{case.file}.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "plain" / "deeper").mkdir(parents=True)
    (tmp_path / "plain" / "deeper" / case.file).write_bytes(raw)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/readme.txt", b"about")
        archive.writestr(f"set/{case.file}", raw)
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        for name, content in (("readme.txt", b"about"), (case.file, raw)):
            member = tarfile.TarInfo(f"set/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    paths = ["zipped", f"zipped/{case.file}.gz", "plain", f"plain/deeper/{case.file}", "set.zip", "set.tar.gz"]
    if case.name == "ratings.dat":  # names tell it from ratings.csv, and the names in a tar are not looked at
        paths.remove("set.tar.gz")
    for name in paths:
        check(case, raw, tmp_path / name)
    check(case, raw, str(tmp_path / "set.zip"))


NUMBERS = ["1e309", "-5", "3.7", "NaN", "nan", "inf", "0", "00", "007", "+1", " 1", "1 ", "1_0", "0x1", "١", "-1337"]
NUMBERS += ["9" * 15, "9" * 18, "9" * 19, "1" * 20, "9" * 5000, "0.0", "0.50", ".5", "5.", "12.25", "1,5"]
TEXTS = [
    "",
    "null",
    "n/a",
    '"',
    '""',
    '"a"',
    '"a',
    "'",
    "\\",
    "2",
    " a",
    "\x00",
    "é",
    "\ufeff",
    "\ufeff1",
    "x" * 100_000,
]
TEXTS += ["a\rb", "\r", "\r\r", "a\r", "é\r"]
TIMES = ["2009-02-29T00:00:00Z", "2009-06-31T00:00:00Z", "2009-02-28T23:59:60Z", "2009-02-28T24:00:00Z", "2009-02-28"]
TIMES += ["2009-2-28T00:00:00Z ", "2009-02-28 00:00:00Z", "2009-02-28T00:00:00+01", "9999-12-31T23:59:59Z"]
TIMES += ["0001-01-01T00:00:00Z", "2009-05-04T23:08:57Z\n2009-05-04T23:08:57Z"]
DAYS = ["Feb 29, 2007", "Feb 31, 2008", "feb 1, 2007", "Fév 1, 2007", "Feb 01, 2007", "Feb 0, 2007", "Feb 1, 0000"]
DAYS += ["Feb 1 2007", "Feb 1, 20071"]
USERS = ["M", "mf", "x", "a" * 39, "g" * 40, "A" * 40, "user_0000001", "User_000001", "user_00000a", "user_00000१"]
ODD = NUMBERS + TEXTS + TIMES + DAYS + USERS


@pytest.mark.parametrize(
    ("case", "at"), [pytest.param(case, at, id=f"{case.name} {at}") for case in CASES for at in range(len(case.fields))]
)
def test_odd_fields_are_kept_unchanged_or_reported(read, case, at):
    first, *others = case.good.splitlines()
    fields = first.split(case.delimiter)
    # Arrow splits the simple texts, each of which is one field on one line. Python has to split the others.
    simple = [text for text in ODD if not re.search(f"[\r\n]|{case.delimiter}", text)]
    for odd in (simple, ODD):
        lines = [case.delimiter.join([*fields[:at], text, *fields[at + 1 :]]) for text in odd]
        raw = (case.header + "\n".join([first, *lines, *others]) + "\n").encode()
        rejected = read(case, raw)
    assert rejected


@every_reader
@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\r",
        b" ",
        b"?",
        b"\xff",
        b"\xff\t\xff",
        b"\t\t\t",
        b"\t\t\t\t",
        b"\t\t\t\t\t",
        b"\t\t\t\t\t\t",
        b",,,",
        b"::::::",
        b":::::",
        b"1:2:3:4",
        b"1:::2::3::4",
        b"1\t2\t3\t4",
        b"1::2::3\t4",
        b'"1","2","3","4"',
        b"\xed\xa0\x80\t1",
        b"\x00" * 50,
    ],
)
def test_unusual_lines_are_reported(read, case, line):
    good = case.good.encode()
    rejected = read(case, case.header.encode() + good + line + b"\n" + good)
    number = bool(case.header) + good.count(b"\n") + 1
    is_valid = line == b"1\t2\t3\t4" and case.name in ("artists", "tag_assignments")
    assert rejected == ([] if is_valid else [number])


REPLACEMENTS = [
    b"",
    b"\t",
    b"\n",
    b"\n\n\n",
    b"\r",
    b"\r\n",
    b'"',
    b"\xff",
    b"\xc3",
    b"\x00",
    b"0",
    b"-",
    b".",
    b",",
    b":",
]


MUTATIONS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.sampled_from(REPLACEMENTS)), min_size=1, max_size=12
)
BLOCK_BYTES = st.sampled_from([1000, 3000, 1 << 19])
few_examples = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_mutated(read, case, lines, mutations, block_bytes):
    """Replace some bytes of `lines`, and check a file of the good lines and these."""
    raw = b"".join(lines)
    for at, length, replacement in mutations:
        at %= len(raw)
        raw = raw[:at] + replacement + raw[at + length :]
    raw = (case.header + case.good).encode() + raw  # at least one line is valid
    longest = max(map(len, raw.split(b"\n")))
    read(case, raw, block_bytes=max(block_bytes, 1 + longest), split_bytes=100)


@every_reader
@given(MUTATIONS, BLOCK_BYTES)
@few_examples
def test_mutated_lines(read, case, mutations, block_bytes):
    read_mutated(read, case, [case.good.encode() * 3], mutations, block_bytes)


REAL = {
    "usersha1-artmbid-artname-plays.tsv": "lastfm-360k-first10000/usersha1-artmbid-artname-plays.tsv",
    "usersha1-profile.tsv": "lastfm-360k-first10000/usersha1-profile.first1000.tsv",
    EVENTS_FILE: f"lastfm-1k-first5000/{EVENTS_FILE}",
    "userid-profile.tsv": "lastfm-1k-first5000/userid-profile.tsv",
    "user_artists.dat": "hetrec2011-lastfm-2k/user_artists.dat",
    "artists.dat": "hetrec2011-lastfm-2k/artists.dat",
    "tags.dat": "hetrec2011-lastfm-2k/tags.dat",
    "user_friends.dat": "hetrec2011-lastfm-2k/user_friends.dat",
    "ratings.csv": "movielens-latest-small-2016/ratings.csv",
}


@pytest.fixture(scope="module")
def real_lines(shared_data):
    """The lines of a real data file."""

    @functools.cache
    def lines(file):
        return gzip.decompress((shared_data / f"{file}.gz").read_bytes()).splitlines(keepends=True)

    return lines


@pytest.mark.parametrize("case", [case for case in CASES if case.file in REAL], ids=lambda case: case.name)
@given(st.integers(0, 10**6), MUTATIONS, BLOCK_BYTES)
@few_examples
def test_mutated_real_lines(read, case, real_lines, start, mutations, block_bytes):
    lines = real_lines(REAL[case.file])
    start %= len(lines)
    read_mutated(read, case, lines[start : start + 40], mutations, block_bytes)


@every_reader
def test_errors_raise(tmp_path, case):
    path = tmp_path / case.file
    path.write_bytes((case.header + case.good).encode())
    case.read(path, errors="raise")
    at = len(case.good.splitlines()) + bool(case.header) + 1
    path.write_bytes((case.header + case.good + "?\n" + case.good).encode())
    message = (
        f"{re.escape(str(path))}.*line {at}: not {len(case.fields)} fields; correct it, or leave out.*errors='report'"
    )
    with pytest.raises(ValueError, match=message):
        case.read(path, errors="raise")
    with pytest.raises(ValueError, match="errors must be 'report' or 'raise', not 'drop'"):
        case.read(path, errors="drop")


@every_reader
def test_a_file_without_data_is_refused(tmp_path, case):
    path = tmp_path / case.file
    good, head = case.good.encode(), case.header.encode()

    def refused(raw, message):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
            case.read(path)

    names = re.escape(", ".join(case.fields))
    refused(head + b"?\n?\n", rf"holds no valid line \({names}\); line {1 + bool(head)}: not {len(case.fields)} fields")
    refused(gzip.compress((head + good) * 9)[:-12], "is damaged after line")
    refused(gzip.compress(head + good) + b"x" * 9, "is damaged after line")
    refused(gzip.compress((head + good) * 9)[:-20] + bytes(40), "is damaged after line")
    refused(head, rf"holds no valid line \({names}\); it is empty")
    refused(gzip.compress(head), rf"holds no valid line \({names}\); it is empty")
    if head:
        for raw in (b"", good, b"\xff" + head + good, head.strip() + b"x\n" + good, head.strip()[:-1] + b"\n" + good):
            refused(raw, "begins with .*, not with the header")


@every_reader
def test_a_line_longer_than_a_block_is_refused(tmp_path, case):
    path = tmp_path / case.file
    path.write_bytes((case.header + case.good + "x" * 2000 + "\n" + case.good).encode())
    at = len(case.good.splitlines()) + bool(case.header)
    with pytest.raises(ValueError, match=f"is damaged after line {at} .*more than 1,000 bytes"):
        case.read_in_blocks(path, block_bytes=1000)


@every_reader
def test_a_line_of_10_mb_is_read_like_any_other(tmp_path, case):
    first = case.good.splitlines()[0].split(case.delimiter)
    line = case.delimiter.join([*first[:-1], "x" * 10_000_000])
    raw = f"{case.header}{line}\n{case.good}".encode()
    (tmp_path / case.file).write_bytes(raw)
    rejected = check(case, raw, tmp_path / case.file)
    optional_text = case.fields[list(case.fields)[-1]] in (optional, unused, required)
    assert rejected == ([] if optional_text else [1 + bool(case.header)])


@every_reader
def test_a_file_of_nul(tmp_path, case):
    path = tmp_path / case.file
    path.write_bytes(case.header.encode() + bytes(100_000))
    number = 1 + bool(case.header)
    with pytest.raises(ValueError, match=f"holds no valid line .*line {number}: not {len(case.fields)} fields"):
        case.read(path)


@every_reader
def test_the_home_folder_of_the_user(tmp_path, case, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    raw = (case.header + case.good).encode()
    (tmp_path / case.file).write_bytes(raw)
    for path in ("~", f"~/{case.file}"):
        check(case, raw, path)


@every_reader
def test_paths_without_a_data_file_are_refused(tmp_path, case):
    with pytest.raises(FileNotFoundError):
        case.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds 0 files named"):
        case.read(tmp_path)
    (tmp_path / "folder" / case.file).mkdir(parents=True)
    with pytest.raises(ValueError, match="is not a regular file"):
        case.read(tmp_path / "folder")
    for folder in ("one", "two"):
        (tmp_path / "twice" / folder).mkdir(parents=True)
        (tmp_path / "twice" / folder / case.file).write_bytes((case.header + case.good).encode())
    with pytest.raises(ValueError, match="holds 2 files"):
        case.read(tmp_path / "twice")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="fifo is not a regular file"):
        case.read(tmp_path / "fifo")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", b"about")
    with pytest.raises(ValueError, match="is an archive without"):
        case.read(tmp_path / "other.zip")
    whole = (tmp_path / "other.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.zip.*is damaged after line 0"):
        case.read(tmp_path / "cut.zip")
