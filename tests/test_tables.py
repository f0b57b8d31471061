"""Tables from files and other libraries, against Python's own readers. Each row is read right, or reported."""

import bz2
import csv
import gzip
import io
import os
import re
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from alscore import Interactions
from alscore._data.tables import ColumnNames, TextOptions, read_observations

COLUMNS = {"user": "u", "item": "i", "value": "v", "timestamp": "t"}


def entries(interactions):
    """Return the value, and the time if there is one, by (user, item), read directly from the arrays."""
    matrix = interactions.matrix
    times = [()] * matrix.nnz if interactions.timestamps is None else [(int(t),) for t in interactions.timestamps]
    return {
        (user, interactions.items[matrix.indices[at]]): (float(matrix.data[at]), *times[at])
        for row, user in enumerate(interactions.users)
        for at in range(matrix.indptr[row], matrix.indptr[row + 1])
    }


def assert_accounted_for(report):
    assert report.read == report.kept + report.merged + len(report.rejected)
    assert report.rejected["number"].is_monotonic_increasing
    assert report.rejected["number"].is_unique


def rejected(interactions):
    return list(interactions.report.rejected.itertuples(index=False, name=None))


@pytest.fixture
def write(tmp_path):
    def write(content, name="plays.csv"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


# ---- text

CSV = b"""u,x,v,t,i
ann,1,2,1241136000,"Sigur R\xc3\xb3s"
bob,,3.5,2009-05-01T02:00:00+02:00,"he said ""no"", and
left"
ann,2,1e2,2009-05-02,null
007,3,1,1969-12-31 23:59:59.5,NA
"""
EXPECTED = {
    ("ann", "Sigur Rós"): (2, 1241136000),
    ("bob", 'he said "no", and\nleft'): (3.5, 1241136000),
    ("ann", "null"): (100, 1241136000 + 86400),
    ("007", "NA"): (1, -1),
}


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("plays.csv", lambda content: content),
        ("PLAYS.CSV", lambda content: content.replace(b"\n", b"\r\n").replace(b"and\r\n", b"and\n")),
        ("bom.csv", lambda content: b"\xef\xbb\xbf" + content),
        ("open.csv", lambda content: content[:-1]),
        ("plays.csv.gz", gzip.compress),
        ("two.csv.gz", lambda content: gzip.compress(content[:50]) + gzip.compress(content[50:])),
        ("plays.csv.bz2", bz2.compress),
    ],
)
def test_csv(write, name, pack):
    interactions = Interactions.from_table(write(pack(CSV), name), **COLUMNS)
    assert entries(interactions) == EXPECTED
    assert str(interactions.report) == "4 read, 4 kept, 0 merged, 0 rejected"
    assert entries(Interactions.from_table(str(write(pack(CSV), name)), "u", "i")) == dict.fromkeys(EXPECTED, (1,))


def test_tsv_has_no_quoting(write):
    path = write(b'1\t"weird al" yankovic\t5\n2\t"a\t7\n\xef\xbb\xbf\tb"\t1\n', "plays.tsv")
    names = ["u", "artist", "v"]
    interactions = Interactions.from_table(path, "u", "artist", "v", column_names=names)
    assert entries(interactions) == {("1", '"weird al" yankovic'): (5,), ("2", '"a'): (7,), ("\ufeff", 'b"'): (1,)}
    quoted = Interactions.from_table(path, "u", "artist", column_names=names, quoting=True, errors="report")
    assert entries(quoted) == {("1", "weird al yankovic"): (1,), ("2", "a\t7\n\ufeff\tb"): (1,)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"delimiter": text}, "delimiter must be one ASCII character") for text in ("::", "é", '"', "\n", 1)),
        ({"column_names": "ui"}, "column_names must be a sequence of names, not 'ui'"),
        ({"integers": "u"}, "integers must be a sequence of names, not 'u'"),
    ],
)
def test_invalid_options_of_text_files_are_refused(write, options, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_table(write(b"u,i\n1,a\n", "plays.csv"), "u", "i", **options)


def test_other_delimiters(write):
    path = write("u|größe\n1|2\n".encode(), "plays.dat")
    interactions = Interactions.from_table(path, "u", "größe", delimiter="|")
    assert entries(interactions) == {("1", "2"): (1,)}
    with pytest.raises(ValueError, match=r"plays\.dat: unknown file type; use .csv, .* give delimiter="):
        Interactions.from_table(path, "u", "größe")


def test_integer_labels(write):
    path = write(b"u,i\n7,x\n-12,x\n007,y\n,y\n7.0,y\nseven,y\n1234567890123456789,y\n123456789012345678,y\n")
    interactions = Interactions.from_table(path, "u", "i", integers=["u"], errors="report")
    assert interactions.users.dtype == np.int64
    assert entries(interactions) == {
        (7, "x"): (1,),
        (-12, "x"): (1,),
        (7, "y"): (1,),
        (123456789012345678, "y"): (1,),
    }
    assert rejected(interactions) == [
        (5, "u: missing label"),
        *((line, "u: not an integer of at most 18 digits") for line in (6, 7, 8)),
    ]
    with pytest.raises(ValueError, match=r"not an integer .* in 3 of 8 rows, at lines 6, 7, 8; correct them"):
        Interactions.from_table(path, "u", "i", integers=["u"])
    with pytest.raises(ValueError, match="integers names 'v', which is neither user nor item"):
        Interactions.from_table(write(b"u,i,v\n"), "u", "i", "v", integers=["u", "v"])


FAULTY = b"""u,x,v,t,i
ann,-,1,5,x
ann,-,1,5

,-,1,5,x
ann,-,1,5,\xff\xfe
ann,-,1,5,x,\xff
ann,-,,5,x
ann,-,three,5,x
ann,-,1e309,5,x
ann,-,nan,5,x
ann,-,1_000,5,x
ann,-,1,,x
ann,-,1,now,x
ann,-,1,2009-02-30,x
ann,\xff,0,5,x
ann,-,-5, 6,x
ann,-,-5,6,"x
"
ann,-,3.7,7,y
"""
REASONS = {
    3: "not 5 fields",
    4: "u: missing label",
    5: "u: missing label",
    6: "i: not UTF-8",
    7: "not 5 fields",
    **dict.fromkeys((8, 9, 10, 11, 12), "v: not a finite float32 number"),
    **dict.fromkeys((13, 14, 15, 17), "t: missing, or not whole seconds that int64 can hold"),
    16: "v: zero, not observed",
}


def test_bad_lines_can_be_dropped_and_are_reported(write):
    interactions = Interactions.from_table(write(FAULTY), **COLUMNS, errors="report")
    assert entries(interactions) == {
        ("ann", "x"): (1, 5),
        ("ann", "x\n"): (-5, 6),
        ("ann", "y"): (pytest.approx(3.7, rel=1e-7), 7),
    }
    assert rejected(interactions) == sorted(REASONS.items())
    assert interactions.report.read == 18
    assert_accounted_for(interactions.report)


@pytest.mark.parametrize("line", REASONS)
def test_bad_lines_are_refused_by_default(write, line):
    lines = FAULTY.splitlines(keepends=True)
    path = write(lines[0] + lines[1] + lines[line - 1])
    if REASONS[line] == "v: zero, not observed":
        assert Interactions.from_table(path, **COLUMNS).report.rejected["number"].tolist() == [3]
        return
    with pytest.raises(ValueError, match=rf"plays\.csv: {REASONS[line]} in 1 of 2 rows, at lines 3; .*errors='report'"):
        Interactions.from_table(path, **COLUMNS)


def test_repeats_in_a_file_are_named_by_line(write):
    path = write(b"u,i\na,x\nb\na,x\nb,x\na,x\n")
    with pytest.raises(ValueError, match=r"plays\.csv: 2 rows have a \(u, i\) that comes again .*, at lines 2, 4;"):
        Interactions.from_table(path, "u", "i", duplicates="error", errors="report")


@pytest.mark.parametrize(
    ("content", "line"),
    [(b'u,i\na,x\n"b,y\nc,z\n', 3), (b'u,i\na,"x\nb,y', 2), (b'u,i\na,"x\nb,y,z\n"', None), (b'u,i\na\nb,"x""', 3)],
)
def test_a_quoted_field_without_end_is_an_error(write, content, line):
    path = write(content)
    if line is None:
        assert entries(Interactions.from_table(path, "u", "i")) == {("a", "x\nb,y,z\n"): (1,)}
        return
    with pytest.raises(ValueError, match=rf"plays\.csv, line {line}: a quoted field has no end"):
        Interactions.from_table(path, "u", "i", errors="report")


def test_files_that_cannot_be_read(write, tmp_path):
    content = gzip.compress(b"u,i\n" + b"".join(b"%d,%d\n" % (row % 7919, row % 31) for row in range(200_000)))
    assert Interactions.from_table(write(content, "whole.csv.gz"), "u", "i").report.read == 200_000
    for damaged, reason in (
        (content[:-2000], r": Truncated|, after line [\d,]+: Truncated"),
        (content[:-8] + b"\0" * 8, "incorrect data check"),
        (b"u,i\n1,2\n", "incorrect header check"),
        (b"", "Empty CSV file"),
    ):
        with pytest.raises(ValueError, match=rf"damaged\.csv\.gz.*{reason}"):
            Interactions.from_table(write(damaged, "damaged.csv.gz"), "u", "i")
    with pytest.raises(ValueError, match=r"empty\.csv: Empty CSV file"):
        Interactions.from_table(write(b"", "empty.csv"), "u", "i")
    with pytest.raises(ValueError, match=r"latin\.csv: 'utf-8' codec can't decode"):
        Interactions.from_table(write(b"u,\xe9\n1,2\n", "latin.csv"), "u", "é")
    with pytest.raises(FileNotFoundError):
        Interactions.from_table(tmp_path / "absent.csv", "u", "i")
    os.mkfifo(tmp_path / "fifo.csv")
    for path in (tmp_path, tmp_path / "fifo.csv"):
        with pytest.raises(ValueError, match="is not a regular file"):
            Interactions.from_table(path, "u", "i")


def test_a_line_that_is_too_long_is_named(write):
    path = write(b"u,i\na,x\n" + b"b" * 20_000_000 + b",y\n")
    with pytest.raises(
        ValueError, match=r"plays\.csv, after line 2: a line or a quoted field of more than 8,388,608 b"
    ):
        Interactions.from_table(path, "u", "i")


def test_a_label_of_a_megabyte(write):
    label = "ü" * 500_000
    interactions = Interactions.from_table(write(f"u,i\na,{label}\n".encode()), "u", "i")
    assert interactions.items.tolist() == [label]


def test_headers_alone(write):
    for content in (b"u,i,v\n", b"u,i,v"):
        interactions = Interactions.from_table(write(content), "u", "i", "v")
        assert (interactions.shape, interactions.report.read) == ((0, 0), 0)


@pytest.mark.parametrize("source", ["csv", "parquet", "feather", "table", "pandas"])
def test_names_that_are_not_columns(write, tmp_path, source):
    table = pa.table({"u": ["a"], "i": ["x"]})
    where = {
        "csv": lambda: write(b"u,i\na,x\n"),
        "parquet": lambda: parquet.write_table(table, tmp_path / "plays.parquet") or tmp_path / "plays.parquet",
        "feather": lambda: feather.write_feather(table, tmp_path / "plays.feather") or tmp_path / "plays.feather",
        "table": lambda: table,
        "pandas": table.to_pandas,
    }[source]()
    named = "the table" if source in ("table", "pandas") else re.escape(str(where))
    with pytest.raises(ValueError, match=rf"item='artist' is not a column; {named} has \['u', 'i'\]"):
        Interactions.from_table(where, "u", "artist")
    with pytest.raises(ValueError, match="timestamp='t' is not a column"):
        Interactions.from_table(where, "u", "i", timestamp="t")


def test_columns_of_one_name(write):
    with pytest.raises(ValueError, match="user='u' is the name of several columns"):
        Interactions.from_table(write(b"u,i,u\na,x,b\n"), "u", "i")
    assert entries(Interactions.from_table(write(b"u,i,z,z\na,x,1,2\n"), "u", "i")) == {("a", "x"): (1,)}


def test_wrong_sources_and_options(write):
    with pytest.raises(TypeError, match=r"source must be the path of a file, .* not list"):
        Interactions.from_table([1, 2], "u", "i")
    for source in (pa.table({"u": ["a"], "i": ["x"]}), pd.DataFrame({"u": ["a"], "i": ["x"]}), "plays.parquet"):
        with pytest.raises(TypeError, match="delimiter, integers can be given for a text file only"):
            Interactions.from_table(source, "u", "i", delimiter=",", integers=["u"])
    for wrong in ({"duplicates": "mean"}, {"errors": "ignore"}):
        with pytest.raises(ValueError, match="must be"):
            Interactions.from_table("not even looked for.csv", "u", "i", **wrong)
    with pytest.raises(TypeError, match="labels must be hashable"):
        Interactions.from_table(pa.table({"u": [["a"], ["b"]], "i": ["x", "y"]}), "u", "i")


# ---- text of every kind, against Python

bits = st.sampled_from(
    [b"a", b"b", b"7", b"1", b"0", b"-", b".", b"\xc3\xa9", b"\xff", b"\0", b" ", b"\r", b"\n", b",", b'"']
)
lines = st.lists(st.one_of(st.sampled_from([b"a,1,x\n", b"b,2,y\n", b",,\n", b"\n"]), bits), max_size=25).map(b"".join)


def decoded(field):
    try:
        return field.decode()
    except UnicodeDecodeError:
        return None


def number(text):
    """Return the float32 number of a text in the usual form."""
    if re.fullmatch(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+) *", text):
        return np.float32(float(Fraction(text.replace(" ", ""))) if re.search("[0-9]", text) else np.nan)
    return np.float32(np.nan)


@given(content=lines)
@settings(max_examples=300, deadline=None)
def test_unquoted_text_against_python(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(content)
    expected, faults = defaultdict(float), {}
    rows = re.split(rb"\r\n|\n|\r", content)
    if rows[-1] == b"":
        rows.pop()
    for line, row in enumerate(rows, 1):
        fields = row.split(b",") if row else [b""] * 3
        if len(fields) != 3:
            faults[line] = "not 3 fields"
            continue
        user, value, item = map(decoded, fields)
        value = number(value or "-")
        for reason, wrong in {
            "u: not UTF-8": user is None,
            "i: not UTF-8": item is None,
            "u: missing label": user == "",
            "i: missing label": item == "",
            "v: not a finite float32 number": not np.isfinite(value),
            "v: zero, not observed": value == 0,
        }.items():
            if wrong:
                faults[line] = reason
                break
        else:
            expected[user, item] += float(value)
    options = {"delimiter": ",", "column_names": ["u", "v", "i"]}
    if not content:
        with pytest.raises(ValueError, match="Empty CSV file"):
            Interactions.from_table(path, "u", "i", "v", quoting=False, **options)
        return
    interactions = Interactions.from_table(path, "u", "i", "v", errors="report", quoting=False, **options)
    assert entries(interactions) == {pair: (value,) for pair, value in expected.items() if value}
    assert dict(rejected(interactions)) == faults
    assert interactions.report.read == len(rows)
    assert_accounted_for(interactions.report)


fields = st.text(st.sampled_from('ab ,"\n\ré'), max_size=5)


@given(rows=st.lists(st.tuples(fields, fields, fields), min_size=1, max_size=8), crlf=st.booleans())
@settings(max_examples=150, deadline=None)
def test_quoted_text_against_python(tmp_path_factory, rows, crlf):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n" if crlf else "\n").writerows([("u", "x", "i"), *rows])
    path.write_bytes(text.getvalue().encode())
    interactions = Interactions.from_table(path, "u", "i", errors="report")
    expected = defaultdict(int)
    for user, _, item in rows:
        if user and item:
            expected[user, item] += 1
    assert entries(interactions) == {pair: (n,) for pair, n in expected.items()}
    assert interactions.report.read == len(rows)
    assert_accounted_for(interactions.report)


@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False))
@settings(max_examples=200, deadline=None)
def test_numbers_in_text_against_python(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    path.write_text(f"u,i,v\na,x,{np.float32(value)!s}\nb,x,1\n")
    interactions = Interactions.from_table(path, "u", "i", "v")
    assert dict(entries(interactions)).get(("a", "x"), (0,)) == (float(np.float32(value)),)


def test_blocks_join_without_a_seam(write):
    """Lines, quoted line ends, labels and faults at every position of small blocks."""
    content, expected, faults = b"u,i,v\n", defaultdict(float), []
    for row in range(300):
        user, item = f"user {row % 7}", f"ïtem\n{row % 5}"
        fields, reason = {
            0: (f'{user},"{item}",1'.encode(), None),
            1: (f"{user},1".encode(), "not 3 fields"),
            2: (f'{user},"{item}",0'.encode(), "v: zero, not observed"),
            3: (f"{user},\xff,1".encode("latin-1"), "i: not UTF-8"),
        }[row % 4]
        content += fields + b"\n"
        if reason:
            faults.append((row + 2, reason))
        else:
            expected[user, item] += 1
    observations = read_observations(write(content), ColumnNames("u", "i", "v"), TextOptions(block_bytes=64))
    interactions = Interactions._from_observations(observations, "sum", "report")
    assert entries(interactions) == {pair: (value,) for pair, value in expected.items()}
    assert rejected(interactions) == faults
    assert entries(Interactions.from_table(write(content), "u", "i", "v", errors="report")) == entries(interactions)


def test_real_movielens_ratings(shared_data):
    path = shared_data / "movielens-latest-small-2016" / "ratings.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        expected = {
            (int(row["userId"]), int(row["movieId"])): (float(row["rating"]), int(row["timestamp"]))
            for row in csv.DictReader(file)
        }
    interactions = Interactions.from_table(
        path, "userId", "movieId", "rating", "timestamp", duplicates="error", integers=["userId", "movieId"]
    )
    assert entries(interactions) == expected
    assert str(interactions.report) == "100,004 read, 100,004 kept, 0 merged, 0 rejected"


def test_real_movielens_titles(shared_data):
    path = shared_data / "movielens-latest-small-2016" / "movies.csv.gz"
    with gzip.open(path, "rt", newline="") as file:
        expected = {(row["movieId"], row["title"]): (1,) for row in csv.DictReader(file)}
    assert entries(Interactions.from_table(path, "movieId", "title")) == expected


# ---- Arrow

TYPED = pa.table(
    {
        "x": [[1], [2], [3], [4], [5]],
        "u": ["b", None, "a", "b", "a"],
        "i": pa.array([30, 10, 20, 30, None], pa.int16()),
        "v": [1.5, 2, None, 4, 8],
        "t": pa.array([5_000_000, 0, 0, -1, 0], pa.timestamp("us", "Asia/Tokyo")),
    }
)


class Foreign:
    """A table of another library that exports Arrow data."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def batches(table):
    """Return a table with one batch for each row, each with its own dictionaries."""
    return pa.Table.from_batches([batch for row in range(len(table)) for batch in table.slice(row, 1).to_batches()])


def write_parquet(table, folder):
    parquet.write_table(table, folder / "plays.parquet", row_group_size=2)
    return folder / "plays.parquet"


def write_feather(table, folder):
    feather.write_feather(table, folder / "plays.feather", compression="lz4")
    return folder / "plays.feather"


def write_arrow(table, folder):
    with pa.OSFile(str(folder / "plays.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return folder / "plays.arrow"


@pytest.mark.parametrize(
    "source",
    [
        lambda table, folder: table,
        lambda table, folder: table.to_reader(max_chunksize=1),
        lambda table, folder: Foreign(batches(table)),
        lambda table, folder: table.to_pandas(),
        write_parquet,
        write_feather,
        write_arrow,
    ],
    ids=["table", "reader", "foreign", "pandas", "parquet", "feather", "arrow"],
)
def test_typed_tables(tmp_path, source):
    interactions = Interactions.from_table(source(TYPED, tmp_path), **COLUMNS, duplicates="max", errors="report")
    assert entries(interactions) == {("b", 30): (4, 5)}
    assert rejected(interactions) == [
        (1, "u: missing label"),
        (2, "v: not a finite float32 number"),
        (4, "i: missing label"),
    ]
    assert interactions.report.read == 5
    assert_accounted_for(interactions.report)
    with pytest.raises(ValueError, match=r"u: missing label in 1 of 5 rows, at positions 1; correct them"):
        Interactions.from_table(source(TYPED, tmp_path), "u", "i")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array(["b", "a", "b"]), ["a", "b"]),
        (pa.array(["b", "", "b"], pa.large_string()), ["", "b"]),
        (pa.array(["b", "a", "b"], pa.string_view()), ["a", "b"]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["b", "a", "b"]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())), ["a", "b"]),
        (pa.array([3, -1, 3], pa.int8()), [-1, 3]),
        (pa.array([2**63, 1, 2**63], pa.uint64()), [1, 2**63]),
        (pa.array([2**60 + 1, 2**60, 2**60 + 1]), [2**60, 2**60 + 1]),
        (pa.array([1.5, 0.5, 1.5]), [0.5, 1.5]),
        (pa.array([True, False, True]), [False, True]),
        (pa.array([b"b", b"a", b"b"]), [b"a", b"b"]),
        (pa.array([1, 0, 1], pa.date32()), list(pd.date_range("1970", periods=2).date)),
        (pa.array([1, 0, 1], pa.timestamp("s", "UTC")), list(pd.to_datetime([0, 1], unit="s", utc=True))),
        (
            pa.array([1, 0, 1], pa.timestamp("s", "UTC")).dictionary_encode(),
            list(pd.to_datetime([0, 1], unit="s", utc=True)),
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_kinds_of_arrow_labels(labels, expected):
    table = pa.table({"u": labels, "i": labels, "v": [1, 2, 4]})
    for source in (table, Foreign(batches(table))):
        interactions = Interactions.from_table(source, "u", "i", "v")
        assert list(interactions.users) == list(interactions.items) == expected
        np.testing.assert_array_equal(interactions.matrix.toarray(), [[2, 0], [0, 5]])
    missing = pa.table({"u": pa.concat_arrays([labels, pa.nulls(1, labels.type)]), "i": [1, 2, 1, 2]})
    interactions = Interactions.from_table(missing, "u", "i", errors="report")
    assert list(interactions.users) == expected
    assert rejected(interactions) == [(3, "u: missing label")]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2, 4], pa.uint8()),
        pa.array([1, 2, 4], pa.float64()),
        pa.array([Decimal(1), Decimal(2), Decimal(4)]),
        pa.array([1, 2, 4]).dictionary_encode(),
    ],
    ids=lambda values: str(values.type),
)
def test_kinds_of_arrow_values(values):
    interactions = Interactions.from_table(pa.table({"u": [1, 1, 2], "i": [1, 1, 1], "v": values}), "u", "i", "v")
    assert entries(interactions) == {(1, 1): (3,), (2, 1): (4,)}


@pytest.mark.parametrize(
    ("timestamps", "expected"),
    [
        (pa.array([1, 2**60 + 1]), [1, 2**60 + 1]),
        (pa.array([1, 2], pa.int32()), [1, 2]),
        (pa.array([1.0, 2.0]), [1, 2]),
        (pa.array([1, 2], pa.date32()), [86400, 2 * 86400]),
        (pa.array([86_400_000, 0], pa.date64()), [86400, 0]),
        (pa.array([1_999, -1], pa.timestamp("ms")), [1, -1]),
        (pa.array([1, 2], pa.timestamp("s", "America/New_York")), [1, 2]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_kinds_of_arrow_timestamps(timestamps, expected):
    table = pa.table({"u": [1, 2], "i": [1, 1], "t": timestamps})
    assert Interactions.from_table(table, "u", "i", timestamp="t").timestamps.tolist() == expected
    missing = pa.table(
        {"u": [1, 2, 3], "i": 3 * [1], "t": pa.concat_arrays([timestamps, pa.nulls(1, timestamps.type)])}
    )
    interactions = Interactions.from_table(missing, "u", "i", timestamp="t", errors="report")
    assert interactions.timestamps.tolist() == expected
    assert interactions.report.rejected["number"].tolist() == [2]


def test_nan_is_a_missing_label():
    plain = pa.array([0.5, np.nan, None])
    for labels in (plain, plain.dictionary_encode()):
        interactions = Interactions.from_table(pa.table({"u": labels, "i": [1, 2, 3]}), "u", "i", errors="report")
        assert interactions.users.tolist() == [0.5]
        assert rejected(interactions) == [(1, "u: missing label"), (2, "u: missing label")]


def test_text_in_a_typed_table_is_not_a_number():
    table = pa.table({"u": [1], "i": [1], "v": ["1"]})
    with pytest.raises(ValueError, match="v: not a finite float32 number in 1 of 1 rows"):
        Interactions.from_table(table, "u", "i", "v")
    with pytest.raises(TypeError, match=r"v: times of type .*; convert them"):
        Interactions.from_table(table, "u", "i", timestamp="v")


@pytest.mark.parametrize("name", ["plays.parquet", "plays.feather", "plays.arrow"])
def test_invalid_binary_files_are_refused(write, name):
    for content in (b"", b"u,i\na,x\n", b"PAR1" * 20, b"ARROW1\0\0" * 20):
        with pytest.raises(ValueError, match=re.escape(name)):
            Interactions.from_table(write(content, name), "u", "i")


@pytest.mark.parametrize("writer", [write_parquet, write_arrow])
@given(position=st.integers(0), bits=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_damaged_binary_files_are_refused_or_read(tmp_path_factory, writer, position, bits):
    folder = tmp_path_factory.mktemp("damaged", numbered=True)
    path = writer(TYPED.select(["u", "i", "v"]).drop_null(), folder)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= bits
    path.write_bytes(content)
    try:
        interactions = Interactions.from_table(path, "u", "i", "v", errors="report")
    except (ValueError, TypeError, MemoryError):  # Arrow allocates the size that a file claims
        return
    assert_accounted_for(interactions.report)
    assert all(isinstance(label, str | bytes | int | float) for label in interactions.users)


def test_only_the_columns_needed_are_read(tmp_path):
    """Other columns may be of any kind, even undecodable."""
    table = pa.table({"u": ["a"], "bad": pa.array([b"\xff"]).view(pa.string()), "i": ["x"]})
    for path in (write_parquet(table, tmp_path), write_feather(table, tmp_path), write_arrow(table, tmp_path)):
        assert entries(Interactions.from_table(path, "u", "i")) == {("a", "x"): (1,)}
        with pytest.raises(ValueError, match=rf"{path.name}: .*(?i:utf)"):
            Interactions.from_table(path, "bad", "i")


def test_polars():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"u": ["b", "a", None], "i": [1, 2, 3], "t": [5, 6, 7]})
    frame = frame.with_columns(polars.col("t").cast(polars.Datetime("ms")), c=polars.col("u").cast(polars.Categorical))
    interactions = Interactions.from_table(frame, "u", "i", None, "t", errors="report")
    assert entries(interactions) == {("b", 1): (1, 0), ("a", 2): (1, 0)}
    assert rejected(interactions) == [(2, "u: missing label")]
    assert list(Interactions.from_table(frame, "c", "i", errors="report").users) == ["a", "b"]


@pytest.mark.parametrize(
    "options", [{"column_names": ()}, {"column_names": None}, {"integers": None}, {"integers": ()}]
)
def test_no_names_are_the_same_as_none_given(tmp_path, options):
    path = tmp_path / "plays.csv"
    path.write_text("user,item\nann,x\nbob,y\n")
    plays = Interactions.from_table(path, "user", "item", **options)
    assert (list(plays.users), list(plays.items), plays.report.read) == (["ann", "bob"], ["x", "y"], 2)
