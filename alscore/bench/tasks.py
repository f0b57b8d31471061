"""Seconds to recommend, to fold users in, to take in new plays, to read and to evaluate."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from alscore._support.arrays import Floats, Ints
from alscore.als import AlternatingLeastSquares
from alscore.bench import harness
from alscore.bench.benchmarks import Evaluate, FoldIn, InProcesses, Load, Task, TopN, Update
from alscore.bench.task_contenders import CONTENDERS
from alscore.datasets.lastfm import plays_file
from alscore.solvers.loss import calculate_loss

_TRAINING_SWEEPS = 5  # enough sweeps for norms and scores to be spread as in a finished model
_TIMES = 2  # measurements of each timed process, the first of which warms it up
_NEW_SHARE = 0.05  # of the entries, in `update`
_HELD_OUT_SHARE = 0.1  # of the entries, in `evaluate`

Outcome = dict[str, Any]
Results = dict[str, NDArray[Any]]  # the array that the timed function of each contender returned


def topn(plays: Any, contenders: Sequence[str] = TopN.contenders(), **options: Any) -> Outcome:
    """Time top-N search: the best items for many users, without the items that they have played.

    All contenders get the same factors.

    Parameters
    ----------
    plays : sparse matrix, shape (n_users, n_items)
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["topn"]``. "numpy" is brute force, and `one_by_one` does not
        change it.
    **options
        Fields of `alscore.bench.benchmarks.TopN`.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`. Each result has "users_per_second" and "first", the median seconds of the first
        measurement in each process, which counts nowhere else. If alscore is among the contenders, it also has
        "same_ids", the share of places that hold the same item as in the results of alscore.

    Raises
    ------
    TypeError, ValueError
        As from `alscore.bench.sweep`.
    """
    settings = harness.settings_of(TopN, options)
    plays = sparse.csr_matrix(plays)
    sample = _sample(plays, settings.users, settings.seed)
    save = _save_random if settings.random_factors else _save_trained
    prepare = functools.partial(save, plays, sample, settings)
    outcome, results = _measure(settings, contenders, prepare)
    if "alscore" in results:
        for row in outcome["results"]:
            row["same_ids"] = float((results[row["contender"]] == results["alscore"]).mean())
    return _per_user(outcome, plays, len(sample))


def foldin(plays: Any, contenders: Sequence[str] = FoldIn.contenders(), **options: Any) -> Outcome:
    """Time solving users from their rows on trained item factors.

    Parameters
    ----------
    plays
        As for `topn`.
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["foldin"]``. "alscore-half-sweep" does what training does for
        these rows, and so includes the Gram matrix and the rotation of all items.
    **options
        Fields of `alscore.bench.benchmarks.FoldIn`.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`. Each result has "users_per_second" and "first", as from `topn`.

    Raises
    ------
    TypeError, ValueError
        As from `alscore.bench.sweep`.
    """
    return folded_in(plays, contenders, harness.settings_of(FoldIn, options))[0]


def folded_in(plays: Any, contenders: Sequence[str], settings: FoldIn) -> tuple[Outcome, Results]:
    """Return what `foldin` returns, and the user factors of each contender."""
    plays = sparse.csr_matrix(plays)
    sample = _sample(plays, settings.users, settings.seed)
    prepare = functools.partial(_save_trained, plays, sample, settings)
    outcome, results = _measure(settings, contenders, prepare)
    return _per_user(outcome, plays, len(sample)), results


def load(path: Any, contenders: Sequence[str] = Load.contenders(), **options: Any) -> Outcome:
    """Time reading a file of Last.fm 360K into a sparse matrix.

    Parameters
    ----------
    path : str or path
        As for `alscore.datasets.lastfm_360k`. "pandas" cannot read an archive with more than one member.
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["load"]``. "bytes" only decompresses. "saved" opens what
        `Interactions.save` wrote of the same file.
    **options
        Fields of `alscore.bench.benchmarks.Load`.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`. Each result has "peak_bytes". All results except that of "bytes" have the "rows"
        read, "users", "items", "entries" and "rows_per_second".

    Raises
    ------
    FileNotFoundError
        There is no such file.
    TypeError, ValueError
        As from `alscore.bench.sweep`.
    """
    settings = harness.settings_of(Load, options)
    file = str(plays_file(path).resolve(strict=True))
    outcome, results = _measure(settings, contenders, lambda folder: None, path=file)
    for row in outcome["results"]:
        row |= dict(zip(("rows", "users", "items", "entries"), results[row["contender"]].tolist(), strict=False))
        if "rows" in row:
            row["rows_per_second"] = row["rows"] / row["median"]
    return outcome


def evaluate(plays: Any, contenders: Sequence[str] = Evaluate.contenders(), **options: Any) -> Outcome:
    """Time NDCG and recall on held-out entries: a tenth of the users' entries, which training does not see.

    Parameters
    ----------
    plays
        As for `topn`.
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["evaluate"]``.
    **options
        Fields of `alscore.bench.benchmarks.Evaluate`. `seed` also chooses the held-out entries.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`. Each result has "ndcg" and, if the contender computes it, "recall", the means
        over the users with held-out entries, and "users_per_second" of these users.

    Raises
    ------
    TypeError, ValueError
        As from `alscore.bench.sweep`.
    """
    settings = harness.settings_of(Evaluate, options)
    plays = sparse.csr_matrix(plays)
    users = np.repeat(np.arange(plays.shape[0]), np.diff(plays.indptr))
    held_out = np.random.default_rng(settings.seed).random(plays.nnz) < _HELD_OUT_SHARE
    held_out &= np.isin(users, _sample(plays, settings.users, settings.seed))
    test, train = (
        sparse.csr_matrix((plays.data[part], (users[part], plays.indices[part])), plays.shape)
        for part in (held_out, ~held_out)
    )
    n_evaluated = int(np.count_nonzero(np.diff(test.indptr)))

    def prepare(folder: str) -> None:
        sparse.save_npz(Path(folder, "test.npz"), test, compressed=False)
        _save_trained(train, np.arange(plays.shape[0]), settings, folder)

    outcome, results = _measure(settings, contenders, prepare)
    for row in outcome["results"]:
        row |= dict(zip(("ndcg", "recall"), results[row["contender"]].tolist(), strict=False))
    return _per_user(outcome, plays, n_evaluated)


def update(plays: Any, contenders: Sequence[str] = Update.contenders(), **options: Any) -> Outcome:
    """Time `partial_fit` when one entry in twenty is new, and a fit of all entries from the beginning.

    One user and one item in a hundred are new with all of their entries.

    Parameters
    ----------
    plays
        As for `topn`.
    contenders : sequence of str
        Keys of ``alscore.bench.task_contenders.CONTENDERS["update"]``.
    **options
        Fields of `alscore.bench.benchmarks.Update`. `sweeps` holds for both fits: of the older entries, untimed, and of
        all entries. `seed` also chooses the new entries of known users and items.

    Returns
    -------
    dict
        As from `alscore.bench.sweep`. Each result has the "objective" on all entries.

    Raises
    ------
    TypeError, ValueError
        As from `alscore.bench.sweep`.
    """
    settings = harness.settings_of(Update, options)
    plays = sparse.csr_matrix(plays)
    older = plays[: -(-99 * plays.shape[0] // 100), : -(-99 * plays.shape[1] // 100)].copy()
    kept_share = (1 - _NEW_SHARE) * plays.nnz / max(older.nnz, 1)
    older.data[np.random.default_rng(settings.seed).random(older.nnz) >= kept_share] = 0

    def prepare(folder: str) -> None:
        model = AlternatingLeastSquares(
            settings.factors, iterations=settings.sweeps, num_threads=settings.threads, random_state=settings.seed
        ).fit(older, show_progress=False)
        _save(plays, np.arange(plays.shape[0]), model.user_factors, model.item_factors, folder)

    outcome, results = _measure(settings, contenders, prepare)
    for row in outcome["results"]:
        X, Y = np.split(results[row["contender"]], [plays.shape[0]])
        row["objective"] = calculate_loss(plays, X, Y, AlternatingLeastSquares().regularization)
    return outcome | {"data": harness.shape(plays)}


def _per_user(outcome: Outcome, plays: Any, n_users: int) -> Outcome:
    """Add the users per second to each result, and the data to the outcome, in which the task has `n_users` queries."""
    for row in outcome["results"]:
        row["users_per_second"] = n_users / row["median"]
    return outcome | {"data": harness.shape(plays) | {"asked": n_users}}


def _sample(plays: Any, users: int | None, seed: int) -> Ints:
    """Return the ids of a random sample of `users` users, or of all users, ascending."""
    if users is None or users >= plays.shape[0]:
        return np.arange(plays.shape[0])
    return np.sort(np.random.default_rng(seed).choice(plays.shape[0], users, replace=False))


def _save_trained(plays: Any, users: Ints, settings: Task, folder: str) -> None:
    model = AlternatingLeastSquares(
        settings.factors, iterations=_TRAINING_SWEEPS, num_threads=settings.threads, random_state=settings.seed
    ).fit(plays, show_progress=False)
    _save(plays, users, model.user_factors, model.item_factors, folder)


def _save_random(plays: Any, users: Ints, settings: TopN, folder: str) -> None:
    rng = np.random.default_rng(settings.seed)
    X, Y = (rng.standard_normal((size, settings.factors), np.float32) for size in plays.shape)
    _save(plays, users, X, Y, folder)


def _save(plays: Any, users: Ints, X: Floats, Y: Floats, folder: str) -> None:
    sparse.save_npz(Path(folder, "plays.npz"), plays, compressed=False)
    for name, array in (("users", users), ("X", X), ("Y", Y)):
        np.save(Path(folder, f"{name}.npy"), array)


def _measure(
    settings: InProcesses,
    contenders: Sequence[str],
    prepare: Callable[[str], None],
    **conditions: Any,
) -> tuple[Outcome, Results]:
    """Run a task in a folder that `prepare` fills; return the outcome, and the result of each contender.

    `conditions` are passed to the contenders and stated in the outcome, as the settings are.
    """
    packages = {name: contender.package for name, contender in CONTENDERS[settings.name].items()}
    jobs, skipped = harness.find(contenders, packages, "task_contenders.py", settings.python or {}, settings.say)
    baseline = harness.chosen_baseline(settings.baseline, jobs)
    conditions = {"bench": settings.name} | conditions | settings.reported() | {"baseline": baseline}
    results: Results = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)

        def keep_result(name: str) -> dict[str, Any]:
            results[name] = np.load(Path(folder, f"{name}.result.npy"))
            return {}

        runs, _, failed = harness.inspect_and_time(jobs, folder, conditions, (1, _TIMES), keep_result, settings.say)
    compared = harness.compare_warm(runs, baseline)
    outcome = harness.outcome(conditions, runs, failed, skipped) | {
        "results": [{"contender": name, **row} for name, row in compared.items()],
        "noise": harness.noise(compared, baseline, settings.repeats),
    }
    return outcome, results
