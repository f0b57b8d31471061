"""The canonical form: the only form of a sparse matrix that the compiled core reads. Checks and conversion to it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from alscore._support.arrays import Bools, Floats, Int32s, Int64s, Ints, Numbers

MAX_LENGTH = np.iinfo(np.int32).max  # rows or columns of a matrix: ids are int32
_MAX_NARROW_ENTRIES = np.iinfo(np.int32).max  # entries that an int32 indptr can number


class CanonicalRows(NamedTuple):
    """The arrays of a matrix in canonical form."""

    data: Floats
    indices: Int32s
    indptr: Int64s
    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        return self.data.size


def canonical_csr(
    matrix: sparse.sparray | sparse.spmatrix, dtype: npt.DTypeLike = np.float32, name: str = "user_items"
) -> sparse.csr_array:
    """Verify a sparse matrix and bring it to canonical form, the only form that the compiled core reads.

    Parameters
    ----------
    matrix : scipy sparse matrix or array, shape (n_rows, n_columns)
        Any format; boolean, integer or real values. Its buffers may be read-only or memory-mapped. It is never
        modified.
    dtype : numpy dtype
        float32 or float64.
    name : str
        The name of the matrix in messages.

    Returns
    -------
    scipy.sparse.csr_array, shape (n_rows, n_columns)
        `indptr` is int64, `indices` int32, and `data` has `dtype`. In each row the columns ascend and are distinct:
        duplicates are summed in float64. There are no stored zeros. A buffer of `matrix` that is in this form already
        is shared, not copied.

    Raises
    ------
    TypeError
        `matrix` is not a scipy sparse matrix, or its values are complex numbers or objects.
    ValueError
        `matrix` does not have two dimensions, has more than 2**31 - 1 rows or columns, an inconsistent `indptr` or an
        index out of range; or a value is NaN, infinite or out of the range of `dtype`.
    """
    return from_canonical(*canonical_rows(matrix, dtype, name))


def canonical_rows(
    matrix: Any, dtype: npt.DTypeLike, name: str, max_narrow_entries: int = _MAX_NARROW_ENTRIES
) -> CanonicalRows:
    """Return the arrays of `canonical_csr` without a matrix around them.

    For one row, the construction of a csr_array takes as long as all checks.
    """
    _check_kind(matrix, name)
    borrowed = matrix.format == "csr"
    # scipy's conversions trust the indices and would read or write out of bounds: verify before converting.
    if matrix.format in ("csr", "csc"):
        _check_compressed(matrix, name)
    else:
        matrix = matrix.tocoo(copy=False)
        for axis, ids in enumerate((matrix.row, matrix.col)):
            check_ids(ids, matrix.shape[axis], ("row", "column")[axis], name, lambda at: matrix.row[at])
        matrix = sparse.coo_array((matrix.data, (matrix.row, matrix.col)), shape=matrix.shape)
        matrix.has_canonical_format = True  # else tocsr sums, and small integers overflow before the cast
    matrix = matrix.tocsr(copy=False)

    indptr = np.ascontiguousarray(matrix.indptr, np.int64)
    indices = np.ascontiguousarray(matrix.indices[: indptr[-1]], np.int32)
    data = _cast(matrix.data[: indptr[-1]], dtype, indptr, name)

    if not _ascend(indices, indptr):
        # scipy brings indptr and indices to one dtype: keep it int32 where int32 can number the entries
        narrow = indptr.astype(np.int32) if data.size <= max_narrow_entries else indptr
        ordered = sparse.csr_array((data, indices, narrow), shape=matrix.shape)
        if borrowed:
            ordered = ordered.copy()
        ordered.sort_indices()
        data, indices = ordered.data, ordered.indices.astype(np.int32, copy=False)
        first = first_of_each(indices, indptr)
        if not first.all():
            data, indices, indptr = _merged(data, indices, indptr, first)
            data = _cast(data, dtype, indptr, name)
    if np.count_nonzero(data) < data.size:
        stored = np.flatnonzero(data)
        data, indices, indptr = data[stored], indices[stored], np.searchsorted(stored, indptr)

    return CanonicalRows(data, indices, indptr, matrix.shape)


def _check_kind(matrix: Any, name: str) -> None:
    """Verify type, dimensions, kind of values and shape."""
    if not sparse.issparse(matrix):
        raise TypeError(
            f"{name} must be a scipy sparse matrix, not {type(matrix).__name__}; "
            f"convert it with scipy.sparse.csr_array(...)"
        )
    if matrix.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, not {matrix.ndim}; reshape it to (users, items)")
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"{name} has {matrix.dtype} values; convert them to numbers, e.g. .astype(float)")
    if max(matrix.shape) > MAX_LENGTH:
        raise ValueError(
            f"{name} has shape {matrix.shape}; at most {MAX_LENGTH:,} rows and columns are "
            f"supported, so renumber them without gaps"
        )


def _ascend(indices: Int32s, indptr: Int64s) -> bool:
    """Whether the columns of every row ascend and are distinct."""
    ascends = indices[1:] > indices[:-1]
    starts = indptr[1:-1]
    # Between the last entry of a row and the first of the next row any step is right.
    ascends[starts[(starts > 0) & (starts < indices.size)] - 1] = True
    return bool(ascends.all())


def first_of_each(indices: Int32s, indptr: Int64s) -> Bools:
    """Return a mask of the first entry of each column in each row. Columns must not descend within a row."""
    first = np.zeros(indices.size + 1, bool)
    first[indptr] = True
    first[1:-1] |= indices[1:] != indices[:-1]
    return first[:-1]


def _merged(data: Floats, indices: Int32s, indptr: Int64s, first: Bools) -> tuple[Floats, Int32s, Int64s]:
    """Sum the entries of one column in a row, in float64. `first` is from `first_of_each`. `data` is overwritten.

    Few entries are repeated as a rule. An entry that is not repeated costs only its place in the masks.
    """
    repeated = ~first
    dropped = np.flatnonzero(repeated)
    repeated[:-1] |= repeated[1:]  # the first entry of each run too
    with np.errstate(over="ignore"):
        data[repeated & first] = np.add.reduceat(data[repeated], np.flatnonzero(first[repeated]), dtype=np.float64)
    return data[first], indices[first], indptr - np.searchsorted(dropped, indptr)


def from_canonical(data: Floats, indices: Ints, indptr: Ints, shape: tuple[int, int]) -> sparse.csr_array:
    """Return a csr_array around arrays that are in canonical form already, without copies or checks."""
    # Set as attributes: the constructor would bring indptr and indices to one dtype.
    matrix = sparse.csr_array(shape, dtype=data.dtype)
    matrix.indptr, matrix.indices, matrix.data = indptr, indices, data
    matrix.has_canonical_format = True
    return matrix


def entry_rows(matrix: sparse.csr_array) -> Int32s:
    """Return the row of each entry, int32."""
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))


def row_of_entry(indptr: Int64s, entry: Any) -> Any:
    """Return the row of the entry at one position, or of the entries at an array of positions."""
    return np.searchsorted(indptr, entry, side="right") - 1


def renumbered(matrix: sparse.csr_array, rows: Ints, columns: Ints, shape: tuple[int, int]) -> sparse.csr_array:
    """Move the entries of a canonical matrix to other rows and columns.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array, shape (n_rows, n_columns)
        In canonical form.
    rows : int array, length n_rows
        The new id of each row.
    columns : int array, length n_columns
        The new id of each column. -1 drops the entries of the column.
    shape : (int, int)
        The shape of the result.

    Returns
    -------
    scipy.sparse.csr_array, float32
        In canonical form. Entries that meet are summed.
    """
    rows, columns = np.repeat(rows, np.diff(matrix.indptr)), columns[matrix.indices]
    kept = columns >= 0
    return canonical_csr(sparse.coo_array((matrix.data[kept], (rows[kept], columns[kept])), shape=shape))


def part_of_matrix(matrix: sparse.csr_array, entries: Bools, rows: Any = slice(None)) -> sparse.csr_array:
    """Return some entries and some rows of a canonical matrix, in canonical form.

    Parameters
    ----------
    matrix : scipy.sparse.csr_array, shape (n_rows, n_columns)
        In canonical form.
    entries : bool array of length nnz
        The entries to keep. They must be in rows that are kept.
    rows : bool array of length n_rows or slice
        The rows to keep, in the same order. Default: all.
    """
    kept = np.flatnonzero(entries)
    lengths = np.diff(np.searchsorted(kept, matrix.indptr))[rows]
    indptr = np.append(0, np.cumsum(lengths))
    return from_canonical(matrix.data[kept], matrix.indices[kept], indptr, (lengths.size, matrix.shape[1]))


def _check_compressed(matrix: Any, name: str) -> None:
    """Verify the structure of a CSR or CSC matrix: its attributes can be set to anything."""
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
        at = row_of_entry(indptr, stored)
        raise ValueError(f"{name}.indptr points past the {stored} stored elements at {major} {at}; {remedy}")
    check_ids(indices[: indptr[-1]], n_minor, minor, name, lambda at: row_of_entry(indptr, at), major)


def check_ids(ids: Ints, size: int, axis: str, name: str, owner: Callable[[Any], Any], owner_axis: str = "row") -> None:
    """Verify that `ids`, row numbers or column numbers, are integers in [0, size).

    `axis` says in messages which of the two they are: "row" or "column". For a wrong one the message names
    ``owner(position)`` too, the `owner_axis` that holds it.
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name} has {axis} indices of dtype {ids.dtype}; convert them to integers")
    if ids.size and (ids.min() < 0 or ids.max() >= size):
        at = np.flatnonzero((ids < 0) | (ids >= size))[0]
        raise ValueError(
            f"{name}: {axis} index {ids[at]} at {owner_axis} {owner(at)} is outside of "
            f"[0, {size}); correct the index, or give the matrix a larger shape"
        )


def _cast(values: Numbers, dtype: npt.DTypeLike, indptr: Int64s, name: str) -> Floats:
    """Return `values` as a contiguous array of `dtype`, shared if possible; refuse values that `dtype` cannot hold."""
    with np.errstate(over="ignore", under="ignore"):
        cast = np.ascontiguousarray(values, dtype)
    # min and max are NaN if there is one, and need no temporary array
    if cast.size and not (
        np.isfinite(cast.min())
        and np.isfinite(cast.max())
        and (cast.dtype == values.dtype or np.count_nonzero(cast) == np.count_nonzero(values))
    ):
        at = np.flatnonzero(unrepresentable(values, cast))[0]
        raise ValueError(
            f"{name} holds {values[at]} at row {row_of_entry(indptr, at)}, which is not a finite {cast.dtype} number "
            f"or underflows to zero; remove or correct it"
        )
    return cast


def unrepresentable(values: Numbers, cast: Numbers) -> Bools:
    """Return a mask of `values` that are infinite or NaN in `cast`, or became zero there."""
    mask: Bools = ~np.isfinite(cast) | ((cast == 0) & (values != 0))
    return mask


def checked_timestamps(timestamps: Any, given: Any, matrix: sparse.csr_array, name: str) -> Int64s:
    """Verify the timestamps of the entries of a matrix.

    Parameters
    ----------
    timestamps : int array of length nnz
        Seconds since 1970, in the order of ``given.data``.
    given : scipy sparse matrix
        The caller's matrix. It must be in canonical form: otherwise its entries have another order than `matrix`.
    matrix : scipy.sparse.csr_array
        ``canonical_csr(given)``.
    name : str
        The name of the matrix in messages.

    Returns
    -------
    int64 array of length nnz

    Raises
    ------
    TypeError
        The timestamps are not integers.
    ValueError
        `given` is not in canonical form, or there is not one timestamp for each entry.
    """
    times = np.asarray(timestamps)
    if not np.can_cast(times.dtype, np.int64):
        raise TypeError(
            f"timestamps are {times.dtype}; convert them to whole seconds since 1970 (datetimes: "
            f".astype('datetime64[s]').astype('int64'))"
        )
    if not (
        given.format == "csr"
        and np.array_equal(given.indptr, matrix.indptr)
        and np.array_equal(given.indices[: matrix.nnz], matrix.indices)
    ):
        raise ValueError(
            f"{name} must be in canonical form, since timestamps follow the order of its entries: use "
            f"alscore.interactions.canonical_csr({name}), and give timestamps in the order of its data"
        )
    if times.shape != matrix.data.shape:
        raise ValueError(f"timestamps has shape {times.shape}; give one for each of the {matrix.nnz} entries")
    return times.astype(np.int64, copy=False)
