"""Delimited text, to the letter: typed columns of the valid lines, and what is wrong with each of the others."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alscore._data.tables import matching
from alscore._support.arrays import Bools, Ints
from alscore._support.checks import require
from alscore._support.threads import available_cpus
from alscore.datasets._archives import DAMAGE, open_data
from alscore.datasets._blocks import BOM, LineTooLongError, blocks
from alscore.interactions import Interactions, Report

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_Columns = dict[str, "pa.DictionaryArray | pa.LargeStringArray"]  # the latter for what is varied
_MOST_THREADS = 4  # joining what they have parsed keeps up with no more
_FEW = 1 << 16  # bytes of lines that Python splits when one of them is broken
_WIDTH, _ENCODING, _QUOTES = 1, 2, 3  # what a line can lack before its fields are looked at


class Field(NamedTuple):
    """One field of a line.

    Attributes
    ----------
    kind : str
        What its text has to be, for messages.
    parse : function
        Makes of its distinct texts (pyarrow large_string) as many values, null for those of another kind.
    optional : bool
        It may be empty too, and the value missing.
    varied : bool
        Few lines have the same, so that to find those that do is not worth it.
    """

    kind: str
    parse: Callable[["pa.Array"], "pa.Array"]
    optional: bool = False
    varied: bool = False


class Layout(NamedTuple):
    """What a data file is made of.

    Attributes
    ----------
    file : str
        Its name.
    fields : dict of str to Field or None
        In the order of a line; None for one that nobody asks for.
    header : bytes
        Its first line, if that is none of the data.
    delimiter : bytes
    quoted : bool
        A field in double quotes may hold delimiters and, doubled, quotes. Else quotes are text like any other.
    latin_1 : bool
        A line that is not UTF-8 is Latin-1.
    required : tuple of str
        Optional fields of which a line has at least one.
    as_item : bool
        Of those two, all that is wanted is the first that a line has, as column ``item``.
    spare : str
        The second of them if few lines have need of it, so that it is not read where none has.
    """

    file: str
    fields: Mapping[str, Field | None]
    header: bytes = b""
    delimiter: bytes = b"\t"
    quoted: bool = False
    latin_1: bool = False
    required: tuple[str, ...] = ()
    as_item: bool = False
    spare: str = ""


class _Part(NamedTuple):
    """Some lines: how many, the valid ones, the positions of the others, and what is wrong with each of those."""

    n_lines: int
    valid: "pa.Table"
    lost: Ints
    reasons: NDArray[np.object_]


def like(pattern: str, kind: str = "large_string") -> Callable[["pa.Array"], "pa.Array"]:
    """Return a function for `Field.parse`: texts that the RE2 `pattern` matches, as the pyarrow type `kind`."""

    def parse(texts: "pa.Array") -> "pa.Array":
        return matching(texts, pattern).cast(kind)

    return parse


TEXT = Field("text", like("."))
OPTIONAL_TEXT = TEXT._replace(optional=True)
POSITIVE = Field("a positive integer", like("^[1-9][0-9]{0,17}$", "int64"))


def data_file(path: str | os.PathLike[str], name: str) -> Path:
    """Return `path`, or of a folder the one file `name` in it, which may be gzipped."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    found = sorted(path.rglob(name)) or sorted(path.rglob(name + ".gz"))
    if len(found) != 1:
        raise ValueError(f"{path} holds {len(found)} files named {name}; give the path of one")
    return found[0]


class Lines:
    """The lines of a data file, to be read once: tables of the valid ones by iteration, then a report on all.

    Each table has some rows, of which the columns are what the fields say, text as dictionaries. Memory is that of a
    few blocks.

    Parameters
    ----------
    path : str or path
        An archive, the file, plain or gzipped, or a folder that holds it at any depth.
    layout : Layout
    errors : {"report", "raise"}
    names : Layout, optional
        A second data file there, with an `id` and a `name` in each line. The names take the place of the field `item`,
        and the report has the lines rejected there too.

    Raises
    ------
    FileNotFoundError, ValueError
        As `lastfm_360k`; for the most part not before the lines are read.
    """

    def __init__(self, path: str | os.PathLike[str], layout: Layout, errors: str, names: Layout | None = None) -> None:
        require(errors in ("report", "raise"), "errors", "'report' or 'raise'", errors)
        path = Path(path).expanduser()
        self._path, self._errors = data_file(path, layout.file), errors
        self._where = f"{self._path} ({layout.file})"
        self._n_skipped = self._n_lines = 0  # header, and lines judged
        self._rejected: list[pd.DataFrame] = []
        self._rejected_names: list[pd.DataFrame] = []
        if names:
            if path.is_file() and path.name.removesuffix(".gz") == layout.file:
                raise ValueError(f"{path} is one file of two: give the folder with {names.file} too, or items='id'")
            by_id, rejected = _read_names(path, names, errors)
            layout = layout._replace(fields={**layout.fields, "item": _named(by_id, names.file)})
            self._rejected_names = [rejected]
        self._layout = layout

    def __iter__(self) -> Iterator["pa.Table"]:
        import pandas as pd

        try:
            with open_data(self._path, self._layout.file) as stream:
                for part in self._parts(stream):
                    if part.lost.size:
                        numbers = self._n_skipped + self._n_lines + 1 + part.lost
                        if self._errors == "raise":
                            raise ValueError(
                                f"{self._where}, line {numbers[0]:,}: {part.reasons[0]}; correct it, or leave such "
                                f"lines out with errors='report'"
                            )
                        self._rejected.append(pd.DataFrame({"number": numbers, "reason": part.reasons}))
                    self._n_lines += part.n_lines
                    if len(part.valid):
                        yield part.valid
        except (*DAMAGE, LineTooLongError) as error:
            at = self._n_skipped + self._n_lines
            raise ValueError(f"{self._where} is damaged after line {at:,} ({error}); obtain it again") from error
        if sum(map(len, self._rejected)) == self._n_lines:
            first = next((part.iloc[0] for part in self._rejected), None)
            why = "it is empty" if first is None else f"line {first['number']}: {first['reason']}"
            raise ValueError(f"{self._where} holds no valid line ({', '.join(self._layout.fields)}); {why}")

    def report(self, kept: int) -> Report:
        """Account for all lines, of which `kept` have a row or an entry of their own."""
        import pandas as pd

        nothing = pd.DataFrame({"number": np.empty(0, np.int64), "reason": np.empty(0, object)})
        rejected = pd.concat([*self._rejected_names, *self._rejected] or [nothing], ignore_index=True)
        read = self._n_lines + sum(map(len, self._rejected_names))
        return Report(read, kept, read - kept - len(rejected), rejected)

    def _parts(self, stream: BufferedIOBase) -> Iterator[_Part]:
        """Parse a stream in threads, block by block, while the next block is read."""
        threads = min(available_cpus(), _MOST_THREADS)
        some = self._without_header(blocks(stream, threads + 2))  # one is read, threads + 1 are in `running`
        running: deque[Future[list[_Part]]] = deque()
        with ThreadPoolExecutor(threads + 1) as pool:
            upcoming = pool.submit(next, some, None)
            while not upcoming.exception() and (block := upcoming.result()):
                upcoming = pool.submit(next, some, None)
                running.append(pool.submit(_parse, block, self._layout))
                if len(running) > threads:
                    yield from running.popleft().result()
            for parts in running:
                yield from parts.result()
            upcoming.result()  # raises what ended the stream too early

    def _without_header(self, some: Iterator[memoryview]) -> Iterator[memoryview]:
        header = self._layout.header
        if header:
            block = next(some, memoryview(b""))
            line, end, _ = bytes(block[: len(header) + 2]).partition(b"\n")
            if line.removesuffix(b"\r") != header:
                raise ValueError(f"{self._where} begins with {line!r}, not with the line {header!r}")
            self._n_skipped = 1
            if len(block) > len(line + end):
                yield block[len(line + end) :]
        yield from some


def read_table(
    path: str | os.PathLike[str], layout: Layout, errors: str, categories: tuple[str, ...] = ()
) -> tuple["pd.DataFrame", Report]:
    """Return the valid lines of a data file as a table, text as strings or `categories`, and a report."""
    import pandas as pd
    import pyarrow as pa

    lines = Lines(path, layout, errors)
    table = pa.concat_tables(lines).unify_dictionaries()
    for at, name in enumerate(table.column_names):
        kind = table.schema.types[at]
        if pa.types.is_dictionary(kind) and name not in categories:
            table = table.set_column(at, name, table[name].cast(kind.value_type))
    frame = table.to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get)  # int64 is for what is never missing
    return frame, lines.report(len(frame))


def _read_names(path: str | os.PathLike[str], layout: Layout, errors: str) -> tuple[dict[str, str], "pd.DataFrame"]:
    """Return the `name` of each `id` in a data file, with the id where several have it, and what is rejected."""
    table, report = read_table(path, layout, errors)
    repeated = table["id"].duplicated()
    if repeated.any():
        raise ValueError(f"{path} ({layout.file}) names {table['id'][repeated].iloc[0]} more than once; remove one")
    ids, names = table["id"].astype(str), table["name"]
    while (shared := names.duplicated(keep=False)).any():  # again if what that makes is the name of another
        names = names.mask(shared, names + " [" + ids + "]")
    rejected = report.rejected.assign(reason=f"{layout.file}: " + report.rejected["reason"])
    return dict(zip(ids, names, strict=True)), rejected


def _named(names: dict[str, str], file: str) -> Field:
    """Return a field of an id whose value is the name that it has in `names`, which come from `file`."""

    def parse(texts: "pa.Array") -> "pa.Array":
        import pyarrow as pa

        return pa.array(map(names.get, texts.to_pylist()), pa.large_string())

    return Field(f"named in {file}", parse)


def read_interactions(
    lines: Lines, tables: Iterable["pa.Table"], value: str, timestamp: str | None = None, duplicates: str = "sum"
) -> Interactions:
    """Make Interactions of `tables`, which come of `lines`, with columns user, item, value and perhaps timestamp."""
    import pyarrow as pa

    table = pa.concat_tables(tables).unify_dictionaries()
    frame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    interactions = Interactions.from_pandas(frame, "user", "item", value, timestamp, duplicates=duplicates)
    interactions.report = lines.report(interactions.nnz)
    return interactions


def _parse(block: memoryview, layout: Layout) -> list[_Part]:
    columns = _read_csv(block, layout)
    if columns is not None:
        return [_judge(columns, np.zeros(len(next(iter(columns.values()))), np.int8), layout)]
    middle = bytes(block).find(b"\n", len(block) // 2) + 1
    if len(block) > _FEW and 0 < middle < len(block):
        return _parse(block[:middle], layout) + _parse(block[middle:], layout)
    return [_judge(*_split(bytes(block), layout), layout)]


def _read_csv(block: memoryview, layout: Layout) -> _Columns | None:
    """Return the columns of a block, a blank line as empty fields, or None if Python has to split its lines."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    if layout.quoted:
        return None
    delimiter = layout.delimiter
    if len(delimiter) > 1:
        if b"\t" in bytes(block):
            return None
        block, delimiter = memoryview(bytes(block).replace(delimiter, b"\t")), b"\t"
    data = pa.py_buffer(block)
    text = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(block)])), data])
    encoded, plain = pa.dictionary(pa.int32(), pa.large_string()), pa.large_string()
    types = {name: plain if field.varied else encoded for name, field in layout.fields.items() if field}

    def read(names: Iterable[str]) -> _Columns:
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(column_names=list(layout.fields), block_size=len(block), use_threads=False),
            csv.ParseOptions(delimiter=delimiter.decode(), quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=types, include_columns=list(names), null_values=[], check_utf8=False),
        )
        return {name: table[name].combine_chunks() for name in names}

    try:
        text.validate(full=True)  # as UTF-8, at once and not field by field
        # To arrow a lone CR ends a line, and what looks like a byte order mark is none of the text.
        if block[:3] == BOM or pc.match_substring_regex(text, r"\r([^\n]|$)")[0].as_py():
            return None
        columns = read([name for name in types if name != layout.spare])
        if layout.spare and pc.any(pc.equal(columns[layout.required[0]].dictionary, "")).as_py():
            columns = read(types)
        return columns
    except pa.ArrowInvalid:  # not UTF-8, or a line that is neither blank nor of as many fields
        return None


def _split(block: bytes, layout: Layout) -> tuple[_Columns, NDArray[np.int8]]:
    """Return the columns of the lines that have them, and for each line what it lacks, or 0."""
    import pyarrow as pa

    lines = block.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    lacks = np.zeros(len(lines), np.int8)
    rows = []
    for at, line in enumerate(lines):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            if not layout.latin_1:
                lacks[at] = _ENCODING
                continue
            text = line.decode("latin-1")
        fields = _fields(text, layout)
        if fields is None:
            lacks[at] = _QUOTES
        elif len(fields) != len(layout.fields):
            lacks[at] = _WIDTH
        else:
            rows.append(fields)
    columns: _Columns = {}
    for at, (name, field) in enumerate(layout.fields.items()):
        if field:
            texts = pa.array([row[at] for row in rows], pa.large_string())
            columns[name] = texts if field.varied else texts.dictionary_encode()
    return columns, lacks


def _fields(line: str, layout: Layout) -> list[str] | None:
    """Return the fields, or None if the quotes are not in pairs around whole fields."""
    if not line:
        return [""] * len(layout.fields)
    delimiter = layout.delimiter.decode()
    if not layout.quoted:
        return line.split(delimiter)
    # by hand: to the csv module a field has no CR without quotes and at most 131,072 characters
    field = rf'(?:"((?:[^"]|"")*+)"|((?!")[^{delimiter}]*+)){delimiter}'
    if not re.fullmatch(f"(?:{field})*+", line + delimiter):
        return None
    return [quoted.replace('""', '"') or plain for quoted, plain in re.findall(field, line + delimiter)]


def _judge(columns: _Columns, lacks: NDArray[np.int8], layout: Layout) -> _Part:
    """Parse the texts of each column, distinct ones once: where those are all good, no line needs a look."""
    import pyarrow as pa
    import pyarrow.compute as pc

    reasons = ["", f"not {len(layout.fields)} fields", "not UTF-8", "quotes not as in CSV"]
    faults = np.zeros(np.count_nonzero(lacks == 0), np.int8)

    def reject(reason: str, lines: Bools) -> None:
        faults[lines & (faults == 0)] = len(reasons)
        reasons.append(reason)

    values = {}
    for name, column in columns.items():
        field = layout.fields[name]
        assert field is not None  # it has a column
        texts = column if field.varied else column.dictionary
        parsed = field.parse(texts)
        wrong = parsed.is_null()
        if field.optional:
            wrong = pc.and_(wrong, pc.not_equal(texts, ""))
        if pc.any(wrong).as_py():
            reject(f"{name} is not {field.kind}", _mask(wrong if field.varied else wrong.take(column.indices)))
        if field.varied:
            values[name] = parsed
        elif parsed.equals(texts):
            values[name] = column
        elif pa.types.is_large_string(parsed.type):
            distinct = parsed.dictionary_encode()
            values[name] = pa.DictionaryArray.from_arrays(distinct.indices.take(column.indices), distinct.dictionary)
        else:
            values[name] = parsed.take(column.indices)
    required = layout.required
    if layout.as_item:
        values["item"] = _first_of(*(values.pop(name) for name in required if name in values))
        required = ("item",)
    if required:
        missing = [_mask(values[name].is_null()) for name in required]
        reject(f"neither {' nor '.join(layout.required)}", np.logical_and.reduce(missing))
    valid = pa.table(values)
    if faults.any():
        valid = valid.filter(pa.array(faults == 0))
        lacks[lacks == 0] = faults
    lost = np.flatnonzero(lacks)
    return _Part(len(lacks), valid, lost, np.array(reasons, object)[lacks[lost]])


def _first_of(first: "pa.DictionaryArray", other: "pa.DictionaryArray | None" = None) -> "pa.DictionaryArray":
    """Return `first`, and `other` where it is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if other is None:
        return first
    missing = first.is_null()
    others = other.filter(missing).dictionary_decode()  # most often of few lines
    labels = pa.concat_arrays([first.dictionary, others]).dictionary_encode()
    added = np.arange(len(first.dictionary), len(first.dictionary) + len(others), dtype=np.int32)
    codes = pc.replace_with_mask(first.indices, missing, pa.array(added))
    return pa.DictionaryArray.from_arrays(labels.indices.take(codes), labels.dictionary)


def _mask(booleans: "pa.BooleanArray") -> Bools:
    mask: Bools = booleans.to_numpy(zero_copy_only=False)
    return mask
