"""Observations, one a row of a table, become the entries of one matrix; what cannot be one is told by number."""

import numbers
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from alscore._data.canonical import canonical_csr, first_of_each, from_canonical, unrepresentable
from alscore._data.labels import Labels
from alscore._data.tables import Rows
from alscore._support.arrays import Bools, Floats, Int64s, Ints
from alscore._support.checks import first_few, require

if TYPE_CHECKING:
    import pandas as pd


class Collected(NamedTuple):
    """What observations come to.

    Attributes
    ----------
    matrix : scipy.sparse.csr_array, shape (n_users, n_items)
        In canonical form.
    users, items : pandas.Index
        Labels in use, ascending.
    timestamps : int64 array of length nnz, or None
    read : int
        Rows seen.
    rejected : pandas.DataFrame
        As in a `Report`.
    """

    matrix: sparse.csr_array
    users: "pd.Index"
    items: "pd.Index"
    timestamps: Int64s | None
    read: int
    rejected: "pd.DataFrame"


def check_choices(duplicates: str, errors: str) -> None:
    """Verify what is to become of repeats and of bad rows."""
    require(duplicates in ("sum", "max", "last", "error"), "duplicates", "'sum', 'max', 'last' or 'error'", duplicates)
    require(errors in ("raise", "report"), "errors", "'raise' or 'report'", errors)


def collected(rows: Rows, duplicates: str, errors: str) -> Collected:
    """Join observations to entries: see `Interactions.from_table`."""
    import pandas as pd

    user, item, value, timestamp = rows.names
    users, user_labels = Labels.factorized(rows.users, user)
    items, item_labels = Labels.factorized(rows.items, item)
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
    used: Ints = np.flatnonzero(fate == 0)
    if duplicates != "sum":
        order, starts = _by_pair(users[used], items[used], (len(user_labels.index), len(item_labels.index)))
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

    row_ids, user_index = user_labels.in_order(users[used])
    column_ids, item_index = item_labels.in_order(items[used])
    timestamps = None if timestamps is None else timestamps[used]
    shape = len(user_index), len(item_index)
    matrix, timestamps = summed(row_ids, column_ids, values[used], timestamps, shape, value)

    lost = np.flatnonzero(fate)
    lost_numbers = np.concatenate([rows.numbers(lost), rows.skipped])
    why = np.concatenate([np.array(reasons, object)[fate[lost]], [rows.why_skipped] * rows.skipped.size])
    rejected = pd.DataFrame({"number": lost_numbers, "reason": why}).sort_values("number", ignore_index=True)
    read = len(fate) + rows.skipped.size
    return Collected(matrix, user_index, item_index, timestamps, read, rejected)


def _judged(rows: Rows, length: int, faults: list[tuple[str, Ints]], errors: str) -> tuple[NDArray[np.int8], list[str]]:
    """Return for each row an index into reasons to reject it, 0 for none, and these; or refuse the table for them."""

    def refuse(reason: str, rejected: Ints) -> None:
        if errors == "raise" and rejected.size:
            raise ValueError(
                f"{rows.where}{reason} in {rejected.size:,} of {length + rows.skipped.size:,} rows, at {rows.unit}s "
                f"{first_few(rejected)}; correct them, or leave them out with errors='report'"
            )

    refuse(rows.why_skipped, rows.skipped)
    fate, reasons = np.zeros(length, np.int8), [""]
    for reason, at in faults:
        refuse(reason, rows.numbers(at))
        fate[at[fate[at] == 0]] = len(reasons)
        reasons.append(reason)
    return fate, reasons


def _numbers(values: Any, length: int) -> tuple[NDArray[np.float32], Bools]:
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
    return cast, unrepresentable(exact, cast)


def _seconds(timestamps: Any, length: int, name: Any) -> tuple[Int64s | None, Bools]:
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


def _by_pair(users: Ints, items: Ints, shape: tuple[int, int]) -> tuple[Ints, Ints]:
    """Sort observations by user and then item.

    Return (their positions in that order, those of one pair in any; where in it each pair starts).
    """
    observations = sparse.coo_array((np.arange(users.size), (users, items)), shape=shape)
    observations.has_canonical_format = True  # else tocsr would sum up positions
    # a quarter of the time of numpy.lexsort
    by_user = observations.tocsr()
    by_user.sort_indices()
    return by_user.data, np.flatnonzero(first_of_each(by_user.indices, by_user.indptr))


def _best_of_each(order: Ints, starts: Ints, criterion: NDArray[Any] | None) -> Ints:
    """Choose one of the rows of each pair, sorted by `_by_pair`: of those with the largest criterion the last."""
    if criterion is not None:
        largest = np.maximum.reduceat(criterion[order], starts)
        lengths = np.diff(starts, append=order.size)
        order = np.where(criterion[order] == np.repeat(largest, lengths), order, -1)
    return np.maximum.reduceat(order, starts)


def summed(
    users: Ints,
    items: Ints,
    values: Floats,
    timestamps: Int64s | None,
    shape: tuple[int, int],
    name: str,
) -> tuple[sparse.csr_array, Int64s | None]:
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
