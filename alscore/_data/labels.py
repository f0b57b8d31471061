"""Labels of users or items: verified, numbered, joined, and looked up."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from alscore._data.canonical import MAX_LENGTH
from alscore._support.arrays import Bools, Int32s, Int64s, Ints
from alscore._support.checks import require


class UnknownLabelError(LookupError):
    """Labels of users or items that are not in the data that the model was fitted on.

    Attributes
    ----------
    labels : pandas.Index
        The unknown labels, each once.
    """

    __module__ = "alscore"  # its public home

    def __init__(self, message: str, labels: "pd.Index[Any]") -> None:
        super().__init__(message)
        self.labels = labels


class Labels:
    """The labels of one side. The position of a label is its id, or its code if the labels come from `factorized`.

    Parameters
    ----------
    index : pandas.Index
        Distinct labels.
    name : str
        The name that messages use: "users", "items", or the name of a column.
    """

    def __init__(self, index: "pd.Index[Any]", name: str) -> None:
        self.index, self.name = index, name

    @classmethod
    def verified(cls, labels: Iterable[Any] | None, length: int, name: str) -> Self:
        """Verify that there are `length` distinct labels and that no label is missing. None stands for 0, 1, 2, …"""
        if labels is None:
            return cls(pd.RangeIndex(length), name)
        index = pd.Index(labels, tupleize_cols=False).to_flat_index()
        if len(index) != length:
            raise ValueError(
                f"{name} has {len(index)} labels, but the matrix has {length} {name}; give one label for each"
            )
        faults: dict[str, Bools] = {"missing": np.asarray(index.isna())}
        if not _ascending(index):  # the search for repeats hashes all labels
            faults["not unique"] = index.duplicated()
        for fault, mask in faults.items():
            if mask.any():
                at = int(mask.argmax())
                raise ValueError(
                    f"{name}: label {index[at]!r} at position {at} is {fault}; give each {name[:-1]} its own label"
                )
        return cls(index, name)

    @classmethod
    def factorized(cls, column: Any, name: str, max_labels: int = MAX_LENGTH) -> tuple[Ints, Self]:
        """Return a code for each row of a column, -1 where the label is missing, and the distinct labels by code."""
        try:
            codes, distinct = pd.factorize(pd.Series(column))
        except TypeError as error:
            raise TypeError(f"{name}: {error}; labels must be hashable, such as strings or integers") from error
        _require_countable(len(distinct), max_labels, name)
        return codes, cls(_without_categories(pd.Index(distinct, tupleize_cols=False)), name)

    def in_order(self, codes: Ints) -> tuple[Int32s, "pd.Index[Any]"]:
        """Return the ids of `codes` and the labels by id. The ids number the labels in use, in ascending order."""
        used = np.zeros(len(self.index), bool)
        used[codes] = True
        try:
            order = np.asarray(self.index.argsort())
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}; bring the labels to one type, e.g. .astype(str)") from error
        order = order[used[order]]
        id_of_code = np.empty(len(self.index), np.int32)
        id_of_code[order] = np.arange(order.size, dtype=np.int32)
        return id_of_code[codes], self.index[order]

    def joined(self, others: "pd.Index[Any]", max_labels: int = MAX_LENGTH) -> tuple["pd.Index[Any]", Ints]:
        """Return these labels followed by the new ones of `others`, and the id of each of `others` there."""
        known = self.index
        if not len(known) or not len(others):
            return known if len(known) else others, np.arange(len(others))
        ids = known.get_indexer(others)
        new = ids < 0
        n_labels = len(known) + int(np.count_nonzero(new))
        _require_countable(n_labels, max_labels, self.name)
        ids[new] = np.arange(len(known), n_labels)
        parts = _without_categories(known), _without_categories(others)
        joined = parts[0].append(parts[1][new]) if new.any() else parts[0]
        # pandas may convert both types to a third type, which changes the labels
        if {part.inferred_type for part in parts} != {joined.inferred_type}:
            known_type, others_type = (f"{part.inferred_type} ({part.dtype})" for part in parts)
            raise TypeError(
                f"{self.name}: labels of type {others_type} cannot be added to those of type {known_type}; "
                f"bring them to that type, e.g. .astype(...)"
            )
        if not new.any():
            return known, ids
        if isinstance(known, pd.CategoricalIndex):
            categories = known.categories.union(joined, sort=False)
            joined = pd.CategoricalIndex(joined, categories=categories, ordered=known.ordered)
        return joined, ids

    def ids(self, labels: Any, on_unknown: str, argument: str | None = None) -> Int64s:
        """Return the ids of the known labels, in the order of `labels`: int64. See `find`."""
        ids = self.find(labels, on_unknown, argument)
        return ids[ids >= 0]

    def find(self, labels: Any, on_unknown: str, argument: str | None = None) -> Int64s:
        """Return the id of each label, -1 where it is unknown: int64.

        Parameters
        ----------
        labels : label or sequence of labels
        on_unknown : {"raise", "skip"}
            Whether an unknown label is an error.
        argument : str, optional
            The name of the argument that holds `labels`. Default: the name of these labels.

        Raises
        ------
        UnknownLabelError
            A label is unknown, with ``on_unknown="raise"``.
        ValueError
            Another `on_unknown`.
        TypeError
            `labels` has more than one dimension.
        """
        require(on_unknown in ("raise", "skip"), "on_unknown", "'raise' or 'skip'", on_unknown)
        index = as_index(labels, argument or self.name)
        ids = self.index.get_indexer(index)
        unknown = ids < 0
        if on_unknown == "raise" and unknown.any():
            missing = index[unknown].unique()
            raise UnknownLabelError(self._explanation(missing), missing)
        return ids

    def _explanation(self, unknown: "pd.Index[Any]") -> str:
        """Name the unknown labels, with the known labels that are spelt like the first few of them."""
        # to_numpy gives the labels that categories stand for
        known, unknown = (pd.Index(labels.to_numpy(), tupleize_cols=False) for labels in (self.index, unknown))
        hints = [repr(label) for label in unknown[:3]]
        if unknown.inferred_type != known.inferred_type:
            remedy = f"this model's labels are of type {known.inferred_type}, these are {unknown.inferred_type}"
        else:
            remedy = "correct them, or leave them out with on_unknown='skip'"
            for at, near in enumerate(_close_matches(known, list(unknown[:3]))):
                if near:
                    hints[at] += f" (did you mean {' or '.join(map(repr, near))}?)"
        more = f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else ""
        return f"unknown {self.name} ({len(unknown):,}): {', '.join(hints)}{more}; {remedy}"


def as_index(labels: Any, argument: str) -> "pd.Index[Any]":
    """Return one label or a sequence of labels as an Index. `argument` names them in the TypeError."""
    if pd.api.types.is_scalar(labels):
        labels = [labels]
    elif getattr(labels, "ndim", 1) != 1:
        raise TypeError(
            f"{argument} must be a label or a one-dimensional sequence of labels, "
            f"not a {type(labels).__name__} of {labels.ndim} dimensions"
        )
    index: pd.Index[Any] = pd.Index(labels, tupleize_cols=False)
    return index


def _ascending(labels: "pd.Index[Any]") -> bool:
    """Whether each label is above the label before it. False also if the labels cannot be compared."""
    try:
        return bool((labels[1:] > labels[:-1]).all())
    except TypeError:  # labels of several types, or categories without an order
        return False


def _require_countable(n_labels: int, max_labels: int, name: str) -> None:
    if n_labels > max_labels:
        raise ValueError(f"{name}: {n_labels:,} labels, but at most {max_labels:,} are supported; leave out rare ones")


def _without_categories(labels: "pd.Index[Any]") -> "pd.Index[Any]":
    """Return the labels, and for categories the labels that they stand for."""
    return labels.astype(labels.dtype.categories.dtype) if isinstance(labels.dtype, pd.CategoricalDtype) else labels


def _close_matches(
    index: "pd.Index[Any]", labels: Sequence[str], n_matches: int = 3, cutoff: float = 0.7, n_candidates: int = 1000
) -> list[list[str]]:
    """Return for each of `labels` up to `n_matches` labels of `index` with a similar spelling. Case does not count.

    difflib alone takes seconds for 10^5 labels. Its own bound on the similarity, from the number of letters in
    common, is computed here for all labels at once, and difflib compares only the `n_candidates` best by that bound.
    """
    if index.inferred_type != "string":
        return [[]] * len(labels)
    lowered = pc.utf8_lower(pa.array(index))
    length = pc.utf8_length(lowered).to_numpy()
    labels = [label.lower() for label in labels]
    counts = {letter: pc.count_substring(lowered, letter).to_numpy() for letter in set("".join(labels))}
    matches = []
    for label in labels:
        common = sum(np.minimum(counts[letter], label.count(letter)) for letter in set(label))
        best = np.argsort(-2 * common / (length + len(label)), kind="stable")[:n_candidates]
        spelt = dict(zip(lowered.take(pa.array(best)).to_pylist(), index.take(best), strict=True))
        matches.append([spelt[near] for near in difflib.get_close_matches(label, spelt, n_matches, cutoff)])
    return matches
