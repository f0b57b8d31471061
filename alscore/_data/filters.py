"""Filters of a canonical matrix by the number of entries of users and items."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from alscore._data.canonical import entry_rows
from alscore._support.arrays import Bools, Ints
from alscore._support.checks import require_integer


class Kept(NamedTuple):
    """The entries, users and items that a filter keeps.

    Attributes
    ----------
    reason_of_entry : int8 array of length nnz
        For each entry an index into `reasons`; 0 for the entries that stay.
    reasons : list of str
        The reasons to leave entries out.
    users, items : bool arrays
        Masks of the rows and the columns that stay.
    """

    reason_of_entry: Ints
    reasons: list[str]
    users: Bools
    items: Bools


def kept_entries(matrix: sparse.csr_array, min_user: int, min_item: int, k_core: int | None) -> Kept:
    """Filter the entries of a canonical matrix. See `alscore.statistics.filter` for the arguments."""
    require_integer(min_user, "min_user", 0)
    require_integer(min_item, "min_item", 0)
    if k_core is not None:
        require_integer(k_core, "k_core", 1)
        if (min_user, min_item) != (1, 1):
            raise ValueError("k_core cannot be combined with min_user or min_item; leave out one or the other")
        min_user = min_item = k_core

    users, items = entry_rows(matrix), matrix.indices
    reasons = ["", f"item with fewer than {min_item} entries", f"user with fewer than {min_user} entries"]
    reason_of_entry = np.zeros(matrix.nnz, np.int8)
    left = np.arange(matrix.nnz)
    while True:
        before = left.size
        for reason, ids, least in ((1, items, min_item), (2, users, min_user)):
            stays = (np.bincount(ids[left]) >= least)[ids[left]]
            reason_of_entry[left[~stays]] = reason
            left = left[stays]
        if k_core is None or left.size == before:
            break
    if not left.size:
        if not matrix.nnz:
            raise ValueError("interactions has no entries")
        if k_core is not None:
            raise ValueError(f"k_core={k_core} leaves no entry; lower it")
        raise ValueError(f"min_user={min_user}, min_item={min_item} leave no entry; lower them")

    # Items were counted before users were left out: those that still have an entry stay.
    is_user = np.bincount(users[left], minlength=matrix.shape[0]) >= min_user
    is_item = np.bincount(items[left], minlength=matrix.shape[1]) >= min(min_item, 1)
    return Kept(reason_of_entry, reasons, is_user, is_item)
