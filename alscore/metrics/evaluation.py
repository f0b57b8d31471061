"""How good a model's rankings are: metrics of every user, means with intervals, and whether two models differ."""

import functools
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alscore import metrics as definitions
from alscore._core import ranking
from alscore._data.user_items import matrix_of, part_of
from alscore._support.arrays import Doubles, Ints
from alscore._support.checks import require, require_integer
from alscore._support.figures import figure
from alscore._support.threads import one_blas_thread, resolve_threads
from alscore.interactions import Interactions
from alscore.metrics.rankings import Judged, judgeable, overlap, ranked_batches, refuse_overlap, relevant, rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_OF_SCORES = {"auc": definitions.area_under_curve, "mpr": definitions.percentile_rank}
_OF_COUNTS = {"coverage": definitions.covered, "gini": definitions.concentration}
_DRAWN = 1 << 21  # random numbers in memory at a time

METRICS = (*definitions.AT_K, *_OF_SCORES, *_OF_COUNTS, "novelty", "diversity")


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What `evaluate` found. ``evaluation["ndcg@10"]`` is the mean of a metric.

    Attributes
    ----------
    values : dict
        By name, "ndcg@10" or "auc", the metric of each user: float64 array (n_judged,).
    catalogue : dict
        By name, "coverage@10" or "gini@10", what is about all rankings together: float.
    users : int64 array, shape (n_judged,)
        Row numbers of the users with test items, ascending.
    n_users_without_test : int
        The others, who do not count.
    n_overlapping : int
        Test entries that were left out, since the user has the item in train.
    weights : dict
        By name, what the mean weighs users by, where not all alike: for "mpr" the sum of their test values.
    test_checksum : int
        CRC-32 of the test entries that counted, by which `compare` knows them again.
    """

    values: dict[str, Doubles]
    catalogue: dict[str, float]
    users: Ints
    n_users_without_test: int
    n_overlapping: int
    weights: dict[str, Doubles]
    test_checksum: int

    def mean(self, name: str) -> float:
        """The figure of one metric.

        Parameters
        ----------
        name : str
            Such as "ndcg@10".

        Returns
        -------
        float

        Raises
        ------
        KeyError
            It was not asked for.
        """
        if name in self.catalogue:
            return self.catalogue[name]
        if name not in self.values:
            raise KeyError(f"{name!r} was not evaluated; there are {', '.join([*self.values, *self.catalogue])}")
        return float(np.average(self.values[name], weights=self.weights.get(name)))

    __getitem__ = mean

    def __repr__(self) -> str:
        means = ", ".join(f"{name} {self.mean(name):.4f}" for name in [*self.values, *self.catalogue])
        return f"Evaluation of {len(self.users):,} users, {self.n_users_without_test:,} others without test: {means}"

    def table(
        self, confidence: float = 0.95, *, n_resamples: int = 1000, random_state: int = 0, show_progress: bool = True
    ) -> "pd.DataFrame":
        """Means and their intervals: percentile bootstrap over users.

        Parameters
        ----------
        confidence : float
            Of the interval, above 0 and below 1.
        n_resamples : int
            Samples of as many users, with replacement.
        random_state : int
        show_progress : bool
            After two seconds.

        Returns
        -------
        pandas.DataFrame
            A row for each metric and cut-off: `metric`, `k` (Int64, NA without cut-off), `mean`, `lower` and `upper`;
            NaN for what is no mean over users.
        """
        import pandas as pd

        lower, upper = _interval(self.values, self.weights, confidence, n_resamples, random_state, show_progress)
        names = list(self.values)
        table = pd.DataFrame({"mean": {name: self.mean(name) for name in [*names, *self.catalogue]}})
        table.loc[names, "lower"], table.loc[names, "upper"] = lower, upper
        return _named(table)

    def plot(self, table: "pd.DataFrame | None" = None, *, show_progress: bool = True) -> "Figure":
        """Draw each metric over the cut-offs, with its interval.

        Parameters
        ----------
        table : pandas.DataFrame, optional
            What `table` returned; by default it is made, with 95 % intervals.
        show_progress : bool
            Of making it, after two seconds.

        Returns
        -------
        matplotlib.figure.Figure
            ``savefig`` writes it.

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
    """Rank what each user does not have yet, and judge the rankings by what the user turned out to like.

    All items are ranked, exactly; of equal scores the lower code is first. Results have the same bits on any number of
    threads.

    Parameters
    ----------
    model : object or function
        One of: an object with float arrays `user_factors` (n_users, k) and `item_factors` (n_items, k), whose inner
        products are the scores, of this package or another; one with a method ``scores(user_items)`` from rows of
        `train`, a csr_matrix, to a float array (n, n_items); a function from an int64 array (n,) of row numbers to such
        an array, or to ranked ids, an int array (n, m) of at least max(k) columns, best first, without the items that
        the user has, and -1 where there are no more; a Recommender, whose model is asked. A score of -inf means never
        to rank the item.
    train : sparse matrix, shape (n_users, n_items), or Interactions
        What is known of the users: all entries are left out of their rankings.
    test : sparse matrix, shape (n_users, n_items), or Interactions
        What they should find: entries above 0.
    k : int or several
        Cut-offs, each at least 1.
    metrics : sequence of str
        Some of "ndcg", "ndcg_graded", "recall", "precision", "normalized_precision", "hit_rate", "map", "mrr",
        "coverage", "gini", "novelty", "diversity", and without cut-off "auc" and "mpr": see `alscore.metrics`. The last
        three take much longer, as all items must be scored, or all their users compared.
    new_users : bool
        Strong generalisation: `user_factors` are of other users, and these are solved from their rows of `train` by
        ``model.recalculate_user(users, rows)``. The other kinds of model are asked as ever.
    on_overlap : {"error", "drop"}
        What becomes of a test entry whose item the user has in `train`, where no ranking can have it.
    num_threads : int
        0 takes all CPUs of this process.
    show_progress : bool
        After two seconds.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        Matrices of different shapes or labels, an item of a user in both of them, no test item at all, scores that are
        NaN, factors that are not finite or so large that scores may not be, rankings with ids out of range, repeated or
        known already, or an unknown metric.
    TypeError
        `model` is none of the above, or a part is no sparse matrix.
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
    if isinstance(getattr(model, "interactions", None), Interactions):  # as of a Recommender: labels beside a model
        check_labels(model.interactions, train, "model and train", ("items",) if new_users else ("users", "items"))
        model = model.model
    train, test = matrix_of(train), relevant(test)
    users = judgeable(train, test)
    shared = overlap(test, train)
    if on_overlap == "error":
        refuse_overlap(test, shared, "leave them out of one part, or pass on_overlap='drop'")
    elif shared.any():
        test = part_of(test, test, ~shared)
        users = judgeable(train, test)

    measures = _measures(metrics, train, num_threads)
    scored = [name for name in metrics if name in _OF_SCORES]
    values = {f"{name}@{at}": np.empty(len(users)) for name in metrics if name in measures for at in cutoffs}
    values |= {name: np.empty(len(users)) for name in scored}
    counts = {at: np.zeros(test.shape[1], np.int64) for at in cutoffs}
    for batch in ranked_batches(
        model, train, users, cutoffs[-1], with_scores=bool(scored), new_users=new_users, num_threads=num_threads,
        show_progress=show_progress,
    ):  # fmt: skip
        wanted = rows(test, users[batch.at])
        judged = Judged(batch.ids, wanted, resolve_threads(num_threads, 64 * batch.ids.size))
        for at in cutoffs:
            counts[at] += definitions.counts(batch.ids, test.shape[1], at)
            for name, measure in measures.items():
                values[f"{name}@{at}"][batch.at] = measure(judged, at)
        if batch.scores is not None:
            places = ranking.places(
                batch.scores, batch.seen.indptr, batch.seen.indices, wanted.indptr, wanted.indices,
                resolve_threads(num_threads, wanted.nnz * test.shape[1]),
            )  # fmt: skip
            for name in scored:
                values[name][batch.at] = _OF_SCORES[name](places, wanted, batch.seen)
    return Evaluation(
        values,
        {f"{name}@{at}": _OF_COUNTS[name](counts[at]) for name in metrics if name in _OF_COUNTS for at in cutoffs},
        users,
        test.shape[0] - len(users),
        int(np.count_nonzero(shared)),
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
) -> "pd.DataFrame":
    """Whether two models differ on the same users and test items.

    Parameters
    ----------
    a, b : Evaluation
        From `evaluate` with the same `train` and `test`.
    confidence, n_resamples, random_state, show_progress
        As for `Evaluation.table`; the interval is that of the difference.
    n_permutations : int
        Of the paired permutation test (Fisher 1935; Smucker, Allan and Carterette 2007): under the null hypothesis the
        two figures of a user may as well be exchanged. p is the share of random exchanges, and of the observed one,
        that give an absolute difference at least as large, so that it is never 0.

    Returns
    -------
    pandas.DataFrame
        A row for each metric of users that both have: `metric`, `k`, `mean_a`, `mean_b`, `difference` (a - b), `lower`,
        `upper` and `p_value`. Who reads many rows should correct p for their number.

    Raises
    ------
    ValueError
        The users or their test items are not the same, or no metric is.
    """
    import pandas as pd

    require_integer(n_permutations, "n_permutations", 1)
    if not np.array_equal(a.users, b.users):
        raise ValueError("a and b judge different users: evaluate both on the same train and test")
    if a.test_checksum != b.test_checksum:
        raise ValueError("a and b judge by different test items: evaluate both on the same train and test")
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
    """Distinct names of metrics, verified."""
    names = [metrics] if isinstance(metrics, str) else list(metrics) if np.iterable(metrics) else []
    require(len(names) > 0, "metrics", "a name or several", metrics)
    for name in names:
        require(name in METRICS, "metrics", f"of {', '.join(METRICS)}", name)
    return list(dict.fromkeys(names))


def require_cutoff(metrics: Iterable[str]) -> None:
    """Raise a ValueError if none of these metrics has a cut-off."""
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


def _measures(metrics: Sequence[str], train: Any, num_threads: int) -> dict[str, Callable[[Judged, int], Doubles]]:
    """By name, the metrics at a cut-off that each user has."""
    measures = {name: definitions.AT_K[name] for name in metrics if name in definitions.AT_K}
    if "novelty" in metrics:
        information = definitions.self_information(relevant(train, "train"))
        measures["novelty"] = lambda judged, k: definitions.mean_of_ranked(judged.ids, information, k)
    if "diversity" in metrics:
        item_users, threads = definitions.transposed(relevant(train, "train")), resolve_threads(num_threads)

        @functools.lru_cache(1)  # of one batch, for all cut-offs
        def similarities(judged: Judged) -> Doubles:
            return definitions.similarities(judged.ids, item_users, threads)

        measures["diversity"] = lambda judged, k: definitions.unlikeness(judged.ids, similarities(judged), k)
    return measures


def _named(table: "pd.DataFrame") -> "pd.DataFrame":
    """Split an index of names such as "ndcg@10" into the columns `metric` and `k`."""
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
    """Ends of the percentile bootstrap interval of each mean, float64 (2, n_values)."""
    require(0 < confidence < 1, "confidence", "above 0 and below 1", confidence)
    require_integer(n_resamples, "n_resamples", 1)
    if not values:
        return np.empty((2, 0))
    of_user = np.column_stack([weights.get(name, np.ones(len(each))) for name, each in values.items()])
    sums = np.column_stack([np.column_stack(list(values.values())) * of_user, of_user])
    n = len(sums)

    def resampled(rng: np.random.Generator, some: int) -> Doubles:
        return np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(some)]).astype(float)

    found = _in_blocks(resampled, sums, n_resamples, random_state, "resample", show_progress)
    means = found[:, : len(values)] / found[:, len(values) :]
    return np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


def _p_values(contributions: Doubles, n_permutations: int, random_state: int, show_progress: bool) -> Doubles:
    def exchanged(rng: np.random.Generator, some: int) -> Doubles:
        return rng.integers(0, 2, (some, len(contributions)), np.int8) * 2.0 - 1

    found = _in_blocks(exchanged, contributions, n_permutations, random_state, "permutation", show_progress)
    observed = np.abs(contributions.sum(axis=0)) * (1 - 1e-12)  # sums in another order round otherwise
    as_large: Ints = np.count_nonzero(np.abs(found) >= observed, axis=0)
    return (1 + as_large) / (1 + n_permutations)


def _in_blocks(
    draw: Callable[[np.random.Generator, int], Doubles],
    values: Doubles,
    times: int,
    random_state: int,
    unit: str,
    show_progress: bool,
) -> Doubles:
    """``draw(rng, times) @ values``, with a few rows of the large first factor at a time."""
    from tqdm import tqdm

    rng, block = np.random.default_rng(random_state), max(1, _DRAWN // len(values))
    out = np.empty((times, values.shape[1]))
    with one_blas_thread(), tqdm(total=times, disable=not show_progress, delay=2, unit=unit) as progress:
        for start in range(0, times, block):
            some = min(block, times - start)
            out[start : start + some] = draw(rng, some) @ values
            progress.update(some)
    return out
