"""Evaluation of models: metrics of each user, means with confidence intervals, and tests of two models."""

import functools
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from alscore import metrics as definitions
from alscore._core import ranking
from alscore._support.arrays import Doubles, Ints
from alscore._support.checks import require, require_integer
from alscore._support.figures import figure
from alscore._support.threads import one_blas_thread, resolve_threads
from alscore.interactions import Interactions
from alscore.metrics.rankings import (
    HeldOut,
    RankedHits,
    RankingOptions,
    positive_entries,
    progress_bar,
    ranked_batches,
    take_rows,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OF_SCORES = {"auc": definitions.area_under_curve, "mpr": definitions.percentile_rank}
_OF_COUNTS = {"coverage": definitions.covered, "gini": definitions.concentration}
_BLOCK_NUMBERS = 1 << 21  # random numbers of a block: 16 MB in float64

METRICS = (*definitions.AT_K, *_OF_SCORES, *_OF_COUNTS, "novelty", "diversity")


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The result of `evaluate`. ``evaluation["ndcg@10"]`` is the mean of a metric.

    Attributes
    ----------
    values : dict
        The metric of each user, by name ("ndcg@10", "auc"): float64 array (len(users),).
    catalogue : dict
        The metrics of all rankings together, by name ("coverage@10", "gini@10"): float.
    users : int64 array
        Row numbers of the users with test items, ascending.
    n_users_without_test : int
        Number of users without test items. They do not count.
    n_overlapping : int
        Number of test entries that were left out because the user has the item in `train`.
    weights : dict
        Weights of the users in the mean, by name, for metrics whose mean is weighted: for "mpr" the sum of each user's
        test values.
    test_checksum : int
        CRC-32 of the test entries that counted. `compare` uses it to see whether two evaluations have the same.
    """

    values: dict[str, Doubles]
    catalogue: dict[str, float]
    users: Ints
    n_users_without_test: int
    n_overlapping: int
    weights: dict[str, Doubles]
    test_checksum: int

    def mean(self, name: str) -> float:
        """Return the mean of a metric over the users, or the value of a metric of all rankings.

        Parameters
        ----------
        name : str
            Name and cut-off, such as "ndcg@10".

        Returns
        -------
        float

        Raises
        ------
        KeyError
            The metric was not evaluated.
        """
        if name in self.catalogue:
            return self.catalogue[name]
        if name not in self.values:
            raise KeyError(f"{name!r} was not evaluated; evaluated: {', '.join([*self.values, *self.catalogue])}")
        return float(np.average(self.values[name], weights=self.weights.get(name)))

    __getitem__ = mean

    def __repr__(self) -> str:
        means = ", ".join(f"{name} {self.mean(name):.4f}" for name in [*self.values, *self.catalogue])
        return f"Evaluation of {len(self.users):,} users, {self.n_users_without_test:,} others without test: {means}"

    def table(
        self, confidence: float = 0.95, *, n_resamples: int = 1000, random_state: int = 0, show_progress: bool = True
    ) -> pd.DataFrame:
        """Return the means with confidence intervals: percentile bootstrap over users.

        Parameters
        ----------
        confidence : float
            Confidence level of the intervals, above 0 and below 1.
        n_resamples : int
            Number of bootstrap samples, at least 1. Each draws as many users as there are, with replacement.
        random_state : int
            Seed. The same seed gives the same intervals.
        show_progress : bool
            Show a progress bar after two seconds.

        Returns
        -------
        pandas.DataFrame
            A row for each metric and cut-off. Columns: `metric`, `k` (Int64, NA for metrics without a cut-off), `mean`,
            `lower` and `upper` (NaN for metrics of all rankings together).

        Raises
        ------
        ValueError
            A parameter is out of range.
        """
        lower, upper = _interval(self.values, self.weights, confidence, n_resamples, random_state, show_progress)
        names = list(self.values)
        table = pd.DataFrame({"mean": {name: self.mean(name) for name in [*names, *self.catalogue]}})
        table.loc[names, "lower"], table.loc[names, "upper"] = lower, upper
        return _named(table)

    def plot(self, table: pd.DataFrame | None = None, *, show_progress: bool = True) -> "Figure":
        """Draw each metric over the cut-offs, with its confidence interval.

        Parameters
        ----------
        table : pandas.DataFrame, optional
            Result of `table`. Default: a table with 95 % intervals.
        show_progress : bool
            Show a progress bar after two seconds if the table must be computed.

        Returns
        -------
        matplotlib.figure.Figure
            Its method ``savefig`` writes a file.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        ValueError
            No metric has a cut-off.
        """
        require_cutoff(name.partition("@")[0] for name in [*self.values, *self.catalogue])
        table = self.table(show_progress=show_progress) if table is None else table
        by_metric = list(table.dropna(subset="k").groupby("metric", sort=False))
        drawn = figure(3.2 * len(by_metric), 3)
        for axes, (metric, curve) in zip(drawn.subplots(1, len(by_metric), squeeze=False)[0], by_metric, strict=True):
            cutoffs = curve["k"].astype(int)
            axes.plot(cutoffs, curve["mean"], ".-")
            axes.fill_between(cutoffs, curve["lower"], curve["upper"], alpha=0.3)
            axes.set(title=metric, xlabel="k", xticks=cutoffs)
        return drawn


def evaluate(
    model: Any,
    train: Any,
    test: Any,
    k: int | Iterable[int] = (10, 20, 50),
    metrics: Sequence[str] = ("ndcg", "recall", "precision", "map", "mrr", "coverage"),
    *,
    new_users: bool = False,
    on_overlap: str = "error",
    num_threads: int = 0,
    show_progress: bool = True,
) -> Evaluation:
    """Rank the items that each user does not have in `train`, and measure the rankings on the items in `test`.

    All items are ranked, exactly. Ties: lower id first. Results have the same bits for any number of threads.

    Parameters
    ----------
    model : object or function
        One of:

        - an object with float arrays `user_factors` (n_users, k) and `item_factors` (n_items, k), of this package or
          another. The scores are the inner products.
        - a `Recommender`: its model is evaluated.
        - an object with a method ``scores(user_items)``. It takes rows of `train` as a csr_matrix, and returns a float
          array (n, n_items).
        - a function of an int64 array (n,) of row numbers. It returns scores, a float array (n, n_items), or ranked
          ids, an int array (n, m) with m >= max(k): best first, without the items in the user's row of `train`, and -1
          in places without an item.

        An item with the score -inf is never ranked.
    train : sparse matrix, shape (n_users, n_items), or Interactions
        Known entries of the users. Their items are left out of the rankings.
    test : sparse matrix, shape (n_users, n_items), or Interactions
        Held-out entries of the same users. The entries above 0 are the test items.
    k : int or several
        Cut-offs, each at least 1.
    metrics : sequence of str
        Some of "ndcg", "ndcg_graded", "recall", "precision", "normalized_precision", "hit_rate", "map", "mrr",
        "coverage", "gini", "novelty", "diversity", and without a cut-off "auc" and "mpr": see `alscore.metrics`. The
        last three take much longer: "auc" and "mpr" need the scores of all items, "diversity" compares the users of
        all ranked items.
    new_users : bool
        Strong generalisation: the users are not those of `user_factors`. A model with factors folds them in from their
        rows of `train` by ``model.recalculate_user(users, rows)``. Other kinds of model are called as usual.
    on_overlap : {"error", "drop"}
        What to do with a test entry whose item is in the user's row of `train`, so that no ranking can contain it.
    num_threads : int
        0 means all CPUs of this process.
    show_progress : bool
        Show a progress bar after two seconds.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        The matrices differ in shape or labels, have an entry in common (unless `on_overlap` is "drop"), or there is no
        test item. Scores are NaN. Factors are not finite, or so large that scores may not be finite. Ranked ids are
        out of range, repeated, or in `train`. A metric is unknown.
    TypeError
        `model` is none of the kinds above, or `train` or `test` is not a sparse matrix.
    NotFittedError
        The model has no factors.

    Examples
    --------
    >>> from alscore import baselines, datasets, evaluate, splits
    >>> train, test = splits.leave_k_out(datasets.synthetic(500, 300, seed=0), 5)
    >>> popular = evaluate(baselines.MostPopular().fit(train), train, test, k=10, metrics="ndcg")
    >>> popular
    Evaluation of 500 users, 0 others without test: ndcg@10 0.0758
    """
    cutoffs, metrics = _checked_cutoffs(k), checked_metrics(metrics)
    require(on_overlap in ("error", "drop"), "on_overlap", "'error' or 'drop'", on_overlap)
    check_labels(train, test, "train and test", ("users", "items"))
    if getattr(type(model), "_is_recommender", False):  # its room stands above this one
        check_labels(model.interactions, train, "model and train", ("items",) if new_users else ("users", "items"))
        model = model.model
    held_out = HeldOut.of(train, test)
    if on_overlap == "error":
        held_out.refuse_overlap("leave them out of one part, or pass on_overlap='drop'")
    held_out = held_out.without_overlap()
    return evaluate_held_out(model, held_out, cutoffs, metrics, RankingOptions(new_users, num_threads, show_progress))


def evaluate_held_out(
    model: Any, held_out: HeldOut, cutoffs: Sequence[int], metrics: Sequence[str], options: RankingOptions
) -> Evaluation:
    """`evaluate` for arguments that are verified: ascending cut-offs, distinct names of metrics."""
    users, test = held_out.users, held_out.test
    n_users, n_items = test.shape
    per_user = _metrics_per_user(metrics, held_out.train, options.num_threads)
    of_scores = [name for name in metrics if name in _OF_SCORES]
    values = {f"{name}@{k}": np.empty(len(users)) for name in metrics if name in per_user for k in cutoffs}
    values |= {name: np.empty(len(users)) for name in of_scores}
    counts = {k: np.zeros(n_items, np.int64) for k in cutoffs}
    for batch in ranked_batches(model, held_out, cutoffs[-1], options, with_scores=bool(of_scores)):
        batch_test = take_rows(test, users[batch.at])
        ranked = RankedHits(batch.ids, batch_test, resolve_threads(options.num_threads, 64 * batch.ids.size))
        for k in cutoffs:
            counts[k] += definitions.counts(batch.ids, n_items, k)
            for name, metric in per_user.items():
                values[f"{name}@{k}"][batch.at] = metric(ranked, k)
        if batch.scores is not None:
            n_above = ranking.places(
                batch.scores, batch.seen.indptr, batch.seen.indices, batch_test.indptr, batch_test.indices,
                resolve_threads(options.num_threads, batch_test.nnz * n_items),
            )  # fmt: skip
            for name in of_scores:
                values[name][batch.at] = _OF_SCORES[name](n_above, batch_test, batch.seen)
    return Evaluation(
        values,
        {f"{name}@{k}": _OF_COUNTS[name](counts[k]) for name in metrics if name in _OF_COUNTS for k in cutoffs},
        users,
        n_users - len(users),
        held_out.n_dropped,
        {"mpr": np.add.reduceat(test.data, test.indptr[users])} if "mpr" in metrics else {},
        functools.reduce(lambda crc, array: zlib.crc32(array, crc), (test.indptr, test.indices, test.data), 0),
    )


def compare(
    a: Evaluation,
    b: Evaluation,
    confidence: float = 0.95,
    *,
    n_permutations: int = 10_000,
    n_resamples: int = 1000,
    random_state: int = 0,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Test whether two models differ, on the same users and test items.

    Parameters
    ----------
    a, b : Evaluation
        From `evaluate` with the same `train` and `test`.
    confidence, n_resamples, random_state, show_progress
        Same as for `Evaluation.table`. The interval is that of the difference.
    n_permutations : int
        Number of permutations of the paired permutation test, at least 1 (Fisher 1935; Smucker, Allan and Carterette
        2007). Under the null hypothesis the two values of a user may be exchanged. p is the share of the random
        exchanges, together with the observed assignment, whose absolute difference is at least the observed one. So
        p is never 0.

    Returns
    -------
    pandas.DataFrame
        A row for each metric of users that both evaluations have. Columns: `metric`, `k`, `mean_a`, `mean_b`,
        `difference` (a - b), `lower`, `upper` and `p_value`. If you test many rows, correct p for their number.

    Raises
    ------
    ValueError
        The users or their test items differ, or the evaluations have no metric of users in common.
    """
    require_integer(n_permutations, "n_permutations", 1)
    if not np.array_equal(a.users, b.users):
        raise ValueError("a and b have different users: evaluate both on the same train and test")
    if a.test_checksum != b.test_checksum:
        raise ValueError("a and b have different test items: evaluate both on the same train and test")
    differences = {name: a.values[name] - b.values[name] for name in a.values if name in b.values}
    if not differences:
        raise ValueError("a and b have no metric of users in common: evaluate both with the same metrics and k")
    lower, upper = _interval(differences, a.weights, confidence, n_resamples, random_state, show_progress)
    contributions = np.column_stack([values * a.weights.get(name, 1) for name, values in differences.items()])
    table = pd.DataFrame(
        {"mean_a": [a.mean(name) for name in differences], "mean_b": [b.mean(name) for name in differences]},
        index=list(differences),
    )
    table["difference"] = table["mean_a"] - table["mean_b"]
    table["lower"], table["upper"] = lower, upper
    table["p_value"] = _p_values(contributions, n_permutations, random_state, show_progress)
    return _named(table)


def checked_metrics(metrics: Sequence[str]) -> list[str]:
    """Return the distinct names of metrics, verified."""
    names = [metrics] if isinstance(metrics, str) else list(metrics) if np.iterable(metrics) else []
    require(len(names) > 0, "metrics", "one name or a list of names", metrics)
    for name in names:
        require(name in METRICS, "metrics", f"one of {', '.join(METRICS)}", name)
    return list(dict.fromkeys(names))


def require_cutoff(metrics: Iterable[str]) -> None:
    """Raise a ValueError if no metric of these has a cut-off."""
    if set(metrics) <= _OF_SCORES.keys():
        raise ValueError(f"{' and '.join(_OF_SCORES)} have no cut-off to draw them over: add another metric")


def _checked_cutoffs(k: int | Iterable[int]) -> list[int]:
    cutoffs = list(k) if np.iterable(k) else [k]
    require(len(cutoffs) > 0, "k", "one cut-off or several", k)
    for cutoff in cutoffs:
        require_integer(cutoff, "k", 1)
    return sorted(set(cutoffs))


def check_labels(a: Any, b: Any, what: str, names: tuple[str, ...]) -> None:
    """Raise a ValueError unless two Interactions have equal labels of `names`, some of "users" and "items"."""
    if isinstance(a, Interactions) and isinstance(b, Interactions):
        for name in names:
            if not getattr(a, name).equals(getattr(b, name)):
                raise ValueError(f"{what} have different {name}: take both from one split")


def _metrics_per_user(
    metrics: Sequence[str], train: sparse.csr_array, num_threads: int
) -> dict[str, Callable[[RankedHits, int], Doubles]]:
    """Return, by name, the functions of those metrics that have a cut-off and a value for each user."""
    functions = {name: definitions.AT_K[name] for name in metrics if name in definitions.AT_K}
    if "novelty" in metrics:
        information = definitions.self_information(positive_entries(train, "train"))
        functions["novelty"] = lambda ranked, k: definitions.mean_of_ranked(ranked.ids, information, k)
    if "diversity" in metrics:
        item_users, threads = definitions.transposed(positive_entries(train, "train")), resolve_threads(num_threads)

        @functools.lru_cache(1)  # all cut-offs of a batch use the same similarities
        def similarities(ranked: RankedHits) -> Doubles:
            return definitions.similarities(ranked.ids, item_users, threads)

        functions["diversity"] = lambda ranked, k: definitions.dissimilarity(ranked.ids, similarities(ranked), k)
    return functions


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its index, names such as "ndcg@10", split into the columns `metric` and `k`."""
    names = [name.partition("@") for name in table.index]
    table.insert(0, "metric", [metric for metric, _, _ in names])
    table.insert(1, "k", [int(k) if k else None for _, _, k in names])
    return table.astype({"k": "Int64"}).reset_index(drop=True)


def _interval(
    values: dict[str, Doubles],
    weights: dict[str, Doubles],
    confidence: float,
    n_resamples: int,
    random_state: int,
    show_progress: bool,
) -> Doubles:
    """Return the ends of the percentile bootstrap interval of each mean: float64 array (2, len(values))."""
    require(0 < confidence < 1, "confidence", "above 0 and below 1", confidence)
    require_integer(n_resamples, "n_resamples", 1)
    if not values:
        return np.empty((2, 0))
    user_weights = np.column_stack([weights.get(name, np.ones(len(each))) for name, each in values.items()])
    summands = np.column_stack([np.column_stack(list(values.values())) * user_weights, user_weights])
    n = len(summands)

    def resample(rng: np.random.Generator, n_draws: int) -> Doubles:
        return np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(n_draws)]).astype(float)

    sums = _random_sums(resample, summands, n_resamples, random_state, "resample", show_progress)
    means = sums[:, : len(values)] / sums[:, len(values) :]
    return np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


def _p_values(contributions: Doubles, n_permutations: int, random_state: int, show_progress: bool) -> Doubles:
    def exchange(rng: np.random.Generator, n_draws: int) -> Doubles:
        return rng.integers(0, 2, (n_draws, len(contributions)), np.int8) * 2.0 - 1

    sums = _random_sums(exchange, contributions, n_permutations, random_state, "permutation", show_progress)
    observed = np.abs(contributions.sum(axis=0)) * (1 - 1e-12)  # a sum in another order rounds otherwise
    as_large: Ints = np.count_nonzero(np.abs(sums) >= observed, axis=0)
    return (1 + as_large) / (1 + n_permutations)


def _random_sums(
    draw: Callable[[np.random.Generator, int], Doubles],
    summands: Doubles,
    n_draws: int,
    random_state: int,
    unit: str,
    show_progress: bool,
) -> Doubles:
    """Return ``draw(rng, n_draws) @ summands``, computed in blocks: the first factor is large."""
    rng, block = np.random.default_rng(random_state), max(1, _BLOCK_NUMBERS // len(summands))
    out = np.empty((n_draws, summands.shape[1]))
    with one_blas_thread(), progress_bar(n_draws, show_progress, unit) as progress:
        for start in range(0, n_draws, block):
            n = min(block, n_draws - start)
            out[start : start + n] = draw(rng, n) @ summands
            progress.update(n)
    return out
