"""What every reader of delimited text has in common: to the letter, and no line lost without a word."""

import functools
import gzip
import io
import os
import re
import tarfile
import zipfile
from collections import namedtuple
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alscore.datasets import _blocks, _delimited
from alscore.datasets.hetrec import hetrec_lastfm_2k, hetrec_lastfm_2k_table
from alscore.datasets.lastfm import lastfm_360k
from alscore.datasets.lastfm_1k import lastfm_1k, lastfm_1k_events
from alscore.datasets.lastfm_profiles import lastfm_1k_profiles, lastfm_360k_profiles
from alscore.datasets.movielens import movielens

# An independent reading, line by line with str.split and re: a function for each field gives its value or raises the
# reason for which the line is none.


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
        raise ValueError(f"{name} is not text")
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
            if case.required and not any(values[name] for name in case.required):
                raise ValueError(f"neither {' nor '.join(case.required)}")
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


Case = namedtuple("Case", "name file read header delimiter fields expected good required", defaults=[()])

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


def hetrec(table):
    return lambda path, **options: hetrec_lastfm_2k_table(path, table, **options)


CASES = [
    *(
        Case(
            f"360k {items}",
            "usersha1-artmbid-artname-plays.tsv",
            lambda path, items=items, **options: lastfm_360k(path, items=items, **options),
            "",
            "\t",
            PLAYS,
            summed_by(*map(list(PLAYS).index, required)),
            f'{"a" * 40}\tm1\tradiohead\t7\n{"0123456789" * 4}\t\tthe "weird" band\t3\n{"a" * 40}\tm2\t\t1\n',
            required,
        )
        for items, required in (("name", ("name", "mbid")), ("mbid", ("mbid", "name")))
    ),
    *(
        Case(
            f"1k {items}",
            EVENTS_FILE,
            lambda path, items=items, **options: lastfm_1k(path, items=items, **options),
            "",
            "\t",
            EVENT | dict.fromkeys(TRACK, unused),
            counted(*map(list(EVENT).index, required)),
            EVENTS,
            required,
        )
        for items, required in (("name", ("artist", "artist_id")), ("mbid", ("artist_id", "artist")))
    ),
    Case("1k events", EVENTS_FILE, lastfm_1k_events, "", "\t", EVENT | TRACK, list, EVENTS, ("artist", "artist_id")),
    Case(
        "360k profiles",
        "usersha1-profile.tsv",
        lastfm_360k_profiles,
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
        lastfm_1k_profiles,
        "#id\tgender\tage\tcountry\tregistered\n",
        "\t",
        PROFILE | {"user": user_1k},
        list,
        "user_000001\tm\t\tJapan\tAug 13, 2006\nuser_000002\tf\t25\t\t\n",
    ),
    Case(
        "hetrec",
        "user_artists.dat",
        lambda path, **options: hetrec_lastfm_2k(path, items="id", **options),
        "userID\tartistID\tweight\r\n",
        "\t",
        {"user": number, "item": number, "plays": number},
        summed,
        "2\t51\t13883\r\n2\t52\t11690\r\n2\t51\t7\r\n10\t51\t1\r\n",
    ),
    Case(
        "artists",
        "artists.dat",
        hetrec("artists"),
        "id\tname\turl\tpictureURL\n",
        "\t",
        {"id": number, "name": required, "url": optional, "picture_url": optional},
        list,
        '1\tMALICE MIZER\thttp://a\thttp://b\n2\t"Björk"\thttp://c\t\n3\tNaN\thttp://c\t\n',
    ),
    Case(
        "tags",
        "tags.dat",
        hetrec("tags"),
        "tagID\ttagValue\r\n",
        "\t",
        {"id": number, "name": required},
        list,
        "1\tmetal\r\n2\tnull\r\n",
    ),
    Case(
        "friends",
        "user_friends.dat",
        hetrec("friends"),
        "userID\tfriendID\r\n",
        "\t",
        {"user": number, "friend": number},
        list,
        "2\t275\r\n275\t2\r\n",
    ),
    Case(
        "tag assignments",
        "user_taggedartists-timestamps.dat",
        hetrec("tag_assignments"),
        "userID\tartistID\ttagID\ttimestamp\r\n",
        "\t",
        {"user": number, "artist": number, "tag": number, "timestamp": milliseconds},
        list,
        "2\t52\t13\t1238536800000\r\n2\t52\t15\t-428720400000\r\n",
    ),
    Case(
        "ratings.csv",
        "ratings.csv",
        lambda path, **options: movielens(path, items="id", **options),
        "userId,movieId,rating,timestamp\n",
        ",",
        RATING,
        latest,
        RATINGS,
    ),
    Case(
        "ratings.dat",
        "ratings.dat",
        lambda path, **options: movielens(path, items="id", **options),
        "",
        "::",
        RATING,
        latest,
        RATINGS.replace(",", "::"),
    ),
]
every_reader = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def check(case, raw, path):
    """Compare with the independent reading; return the line numbers rejected."""
    rows, rejected = by_line(case, raw)
    result = case.read(path)
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


BLOCK = _blocks._BLOCK


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Buffers that take no time to make; every test of a part of a file is as good with them."""
    monkeypatch.setattr(_blocks, "_BLOCK", 1 << 19)


@pytest.fixture
def read(tmp_path):
    """Write bytes to a data file and compare what its reader makes of them."""

    def write_and_check(case, raw):
        path = tmp_path / case.file
        path.write_bytes(raw)
        return check(case, raw, path)

    return write_and_check


@every_reader
def test_good_lines(read, case):
    head, good = case.header.encode(), case.good.encode()
    lf = (head + good).replace(b"\r\n", b"\n")
    for raw in (head + good, lf, lf.replace(b"\n", b"\r\n"), lf.removesuffix(b"\n"), b"\xef\xbb\xbf" + lf):
        assert read(case, raw) == []


@every_reader
def test_a_block_of_one_line_or_of_the_header_alone(read, case, monkeypatch):
    raw = (case.header + case.good).encode()
    monkeypatch.setattr(_blocks, "_BLOCK", max(map(len, raw.splitlines(keepends=True))))
    assert read(case, raw) == []


@pytest.mark.parametrize("case", [case for case in CASES if not case.header], ids=lambda case: case.name)
def test_a_second_byte_order_mark_is_text(read, case):
    assert read(case, b"\xef\xbb\xbf" * 2 + case.good.encode()) == [1]


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
    if case.name == "ratings.dat":  # told from ratings.csv by its name, for which a zip is asked and a tar is not
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
def test_odd_fields_are_kept_to_the_letter_or_reported(read, case, at):
    first, *others = case.good.splitlines()
    fields = first.split(case.delimiter)
    # Arrow can split those that are no more than one field, on one line; Python has to split the others.
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
def test_other_lines_are_reported(read, case, line):
    read(case, (case.header + case.good).encode() + line + b"\n" + case.good.encode())


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
BLOCKS = st.sampled_from([1000, 3000, 1 << 19])
few_examples = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_mutated(read, case, lines, mutations, block):
    """Read and verify the good lines and, after them, `lines` in which some bytes are replaced."""
    raw = b"".join(lines)
    for at, length, replacement in mutations:
        at %= len(raw)
        raw = raw[:at] + replacement + raw[at + length :]
    raw = (case.header + case.good).encode() + raw  # so that one is valid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_blocks, "_BLOCK", max(block, 1 + max(map(len, raw.split(b"\n")))))
        patch.setattr(_delimited, "_FEW", 100)
        read(case, raw)


@every_reader
@given(MUTATIONS, BLOCKS)
@few_examples
def test_mutated_lines(read, case, mutations, block):
    read_mutated(read, case, [case.good.encode() * 3], mutations, block)


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
@given(st.integers(0, 10**6), MUTATIONS, BLOCKS)
@few_examples
def test_mutated_real_lines(read, case, real_lines, start, mutations, block):
    lines = real_lines(REAL[case.file])
    start %= len(lines)
    read_mutated(read, case, lines[start : start + 40], mutations, block)


@every_reader
def test_a_bad_line_is_refused_if_so_wished(tmp_path, case):
    path = tmp_path / case.file
    path.write_bytes((case.header + case.good).encode())
    case.read(path, errors="raise")
    at = len(case.good.splitlines()) + bool(case.header) + 1
    path.write_bytes((case.header + case.good + "?\n" + case.good).encode())
    message = f"{re.escape(str(path))}.*line {at}: not {len(case.fields)} fields; correct it, or leave.*errors='report'"
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
            refused(raw, "begins with .*, not with the line")


@every_reader
def test_a_line_longer_than_a_block_is_refused(tmp_path, case, monkeypatch):
    monkeypatch.setattr(_blocks, "_BLOCK", 1000)
    path = tmp_path / case.file
    path.write_bytes((case.header + case.good + "x" * 2000 + "\n" + case.good).encode())
    at = len(case.good.splitlines()) + bool(case.header)
    with pytest.raises(ValueError, match=f"is damaged after line {at} .*more than 1,000 bytes"):
        case.read(path)


@every_reader
def test_a_line_of_10_mb_is_like_any_other(read, case, monkeypatch):
    monkeypatch.setattr(_blocks, "_BLOCK", BLOCK)
    first = case.good.splitlines()[0].split(case.delimiter)
    line = case.delimiter.join([*first[:-1], "x" * 10_000_000])
    read(case, f"{case.header}{line}\n{case.good}".encode())


@every_reader
def test_a_file_of_nul(tmp_path, case):
    path = tmp_path / case.file
    path.write_bytes(case.header.encode() + bytes(100_000))
    number = 1 + bool(case.header)
    with pytest.raises(ValueError, match=f"holds no valid line .*line {number}: not {len(case.fields)} fields"):
        case.read(path)


@every_reader
def test_the_folder_of_the_user(tmp_path, case, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    raw = (case.header + case.good).encode()
    (tmp_path / case.file).write_bytes(raw)
    for path in ("~", f"~/{case.file}"):
        check(case, raw, path)


@every_reader
def test_what_is_no_data_file_is_refused(tmp_path, case):
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
