"""Who played what, how often: labels for users and items over one canonical sparse matrix."""

import copy
import numbers
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from alscore._tables import Rows, read_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_MAX_CODE = np.iinfo(np.int32).max


class CanonicalRows(NamedTuple):
    """The arrays of a matrix in canonical form."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        return self.data.size


def canonical_csr(
    matrix: sparse.sparray | sparse.spmatrix, dtype: npt.DTypeLike = np.float32, name: str = "user_items"
) -> sparse.csr_array:
    """Verify a sparse matrix and bring it to the one form that the compiled core reads.

    Parameters
    ----------
    matrix : scipy sparse matrix or array, shape (n_rows, n_columns)
        Any format; boolean, integer or real; read-only and memory-mapped buffers too. It is never modified.
    dtype : numpy dtype
        float32 or float64.
    name : str
        What messages call the matrix.

    Returns
    -------
    scipy.sparse.csr_array, shape (n_rows, n_columns)
        int64 `indptr`, int32 `indices`, `dtype` `data`; columns ascending in each row, duplicates summed (in
        float64), no stored zeros. A buffer which is in this form already is shared with `matrix`.

    Raises
    ------
    TypeError
        Not a scipy sparse matrix, or complex or object values.
    ValueError
        Not two-dimensional, more than 2**31 - 1 rows or columns, inconsistent `indptr`, indices out of range,
        or values that are NaN, infinite or outside of `dtype`'s range.
    """
    return from_canonical(*canonical_rows(matrix, dtype, name))


def canonical_rows(matrix: Any, dtype: npt.DTypeLike, name: str) -> CanonicalRows:
    """As `canonical_csr`, for who needs the arrays alone: making a matrix of them takes as long as verifying a row."""
    if not sparse.issparse(matrix):
        raise TypeError(
            f"{name} must be a scipy sparse matrix, not {type(matrix).__name__}; "
            f"convert it with scipy.sparse.csr_array(...)"
        )
    if matrix.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, not {matrix.ndim}; reshape it to (users, items)")
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"{name} has {matrix.dtype} values; convert them to numbers, e.g. .astype(float)")
    if max(matrix.shape) > _MAX_CODE:
        raise ValueError(
            f"{name} has shape {matrix.shape}; at most {_MAX_CODE:,} rows and columns are "
            f"supported, so renumber them without gaps"
        )

    borrowed = matrix.format == "csr"
    # scipy's conversions trust the indices and would read or write out of bounds: verify before converting.
    if matrix.format in ("csr", "csc"):
        _check_compressed(matrix, name)
    else:
        matrix = matrix.tocoo(copy=False)
        for axis, codes in enumerate((matrix.row, matrix.col)):
            _check_codes(codes, matrix.shape[axis], ("row", "column")[axis], name, lambda at: matrix.row[at])
        matrix = sparse.coo_array((matrix.data, (matrix.row, matrix.col)), shape=matrix.shape)
        matrix.has_canonical_format = True  # else tocsr sums, and small integers overflow before the cast
    matrix = matrix.tocsr(copy=False)

    indptr = np.ascontiguousarray(matrix.indptr, np.int64)
    indices = np.ascontiguousarray(matrix.indices[: indptr[-1]], np.int32)
    data = _cast(matrix.data[: indptr[-1]], dtype, indptr, name)

    if not _ascend(indices, indptr):
        ordered = sparse.csr_array((data, indices, indptr), shape=matrix.shape)
        if borrowed:
            ordered = ordered.copy()
        ordered.sort_indices()
        data, indices = ordered.data, ordered.indices.astype(np.int32, copy=False)
        starts = _starts(indices, indptr)
        if starts.size < data.size:
            with np.errstate(over="ignore"):
                data = np.add.reduceat(data, starts, dtype=np.float64)
            indices, indptr = indices[starts], np.searchsorted(starts, indptr)
            data = _cast(data, dtype, indptr, name)
    if np.count_nonzero(data) < data.size:
        stored = np.flatnonzero(data)
        data, indices, indptr = data[stored], indices[stored], np.searchsorted(stored, indptr)

    return CanonicalRows(data, indices, indptr, matrix.shape)


def _ascend(indices: np.ndarray, indptr: np.ndarray) -> bool:
    """Whether the columns of every row ascend, without repeats."""
    ascends = indices[1:] > indices[:-1]
    starts = indptr[1:-1]
    ascends[starts[(starts > 0) & (starts < indices.size)] - 1] = True  # from the end of one row to the next
    return bool(ascends.all())


def _starts(indices: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    """Where each run of one column begins, in rows whose columns do not descend."""
    first = np.zeros(indices.size + 1, bool)
    first[indptr] = True
    first[1:-1] |= indices[1:] != indices[:-1]
    return np.flatnonzero(first[:-1])


def from_canonical(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
    """Return a csr_array of arrays that are in canonical form already."""
    # Set as attributes: the constructor would bring indptr and indices to one dtype.
    matrix = sparse.csr_array(shape, dtype=data.dtype)
    matrix.indptr, matrix.indices, matrix.data = indptr, indices, data
    matrix.has_canonical_format = True
    return matrix


def rows_of(matrix: sparse.csr_array) -> np.ndarray:
    """Return the row of each entry, int32."""
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))


def row_of(indptr: np.ndarray, entry: Any) -> Any:
    """Return the row of one entry, or of several."""
    return np.searchsorted(indptr, entry, side="right") - 1


def recoded(
    matrix: sparse.csr_array, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> sparse.csr_array:
    """Move the entries of a canonical matrix to other places.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array, shape (n_rows, n_columns)
    rows, columns : int array, lengths n_rows and n_columns
        The row and the column where those of `matrix` go. Entries whose new column is -1 are left out.
    shape : (int, int)

    Returns
    -------
    scipy.sparse.csr_array, float32, of that shape
        In canonical form.
    """
    rows, columns = np.repeat(rows, np.diff(matrix.indptr)), columns[matrix.indices]
    kept = columns >= 0
    return canonical_csr(sparse.coo_array((matrix.data[kept], (rows[kept], columns[kept])), shape=shape))


def _check_compressed(matrix: Any, name: str) -> None:
    """Verify the structure of a CSR or CSC matrix, whose attributes anyone may have set."""
    indptr, indices = matrix.indptr, matrix.indices
    major, minor = ("row", "column") if matrix.format == "csr" else ("column", "row")
    n_major, n_minor = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    remedy = "rebuild the matrix from its coordinates with scipy.sparse.coo_array((data, (row, col)))"
    if len(indptr) != n_major + 1 or indptr[0] != 0:
        raise ValueError(
            f"{name}.indptr must start with 0 and have {n_major + 1} elements, one more than {major}s; {remedy}"
        )
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if falls.size:
        raise ValueError(f"{name}.indptr decreases at {major} {falls[0]}; {remedy}")
    stored = min(len(indices), len(matrix.data))
    if indptr[-1] > stored:
        at = row_of(indptr, stored)
        raise ValueError(f"{name}.indptr points past the {stored} stored elements at {major} {at}; {remedy}")
    _check_codes(indices[: indptr[-1]], n_minor, minor, name, lambda at: row_of(indptr, at), major)


def _check_codes(
    codes: np.ndarray, size: int, axis: str, name: str, owner: Callable[[Any], Any], owner_axis: str = "row"
) -> None:
    """Verify that `codes` are integers in [0, size); `owner(position)` finds the row to name."""
    if codes.dtype.kind not in "iu":
        raise TypeError(f"{name} has {axis} indices of dtype {codes.dtype}; convert them to integers")
    if codes.size and (codes.min() < 0 or codes.max() >= size):
        at = np.flatnonzero((codes < 0) | (codes >= size))[0]
        raise ValueError(
            f"{name}: {axis} index {codes[at]} at {owner_axis} {owner(at)} is outside of "
            f"[0, {size}); correct the index or give the matrix a larger shape"
        )


def _cast(values: np.ndarray, dtype: npt.DTypeLike, indptr: np.ndarray, name: str) -> np.ndarray:
    """Return `values` as a contiguous `dtype` array, shared if they are one; refuse those it cannot hold."""
    with np.errstate(over="ignore", under="ignore"):
        cast = np.ascontiguousarray(values, dtype)
    # min and max pass NaN on and need no temporary array
    if cast.size and not (
        np.isfinite(cast.min())
        and np.isfinite(cast.max())
        and (cast.dtype == values.dtype or np.count_nonzero(cast) == np.count_nonzero(values))
    ):
        at = np.flatnonzero(_unrepresentable(values, cast))[0]
        raise ValueError(
            f"{name} holds {values[at]} at row {row_of(indptr, at)}, which is not a finite {cast.dtype} number "
            f"or underflows to zero; remove or correct it"
        )
    return cast


def _unrepresentable(values: np.ndarray, cast: np.ndarray) -> np.ndarray:
    """Mask of `values` that became infinite, NaN or zero in `cast`."""
    return ~np.isfinite(cast) | ((cast == 0) & (values != 0))


def checked_timestamps(timestamps: Any, given: Any, matrix: sparse.csr_array, name: str) -> np.ndarray:
    """Verify the times of the entries of a matrix, in seconds: int64.

    Parameters
    ----------
    timestamps : int array of length nnz
    given : scipy sparse matrix
        Whose entries have these times. They are of use only if it is in canonical form.
    matrix : scipy.sparse.csr_array
        What `canonical_csr` makes of it.
    name : str
        What messages call the matrix.
    """
    timestamps = np.asarray(timestamps)
    if not np.can_cast(timestamps.dtype, np.int64):
        raise TypeError(
            f"timestamps are {timestamps.dtype}; convert them to whole seconds since 1970, for datetimes by "
            f".astype('datetime64[s]').astype('int64')"
        )
    if not (
        given.format == "csr"
        and np.array_equal(given.indptr, matrix.indptr)
        and np.array_equal(given.indices[: matrix.nnz], matrix.indices)
    ):
        raise ValueError(
            f"{name} must be in canonical form, since timestamps follow the order of its entries: take "
            f"alscore.interactions.canonical_csr({name}), and timestamps in the order of that"
        )
    if timestamps.shape != matrix.data.shape:
        raise ValueError(f"timestamps has shape {timestamps.shape}; give one for each of the {matrix.nnz} entries")
    return timestamps.astype(np.int64, copy=False)


def replaced(interactions: "Interactions", **parts: Any) -> Any:
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
        self.users = _labels(users, self.matrix.shape[0], "users")
        self.items = _labels(items, self.matrix.shape[1], "items")
        self.report = report
        self.timestamps = None
        if timestamps is not None:
            self.timestamps = checked_timestamps(timestamps, matrix, self.matrix, "matrix")

    @property
    def shape(self) -> tuple[int, int]:
        """(n_users, n_items)."""
        return self.matrix.shape

    @property
    def n_users(self) -> int:
        """Number of rows."""
        return self.matrix.shape[0]

    @property
    def n_items(self) -> int:
        """Number of columns."""
        return self.matrix.shape[1]

    @property
    def nnz(self) -> int:
        """Number of (user, item) pairs observed."""
        return self.matrix.nnz

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

    def _rows(self, codes: npt.ArrayLike) -> tuple[sparse.csr_array, np.ndarray]:
        """Return the entries of some users, and their positions in the matrix."""
        codes = np.asarray(codes)
        if codes.size:
            _check_codes(codes, self.n_users, "row", "codes", int, "position")
        codes = codes.astype(np.int64)
        starts, ends = self.matrix.indptr[codes], self.matrix.indptr[codes + 1]
        indptr = np.concatenate([[0], np.cumsum(ends - starts)])
        entries = np.repeat(starts - indptr[:-1], ends - starts) + np.arange(indptr[-1])
        data, indices = self.matrix.data[entries], self.matrix.indices[entries]
        return from_canonical(data, indices, indptr, (len(codes), self.n_items)), entries

    def __len__(self) -> int:
        """Number of users, since `interactions[codes]` counts those."""
        return self.n_users

    def __getitem__(self, codes: Any) -> Self:
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
            at = np.argmax(users.duplicated())
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
            A sum is no finite float32 number.
        """
        if not isinstance(other, Interactions):
            raise TypeError(f"other must be alscore.Interactions, not {type(other).__name__}")
        users, rows = _union(self.users, other.users, "users")
        items, columns = _union(self.items, other.items, "items")
        shape, name = (len(users), len(items)), "the sum of both"
        if self.timestamps is not None and other.timestamps is not None:
            total, timestamps = _summed(
                np.concatenate([rows_of(self.matrix), rows[rows_of(other.matrix)]]),
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

    def filter(self, min_user: int = 1, min_item: int = 1, k_core: int | None = None) -> Self:
        """Leave out items and users with few entries: see `alscore.statistics.filter`."""
        from alscore import statistics

        return statistics.filter(self, min_user, min_item, k_core)

    def summary(self, top: int = 10) -> "pd.DataFrame":
        """Describe the interactions by numbers: see `alscore.statistics.summary`."""
        from alscore import statistics

        return statistics.summary(self, top)

    def plot(self) -> "Figure":
        """Draw how many entries users and items have: see `alscore.statistics.plot`."""
        from alscore import statistics

        return statistics.plot(self)

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Write matrix, labels and timestamps to one file, without the report: see `alscore.persistence.save`."""
        from alscore.persistence import save

        save(self, file)

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO, mmap: bool = True) -> "Interactions":
        """Read, or by default map into memory, what `save` wrote: see `alscore.load`.

        Raises
        ------
        FormatError, OSError
            As for `alscore.load`, or the file holds a model.
        """
        from alscore.persistence import FormatError, load

        loaded = load(file, mmap)
        if not isinstance(loaded, Interactions):
            raise FormatError(f"{file} holds a model, {type(loaded).__name__}; read it with alscore.load")
        return loaded

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
            (``.gz``, ``.bz2``, ``.zst``); a pandas.DataFrame; or what else offers itself to Arrow
            (``__arrow_c_stream__``): a pyarrow.Table or RecordBatchReader, a polars.DataFrame, a DuckDB relation, …
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
        errors : {"raise", "drop"}
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
            kind; a line of more than 8 MB.
        TypeError
            Labels of a column cannot be sorted or hashed, timestamps are of another type, another `source`, or options
            for what is no text file.
        OSError
            The file cannot be opened.
        """
        _check_choices(duplicates, errors)
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
        """Read a pandas.DataFrame, as `from_table` does."""
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
        """
        _check_choices(duplicates, errors)
        rows = Rows(users, items, values, timestamps, ("users", "items", "values", "timestamps"))
        return cls._from_rows(rows, duplicates, errors)

    @classmethod
    def _from_rows(cls, rows: Rows, duplicates: str, errors: str) -> Self:
        import pandas as pd

        user, item, value, timestamp = rows.names
        users, user_labels = _factorize(rows.users, user)
        items, item_labels = _factorize(rows.items, item)
        values, unusable = _numbers(rows.values, len(users))
        timestamps, untimely = _seconds(rows.timestamps, len(users), timestamp)
        lengths = len(users), len(items), len(values), len(untimely)
        if len(set(lengths)) > 1:
            raise ValueError(
                "{}, {}, {} and {} must have equal lengths, not {}, {}, {} and {}".format(*rows.names, *lengths)
            )
        fate, reasons = _judged(
            rows,
            len(users),
            [
                *rows.faults,
                (f"{user}: missing label", np.flatnonzero(users < 0)),
                (f"{item}: missing label", np.flatnonzero(items < 0)),
                (f"{value}: not a finite float32 number", np.flatnonzero(unusable)),
                (f"{timestamp}: missing, or not whole seconds that int64 can hold", np.flatnonzero(untimely)),
            ],
            errors,
        )
        used = np.flatnonzero(fate == 0)
        if duplicates != "sum":
            order, starts = _by_pair(users[used], items[used], (len(user_labels), len(item_labels)))
            order = used[order]
            used = _best_of_each(order, starts, {"max": values, "last": timestamps}.get(duplicates))
            if duplicates == "error" and used.size < order.size:
                repeated = rows.numbers(np.setdiff1d(order, used))
                raise ValueError(
                    f"{rows.where}{repeated.size:,} rows have a ({user}, {item}) that comes again below, "
                    f"at {rows.unit}s {first_few(repeated)}; remove them, or choose duplicates='sum', 'max' or 'last'"
                )
            if timestamps is not None:
                timestamps[used] = np.maximum.reduceat(timestamps[order], starts)
        is_zero = values[used] == 0
        fate[used[is_zero]] = len(reasons)
        reasons.append(f"{value}: zero, not observed")
        used = used[~is_zero]

        users, user_labels = _sorted(users[used], user_labels, user)
        items, item_labels = _sorted(items[used], item_labels, item)
        timestamps = None if timestamps is None else timestamps[used]
        shape = len(user_labels), len(item_labels)
        matrix, timestamps = _summed(users, items, values[used], timestamps, shape, value)

        lost = np.flatnonzero(fate)
        numbers = np.concatenate([rows.numbers(lost), rows.skipped])
        why = np.concatenate([np.array(reasons, object)[fate[lost]], [rows.why_skipped] * rows.skipped.size])
        rejected = pd.DataFrame({"number": numbers, "reason": why}).sort_values("number", ignore_index=True)
        read = len(fate) + rows.skipped.size
        report = Report(read, matrix.nnz, read - matrix.nnz - len(rejected), rejected)
        return cls(matrix, user_labels, item_labels, report, timestamps)

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

        labels = self.users.take(rows_of(self.matrix)), self.items.take(self.matrix.indices)
        table = pd.DataFrame({user: labels[0], item: labels[1], value: self.matrix.data})
        if self.timestamps is not None:
            table[timestamp] = self.timestamps
        return table


def _check_choices(duplicates: str, errors: str) -> None:
    if duplicates not in ("sum", "max", "last", "error"):
        raise ValueError(f"duplicates must be 'sum', 'max', 'last' or 'error', not {duplicates!r}")
    if errors not in ("raise", "drop"):
        raise ValueError(f"errors must be 'raise' or 'drop', not {errors!r}")


def _judged(rows: Rows, length: int, faults: list[tuple[str, np.ndarray]], errors: str) -> tuple[np.ndarray, list[str]]:
    """Return for each row an index into reasons to reject it, 0 for none, and these; or refuse the table for them."""

    def refuse(reason: str, rejected: np.ndarray) -> None:
        if errors == "raise" and rejected.size:
            raise ValueError(
                f"{rows.where}{reason} in {rejected.size:,} of {length + rows.skipped.size:,} rows, at {rows.unit}s "
                f"{first_few(rejected)}; correct them, or leave them out with errors='drop'"
            )

    refuse(rows.why_skipped, rows.skipped)
    fate, reasons = np.zeros(length, np.int8), [""]
    for reason, at in faults:
        refuse(reason, rows.numbers(at))
        fate[at[fate[at] == 0]] = len(reasons)
        reasons.append(reason)
    return fate, reasons


def _labels(labels: Iterable[Any] | None, length: int, name: str) -> "pd.Index":
    """Return `labels` as a verified pandas Index of `length`."""
    import pandas as pd

    if labels is None:
        return pd.RangeIndex(length)
    index = pd.Index(labels, tupleize_cols=False).to_flat_index()
    if len(index) != length:
        raise ValueError(f"{name} has {len(index)} labels for the {length} that the matrix needs")
    faults = {"missing": index.isna()}
    if not _ascending(index):  # to look for repeats hashes all labels
        faults["not unique"] = index.duplicated()
    for fault, mask in faults.items():
        if mask.any():
            at = np.argmax(mask)
            raise ValueError(
                f"{name}: label {index[at]!r} at position {at} is {fault}; give each {name[:-1]} its own label"
            )
    return index


def _ascending(labels: "pd.Index") -> bool:
    """Whether each label is known to be above the one before it."""
    try:
        return bool((labels[1:] > labels[:-1]).all())
    except TypeError:  # of several types, or categories without an order
        return False


def _factorize(labels: Any, name: str) -> tuple[np.ndarray, "pd.Index"]:
    """Return (codes, -1 for missing; the distinct labels as a pandas Index)."""
    import pandas as pd

    try:
        codes, distinct = pd.factorize(pd.Series(labels))
    except TypeError as error:
        raise TypeError(f"{name}: {error}; labels must be hashable, such as strings or integers") from error
    if len(distinct) > _MAX_CODE:
        raise ValueError(f"{name}: {len(distinct):,} labels, of which at most {_MAX_CODE:,} are supported")
    return codes, _without_categories(pd.Index(distinct, tupleize_cols=False))


def _without_categories(labels: "pd.Index") -> "pd.Index":
    """Return the labels; of categories, what they stand for."""
    import pandas as pd

    return labels.astype(labels.categories.dtype) if isinstance(labels.dtype, pd.CategoricalDtype) else labels


def _union(known: "pd.Index", others: "pd.Index", name: str) -> tuple["pd.Index", np.ndarray]:
    """Return `known` and after it those of `others` that are new; and the positions in that of all of `others`."""
    import pandas as pd

    if not len(known) or not len(others):
        return known if len(known) else others, np.arange(len(others))
    codes = known.get_indexer(others)
    new = codes < 0
    codes[new] = np.arange(len(known), len(known) + np.count_nonzero(new))
    parts = _without_categories(known), _without_categories(others)
    union = parts[0].append(parts[1][new]) if new.any() else parts[0]
    # pandas may bring two types to a third one, in which neither's labels are what they were
    if {part.inferred_type for part in parts} != {union.inferred_type}:
        known_type, others_type = (f"{part.inferred_type} ({part.dtype})" for part in parts)
        raise TypeError(
            f"{name}: labels of type {others_type} cannot be added to those of type {known_type}; "
            f"bring them to that type, e.g. .astype(...)"
        )
    if not new.any():
        return known, codes
    if isinstance(known, pd.CategoricalIndex):
        categories = known.categories.union(union, sort=False)
        union = pd.CategoricalIndex(union, categories=categories, ordered=known.ordered)
    return union, codes


def _sorted(codes: np.ndarray, labels: "pd.Index", name: str) -> tuple[np.ndarray, "pd.Index"]:
    """Renumber `codes` so that the labels in use ascend; return (int32 codes, those labels)."""
    used = np.zeros(len(labels), bool)
    used[codes] = True
    try:
        order = np.asarray(labels.argsort())
    except TypeError as error:
        raise TypeError(f"{name}: {error}; bring the labels to one type, e.g. .astype(str)") from error
    order = order[used[order]]
    rank = np.empty(len(labels), np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    return rank[codes], labels[order]


def _numbers(values: Any, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (float32 values, mask of those that are missing, not numbers, or out of float32's range)."""
    import pandas as pd

    if values is None:
        return np.ones(length, np.float32), np.zeros(length, bool)
    values = pd.Series(values)
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_complex_dtype(values):
        exact = values.to_numpy(np.float64, na_value=np.nan)
    else:
        exact = np.array([x if isinstance(x, numbers.Real | Decimal) else np.nan for x in values], np.float64)
    with np.errstate(over="ignore", under="ignore"):
        cast = exact.astype(np.float32)
    return cast, _unrepresentable(exact, cast)


def _seconds(timestamps: Any, length: int, name: Any) -> tuple[np.ndarray | None, np.ndarray]:
    """Return (seconds since 1970, a new int64 array; mask of those that are missing, in parts, or out of range)."""
    import pandas as pd

    if timestamps is None:
        return None, np.zeros(length, bool)
    if not (isinstance(timestamps, np.ndarray) and timestamps.dtype.kind == "M"):  # which pandas may have no unit for
        timestamps = pd.Series(timestamps).infer_objects()
        if timestamps.dtype.kind == "M":
            timestamps = timestamps.to_numpy("datetime64[s]", na_value=np.datetime64("NaT", "s"))  # UTC
    if timestamps.dtype.kind == "M":
        wrong = np.isnat(timestamps)
        if np.can_cast(timestamps.dtype, "datetime64[s]"):  # coarser units reach further than seconds do
            earliest, latest = np.array([-(2**62), 2**62], "datetime64[s]").astype(timestamps.dtype)
            wrong |= (timestamps < earliest) | (timestamps > latest)
        timestamps = np.where(wrong, np.array(0, timestamps.dtype), timestamps)
        return timestamps.astype("datetime64[s]").astype(np.int64), wrong
    if pd.api.types.is_integer_dtype(timestamps):
        exact = timestamps.fillna(0).to_numpy()
        wrong = timestamps.isna().to_numpy() | (exact > np.iinfo(np.int64).max)
    elif pd.api.types.is_float_dtype(timestamps):  # as integers become where some are missing
        exact = timestamps.to_numpy(np.float64, na_value=np.nan)
        wrong = ~(np.abs(exact) < 2.0**63) | (exact != np.floor(exact))
        exact = np.where(wrong, 0, exact)
    else:
        raise TypeError(
            f"{name}: times of type {timestamps.dtype}; convert them to whole seconds since 1970 or to datetimes, such "
            f"as by pandas.to_datetime(..., utc=True)"
        )
    return exact.astype(np.int64), wrong


def _by_pair(users: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sort observations by user and then item.

    Return (their positions in that order, those of one pair in any; where in it each pair starts).
    """
    observations = sparse.coo_array((np.arange(users.size), (users, items)), shape=shape)
    observations.has_canonical_format = True  # else tocsr would sum up positions
    # a quarter of the time of numpy.lexsort
    by_user = observations.tocsr()
    by_user.sort_indices()
    return by_user.data, _starts(by_user.indices, by_user.indptr)


def _best_of_each(order: np.ndarray, starts: np.ndarray, criterion: np.ndarray | None) -> np.ndarray:
    """Choose one of the rows of each pair, sorted by `_by_pair`: of those with the largest criterion the last."""
    if criterion is not None:
        largest = np.maximum.reduceat(criterion[order], starts)
        lengths = np.diff(starts, append=order.size)
        order = np.where(criterion[order] == np.repeat(largest, lengths), order, -1)
    return np.maximum.reduceat(order, starts)


def _summed(
    users: np.ndarray,
    items: np.ndarray,
    values: np.ndarray,
    timestamps: np.ndarray | None,
    shape: tuple[int, int],
    name: str,
) -> tuple[sparse.csr_array, np.ndarray | None]:
    """Return the canonical matrix of the sums of each pair's values, and the latest time of each entry."""
    order, starts = _by_pair(users, items, shape)
    first = order[starts]
    indptr = np.append(0, np.cumsum(np.bincount(users[first], minlength=shape[0])))
    with np.errstate(over="ignore"):
        sums = np.add.reduceat(values[order], starts, dtype=np.float64)
    matrix = canonical_csr(from_canonical(sums, items[first], indptr, shape), name=name)
    if timestamps is not None:
        timestamps = np.maximum.reduceat(timestamps[order], starts)[sums != 0]
    return matrix, timestamps


def first_few(positions: "np.ndarray | pd.Series") -> str:
    """Spell out the first few of `positions`."""
    return ", ".join(map(str, positions[:5])) + (", …" if len(positions) > 5 else "")
