"""The one form of a sparse matrix that the compiled core reads, and what is verified on the way to it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from alscore._support.arrays import Bools, Floats, Int32s, Int64s, Ints, Numbers

MAX_CODE = np.iinfo(np.int32).max


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
    if max(matrix.shape) > MAX_CODE:
        raise ValueError(
            f"{name} has shape {matrix.shape}; at most {MAX_CODE:,} rows and columns are "
            f"supported, so renumber them without gaps"
        )

    borrowed = matrix.format == "csr"
    # scipy's conversions trust the indices and would read or write out of bounds: verify before converting.
    if matrix.format in ("csr", "csc"):
        _check_compressed(matrix, name)
    else:
        matrix = matrix.tocoo(copy=False)
        for axis, codes in enumerate((matrix.row, matrix.col)):
            check_codes(codes, matrix.shape[axis], ("row", "column")[axis], name, lambda at: matrix.row[at])
        matrix = sparse.coo_array((matrix.data, (matrix.row, matrix.col)), shape=matrix.shape)
        matrix.has_canonical_format = True  # else tocsr sums, and small integers overflow before the cast
    matrix = matrix.tocsr(copy=False)

    indptr = np.ascontiguousarray(matrix.indptr, np.int64)
    indices = np.ascontiguousarray(matrix.indices[: indptr[-1]], np.int32)
    data = _cast(matrix.data[: indptr[-1]], dtype, indptr, name)

    if not _ascend(indices, indptr):
        # scipy brings indptr and indices to one dtype: to the narrow one, where that can number the entries
        narrow = indptr.astype(np.int32) if data.size <= MAX_CODE else indptr
        ordered = sparse.csr_array((data, indices, narrow), shape=matrix.shape)
        if borrowed:
            ordered = ordered.copy()
        ordered.sort_indices()
        data, indices = ordered.data, ordered.indices.astype(np.int32, copy=False)
        once = first_of_each(indices, indptr)
        if not once.all():
            data, indices, indptr = _merged(data, indices, indptr, once)
            data = _cast(data, dtype, indptr, name)
    if np.count_nonzero(data) < data.size:
        stored = np.flatnonzero(data)
        data, indices, indptr = data[stored], indices[stored], np.searchsorted(stored, indptr)

    return CanonicalRows(data, indices, indptr, matrix.shape)


def _ascend(indices: Int32s, indptr: Int64s) -> bool:
    """Whether the columns of every row ascend, without repeats."""
    ascends = indices[1:] > indices[:-1]
    starts = indptr[1:-1]
    ascends[starts[(starts > 0) & (starts < indices.size)] - 1] = True  # from the end of one row to the next
    return bool(ascends.all())


def first_of_each(indices: Int32s, indptr: Int64s) -> Bools:
    """Return a mask of the entries where a run of one column begins, in rows whose columns do not descend."""
    first = np.zeros(indices.size + 1, bool)
    first[indptr] = True
    first[1:-1] |= indices[1:] != indices[:-1]
    return first[:-1]


def _merged(data: Floats, indices: Int32s, indptr: Int64s, once: Bools) -> tuple[Floats, Int32s, Int64s]:
    """Sum each run of one column, in float64; `once` is the mask of where they begin. `data` is overwritten.

    As a rule few entries are repeated, and only those cost more than a mask.
    """
    several = ~once
    dropped = np.flatnonzero(several)
    several[:-1] |= several[1:]  # their first entries too
    with np.errstate(over="ignore"):
        data[several & once] = np.add.reduceat(data[several], np.flatnonzero(once[several]), dtype=np.float64)
    return data[once], indices[once], indptr - np.searchsorted(dropped, indptr)


def from_canonical(data: Floats, indices: Ints, indptr: Ints, shape: tuple[int, int]) -> sparse.csr_array:
    """Return a csr_array of arrays that are in canonical form already."""
    # Set as attributes: the constructor would bring indptr and indices to one dtype.
    matrix = sparse.csr_array(shape, dtype=data.dtype)
    matrix.indptr, matrix.indices, matrix.data = indptr, indices, data
    matrix.has_canonical_format = True
    return matrix


def entry_rows(matrix: sparse.csr_array) -> Int32s:
    """Return the row of each entry, int32."""
    return np.repeat(np.arange(matrix.shape[0], dtype=np.int32), np.diff(matrix.indptr))


def row_of_entry(indptr: Int64s, entry: Any) -> Any:
    """Return the row of one entry, or of several."""
    return np.searchsorted(indptr, entry, side="right") - 1


def recoded(matrix: sparse.csr_array, rows: Ints, columns: Ints, shape: tuple[int, int]) -> sparse.csr_array:
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


def part_of_matrix(matrix: sparse.csr_array, entries: Bools, rows: Any = slice(None)) -> sparse.csr_array:
    """Return some entries (a mask) of a canonical matrix, and of its rows all or some with theirs."""
    kept = np.flatnonzero(entries)
    lengths = np.diff(np.searchsorted(kept, matrix.indptr))[rows]
    indptr = np.append(0, np.cumsum(lengths))
    return from_canonical(matrix.data[kept], matrix.indices[kept], indptr, (lengths.size, matrix.shape[1]))


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
        at = row_of_entry(indptr, stored)
        raise ValueError(f"{name}.indptr points past the {stored} stored elements at {major} {at}; {remedy}")
    check_codes(indices[: indptr[-1]], n_minor, minor, name, lambda at: row_of_entry(indptr, at), major)


def check_codes(
    codes: Ints, size: int, axis: str, name: str, owner: Callable[[Any], Any], owner_axis: str = "row"
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


def _cast(values: Numbers, dtype: npt.DTypeLike, indptr: Int64s, name: str) -> Floats:
    """Return `values` as a contiguous `dtype` array, shared if they are one; refuse those it cannot hold."""
    with np.errstate(over="ignore", under="ignore"):
        cast = np.ascontiguousarray(values, dtype)
    # min and max pass NaN on and need no temporary array
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
    """Mask of `values` that became infinite, NaN or zero in `cast`."""
    mask: Bools = ~np.isfinite(cast) | ((cast == 0) & (values != 0))
    return mask


def checked_timestamps(timestamps: Any, given: Any, matrix: sparse.csr_array, name: str) -> Int64s:
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
    times = np.asarray(timestamps)
    if not np.can_cast(times.dtype, np.int64):
        raise TypeError(
            f"timestamps are {times.dtype}; convert them to whole seconds since 1970, for datetimes by "
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
    if times.shape != matrix.data.shape:
        raise ValueError(f"timestamps has shape {times.shape}; give one for each of the {matrix.nnz} entries")
    return times.astype(np.int64, copy=False)
