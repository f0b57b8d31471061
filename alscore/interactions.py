"""Who played what, how often: labels for users and items over one canonical sparse matrix."""

import numbers
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

if TYPE_CHECKING:
    import pandas as pd

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
    return _canonical(*canonical_rows(matrix, dtype, name))


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
        first = np.zeros(data.size + 1, bool)
        first[indptr] = True
        first[1:-1] |= indices[1:] != indices[:-1]
        first = np.flatnonzero(first[:-1])
        if first.size < data.size:
            with np.errstate(over="ignore"):
                data = np.add.reduceat(data, first, dtype=np.float64)
            indices, indptr = indices[first], np.searchsorted(first, indptr)
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


def _canonical(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    """Return a csr_array of arrays that are in canonical form already."""
    # Set as attributes: the constructor would bring indptr and indices to one dtype.
    matrix = sparse.csr_array(shape, dtype=data.dtype)
    matrix.indptr, matrix.indices, matrix.data = indptr, indices, data
    matrix.has_canonical_format = True
    return matrix


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
        at = np.searchsorted(indptr, stored, side="right") - 1
        raise ValueError(f"{name}.indptr points past the {stored} stored elements at {major} {at}; {remedy}")
    _check_codes(
        indices[: indptr[-1]], n_minor, minor, name, lambda at: np.searchsorted(indptr, at, side="right") - 1, major
    )


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
        np.isfinite(cast.min()) and np.isfinite(cast.max()) and np.count_nonzero(cast) == np.count_nonzero(values)
    ):
        at = np.flatnonzero(_unrepresentable(values, cast))[0]
        row = np.searchsorted(indptr, at, side="right") - 1
        raise ValueError(
            f"{name} holds {values[at]} at row {row}, which is not a finite {cast.dtype} number "
            f"or underflows to zero; remove or correct it"
        )
    return cast


def _unrepresentable(values: np.ndarray, cast: np.ndarray) -> np.ndarray:
    """Mask of `values` that became infinite, NaN or zero in `cast`."""
    return ~np.isfinite(cast) | ((cast == 0) & (values != 0))


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
            lines.append(f"  {len(group):,} × {reason}: {_first(group)}")
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

    Attributes
    ----------
    matrix : scipy.sparse.csr_array, float32
        In canonical form (`canonical_csr`); shares the input's buffers if they were. Its indptr is int64 beside
        int32 indices, which some methods of scipy refuse (`tocoo`, `nonzero`, printing): there take a copy,
        ``csr_array((m.data, m.indices, m.indptr), m.shape)``, which scipy brings to one dtype.
    users, items : pandas.Index
    report : Report or None
    """

    def __init__(
        self,
        matrix: sparse.sparray | sparse.spmatrix,
        users: Iterable[Any] | None = None,
        items: Iterable[Any] | None = None,
        report: Report | None = None,
    ) -> None:
        self.matrix = canonical_csr(matrix, name="matrix")
        self.users = _labels(users, self.matrix.shape[0], "users")
        self.items = _labels(items, self.matrix.shape[1], "items")
        self.report = report

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
        codes = np.asarray(codes)
        if codes.size:
            _check_codes(codes, self.n_users, "row", "codes", int, "position")
        codes = codes.astype(np.int64)
        starts, ends = self.matrix.indptr[codes], self.matrix.indptr[codes + 1]
        indptr = np.concatenate([[0], np.cumsum(ends - starts)])
        entries = np.repeat(starts - indptr[:-1], ends - starts) + np.arange(indptr[-1])
        return _canonical(self.matrix.data[entries], self.matrix.indices[entries], indptr, (len(codes), self.n_items))

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
            Of those users in that order, one too; without a `report`, which is about all of them.

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
        return type(self)(self.rows(codes), users, self.items)

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
            an entry its value is the sum; a sum of 0 leaves none. Labels that are categories stay so, of which there
            may be more. There is no `report`: each part has its own.

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
        shape = len(users), len(items)
        indptr = np.pad(self.matrix.indptr, (0, len(users) - self.n_users), mode="edge")
        mine = _canonical(self.matrix.data, self.matrix.indices, indptr, shape)
        # Two float32 numbers add up to the same in float64, rounded.
        total = canonical_csr(mine + recoded(other.matrix, rows, columns, shape), name="the sum of both")
        return type(self)(total, users, items)

    def __repr__(self) -> str:
        return f"<Interactions: {self.n_users:,} users × {self.n_items:,} items, {self.nnz:,} entries>"

    @classmethod
    def from_pandas(
        cls,
        df: "pd.DataFrame",
        user: str,
        item: str,
        value: str | None = None,
        duplicates: str = "sum",
        errors: str = "raise",
    ) -> Self:
        """Read a table with one observation a row.

        Parameters
        ----------
        df : pandas.DataFrame
        user, item : str
            Columns with labels: integers, strings, dates, categories, … of one sortable type each. `users`
            and `items` hold them in ascending order, so codes do not depend on the order of the rows.
        value : str, optional
            Column with strengths: numbers or booleans. Zero means "not observed". Default: each row counts 1.
        duplicates : {"sum", "max", "last", "error"}
            What to make of several rows for one user and item.
        errors : {"raise", "drop"}
            What to do about rows with a missing label, or a value that is no finite float32 number: refuse
            the table, or leave them out and list them in `report`. Rows of value zero are listed either way.

        Returns
        -------
        Interactions
            With a `report`. Users and items whose rows are all rejected do not appear.

        Raises
        ------
        ValueError
            Rows as above, or repeats with ``duplicates="error"``: the message names column and rows.
        TypeError
            Labels of a column cannot be sorted or hashed.
        """
        columns = {name: df[name] for name in (user, item, value) if name is not None and name in df}
        for argument, name in (("user", user), ("item", item), ("value", value)):
            if name is not None and name not in columns:
                raise ValueError(f"{argument}={name!r} is not a column; the table has {list(df.columns)}")
        values, named = (None, "count") if value is None else (columns[value], value)
        return cls._from_columns(columns[user], columns[item], values, (user, item, named), duplicates, errors)

    @classmethod
    def from_arrays(
        cls,
        users: Iterable[Any],
        items: Iterable[Any],
        values: Iterable[Any] | None = None,
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
        duplicates, errors
            As for `from_pandas`, and so are the result and the errors raised.
        """
        return cls._from_columns(users, items, values, ("users", "items", "values"), duplicates, errors)

    @classmethod
    def _from_columns(
        cls, users: Any, items: Any, values: Any, names: tuple[str, str, str], duplicates: str, errors: str
    ) -> Self:
        import pandas as pd

        if duplicates not in ("sum", "max", "last", "error"):
            raise ValueError(f"duplicates must be 'sum', 'max', 'last' or 'error', not {duplicates!r}")
        if errors not in ("raise", "drop"):
            raise ValueError(f"errors must be 'raise' or 'drop', not {errors!r}")
        user, item, value = names
        users, user_labels = _factorize(users, user)
        items, item_labels = _factorize(items, item)
        values, unusable = _numbers(values, len(users))
        if not len(users) == len(items) == len(values):
            raise ValueError(
                f"{user}, {item} and {value} must have equal lengths, not {len(users)}, {len(items)} and {len(values)}"
            )

        reasons = np.array(
            [
                "",
                f"{user}: missing label",
                f"{item}: missing label",
                f"{value}: not a finite float32 number",
                f"{value}: zero, not observed",
            ],
            object,
        )
        rejected = np.zeros(len(values), np.int8)  # indices into reasons
        for reason, rows in ((3, unusable), (2, items < 0), (1, users < 0)):
            rejected[rows] = reason
            if errors == "raise" and rows.any():
                raise ValueError(
                    f"{reasons[reason]} in {np.count_nonzero(rows):,} of {rows.size:,} rows, "
                    f"at positions {_first(np.flatnonzero(rows))}; correct them, "
                    f"or leave them out with errors='drop'"
                )

        rows = np.flatnonzero(rejected == 0)
        if duplicates != "sum":
            rows, repeated = _distinct(rows, users, items, values if duplicates == "max" else None)
            if duplicates == "error" and repeated.size:
                raise ValueError(
                    f"{repeated.size:,} rows have a ({user}, {item}) that comes again below, "
                    f"at positions {_first(repeated)}; remove them, "
                    f"or choose duplicates='sum', 'max' or 'last'"
                )
        zero = values[rows] == 0
        rejected[rows[zero]] = 4
        rows = rows[~zero]

        lost = np.flatnonzero(rejected)
        lost = pd.DataFrame({"number": lost, "reason": reasons[rejected[lost]]})
        return cls._from_codes(
            users[rows], user_labels, items[rows], item_labels, values[rows], names, lost, rejected.size
        )

    @classmethod
    def _from_codes(
        cls,
        users: np.ndarray,
        user_labels: "pd.Index",
        items: np.ndarray,
        item_labels: "pd.Index",
        values: np.ndarray,
        names: tuple[str, str, str],
        rejected: "pd.DataFrame",
        read: int,
    ) -> Self:
        """Sort the labels in use, sum repeats, and account for all of the rows read."""
        users, user_labels = _sorted(users, user_labels, names[0])
        items, item_labels = _sorted(items, item_labels, names[1])
        entries = sparse.coo_array((values, (users, items)), shape=(len(user_labels), len(item_labels)))
        matrix = canonical_csr(entries, name=names[2])
        report = Report(read, matrix.nnz, read - matrix.nnz - len(rejected), rejected)
        return cls(matrix, user_labels, item_labels, report)

    def to_pandas(self, user: str = "user", item: str = "item", value: str = "value") -> "pd.DataFrame":
        """Return the entries as a table, by user and then item.

        Parameters
        ----------
        user, item, value : str
            Names for the columns.

        Returns
        -------
        pandas.DataFrame
            nnz rows: two columns of labels and one of float32 values.
        """
        import pandas as pd

        users = np.repeat(np.arange(self.n_users), np.diff(self.matrix.indptr))
        return pd.DataFrame(
            {user: self.users.take(users), item: self.items.take(self.matrix.indices), value: self.matrix.data}
        )


def _labels(labels: Iterable[Any] | None, length: int, name: str) -> "pd.Index":
    """Return `labels` as a verified pandas Index of `length`."""
    import pandas as pd

    if labels is None:
        return pd.RangeIndex(length)
    index = pd.Index(labels, tupleize_cols=False).to_flat_index()
    if len(index) != length:
        raise ValueError(f"{name} has {len(index)} labels for the {length} that the matrix needs")
    for fault, mask in (("missing", index.isna()), ("not unique", index.duplicated())):
        if mask.any():
            at = np.argmax(mask)
            raise ValueError(
                f"{name}: label {index[at]!r} at position {at} is {fault}; give each {name[:-1]} its own label"
            )
    return index


def _factorize(labels: Any, name: str) -> tuple[np.ndarray, "pd.Index"]:
    """Return (codes, -1 for missing; the distinct labels as a pandas Index)."""
    import pandas as pd

    try:
        codes, distinct = pd.factorize(pd.Series(labels))
    except TypeError as error:
        raise TypeError(f"{name}: {error}; labels must be hashable, such as strings or integers") from error
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


def _distinct(
    rows: np.ndarray, users: np.ndarray, items: np.ndarray, values: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose one of `rows` for each (user, item): the last, or the one of the largest value where given.

    Return (the chosen rows; the others, ascending).
    """
    keys = (items[rows], users[rows])
    order = rows[np.lexsort(keys if values is None else (values[rows], *keys))]
    last = np.ones(order.size, bool)
    last[:-1] = (users[order[1:]] != users[order[:-1]]) | (items[order[1:]] != items[order[:-1]])
    return order[last], np.sort(order[~last])


def _first(positions: "np.ndarray | pd.Series") -> str:
    """Spell out the first few of `positions`."""
    return ", ".join(map(str, positions[:5])) + (", …" if len(positions) > 5 else "")
