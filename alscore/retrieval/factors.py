"""One side's factors: read-only, verified, with what a search and a fold-in prepare from them."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from alscore import retrieval
from alscore._data.canonical import CanonicalRows, canonical_rows
from alscore._support.arrays import Floats
from alscore.solvers.fold_in import FoldIn
from alscore.solvers.half_sweeps import zero_factors

ANY_ID = np.iinfo(np.int64).max  # the size for `checked_ids` where ids need not be in the model


class NotFittedError(ValueError, AttributeError):
    """The model has no factors yet."""

    __module__ = "alscore"  # its public home


class Factors:
    """The read-only factors of one side, with a search and a fold-in prepared when they are first needed.

    Several threads may prepare the same thing at once. That takes time and does no harm.

    Parameters
    ----------
    array : float array (n, k)
        Kept if it is read-only and not a view of a writable array. Otherwise copied.
    name : str
        The name that messages use.
    """

    def __init__(self, array: Any, name: str) -> None:
        array = np.asarray(array)
        if array.ndim != 2 or array.shape[1] == 0 or array.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"{name} must be a float32 or float64 array of shape (n, k) with k > 0, "
                f"not {array.dtype} of shape {array.shape}"
            )
        # min and max pass NaN on and need no temporary array
        if not (np.isfinite(array.min(initial=0)) and np.isfinite(array.max(initial=0))):
            row = np.flatnonzero(~np.isfinite(array).all(axis=1))[0]
            raise ValueError(f"{name} must be finite, but row {row} is not: correct it or train anew")
        if _is_writable(array) or not array.flags.c_contiguous:
            copied = zero_factors(len(array), array.shape[1], array.dtype)
            copied[:] = array
            array = frozen(copied)
        self.array, self.name = array, name
        self._candidates: dict[bool, retrieval.Candidates] = {}
        self._fold_in: FoldIn | None = None

    def candidates(self, num_threads: int, *, unit: bool = False) -> retrieval.Candidates:
        """Return these factors, prepared to be searched by inner product, or with `unit` by cosine."""
        made = self._candidates.get(unit)
        if made is None:
            made = self._candidates[unit] = retrieval.Candidates(self.array, unit, num_threads=num_threads)
        return made

    def fold_in(self, num_threads: int) -> FoldIn:
        """Return these factors as the fixed side of rows that are solved later."""
        made = self._fold_in
        if made is None:
            made = self._fold_in = FoldIn(self.array, num_threads)
        return made

    def __reduce__(self) -> Any:
        return type(self), (self.array, self.name)

    def __deepcopy__(self, memo: Any) -> Self:
        return self


def frozen(array: Floats) -> Floats:
    """Make an array and the memory that it is a view of read-only, and return it."""
    memory: Any = array
    while isinstance(memory, np.ndarray):
        memory.flags.writeable = False
        memory = memory.base
    return array


def _is_writable(array: Any) -> bool:
    """Whether `array`, or an array that it is a view of, is writable."""
    return isinstance(array, np.ndarray) and (array.flags.writeable or _is_writable(array.base))


def checked_rows(
    matrix: Any, name: str, ids: str, n_rows: int, columns: Factors, dtype: npt.DTypeLike | None = None
) -> CanonicalRows:
    """Return the argument `name` in canonical form, verified to have a row for each id and a column for each factor.

    A matrix of one dimension, such as ``csr_array[id]``, is one row.
    """
    rows = getattr(matrix, "matrix", matrix)
    if sparse.issparse(rows) and rows.ndim == 1:
        rows = rows.reshape((1, -1))
    rows = canonical_rows(rows, dtype or columns.array.dtype, name)
    if rows.shape != (n_rows, len(columns.array)):
        raise ValueError(
            f"{name} has shape {rows.shape}, but must have {(n_rows, len(columns.array))}: one row for each "
            f"id in {ids}, e.g. {name}[{ids}], and a column for each row of {columns.name}"
        )
    return rows
