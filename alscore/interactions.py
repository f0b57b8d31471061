"""Who played what, how often: labels for users and items over one canonical sparse matrix."""

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from scipy import sparse

from alscore import statistics
from alscore._data import container
from alscore._data.canonical import (
    canonical_csr,
    check_codes,
    checked_timestamps,
    entry_rows,
    from_canonical,
    part_of_matrix,
    recoded,
)
from alscore._data.label_columns import labels_writer, read_labels
from alscore._data.labels import Labels
from alscore._data.observations import check_choices, collected, summed
from alscore._data.tables import Rows, read_table
from alscore._support.arrays import Bools, Ints
from alscore._support.checks import first_few

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def replaced(interactions: "Interactions", **parts: Any) -> "Interactions":
    """Return a copy with other parts, which are as the constructor of Interactions would leave them."""
    other = copy.copy(interactions)
    vars(other).update(parts)
    return other


@dataclass(frozen=True, eq=False)
class Report:
    """What became of each row of a table, or each line of a file: ``read == kept + merged + len(rejected)``.

    Attributes
    ----------
    read : int
        Rows or lines seen.
    kept : int
        Entries in the matrix.
    merged : int
        Rows folded into the entry of the same user and item. (Values that sum to zero leave no entry.)
    rejected : pandas.DataFrame
        One line for each rejected row, ascending: `number` (int64: position in the table counted from 0, or
        line of the file counted from 1) and `reason` (text).
    """

    read: int
    kept: int
    merged: int
    rejected: "pd.DataFrame"

    def __str__(self) -> str:
        lines = [f"{self.read:,} read, {self.kept:,} kept, {self.merged:,} merged, {len(self.rejected):,} rejected"]
        for reason, group in self.rejected.groupby("reason")["number"]:
            lines.append(f"  {len(group):,} × {reason}: {first_few(group)}")
        return "\n".join(lines)


class Interactions:
    """Users, items, and how strongly each user took to each item.

    Parameters
    ----------
    matrix : scipy sparse matrix or array, shape (n_users, n_items)
        Strengths, such as play counts; below zero for dislikes. See `canonical_csr` for what is refused.
    users, items : array_like, optional
        A label for each row and each column: unique, none missing. Default: the codes 0, 1, 2, …
    report : Report, optional
        Where the matrix came from.
    timestamps : int array of length nnz, optional
        When each entry was last seen: seconds since 1970, UTC, in the order of ``matrix.data``. The matrix must be in
        canonical form, which would otherwise change that order.

    Attributes
    ----------
    matrix : scipy.sparse.csr_array, float32
        In canonical form (`canonical_csr`); shares the input's buffers if they were. Its indptr is int64 beside
        int32 indices, which some methods of scipy refuse (`tocoo`, `nonzero`, printing): there take a copy,
        ``csr_array((m.data, m.indices, m.indptr), m.shape)``, which scipy brings to one dtype.
    users, items : pandas.Index
    report : Report or None
    timestamps : int64 array of length nnz, or None

    Examples
    --------
    >>> import pandas as pd
    >>> from alscore import Interactions
    >>> table = pd.DataFrame({"user": ["bob", "ann", "ann"], "artist": ["x", "x", "y"], "plays": [7, 3, 1]})
    >>> plays = Interactions.from_pandas(table, user="user", item="artist", value="plays")
    >>> plays
    <Interactions: 2 users × 2 items, 3 entries>
    >>> list(plays.users), plays.matrix.toarray().tolist()
    (['ann', 'bob'], [[3.0, 1.0], [7.0, 0.0]])
    """

    def __init__(
        self,
        matrix: sparse.sparray | sparse.spmatrix,
        users: Iterable[Any] | None = None,
        items: Iterable[Any] | None = None,
        report: Report | None = None,
        timestamps: npt.ArrayLike | None = None,
    ) -> None:
        self.matrix = canonical_csr(matrix, name="matrix")
        self.users = Labels.verified(users, self.matrix.shape[0], "users").index
        self.items = Labels.verified(items, self.matrix.shape[1], "items").index
        self.report = report
        self.timestamps = None
        if timestamps is not None:
            self.timestamps = checked_timestamps(timestamps, matrix, self.matrix, "matrix")

    @property
    def shape(self) -> tuple[int, int]:
        """(n_users, n_items)."""
        n_users, n_items = self.matrix.shape
        return n_users, n_items

    @property
    def n_users(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def n_items(self) -> int:
        """Number of columns."""
        return self.shape[1]

    @property
    def nnz(self) -> int:
        """Number of (user, item) pairs observed."""
        return int(self.matrix.nnz)

    def rows(self, codes: npt.ArrayLike) -> sparse.csr_array:
        """The entries of some users, as a matrix in canonical form.

        Unlike ``matrix[codes]`` it touches these rows alone: for the two index dtypes scipy would copy all indices.

        Parameters
        ----------
        codes : int array, length n
            Row numbers, in any order.

        Returns
        -------
        scipy.sparse.csr_array, float32, shape (n, n_items)

        Raises
        ------
        ValueError, TypeError
            Codes outside of [0, n_users), or that are not integers.
        """
        return self._rows(codes)[0]

    def _rows(self, codes: npt.ArrayLike) -> tuple[sparse.csr_array, Ints]:
        """Return the entries of some users, and their positions in the matrix."""
        codes = np.asarray(codes)
        if codes.size:
            check_codes(codes, self.n_users, "row", "codes", int, "position")
        codes = codes.astype(np.int64)
        starts, ends = self.matrix.indptr[codes], self.matrix.indptr[codes + 1]
        indptr = np.concatenate([[0], np.cumsum(ends - starts)])
        entries = np.repeat(starts - indptr[:-1], ends - starts) + np.arange(indptr[-1])
        data, indices = self.matrix.data[entries], self.matrix.indices[entries]
        return from_canonical(data, indices, indptr, (len(codes), self.n_items)), entries

    def part(self, entries: Bools, users: Any = slice(None)) -> "Interactions":
        """Return some entries (a mask), and of the users all or some with theirs; without a report."""
        matrix = part_of_matrix(self.matrix, entries, users)
        timestamps = None if self.timestamps is None else self.timestamps[entries]
        return replaced(self, matrix=matrix, users=self.users[users], report=None, timestamps=timestamps)

    def __len__(self) -> int:
        """Number of users, since `interactions[codes]` counts those; so without users, interactions are false."""
        return self.n_users

    __iter__ = None  # else Python would take user by user, an Interactions each

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Refuse: it would be dense, or one object."""
        raise TypeError(
            "Interactions are no dense array; take interactions.matrix, a scipy.sparse.csr_array, or a table by "
            "interactions.to_pandas()"
        )

    def __getitem__(self, codes: Any) -> "Interactions":
        """Take some of the users, with all of the items; what scikit-learn splits by.

        Parameters
        ----------
        codes : int, slice, int array or boolean mask of length n_users
            Row numbers, in any order, each once; negative ones count from the end, as in numpy.

        Returns
        -------
        Interactions
            Of those users in that order, one too, with their timestamps; without a `report`, which is about all of
            them.

        Raises
        ------
        IndexError
            Codes outside of the users, of another type, or of two dimensions.
        ValueError
            A code is repeated, so that two users would go by one label.
        """
        codes = np.atleast_1d(np.arange(self.n_users)[codes])
        if codes.ndim > 1:
            raise IndexError(f"codes must have one dimension, not {codes.ndim}: all items are kept")
        users = self.users.take(codes)
        if not users.is_unique:
            at = int(users.duplicated().argmax())
            raise ValueError(
                f"codes: user {users[at]!r} comes again at position {at}; take each once, or a matrix by rows(codes)"
            )
        matrix, entries = self._rows(codes)
        timestamps = None if self.timestamps is None else self.timestamps[entries]
        return replaced(self, matrix=matrix, users=users, report=None, timestamps=timestamps)

    def add(self, other: "Interactions") -> Self:
        """Join these interactions and others, such as later ones, which may be of new users and new items.

        Parameters
        ----------
        other : Interactions
            With labels of the same types.

        Returns
        -------
        Interactions
            All codes of `self` stay as they are; what is new in `other` follows, in the order there. Where both have
            an entry its value is the sum, and its time the later one; a sum of 0 leaves none. There are timestamps if
            both have them. Labels that are categories stay so, of which there may be more. There is no `report`: each
            part has its own.

        Raises
        ------
        TypeError
            `other` is not an Interactions, or its labels are of another type.
        ValueError
            A sum is no finite float32 number, or there are more than 2**31 - 1 users or items.
        """
        if not isinstance(other, Interactions):
            raise TypeError(f"other must be alscore.Interactions, not {type(other).__name__}")
        users, rows = Labels(self.users, "users").joined(other.users)
        items, columns = Labels(self.items, "items").joined(other.items)
        shape, name = (len(users), len(items)), "the sum of both"
        if self.timestamps is not None and other.timestamps is not None:
            total, timestamps = summed(
                np.concatenate([entry_rows(self.matrix), rows[entry_rows(other.matrix)]]),
                np.concatenate([self.matrix.indices, columns[other.matrix.indices]]),
                np.concatenate([self.matrix.data, other.matrix.data]),
                np.concatenate([self.timestamps, other.timestamps]),
                shape,
                name,
            )
            return type(self)(total, users, items, timestamps=timestamps)
        # Without sorting all entries again. Two float32 numbers add up to the same in float64, rounded.
        indptr = np.pad(self.matrix.indptr, (0, len(users) - self.n_users), mode="edge")
        mine = from_canonical(self.matrix.data, self.matrix.indices, indptr, shape)
        return type(self)(canonical_csr(mine + recoded(other.matrix, rows, columns, shape), name=name), users, items)

    def filter(self, min_user: int = 1, min_item: int = 1, k_core: int | None = None) -> "Interactions":
        """Leave out items and users with few entries.

        Parameters
        ----------
        min_user, min_item, k_core
            As for `alscore.statistics.filter`, and so are the errors raised.

        Returns
        -------
        Interactions
        """
        import pandas as pd

        found, matrix = statistics.kept(self.matrix, min_user, min_item, k_core), self.matrix
        rest = self.part(found.fate == 0, found.users)
        codes = np.cumsum(found.items, dtype=np.int32) - np.int32(1)
        shape = rest.n_users, int(codes[-1]) + 1
        renumbered = from_canonical(rest.matrix.data, codes[rest.matrix.indices], rest.matrix.indptr, shape)
        lost = np.flatnonzero(found.fate)
        rejected = pd.DataFrame({"number": lost, "reason": np.array(found.reasons, object)[found.fate[lost]]})
        report = Report(matrix.nnz, rest.nnz, 0, rejected)
        return replaced(rest, matrix=renumbered, items=self.items[found.items], report=report)

    def summary(self, top: int = 10) -> "pd.DataFrame":
        """Describe the interactions by numbers.

        Parameters
        ----------
        top : int
            How many of the most popular items to list.

        Returns
        -------
        pandas.DataFrame
            As `alscore.statistics.summary` says.
        """
        return statistics.summary(self, top)

    def plot(self) -> "Figure":
        """Draw how many entries users and items have, on logarithmic axes.

        Returns
        -------
        matplotlib.figure.Figure
            As `alscore.statistics.plot` says.
        """
        return statistics.plot(self)

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write matrix, labels and timestamps to one file, without the report.

        Parameters
        ----------
        file : str, path or binary file object
            As for `alscore.persistence.save`, and so are the errors raised.
        """
        container.write(file, "Interactions", None, *self._parts())

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO, mmap: bool = True) -> "Interactions":
        """Read, or by default map into memory, what `save` wrote.

        Parameters
        ----------
        file : str, path or seekable binary file object
        mmap : bool
            As for `alscore.load`.

        Returns
        -------
        Interactions

        Raises
        ------
        FormatError, OSError
            As for `alscore.load`, or the file holds a model.
        """
        return container.read(
            file,
            {"Interactions": cls._restored},
            lambda kind: container.FormatError(f"{file} holds a model, {kind}; read it with alscore.load"),
            mmap,
        )

    def _parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Callable[[Any], None]]]:
        """Return what a file holds: arrays by member, and writers of the labels by member."""
        matrix = self.matrix
        arrays = dict(zip(container.MATRIX, (matrix.indptr, matrix.indices, matrix.data), strict=True))
        if self.timestamps is not None:
            arrays[container.TIMESTAMPS] = self.timestamps
        writers = labels_writer(self.users, "users"), labels_writer(self.items, "items")
        return arrays, dict(zip(container.LABELS, writers, strict=True))

    @classmethod
    def _restored(cls, parts: container.Parts, shape: tuple[int, int] | None = None) -> "Interactions":
        labels = []
        for name in container.LABELS:
            with parts.opened(name) as member:
                labels.append(read_labels(member))
        users, items = labels
        indptr, indices, data = (
            parts.array(name, 1, dtype)
            for name, dtype in zip(container.MATRIX, (np.int64, np.int32, np.float32), strict=True)
        )
        matrix = from_canonical(data, indices, indptr, shape or (len(users), len(items)))  # the constructor verifies it
        timestamps = parts.array(container.TIMESTAMPS, 1, np.int64) if container.TIMESTAMPS in parts else None
        return Interactions(matrix, users, items, timestamps=timestamps)

    def __repr__(self) -> str:
        return f"<Interactions: {self.n_users:,} users × {self.n_items:,} items, {self.nnz:,} entries>"

    @classmethod
    def from_table(
        cls,
        source: Any,
        user: Any,
        item: Any,
        value: Any = None,
        timestamp: Any = None,
        duplicates: str = "sum",
        errors: str = "raise",
        *,
        delimiter: str | None = None,
        quoting: bool | None = None,
        column_names: Sequence[str] | None = None,
        integers: Sequence[str] = (),
    ) -> Self:
        """Read a table with one observation a row, of which only the columns named.

        Parameters
        ----------
        source : str, path, DataFrame or Arrow table
            A ``.parquet``, ``.arrow`` or ``.feather`` file; delimited text, ``.csv`` or ``.tsv``, also compressed
            (``.gz``, ``.bz2``, ``.zst``), in which LF, CR or both end a line; a pandas.DataFrame; or what else offers
            itself to Arrow (``__arrow_c_stream__``): a pyarrow.Table or RecordBatchReader, a polars.DataFrame, a
            DuckDB relation, …
        user, item : str
            Columns with labels: integers, strings, dates, categories, … of one sortable type each. `users`
            and `items` hold them in ascending order, so codes do not depend on the order of the rows.
        value : str, optional
            Column with strengths: numbers or booleans. Zero means "not observed". Default: each row counts 1.
        timestamp : str, optional
            Column with times: whole seconds since 1970, or datetimes (in text, ISO 8601), of which fractions of a
            second are cut off; those without a time zone are UTC.
        duplicates : {"sum", "max", "last", "error"}
            What to make of several rows for one user and item. The last is the latest, and of several at one time, or
            without timestamps, the one that comes last in the table. The latest time is kept in any case.
        errors : {"raise", "report"}
            What to do about rows with a missing label, a value that is no finite float32 number, or a time that is
            missing or beyond int64 seconds; in a text file, also about lines with another number of fields, and labels
            that are not UTF-8: refuse the table, or leave them out and list them in `report`. Rows of value zero are
            listed either way.
        delimiter : str, optional
            Of a text file. Default: comma, in ``.tsv`` TAB.
        quoting : bool, optional
            In a text file, whether a field that begins with a double quote ends with one, and may hold delimiters, line
            ends and doubled quotes; such line ends do not count where lines are numbered. Otherwise quotes are text
            like any other. Default: only where the delimiter is a comma.
        column_names : sequence of str, optional
            For a text file without a header. Default: its first line is one.
        integers : sequence of str
            Columns of labels in a text file that are integers (int64). Others are text, to the letter: "007" and "NA"
            stay what they are. An empty field is a missing label.

        Returns
        -------
        Interactions
            With a `report`. Users and items whose rows are all rejected do not appear.

        Raises
        ------
        ValueError
            Rows as above, or repeats with ``duplicates="error"``: the message names column and rows, of a text file
            the lines. A column that the table has not, or twice; a file that is damaged, no regular one, or of another
            kind; a line of more than 16 MB (from 8 MB on it may be); more than 2**31 - 1 users or items.
        TypeError
            Labels of a column cannot be sorted or hashed, timestamps are of another type, another `source`, or options
            for what is no text file.
        OSError
            The file cannot be opened.
        """
        check_choices(duplicates, errors)
        rows = read_table(
            source,
            user,
            item,
            value,
            timestamp,
            delimiter=delimiter,
            quoting=quoting,
            column_names=column_names,
            integers=integers,
        )
        return cls._from_rows(rows, duplicates, errors)

    @classmethod
    def from_pandas(
        cls,
        df: "pd.DataFrame",
        user: Any,
        item: Any,
        value: Any = None,
        timestamp: Any = None,
        duplicates: str = "sum",
        errors: str = "raise",
    ) -> Self:
        """Read a pandas.DataFrame.

        Parameters
        ----------
        df : pandas.DataFrame
        user, item, value, timestamp, duplicates, errors
            As for `from_table`, and so are the result and the errors raised.

        Returns
        -------
        Interactions
        """
        return cls.from_table(df, user, item, value, timestamp, duplicates, errors)

    @classmethod
    def from_arrays(
        cls,
        users: Iterable[Any],
        items: Iterable[Any],
        values: Iterable[Any] | None = None,
        timestamps: Iterable[Any] | None = None,
        duplicates: str = "sum",
        errors: str = "raise",
    ) -> Self:
        """Read parallel arrays with one observation a position.

        Parameters
        ----------
        users, items : array_like, length n
            Labels.
        values : array_like, length n, optional
            Strengths.
        timestamps : array_like, length n, optional
            Times.
        duplicates, errors
            As for `from_table`, and so are the result and the errors raised.

        Returns
        -------
        Interactions
        """
        check_choices(duplicates, errors)
        rows = Rows(users, items, values, timestamps, ("users", "items", "values", "timestamps"))
        return cls._from_rows(rows, duplicates, errors)

    @classmethod
    def _from_rows(cls, rows: Rows, duplicates: str, errors: str) -> Self:
        matrix, users, items, timestamps, read, rejected = collected(rows, duplicates, errors)
        report = Report(read, matrix.nnz, read - matrix.nnz - len(rejected), rejected)
        return cls(matrix, users, items, report, timestamps)

    def to_pandas(
        self, user: str = "user", item: str = "item", value: str = "value", timestamp: str = "timestamp"
    ) -> "pd.DataFrame":
        """Return the entries as a table, by user and then item.

        Parameters
        ----------
        user, item, value, timestamp : str
            Names for the columns.

        Returns
        -------
        pandas.DataFrame
            nnz rows: two columns of labels, one of float32 values and, where there are timestamps, one of int64
            seconds since 1970.
        """
        import pandas as pd

        labels = self.users.take(entry_rows(self.matrix)), self.items.take(self.matrix.indices)
        table = pd.DataFrame({user: labels[0], item: labels[1], value: self.matrix.data})
        if self.timestamps is not None:
            table[timestamp] = self.timestamps
        return table
