"""Reads delimited text exactly: typed columns of the valid lines, and the reason why each other line is rejected."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from alscore._data.tables import matching
from alscore._support.arrays import Bools, Ints
from alscore._support.checks import require
from alscore._support.threads import available_cpus
from alscore.datasets._archives import DAMAGE_ERRORS, open_data
from alscore.datasets._blocks import BLOCK_BYTES, BOM, LineTooLongError, blocks
from alscore.interactions import Interactions, Report

_Columns = dict[str, pa.Array]  # dictionary-encoded, or large_string for a field that is mostly unique
_MAX_THREADS = 4  # threads that parse blocks: the one thread that joins their results cannot keep up with more
# Bytes of lines that Python splits, slowly, if Arrow cannot split one of them. A block is halved down to this size:
# fewer bytes would call Arrow more often.
_SPLIT_BYTES = 1 << 16
_WRONG_WIDTH, _WRONG_ENCODING, _WRONG_QUOTES = 1, 2, 3  # faults of a line that cannot be split; indices of `reasons`


class Field(NamedTuple):
    """One field of a line.

    Attributes
    ----------
    fault : str
        What a rejected text does wrong, for messages: "is not a positive integer".
    parse : function
        Takes distinct texts (pyarrow large_string) and returns as many values; null for a text that is rejected.
    optional : bool
        The field may be empty; the value is then missing.
    mostly_unique : bool
        Few lines share a text. The text of every line is parsed; for other fields each distinct text is parsed once.
    """

    fault: str
    parse: Callable[[pa.Array], pa.Array]
    optional: bool = False
    mostly_unique: bool = False


class FileFormat(NamedTuple):
    """The form of a data file.

    Attributes
    ----------
    file : str
        Name of the file.
    fields : dict of str to Field or None
        The fields in the order of a line; None for a field that is not read.
    header : bytes
        The first line, if it is not a line of data.
    delimiter : bytes
        One character, or several that contain no TAB.
    quoted : bool
        A field in double quotes may contain delimiters, and quotes that are doubled. By default, quotes are text.
    latin_1 : bool
        A line that is not UTF-8 is Latin-1.
    any_of : tuple of str
        Optional fields. A line is valid only if at least one of them is not empty.
    as_item : bool
        The column ``item`` replaces the two fields `any_of`: the first one, or the second one where the first is empty.
    rare_fallback : bool
        Few lines need the second field of `any_of`. It is read only in blocks with a line that does.
    """

    file: str
    fields: Mapping[str, Field | None]
    header: bytes = b""
    delimiter: bytes = b"\t"
    quoted: bool = False
    latin_1: bool = False
    any_of: tuple[str, ...] = ()
    as_item: bool = False
    rare_fallback: bool = False


class _ParsedLines(NamedTuple):
    """Some lines: their number, the valid ones, the positions of the rejected ones, and the reasons."""

    n_lines: int
    valid: pa.Table
    rejected: Ints
    reasons: NDArray[np.object_]


def like(pattern: str, arrow_type: str = "large_string") -> Callable[[pa.Array], pa.Array]:
    """Return a function for `Field.parse`: it casts texts that match the RE2 `pattern` to a type of pyarrow."""

    def parse(texts: pa.Array) -> pa.Array:
        return matching(texts, pattern).cast(arrow_type)

    return parse


TEXT = Field("is empty", like("."))
OPTIONAL_TEXT = TEXT._replace(optional=True)
POSITIVE = Field("is not a positive integer", like("^[1-9][0-9]{0,17}$", "int64"))


def data_file(path: str | os.PathLike[str], name: str) -> Path:
    """Return `path`. If it is a folder, return the one file `name` in it, at any depth, plain or gzipped."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    matches = sorted(path.rglob(name)) or sorted(path.rglob(name + ".gz"))
    if len(matches) != 1:
        raise ValueError(f"{path} holds {len(matches)} files named {name}; give the path of one")
    return matches[0]


class Lines:
    """The lines of a data file. Iterate over them once, then call `report`.

    An iteration yields tables (pyarrow) of valid lines. The columns are those of the file format; text is
    dictionary-encoded. Memory holds a few blocks at a time.

    Parameters
    ----------
    path : str or path
        An archive, the data file (plain or gzipped), or a folder that holds it at any depth.
    file_format : FileFormat
        The form of the data file.
    errors : {"report", "raise"}
        Leave out lines that are not valid and list them in the report, or raise a ValueError.
    names : FileFormat, optional
        Form of a second data file in `path`, with an `id` and a `name` in each line. The names replace the ids in the
        column `item`. The report also lists the rejected lines of that file.
    block_bytes : int
        Bytes of a block, which one thread parses. A longer line is an error.
    split_bytes : int
        Bytes of lines that Python splits if Arrow cannot split one of them.
    threads : int, optional
        Number of threads that parse. Default: one for each CPU of this process, at most 4.

    Raises
    ------
    FileNotFoundError, ValueError
        Same errors as `lastfm_360k`. Most of them are raised while the lines are read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        file_format: FileFormat,
        errors: str,
        names: FileFormat | None = None,
        *,
        block_bytes: int = BLOCK_BYTES,
        split_bytes: int = _SPLIT_BYTES,
        threads: int | None = None,
    ) -> None:
        require(errors in ("report", "raise"), "errors", "'report' or 'raise'", errors)
        path = Path(path).expanduser()
        self.path = data_file(path, file_format.file)
        self._errors = errors
        self._where = f"{self.path} ({file_format.file})"
        self._block_bytes, self._split_bytes = block_bytes, split_bytes
        self._threads = threads or min(available_cpus(), _MAX_THREADS)
        self._n_header_lines = self._n_lines = 0  # lines read so far
        self._rejected: list[pd.DataFrame] = []
        self._rejected_names: list[pd.DataFrame] = []
        if names:
            if path.is_file() and path.name.removesuffix(".gz") == file_format.file:
                raise ValueError(f"{path} has no names: give the folder that also holds {names.file}, or items='id'")
            name_of, rejected = _read_names(path, names, errors)
            item = _name_field(name_of, names.file)
            file_format = file_format._replace(fields={**file_format.fields, "item": item})
            self._rejected_names = [rejected]
        self._format = file_format

    def __iter__(self) -> Iterator[pa.Table]:
        try:
            with open_data(self.path, self._format.file) as stream:
                for part in self._parse_in_threads(stream):
                    if part.rejected.size:
                        self._reject(part)
                    self._n_lines += part.n_lines
                    if len(part.valid):
                        yield part.valid
        except (*DAMAGE_ERRORS, LineTooLongError) as error:
            last = self._n_header_lines + self._n_lines
            raise ValueError(f"{self._where} is damaged after line {last:,} ({error}); obtain it again") from error
        if sum(map(len, self._rejected)) == self._n_lines:
            first = next((part.iloc[0] for part in self._rejected), None)
            why = "it is empty" if first is None else f"line {first['number']}: {first['reason']}"
            raise ValueError(f"{self._where} holds no valid line ({', '.join(self._format.fields)}); {why}")

    def _reject(self, part: _ParsedLines) -> None:
        numbers = self._n_header_lines + self._n_lines + 1 + part.rejected
        if self._errors == "raise":
            raise ValueError(
                f"{self._where}, line {numbers[0]:,}: {part.reasons[0]}; correct it, or leave out such lines with "
                "errors='report'"
            )
        self._rejected.append(pd.DataFrame({"number": numbers, "reason": part.reasons}))

    def report(self, kept: int) -> Report:
        """Return the report on all lines. `kept` lines have a row or an entry of their own."""
        nothing = pd.DataFrame({"number": np.empty(0, np.int64), "reason": np.empty(0, object)})
        rejected = pd.concat([*self._rejected_names, *self._rejected] or [nothing], ignore_index=True)
        read = self._n_lines + sum(map(len, self._rejected_names))
        return Report(read, kept, read - kept - len(rejected), rejected)

    def _parse_in_threads(self, stream: BufferedIOBase) -> Iterator[_ParsedLines]:
        """Parse a stream in threads, block by block, while the next block is read."""
        # Buffers: one for the block that is read, threads + 1 for those in `running`.
        unparsed = self._without_header(blocks(stream, self._threads + 2, self._block_bytes))
        running: deque[Future[list[_ParsedLines]]] = deque()
        with ThreadPoolExecutor(self._threads + 1) as pool:
            upcoming = pool.submit(next, unparsed, None)
            while not upcoming.exception() and (block := upcoming.result()):
                upcoming = pool.submit(next, unparsed, None)
                running.append(pool.submit(_parse, block, self._format, self._split_bytes))
                if len(running) > self._threads:
                    yield from running.popleft().result()
            for parts in running:
                yield from parts.result()
            upcoming.result()  # raises the error that ended the stream, if one did

    def _without_header(self, unparsed: Iterator[memoryview]) -> Iterator[memoryview]:
        header = self._format.header
        if header:
            block = next(unparsed, memoryview(b""))
            line, end, _ = bytes(block[: len(header) + 2]).partition(b"\n")
            if line.removesuffix(b"\r") != header:
                raise ValueError(f"{self._where} begins with {line!r}, not with the header {header!r}")
            self._n_header_lines = 1
            if len(block) > len(line + end):
                yield block[len(line + end) :]
        yield from unparsed


def read_dataframe(lines: Lines, categories: tuple[str, ...] = ()) -> tuple[pd.DataFrame, Report]:
    """Return a row for each valid line, and a report. Text columns are strings, or `categories`."""
    table = pa.concat_tables(lines).unify_dictionaries()
    for at, name in enumerate(table.column_names):
        arrow_type = table.schema.types[at]
        if pa.types.is_dictionary(arrow_type) and name not in categories:
            table = table.set_column(at, name, table[name].cast(arrow_type.value_type))
    # Only optional columns are int32: their values can be missing.
    frame = table.to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get)
    return frame, lines.report(len(frame))


def read_interactions(
    lines: Lines,
    value: str,
    timestamp: str | None = None,
    *,
    duplicates: str = "sum",
    per_block: Callable[[pa.Table], pa.Table] | None = None,
) -> Interactions:
    """Return Interactions of the columns user, item, `value` and `timestamp`.

    `per_block` maps the table of each block to a table with these columns, for example to sum repeats early.
    """
    table = pa.concat_tables(map(per_block, lines) if per_block else lines).unify_dictionaries()
    frame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    interactions = Interactions.from_pandas(frame, "user", "item", value, timestamp, duplicates=duplicates)
    interactions.report = lines.report(interactions.nnz)
    return interactions


def _read_names(
    path: str | os.PathLike[str], file_format: FileFormat, errors: str
) -> tuple[dict[str, str], pd.DataFrame]:
    """Return the `name` of each `id`, and the rejected lines. A name of several ids is followed by the id."""
    table, report = read_dataframe(Lines(path, file_format, errors))
    repeated = table["id"].duplicated()
    if repeated.any():
        raise ValueError(
            f"{path} ({file_format.file}) names id {table['id'][repeated].iloc[0]} more than once; remove all but one"
        )
    ids, names = table["id"].astype(str), table["name"]
    while (shared := names.duplicated(keep=False)).any():  # again, in case "name [id]" is the name of another id
        names = names.mask(shared, names + " [" + ids + "]")
    rejected = report.rejected.assign(reason=f"{file_format.file}: " + report.rejected["reason"])
    return dict(zip(ids, names, strict=True)), rejected


def _name_field(name_of: dict[str, str], file: str) -> Field:
    """Return a field of ids whose values are their names, which come from `file`."""

    def parse(texts: pa.Array) -> pa.Array:
        return pa.array(map(name_of.get, texts.to_pylist()), pa.large_string())

    return Field(f"is not named in {file}", parse)


def _parse(block: memoryview, file_format: FileFormat, split_bytes: int) -> list[_ParsedLines]:
    columns = _split_by_arrow(block, file_format)
    if columns is not None:
        return [_validate(columns, np.zeros(len(next(iter(columns.values()))), np.int8), file_format)]
    middle = bytes(block).find(b"\n", len(block) // 2) + 1
    if len(block) > split_bytes and 0 < middle < len(block):
        return _parse(block[:middle], file_format, split_bytes) + _parse(block[middle:], file_format, split_bytes)
    return [_validate(*_split_by_python(bytes(block), file_format), file_format)]


def _split_by_arrow(block: memoryview, file_format: FileFormat) -> _Columns | None:
    """Return the columns of a block, or None if Python has to split its lines. A blank line has empty fields."""
    if file_format.quoted:
        return None
    delimiter = file_format.delimiter
    if len(delimiter) > 1:
        if b"\t" in bytes(block):
            return None
        block, delimiter = memoryview(bytes(block).replace(delimiter, b"\t")), b"\t"
    data = pa.py_buffer(block)
    text = pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(np.array([0, len(block)])), data])
    encoded, plain = pa.dictionary(pa.int32(), pa.large_string()), pa.large_string()
    types = {name: plain if field.mostly_unique else encoded for name, field in file_format.fields.items() if field}
    fallback = file_format.any_of[1] if file_format.rare_fallback else None

    def read(names: Iterable[str]) -> _Columns:
        table = csv.read_csv(
            pa.BufferReader(data),
            csv.ReadOptions(column_names=list(file_format.fields), block_size=len(block), use_threads=False),
            csv.ParseOptions(delimiter=delimiter.decode(), quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=types, include_columns=list(names), null_values=[], check_utf8=False),
        )
        return {name: table[name].combine_chunks() for name in names}

    try:
        text.validate(full=True)  # verifies UTF-8 for the whole block, which is faster than field by field
        # Arrow ends a line at a lone CR, and drops a byte order mark at the start of a block.
        if block[:3] == BOM or pc.match_substring_regex(text, r"\r([^\n]|$)")[0].as_py():
            return None
        columns = read([name for name in types if name != fallback])
        if fallback and pc.any(pc.equal(columns[file_format.any_of[0]].dictionary, "")).as_py():
            columns = read(types)
        return columns
    except pa.ArrowInvalid:  # not UTF-8, or a line that is not blank has another number of fields
        return None


def _split_by_python(block: bytes, file_format: FileFormat) -> tuple[_Columns, NDArray[np.int8]]:
    """Return the columns of the lines that could be split, and the fault of each line, 0 if it could."""
    lines = block.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    faults = np.zeros(len(lines), np.int8)
    rows = []
    for at, line in enumerate(lines):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            if not file_format.latin_1:
                faults[at] = _WRONG_ENCODING
                continue
            text = line.decode("latin-1")
        fields = _split_line(text, file_format)
        if fields is None:
            faults[at] = _WRONG_QUOTES
        elif len(fields) != len(file_format.fields):
            faults[at] = _WRONG_WIDTH
        else:
            rows.append(fields)
    columns: _Columns = {}
    for at, (name, field) in enumerate(file_format.fields.items()):
        if field:
            texts = pa.array([row[at] for row in rows], pa.large_string())
            columns[name] = texts if field.mostly_unique else texts.dictionary_encode()
    return columns, faults


def _split_line(line: str, file_format: FileFormat) -> list[str] | None:
    """Return the fields, or None if the quotes do not enclose whole fields."""
    if not line:
        return [""] * len(file_format.fields)
    delimiter = file_format.delimiter.decode()
    if not file_format.quoted:
        return line.split(delimiter)
    # Not the csv module: it allows no CR outside quotes, and at most 131,072 characters in a field.
    field = rf'(?:"((?:[^"]|"")*+)"|((?!")[^{delimiter}]*+)){delimiter}'
    if not re.fullmatch(f"(?:{field})*+", line + delimiter):
        return None
    return [quoted.replace('""', '"') or plain for quoted, plain in re.findall(field, line + delimiter)]


def _validate(columns: _Columns, line_faults: NDArray[np.int8], file_format: FileFormat) -> _ParsedLines:
    """Parse the columns, which hold the lines whose fault is 0, and find the faults of these lines."""
    reasons = ["", f"not {len(file_format.fields)} fields", "not UTF-8", "unpaired or misplaced quotes"]
    faults = np.zeros(np.count_nonzero(line_faults == 0), np.int8)

    def reject(reason: str, rows: Bools) -> None:
        faults[rows & (faults == 0)] = len(reasons)
        reasons.append(reason)

    values = {}
    for name, column in columns.items():
        field = file_format.fields[name]
        assert field is not None  # it has a column
        values[name], wrong = _parse_column(column, field)
        if wrong is not None:
            reject(f"{name} {field.fault}", wrong)
    any_of = file_format.any_of
    if file_format.as_item:
        values["item"] = _coalesce(*(values.pop(name) for name in any_of if name in values))
        any_of = ("item",)
    if any_of:
        missing = [_to_numpy(values[name].is_null()) for name in any_of]
        reject(f"neither {' nor '.join(file_format.any_of)}", np.logical_and.reduce(missing))
    valid = pa.table(values)
    if faults.any():
        valid = valid.filter(pa.array(faults == 0))
        line_faults[line_faults == 0] = faults
    rejected = np.flatnonzero(line_faults)
    return _ParsedLines(len(line_faults), valid, rejected, np.array(reasons, object)[line_faults[rejected]])


def _parse_column(column: pa.Array, field: Field) -> tuple[pa.Array, Bools | None]:
    """Return the values of a column, and the mask of the rows that are rejected; None if all are valid.

    Each distinct text is parsed once. If all distinct texts are valid, no row is looked at.
    """
    texts = column if field.mostly_unique else column.dictionary
    parsed = field.parse(texts)
    wrong = parsed.is_null()
    if field.optional:
        wrong = pc.and_(wrong, pc.not_equal(texts, ""))
    rejected = None
    if pc.any(wrong).as_py():
        rejected = _to_numpy(wrong if field.mostly_unique else wrong.take(column.indices))
    if field.mostly_unique:
        return parsed, rejected
    if parsed.equals(texts):
        return column, rejected
    if pa.types.is_large_string(parsed.type):
        distinct = parsed.dictionary_encode()
        return pa.DictionaryArray.from_arrays(distinct.indices.take(column.indices), distinct.dictionary), rejected
    return parsed.take(column.indices), rejected


def _coalesce(first: pa.DictionaryArray, fallback: pa.DictionaryArray | None = None) -> pa.DictionaryArray:
    """Return `first`, and where it is null `fallback`."""
    if fallback is None:
        return first
    missing = first.is_null()
    used = fallback.filter(missing).dictionary_decode()  # usually few rows
    labels = pa.concat_arrays([first.dictionary, used]).dictionary_encode()
    added = np.arange(len(first.dictionary), len(first.dictionary) + len(used), dtype=np.int32)
    codes = pc.replace_with_mask(first.indices, missing, pa.array(added))
    return pa.DictionaryArray.from_arrays(labels.indices.take(codes), labels.dictionary)


def _to_numpy(booleans: pa.BooleanArray) -> Bools:
    mask: Bools = booleans.to_numpy(zero_copy_only=False)
    return mask
