"""Statistics of interactions: a table, a plot, and a filter by the number of entries of users and items."""

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from alscore._support.arrays import Ints
from alscore._support.checks import require_integer
from alscore._support.figures import figure

if TYPE_CHECKING:  # matplotlib is optional
    from matplotlib.figure import Figure


class _HasEntries(Protocol):
    """The part of `alscore.Interactions` that this module uses. That class imports this module, not the reverse."""

    matrix: Any
    items: Any

    def filter(self: "Filterable", min_user: int = 1, min_item: int = 1, k_core: int | None = None) -> "Filterable": ...


Filterable = TypeVar("Filterable", bound=_HasEntries)


def filter(interactions: Filterable, min_user: int = 1, min_item: int = 1, k_core: int | None = None) -> Filterable:
    """Leave out items and users with few entries.

    Parameters
    ----------
    interactions : Interactions
    min_user, min_item : int
        Items with fewer than `min_item` entries are left out first. Then users with fewer than `min_user` remaining
        entries are left out, as in Liang et al. (2018). Some items may have fewer than `min_item` entries afterwards.
        They stay, unless they have no entry; with ``min_item=0`` they stay in any case.
    k_core : int, optional
        At least 1; instead of `min_user` and `min_item`. Items and then users with fewer than `k_core` entries are left
        out, repeatedly until all have at least `k_core`.

    Returns
    -------
    Interactions
        With the remaining labels in the same order; ids change. Its `report` counts entries: `rejected` lists the
        entries that were left out, by their positions in ``interactions.matrix.data``.

    Raises
    ------
    ValueError
        An argument is not as described, `k_core` is given together with `min_user` or `min_item`, or no entry is left.
    """
    return interactions.filter(min_user, min_item, k_core)


def summary(interactions: _HasEntries, top: int = 10) -> pd.DataFrame:
    """Describe interactions by numbers.

    Parameters
    ----------
    interactions : Interactions
    top : int
        Number of most popular items to list, at least 0.

    Returns
    -------
    pandas.DataFrame
        One number in each row: `of`, `statistic` (text, or an item's label), `value` (float64; NaN if there is nothing
        to compute it from).

        - users, items: count, and the number without entries
        - entries: count, number below zero (dislikes), density (their share of all pairs of a user and an item)
        - entries per user, entries per item, values: mean, min, quantiles and max. A quantile is the least of the
          numbers that at least that share of them do not exceed.
        - popularity of items: Gini coefficient. The popularity of an item is the number of users with a value above 0.
          For the popularities p_1 <= ... <= p_n of all n items the coefficient is
          ``sum_j (2j - n - 1) p_j / (n sum_j p_j)``. It is 0 if all items are equally popular, and near 1 if a few
          items have all the likes.
        - most popular items: the popularity of each, by label. Ties: lower id first.

    Raises
    ------
    ValueError
        `top` is not an integer of at least 0.
    """
    require_integer(top, "top", 0)
    matrix = interactions.matrix
    n_users, n_items = matrix.shape
    per_user, per_item = np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=n_items)
    popularity = np.bincount(matrix.indices[matrix.data > 0], minlength=n_items)
    most_popular = np.argsort(-popularity, kind="stable")[:top]

    rows = [
        ("users", "count", n_users),
        ("users", "without entries", np.count_nonzero(per_user == 0)),
        ("items", "count", n_items),
        ("items", "without entries", np.count_nonzero(per_item == 0)),
        ("entries", "count", matrix.nnz),
        ("entries", "below zero", np.count_nonzero(matrix.data < 0)),
        ("entries", "density", matrix.nnz / (n_users * n_items) if n_users * n_items else np.nan),
        *_distribution("entries per user", per_user),
        *_distribution("entries per item", per_item),
        *_distribution("values", matrix.data),
        ("popularity of items", "Gini coefficient", _gini(popularity)),
        *(("most popular items", interactions.items[item], popularity[item]) for item in most_popular),
    ]
    return pd.DataFrame(rows, columns=["of", "statistic", "value"]).astype({"value": np.float64})


def plot(interactions: _HasEntries) -> "Figure":
    """Draw how many entries users and items have, on logarithmic axes.

    Parameters
    ----------
    interactions : Interactions

    Returns
    -------
    matplotlib.figure.Figure
        The curve of users shows, for each number of entries, how many users have at least as many. The curve of items
        does the same. Users and items without entries have no place on logarithmic axes: the legend gives their number.
        ``savefig`` writes the figure to a file.

    Raises
    ------
    ValueError
        There are no entries.
    ImportError
        matplotlib is not installed.
    """
    if not interactions.matrix.nnz:
        raise ValueError("interactions has no entries, so there is nothing to plot")
    drawn = figure(7, 5)
    axes = drawn.subplots()
    matrix = interactions.matrix
    per_item = np.bincount(matrix.indices, minlength=interactions.matrix.shape[1])
    for name, lengths in (("users", np.diff(matrix.indptr)), ("items", per_item)):
        length, count = np.unique(lengths[lengths > 0], return_counts=True)
        label = f"{lengths.size:,} {name}, {lengths.size - count.sum():,} of them without entries"
        axes.plot(length, np.cumsum(count[::-1])[::-1], ".", label=label)
    axes.set(xscale="log", yscale="log", xlabel="entries", ylabel="number with at least as many")
    axes.legend()
    return drawn


def _distribution(name: str, numbers: Ints) -> list[tuple[str, str, float]]:
    """Return the mean and the quantiles of `numbers` as rows of the summary."""
    shares = {"min": 0, "25%": 0.25, "50%": 0.5, "75%": 0.75, "90%": 0.9, "99%": 0.99, "max": 1}
    if not numbers.size:
        return [(name, statistic, np.nan) for statistic in ("mean", *shares)]
    quantiles = np.quantile(numbers, list(shares.values()), method="inverted_cdf")
    return [
        (name, "mean", numbers.mean(dtype=np.float64)),
        *((name, share, quantile) for share, quantile in zip(shares, quantiles, strict=True)),
    ]


def _gini(numbers: Ints) -> float:
    """Return the Gini coefficient of numbers >= 0; NaN if there are none, or if all are 0."""
    n, total = numbers.size, numbers.sum()
    if not total:
        return np.nan
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(numbers) / (n * total))
