"""Interactions: labels of users and items, and the entries between them as one canonical sparse matrix.

`canonical_csr` is public here.
"""

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from alscore import statistics
from alscore._data import container
from alscore._data.canonical import canonical_csr as canonical_csr
from alscore._data.canonical import (
    check_ids,
    checked_timestamps,
    entry_rows,
    from_canonical,
    part_of_matrix,
    renumbered,
)
from alscore._data.filters import kept_entries
from alscore._data.label_columns import labels_writer, read_labels
from alscore._data.labels import Labels
from alscore._data.observations import check_choices, collected, summed
from alscore._data.tables import ColumnNames, Observations, TextOptions, read_observations
from alscore._support.arrays import Bools, Ints
from alscore._support.checks import first_few

if TYPE_CHECKING:  # matplotlib is optional
    from matplotlib.figure import Figure


def copy_with(interactions: "Interactions", **attributes: Any) -> "Interactions":
    """Return a shallow copy with other attributes. They are not verified: they must be as `Interactions` keeps them."""
    other = copy.copy(interactions)
    vars(other).update(attributes)
    return other


@dataclass(frozen=True, eq=False)
class Report:
    """An account of the rows of a table or the lines of a file: ``read == kept + merged + len(rejected)``.

    Attributes
    ----------
    read : int
        Rows or lines read.
    kept : int
        Entries of the matrix.
    merged : int
        Rows merged into the entry of another row with the same user and item. If values sum to 0, there is no entry and
        all of their rows count here.
    rejected : pandas.DataFrame
        One row for each rejected row or line, ascending by `number`: `number` (int64: position in the table, counted
        from 0, or line of the file, counted from 1) and `reason` (text).
    """

    read: int
    kept: int
    merged: int
    rejected: pd.DataFrame

    def __str__(self) -> str:
        lines = [f"{self.read:,} read, {self.kept:,} kept, {self.merged:,} merged, {len(self.rejected):,} rejected"]
        for reason, group in self.rejected.groupby("reason")["number"]:
            lines.append(f"  {len(group):,} × {reason}: {first_few(group)}")
        return "\n".join(lines)


class Interactions:
    """Entries of users and items with values, labels for both, and optionally timestamps.

    Parameters
    ----------
    matrix : scipy sparse matrix or array, shape (n_users, n_items)
        Values, such as play counts; below zero for dislikes. Same requirements as for `canonical_csr`.
    users, items : array_like, optional
        A label for each row and each column, all distinct and none missing. Default: the ids 0, 1, 2, …
    report : Report, optional
        The account of the table that the matrix was read from.
    timestamps : int array of length nnz, optional
        The time of each entry: seconds since 1970, UTC, in the order of ``matrix.data``. With timestamps the matrix
        must be in canonical form, because a conversion changes the order of the entries.

    Attributes
    ----------
    matrix : scipy.sparse.csr_array, float32
        In canonical form (`canonical_csr`). It shares the buffers of the given matrix if that was in canonical form.
        Its indptr is int64 and its indices are int32. Some methods of scipy refuse two index dtypes (`tocoo`,
        `nonzero`, printing): use a copy for these, ``csr_array((m.data, m.indices, m.indptr), m.shape)``.
    users, items : pandas.Index
        The labels. The position of a label is its id.
    report : Report or None
    timestamps : int64 array of length nnz, or None

    Raises
    ------
    ValueError, TypeError
        Same errors as `canonical_csr`. Also: the labels are not distinct, are missing or of another number; or the
        timestamps are not integers, not one for each entry, or given with a matrix that is not in canonical form.

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
        """Number of users: rows of the matrix."""
        return self.shape[0]

    @property
    def n_items(self) -> int:
        """Number of items: columns of the matrix."""
        return self.shape[1]

    @property
    def nnz(self) -> int:
        """Number of entries."""
        return int(self.matrix.nnz)

    def rows(self, codes: npt.ArrayLike) -> sparse.csr_array:
        """Return the rows of some users as a matrix in canonical form.

        Parameters
        ----------
        codes : int array, length n
            Row numbers (ids) of users, in any order.

        Returns
        -------
        scipy.sparse.csr_array, float32, shape (n, n_items)

        Raises
        ------
        ValueError, TypeError
            A row number is outside of [0, n_users), or not an integer.

        Notes
        -----
        This reads the given rows only. ``matrix[codes]`` would first copy all indices, because scipy brings indptr and
        indices to one dtype.
        """
        return self._rows(codes)[0]

    def _rows(self, codes: npt.ArrayLike) -> tuple[sparse.csr_array, Ints]:
        """Return the rows of some users, and the positions of their entries in the matrix."""
        codes = np.asarray(codes)
        if codes.size:
            check_ids(codes, self.n_users, "row", "codes", int, "position")
        codes = codes.astype(np.int64)
        starts, ends = self.matrix.indptr[codes], self.matrix.indptr[codes + 1]
        indptr = np.concatenate([[0], np.cumsum(ends - starts)])
        entries = np.repeat(starts - indptr[:-1], ends - starts) + np.arange(indptr[-1])
        data, indices = self.matrix.data[entries], self.matrix.indices[entries]
        return from_canonical(data, indices, indptr, (len(codes), self.n_items)), entries

    def _part(self, entries: Bools, users: Any = slice(None)) -> "Interactions":
        """Return some entries and some users, with all items.

        Parameters
        ----------
        entries : bool array of length nnz
            The entries to keep, in the order of ``matrix.data``. They must belong to users that are kept.
        users : bool array of length n_users or slice
            The users to keep, in the same order. Default: all, also those without entries.

        Returns
        -------
        Interactions
            With the timestamps of these entries, without a `report`.
        """
        matrix = part_of_matrix(self.matrix, entries, users)
        timestamps = None if self.timestamps is None else self.timestamps[entries]
        return copy_with(self, matrix=matrix, users=self.users[users], report=None, timestamps=timestamps)

    def __len__(self) -> int:
        """Number of users, because ``interactions[codes]`` selects users. Interactions without users are false."""
        return self.n_users

    __iter__ = None  # else Python would iterate by __getitem__: one Interactions for each user

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Raise a TypeError: numpy would make a dense array, or an array of one object."""
        raise TypeError(
            "Interactions cannot become a dense array; take interactions.matrix, a scipy.sparse.csr_array, or a table "
            "by interactions.to_pandas()"
        )

    def __getitem__(self, codes: Any) -> "Interactions":
        """Return some users, with all items. scikit-learn uses this to split users.

        Parameters
        ----------
        codes : int, slice, int array or boolean mask of length n_users
            Row numbers (ids) of users, in any order, each once. Negative numbers count from the end, as in numpy.

        Returns
        -------
        Interactions
            These users in this order, also for a single one. With their timestamps, without a `report`.

        Raises
        ------
        IndexError
            A row number is out of range; or `codes` are of another type, or have two dimensions.
        ValueError
            A row number is repeated. Two users cannot have the same label.
        """
        codes = np.atleast_1d(np.arange(self.n_users)[codes])
        if codes.ndim > 1:
            raise IndexError(
                f"codes must have one dimension, not {codes.ndim}: select users only, e.g. plays[rows]; items cannot "
                "be selected here"
            )
        users = self.users.take(codes)
        if not users.is_unique:
            at = int(users.duplicated().argmax())
            raise ValueError(
                f"codes: user {users[at]!r} comes again at position {at}; take each user once, or take a "
                f"matrix with rows(codes)"
            )
        matrix, entries = self._rows(codes)
        timestamps = None if self.timestamps is None else self.timestamps[entries]
        return copy_with(self, matrix=matrix, users=users, report=None, timestamps=timestamps)

    def add(self, other: "Interactions") -> Self:
        """Return these interactions and others together, for example later ones, with new users and new items.

        Parameters
        ----------
        other : Interactions
            With labels of the same types.

        Returns
        -------
        Interactions
            Users and items of `self` keep their ids. The new ones of `other` follow in its order. Where both have an
            entry, the new value is the sum, and the new time is the later one. A sum of 0 leaves no entry. There are
            timestamps if both have timestamps. Labels that are categories remain categories; new categories are added.
            There is no `report`.

        Raises
        ------
        TypeError
            `other` is not an Interactions, or its labels are of another type.
        ValueError
            A sum is not a finite float32 number, or there are more than 2**31 - 1 users or items.
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
        # This does not sort all entries again. The float32 sum of two values is the rounded float64 sum.
        indptr = np.pad(self.matrix.indptr, (0, len(users) - self.n_users), mode="edge")
        own = from_canonical(self.matrix.data, self.matrix.indices, indptr, shape)
        return type(self)(canonical_csr(own + renumbered(other.matrix, rows, columns, shape), name=name), users, items)

    def filter(self, min_user: int = 1, min_item: int = 1, k_core: int | None = None) -> "Interactions":
        """Leave out items and users with few entries.

        Parameters
        ----------
        min_user, min_item, k_core
            Same as for `alscore.statistics.filter`.

        Returns
        -------
        Interactions
            Same as from `alscore.statistics.filter`.

        Raises
        ------
        ValueError
            Same errors as `alscore.statistics.filter`.
        """
        kept = kept_entries(self.matrix, min_user, min_item, k_core)
        rest = self._part(kept.reason_of_entry == 0, kept.users)
        new_ids = np.cumsum(kept.items, dtype=np.int32) - np.int32(1)
        shape = rest.n_users, int(new_ids[-1]) + 1
        matrix = from_canonical(rest.matrix.data, new_ids[rest.matrix.indices], rest.matrix.indptr, shape)
        lost = np.flatnonzero(kept.reason_of_entry)
        reasons = np.array(kept.reasons, object)[kept.reason_of_entry[lost]]
        report = Report(self.nnz, rest.nnz, 0, pd.DataFrame({"number": lost, "reason": reasons}))
        return copy_with(rest, matrix=matrix, items=self.items[kept.items], report=report)

    def summary(self, top: int = 10) -> pd.DataFrame:
        """Describe the interactions by numbers.

        Parameters
        ----------
        top : int
            Number of most popular items to list, at least 0.

        Returns
        -------
        pandas.DataFrame
            Same as from `alscore.statistics.summary`.

        Raises
        ------
        ValueError
            `top` is not an integer of at least 0.
        """
        return statistics.summary(self, top)

    def plot(self) -> "Figure":
        """Draw how many entries users and items have, on logarithmic axes.

        Returns
        -------
        matplotlib.figure.Figure
            Same as from `alscore.statistics.plot`.

        Raises
        ------
        ValueError, ImportError
            Same errors as `alscore.statistics.plot`.
        """
        return statistics.plot(self)

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write matrix, labels and timestamps to one file. The report is not saved.

        Parameters
        ----------
        file : str, path or binary file object
            Same as for `alscore.persistence.save`.

        Raises
        ------
        TypeError, OSError
            Same errors as `alscore.persistence.save`.
        """
        self._write(file)

    def _write(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        container.write(file, "Interactions", None, *self._parts())

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO, mmap: bool = True) -> "Interactions":
        """Load Interactions that `save` wrote. By default a file with a path is mapped into memory.

        Parameters
        ----------
        file : str, path or seekable binary file object
        mmap : bool
            Same as for `alscore.load`.

        Returns
        -------
        Interactions

        Raises
        ------
        FormatError
            The file holds a model. Also: same errors as `alscore.load`.
        OSError
            The file cannot be opened or read.
        """
        return container.read(
            file,
            {"Interactions": cls._restored},
            lambda kind: container.FormatError(f"{file} holds a model, {kind}; read it with alscore.load"),
            mmap,
        )

    def _parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Callable[[Any], None]]]:
        """Return the members of a file: arrays by name, and functions by name that write the labels."""
        matrix = self.matrix
        arrays = dict(zip(container.MATRIX, (matrix.indptr, matrix.indices, matrix.data), strict=True))
        if self.timestamps is not None:
            arrays[container.TIMESTAMPS] = self.timestamps
        writers = labels_writer(self.users, "users"), labels_writer(self.items, "items")
        return arrays, dict(zip(container.LABELS, writers, strict=True))

    @classmethod
    def _restored(cls, parts: container.Parts, shape: tuple[int, int] | None = None) -> "Interactions":
        """Make Interactions of the members of a file. `shape` is by default that of the labels."""
        labels = []
        for name in container.LABELS:
            with parts.opened(name) as member:
                labels.append(read_labels(member))
        users, items = labels
        indptr, indices, data = (
            parts.array(name, 1, dtype)
            for name, dtype in zip(container.MATRIX, (np.int64, np.int32, np.float32), strict=True)
        )
        # not verified here: the constructor does it
        matrix = from_canonical(data, indices, indptr, shape or (len(users), len(items)))
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
        """Read a table with one observation in each row. Only the named columns are read.

        Parameters
        ----------
        source : str, path, DataFrame or Arrow table
            One of these:

            - a ``.parquet``, ``.arrow`` or ``.feather`` file;
            - delimited text, ``.csv`` or ``.tsv``, also compressed (``.gz``, ``.bz2``, ``.zst``). LF, CR or both end a
              line;
            - a pandas.DataFrame;
            - any object that exports Arrow data (``__arrow_c_stream__``): a pyarrow.Table or RecordBatchReader, a
              polars.DataFrame, a DuckDB relation, …
        user, item : str
            Columns with labels: integers, strings, dates, categories or another sortable type, one type a column.
            `users` and `items` hold the labels in ascending order, so ids do not depend on the order of the rows.
        value : str, optional
            Column with values: numbers or booleans. Zero means "not observed". Default: each row counts 1.
        timestamp : str, optional
            Column with times: whole seconds since 1970, or datetimes (in text: ISO 8601). Fractions of a second of a
            datetime are cut off. A datetime without a time zone is UTC.
        duplicates : {"sum", "max", "last", "error"}
            Which value several rows of one user and item have together. "last" takes the row with the latest time, and
            among these the row furthest down; without timestamps, the row furthest down. "error" refuses such rows. The
            time of the entry is the latest time in any case.
        errors : {"raise", "report"}
            "raise" refuses a table with bad rows, "report" leaves bad rows out and lists them in `report`. A row is bad
            if a label is missing, its value is not a finite float32 number, or its time is missing or beyond int64
            seconds. A line of a text file is bad also if it has another number of fields, or a label that is not UTF-8.
            Rows of value zero are left out and listed in both cases.
        delimiter : str, optional
            Delimiter of a text file. Default: comma, and TAB in ``.tsv``.
        quoting : bool, optional
            Whether a field of a text file that begins with a double quote ends with a double quote. It may then hold
            delimiters, line ends and doubled quotes; these line ends do not count in line numbers. Without quoting, a
            quote is text. Default: only if the delimiter is a comma.
        column_names : sequence of str, optional
            The columns of a text file without a header. Default: the first line is the header.
        integers : sequence of str
            Columns of labels in a text file that are integers (int64). Other labels are text, exactly as written:
            "007" and "NA" stay "007" and "NA". An empty field is a missing label.

        Returns
        -------
        Interactions
            With a `report`. It does not contain users and items whose rows are all rejected.

        Raises
        ------
        ValueError
            A row is bad (``errors="raise"``) or repeated (``duplicates="error"``): the message names the column and the
            rows or lines. A column does not exist or exists twice. The file is damaged, is not a regular file, or is of
            another kind. A line is longer than 16 MB (8 MB may be too long). There are more than 2**31 - 1 users or
            items.
        TypeError
            Labels of a column cannot be sorted or hashed, timestamps are of another type, `source` is of another type,
            or an option for text files is given for another source.
        OSError
            The file cannot be opened.
        """
        check_choices(duplicates, errors)
        # an empty sequence of names, or None, means: not given
        text = TextOptions(delimiter, quoting, column_names or None, integers or ())
        observations = read_observations(source, ColumnNames(user, item, value, timestamp), text)
        return cls._from_observations(observations, duplicates, errors)

    @classmethod
    def from_pandas(
        cls,
        df: pd.DataFrame,
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
            Same as for `from_table`.

        Returns
        -------
        Interactions
            With a `report`.

        Raises
        ------
        ValueError, TypeError
            Same errors as `from_table`.
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
        """Read arrays of equal length with one observation at each position.

        Parameters
        ----------
        users, items : array_like, length n
            Labels.
        values : array_like, length n, optional
            Numbers or booleans. Default: each position counts 1.
        timestamps : array_like, length n, optional
            Whole seconds since 1970, or datetimes.
        duplicates, errors
            Same as for `from_table`.

        Returns
        -------
        Interactions
            With a `report`.

        Raises
        ------
        ValueError, TypeError
            Same errors as `from_table`. ValueError also for arrays of different lengths.
        """
        check_choices(duplicates, errors)
        names = ColumnNames("users", "items", "values", "timestamps")
        return cls._from_observations(Observations(users, items, values, timestamps, names), duplicates, errors)

    @classmethod
    def _from_observations(cls, observations: Observations, duplicates: str, errors: str) -> Self:
        matrix, users, items, timestamps, read, rejected = collected(observations, duplicates, errors)
        report = Report(read, matrix.nnz, read - matrix.nnz - len(rejected), rejected)
        return cls(matrix, users, items, report, timestamps)

    def to_pandas(
        self, user: str = "user", item: str = "item", value: str = "value", timestamp: str = "timestamp"
    ) -> pd.DataFrame:
        """Return the entries as a table, by user and then by item.

        Parameters
        ----------
        user, item, value, timestamp : str
            Names of the columns.

        Returns
        -------
        pandas.DataFrame
            nnz rows: two columns of labels, a column of float32 values and, if there are timestamps, a column of int64
            seconds since 1970.
        """
        labels = self.users.take(entry_rows(self.matrix)), self.items.take(self.matrix.indices)
        table = pd.DataFrame({user: labels[0], item: labels[1], value: self.matrix.data})
        if self.timestamps is not None:
            table[timestamp] = self.timestamps
        return table
