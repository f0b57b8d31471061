"""The argument `user_items`, a sparse matrix or Interactions: its entries, their timestamps, and parts of it."""

import contextlib
import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from alscore._data.canonical import canonical_csr, checked_timestamps, part_of_matrix
from alscore._support.arrays import Bools, Int64s
from alscore._support.checks import require


def matrix_of(user_items: Any, name: str = "user_items", dtype: npt.DTypeLike | None = None) -> sparse.csr_array:
    """Return the entries in canonical form. Messages use `name`.

    `dtype` is float32 or float64, by default float64 if the matrix is float64, else float32.
    """
    matrix = getattr(user_items, "matrix", user_items)
    if dtype is None:
        dtype = np.float64 if getattr(matrix, "dtype", None) == np.float64 else np.float32
    return canonical_csr(matrix, dtype, name)


def timestamps_of(user_items: Any, matrix: sparse.csr_array, timestamps: Any) -> Int64s:
    """Return `timestamps`, by default those of `user_items`, verified. `matrix` is ``matrix_of(user_items)``."""
    if timestamps is None:
        timestamps = getattr(user_items, "timestamps", None)
    if timestamps is None:
        raise ValueError("user_items has no timestamps; give timestamps=, seconds since 1970 for each entry")
    return checked_timestamps(timestamps, getattr(user_items, "matrix", user_items), matrix, "user_items")


def seconds_of(instant: Any, name: str) -> int:
    """Return seconds since 1970 of an instant: whole seconds already, a datetime, or ISO 8601 text (UTC by default)."""
    if hasattr(instant, "__index__"):
        return int(instant)
    if isinstance(instant, str):
        with contextlib.suppress(ValueError):  # numpy also reads "2009-05"
            instant = datetime.datetime.fromisoformat(instant)
    if getattr(instant, "tzinfo", None) is not None:
        instant = instant.astimezone(datetime.UTC).replace(tzinfo=None)
    try:
        moment = np.datetime64(instant, "s")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be whole seconds since 1970, a datetime or ISO text, not {instant!r}") from error
    require(not np.isnat(moment), name, "an instant", instant)
    return int(moment.astype(np.int64))


def part_of(user_items: Any, matrix: sparse.csr_array, entries: Bools, users: Any = slice(None)) -> Any:
    """Return some entries and some users of `user_items`, in its form: a matrix, or Interactions without a report.

    Parameters
    ----------
    user_items : sparse matrix or Interactions
    matrix : scipy.sparse.csr_array
        ``matrix_of(user_items)``.
    entries : bool array of length nnz
        The entries to keep. They must belong to users that are kept.
    users : bool array of length n_users or slice
        The users to keep, in the same order. Default: all.
    """
    return user_items._part(entries, users) if hasattr(user_items, "_part") else part_of_matrix(matrix, entries, users)
