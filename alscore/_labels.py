"""Labels of users and items, as a pandas.Index: verified, numbered, sorted and joined."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from alscore._arrays import Bools, Int32s, Ints
from alscore.canonical import MAX_CODE

if TYPE_CHECKING:
    import pandas as pd


def verified(labels: Iterable[Any] | None, length: int, name: str) -> "pd.Index":
    """Return `labels` as a verified pandas Index of `length`."""
    import pandas as pd

    if labels is None:
        return pd.RangeIndex(length)
    index = pd.Index(labels, tupleize_cols=False).to_flat_index()
    if len(index) != length:
        raise ValueError(f"{name} has {len(index)} labels for the {length} that the matrix needs")
    faults: dict[str, Bools] = {"missing": np.asarray(index.isna())}
    if not _ascending(index):  # to look for repeats hashes all labels
        faults["not unique"] = index.duplicated()
    for fault, mask in faults.items():
        if mask.any():
            at = int(mask.argmax())
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


def factorized(labels: Any, name: str) -> tuple[Ints, "pd.Index"]:
    """Return (codes, -1 for missing; the distinct labels as a pandas Index)."""
    import pandas as pd

    try:
        codes, distinct = pd.factorize(pd.Series(labels))
    except TypeError as error:
        raise TypeError(f"{name}: {error}; labels must be hashable, such as strings or integers") from error
    _require_codes(len(distinct), name)
    return codes, _without_categories(pd.Index(distinct, tupleize_cols=False))


def _require_codes(n_labels: int, name: str) -> None:
    if n_labels > MAX_CODE:
        raise ValueError(
            f"{name}: {n_labels:,} labels, of which at most {MAX_CODE:,} are supported; leave out rare ones"
        )


def _without_categories(labels: "pd.Index") -> "pd.Index":
    """Return the labels; of categories, what they stand for."""
    import pandas as pd

    return labels.astype(labels.dtype.categories.dtype) if isinstance(labels.dtype, pd.CategoricalDtype) else labels


def union(known: "pd.Index", others: "pd.Index", name: str) -> tuple["pd.Index", Ints]:
    """Return `known` and after it those of `others` that are new; and the positions in that of all of `others`."""
    import pandas as pd

    if not len(known) or not len(others):
        return known if len(known) else others, np.arange(len(others))
    codes = known.get_indexer(others)
    new = codes < 0
    n_labels = len(known) + int(np.count_nonzero(new))
    _require_codes(n_labels, name)
    codes[new] = np.arange(len(known), n_labels)
    parts = _without_categories(known), _without_categories(others)
    joined = parts[0].append(parts[1][new]) if new.any() else parts[0]
    # pandas may bring two types to a third one, in which neither's labels are what they were
    if {part.inferred_type for part in parts} != {joined.inferred_type}:
        known_type, others_type = (f"{part.inferred_type} ({part.dtype})" for part in parts)
        raise TypeError(
            f"{name}: labels of type {others_type} cannot be added to those of type {known_type}; "
            f"bring them to that type, e.g. .astype(...)"
        )
    if not new.any():
        return known, codes
    if isinstance(known, pd.CategoricalIndex):
        categories = known.categories.union(joined, sort=False)
        joined = pd.CategoricalIndex(joined, categories=categories, ordered=known.ordered)
    return joined, codes


def in_order(codes: Ints, labels: "pd.Index", name: str) -> tuple[Int32s, "pd.Index"]:
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
