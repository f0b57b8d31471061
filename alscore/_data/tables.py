"""Reads tables into observations, one for each row: from pandas, from files, and from objects that export Arrow data.

An observation is a row of a table: a user, an item, a value and a time. `alscore._data.observations` merges them into
entries.
"""

import codecs
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from alscore._support.arrays import Ints
from alscore._support.checks import require

# Bytes of text that Arrow parses at a time. A line must fit into one or two blocks; larger blocks take more memory.
_BLOCK_BYTES = 1 << 23
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_COMPRESSED = (".gz", ".bz2", ".zst")
_LABELS = ("user", "item")

Columns = dict[str, pa.Array]  # by argument of `Interactions.from_table`: "user", "item", "value", "timestamp"


class ColumnNames(NamedTuple):
    """The names of the columns of a table. None: there is no such column."""

    user: Any
    item: Any
    value: Any = None
    timestamp: Any = None

    def given(self) -> dict[str, Any]:
        """Return the names that are not None, by argument of `Interactions.from_table`."""
        return {argument: name for argument, name in self._asdict().items() if name is not None}

    def for_messages(self) -> "ColumnNames":
        """Return the names that messages use. Without a column of values each row counts 1."""
        return self._replace(value="count") if self.value is None else self


@dataclass(frozen=True)
class TextOptions:
    """The options of `Interactions.from_table` for delimited text, and the number of bytes parsed at a time."""

    delimiter: str | None = None
    quoting: bool | None = None
    column_names: Sequence[str] | None = None
    integers: Sequence[str] = ()
    block_bytes: int = _BLOCK_BYTES

    def given(self) -> list[str]:
        """Return the names of the options that the caller has set."""
        options = ("delimiter", "quoting", "column_names", "integers")
        return [option for option in options if getattr(self, option) not in (None, ())]


class Observations(NamedTuple):
    """The columns of a table, and what messages and the report say about its rows.

    Attributes
    ----------
    users, items : array_like, length n
        Labels.
    values, timestamps : array_like, length n, or None
    names : ColumnNames
        The names of these columns in messages.
    where : str
        The beginning of messages, such as "plays.csv: ".
    unit : str
        The unit of row numbers: "position" or "line".
    first : int
        The number of the first row.
    faults : sequence of (str, int array)
        Reasons to reject rows that are known already, and for each the positions of these rows in the columns.
    skipped : int array
        The numbers of rows that are not in the columns, ascending.
    why_skipped : str
        The reason for all of `skipped`.
    """

    users: Any
    items: Any
    values: Any
    timestamps: Any
    names: ColumnNames
    where: str = ""
    unit: str = "position"
    first: int = 0
    faults: Sequence[tuple[str, Ints]] = ()
    skipped: Ints = np.zeros(0, np.int64)
    why_skipped: str = ""

    def numbers(self, positions: Ints) -> Ints:
        """Return the numbers of the rows at `positions` in the columns."""
        rows_before = self.skipped - self.first - np.arange(self.skipped.size)
        return positions + self.first + np.searchsorted(rows_before, positions, side="right")


def read_observations(source: Any, names: ColumnNames, text: TextOptions) -> Observations:
    """Read the columns of these names from a table or a file. `Interactions.from_table` describes them all."""
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source), names, text)
    _refuse(text)
    if isinstance(source, pd.DataFrame):
        _check_names(names, list(source.columns), "the table")
        return _observations({argument: source[name] for argument, name in names.given().items()}, names)
    if not hasattr(source, "__arrow_c_stream__"):
        raise TypeError(
            f"source must be the path of a file, a pandas.DataFrame, or a table that Arrow can read, such as a "
            f"pyarrow.Table or a polars.DataFrame, not {type(source).__name__}"
        )
    reader = pa.RecordBatchReader.from_stream(source)
    _check_names(names, reader.schema.names, "the table")
    return _observations(_to_pandas((_typed(batch, names) for batch in reader), names), names)


def _read_file(path: Path, names: ColumnNames, text: TextOptions) -> Observations:
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    suffix = Path(path.stem if path.suffix.lower() in _COMPRESSED else path).suffix.lower()
    text_file = None
    try:
        if suffix in (".parquet", ".arrow", ".feather"):
            _refuse(text)
            batches = (_parquet if suffix == ".parquet" else _ipc)(path, names)
            columns = _to_pandas((_typed(batch, names) for batch in batches), names)
            return _observations(columns, names, where=f"{path}: ")
        if not (suffix in _DELIMITERS or text.delimiter):
            raise ValueError(
                f"{path}: unknown file type; use .csv, .tsv (also .gz, .bz2, .zst), .parquet, .arrow or .feather, or "
                "give delimiter= for another text file"
            )
        delimiter = _DELIMITERS[suffix] if text.delimiter is None else text.delimiter
        text_file = _TextFile(path, replace(text, delimiter=delimiter))
        return text_file.observations(names)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        # An OSError with an errno is the system's. Arrow's own, for a damaged file, have no errno.
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
            raise
        after = f", after line {text_file.n_lines:,}" if text_file and text_file.n_rows else ""
        too_long = f"a line or a quoted field of more than {text.block_bytes:,} bytes"
        reason = too_long if "straddl" in str(error) else error
        raise ValueError(f"{path}{after}: {reason}") from error


def _refuse(text: TextOptions) -> None:
    if options := text.given():
        raise TypeError(f"{', '.join(options)} can be given for a text file only")


def _check_names(names: ColumnNames, columns: list[Any], where: Any) -> None:
    for argument, name in names.given().items():
        if columns.count(name) != 1:
            fault = "not a column" if name not in columns else "the name of several columns"
            raise ValueError(f"{argument}={name!r} is {fault}; {where} has {columns}")


def _observations(columns: dict[str, pd.Series], names: ColumnNames, **origin: Any) -> Observations:
    user, item, value, timestamp = (columns.get(argument) for argument in names._fields)
    return Observations(user, item, value, timestamp, names.for_messages(), **origin)


def _to_pandas(parts: Iterable[Columns], names: ColumnNames) -> dict[str, pd.Series]:
    """Join the columns of consecutive parts of a table."""
    columns: dict[str, list[pa.Array]] = {argument: [] for argument in names.given()}
    for part in parts:
        for argument, column in part.items():
            columns[argument].append(column)
    # By default pandas converts integers to float64 if one of them is missing.
    return {
        argument: pa.chunked_array(arrays or [pa.nulls(0)]).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        for argument, arrays in columns.items()
    }


def _typed(batch: pa.RecordBatch, names: ColumnNames) -> Columns:
    """Return the needed columns, verified. `_encoded` encodes labels. Dates become timestamps in seconds."""
    columns = {argument: batch.column(name) for argument, name in names.given().items()}
    for argument, column in columns.items():
        column.validate(full=True)  # Arrow trusts the lengths and the text of a file
        if argument in _LABELS:
            columns[argument] = _encoded(column)
        elif argument == "timestamp" and pa.types.is_date(column.type):
            columns[argument] = column.cast(pa.timestamp("s"))
    return columns


def _encoded(labels: pa.Array) -> pa.Array:
    """Dictionary-encode labels, which saves memory and hashing, if pandas restores the same labels from that."""
    is_encoded = pa.types.is_dictionary(labels.type)
    kind = labels.type.value_type if is_encoded else labels.type
    # Not floats: NaN is a missing label. Not times: they would lose their time zone. Lists cannot be labels.
    if pa.types.is_floating(kind) or pa.types.is_timestamp(kind) or pa.types.is_nested(kind):
        return labels.dictionary_decode() if is_encoded else labels
    return labels.cast(pa.dictionary(pa.int32(), kind)) if is_encoded else labels.dictionary_encode()


def _parquet(path: Path, names: ColumnNames) -> Iterator[pa.RecordBatch]:
    with parquet.ParquetFile(path) as file:
        _check_names(names, file.schema_arrow.names, path)
        yield from file.iter_batches(columns=list(set(names.given().values())))


def _ipc(path: Path, names: ColumnNames) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as file:
        columns = pa.ipc.open_file(file).schema.names
        _check_names(names, columns, path)
        needed = [columns.index(name) for name in names.given().values()]
        reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=needed))
        yield from map(reader.get_batch, range(reader.num_record_batches))


class _WithOneMoreLine(io.RawIOBase):
    """The bytes of a text file without its byte order mark. `line` is added at the end, unless the file is empty."""

    def __init__(self, path: Path, line: bytes) -> None:
        self.stream, self.line = pa.input_stream(path), line
        self.last: bytes | None = None  # the last byte so far; None before the first block

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block: bytes = self.stream.read(size)
        if self.last is None:
            block = block.removeprefix(codecs.BOM_UTF8)
        if not block and self.last:
            block = self.line if self.last in (b"\n", b"\r") else b"\n" + self.line
            self.line = b""
        self.last = block[-1:]
        return block


class _TextFile:
    """A file of delimited text, read once.

    Attributes
    ----------
    n_rows : int
        Rows parsed so far.
    skipped : list of int
        The line numbers of lines with another number of fields.
    last_skipped : (int, str)
        Number and text of the last of these lines.
    faults : dict
        By reason, arrays of the positions of rows to reject.
    """

    def __init__(self, path: Path, options: TextOptions) -> None:
        self.path, self.options = path, options
        delimiter = options.delimiter
        single = isinstance(delimiter, str) and len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n'
        require(single, "delimiter", "one ASCII character, no quote and no line end", delimiter)
        for name in ("column_names", "integers"):
            names = getattr(options, name)
            require(not isinstance(names, str), name, "a sequence of names", names)
        self.delimiter = str(delimiter)
        self.quoting = delimiter == "," if options.quoting is None else options.quoting
        self.first = 2 if options.column_names is None else 1
        self.n_rows = 0
        self.skipped: list[int] = []
        self.last_skipped = 0, ""
        self.faults: dict[str, list[Ints]] = {}

    @property
    def n_lines(self) -> int:
        """Lines read so far."""
        return self.first - 1 + self.n_rows + len(self.skipped)

    def observations(self, names: ColumnNames) -> Observations:
        """Read the columns of these names."""
        with self._open(b"\n", lambda row: "skip") as reader:
            fields = [_utf8(name) for name in reader.schema.names]
        _check_names(names, fields, self.path)
        given = names.given()
        labels = [given[argument] for argument in _LABELS]
        if others := [name for name in self.options.integers if name not in labels]:
            raise ValueError(f"integers names {', '.join(map(repr, others))}, which is neither user nor item")
        # The added line has one field too many. It is the last line that is skipped, unless a quoted field without an
        # end has swallowed it.
        end = self.delimiter * len(fields)
        with self._open(end.encode() + b"\n", self._skip, set(given.values())) as reader:
            columns = _to_pandas(self._parts(reader, given), names)
        if self.last_skipped != (self.n_lines, end):
            raise ValueError(f"{self.path}, line {self.n_lines:,}: a quoted field has no end")
        return _observations(
            columns,
            names,
            where=f"{self.path}: ",
            unit="line",
            first=self.first,
            faults=[(reason, np.concatenate(positions)) for reason, positions in self.faults.items()],
            skipped=np.array(self.skipped[:-1], np.int64),
            why_skipped=f"not {len(fields)} fields",
        )

    def _open(
        self, end: bytes, on_invalid_row: Callable[[csv.InvalidRow], str], needed: Iterable[str] = ()
    ) -> csv.CSVStreamingReader:
        # Latin-1 can decode any byte, so one wrong label does not stop the parser. `_decoded` decodes labels as UTF-8.
        columns = [_latin1(name) for name in needed]
        names = self.options.column_names and [_latin1(name) for name in self.options.column_names]
        return csv.open_csv(
            _WithOneMoreLine(self.path, end),
            csv.ReadOptions(
                column_names=names, block_size=self.options.block_bytes, use_threads=False, encoding="latin-1"
            ),
            csv.ParseOptions(
                delimiter=self.delimiter,
                quote_char=self.quoting and '"',
                newlines_in_values=self.quoting,
                ignore_empty_lines=False,
                invalid_row_handler=on_invalid_row,
            ),
            csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns, pa.dictionary(pa.int32(), pa.large_string())),
                null_values=[""],
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )

    def _skip(self, row: csv.InvalidRow) -> str:
        self.skipped.append(row.number)
        self.last_skipped = row.number, row.text
        return "skip"

    def _parts(self, reader: csv.CSVStreamingReader, given: dict[str, str]) -> Iterator[Columns]:
        """Return the columns of each block: labels dictionary-encoded, values float64, times in seconds."""
        for batch in reader:
            part = {}
            for argument, name in given.items():
                column = batch.column(_latin1(name))
                indices, texts = column.indices, _decoded(column.dictionary)
                if argument not in _LABELS:
                    part[argument] = (_numbers if argument == "value" else _seconds)(texts).take(indices)
                    continue
                reason = f"{name}: not UTF-8"
                if name in self.options.integers:
                    texts, reason = _integers(texts), f"{name}: not an integer of at most 18 digits"
                if texts.null_count:
                    wrong = np.flatnonzero(texts.is_null().take(indices).fill_null(False))
                    self.faults.setdefault(reason, []).append(self.n_rows + wrong)
                distinct = texts.dictionary_encode()
                part[argument] = pa.DictionaryArray.from_arrays(distinct.indices.take(indices), distinct.dictionary)
            self.n_rows += len(batch)
            yield part


def _latin1(text: str) -> str:
    """Return the text that the UTF-8 bytes of `text` are in Latin-1."""
    return text.encode().decode("latin-1")


def _utf8(text: str) -> str:
    """Return the text that was in the file. `text` is its bytes in Latin-1."""
    return text.encode("latin-1").decode()


def _utf8_or_none(text: str) -> str | None:
    try:
        return _utf8(text)
    except UnicodeDecodeError:
        return None


def _decoded(texts: pa.Array) -> pa.Array:
    """Decode distinct texts that were read as Latin-1. Null: the text is not UTF-8."""
    beyond_ascii = pc.invert(pc.string_is_ascii(texts))
    decoded = pa.array(map(_utf8_or_none, texts.filter(beyond_ascii).to_pylist()), texts.type)
    return pc.replace_with_mask(texts, beyond_ascii, decoded)


def matching(texts: pa.Array, pattern: str) -> pa.Array:
    """Return the texts, with null for a text that does not match `pattern`."""
    return pc.if_else(pc.match_substring_regex(texts, pattern), texts, pa.scalar(None, texts.type))


def _integers(texts: pa.Array) -> pa.Array:
    return matching(texts, "^-?[0-9]{1,18}$").cast("int64")


def _numbers(texts: pa.Array) -> pa.Array:
    return pa.array(pd.to_numeric(texts.to_pandas(), errors="coerce").astype(np.float64))


def _seconds(texts: pa.Array) -> pa.Array:
    """Return seconds since 1970: whole numbers as they are, and the times that ISO 8601 texts stand for."""
    dates = matching(texts, "^[0-9]{4}-").to_pandas()  # pandas would read "today" and "now" too
    instants = pd.to_datetime(dates, format="ISO8601", utc=True, errors="coerce")
    seconds = pa.array(instants.to_numpy("datetime64[s]").astype(np.int64), mask=instants.isna().to_numpy())
    return pc.coalesce(_integers(texts), seconds)
