"""Rows of a table, one observation each: from pandas, from files, and from whatever speaks Arrow."""

import codecs
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alscore._support.arrays import Ints
from alscore._support.checks import require

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyarrow import csv

_BLOCK = 1 << 23  # bytes of text parsed at a time: a longer line is none
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_COMPRESSED = (".gz", ".bz2", ".zst")
_LABELS = ("user", "item")

Columns = dict[str, "pa.Array"]  # by argument of `Interactions.from_table`: "user", "item", "value", "timestamp"


class Rows(NamedTuple):
    """Observations, and where they come from.

    Attributes
    ----------
    users, items : array_like, length n
    values, timestamps : array_like, length n, or None
    names : tuple of 4
        What messages call these columns.
    where, unit : str
        What messages begin with, and what rows are numbered by.
    first : int
        The number of the first row.
    faults : sequence of (str, int array)
        Reasons, known to the source, to reject rows, and the positions of these in the columns.
    skipped : int array
        The numbers of rows that are not in the columns, ascending.
    why_skipped : str
    """

    users: Any
    items: Any
    values: Any
    timestamps: Any
    names: tuple[Any, Any, Any, Any]
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


def read_table(source: Any, user: Any, item: Any, value: Any, timestamp: Any, **options: Any) -> Rows:
    """Read the columns of these names: see `Interactions.from_table`, which has the `options` of text files too."""
    import pandas as pd

    named = {"user": user, "item": item, "value": value, "timestamp": timestamp}
    named = {argument: name for argument, name in named.items() if name is not None}
    names = user, item, "count" if value is None else value, timestamp
    options = {option: setting for option, setting in options.items() if setting not in (None, ())}
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source), named, names, options)
    _refuse(options)
    if isinstance(source, pd.DataFrame):
        _check_names(named, list(source.columns), "the table")
        return _rows({argument: source[name] for argument, name in named.items()}, names)
    if not hasattr(source, "__arrow_c_stream__"):
        raise TypeError(
            f"source must be the path of a file, a pandas.DataFrame, or a table that Arrow can read, such as a "
            f"pyarrow.Table or a polars.DataFrame, not {type(source).__name__}"
        )
    import pyarrow as pa

    reader = pa.RecordBatchReader.from_stream(source)
    _check_names(named, reader.schema.names, "the table")
    return _rows(_to_pandas((_typed(batch, named) for batch in reader), named), names)


def _read_file(path: Path, named: dict[str, Any], names: tuple[Any, Any, Any, Any], options: dict[str, Any]) -> Rows:
    import pyarrow as pa

    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    suffix = Path(path.stem if path.suffix.lower() in _COMPRESSED else path).suffix.lower()
    text = None
    try:
        if suffix in (".parquet", ".arrow", ".feather"):
            _refuse(options)
            batches = (_parquet if suffix == ".parquet" else _ipc)(path, named)
            columns = _to_pandas((_typed(batch, named) for batch in batches), named)
            return _rows(columns, names, where=f"{path}: ")
        if not (suffix in _DELIMITERS or options.get("delimiter")):
            raise ValueError(
                f"{path} has none of the names .csv, .tsv (also .gz), .parquet, .arrow and .feather; give the "
                f"delimiter of another text file"
            )
        text = _Text(path, **{"delimiter": _DELIMITERS.get(suffix), **options})
        return text.rows(named, names)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        # of Arrow's own errors, those of a damaged file have no errno
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
            raise
        after = f", after line {text.n_lines:,}" if text and text.n_rows else ""
        reason = f"a line or a quoted field of more than {_BLOCK:,} bytes" if "straddl" in str(error) else error
        raise ValueError(f"{path}{after}: {reason}") from error


def _refuse(options: dict[str, Any]) -> None:
    if options:
        raise TypeError(f"{', '.join(options)} can be given for a text file only")


def _check_names(named: dict[str, Any], columns: list[Any], where: Any) -> None:
    for argument, name in named.items():
        if columns.count(name) != 1:
            fault = "not a column" if name not in columns else "the name of several columns"
            raise ValueError(f"{argument}={name!r} is {fault}; {where} has {columns}")


def _rows(columns: dict[str, "pd.Series"], names: tuple[Any, Any, Any, Any], **origin: Any) -> Rows:
    user, item, value, timestamp = (columns.get(argument) for argument in ("user", "item", "value", "timestamp"))
    return Rows(user, item, value, timestamp, names, **origin)


def _to_pandas(parts: Iterable[Columns], named: Iterable[str]) -> dict[str, "pd.Series"]:
    """Join the columns of consecutive parts of a table."""
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, list[pa.Array]] = {argument: [] for argument in named}
    for part in parts:
        for argument, column in part.items():
            columns[argument].append(column)
    # of integers some of which are missing, pandas makes float64 by default
    return {
        argument: pa.chunked_array(arrays or [pa.nulls(0)]).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        for argument, arrays in columns.items()
    }


def _typed(batch: "pa.RecordBatch", named: dict[str, Any]) -> Columns:
    """Take the columns that are needed."""
    import pyarrow as pa

    columns = {argument: batch.column(name) for argument, name in named.items()}
    for argument, column in columns.items():
        column.validate(full=True)  # Arrow reads what lengths and text a file claims to have
        if argument in _LABELS:
            columns[argument] = _coded(column)
        elif argument == "timestamp" and pa.types.is_date(column.type):
            columns[argument] = column.cast(pa.timestamp("s"))
    return columns


def _coded(labels: "pa.Array") -> "pa.Array":
    """Take each label once, which saves memory and hashing, where pandas then makes the same of them."""
    import pyarrow as pa

    is_coded = pa.types.is_dictionary(labels.type)
    kind = labels.type.value_type if is_coded else labels.type
    # not of floats, since NaN is missing, and not of times, which would lose their zone; lists are no labels
    if pa.types.is_floating(kind) or pa.types.is_timestamp(kind) or pa.types.is_nested(kind):
        return labels.dictionary_decode() if is_coded else labels
    return labels.cast(pa.dictionary(pa.int32(), kind)) if is_coded else labels.dictionary_encode()


def _parquet(path: Path, named: dict[str, Any]) -> "Iterator[pa.RecordBatch]":
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        _check_names(named, file.schema_arrow.names, path)
        yield from file.iter_batches(columns=list(set(named.values())))


def _ipc(path: Path, named: dict[str, Any]) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        columns = pa.ipc.open_file(file).schema.names
        _check_names(named, columns, path)
        needed = [columns.index(name) for name in named.values()]
        reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=needed))
        yield from map(reader.get_batch, range(reader.num_record_batches))


class _WithOneMoreLine(io.RawIOBase):
    """A file of text without a byte order mark, and with a line added at its end if it is not empty."""

    def __init__(self, path: Path, line: bytes) -> None:
        import pyarrow as pa

        self.stream, self.line = pa.input_stream(path), line
        self.last: bytes | None = None

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


class _Text:
    """A file of delimited text, read once."""

    def __init__(
        self,
        path: Path,
        delimiter: str,
        quoting: bool | None = None,
        column_names: Sequence[str] | None = None,
        integers: Sequence[str] = (),
    ) -> None:
        single = isinstance(delimiter, str) and len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n'
        require(single, "delimiter", "one ASCII character, no quote and no line end", delimiter)
        for name, several in (("column_names", column_names), ("integers", integers)):
            require(not isinstance(several, str), name, "a sequence of names", several)
        self.path, self.delimiter, self.column_names, self.integers = path, delimiter, column_names, integers
        self.quoting = delimiter == "," if quoting is None else quoting
        self.first = 2 if column_names is None else 1
        self.n_rows = 0
        self.skipped: list[int] = []
        self.last_skipped = 0, ""
        self.faults: dict[str, list[Ints]] = {}

    def rows(self, named: dict[str, Any], names: tuple[Any, Any, Any, Any]) -> Rows:
        with self._open(b"\n", lambda row: "skip") as reader:
            fields = [_utf8(name) for name in reader.schema.names]
        _check_names(named, fields, self.path)
        labels = [named[argument] for argument in _LABELS]
        if odd := [name for name in self.integers if name not in labels]:
            raise ValueError(f"integers names {', '.join(map(repr, odd))}, which is neither user nor item")
        # One field too many, so the line is skipped, unless it becomes part of a quoted field whose end is missing.
        end = self.delimiter * len(fields)
        with self._open(end.encode() + b"\n", self._skip, set(named.values())) as reader:
            columns = _to_pandas(self._parts(reader, named), named)
        if self.last_skipped != (self.n_lines, end):
            raise ValueError(f"{self.path}, line {self.n_lines:,}: a quoted field has no end")
        return _rows(
            columns,
            names,
            where=f"{self.path}: ",
            unit="line",
            first=self.first,
            faults=[(reason, np.concatenate(positions)) for reason, positions in self.faults.items()],
            skipped=np.array(self.skipped[:-1], np.int64),
            why_skipped=f"not {len(fields)} fields",
        )

    @property
    def n_lines(self) -> int:
        """How many lines there were so far."""
        return self.first - 1 + self.n_rows + len(self.skipped)

    def _open(
        self, end: bytes, on_invalid_row: "Callable[[csv.InvalidRow], str]", needed: Iterable[str] = ()
    ) -> "csv.CSVStreamingReader":
        import pyarrow as pa
        from pyarrow import csv

        # As Latin-1 any line can be parsed; whether its labels are UTF-8 is looked at later.
        columns = [_bytewise(name) for name in needed]
        names = self.column_names and [_bytewise(name) for name in self.column_names]
        return csv.open_csv(
            _WithOneMoreLine(self.path, end),
            csv.ReadOptions(column_names=names, block_size=_BLOCK, use_threads=False, encoding="latin-1"),
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

    def _skip(self, row: "csv.InvalidRow") -> str:
        self.skipped.append(row.number)
        self.last_skipped = row.number, row.text
        return "skip"

    def _parts(self, reader: "csv.CSVStreamingReader", named: dict[str, str]) -> "Iterator[Columns]":
        import pyarrow as pa

        for batch in reader:
            part = {}
            for argument, name in named.items():
                column = batch.column(_bytewise(name))
                indices, texts = column.indices, _decoded(column.dictionary)
                if argument not in _LABELS:
                    part[argument] = (_numbers if argument == "value" else _seconds)(texts).take(indices)
                    continue
                reason = f"{name}: not UTF-8"
                if name in self.integers:
                    texts, reason = _integers(texts), f"{name}: not an integer of at most 18 digits"
                if texts.null_count:
                    wrong = np.flatnonzero(texts.is_null().take(indices).fill_null(False))
                    self.faults.setdefault(reason, []).append(self.n_rows + wrong)
                distinct = texts.dictionary_encode()
                part[argument] = pa.DictionaryArray.from_arrays(distinct.indices.take(indices), distinct.dictionary)
            self.n_rows += len(batch)
            yield part


def _bytewise(text: str) -> str:
    return text.encode().decode("latin-1")


def _utf8(text: str) -> str:
    """Decode what was read as Latin-1."""
    return text.encode("latin-1").decode()


def _utf8_or_none(text: str) -> str | None:
    try:
        return _utf8(text)
    except UnicodeDecodeError:
        return None


def _decoded(texts: "pa.Array") -> "pa.Array":
    """Decode distinct texts that were read as Latin-1; null for those that are not UTF-8."""
    import pyarrow as pa
    import pyarrow.compute as pc

    beyond_ascii = pc.invert(pc.string_is_ascii(texts))
    decoded = pa.array(map(_utf8_or_none, texts.filter(beyond_ascii).to_pylist()), texts.type)
    return pc.replace_with_mask(texts, beyond_ascii, decoded)


def matching(texts: "pa.Array", pattern: str) -> "pa.Array":
    """Keep the texts that match; null for the others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pc.match_substring_regex(texts, pattern), texts, pa.scalar(None, texts.type))


def _integers(texts: "pa.Array") -> "pa.Array":
    return matching(texts, "^-?[0-9]{1,18}$").cast("int64")


def _numbers(texts: "pa.Array") -> "pa.Array":
    import pandas as pd
    import pyarrow as pa

    return pa.array(pd.to_numeric(texts.to_pandas(), errors="coerce").astype(np.float64))


def _seconds(texts: "pa.Array") -> "pa.Array":
    """Make seconds since 1970 of whole numbers, which are that, and of instants in the form of ISO 8601."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    dates = matching(texts, "^[0-9]{4}-").to_pandas()  # to pandas "today" is one too
    instants = pd.to_datetime(dates, format="ISO8601", utc=True, errors="coerce")
    seconds = pa.array(instants.to_numpy("datetime64[s]").astype(np.int64), mask=instants.isna().to_numpy())
    return pc.coalesce(_integers(texts), seconds)
